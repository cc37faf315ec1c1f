"""Four methods with five seeds on drawn figures: no data needed.

    python -m jalpose.experiment --config=configs/experiments/figures.py

The labelled set holds everyday poses, the pool and the test set rarer ones as well;
each seed draws figures of its own. scale=small (the default): under half an hour on two
CPU cores. scale=tiny: to see that everything works. scale=paper: for GPUs, a part each
with --shard=1/5 to --shard=5/5.
"""

from jalpose.loop.configs import experiment

SCALES = {
    "tiny": {},
    "small": {
        "data.size": 64,
        "data.initial": 150,
        "data.pool": 600,
        "data.test": 400,
        "model.channels": 32,
        "model.depth": 3,
        "training.batch": 8,
        "training.learning_rate": 1e-2,
        "training.base_steps": 700,
        "training.cycle_steps": 150,
        "evaluation.block": 40,
        "acquisition.budget": 60,
        "acquisition.pool_subset": 200,
        "acquisition.eglpp.neighbours": 15,
        "acquisition.eglpp.perplexity": 10.0,
        "acquisition.learning_loss.steps": 150,
        "loop.cycles": 3,
    },
    "paper": {"data.pool": 11000, "data.test": 1000},
}


get_config = experiment(
    "figures",
    ("random", "coreset", "learning_loss", "eglpp"),
    (0, 1, 2, 3, 4),
    delta={"data.rare": 0.4},
    scales=SCALES,
    scale="small",
)
