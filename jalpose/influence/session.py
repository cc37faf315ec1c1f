"""Bounds of a finished run from end to end: load, solve, score, write, show."""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jalpose.acquisition.entropy_gradnorm import entropy_loss
from jalpose.acquisition.parts import gradnorm
from jalpose.data import pipeline
from jalpose.influence import chain, products
from jalpose.influence.chain import Scores
from jalpose.influence.conjugate_gradients import CurvatureError, inner, norm, solve
from jalpose.influence.options import FOLDER, Options
from jalpose.influence.products import Block
from jalpose.loop import compatibility, configs, run, saved_models
from jalpose.loop.context import RunContext, make_context, options_for
from jalpose.loop.finished import free_folder, refuse_another_model, state_of
from jalpose.loop.programs import Programs
from jalpose.report import bounds_plots, bounds_tables
from jalpose.runtime import provenance, random_streams, sharding
from jalpose.runtime.screen import Screen
from jalpose.runtime.throughput import Meter
from jalpose.scoring.passes import Examples, collect
from jalpose.settings.checks import ConfigError
from jalpose.settings.differences import plain
from jalpose.settings.keys import seed_of
from jalpose.storage import locks, records
from jalpose.storage.journal import Journal
from jalpose.tasks.task import lacking
from jalpose.training.trainer import network_of, scale_images

LABELS, ENTROPY = "labels", "entropy"  # losses: of the true labels, of the posterior


def bounds(
    config: ConfigDict,
    workdir: str,
    options: Options,
    screen: Screen | None = None,
    programs: Programs | None = None,
    **given,
) -> Path:
    """Take the bounds of the run in `workdir`: the folder of the results.

    The curvature H is always the mean over what the next network was trained on, of the
    loss it was trained by, since that is what its parameters minimise; the gradients
    are of the labels' loss and, where the task has a posterior, of its entropy, which
    is the expected loss of Eq. 6 too (see `acquisition.expected_gradnorm`). The paper
    says that all losses of its chain are the loss without labels; the entropy's own
    Hessian is not positive definite, as Eq. 4 assumes.

    Args:
      config: of the run.
      workdir: of the run.
      options: of the bounds.
      screen: for progress and the table; None: the standard output.
      programs: what is compiled already; None: nothing, for all devices.
      given: see `make_context`: dataset (else of the config) and network.

    Raises:
      ConfigError: an option or value is not allowed, the run's config is another, it
        has no two models one after the other, or the damping is too small.
      WorkdirError: nothing can be written, or the run's records are damaged.
      CheckpointError: the run has no such model.
      DataError: files are missing or damaged.
      FloatingPointError: a gradient or product is not finite.
    """
    screen = screen or Screen()
    options.check()
    configs.check(config)
    refuse_another_model(config, workdir)
    wanted = cycles_of(workdir, options.cycles)
    out = free_folder(Path(options.out or Path(workdir) / FOLDER))
    records.check_workdir(out)
    with locks.alone_in(out, screen.line):
        return _bounds_into(
            out, config, workdir, wanted, options, screen, programs, **given
        )


def _bounds_into(
    out, config, workdir, wanted, options, screen, programs, **given
) -> Path:
    """Take the bounds of the cycles `wanted`."""
    ours = _without_method(config)
    dataset = given.pop("dataset", None) or run.load_dataset(ours, screen)
    compatibility.refuse_model_of_other_data(workdir, dataset, "--workdir")
    programs = programs or Programs(sharding.make_mesh())
    context = make_context(ours, dataset, programs, **given)
    found: list[dict] = []
    arrays: dict[str, np.ndarray] = {}
    for cycle in wanted:
        record, scores = _of_cycle(context, workdir, cycle, options, screen)
        found.append(record)
        arrays |= {f"cycle_{cycle:02d}/{name}": v for name, v in scores.items()}
    screen.end()
    record = {
        "workdir": str(workdir),
        "method": config.acquisition.method,
        "options": options.asdict(),
        "cycles": found,
        **provenance.describe(plain(config)),
    }
    records.write_npz(out / "scores.npz", arrays)
    text = bounds_tables.text(record)
    records.atomic_write_text(out / "table.txt", text)
    bounds_plots.plot_chain(out / "bounds.png", record)
    # Last: where it is, everything is.
    records.write_json(out / "bounds.json", record)
    screen.line(text)
    screen.line(f"table, record, arrays and plot: {out}")
    return out


def cycles_of(workdir, asked: Sequence[int]) -> list[int]:
    """The cycles asked for, or all, whose next model is there too.

    Raises:
      ConfigError: there is none, or one asked for is not among them.
    """
    there = set(saved_models.cycles(workdir))
    possible = sorted(cycle for cycle in there if cycle + 1 in there)
    if not possible:
        raise ConfigError(
            f"{workdir} has no two models one after the other: bounds need the network "
            "that chose and the next; let the run finish a cycle"
        )
    strange = sorted(set(asked) - set(possible))
    if strange:
        raise ConfigError(
            f"--cycles: {', '.join(map(str, strange))}: {workdir} has the models of "
            f"these cycles and of the next: {', '.join(map(str, possible))}"
        )
    return sorted(set(asked)) or possible


def _without_method(config: ConfigDict) -> ConfigDict:
    """The config with nothing in it that only matters to a run."""
    ours = ConfigDict(config.to_dict())
    ours.base, ours.acquisition.method = "", "random"
    ours.acquisition.diverse = ""
    ours.loop.cycles, ours.loop.compare = 0, ()
    return ours


def losses_of(context: RunContext) -> dict[str, Any]:
    """Losses (prediction, target) -> scalar by name; of the entropy's no target."""
    task, found = context.task, {LABELS: context.task.loss}
    if not lacking(task, ("posterior",)):
        options = options_for(context.config, "entropy_gradnorm")
        posterior, temperature = options["posterior"], options["temperature"]
        gradnorm.check_posterior("acquisition.entropy_gradnorm", posterior, task)
        found[ENTROPY] = entropy_loss(task, posterior, temperature)
    return found


def _of_cycle(
    context: RunContext, workdir, cycle: int, options: Options, screen: Screen
):
    """Record and arrays of the bounds of one cycle."""
    mesh, dataset = context.passes.mesh, context.dataset
    before, after = (
        sharding.replicate(mesh, network_of(saved_models.load_model(workdir, number)))
        for number in (cycle, cycle + 1)
    )
    state, following = (state_of(dataset, workdir, c) for c in (cycle, cycle + 1))
    scored = context.unlabelled(state.taken, cycle)
    ids = scored
    if 0 < options.images < len(scored):
        ids = context.unlabelled(state.taken, cycle, options.images)
    chosen = following.labelled[len(state.labelled) :]
    # Of some of the pool the same share is chosen.
    count = max(1, round(len(chosen) * len(ids) / len(scored)))
    labelled = context.labelled_set(following)
    trained = labelled.ids[~labelled.held_out & labelled.known]
    if 0 < options.training_images < len(trained):
        seed = seed_of(context.config, "order")
        own = random_streams.stream_seed(seed, "curvature", cycle)
        draws = np.random.default_rng(own)
        trained = np.sort(draws.choice(trained, options.training_images, replace=False))
    test = dataset.test
    if 0 < options.test_images < len(test):
        rows = np.linspace(0, len(test) - 1, options.test_images).round().astype(int)
        test = test[rows]
    kept = _blocks(context, trained)
    by_loss, found = {}, {}
    for name, loss in losses_of(context).items():
        label = f"cycle {cycle} {name}"
        right = _summed(context, loss, name, products.gradient)(
            after, None, _blocks(context, test)
        )
        if not math.isfinite(norm(right)):
            raise FloatingPointError(
                f"the gradient of the {name} loss, summed over the {len(test)} images "
                f"of the test set, is not finite in cycle {cycle + 1}"
            )
        solution, bent = _solve(context, after, kept, len(trained), right, options)(
            lambda step, residual, label=label: screen.progress(
                f"{label} solving", step, options.steps, f"residual {residual:.2g}"
            )
        )
        screen.progress(f"{label} scoring", 0, len(ids))
        scores = Scores(
            along=_along(context, loss, name, after, solution.x, ids),
            next_norms=_norms(context, loss, name, after, ids),
            norms=_norms(context, loss, name, before, ids),
            length=norm(solution.x),
        )
        by_loss[name] = scores
        found[name] = {
            **chain.of_loss(scores, ids, chosen),
            "steps": solution.steps,
            "residual": solution.residual,
            "converged": solution.residual <= options.tolerance,
            "direction_norm": scores.length,
            "curvature": bent,
        }
    record = {
        "cycle": cycle,
        "num_labelled": len(state.labelled),
        "num_images": len(ids),
        "num_scored": len(scored),
        "num_chosen": count,
        "num_trained": len(trained),
        "num_test": len(test),
        "losses": found,
        "overlap": chain.overlaps(by_loss, ids, count) if len(chosen) else None,
    }
    arrays = {"ids": ids, "chosen": chosen}
    for name, scores in by_loss.items():
        arrays[f"{name}/along"] = scores.along
        arrays[f"{name}/next_norms"] = scores.next_norms
        arrays[f"{name}/norms"] = scores.norms
    return record, arrays


def _blocks(context: RunContext, ids: np.ndarray) -> list[Block]:
    """Examples with their labels, on the devices: they are gone through many times."""
    passes, data = context.passes, context.dataset
    size, width = context.config.evaluation.block, context.task.size
    part = sharding.part_of(passes.mesh, size)
    source = Examples(data, context.evaluator.labels_of).source(ids, width)
    found, threads = [], context.config.data.threads
    for count, rows in pipeline.blocks_in_order(
        source, block=part.rows, threads=threads
    ):
        weights = (np.arange(part.rows) < count).astype(np.float32)
        kept = {name: rows[name] for name in ("image", "label")}
        found.append(Block(*sharding.split(passes.mesh, (kept, weights))))
    return found


def _apply(model):
    """(variables, rows) -> predictions [block, ...]."""

    def apply_fn(variables, rows):
        return model.apply(variables, scale_images(rows["image"])).prediction

    return apply_fn


def _of_rows(context: RunContext, loss, name: str):
    """(predictions, rows) -> losses [block]."""
    if name == ENTROPY:
        return lambda outputs, rows: jax.vmap(lambda one: loss(one, None))(outputs)

    def losses(outputs, rows):
        targets = jax.vmap(context.task.target)(rows["label"])
        return jax.vmap(loss)(outputs, targets)

    return losses


def _summed(context: RunContext, loss, name: str, kind):
    """One of `products`, of a loss, compiled once."""
    return context.passes.once(
        ("bounds", loss, kind),
        lambda: products.summed(
            context.passes.mesh,
            _apply(context.model),
            _of_rows(context, loss, name),
            kind,
            # Whose convolutions are plain.
            _apply(context.traced_model),
        ),
    )


def _solve(context: RunContext, variables, blocks, count, right, options: Options):
    """What solves (H + damping) v = right: progress -> (solution, v'Hv / v'v)."""
    kind = products.PRODUCTS[options.product]
    bend = _summed(context, context.task.loss, LABELS, kind)

    def curved(direction):
        total = bend(variables, direction, blocks)
        return jax.tree.map(lambda leaf: leaf / count, total)

    def damped(direction):
        found = curved(direction)
        return jax.tree.map(lambda a, b: a + options.damping * b, found, direction)

    def solved(progress):
        try:
            found = solve(
                damped,
                right,
                tolerance=options.tolerance,
                steps=options.steps,
                progress=progress,
            )
        except CurvatureError as error:
            least = options.damping - error.curvature
            raise ConfigError(
                f"--damping={options.damping}: the {options.product} is not positive "
                f"definite, there is {error}: take more than {least:.3g}, or "
                "--product=gauss_newton"
            ) from error
        length = inner(found.x, found.x)
        bent = inner(found.x, curved(found.x)) / length if length else 0.0
        return found, bent

    return solved


def _along(context: RunContext, loss, name: str, variables, direction, ids):
    """Derivative of each example's loss along a direction, v . g: float32 [M]."""
    fn = context.passes.once(
        ("bounds along", loss),
        lambda: products.along(
            _apply(context.traced_model), _of_rows(context, loss, name)
        ),
    )
    found = collect(
        context.passes.walk(
            fn,
            {"network": variables, "direction": direction},
            Examples(context.dataset, context.evaluator.labels_of),
            ids,
            block=context.config.evaluation.block,
            meter=Meter(),
        )
    )["along"]
    if not np.isfinite(found).all():
        row = int(np.argmin(np.isfinite(found)))
        raise FloatingPointError(
            f"the derivative of the {name} loss of id {ids[row]} is not finite"
        )
    return found


def _norms(context: RunContext, loss, name: str, variables, ids) -> np.ndarray:
    """Gradient norm of each example, exact: float32 [M]."""
    probe = context.probe(variables, Journal(), pieces=sys.maxsize)
    if name == LABELS:
        truth = context.true_labels(ids)
        return np.sqrt(context.evaluator.squared_norms(probe, truth))
    weights = np.broadcast_to(np.float32(1), (len(ids), 1))
    return probe.squared_norms(
        gradnorm.no_target,
        ids,
        weights,
        loss_fn=loss,
        value="norm",
        approximate=False,
    )["expected"]
