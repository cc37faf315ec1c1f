"""The active-learning loop as data: a state, and one bounded piece of work.

`advance(state, problem)` is pure given the problem: no files, no clock, no screen.
Applied again and again it trains, evaluates, scores, asks for labels, and trains
again. Whoever calls it may save the state between two calls; started again from a
saved state it does what it would have done.
"""

import dataclasses
from typing import Any

import numpy as np

from jalpose import rng
from jalpose.acquisition.probe import Journal, Paused
from jalpose.problem import Problem
from jalpose.training import TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """In a training, or at its end; the data position is `train.step` batches."""

    train: TrainState
    total: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scoring:
    """Scoring the pool with a trained network; the journal holds finished blocks."""

    variables: Any
    journal: Journal


@dataclasses.dataclass(frozen=True, kw_only=True)
class AwaitingLabels:
    """Examples are chosen; their labels are not there yet."""

    variables: Any
    chosen: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Done:
    """All cycles are finished."""

    variables: Any


Phase = Training | Scoring | AwaitingLabels | Done


@dataclasses.dataclass(frozen=True, kw_only=True)
class CycleState:
    """Where a run is.

    Attributes:
      cycle: acquisitions finished; 0 while the base model is trained and used.
      labelled: int64, example ids in the order they were labelled.
      phase: what is under way.
    """

    cycle: int
    labelled: np.ndarray
    phase: Phase


@dataclasses.dataclass(frozen=True, kw_only=True)
class Event:
    """What one piece of work brought, for records and screen.

    Attributes:
      kind: steps | trained | scoring | selected | labelled | waiting | done.
      cycle: in which it happened.
      values: numbers, by name.
      arrays: arrays for the cycle's record, by name.
      variables: of a model that was just finished (kind trained), else None.
    """

    kind: str
    cycle: int
    values: dict[str, Any] = dataclasses.field(default_factory=dict)
    arrays: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    variables: Any = None


def start(problem: Problem) -> CycleState:
    """The state a run begins in: training the base model, or holding a given one."""
    if problem.base is None:
        phase = Training(train=problem.new_train_state(0), total=problem.total_steps(0))
    else:
        phase = Training(train=problem.trainer.restart(problem.base), total=0)
    return CycleState(cycle=0, labelled=problem.dataset.initial, phase=phase)


def advance(state: CycleState, problem: Problem) -> tuple[CycleState, Event]:
    """Do one bounded piece of work.

    A piece is: some training steps up to the next report or held-out evaluation; the
    evaluation of a finished model; some blocks of scoring; the arrival of labels.

    The buffers of a `Training` state are given away: the old state is spent.
    """
    phase = state.phase
    if isinstance(phase, Training):
        if int(phase.train.step) < phase.total:
            return _train(state, phase, problem)
        return _finish_training(state, phase, problem)
    if isinstance(phase, Scoring):
        return _score(state, phase, problem)
    if isinstance(phase, AwaitingLabels):
        return _take_labels(state, phase, problem)
    return state, Event(kind="done", cycle=state.cycle)


def _train(state, phase: Training, problem: Problem):
    step, total = int(phase.train.step), phase.total
    interval = problem.heldout_interval(state.cycle)
    report = problem.config.training.report_steps
    stop = min(total, (step // report + 1) * report, (step // interval + 1) * interval)
    train, history = problem.train_steps(
        phase.train, state.labelled, state.cycle, stop - step, total
    )
    if not np.isfinite(history).all():
        raise FloatingPointError(
            f"the training loss of cycle {state.cycle} became nan or infinite within "
            f"steps {step + 1} to {stop}: lower training.learning_rate or set "
            "training.clip_norm"
        )
    values = {"step": stop, "total": total, "loss": float(history.mean())}
    if stop % interval == 0 or stop == total:
        loss = problem.heldout_loss(train.variables, state.labelled)
        train = problem.trainer.observe(train, loss)
        values["heldout_loss"] = loss
        values["learning_rate_scale"] = float(train.plateau.scale)
    new = dataclasses.replace(state, phase=Training(train=train, total=total))
    return new, Event(kind="steps", cycle=state.cycle, values=values)


def _finish_training(state, phase: Training, problem: Problem):
    variables = problem.trainer.chosen(phase.train)
    metrics, arrays = problem.evaluate(variables)
    last = state.cycle >= problem.config.loop.cycles
    following: Phase = (
        Done(variables=variables) if last else Scoring(variables=variables, journal={})
    )
    event = Event(
        kind="trained",
        cycle=state.cycle,
        values={"metrics": metrics, "num_labelled": len(state.labelled)},
        arrays=arrays,
        variables=variables,
    )
    return dataclasses.replace(state, phase=following), event


def _score(state, phase: Scoring, problem: Problem):
    acquisition = problem.config.acquisition
    ids = problem.unlabelled(state.labelled, state.cycle)
    probe = problem.probe(phase.variables, phase.journal)
    key = rng.stream(problem.config.seed, "acquire", state.cycle)
    try:
        described = probe.describe(ids)
        selection = problem.method.acquire(
            key,
            probe,
            problem.labelled_set(state.labelled),
            ids,
            acquisition.budget,
            **problem.method_options(acquisition.method),
        )
    except Paused:
        scoring = Scoring(variables=phase.variables, journal=probe.journal)
        what, done, total = probe.progress
        return dataclasses.replace(state, phase=scoring), Event(
            kind="scoring",
            cycle=state.cycle,
            values={"pass": what, "done": done, "total": total},
        )
    arrays = {
        "ids": ids,
        "scores": selection.scores,
        "selected": selection.indices,
        "embeddings": described["embedding"],
        "joints": problem.in_image(ids, described["joints"]).astype(np.float32),
        "peaks": described["peaks"],
        "true_losses": described["loss"],
        **selection.explanation,
    }
    event = Event(
        kind="selected",
        cycle=state.cycle,
        values={
            "method": acquisition.method,
            "engine": acquisition.engine if problem.method.uses_engine else None,
            "budget": acquisition.budget,
            "num_scored": len(ids),
            "peak_bytes": problem.passes.peak_bytes,
            "microbatch": acquisition.microbatch or problem.passes.microbatch,
            **selection.summary,
        },
        arrays=arrays,
    )
    awaiting = AwaitingLabels(variables=phase.variables, chosen=selection.indices)
    return dataclasses.replace(state, phase=awaiting), event


def _take_labels(state, phase: AwaitingLabels, problem: Problem):
    if not problem.has_labels(phase.chosen):
        return state, Event(
            kind="waiting", cycle=state.cycle, values={"num": len(phase.chosen)}
        )
    cycle = state.cycle + 1
    if problem.config.training.start == "fresh":
        train = problem.new_train_state(cycle)
    else:
        train = problem.trainer.restart(phase.variables)
    new = CycleState(
        cycle=cycle,
        labelled=np.concatenate([state.labelled, phase.chosen]),
        phase=Training(train=train, total=problem.total_steps(cycle)),
    )
    return new, Event(kind="labelled", cycle=cycle, values={"num": len(phase.chosen)})
