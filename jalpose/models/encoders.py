"""Pretrained networks as eyes: what they make of an image, for networks of rows.

The encoder is never trained: an image is looked at once, and a training or a choice
afterwards costs what a few layers cost. With few labels the features of a large data
set say more than a network trained from nothing can learn (Hacohen et al., "Active
learning on a budget", ICML 2022, choose in such features).
"""

import dataclasses
import functools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Real
from ml_collections import ConfigDict

from jalpose.data.dataset import Dataset, rows_of
from jalpose.data.packed import Rows
from jalpose.models import efficientnet
from jalpose.runtime.screen import Screen
from jalpose.runtime.shapes import AnyArray

BLOCK = 32  # images that are looked at at once


class Encoder(NamedTuple):
    """A network that turns images into rows.

    Attributes:
      see: crops uint8 [B, S, S, 3] -> float32 [B, F].
      look: the same as JAX traces it.
      columns: F.
      source: which weights these are.
    """

    see: Callable[[np.ndarray], np.ndarray]
    look: Callable[[AnyArray], AnyArray]
    columns: int
    source: str


def encoder_of(config: ConfigDict) -> Encoder | None:
    """The encoder of a validated config, None if it has none; see `seen_through`."""
    data = config.data
    if not data.encoder.name:
        return None
    return ENCODERS[data.encoder.name](data.encoder.size or data.size)


def seen_through(
    config: ConfigDict, dataset: Dataset, screen: Screen | None = None
) -> Dataset:
    """The dataset whose examples are what `data.encoder` sees in its crops.

    Images are looked at once and their rows kept; for pictures they stay as they are.
    Without an encoder: the dataset as it is.

    Args:
      config: validated.
      dataset: of images.
      screen: is told how far it is; None: each image is looked at when it is needed.

    Raises:
      ConfigError: the encoder's weights are not installed.
      DataError: the file of its weights is not the published one, or see
        `Dataset.crop`.
    """
    data, encoder = config.data, encoder_of(config)
    if encoder is None:
        return dataset
    side = data.encoder.size or data.size
    name = f"{data.encoder.name} {encoder.source} {side}"
    folder = data.cache_dir if data.packed else None
    rows = rows_of(dataset, encoder.see, encoder.columns, name, folder, data.size)
    if screen is not None:
        _look_at_all(dataset, rows, f"{data.encoder.name} looks at images", screen)
    return dataclasses.replace(dataset, packed=rows)


def _look_at_all(dataset: Dataset, rows: Rows, what: str, screen: Screen) -> None:
    """Make the rows of all examples that play a part, but those that are kept."""
    used = np.unique(np.concatenate([dataset.initial, dataset.pool, dataset.test]))
    missing = [example for example in used.tolist() if not rows.has(example)]
    uncut = dataclasses.replace(dataset, packed=None)
    for start in range(0, len(missing), BLOCK):
        block = missing[start : start + BLOCK]
        rows.add(block, np.stack([uncut.crop(one, rows.size) for one in block]))
        screen.progress(what, start + len(block), len(missing))
    screen.end()


@functools.cache
def _efficientnet_lite0(side: int) -> Encoder:
    """Means of the last maps, 1,280 numbers, as trained on ImageNet."""
    weights, source = efficientnet.imagenet_weights()
    options = efficientnet.EfficientNetLite0Options(decoder=0)
    network = options.build(1)
    blank = jnp.zeros((1, side, side, 3))
    shapes = jax.eval_shape(network.init, jax.random.key(0), blank)
    # The last layer's own are not used.
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    for kind, layers in weights.items():
        variables[kind] = {**variables[kind], **layers}

    def look_with(
        variables, crops: Real[AnyArray, "b s s 3"]
    ) -> Float[AnyArray, "b f"]:
        images = jnp.asarray(crops, jnp.float32) / 255
        if crops.shape[1] != side:
            shape = (crops.shape[0], side, side, 3)
            images = jax.image.resize(images, shape, "bilinear")
        output: Any = network.apply(variables, images)
        rows = output.embedding
        # Alike for all images, wherever they come from: of mean 0 and deviation 1.
        rows = rows - rows.mean(axis=1, keepdims=True)
        return rows / jnp.maximum(rows.std(axis=1, keepdims=True), 1e-6)

    compiled, placed = jax.jit(look_with), jax.device_put(variables)

    def see(crops: np.ndarray) -> np.ndarray:
        # Always as many, so that it is compiled once.
        full = np.zeros((max(BLOCK, len(crops)), *crops.shape[1:]), np.uint8)
        full[: len(crops)] = crops
        return np.asarray(compiled(placed, full))[: len(crops)]

    columns = shapes["params"][options.last_layer]["kernel"].shape[0]
    return Encoder(see, partial(look_with, placed), columns, source)


ENCODERS: dict[str, Callable[[int], Encoder]] = {
    "efficientnet_lite0": _efficientnet_lite0
}
