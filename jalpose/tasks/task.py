"""The contract of a task's JAX half: labels varied, learnt, read off and compared.

Everything is written for one example and batched by `vmap` where it is used. A task is
a frozen dataclass: equal tasks are one task, and what is compiled for one serves the
other. Methods ask for capabilities, not for names of tasks: an attribute that is not
there, or None, is a capability the task does not have.
"""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

Label = dict[str, jax.Array]
Arrays = dict[str, jax.Array]


@runtime_checkable
class Task(Protocol):
    """What is predicted of an image, and how it is learnt.

    Attributes:
      name: in the registry.
      size: height and width of the image that the network sees, pixels.
      num_outputs: of the network: joints, classes, numbers.
      label_shapes: of one label as the network's training sees it, by name.

    A task whose examples are no images but rows of numbers names their shape in
    `example`, a `ShapeDtypeStruct`; where the contract says image it then gets a row,
    and `size` is 1.

    A task with `posterior` lists its kinds in `posteriors`, and those that `candidates`
    knows, where they are others, in `candidate_posteriors`; one with `disagreement` its
    measures in `measures`. One whose predictions have a height that is chosen, not
    learnt, has it in `peak`.
    """

    @property
    def name(self) -> str:
        """Name in the registry."""
        ...

    @property
    def size(self) -> int:
        """Height and width of the image, pixels."""
        ...

    @property
    def num_outputs(self) -> int:
        """Number of the network's outputs."""
        ...

    @property
    def label_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of one label, by name."""
        ...

    def __hash__(self) -> int:
        """Equal tasks are one: what is compiled is kept by them."""
        ...

    def augment(self, key, image, label: Label) -> tuple[jax.Array, Label]:
        """One random version of an example.

        Args:
          key: of this example and step.
          image: float32 [S, S, 3] in [0, 1].
          label: of the image.
        """
        ...

    def target(self, label: Label) -> Any:
        """What the loss compares with; the only home of what in a label counts."""
        ...

    def known(self, target) -> jax.Array:
        """Does anything in the target count? bool []."""
        ...

    def loss(self, prediction, target) -> jax.Array:
        """Loss of one example, float32 []; 0 where nothing counts."""
        ...

    def decode(self, prediction) -> Arrays:
        """Read a prediction off, as people and scores take it, in crop pixels."""
        ...


class CandidateOptions(NamedTuple):
    """Which labels the expectation of `egl` is taken over.

    Attributes:
      peaks: candidates a site, at most.
      min_distance: between two of them, where a site's values have places.
      posterior: see `posterior` in `CAPABILITIES`.
      temperature: of a softmax.
    """

    peaks: int
    min_distance: float
    posterior: str
    temperature: float


class Candidates(NamedTuple):
    """Labels an example may have by its own prediction, for expected gradient norms.

    The expectation of the squared gradient norm of `loss` over the labels is the sum of
    `weights` times the squared gradient norms for the K targets.

    Attributes:
      find: prediction -> dict of arrays for the host. One named `positions` is for the
        records alone: `targets` does not get it.
      weights: what `find` found [M, ...] -> float32 [M, K].
      targets: one row of what `find` found -> K targets, any tree [K, ...].
      loss: (prediction, target) -> scalar.
      explain: what `find` found [M, ...] -> (arrays for the records, numbers for the
        cycle's record).
    """

    find: Callable[[Any], Arrays]
    weights: Callable[[dict], Any]
    targets: Callable[[dict], Any]
    loss: Callable[[Any, Any], jax.Array]
    explain: Callable[[dict], tuple[dict, dict]]


# What a task may have beside the contract, for methods and records to ask for.
CAPABILITIES = {
    "posterior": "(prediction, kind, temperature, log) -> [sites, values]: the model's "
    "distribution over each site's values",
    "candidates": "(CandidateOptions) -> Candidates: labels an example may have",
    "disagreement": "(predictions [K, ...], measure) -> [sites]: how much several "
    "predictions of one example differ, as predicted or as decoded",
    "predicted_target": "(prediction, label) -> target: what the network says in the "
    "place of a label",
    "predicted_label": "(prediction) -> label: what the network would answer",
    "predicted_point": "(prediction) -> [C]: what it would answer as a point, near "
    "that of another example where the answers are alike",
    "illustrate": "(prediction) -> arrays: what is kept of a few examples for pictures",
    "moments": "(prediction) -> mean and variance of one number, in the unit of the "
    "first part of `target`",
    "pixels": "examples that are images, which can be put together again",
    "skeleton": "named joints and the links between them",
}


def example_of(task: Any) -> jax.ShapeDtypeStruct:
    """One example as it is read: uint8 [S, S, 3], or the rows that a task names."""
    rows = getattr(task, "example", None)
    if rows is not None:
        return rows
    return jax.ShapeDtypeStruct((task.size, task.size, 3), jnp.uint8)


def lacking(task: Any, capabilities: Collection[str]) -> tuple[str, ...]:
    """The capabilities of `CAPABILITIES` that a task does not have."""
    return tuple(c for c in capabilities if getattr(task, c, None) is None)
