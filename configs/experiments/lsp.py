"""EGL++, core-set and random with three seeds, from LSP to LSPET.

    python -m jalpose.experiment --config=configs/experiments/lsp.py:scale=small

scale=paper (the default): the papers' network and lengths, for GPUs, a part each with
--shard=1/3 to --shard=3/3. scale=small: shorter than a run of configs/lsp.py at that
scale, and a smaller network on smaller crops, so that all runs fit into an hour on two
CPU cores. scale=tiny: to see that everything works.
"""

from jalpose.loop.configs import experiment

SMALL = {
    "data.size": 96,
    "model.channels": 64,
    "model.depth": 3,
    "training.base_steps": 1200,
    "training.cycle_steps": 200,
    "acquisition.budget": 150,
    "acquisition.pool_subset": 300,
    "evaluation.true_norms": False,
}

get_config = experiment(
    "lsp", ("random", "coreset", "eglpp"), (0, 1, 2), scales={"small": SMALL}
)
