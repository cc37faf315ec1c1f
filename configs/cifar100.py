"""CIFAR-100, a tenth labelled at random, with any method: gradnorm's protocol.

    python -m jalpose.main --config=configs/cifar100.py:method=coreset,scale=small

As configs/cifar10.py, which says what the scales are; scale=small goes from 1,000
labels to 3,500 by 500, each time out of 2,000. `--config.data.cifar.labels=coarse` has
the 20 coarse classes.
"""

from jalpose.loop.configs import benchmark

get_config = benchmark("cifar100", task="classification", method="entropy_gradnorm")
