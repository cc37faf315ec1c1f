"""Exact gradient norms against every other engine, on one model and one pool.

    python -m jalpose.compare --config=configs/lsp_eglpp.py --workdir=runs/eglpp

Takes a model of the run in the workdir, scores some of its pool as EGL++ would, once
with each engine, and writes who agrees with the exact scores, at what cost.
"""

from absl import flags
from ml_collections import config_flags

from jalpose import command
from jalpose.engine_comparison.options import FOLDER, Options


def _define_flags():
    # Not on import: `jalpose.main` has flags of the same names.
    config_flags.DEFINE_config_file("config", None, "Config file of the run")
    flags.DEFINE_string(
        "workdir", None, "The run's folder; default runs/<config>-<scale>-<seed>"
    )
    default = Options()
    flags.DEFINE_integer(
        "cycle", default.cycle, "Whose model: 0 is the base model; -1 the newest"
    )
    flags.DEFINE_integer(
        "images", default.images, "Images of the pool that are scored; 0: all"
    )
    flags.DEFINE_list(
        "engines",
        list(default.engines),
        "Engines, separated by commas: exact, ghost, conv_linear, goodfellow, "
        "sketch<passes>, sketch<passes>r<how many of them random>, or sketch: several",
    )
    flags.DEFINE_integer(
        "repeats", default.repeats, "Timed runs of each engine on each block"
    )
    flags.DEFINE_string(
        "out", default.out, f"Folder of the results; default <workdir>/{FOLDER}"
    )


def main(argv: list[str]) -> int:
    """Resolve config and options, set the platform up, and compare."""
    command.refuse_arguments(argv)
    given = flags.FLAGS
    workdir = command.workdir_of(given.config, given.workdir)
    options = Options(
        cycle=given.cycle,
        images=given.images,
        engines=tuple(given.engines),
        repeats=given.repeats,
        out=given.out,
    )
    command.prepare(given.config)

    def work():
        from jalpose.engine_comparison import session

        session.compare(given.config, workdir, options)

    return command.attempt(work)


def cli() -> None:
    """Check the command line, then hand it to absl."""
    _define_flags()
    command.cli(main)


if __name__ == "__main__":
    cli()
