"""The active-learning loop as data: one bounded piece of work at a time.

`advance(state, context)` is pure: no files, no clock, no screen, nothing of the context
changes; but for the journal, which may be kept on disk as a cache of what the passes
would find. Applied again and again it trains, evaluates, scores, asks for labels, and
trains again. Whoever calls it may save the state between two calls; started again from
a saved state it does what it would have done.
"""

import dataclasses
import sys

import numpy as np

from jalpose.acquisition.method import Pool
from jalpose.loop import budget
from jalpose.loop.context import RunContext
from jalpose.loop.events import (
    Event,
    Finished,
    LabelsCame,
    Measured,
    Passed,
    Selected,
    StageBegun,
    StepsTaken,
    Trained,
    Waiting,
)
from jalpose.loop.state import (
    AwaitingLabels,
    CycleState,
    Done,
    Measuring,
    Phase,
    Scoring,
    Training,
)
from jalpose.runtime import random_streams
from jalpose.runtime.throughput import Meter
from jalpose.scoring.probe import Paused, Probe
from jalpose.settings.keys import seed_of
from jalpose.storage.journal import Journal
from jalpose.training.plan import COMPANION, FOR_CHOOSING


def start(context: RunContext) -> CycleState:
    """The state a run begins in: training the base model, or holding a given one."""
    first = context.plan.of(0)[0]
    phase = Training(train=context.plan.begin(0, first))
    return CycleState(cycle=0, labelled=context.dataset.initial, phase=phase)


def reopened(state: CycleState, context: RunContext) -> CycleState:
    """A state that goes on where the run was finished and has more cycles now.

    What is trained for choosing alone (members, a companion), and was not in what was
    the last cycle, comes first. Of any other state it is the same.
    """
    if not isinstance(state.phase, Done):
        return state
    variables = state.phase.variables
    following = _after_training(state, variables, context)
    if isinstance(following, Scoring):
        stages = context.plan.of(state.cycle)
        for number, stage in enumerate(stages):
            if stage.kind in FOR_CHOOSING:
                train = context.plan.begin(state.cycle, stage, variables)
                following = Training(train=train, stage=number, variables=variables)
                break
    return dataclasses.replace(state, phase=following)


def advance(state: CycleState, context: RunContext) -> tuple[CycleState, Event]:
    """Do one bounded piece of work.

    A piece is: some training steps up to the next report or held-out evaluation; the
    evaluation of a finished model; some blocks of scoring or measuring; the arrival
    of labels.

    The buffers of a `Training` state are given away: the old state is spent.
    """
    match state.phase:
        case Training() as phase:
            stages = context.plan.of(state.cycle)
            if int(phase.train.step) < stages[phase.stage].steps:
                return _train(state, phase, context)
            if phase.stage + 1 < len(stages):
                return _next_stage(state, phase, context)
            return _finish_training(state, phase, context)
        case Scoring() as phase:
            return _score(state, phase, context)
        case Measuring() as phase:
            return _measure(state, phase, context)
        case AwaitingLabels() as phase:
            return _take_labels(state, phase, context)
        case Done():
            return state, Finished(cycle=state.cycle)


def _train(state, phase: Training, context: RunContext):
    plan, training = context.plan, context.config.training
    stage = plan.of(state.cycle)[phase.stage]
    step, total = int(phase.train.step), stage.steps
    interval = plan.heldout_interval(state.cycle) or total
    report = training.report_steps
    stop = min(total, (step // report + 1) * report, (step // interval + 1) * interval)
    meter, labelled = Meter(), context.labelled_set(state)
    companion = stage.kind == COMPANION
    train, history = plan.advance(
        phase.train,
        labelled,
        state.cycle,
        stage,
        stop - step,
        meter.training,
        variables=phase.variables,
        unlabelled=context.unlabelled(state.taken, state.cycle) if companion else None,
    )
    rate = (
        f"acquisition.{context.config.acquisition.method}" if companion else "training"
    )
    for name, values in history.items():
        if not np.isfinite(values).all():
            raise FloatingPointError(
                f"the {name} of cycle {state.cycle}, training of {stage.name}, became "
                f"nan or infinite within steps {step + 1} to {stop}: lower "
                f"{rate}.learning_rate"
                + ("" if companion else " or set training.clip_norm")
            )
    loss = scale = None
    looks = training.heldout == "tenth" and stage.observed
    if looks and (stop % interval == 0 or stop == total):
        loss = plan.heldout_loss(train.variables, labelled)
        train = context.trainer.observe(train, loss)
        scale = float(train.plateau.scale)
    event = StepsTaken(
        cycle=state.cycle,
        meter=meter,
        stage=stage.name,
        step=stop,
        total=total,
        means={name: float(found.mean()) for name, found in history.items()},
        heldout_loss=loss,
        learning_rate_scale=scale,
    )
    phase = dataclasses.replace(phase, train=train)
    return dataclasses.replace(state, phase=phase), event


def _variables_after(state, phase: Training, context: RunContext):
    stage = context.plan.of(state.cycle)[phase.stage]
    return context.plan.finish(stage, phase.train, phase.variables)


def _next_stage(state, phase: Training, context: RunContext):
    variables = _variables_after(state, phase, context)
    number = phase.stage + 1
    stage = context.plan.of(state.cycle)[number]
    train = context.plan.begin(state.cycle, stage, variables)
    new = Training(train=train, stage=number, variables=variables)
    event = StageBegun(cycle=state.cycle, stage=stage.name)
    return dataclasses.replace(state, phase=new), event


def _finish_training(state, phase: Training, context: RunContext):
    variables, meter = _variables_after(state, phase, context), Meter()
    metrics, arrays = context.evaluator.evaluate(context.passes, variables, meter)
    arrays |= _bought(state, variables, meter, context)
    if context.config.evaluation.train_score:
        metrics |= context.evaluator.evaluate_training(
            context.passes,
            variables,
            meter,
            context.labelled_set(state),
            context.labelled_truth(state),
        )
    if context.config.acquisition.budget_unit == budget.CLICKS:
        metrics["clicks"] = _clicks(state, context)
    following = _after_training(state, variables, context)
    event = Trained(
        cycle=state.cycle,
        meter=meter,
        num_labelled=len(state.labelled),
        metrics=metrics,
        arrays=arrays,
        variables=variables,
    )
    return dataclasses.replace(state, phase=following), event


def _after_training(state, variables, context: RunContext) -> Phase:
    """The phase of a model that is finished: it chooses, or all is done."""
    if state.cycle < context.config.loop.cycles and _chooses(state, context):
        journal = context.journal(state, variables)
        return Scoring(variables=variables, journal=journal)
    return Done(variables=variables)


def _clicks(state: CycleState, context: RunContext) -> int:
    """What all labels have cost: those of the start, and what was bought."""
    labels = context.labels
    if not hasattr(labels, "clicks"):
        return len(state.labelled)
    return int(labels.clicks(context.labelled_truth(state)).sum())


def _chooses(state: CycleState, context: RunContext) -> bool:
    """Is there anything left to choose? Rejected examples may have emptied the pool."""
    images = context.config.acquisition.budget_unit == budget.IMAGES
    if images and not len(state.rejected):  # the budgets of all cycles fit the pool
        return True
    return len(context.unlabelled(state.taken, state.cycle)) > 0


def _bought(state, variables, meter: Meter, context: RunContext) -> dict:
    """Gradient norms of what was bought last, where those before it are recorded."""
    bought = context.bought_last(state)
    # Of a budget of clicks the state does not say how many were bought last.
    known = context.config.acquisition.budget_unit == budget.IMAGES
    wanted = context.config.evaluation.true_norms and context.oracle.simulated and known
    if not wanted or not len(bought.ids):
        return {}
    probe = context.probe(variables, Journal(), meter, pieces=sys.maxsize)
    norms = context.evaluator.squared_norms(probe, bought)
    return {"bought_ids": bought.ids, "bought_squared_norms": norms}


def _score(state, phase: Scoring, context: RunContext):
    acquisition, meter = context.config.acquisition, Meter()
    pool, key = context.pool(state), _key(state, context)
    probe = context.probe(phase.variables, phase.journal, meter)
    try:
        selection = budget.acquire(context, state, key, probe, pool)
    except Paused:
        peak = max(phase.peak_bytes, meter.peak_bytes)
        phase = dataclasses.replace(phase, journal=probe.journal, peak_bytes=peak)
        return dataclasses.replace(state, phase=phase), _passed(state, probe, meter)
    event = Selected(
        cycle=state.cycle,
        meter=meter,
        acquisition={
            "method": acquisition.method,
            "budget": acquisition.budget,
            **_unit(acquisition),
            "num_scored": len(pool.unlabelled),
            "peak_bytes": max(phase.peak_bytes, meter.peak_bytes),
            **context.engine_record(meter),
            **selection.summary,
        },
        arrays={
            "ids": pool.unlabelled,
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


def _unit(acquisition) -> dict:
    """For the record, of a budget that is not in images."""
    if acquisition.budget_unit == budget.IMAGES:
        return {}
    return {"budget_unit": acquisition.budget_unit}


def _measure(state, phase: Measuring, context: RunContext):
    ids, meter = context.unlabelled(state.taken, state.cycle), Meter()
    probe = context.probe(phase.variables, phase.journal, meter)
    evaluator = context.evaluator
    truth = context.true_labels(ids) if context.oracle.simulated else None
    try:
        values, arrays = evaluator.measure(
            probe, ids, phase.chosen, phase.scores, truth
        )
        if context.config.evaluation.test_scores:
            scores = _test_scores(state, phase, probe, context)
            found, more = evaluator.measure_test(probe, scores)
            if "left_out" in values:
                found["left_out"] = [*values["left_out"], *found]
            values, arrays = {**values, **found}, {**arrays, **more}
        arrays |= evaluator.illustrate(
            probe, state.labelled, ids, phase.scores, context.config.output.images
        )
    except Paused:
        phase = dataclasses.replace(phase, journal=probe.journal)
        return dataclasses.replace(state, phase=phase), _passed(state, probe, meter)
    event = Measured(cycle=state.cycle, meter=meter, measures=values, arrays=arrays)
    awaiting = AwaitingLabels(variables=phase.variables, chosen=phase.chosen)
    return dataclasses.replace(state, phase=awaiting), event


def _test_scores(state, phase: Measuring, probe: Probe, context: RunContext):
    """The method's scores of the test set: float32 [T]; None where it gives none.

    By the method's own way, of a choice among the test images that is not taken.
    """
    if not context.oracle.simulated or not np.isfinite(phase.scores).any():
        return None
    test = Pool(context.dataset.test, context.labelled_set(state))
    most = min(context.config.acquisition.budget, len(test.unlabelled))
    key = _key(state, context)
    return context.method.acquire(key, probe, test, most).scores


def _key(state, context: RunContext):
    """The key of the acquisition."""
    seed = seed_of(context.config, "acquire")
    return random_streams.stream(seed, "acquire", state.cycle)


def _passed(state, probe: Probe, meter: Meter) -> Passed:
    name, done, total = probe.progress
    return Passed(
        cycle=state.cycle,
        meter=meter,
        measuring=isinstance(state.phase, Measuring),
        name=name,
        done=done,
        total=total,
    )


def _take_labels(state, phase: AwaitingLabels, context: RunContext):
    asked = len(phase.chosen)
    found = context.oracle.answers(phase.chosen)
    if found is None:
        return state, Waiting(cycle=state.cycle, count=asked)
    cycle, answers = state.cycle + 1, found.labels
    first = context.plan.of(cycle)[0]
    if len(found.ids) == 0:
        answers = state.answers
    elif state.answers:
        answers = {
            name: np.concatenate([values, answers[name]])
            for name, values in state.answers.items()
        }
    new = CycleState(
        cycle=cycle,
        labelled=np.concatenate([state.labelled, found.ids]),
        answers=answers,
        rejected=np.concatenate([state.rejected, found.rejected]),
        phase=Training(train=context.plan.begin(cycle, first, phase.variables)),
    )
    event = LabelsCame(
        cycle=cycle,
        asked=asked,
        count=len(found.ids),
        rejected=len(found.rejected),
    )
    return new, event
