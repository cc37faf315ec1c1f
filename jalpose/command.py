"""What every command does before JAX starts, and with errors that are the user's."""

import os
import sys
from collections.abc import Callable

from absl import app, flags
from ml_collections import ConfigDict

from jalpose.runtime import screen
from jalpose.settings import config_files
from jalpose.settings.checks import ConfigError, did_you_mean

INTERRUPTED = "interrupted: what was saved before stays"
HELP = "config_help"
_HELP = {HELP, "help", "h", "?", "helpfull", "helpshort", "helpxml"}
AWAITING_LABELS = 3  # exit code: what was chosen is to be labelled by people


def prepare(config: ConfigDict) -> None:
    """Set the platform up; before anything has asked JAX for devices."""
    screen.quiet()
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
    from jalpose.loop.saved_models import CheckpointError
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
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    return 0


def cli(main: Callable[[list[str]], int], required: str = "config") -> None:
    """Check the command line, then hand it and `main` to absl.

    Whatever is wrong with it is one line and exit code 2.

    Args:
      main: of the command.
      required: the flag that it cannot do without.
    """
    try:
        sys.argv[1:] = with_config_files(sys.argv[1:], required)
        section = help_asked_for(sys.argv[1:])
        if section is not None:
            print(config_help(sys.argv, section))
            return
        check_overrides(sys.argv[1:])
        app.run(main, flags_parser=parse_flags)
    except ConfigError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        sys.exit(130)


def one_line(error: BaseException) -> str:
    """What an error says, on one line: what it lists is separated by semicolons."""
    first, *others = filter(None, (line.strip() for line in str(error).splitlines()))
    return " ".join(filter(None, (first, "; ".join(others))))


def parse_flags(argv: list[str]) -> list[str]:
    """Parse the flags as absl does, but for what is wrong with them.

    Raises:
      ConfigError: a flag is not known, has no such value, or is missing; or what the
        config file has raised.
    """
    try:
        return flags.FLAGS(argv)
    except flags.UnrecognizedFlagError as error:
        known = [name for name in flags.FLAGS if len(name) > 1]
        hint = did_you_mean(error.flagname, known)
        raise ConfigError(f"unknown flag --{error.flagname}.{hint}") from None
    except flags.Error as error:
        # Round a ValueError ml_collections and absl wrap errors with its traceback.
        found, cause = None, error.__context__
        while cause is not None:
            found = cause if isinstance(cause, ConfigError) else found
            cause = cause.__context__
        raise found or ConfigError(str(error).partition("\n")[0]) from None


def with_config_files(arguments: list[str], required: str = "config") -> list[str]:
    """The arguments, the file that `--config` names by its path.

    Raises:
      ConfigError: there is no config of that name, or the flag `required` is missing.
    """
    found = list(arguments)
    for number, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag not in ("--config", "-config"):
            continue
        place = number if equals else number + 1
        if not equals:
            value = arguments[place] if place < len(arguments) else ""
        if not value or value.startswith("-"):
            raise ConfigError("--config names no file, e.g. --config=quickstart")
        start = f"{flag}=" if equals else ""
        found[place] = start + config_files.resolve(value)
    named = {argument.lstrip("-").partition("=")[0] for argument in arguments}
    if required not in named and not named & _HELP:
        listed = ", ".join(config_files.shipped())
        more = f", e.g. --config=quickstart. There are: {listed}"
        raise ConfigError(
            f"--{required} is missing{more if required == 'config' else ''}"
        )
    return found


def help_asked_for(arguments: list[str]) -> str | None:
    """What `--config_help` asks for, "" for the sections; None: it is not there."""
    for argument in arguments:
        flag, _, section = argument.lstrip("-").partition("=")
        if flag == HELP and argument.startswith("-"):
            return section
    return None


def config_help(argv: list[str], section: str) -> str:
    """What a section's keys mean, with the values of the config that is named."""
    from jalpose.loop import config_help, configs

    wanted = [a for a in argv if a.startswith(("--config=", "-config="))]
    if not wanted:
        return config_help.show(configs.default(), section)
    check_overrides(argv[1:])
    left = [a for a in argv if a.lstrip("-").partition("=")[0] != HELP]
    parse_flags(left)
    return config_help.show(flags.FLAGS.config, section)


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
    """Raise ConfigError where more than flags stands on the command line."""
    if len(argv) > 1:
        raise ConfigError(f"unexpected arguments: {' '.join(argv[1:])}")
