"""Can reading keep up with the model? Milliseconds an image, on one core and of a step.

    python scripts/bench_pipeline.py --config=configs/lsp_eglpp.py:scale=small

Decoding and cropping an image file on one thread, reading the crop that is kept, a
training step and a scoring pass (embedding, joints and peaks) through the prepared
batches, medians in this one process. What matters is their ratio: how many cores have
to read so that the devices do not wait.
"""

import statistics
import tempfile
import time

import jax
from absl import app
from ml_collections import config_flags

from jalpose.data.packed import PackedCrops
from jalpose.loop import advance, configs, run
from jalpose.loop.context import make_context
from jalpose.loop.programs import Programs
from jalpose.runtime import sharding
from jalpose.runtime.throughput import Flow
from jalpose.training.trainer import for_devices

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file")
IMAGES, STEPS = 300, 12


def each(work, items):
    """Median milliseconds of `work(item)`."""
    seconds = []
    for item in items:
        begun = time.perf_counter()
        work(item)
        seconds.append(time.perf_counter() - begun)
    return 1e3 * statistics.median(seconds)


def main(argv):
    """Measure and print."""
    del argv
    config = _CONFIG.value
    config.data.packed = False
    configs.check(config)
    data, mesh = run.load_dataset(config), sharding.make_mesh()
    context = make_context(config, data, Programs(mesh))
    ids, size = data.initial[:IMAGES].tolist(), config.data.size

    cutting = each(lambda i: data.crop(i, size), ids)
    with tempfile.TemporaryDirectory() as folder:
        packed = PackedCrops(folder, "bench", size)
        writing = each(lambda i: packed.get(i, lambda: data.crop(i, size)), ids)
        reading = each(lambda i: packed.get(i, lambda: None), ids)

    begun = advance.start(context)
    state, stage = begun.phase.train, context.plan.of(0)[0]
    batches = context.plan.batches(context.labelled_set(begun), 0, stage, 0)
    rows = [next(batches) for _ in range(STEPS + 1)]
    key = jax.random.key(0)

    def step(batch):
        nonlocal state
        one = iter([batch])
        state, _ = context.trainer.run(state, one, key, 1, stage.steps, flow=Flow())

    step(rows[0])
    training = each(step, rows[1:]) / config.training.batch

    passes = context.passes
    variables = sharding.replicate(mesh, state.variables)
    one = for_devices(rows[0]) | {"id": rows[0]["id"]}
    count = len(one["id"])
    placed = passes.place(one, count, 0)
    describe = passes.compiled(passes.describe, variables, placed).run
    jax.block_until_ready(describe(variables, placed))
    score = each(
        lambda _: jax.block_until_ready(describe(variables, placed)), range(STEPS)
    )
    scoring = score / count

    print(f"{jax.devices()[0].device_kind}, {len(jax.devices())} device(s)")
    for name, value in (
        ("decode and crop, one core", cutting),
        ("the same, and keep the crop", writing),
        ("read a kept crop, one core", reading),
        ("training step", training),
        ("forward pass of scoring", scoring),
    ):
        print(f"{name:<30} {value:8.3f} ms an image")
    print(
        f"cores that have to read: training {cutting / training:.2f} decoding, "
        f"{reading / training:.2f} of kept crops; scoring {cutting / scoring:.2f} and "
        f"{reading / scoring:.2f}"
    )


if __name__ == "__main__":
    app.run(main)
