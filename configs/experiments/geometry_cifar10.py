"""Do batches by the geometry of gradients beat random? On CIFAR-10 with rare classes.

    python -m jalpose.experiment --config=configs/experiments/geometry_cifar10.py

200 labelled images, batches of 150 out of 5,000 of a pool in which half of the classes
are 20 times rarer than the others, each network from new weights, ten seeds; the test
set is balanced. With --config.data.rare_classes="()" the pool is too. The methods are
those of geometry_figures.py and BADGE, and so is the pilot.
"""

from jalpose.loop.configs import experiment

SPREADING = ("coreset", "kmeanspp", "lcmd")
VARIANTS = {
    "random_again": ("random", "seeds.acquire=1000"),
    "entropy_spread": ("softmax_entropy", "acquisition.diverse=lcmd"),
    **{
        f"{name}_gradients": (name, f"acquisition.{name}.space=gradients")
        for name in SPREADING
    },
}
SCALES = {
    "tiny": {},
    "small": {
        "data.initial": 200,
        "data.test": 2000,
        "training.base_steps": 400,
        "training.cycle_steps": 400,
        "acquisition.budget": 150,
        "acquisition.pool_subset": 5000,
    },
    "paper": {},
}

get_config = experiment(
    "cifar10",
    (
        "random",
        *SPREADING,
        *(f"{name}_gradients" for name in SPREADING),
        "badge",
        "softmax_entropy",
        "entropy_spread",
    ),
    range(10),
    name="geometry_cifar10",
    task="classification",
    delta={
        "data.rare_classes": ("airplane", "automobile", "bird", "cat", "deer"),
        "data.rare_share": 0.05,
        "training.start": "fresh",
    },
    scales=SCALES,
    scale="small",
    variants=VARIANTS,
)
