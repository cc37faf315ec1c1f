"""What every command does before JAX starts, and with errors that are the user's."""

import logging
import os
import sys
from collections.abc import Callable

from absl import app, flags
from ml_collections import ConfigDict

from jalpose.settings.checks import ConfigError, did_you_mean

INTERRUPTED = "interrupted: what was saved before stays"
AWAITING_LABELS = 3  # exit code: what was chosen is to be labelled by people


def quiet() -> None:
    """Say nothing of backends that JAX has not found: it is no news to a user."""
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)


def prepare(config: ConfigDict) -> None:
    """Set the platform up; before anything has asked JAX for devices."""
    quiet()
    if config.deterministic:
        # Read when the GPU backend starts; the CPU is deterministic anyway.
        flag = "--xla_gpu_deterministic_ops=true"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
    # Imported late: --help and a mistyped config need not wait for JAX.
    import jax

    if config.output.compilation_cache:
        jax.config.update("jax_compilation_cache_dir", config.output.compilation_cache)


def define_cluster_flags() -> None:
    """Flags of a command that several hosts may run together."""
    flags.DEFINE_enum(
        "cluster",
        "auto",
        ["auto", "on", "off"],
        "Join other hosts: auto (where srun, Open MPI or a TPU pod started several), "
        "on (as the launcher says), off",
    )
    flags.DEFINE_string("coordinator", None, "Join by hand: host:port of host 0")
    flags.DEFINE_integer("hosts", None, "With --coordinator: how many hosts", 1)
    flags.DEFINE_integer("host", None, "With --coordinator: which this is, from 0", 0)
    flags.DEFINE_integer("join_seconds", 300, "How long to wait for the others", 1)


def join_cluster() -> None:
    """Join the other hosts if the flags or the launcher say that there are any.

    Raises:
      ConfigError: flags that do not go together.
      ClusterError: the others are not there.
    """
    from jalpose.runtime import hosts

    given = flags.FLAGS
    by_hand = (given.coordinator, given.hosts, given.host)
    if by_hand == (None, None, None):
        if given.cluster == "on" or (
            given.cluster == "auto" and hosts.started_as_many()
        ):
            hosts.join(None, given.join_seconds)
        return
    if None in by_hand or not given.host < given.hosts:
        raise ConfigError(
            f"--coordinator={given.coordinator} --hosts={given.hosts} "
            f"--host={given.host}: all three are needed, and host from 0 to hosts - 1"
        )
    hosts.join(hosts.Address(*by_hand), given.join_seconds)


def define_model_flags() -> None:
    """Flags of a command that takes a trained run by its workdir."""
    flags.DEFINE_string("model", None, "Workdir of the run whose model is taken")
    flags.DEFINE_integer("cycle", -1, "Whose model: 0 is the base model; -1 the newest")
    flags.DEFINE_string(
        "data_dir", "", "Where the run's data are now; default: as recorded"
    )


def attempt(work: Callable[[], None]) -> int:
    """Do the work of a command.

    Returns:
      0; 2, with the message, where it cannot be done; `AWAITING_LABELS` where people
      are to label something first; `hosts.PREEMPTED` where the run was asked to end
      and all is saved; 130 where it was not waited for that.
    """
    from jalpose.data.source import DataError
    from jalpose.loop.checkpoints import CheckpointError
    from jalpose.oracles.oracle import LabelsAwaited, LabelsError
    from jalpose.runtime import hosts
    from jalpose.storage.records import WorkdirError, explain_full_disk

    told = (
        ConfigError,
        DataError,
        WorkdirError,
        LabelsError,
        CheckpointError,
        hosts.ClusterError,
        # Of weights that diverged, of devices too small: they say so, and what to do.
        FloatingPointError,
        MemoryError,
    )
    try:
        with explain_full_disk("a file"):
            work()
    except hosts.Preempted as notice:
        print(f"ended as asked: {notice}", file=sys.stderr)
        return hosts.PREEMPTED
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        return 130
    except LabelsAwaited:  # the run has said of what, and what to do
        return AWAITING_LABELS
    except told as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def cli(main: Callable[[list[str]], int], required: str = "config") -> None:
    """Check the command line, then hand it and `main` to absl.

    Args:
      main: of the command.
      required: the flag that it cannot do without.
    """
    flags.mark_flag_as_required(required)
    try:
        check_config_file(sys.argv[1:])
        check_overrides(sys.argv[1:])
        app.run(main, flags_parser=parse_flags)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def parse_flags(argv: list[str]) -> list[str]:
    """Parse the flags as absl does; what a config file refuses is raised as it was.

    Raises:
      ConfigError: of the config file.
    """
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        # Round a ValueError ml_collections and absl wrap errors with its traceback.
        found, cause = None, error.__context__
        while cause is not None:
            found = cause if isinstance(cause, ConfigError) else found
            cause = cause.__context__
        if found is not None:
            raise found from None
    return app.parse_flags_with_usage(argv)  # raises it again, and tells it


def check_config_file(arguments: list[str]) -> None:
    """Raise ConfigError where `--config` names no file, with what was meant."""
    for number, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag.lstrip("-") != "config" or not argument.startswith("-"):
            continue
        if not equals:
            value = arguments[number + 1] if number + 1 < len(arguments) else ""
        path, _, rest = value.partition(":")
        if not value or os.path.isfile(path):
            continue
        folder, name = os.path.split(path)
        benchmark, _, method = name.removesuffix(".py").partition("_")
        now = os.path.join(folder, f"{benchmark}.py")
        if method and os.path.isfile(now):
            picked = ",".join(filter(None, (f"method={method}", rest)))
            raise ConfigError(
                f"there is no {path}: a benchmark has one config file, with its method "
                f"as an argument. The same is --config={now}:{picked}"
            )
        there = os.listdir(folder or ".") if os.path.isdir(folder or ".") else []
        near = [os.path.join(folder, f) for f in sorted(there) if f.endswith(".py")]
        hint = did_you_mean(path, near)
        listed = f" There are: {', '.join(near)}" if near else ""
        raise ConfigError(f"--config={value}: there is no file {path}.{hint}{listed}")


def check_overrides(arguments: list[str]) -> None:
    """Raise ConfigError where a `--config.x.y=...` is a key of no task at all."""
    names = [
        argument.lstrip("-").split("=")[0].removeprefix("config.")
        for argument in arguments
        if argument.startswith("-") and argument.lstrip("-").startswith("config.")
    ]
    if "papers" in names:
        raise ConfigError(
            "papers is an argument of the config file, so that --config.key=value can "
            "change what it sets: --config=FILE:papers=NAME"
        )
    if names:
        from jalpose.loop import configs

        configs.check_keys(names)


def workdir_of(config: ConfigDict, given: str | None) -> str:
    """The workdir `given`, or the one a config's runs have by default."""
    default = f"{config.name}-{config.scale}-{config.seed}"
    return given or os.path.join("runs", default)


def refuse_arguments(argv: list[str]) -> None:
    """Raise UsageError where more than flags stands on the command line."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
