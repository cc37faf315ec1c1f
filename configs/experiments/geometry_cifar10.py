"""Do batches by the geometry of gradients beat random? On CIFAR-10.

    python -m jalpose.experiment --config=configs/experiments/geometry_cifar10.py

500 labelled images, three batches of 300 out of 2,500, ten seeds: a narrow ResNet-8
goes on from its weights in each cycle, and the test set is balanced. BADGE and LCMD
choose by gradients of all layers, entropy by the highest scores, entropy_spread the
best quarter of these spread by LCMD over gradients. With fresh weights this network is
not trained long enough for more labels to show (37.9, 37.7, 37.1 % on a seed apart).

A pilot says which difference can be seen before any method is looked at, two draws of
random against each other, in a workdir of its own:

    --config.experiment.methods="('random', 'random_again')"

Further methods of the ablation are coreset, kmeanspp and lcmd, and these with
_gradients behind their names; classes are made 20 times rarer by
--config.data.rare_classes="('airplane', 'bird')" --config.data.rare_share=0.05.
"""

from jalpose.loop.configs import experiment

SPREADING = ("coreset", "kmeanspp", "lcmd")
VARIANTS = {
    "random_again": ("random", "seeds.acquire=1000"),
    "entropy_spread": (
        "softmax_entropy",
        "acquisition.diverse=lcmd",
        "acquisition.lcmd.space=gradients",
    ),
    **{
        f"{name}_gradients": (name, f"acquisition.{name}.space=gradients")
        for name in SPREADING
    },
}
SCALES = {
    "tiny": {},
    "small": {
        "data.initial": 500,
        "data.test": 2000,
        "model.width": 8,
        "training.learning_rate": 0.05,
        "training.base_steps": 600,
        "training.cycle_steps": 250,
        "acquisition.budget": 300,
        "acquisition.pool_subset": 2500,
        "loop.cycles": 3,
        "evaluation.true_norms": False,
    },
    "paper": {},
}

get_config = experiment(
    "cifar10",
    ("random", "badge", "lcmd_gradients", "entropy_spread", "softmax_entropy"),
    range(10),
    name="geometry_cifar10",
    task="classification",
    scales=SCALES,
    scale="small",
    variants=VARIANTS,
)
