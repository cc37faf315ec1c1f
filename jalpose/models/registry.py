"""Networks by name: the fields of their options are the keys of `config.model`."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from jalpose.models.convolution import blocked_convolution
from jalpose.models.hourglass import StackedHourglass
from jalpose.settings.checks import ConfigError, above, one_of

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@runtime_checkable
class Options(Protocol):
    """What a network of a name may be told: a frozen dataclass, its fields the keys.

    Attributes:
      scales: what the scales tiny and small change of the fields.
      last_layer: what the names of the modules begin with that predictions come out of.
    """

    last_layer: ClassVar[str]
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class HourglassOptions:
    """Stacked hourglass.

    Attributes:
      stacks: hourglasses in a row.
      channels: width; a multiple of 4.
      depth: poolings inside an hourglass.
      dtype: of activations: float32 | bfloat16.
      convolution: native (lax.conv) | blocked (kernel gradients in blocks: faster on a
        CPU) | auto (blocked on a CPU, else native).
      dropout: probability with which a residual drops a channel in training (and in
        the samples of acquisition.method=mc_dropout, which needs it).
    """

    stacks: int = 2
    channels: int = 256
    depth: int = 4
    dtype: str = "float32"
    convolution: str = "auto"
    dropout: float = 0.0
    last_layer: ClassVar[str] = "heatmaps"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": {"stacks": 1, "channels": 16, "depth": 2},
        "small": {"stacks": 1, "channels": 96},
    }

    def check(self, size: int) -> None:
        """Raise ConfigError for options that cannot work on images of this size."""
        one_of("model.dtype", self.dtype, DTYPES)
        one_of("model.convolution", self.convolution, ("auto", "native", "blocked"))
        above(0, model__stacks=self.stacks, model__channels=self.channels)
        above(0, model__depth=self.depth)
        check_dropout(self.dropout)
        if self.channels % 4:
            raise ConfigError(f"model.channels={self.channels} must be a multiple of 4")
        unit = 4 * 2**self.depth
        if size % unit:
            raise ConfigError(
                f"data.size={size} must be a multiple of {unit}: the stem divides by 4 "
                f"and model.depth={self.depth} halves {self.depth} times"
            )

    def build(self, num_outputs: int, *, traced: bool = False) -> StackedHourglass:
        """Linen module of the network; see `Options`."""
        convolution = "native" if traced else self.convolution
        if convolution == "auto":
            convolution = "blocked" if jax.default_backend() == "cpu" else "native"
        return StackedHourglass(
            num_outputs,
            stacks=self.stacks,
            channels=self.channels,
            depth=self.depth,
            dtype=DTYPES[self.dtype],
            convolve=blocked_convolution if convolution == "blocked" else None,
            dropout=self.dropout,
        )


def check_dropout(dropout: float) -> None:
    """Raise ConfigError where `model.dropout` is no probability to drop with."""
    if not 0 <= dropout < 1:
        raise ConfigError(f"model.dropout={dropout} must be 0 or more, and below 1")


MODELS: dict[str, type[Options]] = {"hourglass": HourglassOptions}


def options_of(model: Mapping[str, Any]) -> Options:
    """The options of the network that the config section `model` names."""
    given = dict(model)
    name = given.pop("name")
    one_of("model.name", name, MODELS)
    return MODELS[name](**given)
