"""A network of one layer, and its options."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp

from jalpose.models.options import check_dropout
from jalpose.models.output import Output


class OneLayer(nn.Module):
    num_outputs: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, images, train=False, drop=None):
        batch, size = images.shape[0], images.shape[1]
        cells = images.reshape(batch, 4, size // 4, 4, size // 4, 3)
        embedding = cells.max(axis=(2, 4)).reshape(batch, -1)
        if self.dropout:
            drop = train if drop is None else drop
            embedding = nn.Dropout(self.dropout)(embedding, not drop)
        said = nn.Dense(self.num_outputs, name="out")(embedding)
        return Output(said, embedding.astype(jnp.float32))


@dataclasses.dataclass(frozen=True)
class OneLayerOptions:
    dropout: float = 0.0
    last_layer: ClassVar[str] = "out"
    output_layers: ClassVar[tuple[str, ...]] = ("out",)
    predicts: ClassVar[str] = "logits"  # its own task does not ask
    scales: ClassVar[dict] = {}

    def check(self, size):
        check_dropout(self.dropout)

    def build(self, num_outputs, *, traced=False):
        return OneLayer(num_outputs, dropout=self.dropout)
