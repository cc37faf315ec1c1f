"""What examples are points of, for methods that go by how far these are apart."""

import dataclasses
import functools
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jalpose.acquisition.eglpp import EglPlusPlus
from jalpose.acquisition.method import Method, Pool, Selection
from jalpose.settings.checks import ConfigError, one_of
from jalpose.tasks.task import CAPABILITIES, lacking

SPACES = ("embedding", "gradients", "prediction")
COTANGENTS = ("random", "neighbours", "predicted")
LAYERS = ("all", "last")


class Placed(NamedTuple):
    """Where examples are.

    Attributes:
      pool: float32 [M, C], of the unlabelled.
      labelled: float32 [L, C].
    """

    pool: np.ndarray
    labelled: np.ndarray


@dataclasses.dataclass(frozen=True)
class Spatial(Method):
    """A method that goes by the places of examples alone.

    There is no score of an example by itself: what it is worth depends on what was
    chosen before it. So scores are NaN, and the explanation says what it was worth when
    its turn came.

    All labelled examples count as there, held-out ones too: their labels are bought,
    and one like them would be bought a second time. What they teach is the schedule and
    the choice of weights alone; but they are a random tenth, and whatever region of the
    pool they lie in has nine others on average that are trained on.

    Attributes:
      space: embedding (the features before the network's last layer) | gradients
        (random projections of gradients by the parameters, from exact backward passes:
        inner products estimate those of gradients, see `pergrad.gradient_sketches`) |
        prediction (what the network would answer, see `predicted_point` in
        `tasks.task.CAPABILITIES`: of a pose its joints about their mean; on the outputs
        of an ensemble Kirsch, arXiv 2302.08981, has such methods).
      cotangents: of what the gradients are. random: of `directions` random linear
        functions of the prediction, the same for every example; no label is asked for,
        and inner products estimate the trace of the neural tangent kernel. neighbours:
        of the loss under the labels of `candidates` labelled neighbours, each weighted
        by the root of its probability, as EGL++ finds them at a perplexity of a third
        of their number; the squared length estimates EGL++'s score. predicted: of the
        loss under what the network would answer, as BADGE has it.
      layers: whose gradients. all; or last, the parameters in which the prediction is
        linear (a classifier's last layer), for which no backward pass goes further:
        what BADGE's authors take.
      directions: random functions; a backward pass each.
      candidates: neighbours; a backward pass each.
      size: numbers an example's projection has; as many as there are parameters, where
        these are fewer.
    """

    space: str = "embedding"
    cotangents: str = "random"
    layers: str = "all"
    directions: int = 4
    candidates: int = 9
    size: int = 512
    section: ClassVar[str] = ""  # of the config, for messages
    scales: ClassVar = {"tiny": {"size": 32, "candidates": 3, "directions": 2}}

    def __post_init__(self):
        """Refuse a space that there is not, and numbers below 1."""
        one_of(f"{self.section}.space", self.space, SPACES)
        one_of(f"{self.section}.cotangents", self.cotangents, COTANGENTS)
        one_of(f"{self.section}.layers", self.layers, LAYERS)
        positive(
            self.section,
            directions=self.directions,
            candidates=self.candidates,
            size=self.size,
        )

    # A property where `Method` has a class's constant: here an option decides.
    @property
    def uses_engine(self) -> bool:  # type: ignore[override]
        """Are there backward passes to be done?"""
        return self.space == "gradients"

    def check(self, task, *, num_trained, budget) -> None:
        """Refuse cotangents that the task or the labelled set does not have."""
        del budget
        if self.space == "prediction":
            self._has(task, "predicted_point", "space='prediction'", "'embedding'")
        if not self.uses_engine:
            return
        if self.cotangents == "predicted":
            self._has(task, "predicted_label", "cotangents='predicted'", "'random'")
        if self.cotangents == "neighbours":
            neighbours = self._neighbours()
            if max(neighbours.neighbours, neighbours.perplexity + 1) > num_trained:
                raise ConfigError(
                    f"{self.section}.candidates={self.candidates}, but only "
                    f"{num_trained} labelled examples outside the held-out tenth can "
                    "be neighbours: choose a smaller value or a larger data.initial"
                )

    def _has(self, task, capability, option, instead):
        if lacking(task, (capability,)):
            raise ConfigError(
                f"{self.section}.{option} does not work on the task {task.name}, which "
                f"lacks {capability} {CAPABILITIES[capability]}: set it to {instead}"
            )

    def place(self, key, probe, pool: Pool) -> Placed:
        """Find where the unlabelled and the labelled are."""
        unlabelled, labelled = pool.unlabelled, pool.labelled.ids
        if self.uses_engine:
            find = functools.partial(self._project, key, probe, pool)
        elif self.space == "prediction":
            find = functools.partial(_predicted, probe)
        else:
            find = probe.embeddings
        found = find(unlabelled)
        if not len(labelled):  # a pass of nothing has no width
            return Placed(found, found[:0])
        return Placed(found, find(labelled))

    def _project(self, key, probe, pool, ids):
        """Projections of gradients: float32 [len(ids), size]."""
        key, task = jax.random.fold_in(key, 2), probe.task
        arguments = {"size": self.size, "key": key, "layers": self.layers}
        count = len(ids)
        if self.cotangents == "predicted":
            scales, names = np.ones((count, 1), np.float32), np.zeros((count, 1), int)
            return probe.sketches(
                _nothing, ids, scales, names, loss_fn=_of_answer(task), **arguments
            )
        if self.cotangents == "neighbours":
            own = self._neighbours().candidates(probe, pool._replace(unlabelled=ids))
            return probe.sketches(
                own.targets_fn,
                ids,
                np.sqrt(own.probabilities),
                # Two examples have in common what a label that both may have teaches.
                pool.labelled.ids[own.rows],
                own.context,
                **arguments,
            )
        draws = jax.random.split(jax.random.fold_in(key, 1), self.directions)
        drawn = np.asarray(jax.random.key_data(draws))
        scales = np.full((count, self.directions), self.directions**-0.5, np.float32)
        names = np.tile(np.arange(self.directions), (count, 1))

        def context(positions):
            return {"draws": np.tile(drawn, (len(positions), 1, 1))}

        return probe.sketches(
            _drawn, ids, scales, names, context, loss_fn=_along, **arguments
        )

    def _neighbours(self) -> EglPlusPlus:
        perplexity = max(1.0, self.candidates / 3)
        return EglPlusPlus(perplexity=perplexity, neighbours=self.candidates)


def _predicted(probe, ids):
    """What the network would answer, as points: float32 [len(ids), C]."""
    return probe.reduce(_point_of(probe.task), ids)["point"]


@functools.cache
def _point_of(task):
    """The reduction to what a task has as a point; the same object for equal tasks."""

    def point(output, key):
        del key
        return {"point": task.predicted_point(output.prediction)}

    return point


def _nothing(row):
    """Targets of a loss that asks for none."""
    del row
    return jnp.zeros(1)


def _drawn(row):
    """Keys of the random functions."""
    return row["draws"]


def _along(prediction, draw):
    """A random linear function of the prediction, of independent unit weights."""
    leaves, key = jax.tree.leaves(prediction), jax.random.wrap_key_data(draw)
    return sum(
        jnp.vdot(jax.random.normal(jax.random.fold_in(key, i), leaf.shape), leaf)
        for i, leaf in enumerate(leaves)
    )


@functools.cache
def _of_answer(task):
    """Loss under what the network would answer; the same object for equal tasks."""

    def loss(prediction, target):
        del target
        answer = task.target(task.predicted_label(prediction))
        return task.loss(prediction, jax.lax.stop_gradient(answer))

    return loss


def unscored(pool: Pool, order, explanation, summary) -> Selection:
    """A selection of rows of the unlabelled in this order, without scores."""
    return Selection(
        indices=pool.unlabelled[order],
        scores=np.full(len(pool.unlabelled), np.nan, np.float32),
        explanation=explanation,
        summary=summary,
    )


def at_turn(pool: Pool, order, values) -> np.ndarray:
    """What the chosen were worth when their turn came: float32 [M], NaN of others."""
    found = np.full(len(pool.unlabelled), np.nan, np.float32)
    found[order] = values
    return found


def labelled_needed(pool: Pool, name: str) -> None:
    """Raise ValueError where nothing is labelled."""
    if not len(pool.labelled.ids):
        raise ValueError(
            f"{name} needs labelled examples to be far from, and there are none: set "
            "data.initial above 0"
        )


def positive(section: str, **values) -> None:
    """Raise ConfigError for options that must be above 0 and are not."""
    for name, value in values.items():
        if not value > 0:
            raise ConfigError(f"{section}.{name}={value} must be above 0")
