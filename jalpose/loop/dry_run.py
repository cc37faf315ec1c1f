"""Show what a run would do: config, parameters, steps and memory; run nothing."""

import math

import jax
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from jalpose.loop import configs, papers, run, transfer
from jalpose.loop.context import RunContext, make_context
from jalpose.loop.programs import Programs
from jalpose.pergrad.memory import compiled_bytes
from jalpose.runtime import sharding
from jalpose.settings.validation import refuse_experiment


def show(config: ConfigDict, workdir: str) -> None:
    """Print config, parameter table, steps and memory of a training step."""
    refuse_experiment(config)
    configs.check(config)
    print(config)
    print(f"workdir: {workdir}")
    for line in papers.told(config):
        print(line)
    programs = Programs(sharding.make_mesh())
    dataset = run.load_dataset(config)
    base = run.load_base(config, dataset)
    initial = transfer.initial_weights(config, workdir)
    context = make_context(config, dataset, programs, base=base, initial=initial)
    state = jax.eval_shape(context.trainer.init, jax.random.key(0))
    print(parameter_table(state.params))
    if initial is not None:
        print(initial)
    _print_data(context)
    _print_steps(context)
    compiled = context.trainer.lower_step(config.training.batch).compile()
    print(
        f"a training step of {config.training.batch} examples needs "
        f"{compiled_bytes(compiled) / 2**30:.2f} GiB on a device, by the compiler's "
        f"account ({jax.devices()[0].device_kind}, {jax.device_count()} of them)"
    )


def parameter_table(params) -> str:
    """Parameters by top-level module, and their sum."""
    sums: dict[str, int] = {}
    for path, leaf in flatten_dict(params).items():
        sums[path[0]] = sums.get(path[0], 0) + math.prod(leaf.shape)
    width = max(map(len, sums))
    lines = [f"{name:<{width}}  {count:>12,}" for name, count in sums.items()]
    lines.append(f"{'parameters':<{width}}  {sum(sums.values()):>12,}")
    return "\n".join(lines)


def _print_data(context: RunContext) -> None:
    data = context.dataset
    held_out = int(data.held_out(data.initial).sum())
    print(
        f"{len(data.initial)} labelled at the start ({held_out} of them held out), "
        f"{len(data.pool)} in the pool, {len(data.test)} in the test set"
    )


def _print_steps(context: RunContext) -> None:
    plan = context.plan
    for number in range(context.config.loop.cycles + 1):
        first, *others = plan.of(number)
        more = "".join(f", {stage.name}: {stage.steps} steps" for stage in others)
        interval = plan.heldout_interval(number)
        looks = "" if interval is None else f", held-out loss every {interval}"
        print(f"cycle {number}: {first.steps} steps{more}{looks}")
