"""Number formats: which have gradients, and what squares are taken in.

The rules, for every engine:

- Parameters count if they are floating or complex. Integers and booleans among them
  have no gradient and are left out; so is the way from a float through an integer.
- A square is taken in at least float32, of a complex number as the square of its
  absolute value.
- Operations that meet complex numbers, data or parameters, go by autodiff: the products
  of `squares` are of real numbers.
- Integers as data of an operation are taken as what they are, and get no cotangent.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

from jalpose.pergrad import AnyArray


def has_gradient(array: Any) -> bool:
    """Whether something with a dtype is floating or complex."""
    return bool(jnp.issubdtype(array.dtype, jnp.inexact))


def is_key(array: Any) -> bool:
    """Whether an array is of random keys of their own dtype."""
    return bool(jnp.issubdtype(array.dtype, jax.dtypes.prng_key))


def is_real(*arrays: Any) -> bool:
    """Whether none of them is complex."""
    return not any(jnp.issubdtype(a.dtype, jnp.complexfloating) for a in arrays)


def same_kind(before: Any, after: Any) -> bool:
    """Whether both are floating, or both complex: a cast then keeps the gradient."""
    kinds = (jnp.floating, jnp.complexfloating)
    return any(
        jnp.issubdtype(before.dtype, kind) and jnp.issubdtype(after.dtype, kind)
        for kind in kinds
    )


def wide(*arrays: Any) -> np.dtype:
    """Real dtype, at least float32, that products of the arrays are summed up in."""
    found = jnp.promote_types(jnp.float32, jnp.result_type(*arrays))
    return jnp.finfo(found).dtype


def sum_of_squares(gradient: Inexact[AnyArray, "..."]) -> Float[Array, ""]:
    """Sum of all |.|^2 of an array, taken and returned in at least float32."""
    dtype = wide(gradient)
    if is_real(gradient):
        return jnp.sum(jnp.square(gradient.astype(dtype)))
    parts = gradient.real.astype(dtype), gradient.imag.astype(dtype)
    return sum((jnp.sum(jnp.square(part)) for part in parts), jnp.zeros((), dtype))
