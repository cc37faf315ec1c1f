"""Norms of weights used several times: ghost against `vmap` of `grad`, on this machine.

    python scripts/bench_sharing.py --networks=lstm,gru,transformer,tied --repeats=7

A sentence classifier by an LSTM or a GRU (their weights are used at every step of a
`lax.scan`), a transformer whose blocks are scanned, and a language model tied at both
ends. For each: the gradient of the batch, the norms by `vmap(grad)`, those by `ghost`,
and its sketches and the norms beside the gradient. All are timed in turn, several
times, in this one process: a row's ratio is the median of its ratios to its neighbour
in time. Operations and peak memory are the compiler's, and so is what it takes to
compile, in seconds of processor time. Exits with 1 where norms are off by more than
1e-5.
"""

import argparse
import os
import resource
import statistics
import sys
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jalpose.pergrad import api
from jalpose.pergrad.memory import compiled_bytes

WORDS = 1000


class Recurrent(nn.Module):
    """Embedding, a recurrent layer, and classes from its last state."""

    cell: type
    width: int

    @nn.compact
    def __call__(self, ids):
        """Classes of sentences [b, t]."""
        x = nn.Embed(WORDS, self.width)(ids)
        return nn.Dense(10)(nn.RNN(self.cell(self.width))(x)[:, -1])


class Block(nn.Module):
    """A pre-norm block of a transformer."""

    width: int

    @nn.compact
    def __call__(self, x, _):
        """Tokens [b, t, width], and nothing."""
        x = x + nn.MultiHeadDotProductAttention(4)(nn.LayerNorm()(x))
        y = nn.gelu(nn.Dense(4 * self.width)(nn.LayerNorm()(x)))
        return x + nn.Dense(self.width)(y), None


class Transformer(nn.Module):
    """Blocks under one scan, or a language model of none but its tied ends."""

    width: int
    blocks: int

    @nn.compact
    def __call__(self, ids):
        """Classes of sentences [b, t], or words at each place."""
        embed = nn.Embed(WORDS, self.width)
        x = embed(ids)
        if not self.blocks:
            return embed.attend(jnp.tanh(nn.Dense(self.width)(x)))
        layers = nn.scan(
            Block, {"params": 0}, split_rngs={"params": True}, length=self.blocks
        )
        x, _ = layers(self.width)(x, None)
        return nn.Dense(10)(x.mean(axis=1))


def network(name: str, width: int) -> nn.Module:
    """The network of that name."""
    if name == "transformer":
        return Transformer(width, 4)
    if name == "tied":
        return Transformer(width, 0)
    return Recurrent({"lstm": nn.OptimizedLSTMCell, "gru": nn.GRUCell}[name], width)


def loss(output, target):
    """Half the squared difference."""
    return 0.5 * jnp.sum(jnp.square(output - target))


def rows_of(apply_fn) -> dict:
    """What is timed: name -> function of (variables, ids, targets)."""

    def gradient(variables, ids, targets):
        def total(params):
            outputs = apply_fn({"params": params}, ids)
            return jnp.sum(jax.vmap(loss)(outputs, targets[:, 0]))

        return jax.grad(total)(variables["params"])

    def copies(variables, ids, targets):
        def one(row, target):
            def of_one(params):
                return loss(apply_fn({"params": params}, row[None])[0], target)

            leaves = jax.tree.leaves(jax.grad(of_one)(variables["params"]))
            return sum(jnp.sum(jnp.square(leaf)) for leaf in leaves)

        return jax.vmap(one)(ids, targets[:, 0])[:, None]

    def sketches(*arrays):
        options = {"size": 512, "key": jax.random.key(0)}
        return api.sketches("ghost", apply_fn, loss, *arrays, **options)

    return {
        "gradient": gradient,
        "vmap(grad)": copies,
        "ghost": lambda *arrays: (
            api.squared_norms("ghost", apply_fn, loss, *arrays).total
        ),
        "sketches": sketches,
        "norms and gradient": lambda *arrays: api.norms_and_gradient(
            "ghost", apply_fn, loss, *arrays
        ),
    }


def spent() -> float:
    """Seconds of processor time of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> int:
    """Print a table a network."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", default="lstm,gru,transformer,tied")
    parser.add_argument("--width", default=128, type=int)
    parser.add_argument("--batch", default=16, type=int)
    parser.add_argument("--tokens", default=32, type=int)
    parser.add_argument("--repeats", default=7, type=int)
    given = parser.parse_args()
    print(
        f"{jax.devices()[0].device_kind}, {os.cpu_count()} processors, load "
        f"{os.getloadavg()[0]:.1f}, jax {jax.__version__}; width {given.width}, "
        f"{given.batch} examples of {given.tokens} tokens"
    )
    return max(measured(name, given) for name in given.networks.split(","))


def measured(name: str, given) -> int:
    """Print a network's rows; 1 where ghost is off."""
    model, draws = network(name, given.width), np.random.default_rng(0)
    ids = draws.integers(0, WORDS, (given.batch, given.tokens)).astype(np.int32)
    variables = jax.jit(model.init)(jax.random.key(0), ids[:1])
    shape = jax.eval_shape(model.apply, variables, ids).shape
    targets = draws.normal(size=(shape[0], 1, *shape[1:])).astype(np.float32)
    arrays = variables, ids, targets
    programs, built, results = {}, {}, {}
    with jax.default_matmul_precision("highest"):
        for row, function in rows_of(model.apply).items():
            begun = spent()
            programs[row] = jax.jit(function).lower(*arrays).compile()
            built[row] = spent() - begun
            results[row] = jax.block_until_ready(programs[row](*arrays))
    times: dict = {row: [] for row in programs}
    for _ in range(given.repeats):
        for row, program in programs.items():
            begun = time.perf_counter()
            jax.block_until_ready(program(*arrays))
            times[row].append(time.perf_counter() - begun)

    def ratio(row, to):
        pairs = zip(times[row], times[to], strict=True)
        return statistics.median(one / other for one, other in pairs)

    head = ("ms", "/gradient", "/vmap", "Mflop", "MiB", "compiled, s")
    print(f"{name:<20}" + "{:>8}{:>11}{:>7}{:>8}{:>7}{:>13}".format(*head))
    for row, program in programs.items():
        flops = program.cost_analysis()["flops"] / 1e6
        print(
            f"{row:<20}{1e3 * statistics.median(times[row]):>8.2f}"
            f"{ratio(row, 'gradient'):>11.2f}{ratio(row, 'vmap(grad)'):>7.2f}"
            f"{flops:>8.0f}{compiled_bytes(program) / 2**20:>7.1f}{built[row]:>13.1f}"
        )
    error = np.max(np.abs(np.asarray(results["ghost"] / results["vmap(grad)"]) - 1))
    ways = {
        route.way
        for route in api.routes(model.apply, variables, ids)
        if len(route.shape) > 1
    }
    print(f"largest relative error {error:.1e}; ways {', '.join(sorted(ways))}")
    return int(error > 1e-5)


if __name__ == "__main__":
    sys.exit(main())
