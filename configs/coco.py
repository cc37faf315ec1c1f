"""COCO's people, a part of the training set labelled at random, with any method.

    python -m jalpose.main --config=configs/coco.py:method=coreset,scale=small

The data folder holds coco/annotations/person_keypoints_{train,val}2017.json and the
images in coco/{train,val}2017/. Where only the validation set is there, it is split.
Crops by the people's boxes; scored by COCO's average precision, with those boxes. The
scales are as those of configs/lsp.py; scale=tiny runs on some dozen images.
"""

from jalpose.loop.configs import benchmark

get_config = benchmark("coco")
