"""Gradient norms of images of classes against training on them, on this machine.

    python scripts/bench_classes.py --widths=16,64 --images=128 --out=rows.json

A ResNet on 32x32 images: a training step (forward in training mode, backward, SGD with
momentum) on a batch, in both convolutions at hand; a forward pass; and the exact norm
of each image's gradient by the engine `ghost`, with as many at once as jalpose takes,
one at once, and all. All are timed in turn, several times, in this one process.

`ratio` is the median over the turns of the time to that of the faster training step in
the same turn, `cpu` the same of processor seconds, which other jobs disturb less.
Memory is the compiler's, temporaries alone; `compile` is seconds of all processors.
`--out` writes the rows as JSON.
"""

import json
import os
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from jalpose.models.registry import ResNetOptions
from jalpose.pergrad import api
from jalpose.pergrad.api import Engine

_DEPTH = flags.DEFINE_integer("depth", 18, "layers of the ResNet: 8 | 14 | 18")
_WIDTHS = flags.DEFINE_list("widths", ["16", "64"], "widths of the first stage")
_IMAGES = flags.DEFINE_integer("images", 128, "images of the batch")
_SIZE = flags.DEFINE_integer("size", 32, "image side, pixels")
_CLASSES = flags.DEFINE_integer("classes", 10, "classes")
_MICROBATCHES = flags.DEFINE_list("microbatches", ["1"], "of `ghost`, beside its own")
_REPEATS = flags.DEFINE_integer("repeats", 7, "turns")
_OUT = flags.DEFINE_string("out", "", "file for the rows, JSON")


def loss(logits, label):
    """Cross-entropy of one image."""
    return -jax.nn.log_softmax(logits)[label]


def training(model, variables, images, labels):
    """One step of SGD with momentum: the variables and momenta after it."""
    state = variables, jax.tree.map(jnp.zeros_like, variables["params"])

    def step(state, images, labels):
        variables, momenta = state

        def mean(params):
            output, updated = model.apply(
                {**variables, "params": params},
                images,
                train=True,
                mutable=["batch_stats"],
            )
            return jnp.mean(jax.vmap(loss)(output.prediction, labels)), updated

        gradient, updated = jax.grad(mean, has_aux=True)(variables["params"])
        momenta = jax.tree.map(lambda m, g: 0.9 * m + g, momenta, gradient)
        params = jax.tree.map(lambda p, m: p - 0.1 * m, variables["params"], momenta)
        return {**updated, "params": params}, momenta

    return step, (state, images, labels)


def norms(model, variables, images, labels, microbatch):
    """Squared gradient norms of the images."""

    def squared(variables, images, labels):
        def apply_fn(variables, images):
            return model.apply(variables, images).prediction

        engine = Engine("ghost", microbatch=microbatch)
        arguments = engine, apply_fn, loss, variables, images, labels[:, None]
        return api.squared_norms(*arguments).total

    return squared, (variables, images, labels)


def compile_rows(width):
    """Name -> (compiled, arguments, seconds of compiling)."""
    options = {"depth": _DEPTH.value, "width": width}
    models = {
        name: ResNetOptions(**options, convolution=name).build(_CLASSES.value)
        for name in ("native", "blocked")
    }
    draws = np.random.default_rng(0)
    shape = (_IMAGES.value, _SIZE.value, _SIZE.value, 3)
    images = jnp.asarray(draws.uniform(size=shape).astype(np.float32))
    labels = jnp.asarray(draws.integers(0, _CLASSES.value, _IMAGES.value))
    variables = jax.jit(models["native"].init)(jax.random.key(0), images[:1])
    given = variables, images, labels
    rows = {
        f"training, {name}": training(model, *given) for name, model in models.items()
    }
    native = models["native"]
    rows["forward"] = (
        lambda variables, images: native.apply(variables, images).prediction,
        given[:2],
    )
    sizes = {"": 0, **{f", {n} at once": int(n) for n in _MICROBATCHES.value}}
    for name, size in {**sizes, ", all at once": _IMAGES.value}.items():
        rows["ghost" + name] = norms(native, *given, size)
    compiled = {}
    for name, (fn, arguments) in rows.items():
        begun = time.process_time()
        program = jax.jit(fn).lower(*arguments).compile()
        compiled[name] = program, arguments, time.process_time() - begun
        jax.block_until_ready(program(*arguments))
    return compiled


def measure(width):
    """Rows of one width."""
    compiled = compile_rows(width)
    walls: dict = {name: [] for name in compiled}
    cpus: dict = {name: [] for name in compiled}
    for _ in range(_REPEATS.value):
        for name, (program, arguments, _) in compiled.items():
            begun, cpu = time.perf_counter(), time.process_time()
            jax.block_until_ready(program(*arguments))
            walls[name].append(time.perf_counter() - begun)
            cpus[name].append(time.process_time() - cpu)
    rows = []
    for name, (program, _, took) in compiled.items():
        rows.append(
            {
                "width": width,
                "row": name,
                "seconds": statistics.median(walls[name]),
                "ratio": _ratio(walls, name),
                "cpu": _ratio(cpus, name),
                "temporary_mib": program.memory_analysis().temp_size_in_bytes / 2**20,
                "compile_cpu_seconds": took,
            }
        )
    return rows


def _ratio(times, name):
    steps = zip(times["training, native"], times["training, blocked"], strict=True)
    pairs = zip(times[name], map(min, steps), strict=True)
    return statistics.median(one / step for one, step in pairs)


def main(argv):
    """Measure each width, print the table, write the rows."""
    del argv
    print(
        f"{jax.devices()[0].device_kind}, {os.cpu_count()} processors, jax "
        f"{jax.__version__}; ResNet-{_DEPTH.value}, {_IMAGES.value} images of "
        f"{_SIZE.value} pixels"
    )
    print(
        f"{'width':>5}  {'':<22}{'s':>8}{'ratio':>8}{'cpu':>7}{'MiB':>7}{'compile':>9}"
    )
    rows = []
    for width in map(int, _WIDTHS.value):
        for row in measure(width):
            rows.append(row)
            print(f"{width:>5}  {row['row']:<22}{row['seconds']:>8.3f}", end="")
            print(f"{row['ratio']:>8.2f}{row['cpu']:>7.2f}", end="")
            print(f"{row['temporary_mib']:>7.0f}{row['compile_cpu_seconds']:>9.1f}")
    if _OUT.value:
        with open(_OUT.value, "w") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    app.run(main)
