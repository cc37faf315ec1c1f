"""Run active learning: `python -m jalpose.main --config=configs/quickstart.py`."""

from absl import flags
from ml_collections import config_flags

from jalpose import command

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "Config, e.g. lsp:method=eglpp,scale=small or a file; its keys: --config_help",
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run; default runs/<config>-<scale>-<seed>"
)
command.define_cluster_flags()
flags.adopt_module_key_flags(command)  # so that --help has them
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Print all that would be done; compile and run nothing"
)


def main(argv: list[str]) -> int:
    """Resolve the config, set the platform up, and run."""
    command.refuse_arguments(argv)
    config = _CONFIG.value
    workdir = command.workdir_of(config, _WORKDIR.value)
    command.prepare(config)

    def work():
        command.join_cluster()
        from jalpose.loop import dry_run, run

        if _DRY_RUN.value:
            dry_run.show(config, workdir)
        else:
            run.run(config, workdir)

    return command.attempt(work)


def cli() -> None:
    """Check the command line, then hand it to absl."""
    command.cli(main)


if __name__ == "__main__":
    cli()
