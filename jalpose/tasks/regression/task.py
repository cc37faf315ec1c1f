"""Numbers to everything that computes: standardised, learnt by their squared error.

A label is {"value": float32 []}, NaN where nobody knows it; a target the value less
the mean of those labelled at the start, by their deviation, and bool [] whether it is
known; a prediction float32 [1], or [2] with the logarithm of the variance.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float
from ml_collections import ConfigDict

from jalpose.data.dataset import Dataset
from jalpose.runtime.shapes import AnyArray

MEASURES = ("prediction", "decoded")  # of `disagreement`
_MOST = 10.0  # of a logarithm of a variance, either way: beyond, weights run off

Label = Mapping[str, Float[AnyArray, ""]]
Prediction = Float[AnyArray, " o"]
Target = tuple[Float[AnyArray, ""], Bool[AnyArray, ""]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NumberTask:
    """One number a row.

    Attributes:
      columns: F, numbers of a row.
      mean: of the labels at the start.
      scale: their deviation, above 0.
      variance: the network predicts the label's variance too (Shukla, WACV 2022, Eq.
        8; Kendall and Gal, NIPS 2017).
    """

    columns: int
    mean: float
    scale: float
    variance: bool = False
    name = "regression"
    size = 1
    measures = MEASURES

    @property
    def example(self) -> jax.ShapeDtypeStruct:
        """A row [F]."""
        return jax.ShapeDtypeStruct((self.columns,), jnp.float32)

    @property
    def num_outputs(self) -> int:
        """The number, and the logarithm of its variance."""
        return 2 if self.variance else 1

    @property
    def label_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """The number."""
        return {"value": jax.ShapeDtypeStruct((), jnp.float32)}

    def augment(
        self, key, image: Float[AnyArray, " f"], label: Label
    ) -> tuple[Float[AnyArray, " f"], Label]:
        """The row as it is: there is no other of the same label."""
        del key
        return image, label

    def target(self, label: Label) -> Target:
        """The standardised value, and whether it is known."""
        value = (jnp.asarray(label["value"]) - self.mean) / self.scale
        known = jnp.isfinite(value)
        return jnp.where(known, value, 0.0), known

    def known(self, target: Target) -> Bool[AnyArray, ""]:
        """Is the value known?"""
        return target[1]

    def loss(self, prediction: Prediction, target: Target) -> Float[jax.Array, ""]:
        """(y - f)^2 / 2; with a variance s^2 also divided by it, and log(s^2) / 2."""
        value, known = target
        mean, _ = self.moments(prediction)
        loss = 0.5 * jnp.square(value - mean)
        if self.variance:
            log = self._log_variance(prediction)
            loss = loss * jnp.exp(-log) + 0.5 * log
        return jnp.where(known, loss, 0.0)

    def decode(self, prediction: Prediction) -> dict[str, AnyArray]:
        """Value and deviation float32 [], in the label's unit; 0 without a variance."""
        mean, variance = self.moments(prediction)
        return {
            "value": mean * self.scale + self.mean,
            "deviation": jnp.sqrt(variance) * self.scale,
        }

    # Capabilities.

    def moments(
        self, prediction: Prediction
    ) -> tuple[Float[AnyArray, ""], Float[AnyArray, ""]]:
        """Mean and variance of the label, standardised; 0 without a variance."""
        mean = prediction[0].astype(jnp.float32)
        if not self.variance:
            return mean, jnp.zeros_like(mean)
        return mean, jnp.exp(self._log_variance(prediction))

    def disagreement(
        self, predictions: Float[AnyArray, "k o"], measure: str
    ) -> Float[AnyArray, " 1"]:
        """Variance of K predicted numbers, of one site: [1].

        "prediction": of the standardised numbers; "decoded": in the label's unit.
        """
        found = jnp.var(predictions[:, 0].astype(jnp.float32))[None]
        return found * self.scale**2 if measure == "decoded" else found

    def predicted_target(self, prediction: Prediction, label: Label) -> Target:
        """The network's own number, where the label is known."""
        return self.moments(prediction)[0], self.target(label)[1]

    def _log_variance(self, prediction: Prediction) -> AnyArray:
        return jnp.clip(prediction[1].astype(jnp.float32), -_MOST, _MOST)


def make_task(config: ConfigDict, dataset: Dataset) -> NumberTask:
    """The task that a config describes, scaled by what is labelled at the start."""
    values = dataset.truth["value"][dataset.initial].astype(np.float64)
    return NumberTask(
        columns=len(dataset.image(0)),
        mean=float(values.mean()),
        scale=float(values.std()),
        variance=config.training.variance,
    )
