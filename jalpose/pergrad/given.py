"""Options and arrays beside the network that do not fit what was asked."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PyTree

from jalpose.pergrad import AnyArray, dtypes


def mask_fits(mask: Any, count: int) -> None:
    """Raise ValueError unless a mask is [b] booleans, one an example."""
    if not isinstance(mask, AnyArray):
        found = f"a {type(mask).__name__}"
    elif mask.shape == (count,) and jnp.issubdtype(mask.dtype, jnp.bool_):
        return
    else:
        found = f"{mask.dtype}{list(mask.shape)}"
    raise ValueError(f"mask must be [{count}] booleans, one an example, got {found}")


def counted(mask: Any, count: int) -> Bool[Array, " b"]:
    """Which of `count` examples are no padding; ValueError for a mask that is none."""
    if mask is None:
        return jnp.ones(count, bool)
    mask_fits(mask, count)
    return jnp.asarray(mask)


def weights_fit(weights: Any, targets: PyTree) -> None:
    """Raise ValueError unless weights are [b] or [b, k] for targets [b, k, ...]."""
    count, num = jax.tree.leaves(targets)[0].shape[:2]
    if jnp.shape(weights) not in ((count,), (count, num)):
        raise ValueError(
            f"weights must be [B] or [B, K], [{count}] or [{count}, {num}], got "
            f"{list(jnp.shape(weights))}"
        )


def not_negative(name: str, value: int) -> None:
    """Raise ValueError if an option is below zero."""
    if value < 0:
        raise ValueError(f"{name}={value} must be >= 0")


def clip_norm(value: Any) -> None:
    """Raise ValueError unless a length that is known is above zero."""
    if not isinstance(value, jax.core.Tracer) and not value > 0:
        raise ValueError(f"clip_norm={value} must be above 0")


def sketch_size(size: Any, params: PyTree) -> None:
    """Raise ValueError unless a sketch's size is from 1 to the number of parameters."""
    most = sum(x.size for x in jax.tree.leaves(params) if dtypes.has_gradient(x))
    if isinstance(size, bool) or not isinstance(size, int | np.integer):
        raise ValueError(f"size must be an integer, got {size!r}")
    if not 1 <= size <= most:
        raise ValueError(
            f"size={size} must be from 1 to the number of parameters, {most}: a longer "
            "sketch says no more than the gradient itself"
        )


def one_key(key: Any) -> None:
    """Raise ValueError unless it is one random key, typed or of two 32-bit words."""
    kind, shape = getattr(key, "dtype", None), jnp.shape(key)
    if kind is not None and dtypes.is_key(key) and shape == ():
        return
    if kind == jnp.uint32 and shape == (2,):
        return
    raise ValueError(
        "key must be one random key, as of jax.random.key(0), got "
        + (f"{kind}{list(shape)}" if kind is not None else repr(key))
    )
