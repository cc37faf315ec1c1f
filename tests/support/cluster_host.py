"""One of several hosts, started by tests/runtime/test_cluster.py:

    python cluster_host.py <task> <out> <port> <hosts> <host> <devices a host>

Joins the others, does what the task says with the smallest of networks, and, as the
lead, writes arrays to `out`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import jax

METHODS = ("random", "eglpp", "multipeak_entropy", "coreset")
JOIN_SECONDS = 3600  # until all have started, on a machine with much else to do


def scores(base):
    """What methods choose in the first cycle, all from the variables `base`."""
    from jalpose.loop import advance
    from jalpose.loop.events import Measured
    from tests.support import small

    found = {}
    for method in METHODS:
        changes = {"acquisition.method": method, "acquisition.pool_subset": 21}
        context = small.flat_context(changes, jax.device_count(), base)
        begun = advance.start(context)
        _, events = small.advance_until(begun, context, Measured)
        for event in events:
            for name, values in getattr(event, "arrays", {}).items():
                found[f"{method} {name}"] = values
    return found


def training(base):
    """Losses of the first steps of a training, and what it leaves."""
    from flax.traverse_util import flatten_dict

    from jalpose.loop import advance
    from jalpose.runtime.throughput import Flow
    from tests.support import small

    # Batches of 6: of several devices some get nothing but filling.
    changes = {"training.batch": 6, "training.base_steps": 3}
    context = small.flat_context(changes, jax.device_count())
    plan, trainer = context.plan, context.trainer
    labelled = context.labelled_set(advance.start(context))
    train, history = plan.advance(
        trainer.restart(base), labelled, 0, plan.of(0)[0], 3, Flow()
    )
    held = plan.heldout_loss(train.variables, labelled)
    left = flatten_dict(trainer.chosen(train), sep=".")
    arrays = {name: small.np.asarray(value) for name, value in left.items()}
    return {"losses": history["loss"], "heldout": small.np.float64(held), **arrays}


def companions(base):
    """What a graph network chooses, and the first steps of a companion's training."""
    from jalpose.loop import advance
    from jalpose.loop.events import Selected
    from jalpose.runtime.throughput import Flow
    from tests.support import small

    changes = {"acquisition.method": "core_gcn", "acquisition.pool_subset": 21}
    context = small.flat_context(changes, jax.device_count(), base)
    _, events = small.advance_until(advance.start(context), context, Selected)
    found = {f"graph {name}": value for name, value in events[-1].arrays.items()}
    # Batches of 6: of several devices some get nothing but filling.
    changes = {"acquisition.method": "sraal", "acquisition.sraal.batch": 6}
    context = small.flat_context(changes, jax.device_count(), base)
    stage, state = context.plan.of(0)[-1], advance.start(context)
    _, history = context.plan.advance(
        context.plan.begin(0, stage, base),
        context.labelled_set(state),
        0,
        stage,
        2,
        Flow(),
        variables=base,
        unlabelled=context.unlabelled(state.labelled, 0),
    )
    return found | {f"step {name}": values for name, values in history.items()}


def disagree(base):
    """What hosts that were not started alike are told."""
    from jalpose.loop import run
    from jalpose.runtime import hosts
    from jalpose.tasks.pose.figures import FigureSource
    from tests.support import small

    here, told = hosts.host(), {}

    def ask(name, check, *arguments):
        try:
            check(*arguments)
        except hosts.ClusterError as error:
            told[name] = small.np.array(str(error))

    alike = {"config.seed": 3, "config.training.batch": 16}
    ask("alike", hosts.check_same_facts, alike)
    other = {**alike, "config.training.batch": 16 - 8 * here}
    ask("facts", hosts.check_same_facts, other)
    files = ["a.jpg", "b.jpg", "c.jpg"]
    sums = small.np.array([1, 2 + here, 3], small.np.uint32)
    ask("examples", hosts.check_same_examples, files, sums)
    ask("number", hosts.check_same_examples, files, sums[: 3 - here])
    ask("same", hosts.check_same, "the choice", small.np.arange(3))
    ask("choice", hosts.check_same, "the choice", small.np.arange(3) + here)
    ask("data", run.load_on_all_hosts, small.configure())
    if here == 1:
        FigureSource.image = lambda *_: small.np.zeros((9, 9, 3), small.np.uint8)
    ask("images", run.load_on_all_hosts, small.configure())
    told["agreed"] = small.np.float64(hosts.agree(0.1 + here))
    wide = small.np.array([2.0**60 + here * 2.0**10])  # is no float32
    told["wide"] = hosts.gather(wide)
    told["any"] = small.np.array([hosts.any_host(here == 1), hosts.any_host(False)])
    return told


def memory(base):
    """A device of the last host that is out of memory once, in the third block."""
    import warnings

    from jalpose.loop import advance
    from jalpose.loop.events import Selected
    from jalpose.runtime import hosts
    from jalpose.scoring import passes
    from tests.support import small

    run_block, blocks = passes.execute, []

    def execute(fn, *arguments):
        if isinstance(fn, passes.Fitted):
            blocks.append(0)
            if len(blocks) == 2 and hosts.host() == hosts.size() - 1:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: injected")
        return run_block(fn, *arguments)

    passes.execute = execute
    changes = {"acquisition.pool_subset": 21}
    context = small.flat_context(changes, jax.device_count(), base)
    begun = advance.start(context)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        _, events = small.advance_until(begun, context, Selected)
    texts = [str(w.message) for w in told if "out of memory" in str(w.message)]
    return {**events[-1].arrays, "told": small.np.array(texts)}


def people(base, folder):
    """A run in `folder` whose labels people bring: it waits, refuses, and goes on."""
    import io

    from jalpose.loop import run
    from jalpose.oracles.folder import ANSWERS, read_answers, taken_in
    from jalpose.oracles.oracle import LabelsError
    from jalpose.oracles.registry import make_oracle
    from jalpose.runtime import hosts
    from jalpose.runtime.screen import Screen
    from jalpose.storage import records
    from tests.loop.test_oracles import without_labels
    from tests.support import annotator, small

    changes = {
        "acquisition.method": "softmax_entropy",
        "training.cycle_steps": 2,
        "loop.cycles": 1,
        "oracle.name": "folder",
    }
    data, workdir = without_labels(), folder / "run"

    def start():
        oracle = make_oracle(small.configure(changes), data, workdir)
        context = small.flat_context(
            changes, jax.device_count(), base, dataset=data, oracle=oracle
        )
        try:
            ended = run.run_one(context, workdir, Screen(io.StringIO()))
        except LabelsError as error:
            ended = error
        return type(ended).__name__

    ways = [start()]
    if hosts.lead():
        bad = annotator.bring(workdir, "bad.json", "{}")
    hosts.barrier("spoilt")
    ways.append(start())
    if hosts.lead():
        bad.unlink()
        entries = annotator.handed_out(workdir, 0)
        found = annotator.labelled(entries, small.dataset().truth)
        annotator.bring(workdir, *annotator.as_coco(found))
    hosts.barrier("labelled")
    ways.append(start())
    selected = records.read_arrays(workdir, 0)["selected"]
    taken = read_answers(taken_in(workdir, 0) / ANSWERS).labels["joints"]
    last = records.read_cycles(workdir)[-1]
    return {
        "ended": small.np.array(ways),
        "selected": selected,
        "joints": small.np.nan_to_num(taken),
        "labelled": small.np.int64(last["num_labelled"]),
        "test_loss": small.np.float64(last["metrics"]["test_loss"]),
    }


TASKS = {f.__name__: f for f in (scores, training, companions, disagree, memory)}
IN_A_FOLDER = {"people": people}  # these are given one, the same for all hosts


def main(task, out, port, count, host, devices):
    """Join, work, and write."""
    jax.config.update("jax_num_cpu_devices", int(devices))
    jax.config.update("jax_disable_most_optimizations", True)
    from jalpose.runtime import hosts

    hosts.join(hosts.Address(f"127.0.0.1:{port}", int(count), int(host)), JOIN_SECONDS)
    from tests.support import small

    base = small.flat_variables()
    if task in IN_A_FOLDER:
        found = IN_A_FOLDER[task](base, Path(out).parent)
    else:
        found = TASKS[task](base)
    if hosts.lead():
        small.np.savez(out, **found)
    hosts.barrier("end")


if __name__ == "__main__":
    main(*sys.argv[1:])
