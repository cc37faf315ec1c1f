"""Take a trained network elsewhere: StableHLO, and a JSON that says how to use it.

    python -m jalpose.export --model=runs/eglpp --out=exported

Takes the newest model of the run in the workdir. What is written is read by
`jax.export.deserialize` alone, without jalpose (jalpose/oracles/README.md).
"""

from absl import flags

from jalpose import command
from jalpose.deployment.options import Export, Model
from jalpose.runtime import screen


def _define_flags():
    # Not on import: `jalpose.main` has flags of the same names.
    command.define_model_flags()
    flags.DEFINE_string("out", "exported", "Folder of what is written; a new one")
    flags.DEFINE_list(
        "platforms",
        list(Export._field_defaults["platforms"]),
        "What it is to run on, separated by commas: cpu, cuda, rocm, tpu",
    )


def main(argv: list[str]) -> int:
    """Set the platform up, and export."""
    command.refuse_arguments(argv)
    given = flags.FLAGS
    model = Model(given.model, given.cycle, given.data_dir)
    options = Export(given.out, tuple(given.platforms))
    screen.quiet()

    def work():
        from jalpose.deployment import export

        export.export(model, options)

    return command.attempt(work)


def cli() -> None:
    """Check the command line, then hand it to absl."""
    _define_flags()
    command.cli(main, required="model")


if __name__ == "__main__":
    cli()
