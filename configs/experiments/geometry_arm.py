"""Do batches by the geometry of gradients beat random? On postures of an arm.

    python -m jalpose.experiment --config=configs/experiments/geometry_arm.py

How far an arm of four joints reaches, from their angles: a drawn stream of 4,000 rows
in sequences of near copies, most of them in a few long ones, one sequence in ten of
rare postures; half of the test set is of such. 50 labelled rows, five batches of 25 out
of 2,000, each network from new weights, ten seeds; a run takes seconds. Embedding or
gradients of all layers times core-set and LCMD, random, and EGL's highest scores, alone
and spread over gradients. Further methods are kmeanspp and kmeanspp_gradients.

A pilot says which difference can be seen before any method is looked at, two draws of
random against each other, in a workdir of its own:

    --config.experiment.methods="('random', 'random_again')"

--config.experiment.methods="('random', 'coreset', 'lcmd_gradients')" takes minutes.
"""

from jalpose.loop.configs import experiment

VARIANTS = {
    "random_again": ("random", "seeds.acquire=1000"),
    "egl_spread": (
        "egl_regression",
        "acquisition.diverse=lcmd",
        "acquisition.lcmd.space=gradients",
    ),
    **{
        f"{name}_gradients": (name, f"acquisition.{name}.space=gradients")
        for name in ("coreset", "kmeanspp", "lcmd")
    },
}
SCALES = {
    "tiny": {},
    "small": {
        "data.initial": 50,
        "training.base_steps": 1000,
        "training.cycle_steps": 1000,
        "acquisition.budget": 25,
        "acquisition.pool_subset": 2000,
        "loop.cycles": 5,
    },
    "paper": {},
}

get_config = experiment(
    "arm",
    (
        "random",
        "coreset",
        "lcmd",
        "coreset_gradients",
        "lcmd_gradients",
        "egl_regression",
        "egl_spread",
    ),
    range(10),
    name="geometry_arm",
    task="regression",
    scales=SCALES,
    scale="small",
    variants=VARIANTS,
)
