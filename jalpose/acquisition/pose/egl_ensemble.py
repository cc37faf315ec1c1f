"""Expected gradient length for regression, labels from an ensemble.

Shukla, "Bayesian Uncertainty and Expected Gradient Length - Regression: Two Sides Of
The Same Coin?", WACV 2022, Eq. 10, and Cai, Zhang and Zhou, ICDM 2013 (its Eq. 2). The
regressed vector f is the joints' soft-argmax (an argmax has no gradient), member k of
the ensemble says mu_k. With the loss |y - f|^2 / 2, whose gradient is J^T (f - y) for
the Jacobian J of f by the parameters, Eq. 10 for a vector is the trace

    tr(J J^T [mean_k Sigma_k + mean_k (mu_k - f)(mu_k - f)^T])
        = mean_k |J^T (mu_k - f)|^2 + sum_d |J^T s_d|^2,

with the columns s_d of a square root of the mean covariance. No scalar |grad f| factors
out as for one output, so the K gradients are taken one by one. Eq. 10 is the
predictive variance times |grad f|^2 only where f is the ensemble's mean (theory of
the paper's Eq. 11): our f is the cycle's own pose network.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jalpose.acquisition.method import Method, Requires, Selection, by_score
from jalpose.acquisition.parts import committees, gradnorm
from jalpose.acquisition.parts.heads import one_of
from jalpose.tasks.pose import heatmaps

FORMS = ("trace", "cai")


def acquire(
    key,
    probe,
    labelled,
    unlabelled,
    budget,
    *,
    members,
    steps,
    start,
    form,
    covariance,
    posterior,
    temperature,
) -> Selection:
    """Choose the `budget` examples of the highest expected gradient length.

    Args:
      key: unused, nothing is drawn.
      probe: of the trained networks.
      labelled: unused.
      unlabelled: int64 [M], example ids.
      budget: how many to choose.
      members: K, networks.
      steps: of each one's training in every cycle.
      start: see `method.Members`.
      form: "trace": Eq. 10, squared norms. "cai": the mean of the norms themselves,
        Eq. 2, which can order two examples the other way.
      covariance: Sigma_k is that of the position under member k's posterior, 2 J more
        gradients; False: 0, members predict positions without a variance.
      posterior: of the soft-argmax, see `heatmaps.posterior`.
      temperature: of a softmax posterior.
    """
    del key, labelled, steps, start
    said = probe.reduce(
        committees.mean_joints(posterior, temperature), unlabelled, over="members"
    )
    weights = np.full(members, 1 / members, np.float32)
    if covariance:
        others = np.ones(2 * probe.skeleton.num_joints, np.float32)
        weights = np.concatenate([weights, others])

    def context(positions):
        aims = said["joints"][positions]  # [n, K, J, 2]
        if covariance:
            away = directions(said["covariance"][positions])  # [n, 2 J, J, 2]
            aims = np.concatenate([aims, away], axis=1)
        return {"aims": aims}

    result = probe.squared_norms(
        _targets(members),
        unlabelled,
        np.broadcast_to(weights, (len(unlabelled), len(weights))),
        context,
        loss_fn=_loss(posterior, temperature),
        value={"trace": "squared", "cai": "norm"}[form],
    )
    apart = said["joints"].var(axis=1).sum(axis=2)
    return by_score(
        unlabelled, result["expected"], budget, explanation={"joint_variance": apart}
    )


def directions(covariance: np.ndarray) -> np.ndarray:
    """Columns of a square root of each joint's covariance, as moves of that joint.

    Args:
      covariance: float [M, J, 2, 2].

    Returns:
      float32 [M, 2 J, J, 2]: move d of joint d // 2 alone.
    """
    values, vectors = np.linalg.eigh(covariance)
    roots = vectors * np.sqrt(np.maximum(values, 0))[..., None, :]  # columns
    count, joints = covariance.shape[:2]
    found = np.zeros((count, joints, 2, joints, 2), np.float32)
    each = np.arange(joints)
    found[:, each, :, each, :] = np.moveaxis(roots, 1, 0).swapaxes(-1, -2)
    return found.reshape(count, 2 * joints, joints, 2)


@functools.cache
def _targets(members: int):
    def targets(row):
        return {"aim": row["aims"], "is_label": jnp.arange(len(row["aims"])) < members}

    return targets


@functools.cache
def _loss(posterior, temperature):
    """|y - f|^2 / 2 of a label y, or of one that is `aim` away from f."""

    def loss_fn(maps, target):
        joints = heatmaps.soft_argmax(maps[-1], posterior, temperature)
        away = jax.lax.stop_gradient(joints) - target["aim"]
        label = jnp.where(target["is_label"], target["aim"], away)
        return 0.5 * jnp.sum(jnp.square(joints - label))

    return loss_fn


_SECTION = "acquisition.egl_ensemble"


def check(
    num_neighbours, *, form, covariance, posterior, temperature, **members
) -> None:
    """Raise ValueError for options that cannot work."""
    del num_neighbours
    committees.check_members(_SECTION, **members)
    one_of(f"{_SECTION}.form", form, FORMS)
    gradnorm.check_posterior(_SECTION, posterior=posterior, temperature=temperature)
    if form == "cai" and covariance:
        raise ValueError(
            f"{_SECTION}.covariance=True: the form 'cai' has no variances; set it to "
            "False, or form to 'trace'"
        )


def requires(
    skeleton, *, form, covariance, posterior, temperature, **members
) -> Requires:
    """The members."""
    del skeleton, covariance, posterior, temperature
    return Requires(
        members=committees.requires_members(**members), each_norm=form == "cai"
    )


METHOD = Method(acquire, check, uses_engine=True, requires=requires)
