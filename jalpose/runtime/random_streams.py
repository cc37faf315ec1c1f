"""Named random streams: every draw is a function of the seed, its use and place.

No key is ever stored: a stream is found again from the seed and the names, so a
resumed run, or one on other devices, draws what the uninterrupted run drew.
"""

import jax

from jalpose.runtime.seeds import stream_seed as stream_seed


def stream(seed: int, *names: str | int) -> jax.Array:
    """JAX key of the stream `names` under `seed`."""
    return jax.random.key(stream_seed(seed, *names))
