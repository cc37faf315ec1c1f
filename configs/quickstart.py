"""EGL++ against random on drawn figures: no data needed.

    python -m jalpose.main --config=configs/quickstart.py

The labelled set holds everyday poses, the pool and the test set rarer ones as well.
scale=small (the default): minutes on two CPU cores; PCK@0.2 63 % of the
base model (mean pose 40 %), 65 % after three cycles. scale=tiny: seconds, to
see that everything works. scale=paper: the papers' network and numbers, for a GPU.
"""

from jalpose.loop.configs import benchmark

get_config = benchmark(
    "figures",
    name="quickstart",
    delta={"data.rare": 0.4, "loop.compare": ("random",)},
    scale="small",
)
