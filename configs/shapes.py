"""Drawn shapes of eight classes, by any method: no data needed.

    python -m jalpose.main --config=configs/shapes.py:method=coreset

scale=small (the default): a narrow ResNet-8 from 200 labels to 500 by 100, each time
out of 1,000, minutes on two CPU cores. scale=tiny: to see that everything works.
scale=paper: ResNet-18 and the lengths of configs/cifar10.py, for a GPU.
"""

from jalpose.loop.configs import benchmark

get_config = benchmark(
    "shapes", task="classification", method="entropy_gradnorm", scale="small"
)
