"""Aleatoric uncertainty: choose the examples whose joints are predicted to be far off.

Kendall & Gal, "What Uncertainties Do We Need in Bayesian Deep Learning for Computer
Vision?", NeurIPS 2017, as the published code of EGL++ and VL4Pose compares with it: a
head learns the log variance of each joint's error, its mean over the joints is the
score. We differ in the likelihood, see `objectives.aleatoric`.
"""

import functools

from jalpose.acquisition.method import Method, Requires, Selection, by_score
from jalpose.acquisition.parts.heads import check_head, requires_head
from jalpose.training import objectives

SECTION = "acquisition.aleatoric"


def acquire(key, probe, labelled, unlabelled, budget, **options) -> Selection:
    """Choose the `budget` examples of the largest mean log variance.

    Args:
      key: unused.
      probe: of the trained network and head.
      labelled: unused.
      unlabelled: int64 [M], example ids.
      budget: how many to choose.
      options: trained before, see `requires`.

    Returns:
      A selection whose explanation is log_variances float32 [M, J], of the joints
      (heatmap pixels squared).

    Raises:
      FloatingPointError: a score is not finite; names the example ids.
    """
    del key, labelled, options
    found = probe.reduce(_log_variances, unlabelled)["log_variances"]
    explanation = {"log_variances": found}
    return by_score(unlabelled, found.mean(axis=1), budget, explanation=explanation)


def requires(skeleton, *, head, published, weight, detach_after, steps) -> Requires:
    """A head of one output a joint, its log variance.

    Args:
      skeleton: whose joints.
      head: see `acquisition.heads`, like the rest.
      published: learn by the published code's likelihood, that of one coordinate.
      weight: see `acquisition.heads`.
      detach_after: see `acquisition.heads`.
      steps: see `acquisition.heads`.
    """
    return requires_head(
        _objective(bool(published)),
        skeleton.num_joints,
        head=head,
        weight=weight,
        detach_after=detach_after,
        steps=steps,
    )


def check(num_neighbours, *, published, **shared) -> None:
    """Raise ValueError for options that cannot work."""
    del num_neighbours, published
    check_head(SECTION, **shared)


@functools.cache
def _objective(published):
    """The same function object for equal options: what it trains is compiled once."""
    return functools.partial(objectives.aleatoric, published=published)


def _log_variances(output, key):
    del key
    return {"log_variances": output.head}


METHOD = Method(acquire, check, requires=requires)
