"""What the methods with several predictions of one image share: how they differ."""

import functools

import jax.numpy as jnp

from jalpose.acquisition.method import Members
from jalpose.acquisition.parts.heads import one_of
from jalpose.tasks.pose import heatmaps

MEASURES = ("heatmaps", "joints")
STARTS = ("warm", "fresh")


@functools.cache
def disagreement(measure: str):
    """The reduction of an example's K predictions to how much they differ.

    "heatmaps": variance over the K, mean over the pixels and joints of the last stack.
    "joints": variance of the position of each heatmap's highest pixel, heatmap pixels
    squared, x and y together, mean over the joints.
    """

    def reduction(output, key):
        del key
        maps = output.heatmaps[:, -1]  # [K, h, w, J]
        if measure == "heatmaps":
            return {"variance": jnp.var(maps, axis=0).mean(axis=(0, 1))}
        count, height, width, joints = maps.shape
        highest = jnp.argmax(maps.reshape(count, height * width, joints), axis=1)
        places = jnp.stack([highest % width, highest // width]).astype(jnp.float32)
        apart = jnp.var(places, axis=1).sum(axis=0)
        # A map with a NaN has a highest pixel too.
        known = jnp.isfinite(maps).all(axis=(0, 1, 2))
        return {"variance": jnp.where(known, apart, jnp.nan)}

    reduction.__name__ = f"disagreement_{measure}"
    return reduction


@functools.cache
def mean_joints(posterior: str, temperature: float):
    """The reduction to each prediction's soft-argmax: joints, and their covariance.

    joints: [K, J, 2] heatmap pixels; covariance: [J, 2, 2], of the position under the
    posterior, mean over the K.
    """

    def reduction(output, key):
        del key
        maps = output.heatmaps[:, -1]  # [K, h, w, J]
        size = maps.shape[1]
        weights = jnp.stack(
            [heatmaps.posterior(one, posterior, temperature) for one in maps]
        )
        pixels = jnp.arange(size, dtype=jnp.float32)
        grid = jnp.stack(jnp.meshgrid(pixels, pixels), axis=-1)  # [h, w, (x, y)]
        joints = jnp.einsum("khwj,hwd->kjd", weights, grid)
        away = grid[None, :, :, None] - joints[:, None, None]  # [K, h, w, J, 2]
        covariance = jnp.einsum("khwj,khwjd,khwje->jde", weights, away, away)
        return {"joints": joints, "covariance": covariance / len(maps)}

    reduction.__name__ = f"mean_joints_{posterior}_{temperature:g}"
    return reduction


def requires_members(*, members: int, steps: int, start: str) -> Members:
    """The ensemble that the shared options describe."""
    return Members(count=members, steps=steps, start=start)


def check_members(section: str, *, members: int, steps: int, start: str) -> None:
    """Raise ValueError for an ensemble that cannot be trained."""
    if members < 2:
        raise ValueError(f"{section}.members={members} must be at least 2")
    if steps < 1:
        raise ValueError(
            f"{section}.steps={steps} must be at least 1: every member is trained on a "
            "bootstrap of the labelled set in each cycle"
        )
    one_of(f"{section}.start", start, STARTS)


def check_measure(section: str, measure: str) -> None:
    """Raise ValueError for an unknown measure of disagreement."""
    one_of(f"{section}.measure", measure, MEASURES)
