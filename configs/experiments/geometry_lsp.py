"""Do batches by the geometry of gradients beat random? On LSP to LSPET, few labels.

    python -m jalpose.experiment --config=configs/experiments/geometry_lsp.py

100 labelled images of LSP, batches of 100 out of LSPET, each network going on from the
last one's weights, ten seeds: the small network and the lengths of llpp_table3_lsp.py,
where EGL++ was ahead of random from 200 labels on the seeds 0 to 4 (scripts/RESULTS.md,
which has the seeds 5 to 9 by themselves too).

The pilot is that of geometry_cifar10.py.
"""

from jalpose.loop.configs import experiment

SPREADING = ("coreset", "kmeanspp", "lcmd")
VARIANTS = {
    "random_again": ("random", "seeds.acquire=1000"),
    "eglpp_spread": ("eglpp", "acquisition.diverse=lcmd"),
    "eglpp_spread_gradients": (
        "eglpp",
        "acquisition.diverse=lcmd",
        "acquisition.lcmd.space=gradients",
    ),
    "lcmd_prediction": ("lcmd", "acquisition.lcmd.space=prediction"),
    **{
        f"{name}_gradients": (name, f"acquisition.{name}.space=gradients")
        for name in SPREADING
    },
}
SCALES = {
    "tiny": {},
    "small": {
        "data.initial": 100,
        "acquisition.pool_subset": 1000,
        "acquisition.eglpp.neighbours": 9,
        "acquisition.eglpp.perplexity": 3.0,
    },
    "paper": {"data.initial": 100, "acquisition.budget": 100},
}

get_config = experiment(
    "lsp_tables",
    ("random", "coreset_gradients", "eglpp", "eglpp_spread"),
    range(10),
    name="geometry_lsp",
    scales=SCALES,
    scale="small",
    variants=VARIANTS,
)
