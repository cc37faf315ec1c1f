"""Engines by name, and their options."""

import dataclasses

import jax.numpy as jnp
from jax.typing import DTypeLike

# What each engine computes; `Engine.name`.
ENGINES = {
    "exact": "exact, by vmap over autodiff: the oracle",
    "ghost": "exact, one backward pass, no gradient outlives its layer",
    "goodfellow": "approximate: the sum over positions of |a_t|^2 |g_t|^2",
    "conv_linear": "exact over convolutions and linear layers, the rest left out",
    "sketch": "the expectation over K candidates, from a few backward passes",
}
_DTYPES = {"": None, "float32": None, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True)
class Engine:
    """Which norms, and how they are computed; hashable.

    Attributes:
      name: a key of `ENGINES`.
      microbatch: gradients (an example's candidate each) pulled back at once; 0: those
        of all examples there are, on a CPU of as many as its caches hold. Memory grows
        with it; results do not depend on it.
      products: "float32" keeps activations and cotangents as they are; "bfloat16"
        rounds them in the products of the norms, which are added up in float32.
        Not of `exact`.
      passes: of `sketch`, backward passes an example, m.
      split_mean: of `sketch`: the mean gradient takes the first pass.
      extrapolate: of `sketch` without a remainder: make up for what the passes leave
        out by its share in the last layer. On real images that halves the error or
        better (scripts/RESULTS.md); without it the result is a lower bound.
      remainder: of `sketch`: passes spent on random signs over what the others leave
        out; above 0 the estimate is unbiased, above 1 it has a standard error.
    """

    name: str = "ghost"
    microbatch: int = 0
    products: str = "float32"
    passes: int = 4
    split_mean: bool = True
    extrapolate: bool = True
    remainder: int = 0

    def __post_init__(self):
        if self.name not in ENGINES:
            known = ", ".join(ENGINES)
            raise ValueError(f"unknown engine {self.name!r}. Known: {known}")
        if self.products not in _DTYPES:
            known = ", ".join(filter(None, _DTYPES))
            raise ValueError(f"unknown products={self.products!r}. Known: {known}")
        if self.microbatch < 0:
            raise ValueError(f"microbatch={self.microbatch} must be >= 0")
        least = self.remainder + self.split_mean
        if self.remainder < 0 or self.passes < max(1, least):
            raise ValueError(
                f"passes={self.passes} must be at least 1 and cover remainder="
                f"{self.remainder} and, with split_mean, the mean: {least}"
            )

    @property
    def product_dtype(self) -> DTypeLike | None:
        """Dtype that operands of products are rounded to; None: they are not."""
        return _DTYPES[self.products]


def engine_of(engine: str | Engine) -> Engine:
    """An engine by its name, or as it is."""
    return engine if isinstance(engine, Engine) else Engine(engine)
