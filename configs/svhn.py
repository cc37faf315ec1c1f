"""House numbers (SVHN), a tenth labelled at random, with any method.

    python -m jalpose.main --config=configs/svhn.py:method=coreset,scale=small

Gradnorm's protocol, and the scales are as those of configs/cifar10.py: from 7,326
labels to 29,304 by 3,663, without the extra training set. Digits are not mirrored.
"""

from jalpose.loop.configs import benchmark

get_config = benchmark("svhn", task="classification", method="entropy_gradnorm")
