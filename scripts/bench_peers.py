"""Per-example gradient norms: our engines against PyTorch's ways, in one run.

    pip install torch opacus backpack-for-pytorch
    python scripts/bench_peers.py --device=cpu --out=peers.json

The same stacked hourglass with the same weights in both frameworks, float32. Kinds of
work, the first two squared norms over all parameters:

- one label: a batch of B images with one target each, [B] norms;
- K labels: one image with K candidate targets, [K] norms. In PyTorch as EGL++ did it:
  K copies of the image, a chunk at a time;
- a clipped sum: the gradient of the batch with none of its examples' longer than
  `--clip` of the longest.

Each repeat times every row in turn, medians are compared. "x batched" is seconds an
image over those of the framework's own batched gradient, "x ghost" seconds over those
of our ghost engine at the same work. "error" is the largest relative difference from
our exact engine's norms; of a batched gradient or a clipped sum its own squared norm is
compared with JAX's. "MiB" is what one call takes of memory beyond what there was.
Exits with 1 if a number is off by more than 1e-4, with 2 where there is no PyTorch or
no such device.

Only on an idle machine: PyTorch's threads wait for each other, and one that shares its
core with another job makes PyTorch look many times slower than it is.
"""

import os

# JAX would take most of a GPU's memory at once; both frameworks share it here.
os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"

import importlib.metadata
import json
import sys
import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from flax import traverse_util
from peer_rows import BATCHED, CLIPPED, MANY, ONE, TOLERANCE, Row, print_table, summary

from jalpose.models.hourglass import HourglassOptions
from jalpose.pergrad import api
from jalpose.pergrad.memory import CPU_MICROBATCH
from jalpose.tasks.pose import heatmaps, losses

try:
    import torch
    import torch_hourglass as peers
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    torch = None

_STACKS = flags.DEFINE_integer("stacks", 2, "hourglasses")
_CHANNELS = flags.DEFINE_integer("channels", 256, "width of the hourglass")
_DEPTH = flags.DEFINE_integer("depth", 4, "poolings inside an hourglass")
_SIZE = flags.DEFINE_integer("size", 256, "crop size, pixels")
_BATCH = flags.DEFINE_integer("batch", 4, "B, images with one label each")
_LABELS = flags.DEFINE_integer(
    "labels", 30, "K, candidate labels of the one image; 0: no such work"
)
_CHUNK = flags.DEFINE_integer("chunk", 5, "copies of an image, or examples, at once")
_CLIP = flags.DEFINE_float(
    "clip", 0.5, "length that is left, of the longest gradient's"
)
_MICROBATCH = flags.DEFINE_integer(
    "microbatch", 0, "of our engines; 0: as jalpose has it, on a GPU all at once"
)
_REPEATS = flags.DEFINE_integer("repeats", 3, "timings of each row; 0: numbers alone")
_DEVICE = flags.DEFINE_enum("device", "auto", ["auto", "cpu", "gpu"], "runs on")
_OUT = flags.DEFINE_string("out", None, "write the rows here, as JSON")
JOINTS = 14


def random_variables(model, images):
    """Linen variables with nothing at its conventional value."""
    ranges = {"scale": (0.5, 1.5), "var": (0.5, 1.5)}
    ranges |= {"bias": (-0.2, 0.2), "mean": (-0.2, 0.2)}
    flat = traverse_util.flatten_dict(jax.jit(model.init)(jax.random.key(1), images))
    generator = np.random.default_rng(2)
    for path, leaf in flat.items():
        if path[-1] in ranges:
            values = generator.uniform(*ranges[path[-1]], leaf.shape)
            flat[path] = jnp.asarray(values, leaf.dtype)
        else:
            # As initialised, signals shrink, and norms hardly depend on the image.
            flat[path] = leaf * 1.3
    return traverse_util.unflatten_dict(flat)


def make_targets(key, examples: int, candidates: int):
    """[examples, candidates, h, w, J]: an example's poses are scattered round one."""
    pose_key, noise_key = jax.random.split(key)
    size = _SIZE.value
    poses = jax.random.uniform(pose_key, (examples, 1, JOINTS, 2), maxval=float(size))
    noise = jax.random.normal(noise_key, (examples, candidates, JOINTS, 2))
    draw = partial(
        heatmaps.render_heatmaps,
        present=jnp.ones(JOINTS, bool),
        crop_size=size,
        heatmap_size=size // 4,
        sigma=1.75,
        peak=30.0,
    )
    return jax.vmap(jax.vmap(draw))(poses + size / 20 * noise)


def norms_of(model, variables, images, targets) -> np.ndarray:
    """Norms of the examples' gradients: [B]."""

    def apply_fn(variables, images):
        return model.apply(variables, images).prediction

    def found(*arrays):
        return api.squared_norms("exact", apply_fn, loss_fn, *arrays).total[:, 0]

    return np.sqrt(np.asarray(jax.jit(found)(variables, images, targets)))


def loss_fn(maps, target):
    """The loss of one image and target, all joints present."""
    return losses.heatmap_loss(maps, target, jnp.ones(JOINTS, bool))


def jax_rows(model, variables, images, targets, candidates, clip_norm) -> list[Row]:
    """Batched gradient, vmap(grad) and the engines.

    Args:
      model: the Linen module.
      variables: its variables.
      images: [B, H, W, 3]; the one with K labels is the first.
      targets: [B, 1, h, w, J].
      candidates: [1, K, h, w, J].
      clip_norm: of the clipped sum.
    """
    num = candidates.shape[1]

    def apply_fn(variables, images):
        return model.apply(variables, images).prediction

    def plain_fn(variables, images):  # the other engines bring convolutions along
        return model.clone(convolve=None).apply(variables, images).prediction

    def total_loss(params, images, targets):
        maps = apply_fn({**variables, "params": params}, images)
        return jnp.sum(jax.vmap(loss_fn)(maps, targets))

    def by_copies(params, copies, targets):
        def norm(pair):
            image, target = pair
            gradient = jax.grad(total_loss)(params, image[None], target[None])
            return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient))

        return jax.lax.map(norm, (copies, targets), batch_size=_CHUNK.value)

    def norms(name, variables, images, targets):
        if name not in api.ENGINES:
            raise ValueError(f"no engine {name} in jalpose.pergrad.api.ENGINES")
        size = _MICROBATCH.value
        if not size and jax.default_backend() == "cpu":
            size = min(targets.shape[1], CPU_MICROBATCH)
        engine = api.Engine(name, microbatch=size, passes=1)
        network = apply_fn if name == "exact" else plain_fn
        arguments = engine, network, loss_fn, variables, images, targets
        if name == "sketch":
            weights = jnp.full((1, num), 1 / num)
            return api.expected_squared_norm(*arguments, weights).total
        return api.squared_norms(*arguments).total

    def clipped(name, *arrays):
        network = apply_fn if name == "exact" else plain_fn
        return api.clipped_gradient(name, network, loss_fn, *arrays, clip_norm)[0]

    def clipped_copies(variables, images, targets):
        def one(params, image, target):
            gradient = jax.grad(total_loss)(params, image[None], target[None])
            leaves = jax.tree.leaves(gradient)
            length = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in leaves))
            factor = jnp.minimum(1, clip_norm / length)
            return jax.tree.map(lambda leaf: factor * leaf, gradient)

        several = jax.vmap(one, (None, 0, 0))(variables["params"], images, targets)
        return jax.tree.map(lambda leaf: leaf.sum(axis=0), several)

    def row(work, way, fn, *arguments, **options):
        def make():
            compiled = jax.jit(fn).lower(*arguments).compile()
            return lambda: jax.block_until_ready(compiled(*arguments))

        return Row(work, "JAX", way, make, **options)

    params = variables["params"]
    batch = params, images, targets[:, 0]
    copies = params, jnp.repeat(images[:1], num, axis=0), candidates[0]
    one, many = (variables, images, targets), (variables, images[:1], candidates)
    clip = variables, images, targets[:, 0]
    return [
        row(ONE, BATCHED, jax.grad(total_loss), *batch, against=BATCHED),
        row(ONE, "exact", partial(norms, "exact"), *one),
        row(ONE, "ghost", partial(norms, "ghost"), *one),
        row(MANY, "vmap(grad), K copies", by_copies, *copies),
        row(MANY, "exact", partial(norms, "exact"), *many),
        row(MANY, "ghost", partial(norms, "ghost"), *many),
        row(MANY, "sketch, mean alone", partial(norms, "sketch"), *many, estimate=True),
        row(CLIPPED, "ghost", partial(clipped, "ghost"), *one, against="ghost"),
        row(CLIPPED, "exact", partial(clipped, "exact"), *one, against="ghost"),
        row(CLIPPED, "vmap(grad)", clipped_copies, *clip, against="ghost"),
    ]


def torch_rows(build, images, targets, candidates, clip_norm) -> list[Row]:
    """The ways of PyTorch; all arrays in its layout, on the device.

    Args:
      build: (norm) -> a new network in evaluation mode; norm, a class.
      images: [B, 3, H, W]; the one with K labels is the first.
      targets: [B, J, h, w].
      candidates: [K, J, h, w].
      clip_norm: of the clipped sum.
    """
    chunk = _CHUNK.value
    copies = images[:1].repeat(len(candidates), 1, 1, 1)

    def row(work, way, create, norm=torch.nn.BatchNorm2d, **options):
        def make():
            run = create(build(norm))

            def call():
                if work != MANY:
                    result = run(images, targets)
                else:
                    pairs = zip(
                        copies.split(chunk), candidates.split(chunk), strict=True
                    )
                    result = torch.cat([run(*pair) for pair in pairs])
                if images.is_cuda:
                    torch.cuda.synchronize()
                return result

            return call

        return Row(work, "PyTorch", way, make, **options)

    # Opacus takes no batch norm, and its hooks work in training mode alone.
    other_norm = {"norm": peers.FrozenNorm, "optional": True}
    opacus = partial(peers.by_opacus, strict=False)
    fast = partial(opacus, fast=True)
    clipped = partial(peers.clipped_by_opacus, clip_norm=clip_norm)
    summed = {**other_norm, "against": "ghost"}
    return [
        row(ONE, BATCHED, peers.batched_gradient, against=BATCHED),
        row(ONE, "torch.func vmap(grad)", partial(peers.by_func, chunk=chunk)),
        row(ONE, "hooks, unfold, einsum", peers.by_hooks),
        row(ONE, "Opacus, as it comes", peers.by_opacus, optional=True),
        row(ONE, "Opacus, BN replaced", opacus, **other_norm),
        row(ONE, "Opacus fast clipping, BN replaced", fast, **other_norm),
        row(ONE, "BackPACK BatchL2Grad", peers.by_backpack, optional=True),
        row(MANY, "hooks, unfold, einsum, K copies", peers.by_hooks),
        row(CLIPPED, "Opacus, BN replaced", partial(clipped, fast=False), **summed),
        row(CLIPPED, "Opacus fast clipping, BN replaced", clipped, **summed),
    ]


def version(package: str) -> str:
    """Name and version; "none" where it is not installed."""
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{package} none"


def stop(reason: str):
    """End: this machine cannot run the comparison."""
    print(reason, file=sys.stderr)
    sys.exit(2)


def choose_device() -> str:
    """Name of PyTorch's device; JAX is set to the same kind, both to full precision."""
    wanted, seen = _DEVICE.value, torch.cuda.is_available()
    if wanted == "cpu" or not seen:
        jax.config.update("jax_platforms", "cpu")
    both = seen and jax.default_backend() == "gpu"
    if wanted == "gpu" and not both:
        stop("--device=gpu: JAX and PyTorch must both see one")
    jax.config.update("jax_default_matmul_precision", "highest")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True  # XLA chooses convolutions by trial too
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    return "cuda" if both else "cpu"


def main(argv):
    """Carry the weights over, check the outputs, time all rows in turn."""
    del argv
    if torch is None:
        stop("PyTorch is missing: pip install torch opacus backpack-for-pytorch")
    # Of hooks where inputs need no gradient, and of modules that hold others.
    warnings.simplefilter("ignore", UserWarning)
    device = choose_device()
    packages = map(version, ("jax", "torch", "opacus", "backpack-for-pytorch"))
    print(
        f"{jax.devices()[0].device_kind}, {', '.join(packages)}, "
        f"{torch.get_num_threads()} CPUs, load {os.getloadavg()[0]:.1f}"
    )

    shape = dict(stacks=_STACKS.value, channels=_CHANNELS.value, depth=_DEPTH.value)
    model = HourglassOptions(**shape).build(JOINTS)
    size = _SIZE.value
    keys = jax.random.split(jax.random.key(0), 3)
    # Smooth colours: images of noise are all alike to the network, and in even ones
    # pixels tie in the max pooling, so that rounding decides where gradients go.
    images = jax.random.uniform(keys[0], (_BATCH.value, 8, 8, 3))
    images = jax.image.resize(images, (len(images), size, size, 3), "cubic")
    variables = random_variables(model, images[:1])
    targets = make_targets(keys[1], _BATCH.value, 1)
    candidates = make_targets(keys[2], 1, max(_LABELS.value, 1))

    def build(norm):
        made = peers.StackedHourglass(JOINTS, norm=norm, **shape)
        peers.carry_over(made, variables)
        return made.to(device).eval()

    def carried(array):
        channels_first = np.moveaxis(np.asarray(array), -1, 1).copy()
        return torch.from_numpy(channels_first).to(device)

    ours = np.asarray(jax.jit(model.apply)(variables, images).prediction)
    with torch.no_grad():
        theirs = build(torch.nn.BatchNorm2d)(carried(images)).cpu().numpy()
    error = np.max(np.abs(ours - np.moveaxis(theirs, 2, -1))) / np.max(np.abs(ours))
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    print(
        f"{count:,} parameters, {size}x{size}, B = {len(images)}, "
        f"K = {len(candidates[0])}; outputs deviate by {ours.std():.2g}, the two "
        f"networks' differ by {error:.1e}"
    )
    if not error <= TOLERANCE:
        sys.exit("the two networks disagree: nothing to compare")

    clip_norm = _CLIP.value * float(norms_of(model, variables, images, targets).max())
    rows = jax_rows(model, variables, images, targets, candidates, clip_norm)
    arrays = map(carried, (images, targets[:, 0], candidates[0]))
    rows += torch_rows(build, *arrays, clip_norm)
    rows = [row for row in rows if _LABELS.value or row.work != MANY]
    for row in rows:
        row.start()
        row.measure()
    for _ in range(_REPEATS.value):
        for row in rows:
            row.time()
    entries, agree = summary(rows, _BATCH.value)
    print_table(entries)
    if _OUT.value:
        with open(_OUT.value, "w") as file:
            json.dump(entries, file, indent=1)
    if not agree:
        sys.exit(f"numbers differ by more than {TOLERANCE}, or a row has none")


if __name__ == "__main__":
    app.run(main)
