"""EGL++ against random on drawn figures: no data needed.

    python -m jalpose.main --config=configs/quickstart.py

The labelled set holds everyday poses, the pool and the test set rarer ones as well.
scale=small (the default): minutes on two CPU cores; PCK@0.2 63 % of the
base model (mean pose 40 %), 65 % after three cycles. scale=tiny: seconds, to
see that everything works. scale=paper: the papers' network and numbers, for a GPU.
"""

from jalpose.loop.configs import benchmark

SCALES = {
    "tiny": {},
    "small": {
        "data.size": 64,
        "data.initial": 300,
        "data.pool": 600,
        "data.test": 400,
        "model.channels": 48,
        "model.depth": 3,
        "training.batch": 8,
        "training.learning_rate": 1e-2,
        "training.base_steps": 1400,
        "training.cycle_steps": 300,
        "evaluation.block": 40,
        "acquisition.budget": 60,
        "acquisition.pool_subset": 200,
        "acquisition.eglpp.neighbours": 15,
        "acquisition.eglpp.perplexity": 10.0,
    },
    "paper": {"data.pool": 11000, "data.test": 1000},
}


get_config = benchmark(
    "figures",
    name="quickstart",
    delta={"data.rare": 0.4, "loop.compare": ("random",)},
    scales=SCALES,
    scale="small",
)
