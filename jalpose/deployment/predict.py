"""Predictions of a trained network on new images, written and drawn."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from jalpose.deployment.options import Model, Prediction, refuse_taken
from jalpose.deployment.trained import Trained, network_of, open_images, open_trained
from jalpose.loop.programs import Programs
from jalpose.models import encoders
from jalpose.runtime import provenance, sharding
from jalpose.runtime.screen import Screen
from jalpose.runtime.throughput import Meter
from jalpose.scoring.passes import Examples, collect
from jalpose.settings.differences import plain
from jalpose.storage import records
from jalpose.storage.folders import atomic_folder
from jalpose.tasks import registry as tasks
from jalpose.tasks.inference import Opened
from jalpose.tasks.labels import Predicted
from jalpose.training import trainer

RECORD, PICTURES = "prediction.json", "pictures"


def predict(
    model: Model,
    options: Prediction,
    screen: Screen | None = None,
    programs: Programs | None = None,
) -> Path:
    """Predict on new images with the model of a run: the folder of the results.

    Args:
      model: whose.
      options: which images, and where to.
      screen: for progress; None: the standard output.
      programs: what is compiled already; None: nothing, for all devices.

    Raises:
      ConfigError: an option is not allowed, or there is no such run.
      CheckpointError: it has no model yet.
      DataError: there is no image, or a file is damaged or of another skeleton.
      WorkdirError: nothing can be written.
      FloatingPointError: a prediction is not finite.
    """
    screen = screen or Screen()
    options.check()
    trained = open_trained(model, options.out, screen)
    out = Path(options.out)
    records.check_workdir(out.absolute().parent)
    opened = open_images(trained, options.place, screen)
    predicted = predictions(trained, opened, screen, programs)
    with atomic_folder(out) as folder:
        trained.task.write(folder, trained.config, opened, predicted)
        _draw(folder, trained, opened, predicted, options.pictures, screen)
        records.write_json(
            folder / RECORD,
            {
                "model": str(model.workdir),
                "cycle": trained.cycle,
                "images": options.place.images,
                "folder": opened.folder,
                "num_images": len(set(opened.dataset.files)),
                "num_examples": len(opened.dataset.keys),
                "damaged": dict(opened.damaged),
                "notes": list(opened.notes),
                "outputs": trained.outputs,
                **provenance.describe(plain(trained.config)),
            },
        )
        refuse_taken(options.out)  # by another command, meanwhile
    screen.line(
        f"{len(opened.dataset.keys)} predictions on {len(set(opened.dataset.files))} "
        f"images, {len(opened.damaged)} left out: {out}"
    )
    return out


def predictions(
    trained: Trained, opened: Opened, screen: Screen, programs: Programs | None = None
) -> Predicted:
    """What a network says of new images, in pixels of the image.

    Raises:
      FloatingPointError: a prediction is not finite.
    """
    programs = programs or Programs(sharding.make_mesh())
    config = trained.config
    data = encoders.seen_through(config, opened.dataset, screen)
    task = tasks.task_of(config.task).make_task(config, data)
    network = network_of(trained, task.num_outputs)
    passes = programs.passes(network, network, task, None, config.data.threads)
    variables = trainer.network_of(trained.variables)
    blocks, done = [], 0
    for block in passes.walk(
        passes.describe,
        sharding.replicate(programs.mesh, variables),
        Examples(data),
        data.pool,
        block=config.evaluation.block,
        meter=Meter(),
    ):
        del block["embedding"]
        blocks.append(block)
        done += len(next(iter(block.values())))
        screen.progress("predicting", done, len(data.pool))
    screen.end()
    decoded = collect(blocks)
    for name, values in decoded.items():
        bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
        if bad.any():
            row = int(np.argmax(bad))
            raise FloatingPointError(
                f"the {name} predicted of {int(bad.sum())} examples, "
                f"{data.keys[row]} for one, are not finite: the model's weights have "
                "diverged"
            )
    labels = trained.task.make_labels(config, trained.outputs)
    return labels.place(decoded, data.windows_of(data.pool), task.size)


def _draw(folder, trained: Trained, opened: Opened, predicted, most: int, screen):
    """Draw the first images as JPEG, each called as its file and numbered."""
    if not most:
        return
    (folder / PICTURES).mkdir()
    total = min(most, len(set(opened.dataset.files)))
    drawn = trained.task.draw(trained.config, opened, predicted, most)
    for number, (file, picture) in enumerate(drawn, start=1):
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=90)
        # A name has room for 255 bytes.
        stem = Path(file).stem.encode()[:240].decode(errors="ignore")
        name = f"{number:05d}_{stem}.jpg"
        (folder / PICTURES / name).write_bytes(buffer.getvalue())
        screen.progress("drawing", number, total)
    screen.end()
