"""Predict with a trained run on new images.

    python -m jalpose.predict --model=runs/eglpp --images=photos --out=predictions

Takes the newest model of the run in the workdir, looks the images through, and writes
its predictions (poses: COCO's results and a CSV; classes: a CSV) and drawn pictures.
"""

from absl import flags

from jalpose import command
from jalpose.deployment.options import Model, Prediction
from jalpose.runtime import screen
from jalpose.tasks.inference import Place


def _define_flags():
    # Not on import: `jalpose.main` has flags of the same names.
    command.define_model_flags()
    flags.DEFINE_string(
        "images",
        None,
        "Folder of images (frames of a video are one), an image, or, of poses, a file "
        "that names images and boxes: COCO, or a CSV with file,x,y,w,h",
    )
    flags.DEFINE_string(
        "images_dir",
        "",
        "Folder of the images that the file names; default: looked for near it",
    )
    flags.DEFINE_string("out", "predictions", "Folder of the results; a new one")
    flags.DEFINE_integer(
        "pictures",
        Prediction._field_defaults["pictures"],
        "Images that are drawn, from the first on; 0: none",
    )
    flags.mark_flag_as_required("images")


def main(argv: list[str]) -> int:
    """Set the platform up, and predict."""
    command.refuse_arguments(argv)
    given = flags.FLAGS
    model = Model(given.model, given.cycle, given.data_dir)
    options = Prediction(
        Place(given.images, given.images_dir), given.out, given.pictures
    )
    screen.quiet()

    def work():
        from jalpose.deployment import predict

        predict.predict(model, options)

    return command.attempt(work)


def cli() -> None:
    """Check the command line, then hand it to absl."""
    _define_flags()
    command.cli(main, required="model")


if __name__ == "__main__":
    cli()
