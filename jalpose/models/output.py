"""What every network returns for a batch, whatever its task."""

from typing import Any, NamedTuple

import jax

from jalpose.runtime.shapes import AnyArray


class Features(NamedTuple):
    """What inside a network may be read beside it; maps are [B, h, w, C].

    Attributes:
      stacks: what the predictions are computed from, one of each stage that has one.
      levels: the highest resolution first, then lower and lower: of the last
        hourglass, or the outputs of a network's stages.
      inputs: [B, F], of a network of rows: the rows it was given.
    """

    stacks: tuple[AnyArray, ...] = ()
    levels: tuple[AnyArray, ...] = ()
    inputs: AnyArray | None = None


class Output(NamedTuple):
    """What a network returns for a batch.

    Attributes:
      prediction: float32 [B, ...], what the task's loss takes; of poses the heatmaps
        [B, S, h, w, J] of every stack, of classes the logits [B, O].
      embedding: float32 [B, C], features of each example.
      features: maps for heads; what is not used costs nothing under `jit`.
      head: [B, O], what a head beside the network says, where one is trained.
    """

    prediction: Any
    embedding: jax.Array
    features: Features = Features()
    head: jax.Array | None = None
