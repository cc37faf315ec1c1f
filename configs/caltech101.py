"""Caltech-101, a tenth labelled at random, with any method: gradnorm's protocol.

    python -m jalpose.main --config=configs/caltech101.py:method=coreset,scale=small

scale=paper (the default): the original ResNet-18 on 224 pixels, from 868 labels to
3,472 by 434. scale=small: a narrow ResNet-8 on 64 pixels, from 300 labels to 800.
scale=tiny: to see that everything works.
"""

from jalpose.loop.configs import benchmark

get_config = benchmark("caltech101", task="classification", method="entropy_gradnorm")
