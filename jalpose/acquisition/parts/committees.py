"""What the methods with several predictions of one example share: how they differ.

A task measures by itself how its predictions differ as they are and as they are decoded
(the capability `disagreement`). Where it has posteriors, a committee of K of them
p_k, with the consensus p = mean_k p_k, differs by what the field knows it by:

- `mutual_information` between label and network, H(p) - mean_k H(p_k): BALD (Houlsby et
  al., 2011; of dropout Gal, Islam & Ghahramani, ICML 2017, Eq. 2). It is the mean
  Kullback-Leibler divergence to the consensus too (McCallum & Nigam, ICML 1998).
- `predictive_entropy` of the consensus, H(p): what BALD leaves in, the doubt that all
  share.
- `vote_entropy`, H of the shares of votes, each network's for its most probable value
  (Dagan & Engelson, ICML 1995). They divide by its maximum, which changes no order.
- `variation_ratio`, 1 - the share of the value with most votes (Freeman, 1965; Gal et
  al., Eq. 5).

Entropies are in nats, posteriors softmaxes; of several sites the mean counts.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp, xlogy

from jalpose.acquisition.method import Selection, by_score
from jalpose.scoring.passes import example_keys
from jalpose.settings.checks import ConfigError, at_least, one_of
from jalpose.tasks.task import lacking
from jalpose.training.needs import Members

# Of a member's training: from the cycle's network | from new weights.
STARTS = ("warm", "fresh")

# Names of passes in journals, which are older than those of the measures.
_PASSES = {"prediction": "heatmaps", "decoded": "joints"}


def select(
    probe, ids: np.ndarray, budget: int, measure: str, key, *, over: str, samples=0
) -> Selection:
    """Choose the examples on which several predictions disagree most.

    Votes of few networks tie for most of a pool, and ids may be in an order that says
    something (of classes, one after the other): such ties are drawn.

    Args:
      probe: of the trained network.
      ids: int64 [M], of the unlabelled.
      budget: how many to choose.
      measure: one that `check_measure` allows.
      key: of the acquisition.
      over: members | dropout.
      samples: under dropout.

    Raises:
      FloatingPointError: a disagreement is not finite; names the example ids.
    """
    reduction = disagreement(probe.task, measure)
    drawn = key if over == "dropout" else None
    found = probe.reduce(reduction, ids, drawn, over=over, samples=samples)["variance"]
    own = measure not in MEASURES
    ties = None
    if measure in _OF_VOTES:
        ties = np.asarray(jax.vmap(jax.random.uniform)(example_keys(key, ids)))
    return by_score(
        ids,
        found.mean(axis=1),
        budget,
        explanation={"joint_variance" if own else "site_disagreement": found},
        ties=ties,
    )


@functools.cache
def disagreement(task, measure: str):
    """The reduction of an example's K predictions to how much they differ, by site.

    The same object for equal arguments.

    Args:
      task: has the capability `disagreement`; see it for the measures' units.
      measure: "prediction": of the predictions as they are, of poses the variance of
        heatmaps. "decoded": of what is read off them, of poses the variance of the
        joints' positions. Or one of posteriors, see above.
    """

    def reduction(output, key):
        del key
        if measure not in MEASURES:
            return {"variance": task.disagreement(output.prediction, measure)}

        def logs_of(prediction):
            return task.posterior(prediction, "softmax", 1.0, log=True)

        logs = jax.vmap(logs_of)(output.prediction)  # [K, S, values]
        # Values first: summed in their order, see `posteriors.of_sites`.
        return {"variance": MEASURES[measure](jnp.moveaxis(logs, -1, 0))}

    # The probe's journal goes by this name.
    reduction.__name__ = f"disagreement_{_PASSES.get(measure, measure)}"
    return reduction


def mutual_information(logs: jax.Array) -> jax.Array:
    """Mean divergence of K posteriors from their mean: logs [values, K, S] -> [S]."""
    consensus = _consensus(logs)[:, None]
    # sum p ln(p / q) = sum q ((1 + r) ln(1 + r) - r) with r = p / q - 1: no term is
    # negative, and where networks nearly agree nothing cancels but in second order.
    apart = logs - consensus
    excess = jnp.expm1(apart)
    terms = jnp.exp(consensus) * ((1 + excess) * apart - excess)
    return jnp.sum(terms, axis=0).mean(axis=0)


def predictive_entropy(logs: jax.Array) -> jax.Array:
    """Entropy of the mean of K posteriors: logs [values, K, S] -> [S]."""
    consensus = _consensus(logs)
    return -jnp.sum(jnp.exp(consensus) * consensus, axis=0)


def vote_entropy(logs: jax.Array) -> jax.Array:
    """Entropy of the K posteriors' votes: logs [values, K, S] -> [S]."""
    shares = _votes(logs)
    return -jnp.sum(xlogy(shares, shares), axis=0)


def variation_ratio(logs: jax.Array) -> jax.Array:
    """Share of K votes that are not for the favourite: logs [values, K, S] -> [S]."""
    return 1 - _votes(logs).max(axis=0)


# Measures of posteriors.
MEASURES = {
    measure.__name__: measure
    for measure in (
        mutual_information,
        predictive_entropy,
        vote_entropy,
        variation_ratio,
    )
}
_OF_VOTES = ("vote_entropy", "variation_ratio")


def _consensus(logs):
    """Log of the mean probability: [values, S]."""
    return logsumexp(logs, axis=1) - np.log(logs.shape[1])


def _votes(logs):
    """Share of the votes of each value: [values, S]; NaN where a posterior has one."""
    values = jnp.arange(len(logs))[:, None, None]
    shares = (values == jnp.argmax(logs, axis=0, keepdims=True)).mean(axis=1)
    known = jnp.isfinite(logs).all(axis=(0, 1))
    return jnp.where(known, shares, jnp.nan)


def members_of(options: Any) -> Members:
    """The committee that a method's fields members, steps and start describe."""
    return Members(count=options.members, steps=options.steps, start=options.start)


def check_members(section: str, options: Any) -> None:
    """Raise ConfigError for a committee that cannot be trained.

    Args:
      section: of the config, for the message.
      options: with the fields members, steps and start.
    """
    at_least(2, **{f"{section}.members": options.members})
    if options.steps < 1:
        raise ConfigError(
            f"{section}.steps={options.steps} must be at least 1: every member is "
            "trained on a bootstrap of the labelled set in each cycle"
        )
    one_of(f"{section}.start", options.start, STARTS)


def check_measure(section: str, measure: str, task) -> None:
    """Raise ConfigError for a measure of disagreement that the task does not have."""
    of_posteriors = () if lacking(task, ("posterior",)) else tuple(MEASURES)
    one_of(f"{section}.measure", measure, (*task.measures, *of_posteriors))
