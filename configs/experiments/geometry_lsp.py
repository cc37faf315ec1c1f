"""Do batches by the geometry of gradients beat random? On LSP to LSPET, few labels.

    python -m jalpose.experiment --config=configs/experiments/geometry_lsp.py

100 labelled images of LSP, batches of 100 out of all of LSPET that there is, each
network from new weights, ten seeds. The methods are those of geometry_figures.py, and
so is the pilot.
"""

from jalpose.loop.configs import experiment

SPREADING = ("coreset", "kmeanspp", "lcmd")
VARIANTS = {
    "random_again": ("random", "seeds.acquire=1000"),
    "eglpp_spread": ("eglpp", "acquisition.diverse=lcmd"),
    **{
        f"{name}_gradients": (name, f"acquisition.{name}.space=gradients")
        for name in SPREADING
    },
}
SCALES = {
    "tiny": {},
    "small": {
        "data.size": 64,
        "data.initial": 100,
        "model.channels": 32,
        "model.depth": 3,
        "training.batch": 8,
        "training.learning_rate": 1e-2,
        "training.base_steps": 800,
        "training.cycle_steps": 800,
        "evaluation.block": 40,
        "acquisition.budget": 100,
        "acquisition.pool_subset": 0,
        "acquisition.eglpp.neighbours": 9,
        "acquisition.eglpp.perplexity": 3.0,
        "loop.cycles": 5,
    },
    "paper": {"data.initial": 100, "acquisition.budget": 100},
}

get_config = experiment(
    "lsp",
    (
        "random",
        *SPREADING,
        *(f"{name}_gradients" for name in SPREADING),
        "eglpp",
        "eglpp_spread",
    ),
    range(10),
    name="geometry_lsp",
    delta={"training.start": "fresh"},
    scales=SCALES,
    scale="small",
    variants=VARIANTS,
)
