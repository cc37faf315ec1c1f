"""Methods and seeds, each method from the base model of its seed.

    python -m jalpose.experiment --config=configs/experiments/figures.py

Run again it goes on where it was. On several machines of one file system, or in a
cluster's array job, each takes a part: --shard=1/5 to --shard=5/5.
"""

import os

from absl import flags
from ml_collections import config_flags

from jalpose import startup
from jalpose.config import ConfigError
from jalpose.experiments.plan import parse_shard


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
    startup.refuse_arguments(argv)
    given = flags.FLAGS
    config, shard = given.config, parse_shard(given.shard)
    default = os.path.join("runs", f"{config.name}-{config.scale}")
    workdir = given.workdir or default
    startup.prepare(config)

    def work():
        from jalpose import cluster
        from jalpose.experiments import loop

        if cluster.started_as_many():
            raise ConfigError(
                "an experiment runs on one host, and several were started: as an array "
                "job give each a part with --shard=i/n, or run single methods on many "
                "hosts with `python -m jalpose.main`"
            )

        if given.dry_run:
            loop.dry_run(config, workdir, shard)
        else:
            loop.experiment(config, workdir, shard)

    return startup.attempt(work)


def cli() -> None:
    """Check the command line, then hand it to absl."""
    _define_flags()
    startup.cli(main)


if __name__ == "__main__":
    cli()
