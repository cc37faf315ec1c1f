"""Per-example gradient norms against an ordinary gradient, on this machine.

    python scripts/bench_pergrad.py --batches=1,4,8 --labels=10,30 --out=rows.json

For each batch size B (one label an image): a forward pass, the gradient of the batch in
both convolutions at hand, and the norms by every engine; and what else there is of
single gradients: sketches, inner products, the norms beside the mean gradient,
weighted and clipped sums. For each number of labels K
(one image): the norms of K candidates by vmap(grad) over K copies of the image, from
one shared forward pass by every engine, and their expectation by the sketch. Within a
sweep's step all rows are timed in turn, several times, in this one process; medians are
compared.

`ratio_time` and `ratio_memory` are to the gradient of the same batch in the faster
convolution (K rows: of the one image), `ratio_forward` to its forward pass,
`ratio_copies` (K rows) to the K copies. Memory is the compiler's peak. `--out` writes
the rows as JSON.
"""

import functools
import json
import os
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from jalpose.models.hourglass import HourglassOptions
from jalpose.pergrad import api
from jalpose.pergrad.api import Engine
from jalpose.pergrad.memory import CPU_MICROBATCH, compiled_bytes
from jalpose.tasks.pose import heatmaps, losses

_STACKS = flags.DEFINE_integer("stacks", 2, "hourglasses")
_CHANNELS = flags.DEFINE_integer("channels", 256, "width of the hourglass")
_DEPTH = flags.DEFINE_integer("depth", 4, "poolings inside an hourglass")
_SIZE = flags.DEFINE_integer("size", 256, "image side, pixels")
_BATCHES = flags.DEFINE_list("batches", ["4", "8"], "images, one label each")
_LABELS = flags.DEFINE_list("labels", ["30"], "candidate labels of one image")
_MICROBATCHES = flags.DEFINE_list(
    "microbatches", [], "microbatches of ghost in the sweep over labels; default: one"
)
_PASSES = flags.DEFINE_list("passes", ["2", "4"], "passes of the sketch")
_SIZE_OF_SKETCH = flags.DEFINE_integer("sketch_size", 512, "numbers of a sketch")
_ROWS = flags.DEFINE_list("rows", [], "of one label an image; default: all")
_COPIES = flags.DEFINE_integer("copies", 5, "copies differentiated at once")
_REPEATS = flags.DEFINE_integer("repeats", 5, "timings of each row")
_OUT = flags.DEFINE_string("out", "", "file for the rows, JSON")
JOINTS = 14


class Network:
    """The hourglass, its variables, and a loss of one label."""

    def __init__(self):
        options = {
            "stacks": _STACKS.value,
            "channels": _CHANNELS.value,
            "depth": _DEPTH.value,
        }
        self.models = {
            convolution: HourglassOptions(**options, convolution=convolution).build(
                JOINTS
            )
            for convolution in ("native", "blocked")
        }
        image = jnp.zeros((1, _SIZE.value, _SIZE.value, 3))
        init = jax.jit(self.models["native"].init)
        self.variables = init(jax.random.key(1), image)

    def apply(self, convolution):
        """(variables, images) -> heatmaps."""

        def apply_fn(variables, images):
            return self.models[convolution].apply(variables, images).prediction

        return apply_fn

    @staticmethod
    def loss(maps, target):
        """Of one example and one label."""
        return losses.heatmap_loss(maps, target, jnp.ones(JOINTS, bool))

    def gradient(self, convolution):
        """Ordinary gradient of the batch: its squared norm, one number."""
        apply_fn = self.apply(convolution)

        def gradient(variables, images, targets):
            def loss(params):
                maps = apply_fn({**variables, "params": params}, images)
                return jnp.sum(jax.vmap(self.loss)(maps, targets[:, 0]))

            with jax.default_matmul_precision("highest"):
                found = jax.grad(loss)(variables["params"])
            # All of it comes back, as a training step would need it.
            return found

        return gradient

    def copies(self, variables, images, targets):
        """The published way without its hooks: vmap(grad) over K copies.

        In the blocked convolution: on a CPU the native one takes minutes here.
        """
        apply_fn = self.apply("blocked" if _on_cpu() else "native")

        def one(image, target):
            def loss(params):
                maps = apply_fn({**variables, "params": params}, image[None])
                return self.loss(maps[0], target)

            found = jax.grad(loss)(variables["params"])
            return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(found))

        def chunk(part):
            # Real copies: a broadcast image would share its forward pass.
            return jax.vmap(one)(part[0], part[1])

        num = targets.shape[1]
        batched = (jnp.repeat(images, num, axis=0), targets[0])
        parts = jax.tree.map(
            lambda x: x.reshape(-1, min(num, _COPIES.value), *x.shape[1:]), batched
        )
        with jax.default_matmul_precision("highest"):
            return jax.lax.map(chunk, parts).reshape(1, -1)

    def norms(self, engine):
        """Squared norms [B, K] by an engine."""
        apply_fn = self.apply("blocked" if engine.name == "exact" else "native")

        def norms(variables, images, targets):
            arguments = (engine, apply_fn, self.loss, variables, images, targets)
            if engine.name != "sketch":
                return api.squared_norms(*arguments).total
            weights = jnp.full(targets.shape[:2], 1 / targets.shape[1])
            return api.expected_squared_norm(*arguments, weights).total

        return norms

    def beyond(self, microbatch):
        """Sketches and sums: name -> function of the row's arrays."""
        native, blocked = self.apply("native"), self.apply("blocked")
        engine = Engine("ghost", microbatch=microbatch)
        fast = blocked if _on_cpu() else native

        def sketches(*arrays):
            size, key = _SIZE_OF_SKETCH.value, jax.random.key(0)
            return api.sketches(engine, native, self.loss, *arrays, size=size, key=key)

        def beside(*arrays):
            return api.norms_and_gradient("ghost", native, self.loss, *arrays)

        def weighted(variables, images, targets):
            weights = jnp.ones(len(images))
            return api.weighted_gradient(
                fast, self.loss, variables, images, targets, weights
            )

        def clipped(*arrays):
            return api.clipped_gradient("ghost", native, self.loss, *arrays, 1.0)

        def clipped_alone(*arrays):
            exact = Engine("exact", microbatch=microbatch)
            return api.clipped_gradient(exact, fast, self.loss, *arrays, 1.0)

        def products(*arrays):
            return api.inner_products(fast, self.loss, *arrays, block=1)

        return {
            "sketches": sketches,
            "inner products": products,
            "norms and gradient": beside,
            "weighted gradient": weighted,
            "clipped gradient": clipped,
            "clipped gradient, exact": clipped_alone,
        }


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def sweep(rows, images, targets, network):
    """Compile and time every row on the same work: name -> (seconds, bytes, result)."""
    compiled = {}
    for name, fn in rows.items():
        begun = time.perf_counter()
        program = jax.jit(fn).lower(network.variables, images, targets).compile()
        result = jax.block_until_ready(program(network.variables, images, targets))
        compiled[name] = program
        rows[name] = result
        print(f"  {name}: compiled and run in {time.perf_counter() - begun:.0f} s")
    times: dict = {name: [] for name in compiled}
    for _ in range(_REPEATS.value):
        for name, program in compiled.items():
            begun = time.perf_counter()
            jax.block_until_ready(program(network.variables, images, targets))
            times[name].append(time.perf_counter() - begun)
    return {
        name: (statistics.median(times[name]), compiled_bytes(program), rows[name])
        for name, program in compiled.items()
    }


def table(found, batch, labels):
    """Rows of one sweep's step, ratios to the faster gradient."""
    gradients = [found[f"gradient, {c}"][:2] for c in ("native", "blocked")]
    seconds, peak = min(gradients)
    reference = np.asarray(found["exact"][2]) if "exact" in found else None
    rows = []
    for name, (took, used, result) in found.items():
        error = None
        if reference is not None and getattr(result, "ndim", 0) in (1, 2):
            wanted = reference if result.ndim == 2 else reference.mean(axis=1)
            error = float(np.max(np.abs(np.asarray(result) / wanted - 1)))
        row = {
            "engine": name,
            "batch": batch,
            "labels": labels,
            "seconds": took,
            "ratio_time": took / seconds,
            "ratio_memory": used / peak,
            "ratio_forward": took / found["forward"][0],
            "peak_mib": used / 2**20,
            "max_relative_error": error,
        }
        if "copies" in found:
            row["ratio_copies"] = took / found["copies"][0]
        rows.append(row)
    return rows


def show(rows):
    """Print rows as an aligned table."""
    head = ("engine", "B", "K", "s", "/gradient", "/forward", "/copies")
    print("{:<26}{:>3}{:>4}{:>9}{:>10}{:>9}{:>8}".format(*head), end="")
    print(f"{'memory':>8}{'MiB':>8}  max relative error")
    for row in rows:
        copies = row.get("ratio_copies")
        error = row["max_relative_error"]
        print(
            f"{row['engine']:<26}{row['batch']:>3}{row['labels']:>4}"
            f"{row['seconds']:>9.3f}{row['ratio_time']:>10.3f}"
            f"{row['ratio_forward']:>9.2f}"
            f"{'' if copies is None else f'{copies:.3f}':>8}"
            f"{row['ratio_memory']:>8.2f}{row['peak_mib']:>8.0f}  "
            f"{'' if error is None else f'{error:.1e}'}"
        )


def main(argv):
    """Run both sweeps, print the tables, write the rows."""
    del argv
    network, rows = Network(), []
    size, heat = _SIZE.value, _SIZE.value // 4
    print(
        f"{jax.devices()[0].device_kind}, {os.cpu_count()} processors, jax "
        f"{jax.__version__}; {_STACKS.value} stacks, {_CHANNELS.value} channels, "
        f"{size}x{size}"
    )
    yardsticks = {
        "forward": lambda variables, images, targets: network.apply("native")(
            variables, images
        ),
        "gradient, native": network.gradient("native"),
        "gradient, blocked": network.gradient("blocked"),
    }

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def draw(batch, labels):
        keys = jax.random.split(jax.random.key(batch), 2)
        images = jax.random.uniform(keys[0], (batch, size, size, 3))
        joints = size * jax.random.uniform(keys[1], (batch, labels, JOINTS, 2))
        spec = {"crop_size": size, "heatmap_size": heat, "sigma": 1.75, "peak": 30.0}
        render = functools.partial(
            heatmaps.render_heatmaps, present=jnp.ones(JOINTS, bool), **spec
        )
        return images, jax.vmap(jax.vmap(render))(joints)

    on_cpu = _on_cpu()
    for batch in map(int, _BATCHES.value):
        print(f"{batch} images, one label each")
        # On a CPU one image at a time is what jalpose does.
        at_once = {"": 1, ", all at once": 0} if on_cpu else {"": 0}
        engines = {
            name + how: network.norms(Engine(name, microbatch=size))
            for how, size in at_once.items()
            for name in ("exact", "ghost", "conv_linear", "goodfellow")
            if not how or name in ("exact", "ghost")
        }
        engines |= network.beyond(1 if on_cpu else 0)
        if _ROWS.value:
            engines = {name: engines[name] for name in _ROWS.value}
        found = sweep({**yardsticks, **engines}, *draw(batch, 1), network)
        rows += table(found, batch, 1)
        show(rows[-len(found) :])
    for labels in map(int, _LABELS.value):
        print(f"one image, {labels} labels")
        sizes = [int(m) for m in _MICROBATCHES.value] or [
            CPU_MICROBATCH if on_cpu else labels
        ]
        engines = {"copies": network.copies}
        engines["exact"] = network.norms(Engine("exact", microbatch=sizes[0]))
        for number in sizes:
            name = "ghost" if len(sizes) == 1 else f"ghost, {number} at once"
            engines[name] = network.norms(Engine("ghost", microbatch=number))
        for passes in map(int, _PASSES.value):
            sketch = Engine("sketch", microbatch=sizes[0], passes=passes)
            engines[f"sketch, {passes} passes"] = network.norms(sketch)
        found = sweep({**yardsticks, **engines}, *draw(1, labels), network)
        rows += table(found, 1, labels)
        show(rows[-len(found) :])
    if _OUT.value:
        with open(_OUT.value, "w") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    app.run(main)
