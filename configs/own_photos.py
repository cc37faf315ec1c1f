"""Your own images, of any skeleton: what is to be labelled next, by any method.

    python -m jalpose.main --config=configs/own_photos.py --config.data.dir=photos

The folder holds an annotation file (COCO, DeepLabCut, Label Studio, CVAT, SLEAP) or a
DeepLabCut project; config.data.photos.pool names the images that nobody has labelled: a
folder, a COCO file or a CSV of boxes. Without, the labelled images are split, and the
run is a simulation: what choosing would have saved. See jalpose/tasks/README.md, and
`python -m jalpose.check` first.

scale=small (the default): minutes a cycle on two CPU cores. scale=tiny: to see that
everything works. scale=paper: the full network, for a GPU.
"""

from jalpose.loop.configs import benchmark

get_config = benchmark("photos", method="lcmd", name="own_photos", scale="small")
