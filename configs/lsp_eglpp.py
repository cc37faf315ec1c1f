"""EGL++ (exact gradients) from LSP to LSPET, the papers' protocol.

    python -m jalpose.main --config=configs/lsp_eglpp.py:scale=small

scale=tiny: a minute, to see that everything works. scale=small: an honest run on two
CPU cores, about 40 minutes on a quiet machine, by step times; PCK@0.2 62.6 % of the
base model, 64.8 % after three cycles. scale=paper (the default): the papers' sizes,
for a GPU or TPU.
"""

from jalpose.config import assemble

SCALES = {
    "tiny": {"data.initial": 100, "data.pool": 100},
    "small": {
        "training.base_steps": 2600,
        "training.cycle_steps": 500,
        "acquisition.budget": 150,
        "acquisition.pool_subset": 600,
    },
}


def get_config(arg: str = ""):
    """The config of `--config=configs/lsp_eglpp.py:arg`."""
    return assemble(
        arg,
        name="lsp_eglpp",
        delta={"data.name": "lsp", "acquisition.method": "eglpp"},
        scales=SCALES,
    )
