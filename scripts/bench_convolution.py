"""Native convolution against kernel gradients in blocks, on this machine.

    python scripts/bench_convolution.py --channels=96 --size=128
    python scripts/bench_convolution.py --network=resnet --channels=16 --size=32

Prints, for a training gradient of a batch and for the K candidate gradients of one
image (the exact engine), seconds and peak bytes of both and their ratio. Each pair is
timed in turn, several times, in this one process; medians are compared.
"""

import statistics
import time

import jax
import jax.numpy as jnp
from absl import app, flags

from jalpose.models.hourglass import HourglassOptions
from jalpose.models.resnet import ResNetOptions
from jalpose.pergrad import api
from jalpose.pergrad.memory import compiled_bytes
from jalpose.tasks.pose import losses

_NETWORK = flags.DEFINE_enum("network", "hourglass", ["hourglass", "resnet"], "which")
_CHANNELS = flags.DEFINE_integer("channels", 96, "width of the network")
_DEPTH = flags.DEFINE_integer("depth", 18, "layers of the resnet")
_SIZE = flags.DEFINE_integer("size", 128, "crop size, pixels")
_STACKS = flags.DEFINE_integer("stacks", 1, "hourglasses")
_BATCH = flags.DEFINE_integer("batch", 16, "examples of the training gradient")
_LABELS = flags.DEFINE_integer("labels", 30, "candidate labels of the one image")
_REPEATS = flags.DEFINE_integer("repeats", 5, "timings of each")
JOINTS = 14


def make(convolution: str):
    """Compiled training gradient and candidate norms under one convolution."""
    size = _SIZE.value
    model, targets, loss_fn = (
        _of_poses(convolution)
        if _NETWORK.value == "hourglass"
        else _of_classes(convolution)
    )
    images = jax.random.uniform(jax.random.key(0), (_BATCH.value, size, size, 3))
    variables = jax.jit(model.init)(jax.random.key(1), images)

    def apply_fn(variables, images):
        return model.apply(variables, images).prediction

    def training(params, images):
        def loss(params):
            output, _ = model.apply(
                {**variables, "params": params},
                images,
                train=True,
                mutable=["batch_stats"],
            )
            return jnp.mean(jnp.square(output.prediction))

        return jax.grad(loss)(params)

    def candidates(params, image):
        return api.squared_norms(
            "exact",
            apply_fn,
            loss_fn,
            {**variables, "params": params},
            image,
            targets,
        ).total

    params = variables["params"]
    return {
        "training gradient": _compile(training, params, images),
        "candidate norms": _compile(candidates, params, images[:1]),
    }


def _of_poses(convolution: str):
    """A hourglass, K heatmaps of an image, and their loss."""
    options = HourglassOptions(
        stacks=_STACKS.value, channels=_CHANNELS.value, convolution=convolution
    )
    count, heat = _LABELS.value, _SIZE.value // 4
    maps = jax.random.uniform(jax.random.key(2), (1, count, heat, heat, JOINTS))
    targets = maps, jnp.ones((1, count, JOINTS), bool)
    return options.build(JOINTS), targets, lambda x, y: losses.heatmap_loss(x, *y)


def _of_classes(convolution: str):
    """A residual network of K classes, all of them for an image, and their loss."""
    count = _LABELS.value
    options = ResNetOptions(
        depth=_DEPTH.value, width=_CHANNELS.value, convolution=convolution
    )
    return (
        options.build(count),
        jnp.arange(count)[None],
        lambda logits, label: -jax.nn.log_softmax(logits)[label],
    )


def _compile(fn, *arguments):
    compiled = jax.jit(fn).lower(*arguments).compile()
    return compiled, arguments


def seconds(compiled, arguments) -> float:
    """Wall seconds of one call."""
    begun = time.perf_counter()
    jax.block_until_ready(compiled(*arguments))
    return time.perf_counter() - begun


def main(argv):
    """Time both convolutions in turn and print their ratios."""
    del argv
    native, blocked = make("native"), make("blocked")
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}")
    for what in native:
        pair = native[what], blocked[what]
        for compiled, arguments in pair:
            seconds(compiled, arguments)
        times = [[seconds(*side) for side in pair] for _ in range(_REPEATS.value)]
        one, other = (statistics.median(column) for column in zip(*times, strict=True))
        bytes_one, bytes_other = (compiled_bytes(side[0]) for side in pair)
        print(
            f"{what}: native {one:.3f} s, {bytes_one / 2**20:.0f} MiB; blocked "
            f"{other:.3f} s, {bytes_other / 2**20:.0f} MiB; ratio {other / one:.3f}, "
            f"memory {bytes_other / bytes_one:.2f}"
        )


if __name__ == "__main__":
    app.run(main)
