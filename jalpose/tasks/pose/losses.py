"""Losses, written for one example; batched by `vmap` where they are used."""

import jax.numpy as jnp
from jaxtyping import Bool, Float

from jalpose.runtime.shapes import AnyArray

Maps = Float[AnyArray, "s h w j"]


def heatmap_loss(
    heatmaps: Maps,
    target: Float[AnyArray, "h w j"] | Maps,
    present: Bool[AnyArray, " j"],
) -> Float[AnyArray, ""]:
    """Mean squared error over stacks, pixels and the joints that are present.

    The papers average over all joints with absent ones as all-zero maps; we leave
    absent joints out of sum and count, so that an image with fewer annotated joints
    has neither a smaller loss nor a smaller gradient for that alone.

    Args:
      heatmaps: [S, h, w, J], the maps of every stack (intermediate supervision).
      target: [h, w, J], or [S, h, w, J] where stacks have targets of their own.
      present: bool [J].

    Returns:
      Scalar float32; 0 where no joint is present.
    """
    target = target if target.ndim == 4 else target[None]
    squared = jnp.square(heatmaps.astype(jnp.float32) - target)
    per_joint = jnp.mean(squared, axis=(0, 1, 2))  # [J]
    present = present.astype(jnp.float32)
    return jnp.sum(per_joint * present) / jnp.maximum(jnp.sum(present), 1.0)


def labelled_loss(heatmaps: Maps, label: tuple) -> Float[AnyArray, ""]:
    """`heatmap_loss` of a label given as (target maps, present)."""
    return heatmap_loss(heatmaps, *label)
