"""Show what a run would do, whole and at once: nothing is compiled, nothing runs."""

import math

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from jalpose.loop import compatibility, configs, papers, run, transfer
from jalpose.loop.cautions import cautions
from jalpose.loop.context import RunContext, make_context
from jalpose.loop.programs import Programs
from jalpose.oracles import registry as oracles
from jalpose.pergrad.memory import computed_bytes
from jalpose.runtime import sharding
from jalpose.settings.keys import by_section, from_base, lookup
from jalpose.settings.validation import refuse_experiment
from jalpose.storage import records
from jalpose.training.trainer import network_of


def show(config: ConfigDict, workdir: str) -> None:
    """Print config, parameters, data, trainings, memory, warnings; compile nothing.

    Raises what a run would raise before it begins: ConfigError, WorkdirError and
    DataError.
    """
    refuse_experiment(config)
    configs.check(config)
    for key in by_section(config):
        print(f"{key} = {lookup(config, key)!r}")
    print()
    print(_there(config, workdir))
    for line in papers.told(config):
        print(line)
    programs = Programs(sharding.make_mesh())
    dataset = run.load_dataset(config)
    base = run.load_base(config, dataset)
    initial = transfer.initial_weights(config, workdir)
    context = make_context(
        config,
        dataset,
        programs,
        base=base,
        initial=initial,
        # The run's own: of people nothing is asked before the first choice.
        oracle=oracles.make_oracle(config, dataset, workdir),
    )
    state = jax.eval_shape(context.trainer.init, jax.random.key(0))
    print(parameter_table(state.params))
    if initial is not None:
        print(initial)
    _print_data(context)
    _print_steps(context)
    for method in config.loop.compare:
        other = from_base(config, method, workdir)
        print(f"then {method}, from the same base model, into {workdir}/compare:")
        _print_steps(make_context(other, dataset, programs, base=state.variables))
    _print_memory(context, network_of(state.variables))
    for line in cautions(config, dataset, programs.mesh.size):
        print(f"warning: {line}")


def _there(config: ConfigDict, workdir: str) -> str:
    """What is in the workdir; WorkdirError where a run would be refused there."""
    compatibility.refuse_another_config(config, workdir)
    finished = len(records.read_cycles(workdir))
    if records.read_config(workdir) is None:
        return f"workdir: {workdir}, a new run"
    wanted = config.loop.cycles + 1
    return f"workdir: {workdir}, a run that goes on: {finished} of {wanted} models"


def _print_memory(context: RunContext, variables) -> None:
    """Memory, by what a forward pass computes; the compiler often needs less.

    Of a training step weights, gradients and two moments, and twice what a forward pass
    of the batch computes; of scoring the weights and a pass forward, or back as well.
    """
    config, devices = context.config, context.passes.mesh.size
    weights = sum(
        math.prod(v.shape) * v.dtype.itemsize for v in jax.tree.leaves(variables)
    )

    def forward(count: int) -> int:
        size = context.task.size
        shape = (-(-count // devices), size, size, 3)
        images = jax.ShapeDtypeStruct(shape, np.float32)
        closed = jax.make_jaxpr(context.model.apply)(variables, images)
        return computed_bytes(closed.jaxpr)

    needed = {
        f"a training step of {config.training.batch} examples": 4 * weights
        + 2 * forward(config.training.batch),
        f"a pass over {config.evaluation.block} examples": weights
        + forward(config.evaluation.block),
    }
    if context.method.uses_engine:
        what = f"gradient norms of {config.acquisition.block} examples, one label each"
        needed[what] = 2 * weights + 2 * forward(config.acquisition.block)
    for what, count in needed.items():
        print(f"{what}: about {_memory(count)} on a device")
    kind = jax.devices()[0].device_kind
    print(f"devices: {jax.device_count()} of {kind}; gradients at once as many as fit")


def _memory(count: int) -> str:
    """Bytes in MiB or GiB."""
    mib = count / 2**20
    return f"{mib:.0f} MiB" if mib < 1024 else f"{mib / 1024:.1f} GiB"


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
        looks = "" if interval is None else f", held-out loss every {interval} steps"
        length = f"{first.steps} steps" if first.steps else "the base model as it is"
        print(f"cycle {number}: {length}{more}{looks if first.steps else ''}")
