"""Classes to everything that computes: logits learnt by their cross-entropy.

Examples are images, or the rows that an encoder makes of them (`data.encoder`).
A label is {"class": int32 []}, -1 where nobody knows it, a prediction the logits
float32 [C], a target (the share of each class float32 [C], bool [] whether it counts).
"""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int
from ml_collections import ConfigDict

from jalpose.data.dataset import Dataset
from jalpose.runtime.shapes import AnyArray
from jalpose.tasks.classification.annotations import classes_of
from jalpose.tasks.classification.augment import NO_AUGMENTATION, Ranges, augment
from jalpose.tasks.task import CandidateOptions, Candidates

POSTERIORS = ("softmax",)
MEASURES = ("prediction", "decoded")  # of `disagreement`

Label = Mapping[str, Int[AnyArray, ""]]
Logits = Float[AnyArray, " c"]
Target = tuple[Float[AnyArray, " c"], Bool[AnyArray, ""]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassTask:
    """One class an image, of C.

    Attributes:
      size: height and width of the image, pixels.
      num_classes: C.
      ranges: of the augmentations, of images.
      columns: numbers of a row that an encoder makes of an image; 0: images themselves.
      smoothing: share of a label that all classes have alike (Szegedy et al., CVPR
        2016, section 7); 0: the label alone counts.
    """

    size: int
    num_classes: int
    ranges: Ranges = NO_AUGMENTATION
    columns: int = 0
    smoothing: float = 0.0
    name = "classification"
    posteriors = POSTERIORS
    measures = MEASURES

    @property
    def example(self) -> jax.ShapeDtypeStruct | None:
        """A row [F]; None: an image."""
        if not self.columns:
            return None
        return jax.ShapeDtypeStruct((self.columns,), jnp.float32)

    @property
    def pixels(self) -> bool | None:
        """Are examples images?"""
        return None if self.columns else True

    @property
    def num_outputs(self) -> int:
        """Classes, a logit each."""
        return self.num_classes

    @property
    def label_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """The number of a class."""
        return {"class": jax.ShapeDtypeStruct((), jnp.int32)}

    def augment(
        self, key, image: Float[AnyArray, "..."], label: Label
    ) -> tuple[Float[AnyArray, "..."], Label]:
        """Cropped and mirrored; see `augment.augment`. A row is taken as it is."""
        if self.columns:
            return image, label
        return augment(key, image, self.ranges), label

    def target(self, label: Label) -> Target:
        """Share of each class [C], and whether the class is known."""
        known = jnp.asarray(label["class"]) >= 0
        chosen = jax.nn.one_hot(label["class"], self.num_classes)
        even = self.smoothing / self.num_classes
        return (1 - self.smoothing) * chosen + even, known

    def known(self, target: Target) -> Bool[AnyArray, ""]:
        """Is the class known?"""
        return target[1]

    def loss(self, prediction: Logits, target: Target) -> Float[jax.Array, ""]:
        """Cross-entropy of the target and the softmax of the logits, in nats."""
        shares, known = target
        logs = jax.nn.log_softmax(prediction.astype(jnp.float32))
        return jnp.where(known, -jnp.sum(shares * logs), 0.0)

    def decode(self, prediction: Logits) -> dict[str, AnyArray]:
        """The likeliest class int32 [], and the probabilities of all float32 [C]."""
        return {
            "class": jnp.argmax(prediction).astype(jnp.int32),
            "probabilities": jax.nn.softmax(prediction.astype(jnp.float32)),
        }

    # Capabilities.

    def posterior(
        self, prediction: Logits, kind: str, temperature: float, log: bool = False
    ) -> Float[AnyArray, "1 c"]:
        """Distribution over the classes, of one site: [1, C].

        Args:
          prediction: logits.
          kind: "softmax".
          temperature: the logits are divided by it.
          log: its logarithm, exact where it is small.
        """
        if kind not in POSTERIORS:
            raise ValueError(f"{kind=} is not one of {POSTERIORS}")
        logits = prediction.astype(jnp.float32) / temperature
        found = jax.nn.log_softmax(logits) if log else jax.nn.softmax(logits)
        return found[None]

    def candidates(self, options: CandidateOptions) -> Candidates:
        """The likeliest classes; see `candidates_of`."""
        return candidates_of(self, options)

    def disagreement(
        self, predictions: Float[AnyArray, "k c"], measure: str
    ) -> Float[AnyArray, " 1"]:
        """How much K predictions differ, of one site: [1].

        "prediction": variance of the probabilities over the K, sum over the classes.
        "decoded": variation ratio (Freeman 1965): the share of the K that do not
        predict the class which most of them predict.
        """
        if measure == "prediction":
            shares = jax.nn.softmax(predictions.astype(jnp.float32))
            return jnp.var(shares, axis=0).sum()[None]
        votes = jax.nn.one_hot(jnp.argmax(predictions, axis=1), self.num_classes)
        apart = 1 - votes.mean(axis=0).max()
        # Logits with a NaN have a largest one too.
        return jnp.where(jnp.isfinite(predictions).all(), apart, jnp.nan)[None]

    def predicted_target(self, prediction: Logits, label: Label) -> Target:
        """The network's own probabilities, where the class is known."""
        shares = jax.nn.softmax(prediction.astype(jnp.float32))
        return shares, jnp.asarray(label["class"]) >= 0

    def predicted_label(self, prediction: Logits) -> Label:
        """The likeliest class."""
        return {"class": jnp.argmax(prediction).astype(jnp.int32)}

    def predicted_point(self, prediction: Logits) -> Float[AnyArray, " c"]:
        """The probabilities of the classes: [C]."""
        return jax.nn.softmax(prediction.astype(jnp.float32))


@functools.cache
def candidates_of(task: ClassTask, options: CandidateOptions) -> Candidates:
    """The likeliest classes an example may have; the same object for equal arguments.

    Of at least C candidates all classes are there and the expectation is exact, a
    gradient a class. Of fewer, those of the highest probability stand for all, their
    probabilities divided by the sum: the N-best labels of Settles and Craven, EMNLP
    2008, section 3.3. A candidate is learnt as a label would be, label smoothing too.
    """
    count = min(options.peaks, task.num_classes)

    def find(prediction):
        (shares,) = task.posterior(prediction, options.posterior, options.temperature)
        values, classes = jax.lax.top_k(shares, count)
        return {"candidates": classes, "shares": values / values.sum()}

    def class_targets(row):
        return jax.vmap(lambda one: task.target({"class": one}))(row["candidates"])

    def explain(found):
        arrays = (
            {} if count == task.num_classes else {"candidates": found["candidates"]}
        )
        likeliest = float(found["shares"].max(axis=1).mean())
        return arrays, {"candidates": count, "mean_highest_probability": likeliest}

    return Candidates(
        find=find,
        weights=lambda found: found["shares"],
        targets=class_targets,
        loss=task.loss,
        explain=explain,
    )


def make_task(config: ConfigDict, dataset: Dataset) -> ClassTask:
    """The task that a config describes, of the classes of its data set."""
    columns = dataset.columns
    return ClassTask(
        size=config.data.size,
        num_classes=len(classes_of(dataset)),
        ranges=NO_AUGMENTATION if columns else Ranges(**config.augment),
        columns=columns,
        smoothing=config.training.label_smoothing,
    )
