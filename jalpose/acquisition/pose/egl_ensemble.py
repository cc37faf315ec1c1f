"""Expected gradient length for regression, labels from an ensemble.

Shukla, "Bayesian Uncertainty and Expected Gradient Length - Regression: Two Sides Of
The Same Coin?", WACV 2022, Eq. 10, and Cai, Zhang and Zhou, ICDM 2013 (its Eq. 2). The
paper holds ensembles of pose networks to be out of reach (section 4); this is its
theory taken there all the same. The regressed vector f is the joints' soft-argmax (an
argmax has no gradient), member k of the ensemble says mu_k. With the loss |y - f|^2 /
2, whose gradient is J^T (f - y) for the Jacobian J of f by the parameters, Eq. 10 for a
vector is the trace

    tr(J J^T [mean_k Sigma_k + mean_k (mu_k - f)(mu_k - f)^T])
        = mean_k |J^T (mu_k - f)|^2 + sum_d |J^T s_d|^2,

with the columns s_d of a square root of the mean covariance. Sigma_k, the member's own
variance, is that of the position under its heatmap. Of that, what a perfect heatmap has
is how labels are drawn (`heatmap.sigma` squared, 3.06 square pixels), not uncertainty,
and is subtracted, down to nothing. No scalar |grad f| factors out as for one output, so
the K gradients are taken one by one. Eq. 10 is the predictive variance times |grad f|^2
only where f is the ensemble's mean (theory of the paper's Eq. 11): our f is the cycle's
own network.
"""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jalpose.acquisition.method import Method, Pool, Selection, by_score
from jalpose.acquisition.parts import committees
from jalpose.settings.checks import above, one_of
from jalpose.tasks.pose import heatmaps
from jalpose.training.needs import Needs

SECTION = "acquisition.egl_ensemble"
FORMS = ("trace", "cai")


@dataclasses.dataclass(frozen=True)
class EglEnsemble(Method):
    """Expected gradient length over the joints that a committee's members say.

    Attributes:
      members: K, networks; at least 2.
      steps: of each member's training in every cycle.
      start: of that training: warm (from the cycle's network) | fresh (new weights).
      form: "trace": EGL++'s Eq. 10, squared norms. "cai": the mean of the norms
        themselves, Cai's Eq. 2, which can order two examples the other way.
      variance: members predict positions with a variance, Eq. 10's sigma_k, for which
        2 J more gradients are taken; False: without. Of the form "trace"; Cai's has
        none.
      posterior: of the soft-argmax, window (the heatmap's positive part round its
        peak) | normalised (all of it, whose mean and variance are mostly the
        background's) | softmax (at a temperature), see `heatmaps.posterior`.
      temperature: of a softmax posterior, in units of the heatmaps.
    """

    members: int = 5
    steps: int = 5000
    start: str = "fresh"
    form: str = "trace"
    variance: bool = True
    posterior: str = "window"
    temperature: float = 1.0

    capabilities: ClassVar = ("skeleton",)
    uses_engine: ClassVar = True
    scales: ClassVar = {
        "tiny": {"members": 2, "steps": 4},
        "small": {"members": 3, "steps": 100, "start": "warm"},
    }

    def __post_init__(self):
        """Refuse options that cannot work, alone or together."""
        committees.check_members(SECTION, self)
        one_of(f"{SECTION}.form", self.form, FORMS)
        one_of(f"{SECTION}.posterior", self.posterior, heatmaps.POSTERIORS)
        above(0, **{f"{SECTION}.temperature": self.temperature})

    def needs(self, task) -> Needs:
        """The members."""
        del task
        each_norm = self.form == "cai"
        return Needs(members=committees.members_of(self), each_norm=each_norm)

    def acquire(self, key, probe, pool: Pool, budget) -> Selection:
        """Choose the `budget` examples of the highest expected gradient length.

        Nothing is drawn.

        Raises:
          FloatingPointError: a norm is not finite; names the example ids.
        """
        del key
        ids = pool.unlabelled
        spec, variance = probe.task.spec, self.variance and self.form == "trace"
        how = (self.posterior, self.temperature, spec.sigma)
        said = probe.reduce(mean_joints(*how), ids, over="members")
        weights = np.full(self.members, 1 / self.members, np.float32)
        if variance:
            blur = blur_of_labels(spec, self.posterior, self.temperature)
            others = np.ones(2 * probe.task.skeleton.num_joints, np.float32)
            weights = np.concatenate([weights, others])

        def context(positions):
            aims = said["joints"][positions]  # [n, K, J, 2]
            if variance:
                own = said["covariance"][positions] - blur
                away = directions(own)  # [n, 2 J, J, 2]
                aims = np.concatenate([aims, away], axis=1)
            return {"aims": aims}

        result = probe.squared_norms(
            aims_and_moves(self.members),
            ids,
            np.broadcast_to(weights, (len(ids), len(weights))),
            context,
            loss_fn=distance_loss(*how),
            value={"trace": "squared", "cai": "norm"}[self.form],
        )
        apart = said["joints"].var(axis=1).sum(axis=2)
        return by_score(
            ids, result["expected"], budget, explanation={"joint_variance": apart}
        )


@functools.cache
def mean_joints(posterior: str, temperature: float, sigma: float):
    """The reduction to each prediction's soft-argmax: joints, and their covariance.

    joints: [K, J, 2] heatmap pixels; covariance: [J, 2, 2], of the position under the
    posterior, mean over the K.
    """

    def reduction(output, key):
        del key
        maps = output.prediction[:, -1]  # [K, h, w, J]
        size = maps.shape[1]
        weights = jnp.stack(
            [heatmaps.posterior(one, posterior, temperature, sigma) for one in maps]
        )
        pixels = jnp.arange(size, dtype=jnp.float32)
        grid = jnp.stack(jnp.meshgrid(pixels, pixels), axis=-1)  # [h, w, (x, y)]
        joints = jnp.einsum("khwj,hwd->kjd", weights, grid)
        away = grid[None, :, :, None] - joints[:, None, None]  # [K, h, w, J, 2]
        covariance = jnp.einsum("khwj,khwjd,khwje->jde", weights, away, away)
        return {"joints": joints, "covariance": covariance / len(maps)}

    # The probe's journal goes by this name.
    reduction.__name__ = f"mean_joints_{posterior}_{temperature:g}"
    return reduction


@functools.cache
def blur_of_labels(spec, posterior: str, temperature: float) -> np.ndarray:
    """Covariance of the position under a label's own heatmap: float32 [2, 2].

    Args:
      spec: of the label heatmaps; the joint is drawn on a pixel in the middle.
      posterior: see `heatmaps.posterior`.
      temperature: see `heatmaps.posterior`.
    """
    middle = jnp.full((1, 2), spec.heatmap_size // 2)
    joint = heatmaps.heatmap_to_crop(middle, spec.crop_size, spec.heatmap_size)
    maps = spec.render(joint, jnp.ones(1, bool))
    weights = heatmaps.posterior(maps, posterior, temperature, spec.sigma)[..., 0]
    at = jnp.arange(spec.heatmap_size, dtype=jnp.float32)
    shares = weights.sum(axis=0)
    variance = jnp.sum(shares * jnp.square(at - jnp.sum(shares * at)))
    return np.eye(2, dtype=np.float32) * np.float32(variance)


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
def aims_and_moves(members: int):
    """Targets of a row's aims [K, J, 2]: the first are labels, the others moves from f.

    Args:
      members: how many are labels.
    """

    def targets(row):
        return {"aim": row["aims"], "is_label": jnp.arange(len(row["aims"])) < members}

    return targets


@functools.cache
def distance_loss(posterior: str, temperature: float, sigma: float):
    """|y - f|^2 / 2 of a label y, or of one that is `aim` away from f."""

    def loss_fn(maps, target):
        joints = heatmaps.soft_argmax(maps[-1], posterior, temperature, sigma)
        away = jax.lax.stop_gradient(joints) - target["aim"]
        label = jnp.where(target["is_label"], target["aim"], away)
        return 0.5 * jnp.sum(jnp.square(joints - label))

    return loss_fn
