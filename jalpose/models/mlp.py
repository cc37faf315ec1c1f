"""Networks of rows of numbers: layers with tanh between, or one linear layer."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from jalpose.models.options import check_dropout
from jalpose.models.output import Features, Output
from jalpose.runtime.shapes import AnyArray
from jalpose.settings.checks import ConfigError, one_of


class Mlp(nn.Module):
    """Dense layers; the embedding is what the last of them reads.

    Attributes:
      num_outputs: of the task.
      hidden: width of each hidden layer; none: a linear model.
      dropout: probability with which what the last layer reads is dropped.
    """

    num_outputs: int
    hidden: tuple[int, ...]
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self,
        rows: Float[AnyArray, "b f"],
        train: bool = False,
        drop: bool | None = None,
    ) -> Output:
        """Rows float32 [B, F] -> `Output`; `drop`: under dropout, None: as `train`."""
        x = jnp.asarray(rows)
        for number, width in enumerate(self.hidden):
            x = jnp.tanh(nn.Dense(width, name=f"hidden{number}")(x))
        embedding = x
        if self.dropout:
            drop = train if drop is None else drop
            x = nn.Dropout(self.dropout)(x, not drop)
        said = nn.Dense(self.num_outputs, name="out")(x)
        return Output(said, embedding, Features(inputs=rows))


@dataclasses.dataclass(frozen=True)
class MlpOptions:
    """What a network of rows may be told.

    Attributes:
      hidden: width of each hidden layer, tanh behind it; (): a linear model.
      dropout: probability with which what the last layer reads is dropped.
      predicts: numbers | logits (of classes, of what `data.encoder` sees).
    """

    hidden: tuple[int, ...] = (64, 64)
    dropout: float = 0.0
    predicts: str = "numbers"

    last_layer: ClassVar[str] = "out"
    output_layers: ClassVar[tuple[str, ...]] = ("out",)
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {"tiny": {"hidden": (8,)}}

    def check(self, size: int) -> None:
        """Raise ConfigError for layers without a width, or an impossible dropout."""
        del size
        if any(width < 1 for width in self.hidden):
            raise ConfigError(
                f"model.hidden={tuple(self.hidden)}: every width must be at least 1; "
                "(): a linear model"
            )
        check_dropout(self.dropout)
        one_of("model.predicts", self.predicts, ("numbers", "logits"))

    def build(self, num_outputs: int, *, traced: bool = False) -> Mlp:
        """The module; engines read it as it is."""
        del traced
        return Mlp(num_outputs, tuple(self.hidden), self.dropout)
