"""Pose networks by name."""

import jax
import jax.numpy as jnp

from jalpose.models.convolution import blocked_convolution
from jalpose.models.hourglass import StackedHourglass

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def _hourglass(num_joints, *, stacks, channels, depth, dtype, convolution, dropout=0.0):
    if convolution == "auto":
        convolution = "blocked" if jax.default_backend() == "cpu" else "native"
    return StackedHourglass(
        num_joints,
        stacks=stacks,
        channels=channels,
        depth=depth,
        dtype=DTYPES[dtype],
        convolve=blocked_convolution if convolution == "blocked" else None,
        dropout=dropout,
    )


MODELS = {"hourglass": _hourglass}


def create_model(name: str, num_joints: int, **options):
    """Build the Linen module `name` for `num_joints` joints; options as in config."""
    return MODELS[name](num_joints, **options)
