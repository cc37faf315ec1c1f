"""CIFAR-10 by Learning Loss's protocol, with any method.

    python -m jalpose.main --config=configs/cifar10_learning_loss.py:scale=small

scale=paper (the default): ResNet-18 for 200 epochs a cycle, from 1,000 labels to 10,000
by 1,000, each time out of a random 10,000; two zeros a side, as the paper's text says.
The other scales are as those of configs/cifar10.py.
"""

from jalpose.loop.configs import benchmark

get_config = benchmark(
    "cifar10_learning_loss",
    task="classification",
    method="learning_loss",
)
