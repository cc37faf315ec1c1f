"""Networks counted from shapes alone, and drawn at random."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict


def shapes_of(model, size=64, batch=1):
    """Shapes of the variables for images of this size; nothing is computed."""
    image = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), image)


def count(tree) -> int:
    """Numbers in all arrays of a tree."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def drawn(model, size, seed=0):
    """Variables with every parameter and statistic drawn at random."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name = path[-1]
        if name in ("scale", "var"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        scale = 1.5 / math.sqrt(math.prod(leaf.shape[:-1])) if name == "kernel" else 0.3
        return rng.normal(0, scale, leaf.shape).astype(np.float32)

    flat = flatten_dict(shapes_of(model, size))
    return unflatten_dict({path: draw(path, leaf) for path, leaf in flat.items()})
