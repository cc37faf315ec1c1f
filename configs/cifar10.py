"""CIFAR-10, a tenth labelled at random, with any method: gradnorm's protocol.

    python -m jalpose.main --config=configs/cifar10.py:method=coreset,scale=small

scale=paper (the default): ResNet-18 for 200 epochs a cycle, from 5,000 labels to 20,000
by 2,500, each time out of a random 25,000, for a GPU or TPU. scale=small: a narrow
ResNet-8 from 500 labels to 3,000 by 500, each time out of 5,000, minutes on two CPU
cores. scale=tiny: to see that everything works. What is changed for this benchmark
stands in jalpose/tasks/classification/settings.py.
"""

from jalpose.loop.configs import benchmark

get_config = benchmark("cifar10", task="classification", method="entropy_gradnorm")
