"""Seeds of named random streams, for NumPy's generators; without JAX."""

import hashlib


def stream_seed(seed: int, *names: str | int) -> int:
    """31-bit seed of the stream `names` under `seed`.

    >>> stream_seed(0, "order", 1) == stream_seed(0, "order", 1)
    True
    """
    text = "/".join(map(str, (seed, *names))).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest()) >> 1
