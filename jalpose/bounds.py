"""The gradient-norm paper's bounds of the test loss, on a finished run.

    python -m jalpose.bounds --config=configs/cifar10.py:scale=small --workdir=runs/gn

Takes each cycle's model and the next one's, solves for the influence of every pool
image on the test loss, and writes how far the bounds of Eq. 3 to 5 are from it, how
much of what they choose is the same, and a plot.
"""

from absl import flags
from ml_collections import config_flags

from jalpose import command
from jalpose.influence.options import FOLDER, Options
from jalpose.settings.checks import ConfigError


def _define_flags():
    # Not on import: `jalpose.main` has flags of the same names.
    config_flags.DEFINE_config_file("config", None, "Config file of the run")
    flags.DEFINE_string(
        "workdir", None, "The run's folder; default runs/<config>-<scale>-<seed>"
    )
    default = Options()
    flags.DEFINE_list(
        "cycles", [], "Cycles that chose, separated by commas; default: all"
    )
    flags.DEFINE_integer(
        "images",
        default.images,
        "Images of the pool that are scored; 0: as many as did",
    )
    flags.DEFINE_integer(
        "training_images",
        default.training_images,
        "Images that the curvature is the mean over; 0: all that were trained on",
    )
    flags.DEFINE_integer(
        "test_images", default.test_images, "Images of the test set; 0: all"
    )
    flags.DEFINE_string(
        "product", default.product, "Curvature: gauss_newton or hessian"
    )
    flags.DEFINE_float(
        "damping", default.damping, "Added to the curvature's diagonal, above 0"
    )
    flags.DEFINE_float(
        "tolerance", default.tolerance, "Residual at which conjugate gradients stop"
    )
    flags.DEFINE_integer("steps", default.steps, "Of conjugate gradients, at most")
    flags.DEFINE_string(
        "out", default.out, f"Folder of the results; default <workdir>/{FOLDER}"
    )


def main(argv: list[str]) -> int:
    """Resolve config and options, set the platform up, and take the bounds."""
    command.refuse_arguments(argv)
    given = flags.FLAGS
    workdir = command.workdir_of(given.config, given.workdir)
    command.prepare(given.config)

    def work():
        from jalpose.influence import session

        options = Options(
            cycles=whole_numbers("--cycles", given.cycles),
            images=given.images,
            training_images=given.training_images,
            test_images=given.test_images,
            product=given.product,
            damping=given.damping,
            tolerance=given.tolerance,
            steps=given.steps,
            out=given.out,
        )
        session.bounds(given.config, workdir, options)

    return command.attempt(work)


def whole_numbers(flag: str, words: list[str]) -> tuple[int, ...]:
    """The numbers that a flag lists; ConfigError for what is none."""
    for word in words:
        if not word.isdecimal():
            raise ConfigError(f"{flag}: {word!r} is not a whole number")
    return tuple(map(int, words))


def cli() -> None:
    """Check the command line, then hand it to absl."""
    _define_flags()
    command.cli(main)


if __name__ == "__main__":
    cli()
