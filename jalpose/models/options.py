"""What the options of all networks have in common, and what they check alike."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from jalpose.models.convolution import blocked_convolution
from jalpose.settings.checks import ConfigError, one_of

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@runtime_checkable
class Options(Protocol):
    """What a network of a name may be told: a frozen dataclass, its fields the keys.

    Attributes:
      scales: what the scales tiny and small change of the fields.
      last_layer: what the names of the modules begin with that predictions come out of.
      output_layers: what the names of the modules begin with that read or write
        outputs: other outputs need others.
    """

    last_layer: ClassVar[str]
    output_layers: ClassVar[tuple[str, ...]]

    @property
    def predicts(self) -> str:
        """What the task's loss is given: heatmaps | logits | numbers."""
        ...

    scales: ClassVar[Mapping[str, Mapping[str, Any]]]

    def check(self, size: int) -> None:
        """Raise ConfigError for options that cannot work on images of this size."""
        ...

    def build(self, num_outputs: int, *, traced: bool = False) -> Any:
        """The Linen module: images float32 [B, S, S, 3] -> `Output`.

        Args:
          num_outputs: of the task.
          traced: to be read by the engines of gradient norms, all but `exact`, which
            bring convolutions of their own: the same function of the same variables.
        """
        ...


def convolution_of(name: str, traced: bool) -> Callable | None:
    """What takes the place of `lax.conv_general_dilated` in a network; None: nothing.

    Args:
      name: native (lax.conv) | blocked (kernel gradients in blocks: faster on a CPU) |
        auto (blocked on a CPU, else native).
      traced: see `Options.build`.
    """
    if name == "auto":
        name = "blocked" if jax.default_backend() == "cpu" else "native"
    return blocked_convolution if name == "blocked" and not traced else None


def check_arithmetic(dtype: str, convolution: str) -> None:
    """Raise ConfigError for a `model.dtype` or `model.convolution` there is not."""
    one_of("model.dtype", dtype, DTYPES)
    one_of("model.convolution", convolution, ("auto", "native", "blocked"))


def check_dropout(dropout: float) -> None:
    """Raise ConfigError where `model.dropout` is no probability to drop with."""
    if not 0 <= dropout < 1:
        raise ConfigError(f"model.dropout={dropout} must be 0 or more, and below 1")


def check_normalisation(mean: Sequence[float], std: Sequence[float]) -> None:
    """Raise ConfigError unless `model.mean` and `model.std` are both of 3 channels.

    Both may be empty: images are not normalised.
    """
    shown = f"model.mean={tuple(mean)} and model.std={tuple(std)}"
    if (len(mean), len(std)) not in ((3, 3), (0, 0)):
        raise ConfigError(
            f"{shown} must be three numbers each, of red, green and blue in [0, 1], or "
            "both empty: images as they are"
        )
    if not all(value > 0 for value in std):
        raise ConfigError(f"{shown}: a standard deviation must be above 0")
