"""A trained network taken elsewhere: StableHLO by `jax.export`, and what to know of it.

model.jaxexport    for `jax.export.deserialize`: images in, predictions out; weights,
                   normalisation and decoding are in it, the batch is of any size
model.stablehlo    the same as portable StableHLO bytecode, without JAX's wrapping
model.json         size of the images, names of the outputs, how crops are cut
example.npz        `images`, and what the network said of them where it was written
"""

import importlib.util
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from jalpose.deployment.options import Export, Model, refuse_taken
from jalpose.deployment.trained import Trained, open_trained
from jalpose.models import encoders
from jalpose.models.registry import options_of
from jalpose.runtime import provenance
from jalpose.runtime.screen import Screen
from jalpose.settings.checks import ConfigError
from jalpose.settings.differences import plain
from jalpose.storage import records
from jalpose.storage.folders import atomic_folder
from jalpose.tasks import registry as tasks
from jalpose.training.trainer import network_of, scale_images

EXPORTED, STABLEHLO, ABOUT, EXAMPLE = (
    "model.jaxexport",
    "model.stablehlo",
    "model.json",
    "example.npz",
)
_IMAGES = 2  # of the example


def export(model: Model, options: Export, screen: Screen | None = None) -> Path:
    """Write the network of a run for use elsewhere: the folder it is in.

    What was written is read back and compared on the example before the folder is put
    in its place.

    Args:
      model: whose.
      options: for which platforms, and where to.
      screen: for lines; None: the standard output.

    Raises:
      ConfigError: an option is not allowed, or there is no such run.
      CheckpointError: it has no model yet.
      DataError: the names of its outputs are not recorded, and its data are not there.
      WorkdirError: nothing can be written.
    """
    screen = screen or Screen()
    options.check()
    if importlib.util.find_spec("flatbuffers") is None:
        raise ConfigError(
            "jax.export writes with the package flatbuffers, which is not installed: "
            "pip install 'jalpose[export]'"
        )
    trained = open_trained(model, options.out, screen)
    out = Path(options.out)
    records.check_workdir(out.absolute().parent)
    size = trained.config.data.size
    screen.line(f"compiling for {', '.join(options.platforms)}")
    function = jax.jit(function_of(trained))
    batch = jax.ShapeDtypeStruct(
        jax.export.symbolic_shape(f"batch, {size}, {size}, 3"), jnp.uint8
    )
    try:
        exported = jax.export.export(function, platforms=options.platforms)(batch)
    except (ValueError, NotImplementedError) as error:
        raise ConfigError(
            f"--platforms={','.join(options.platforms)}: the network cannot be "
            f"exported for them: {error}"
        ) from error
    draws = np.random.default_rng(0)
    images = draws.integers(0, 256, (_IMAGES, size, size, 3), np.uint8)
    said = {name: np.asarray(v) for name, v in function(images).items()}
    with atomic_folder(out) as folder:
        (folder / EXPORTED).write_bytes(exported.serialize())
        (folder / STABLEHLO).write_bytes(exported.mlir_module_serialized)
        records.write_npz(folder / EXAMPLE, {"images": images, **said})
        records.write_json(folder / ABOUT, _about(trained, exported, options, said))
        apart = check(folder)
        refuse_taken(options.out)  # by another command, meanwhile
    screen.line(f"read back, it differs by at most {apart:.2g} on the example: {out}")
    return out


def function_of(trained: Trained):
    """uint8 [B, S, S, 3] -> the prediction, and what is read off it, by name."""
    config = trained.config
    task = tasks.task_of(config.task).make_task(
        config, trained.task.named(trained.outputs)
    )
    options = dict(config.model)
    if "convolution" in options:
        options["convolution"] = "native"  # the same function, on every platform
    network = options_of(options).build(task.num_outputs)
    variables = jax.tree.map(jnp.asarray, network_of(trained.variables))
    encoder = encoders.encoder_of(config)

    def predict(images):
        seen = scale_images(images) if encoder is None else encoder.look(images)
        said = network.apply(variables, seen).prediction
        return {"prediction": said, **jax.vmap(task.decode)(said)}

    return predict


class Loaded(NamedTuple):
    """A network that was exported.

    Attributes:
      predict: uint8 [B, S, S, 3] -> arrays by name.
      about: what `model.json` says.
    """

    predict: Any
    about: dict[str, Any]


def load(folder: Path) -> Loaded:
    """What `export` has written, by JAX alone."""
    exported = jax.export.deserialize(bytearray((folder / EXPORTED).read_bytes()))
    return Loaded(exported.call, json.loads((folder / ABOUT).read_bytes()))


def check(folder: Path) -> float:
    """By how much what is read back differs on the example; the largest of all."""
    loaded = load(folder)
    with np.load(folder / EXAMPLE, allow_pickle=False) as archive:
        example = {name: archive[name] for name in archive.files}
    found = loaded.predict(example.pop("images"))
    return max(
        float(np.abs(np.asarray(found[name], np.float64) - values).max())
        for name, values in example.items()
    )


def _about(trained: Trained, exported, options: Export, said) -> dict[str, Any]:
    config = trained.config
    return {
        "task": config.task,
        "input": {
            "shape": ["batch", config.data.size, config.data.size, 3],
            "dtype": "uint8",
            "colours": "RGB",
            "normalisation": "none to be done: it is in the model",
        },
        "outputs": {
            name: {"shape": ["batch", *values.shape[1:]], "dtype": str(values.dtype)}
            for name, values in said.items()
        },
        **trained.outputs,
        "decoding": trained.task.decoding(config),
        "platforms": list(options.platforms),
        "calling_convention": exported.calling_convention_version,
        "model": {"workdir": str(trained.workdir), "cycle": trained.cycle},
        **provenance.describe(plain(config)),
    }
