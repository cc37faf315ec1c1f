"""Active learning for poses and classes in JAX/Flax."""

__version__ = "0.1.0"
