"""A workdir with a model that nobody trained, of mice, and images it has never seen."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jalpose.loop import configs, saved_models
from jalpose.models.hourglass import HourglassOptions
from jalpose.runtime import provenance
from jalpose.settings.differences import plain
from jalpose.storage import records
from tests.support import own_photos, small

NEW = ("a b.png", "below/ö.png", "c.png", "d.png", "e.png")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlatOptions(HourglassOptions):
    """A network that compiles in no time, under the keys of another."""

    last_layer: ClassVar = "maps"

    def build(self, num_outputs, *, traced=False):
        return small.Flat(num_outputs=num_outputs)


def config_of(root, **changes):
    """Of own images, tiny, on the ten mice below `root`."""
    delta = {
        "data.dir": str(root),
        "data.cache_dir": str(root / "cache"),
        "data.packed": False,
        "data.photos.labelled": "labels.json",
        "data.threads": 1,
        "acquisition.block": 4,
        "evaluation.block": 4,
        **changes,
    }
    config = configs.benchmark("photos", method="random", delta=delta)("scale=tiny")
    configs.check(config)
    return config


def lay_mice(root, outputs=True, cycles=(0,), **changes):
    """Ten labelled mice, and the workdir of a run on them: (workdir, config)."""
    own_photos.write_labelled(root)
    config = config_of(root, **changes)
    about = provenance.describe(plain(config))
    if outputs:
        from jalpose.loop.run import load_dataset
        from jalpose.tasks.pose import inference

        about["outputs"] = inference.outputs_of(load_dataset(config))
    records.write_config(root / "run", about)
    for cycle in cycles:
        saved_models.save_model(root / "run", cycle, variables())
    return root / "run", config


def variables(num_outputs=4):
    """Weights of `Flat`, numpy."""
    network = small.Flat(num_outputs=num_outputs)
    found = jax.jit(network.init)(jax.random.key(3), jnp.zeros((1, 32, 32, 3)))
    return jax.tree.map(np.asarray, found)


def write_new(root, names=NEW):
    """Images that nobody has labelled, a damaged and an empty one: their folder."""
    folder = root / "nëw images"
    own_photos.write_images(folder, names, seed=5)
    whole = (folder / names[0]).read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("no image")
    return folder
