"""What a run says of itself on the screen, in one place."""

from ml_collections import ConfigDict

from jalpose.loop.events import Event, Passed, StepsTaken
from jalpose.loop.state import AwaitingLabels, CycleState, Measuring, Scoring
from jalpose.tasks.labels import ScoreKeys

# Passes over images by the names they have in the journal.
_PASSES = {
    "describe": "embeddings and outputs",
    "norms": "gradient norms",
    "sketches": "gradients",
    "reduce": "outputs",
}


def begins(config: ConfigDict, workdir) -> str:
    """The first line: what is run, and where."""
    methods = " then ".join((config.acquisition.method, *config.loop.compare))
    return (
        f"{workdir}: {config.name}, {methods}, scale {config.scale}, seed "
        f"{config.seed}, {config.loop.cycles} choices of {config.acquisition.budget}"
    )


def doing(state: CycleState) -> str:
    """What the next piece of work is of."""
    match state.phase:
        case Scoring():
            what = "choosing"
        case Measuring():
            what = "measuring the choice"
        case AwaitingLabels():
            what = "taking labels"
        case _:
            what = "training and testing"
    return f"cycle {state.cycle} {what}"


def passed(event: Passed) -> str:
    """What a pass over images is for."""
    first = event.name.split()[0] if event.name else ""
    name = _PASSES.get(first, event.name)
    purpose = "measuring the choice" if event.measuring else "choosing"
    return f"cycle {event.cycle} {purpose}, {name}"


def chosen(acquisition: dict) -> list[str]:
    """Lines on examples that repeat others, of the record of a choice."""
    lines = []
    skipped = {
        "equal images": acquisition.get("equal_skipped"),
        "near duplicates": acquisition.get("near_skipped"),
    }
    told = [f"{count} {what}" for what, count in skipped.items() if count]
    if told:
        lines.append(f"{' and '.join(told)} of labelled or chosen ones were left out")
    if acquisition.get("equal_chosen"):
        lines.append(
            f"warning: {acquisition['equal_chosen']} of the chosen are images equal to "
            "labelled or chosen ones; acquisition.duplicates=once leaves them out"
        )
    return lines


def measured(measures: dict) -> list[str]:
    """A line where near duplicates were chosen, of the record of the measures."""
    pairs = measures.get("near_duplicates")
    if not pairs:
        return []
    return [
        f"warning: {pairs:.0f} pairs of the chosen are near duplicates; "
        "acquisition.duplicates=skip buys one of each"
    ]


def below_baseline(keys: ScoreKeys, metrics: dict) -> list[str]:
    """A line where the network does no better than what looks at no image."""
    value, base = keys.value_of(metrics), keys.baseline_of(metrics)
    if value is None or base is None:
        return []
    if value != base and (value > base) == keys.higher_is_better:
        return []
    return [
        f"warning: the network is no better than the {keys.baseline_name} ({value:.3g} "
        f"to {base:.3g}), which looks at no image: it has hardly learned, and choices "
        "by it say little. Train longer or look at the data (`python -m jalpose.check`)"
    ]


def piece_after(event: Event) -> str:
    """The kind of the next piece of work where it goes on with this one's, else ""."""
    match event:
        case StepsTaken(stage=stage, step=step, total=total) if step < total:
            return f"steps {stage}"
        case Passed(measuring=measuring, name=name, done=done, total=total):
            kind = "measuring" if measuring else "scoring"
            return f"{kind} {name}" if done < total else ""
    return ""
