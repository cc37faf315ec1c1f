"""ImageNet, a tenth labelled at random, with any method: gradnorm's protocol.

    python -m jalpose.main --config=configs/imagenet.py:method=coreset,scale=small

scale=paper (the default): VGG-16 with batch norm on 224 pixels, from 128,117 labels to
384,349 by 64,058. scale=small: a narrow VGG-11 on 64 pixels, from 5,000 labels by 2,500
out of 5,000. scale=tiny: to see that everything works.
"""

from jalpose.loop.configs import benchmark

get_config = benchmark(
    "imagenet", task="classification", method="entropy_gradnorm", model="vgg"
)
