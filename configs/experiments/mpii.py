"""EGL++, core-set and random with three seeds on MPII.

    python -m jalpose.experiment --config=configs/experiments/mpii.py:scale=small

As configs/experiments/lsp.py, which says what the scales are; the examples labelled at
the start are drawn anew with each seed.
"""

from jalpose.loop.configs import experiment

SMALL = {
    "data.size": 96,
    "data.test": 1000,
    "model.channels": 64,
    "model.depth": 3,
    "training.base_steps": 1200,
    "training.cycle_steps": 200,
    "acquisition.budget": 150,
    "acquisition.pool_subset": 300,
    "evaluation.true_norms": False,
}

get_config = experiment(
    "mpii", ("random", "coreset", "eglpp"), (0, 1, 2), scales={"small": SMALL}
)
