"""VL4Pose: choose the examples whose predicted pose has the lowest likelihood.

Shukla, Roy, Singh, Ahmed, Alahi, "VL4Pose: Active Learning Through Out-Of-Distribution
Detection For Pose Estimation", BMVC 2022; formulas here follow its published code, not
the paper's equations, which were not at hand. A pose is a tree of joints, a Bayesian
network: given its parent, a joint lies at a distance that is Gaussian, with mean and
variance that a head predicts from the image's features; and each joint lies at one of
the peaks of its heatmap, with probability in proportion to exp(height). A pose that
is unlikely under what was learned from labelled poses is far from the training
distribution. With c_j the peak joint j is at, d the distance of two of them, and over
all joints j and links (p, k) from the head outwards,

  log-likelihood(c) = sum_j log w_j(c_j) + sum_pk log N(d(c_p, c_k); mu_pk, e^s_pk).

The published code walks the tree with this term, but at every joint it adds up the
log-likelihoods of all peaks (of the subtrees below them), so that a joint with more
peaks makes a pose less likely for that alone, and calls the sum the maximum. It
excludes peaks as near to the border as peaks must be from each other, and fails where
a map has none. (With its published setting of one peak a joint, the sum is the
maximum, and w is 1.)

We take what it names: the largest log-likelihood over all placements of the joints,
exactly, by max-sum over the tree. `positions=expected` takes the mean over placements
instead, joints drawn independently by w: then a joint that may be in two places costs
its entropy too. Both are the same for one peak. Peaks at the border count, and a joint
whose map has no peak is at the map's highest pixel, with w = 1, so that every example
has a score.
"""

import dataclasses
import functools
import itertools
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy

from jalpose.acquisition.method import Method, Pool, Selection, by_score
from jalpose.acquisition.parts.heads import check_head, needs_head
from jalpose.acquisition.pose import objectives
from jalpose.settings.checks import ConfigError, at_least, one_of
from jalpose.tasks.pose import heatmaps
from jalpose.training.needs import Needs
from jalpose.training.objectives import gaussian_nll

SECTION = "acquisition.vl4pose"
POSITIONS = ("best", "expected")

Links = tuple[tuple[int, int], ...]

_ARMS_AND_LEGS = tuple(
    (f"{side} {parent}", f"{side} {child}")
    for side in ("left", "right")
    for parent, child in (
        ("shoulder", "elbow"),
        ("elbow", "wrist"),
        ("hip", "knee"),
        ("knee", "ankle"),
    )
)
# Trees rooted in the head, (parent, child), a joint's own link before its children's.
_LSP = (
    ("head", "neck"),
    ("neck", "left shoulder"),
    ("neck", "right shoulder"),
    ("left shoulder", "left hip"),
    ("right shoulder", "right hip"),
    *_ARMS_AND_LEGS,
)
_MPII = (
    ("head", "neck"),
    ("neck", "thorax"),
    ("thorax", "pelvis"),
    ("thorax", "left shoulder"),
    ("thorax", "right shoulder"),
    ("pelvis", "left hip"),
    ("pelvis", "right hip"),
    *_ARMS_AND_LEGS,
)
LINKS = {
    frozenset(itertools.chain.from_iterable(links)): links for links in (_LSP, _MPII)
}


def links_of(skeleton) -> Links:
    """(parent, child) joint indices of the skeleton's tree, from the head outwards.

    Raises:
      ConfigError: no tree is known for joints of these names.
    """
    names = LINKS.get(frozenset(skeleton.joints))
    if names is None:
        known = "; ".join(", ".join(sorted(joints)) for joints in LINKS)
        raise ConfigError(
            f"vl4pose has no links for the skeleton {skeleton.name}, whose joints are "
            f"{', '.join(skeleton.joints)}. It knows those of: {known}."
        )
    index = skeleton.joints.index
    return tuple((index(parent), index(child)) for parent, child in names)


@dataclasses.dataclass(frozen=True)
class Vl4Pose(Method):
    """Likelihood of the predicted pose by the lengths of its links, the lowest first.

    Attributes:
      head: network on top of its features, see `models.heads`: stacks (Learning
        Loss) | average (LL++) | conv (LL++conv).
      weight: of the head's objective beside the task's loss (Learning Loss's lambda).
      detach_after: epochs of each training after which the objective no longer reaches
        the network; 0: it never does.
      steps: of training the head alone on a finished model that has none.
      peaks: candidate positions of a joint, peaks of its map, at most.
      min_distance: of two of them, pixels of a 64x64 map; scaled with the map's size.
      positions: best (the most likely placement) | expected (the mean over all).
    """

    head: str = "average"
    weight: float = 1.0
    detach_after: float = 0.0
    steps: int = 5000
    peaks: int = 5
    min_distance: float = 8
    positions: str = "best"

    capabilities: ClassVar = ("skeleton",)
    scales: ClassVar = {"tiny": {"steps": 6}, "small": {"steps": 800}}

    def __post_init__(self):
        """Refuse options that cannot work."""
        check_head(SECTION, self)
        one_of(f"{SECTION}.positions", self.positions, POSITIONS)
        at_least(1, **{f"{SECTION}.peaks": self.peaks})
        at_least(1, **{f"{SECTION}.min_distance": self.min_distance})

    def check(self, task, *, num_trained, budget) -> None:
        """Refuse a skeleton without links."""
        del num_trained, budget
        links_of(task.skeleton)

    def needs(self, task) -> Needs:
        """A head of two outputs a link, the mean and log variance of its length."""
        links = links_of(task.skeleton)
        return needs_head(self, _objective(task, links), outputs=2 * len(links))

    def acquire(self, key, probe, pool: Pool, budget) -> Selection:
        """Choose the `budget` examples of the lowest log-likelihood.

        Scores are negative log-likelihoods; the explanation is link_lengths and
        link_log_variances, float32 [M, links], as predicted (heatmap pixels, and
        squared). Nothing is drawn.

        Raises:
          FloatingPointError: a score is not finite; names the example ids.
        """
        del key
        links = links_of(probe.task.skeleton)
        fn = _scores(links, self.peaks, float(self.min_distance), self.positions)
        found = dict(probe.reduce(fn, pool.unlabelled))
        score = found.pop("score")
        return by_score(pool.unlabelled, score, budget, explanation=found)


def candidates(maps, *, peaks: int, min_distance: float):
    """Where each joint may be, by its heatmap; for one example.

    Args:
      maps: [h, w, J].
      peaks: P, at most, of a joint.
      min_distance: of two of them, pixels of a 64x64 map.

    Returns:
      positions: float32 [J, P, 2], (x, y) in heatmap pixels.
      weights: float32 [J, P], the softmax of the peaks' heights, 0 where there is no
        peak; NaN for a map with a NaN or an infinity.
    """
    height, width, _ = maps.shape
    distance = max(1, round(min_distance * height / heatmaps.REFERENCE_SIZE))
    values, positions, found = heatmaps.local_peaks(
        maps, num_peaks=peaks, min_distance=distance, threshold=0.0
    )
    flat = maps.reshape(height * width, -1)
    top = jnp.argmax(flat, axis=0)
    highest = jnp.stack([top % width, top // width], axis=-1)  # [J, 2]
    highest = highest.astype(jnp.float32)[:, None]
    positions = jnp.where(found[..., None], positions, highest)
    # A joint without a peak: its highest pixel instead, in the first place.
    first = jnp.arange(peaks) == 0
    instead = ~jnp.any(found, axis=1)[:, None] & first[None]
    heights = jnp.where(found, values, jnp.where(instead, 0.0, -jnp.inf))
    weights = jax.nn.softmax(heights, axis=1)
    return positions, jnp.where(
        jnp.isfinite(flat).all(axis=0)[:, None], weights, jnp.nan
    )


def best_log_likelihood(positions, weights, mean, log_variance, links: Links):
    """Largest log-likelihood of a placement of the joints, see the module.

    Args:
      positions: [J, P, 2], heatmap pixels.
      weights: [J, P], of the positions of a joint; 0 for none.
      mean: [links], heatmap pixels.
      log_variance: [links].
      links: (parent, child), a joint's own before those of its children.
    """
    below = list(jnp.log(weights))  # of the subtree from each joint on, [P]
    # From the leaves inwards: a joint is complete before its parent needs it.
    for i, (parent, child) in reversed(list(enumerate(links))):
        given = _link(positions, mean[i], log_variance[i], links[i])  # [P, P]
        message = jnp.max(given + below[child][None], axis=1)
        below[parent] = below[parent] + message
    return jnp.max(below[links[0][0]])


def expected_log_likelihood(positions, weights, mean, log_variance, links: Links):
    """Mean log-likelihood of placements drawn by the weights, joint by joint.

    Arguments as those of `best_log_likelihood`.
    """
    total = jnp.sum(xlogy(weights, weights))
    for i, (parent, child) in enumerate(links):
        given = _link(positions, mean[i], log_variance[i], links[i])  # [P, P]
        both = weights[parent][:, None] * weights[child][None]
        total = total + jnp.sum(both * given)
    return total


def _link(positions, mean, log_variance, link):
    """Log density of a link's length: [peaks of the parent, peaks of the child]."""
    parent, child = positions[link[0]], positions[link[1]]
    length = jnp.linalg.norm(parent[:, None] - child[None], axis=-1)
    nll = gaussian_nll(jnp.square(length - mean), log_variance, 1)
    return -nll - 0.5 * math.log(2 * math.pi)


@functools.cache
def _objective(task, links):
    """The same function object for equal arguments: what it trains is compiled once."""
    return functools.partial(objectives.link_length, task=task, links=links)


@functools.cache
def _scores(links, peaks, min_distance, positions):
    """The reduction of a pass, the same object for equal options."""
    likelihood = {"best": best_log_likelihood, "expected": expected_log_likelihood}

    def pose_likelihood(output, key):
        del key
        mean, log_variance = objectives.split_links(output.head)
        where, weights = candidates(
            output.prediction[-1], peaks=peaks, min_distance=min_distance
        )
        found = likelihood[positions](where, weights, mean, log_variance, links)
        return {
            "score": -found,
            "link_lengths": mean,
            "link_log_variances": log_variance,
        }

    return pose_likelihood
