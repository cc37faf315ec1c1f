"""The active-learning loop as data: a state, and one bounded piece of work.

`advance(state, problem)` is pure given the problem: no files, no clock, no screen; but
for the journal, which the problem may keep on disk as a cache of what it would find.
Applied again and again it trains, evaluates, scores, asks for labels, and trains
again. Whoever calls it may save the state between two calls; started again from a
saved state it does what it would have done.
"""

import dataclasses
from typing import Any

import numpy as np

from jalpose.loop.context import Problem
from jalpose.runtime import random_streams
from jalpose.scoring.probe import Paused
from jalpose.settings.keys import seed_of
from jalpose.storage.journal import Journal
from jalpose.training.trainer import TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """In one of a cycle's trainings, or at its end.

    Attributes:
      train: the data position is `train.step` batches.
      stage: which of `problem.stages.of(cycle)`.
      variables: what the stages before it left; {} in the first.
    """

    train: TrainState
    stage: int = 0
    variables: Any = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scoring:
    """Scoring the pool with a trained network; the journal holds finished blocks."""

    variables: Any
    journal: Journal


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measuring:
    """Examples are chosen; measuring the choice by labels the method did not see.

    Attributes:
      variables: of the network that chose.
      journal: of the passes, those of the scoring too.
      chosen: int64 [budget], example ids.
      scores: float32 [M], of all that were scored.
    """

    variables: Any
    journal: Journal
    chosen: np.ndarray
    scores: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class AwaitingLabels:
    """Examples are chosen; their labels are not there yet."""

    variables: Any
    chosen: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Done:
    """All cycles are finished."""

    variables: Any


Phase = Training | Scoring | Measuring | AwaitingLabels | Done


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
      kind: steps | stage | trained | scoring | selected | measuring | measured |
        labelled | waiting | done.
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
    first = problem.stages.of(0)[0]
    phase = Training(train=problem.stages.begin(0, first))
    return CycleState(cycle=0, labelled=problem.dataset.initial, phase=phase)


def advance(state: CycleState, problem: Problem) -> tuple[CycleState, Event]:
    """Do one bounded piece of work.

    A piece is: some training steps up to the next report or held-out evaluation; the
    evaluation of a finished model; some blocks of scoring or measuring; the arrival
    of labels.

    The buffers of a `Training` state are given away: the old state is spent.
    """
    phase = state.phase
    if isinstance(phase, Training):
        stages = problem.stages.of(state.cycle)
        if int(phase.train.step) < stages[phase.stage].steps:
            return _train(state, phase, problem)
        if phase.stage + 1 < len(stages):
            return _next_stage(state, phase, problem)
        return _finish_training(state, phase, problem)
    if isinstance(phase, Scoring):
        return _score(state, phase, problem)
    if isinstance(phase, Measuring):
        return _measure(state, phase, problem)
    if isinstance(phase, AwaitingLabels):
        return _take_labels(state, phase, problem)
    return state, Event(kind="done", cycle=state.cycle)


def _train(state, phase: Training, problem: Problem):
    stages, training = problem.stages, problem.config.training
    stage = stages.of(state.cycle)[phase.stage]
    step, total = int(phase.train.step), stage.steps
    interval = stages.heldout_interval(state.cycle)
    report = training.report_steps
    stop = min(total, (step // report + 1) * report, (step // interval + 1) * interval)
    train, history = stages.advance(
        phase.train, state.labelled, state.cycle, stage, stop - step
    )
    for name, values in history.items():
        if not np.isfinite(values).all():
            raise FloatingPointError(
                f"the {name} of cycle {state.cycle}, training of {stage.name}, became "
                f"nan or infinite within steps {step + 1} to {stop}: lower "
                "training.learning_rate or set training.clip_norm"
            )
    values = {"stage": stage.name, "step": stop, "total": total}
    values |= {name: float(found.mean()) for name, found in history.items()}
    # A head alone has no best: its network does not move.
    if stage.kind != "head" and (stop % interval == 0 or stop == total):
        loss = stages.heldout_loss(train.variables, state.labelled)
        train = problem.trainer.observe(train, loss)
        values["heldout_loss"] = loss
        values["learning_rate_scale"] = float(train.plateau.scale)
    new = dataclasses.replace(state, phase=dataclasses.replace(phase, train=train))
    return new, Event(kind="steps", cycle=state.cycle, values=values)


def _variables_after(state, phase: Training, problem: Problem):
    stage = problem.stages.of(state.cycle)[phase.stage]
    return problem.stages.finish(stage, phase.train, phase.variables)


def _next_stage(state, phase: Training, problem: Problem):
    variables = _variables_after(state, phase, problem)
    number = phase.stage + 1
    stage = problem.stages.of(state.cycle)[number]
    train = problem.stages.begin(state.cycle, stage, variables)
    new = Training(train=train, stage=number, variables=variables)
    event = Event(kind="stage", cycle=state.cycle, values={"stage": stage.name})
    return dataclasses.replace(state, phase=new), event


def _finish_training(state, phase: Training, problem: Problem):
    variables = _variables_after(state, phase, problem)
    metrics, arrays = problem.evaluate(variables)
    problem.passes.peak_bytes = 0  # what follows is the acquisition's
    last = state.cycle >= problem.config.loop.cycles
    following: Phase = Done(variables=variables)
    if not last:
        journal = problem.journal(state.cycle, state.labelled, variables)
        following = Scoring(variables=variables, journal=journal)
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
    seed = seed_of(problem.config, "acquire")
    key = random_streams.stream(seed, "acquire", state.cycle)
    try:
        selection = problem.method.acquire(
            key,
            probe,
            problem.labelled_set(state.labelled),
            ids,
            acquisition.budget,
            **problem.method_options(acquisition.method),
        )
    except Paused:
        return _paused(state, probe)
    event = Event(
        kind="selected",
        cycle=state.cycle,
        values={
            "method": acquisition.method,
            "budget": acquisition.budget,
            "num_scored": len(ids),
            "peak_bytes": problem.passes.peak_bytes,
            **problem.engine_record(),
            **selection.summary,
        },
        arrays={
            "ids": ids,
            "scores": selection.scores,
            "selected": selection.indices,
            **selection.explanation,
        },
    )
    measuring = Measuring(
        variables=phase.variables,
        journal=probe.journal,
        chosen=selection.indices,
        scores=selection.scores,
    )
    return dataclasses.replace(state, phase=measuring), event


def _measure(state, phase: Measuring, problem: Problem):
    ids = problem.unlabelled(state.labelled, state.cycle)
    probe = problem.probe(phase.variables, phase.journal)
    try:
        values, arrays = problem.judge.measure(
            probe, problem.labelled_set(ids), phase.chosen, phase.scores
        )
        arrays |= problem.judge.illustrate(
            probe, state.labelled, ids, phase.scores, problem.config.output.images
        )
    except Paused:
        return _paused(state, probe)
    event = Event(kind="measured", cycle=state.cycle, values=values, arrays=arrays)
    awaiting = AwaitingLabels(variables=phase.variables, chosen=phase.chosen)
    return dataclasses.replace(state, phase=awaiting), event


def _paused(state, probe):
    kind = "scoring" if isinstance(state.phase, Scoring) else "measuring"
    phase = dataclasses.replace(state.phase, journal=probe.journal)
    what, done, total = probe.progress
    values = {"pass": what, "done": done, "total": total}
    return dataclasses.replace(state, phase=phase), Event(
        kind=kind, cycle=state.cycle, values=values
    )


def _take_labels(state, phase: AwaitingLabels, problem: Problem):
    if not problem.has_labels(phase.chosen):
        return state, Event(
            kind="waiting", cycle=state.cycle, values={"num": len(phase.chosen)}
        )
    cycle = state.cycle + 1
    first = problem.stages.of(cycle)[0]
    train = problem.stages.begin(cycle, first, phase.variables)
    new = CycleState(
        cycle=cycle,
        labelled=np.concatenate([state.labelled, phase.chosen]),
        phase=Training(train=train),
    )
    return new, Event(kind="labelled", cycle=cycle, values={"num": len(phase.chosen)})
