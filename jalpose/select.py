"""Choose once what to label next, with a trained run, without its loop.

    python -m jalpose.select --model=runs/eglpp --images=photos --budget=100

Takes the newest model of the run in the workdir, has a method choose among images that
nobody has labelled, and writes what annotation tools take, with the model's guess:
to_label/index.html is the page to open.
"""

from absl import flags

from jalpose import command
from jalpose.deployment.options import Model, Selection
from jalpose.runtime import screen
from jalpose.tasks.inference import Place


def _define_flags():
    # Not on import: `jalpose.main` has flags of the same names.
    command.define_model_flags()
    flags.DEFINE_string(
        "images",
        None,
        "What to choose from: a folder of images, or, of poses, a file that names "
        "images and boxes (COCO, or a CSV with file,x,y,w,h); default: the run's pool",
    )
    flags.DEFINE_string(
        "images_dir",
        "",
        "Folder of the images that the file names; default: looked for near it",
    )
    flags.DEFINE_integer("budget", 0, "How many to choose; default: the run's budget")
    flags.DEFINE_string("method", "", "That chooses; default: the run's")
    flags.DEFINE_list(
        "options",
        [],
        "Changes of its options, separated by commas: acquisition.diverse=lcmd,...",
    )
    flags.DEFINE_string("out", "to_label", "Folder of what is chosen; a new one")
    flags.DEFINE_enum(
        "copy",
        "copy",
        ["copy", "link", "none"],
        "Images beside it: copied, linked, or left where they are",
    )


def main(argv: list[str]) -> int:
    """Set the platform up, and choose."""
    command.refuse_arguments(argv)
    given = flags.FLAGS
    model = Model(given.model, given.cycle, given.data_dir)
    options = Selection(
        place=None if given.images is None else Place(given.images, given.images_dir),
        out=given.out,
        budget=given.budget,
        method=given.method,
        options=tuple(given.options),
        copy=given.copy,
    )
    screen.quiet()

    def work():
        from jalpose.deployment import select

        select.select(model, options)

    return command.attempt(work)


def cli() -> None:
    """Check the command line, then hand it to absl."""
    _define_flags()
    command.cli(main, required="model")


if __name__ == "__main__":
    cli()
