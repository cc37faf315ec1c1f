"""Look the data of a config through before anything is trained on them.

    python -m jalpose.check --config=configs/lsp.py:scale=small

Opens the data set as a run would, holds its labels against its images, prints what is
there and what looks wrong, and writes it with pictures as one page. Exit code 2 where a
run would refuse the data, 0 otherwise.
"""

import os

from absl import flags
from ml_collections import config_flags

from jalpose import command

FOLDER = "check"


def _define_flags():
    # Not on import: `jalpose.main` has flags of the same names.
    config_flags.DEFINE_config_file("config", None, "Config file of a run")
    flags.DEFINE_string(
        "out",
        None,
        f"Folder of the page; default runs/<config>-<scale>-<seed>/{FOLDER}",
    )
    flags.DEFINE_boolean("images", True, "Pictures on the page; --noimages: tables")


def main(argv: list[str]) -> int:
    """Resolve the config, set the platform up, and look the data through."""
    command.refuse_arguments(argv)
    given = flags.FLAGS
    out = given.out or os.path.join(command.workdir_of(given.config, None), FOLDER)
    command.prepare(given.config)
    bad: list[bool] = []

    def work():
        from jalpose.loop import data_check

        found = data_check.check(given.config, out, pictures=given.images)
        bad.append(data_check.impossible(found))

    code = command.attempt(work)
    return 2 if code == 0 and any(bad) else code


def cli() -> None:
    """Check the command line, then hand it to absl."""
    _define_flags()
    command.cli(main)


if __name__ == "__main__":
    cli()
