"""What every command does before JAX starts, and with errors that are the user's."""

import logging
import os
import sys
from collections.abc import Callable

from absl import app, flags
from ml_collections import ConfigDict

from jalpose.config import ConfigError, check_overrides


def prepare(config: ConfigDict) -> None:
    """Set the platform up; before anything has asked JAX for devices."""
    # Which backends JAX has not found is no news to a user.
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)
    if config.deterministic:
        # Read when the GPU backend starts; the CPU is deterministic anyway.
        flag = "--xla_gpu_deterministic_ops=true"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
    # Imported late: --help and a mistyped config need not wait for JAX.
    import jax

    if config.output.compilation_cache:
        jax.config.update("jax_compilation_cache_dir", config.output.compilation_cache)


def attempt(work: Callable[[], None]) -> int:
    """Do the work of a command: 0, or 2 with the message where it cannot be done."""
    from jalpose.checkpoints import CheckpointError
    from jalpose.data.source import DataError
    from jalpose.records import WorkdirError

    # The last is of weights that diverged: it says so, and what to change.
    told = (ConfigError, DataError, WorkdirError, CheckpointError, FloatingPointError)
    try:
        work()
    except told as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def cli(main: Callable[[list[str]], int]) -> None:
    """Check the command line, then hand it and `main` to absl."""
    flags.mark_flag_as_required("config")
    try:
        check_overrides(sys.argv[1:])
        app.run(main)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def workdir_of(config: ConfigDict, given: str | None) -> str:
    """The workdir `given`, or the one a config's runs have by default."""
    default = f"{config.name}-{config.scale}-{config.seed}"
    return given or os.path.join("runs", default)


def refuse_arguments(argv: list[str]) -> None:
    """Raise UsageError where more than flags stands on the command line."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
