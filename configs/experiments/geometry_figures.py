"""Do batches by the geometry of gradients beat random? On drawn figures as of videos.

    python -m jalpose.experiment --config=configs/experiments/geometry_figures.py

100 labelled figures in everyday poses; a pool of 4,000 in sequences of 15 near copies
on average, most frames in a few long ones, one sequence in ten in a rare pose; a test
set in which half are. Five batches of 50 out of 2,000, each network from new weights,
ten seeds. Embedding or gradients times core-set, k-means++ and LCMD, LCMD on predicted
poses, random, and EGL++'s highest scores, alone and spread.

A pilot says which difference can be seen before any method is looked at, two draws of
random against each other: in a workdir of its own with

    --config.experiment.methods="('random', 'random_again')"
    --config.experiment.full=False
"""

from jalpose.loop.configs import experiment

SPREADING = ("coreset", "kmeanspp", "lcmd")
VARIANTS = {
    "random_again": ("random", "seeds.acquire=1000"),
    "eglpp_spread": ("eglpp", "acquisition.diverse=lcmd"),
    "lcmd_prediction": ("lcmd", "acquisition.lcmd.space=prediction"),
    **{
        f"{name}_gradients": (name, f"acquisition.{name}.space=gradients")
        for name in SPREADING
    },
}
SCALES = {
    "tiny": {"data.frames": 4},
    "small": {
        "data.size": 64,
        "data.initial": 100,
        "data.pool": 4000,
        "data.test": 600,
        "model.channels": 32,
        "model.depth": 3,
        "training.batch": 8,
        "training.learning_rate": 1e-2,
        "training.base_steps": 600,
        "training.cycle_steps": 600,
        "evaluation.block": 40,
        "acquisition.budget": 50,
        "acquisition.pool_subset": 2000,
        "acquisition.eglpp.neighbours": 9,
        "acquisition.eglpp.perplexity": 3.0,
        "loop.cycles": 5,
    },
    "paper": {"data.pool": 11000, "data.test": 1000},
}

get_config = experiment(
    "figures",
    (
        "random",
        *SPREADING,
        *(f"{name}_gradients" for name in SPREADING),
        "lcmd_prediction",
        "eglpp",
        "eglpp_spread",
    ),
    range(10),
    name="geometry_figures",
    delta={
        "data.rare": 0.1,
        "data.rare_test": 0.5,
        "data.frames": 15,
        "data.frames_spread": 1.5,
        "training.start": "fresh",
    },
    scales=SCALES,
    scale="small",
    variants=VARIANTS,
)
