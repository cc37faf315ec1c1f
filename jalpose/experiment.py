"""Methods and seeds, each method from the base model of its seed.

    python -m jalpose.experiment --config=configs/experiments/figures.py

Run again it goes on where it was. On several machines of one file system, or in a
cluster's array job, each takes a part: --shard=1/5 to --shard=5/5.
"""

import os

from absl import flags
from ml_collections import config_flags

from jalpose import command
from jalpose.experiments.plan import parse_shard
from jalpose.settings.checks import ConfigError


def _define_flags():
    # Not on import: `jalpose.main` has flags of the same names.
    config_flags.DEFINE_config_file(
        "config", None, "Config file, e.g. configs/experiments/lsp.py:scale=small"
    )
    flags.DEFINE_string(
        "workdir", None, "The experiment's folder; default runs/<config>-<scale>"
    )
    flags.DEFINE_string(
        "shard",
        "1/1",
        "Part i of n, i/n, from 1: whole seeds, or single runs where n is above the "
        "number of seeds",
    )
    flags.DEFINE_bool(
        "dry_run", False, "Print runs, what is finished and the time left; run nothing"
    )


def main(argv: list[str]) -> int:
    """Resolve config and part, set the platform up, and run."""
    command.refuse_arguments(argv)
    given = flags.FLAGS
    config, shard = given.config, parse_shard(given.shard)
    default = os.path.join("runs", f"{config.name}-{config.scale}")
    workdir = given.workdir or default
    command.prepare(config)

    def work():
        from jalpose.experiments import loop
        from jalpose.runtime import hosts

        if hosts.started_as_many():
            raise ConfigError(
                "an experiment runs on one host, and several were started: as an array "
                "job give each a part with --shard=i/n, or run single methods on many "
                "hosts with `python -m jalpose.main`"
            )

        if given.dry_run:
            loop.dry_run(config, workdir, shard)
        else:
            loop.experiment(config, workdir, shard)

    return command.attempt(work)


def cli() -> None:
    """Check the command line, then hand it to absl."""
    _define_flags()
    command.cli(main)


if __name__ == "__main__":
    cli()
