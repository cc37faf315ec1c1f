"""Strong scaling by counting: what each device does, and what devices exchange.

    python scripts/count_scaling.py --config=configs/lsp_eglpp.py:scale=small

For 1, 2, 4 and 8 devices and the same work: operations of one device, and bytes that a
device receives, both from the compiled programs, collectives by name. Devices are
pretended (a CPU's), so nothing is timed: a program whose operations halve with each
doubling, and whose exchange is small beside them, scales on a pod as its network
allows.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
from absl import app
from ml_collections import config_flags

from jalpose.acquisition.parts import kcenter
from jalpose.loop import advance, configs, run
from jalpose.loop.context import engine_of, make_context
from jalpose.loop.programs import Programs
from jalpose.pergrad import api
from jalpose.runtime import sharding
from jalpose.scoring.gradients import Functions, norm_arguments
from jalpose.scoring.passes import Examples
from jalpose.training.trainer import for_devices

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file")
DEVICES = (1, 2, 4, 8)
POOL, CENTRES, PICKS = 100_000, 1_000, 1_000
_COLLECTIVE = re.compile(
    r"= \(?(?P<types>[^=]*?)\)? "
    r"(?P<name>all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)"
    r"(-start)?\((?P<rest>.*)"
)
_TYPE = re.compile(r"(?P<kind>pred|[suf]\d+)\[(?P<sizes>[\d,]*)\]")


def exchanged(compiled) -> dict[str, int]:
    """Bytes of the results of each kind of collective in a program.

    Those in the body of a loop count once, and by themselves: "each turn".
    """
    found: dict[str, int] = {}
    text = re.sub(r"/\*.*?\*/", "", compiled.as_text())  # comments hold "="
    for match in _COLLECTIVE.finditer(text):
        for each in _TYPE.finditer(match["types"]):
            bits = 8 if each["kind"] == "pred" else int(each["kind"][1:])
            count = int(np.prod([int(n) for n in each["sizes"].split(",") if n]))
            turn = "each turn " if "/while/body" in match["rest"] else ""
            name = turn + match["name"]
            found[name] = found.get(name, 0) + bits // 8 * count
    return found


def programs(config, data, num_devices):
    """(what, compiled program, times a device runs it) for so many devices."""
    mesh = sharding.make_mesh(jax.devices()[:num_devices])
    context = make_context(config, data, Programs(mesh))
    begun = advance.start(context)
    state, task, passes = begun.phase.train, context.task, context.passes
    variables = sharding.replicate(mesh, state.variables)
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    block = config.evaluation.block
    rows = first_rows(context, block)
    placed = passes.place(rows, block, 0)
    describe = passes.compiled(passes.describe, variables, placed).run
    yield f"scoring pass of {block}: embedding, joints, peaks", describe, 1
    results = describe(variables, placed)
    gather = jax.jit(lambda results: results, out_shardings=whole)
    gather = gather.lower(results).compile()
    yield f"its results to all hosts, {block} images", gather, 1

    # An image a device: a device takes its images one after the other in a loop, whose
    # body the compiler counts once.
    images, labels = config.acquisition.block, config.acquisition.eglpp.neighbours
    labelled = context.true_labels(data.initial[:num_devices]).labels
    content = {
        **{name: v[:, None].repeat(labels, 1) for name, v in labelled.items()},
        "weights": np.full((num_devices, labels), 1 / labels, np.float32),
    }
    engine = engine_of(config.acquisition, microbatch=labels)
    functions = Functions(jax.vmap(task.target), task.loss)

    def norms(variables, rows):
        model = passes.gradient_model
        arguments = norm_arguments(model, functions, variables, rows)
        return {"expected": api.expected_squared_norm(engine, *arguments).total}

    placed = passes.place(
        first_rows(context, num_devices),
        num_devices,
        0,
        lambda positions: {k: v[positions] for k, v in content.items()},
    )
    found = passes.compiled(norms, variables, placed).run
    yield (
        f"EGL++ norms of {images} images, {labels} labels",
        found,
        images / num_devices,
    )

    batch = sharding.split(
        mesh, for_devices(first_rows(context, config.training.batch))
    )
    # Not `lower_step`: that is of shapes alone, which are on no device.
    step = context.trainer._step.lower(
        state, batch, jax.random.key(0), np.float32(1e-3), attached=False
    ).compile()
    yield f"training step of {config.training.batch}", step, 1

    chunk, features = 1024, config.model.channels
    blocks = -(-POOL // (chunk * num_devices)) * num_devices
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(sharding.AXIS))
    of = jax.ShapeDtypeStruct
    centres = of((CENTRES, features), jnp.float32, sharding=whole)
    pool = of((blocks, features, chunk), jnp.float32, sharding=split)
    padding = of((blocks, chunk), jnp.bool_, sharding=split)
    nearest = of((blocks, chunk), jnp.float32, sharding=split)
    # Of a loop the compiler counts one turn.
    approach = kcenter.approach(mesh).lower(centres, pool, nearest).compile()
    yield f"core-set of {POOL:,} x {features}, a turn a centre", approach, 1
    choice = kcenter.choice(mesh, PICKS).lower((pool, padding), nearest).compile()
    yield f"core-set of {POOL:,} x {features}, a turn a pick", choice, 1


def first_rows(context, count):
    """The first examples as a block."""
    examples = Examples(context.dataset, context.evaluator.labels_of)
    source = examples.source(context.dataset.initial[:count], context.task.size)
    rows = [source[i] for i in range(count)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)


def main(argv):
    """Count and print."""
    del argv
    config = _CONFIG.value
    configs.check(config)
    data = run.load_dataset(config)
    table: dict[str, list] = {}
    for num_devices in DEVICES:
        for what, compiled, times in programs(config, data, num_devices):
            flops = compiled.cost_analysis().get("flops", 0.0) * times
            table.setdefault(what, []).append((flops, exchanged(compiled)))
    print("| work | devices | operations a device | to one device | exchanged, bytes |")
    print("|---|---|---|---|---|")
    for what, rows in table.items():
        rows = [(flops or float("nan"), told) for flops, told in rows]
        for num_devices, (flops, bytes_) in zip(DEVICES, rows, strict=True):
            told = ", ".join(f"{name} {count:,}" for name, count in bytes_.items())
            print(
                f"| {what if num_devices == 1 else ''} | {num_devices} | {flops:.3g} | "
                f"{flops / rows[0][0]:.3f} | {told or 'nothing'} |"
            )


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", max(DEVICES))
    app.run(main)
