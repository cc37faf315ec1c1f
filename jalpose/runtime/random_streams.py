"""Named random streams: every draw is a function of the seed, its use and place.

No key is ever stored: a stream is found again from the seed and the names, so a
resumed run, or one on other devices, draws what the uninterrupted run drew.
"""

import hashlib

import jax


def stream_seed(seed: int, *names: str | int) -> int:
    """31-bit seed of the stream `names` under `seed`.

    >>> stream_seed(0, "order", 1) == stream_seed(0, "order", 1)
    True
    """
    text = "/".join(map(str, (seed, *names))).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest()) >> 1


def stream(seed: int, *names: str | int) -> jax.Array:
    """JAX key of the stream `names` under `seed`."""
    return jax.random.key(stream_seed(seed, *names))
