"""CIFAR-10, labelled at random at the start, with any method.

python -m jalpose.main --config=configs/cifar10.py:method=entropy_gradnorm,scale=small
"""

from jalpose.loop.configs import benchmark

get_config = benchmark("cifar10", task="classification", method="entropy_gradnorm")
