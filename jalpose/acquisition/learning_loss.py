"""Learning Loss and LL++: choose the examples whose predicted loss is largest.

Yoo & Kweon, "Learning Loss for Active Learning", CVPR 2019: a head learns to order
examples by their loss (objective=margin, head=stacks; for poses weight=1e-4,
detach_after=75, sub_pool=5000). Shukla & Ahmed, "A Mathematical Analysis of Learning
Loss for Active Learning in Regression", CVPR workshops 2021: objective=kl, with
head=average LL++, with head=conv LL++conv, never reaching the pose network, no
sub-pool. Objective and head are free to be combined.
"""

import functools

import jax
import numpy as np

from jalpose.acquisition.method import Method, Requires, Selection, by_score, highest
from jalpose.acquisition.parts.heads import check_head, one_of, requires_head
from jalpose.scoring.passes import example_keys
from jalpose.training import objectives

SECTION = "acquisition.learning_loss"


def acquire(
    key,
    probe,
    labelled,
    unlabelled,
    budget,
    *,
    sub_pool,
    **trained,
) -> Selection:
    """Choose the `budget` examples of the largest predicted loss.

    Args:
      key: of the sub-pool. Each example draws with the key folded with its id, so
        being in it does not depend on the order of the others.
      probe: of the trained network and head.
      labelled: unused.
      unlabelled: int64 [M], example ids.
      budget: how many to choose.
      sub_pool: how many of the unlabelled are scored, drawn at random; 0: all. The
        others have the score NaN. (Neighbouring examples tend to have the same loss;
        a sub-pool keeps the choice from being all alike.)
      trained: the other options, of the head; see `requires`.

    Raises:
      ValueError: a sub-pool smaller than the budget.
      FloatingPointError: a prediction is not finite; names the example ids.
    """
    del labelled, trained
    if 0 < sub_pool < budget:
        raise ValueError(
            f"{SECTION}.sub_pool={sub_pool} is smaller than the budget, {budget}: take "
            "0, for all of the unlabelled, or more than the budget"
        )
    chosen = unlabelled
    if 0 < sub_pool < len(unlabelled):
        draws = jax.vmap(jax.random.uniform)(example_keys(key, unlabelled))
        drawn = highest(unlabelled, np.asarray(draws), sub_pool)
        chosen = unlabelled[np.isin(unlabelled, drawn)]
    found = probe.reduce(_predicted_loss, chosen)["loss"]
    selection = by_score(chosen, found, budget, summary={"scored": len(chosen)})
    scores = np.full(len(unlabelled), np.nan, np.float32)
    scores[np.isin(unlabelled, chosen)] = found
    return selection._replace(scores=scores)


def requires(
    skeleton, *, objective, head, margin, weight, detach_after, steps, sub_pool
) -> Requires:
    """A head of one output, trained to rank.

    Args:
      skeleton: unused.
      objective: margin (`objectives.margin_ranking`) | kl (`objectives.pair_kl`).
      head: see `acquisition.heads`.
      margin: of objective=margin, in units of the prediction.
      weight: see `acquisition.heads`.
      detach_after: see `acquisition.heads`.
      steps: see `acquisition.heads`.
      sub_pool: unused.
    """
    del skeleton, sub_pool
    return requires_head(
        _objective(objective, margin if objective == "margin" else 0.0),
        1,
        head=head,
        weight=weight,
        detach_after=detach_after,
        steps=steps,
    )


def check(
    num_neighbours, *, objective, head, margin, weight, detach_after, steps, sub_pool
) -> None:
    """Raise ValueError for options that cannot work."""
    del num_neighbours
    check_head(
        SECTION, head=head, weight=weight, detach_after=detach_after, steps=steps
    )
    one_of(f"{SECTION}.objective", objective, ("margin", "kl"))
    if margin <= 0:
        # With a margin of 0, equal predictions for all would be perfect.
        raise ValueError(f"{SECTION}.margin={margin} must be above 0")
    if sub_pool < 0:
        raise ValueError(f"{SECTION}.sub_pool={sub_pool} must not be negative")


@functools.cache
def _objective(name, margin):
    """The same function object for equal options: what it trains is compiled once."""
    if name == "kl":
        return objectives.pair_kl
    return functools.partial(objectives.margin_ranking, margin=margin)


def _predicted_loss(output, key):
    del key
    return {"loss": output.head[0]}


METHOD = Method(acquire, check, requires=requires)
