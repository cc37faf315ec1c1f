"""Run active learning: `python -m jalpose.main --config=configs/quickstart.py`."""

import logging
import os
import sys

from absl import app, flags
from ml_collections import config_flags

from jalpose.config import ConfigError, check_overrides

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file, e.g. configs/lsp_eglpp.py:scale=small,seed=3"
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run; default runs/<config>-<scale>-<seed>"
)
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Print config, parameters, steps and memory; run nothing"
)


def main(argv: list[str]) -> int:
    """Resolve the config, set the platform up, and run."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    config = _CONFIG.value
    workdir = _WORKDIR.value or os.path.join(
        "runs", f"{config.name}-{config.scale}-{config.seed}"
    )
    # Which backends JAX has not found is no news to a user.
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)
    if config.deterministic:
        # Read when the GPU backend starts; the CPU is deterministic anyway.
        flag = "--xla_gpu_deterministic_ops=true"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
    # Imported late: --help and a mistyped config need not wait for JAX.
    import jax

    from jalpose import dry_run, run
    from jalpose.checkpoints import CheckpointError
    from jalpose.data.source import DataError
    from jalpose.records import WorkdirError

    if config.output.compilation_cache:
        jax.config.update("jax_compilation_cache_dir", config.output.compilation_cache)
    try:
        if _DRY_RUN.value:
            dry_run.show(config, workdir)
        else:
            run.run(config, workdir)
    except (ConfigError, DataError, WorkdirError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def cli() -> None:
    """Check the command line, then hand it to absl."""
    flags.mark_flag_as_required("config")
    try:
        check_overrides(sys.argv[1:])
        app.run(main)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    cli()
