"""What of an experiment is finished, under way and to do, and how long that may take.

Read from records and locks alone; nothing here imports JAX.
"""

import statistics
from collections.abc import Sequence

from jalpose.experiments.plan import Plan, Shard, Unit, with_bases
from jalpose.report import tables
from jalpose.runtime.screen import duration
from jalpose.storage import cycles, locks, records


def show(plan: Plan, shard: Shard) -> str:
    """The plan as text: a line a run, and the time that is left of this part."""
    share = plan.share(shard)
    units = with_bases(share)
    spent = {unit: seconds_spent(plan, unit) for unit in with_bases(plan.units)}
    known = known_seconds(plan, spent)
    rows, left, unknown = [], 0.0, []
    for unit in units:
        expected = known.get(unit.name)
        time, state = _duration(spent[unit]), _state(plan, unit)
        if not plan.finished(unit):
            if expected is None:
                unknown.append(unit.name)
                time = "not known"
            else:
                more = max(0.0, expected - spent[unit])
                left += more
                time = f"about {duration(more)} more"
        rows.append({"seed": unit.seed, "run": unit.name, "state": state, "time": time})
    beside = ", and a run on all labels each," if plan.config.experiment.full else ""
    text = (
        f"{plan.config.name}, scale {plan.config.scale}: {len(plan.methods)} methods "
        f"with {len(plan.seeds)} seeds{beside} in {plan.workdir}\n"
    )
    if shard.total > 1:
        text += f"part {shard.number} of {shard.total}: {len(share)} runs\n"
    if rows:
        text += tables.format_table(rows, ("seed", "run", "state", "time"))
    finished = sum(plan.finished(unit) for unit in units)
    text += f"finished: {finished} of {len(units)} runs, base models counted\n"
    if left:
        text += f"left: about {duration(left)}, as the finished ones took\n"
    if unknown:
        names = ", ".join(dict.fromkeys(unknown))
        text += f"nothing is known yet of {names}: none of them is finished\n"
    return text


def seconds_spent(plan: Plan, unit: Unit) -> float:
    """Seconds that the records of a run have, of all its cycles and their parts."""
    found = records.read_cycles(plan.folder(unit))
    return sum(cycles.all_seconds(record) for record in found)


def known_seconds(plan: Plan, spent: dict[Unit, float]) -> dict[str, float]:
    """Median seconds of the finished runs by method, and of base models.

    The median: the first run of all has compiled for the others.
    """
    found: dict[str, list[float]] = {}
    for unit, seconds in spent.items():
        if plan.finished(unit):
            found.setdefault(unit.name, []).append(seconds)
    return {name: statistics.median(values) for name, values in found.items()}


def unfinished(plan: Plan, units: Sequence[Unit]) -> list[str]:
    """A line for each unit that is not finished, with who is at it."""
    lines = []
    for unit in units:
        if not plan.finished(unit):
            lines.append(f"{unit}: {_state(plan, unit)}")
    return lines


def _state(plan: Plan, unit: Unit) -> str:
    if plan.finished(unit):
        return "finished"
    there, total = plan.cycles(unit)
    done = f"{there} of {total} cycles" if unit.chooses else "begun"
    holder = locks.holder(plan.folder(unit))
    if holder is not None:
        return f"{done}, under way in {holder}"
    begun = records.read_config(plan.folder(unit)) is not None
    return done if begun else "to do"


def _duration(seconds: float) -> str:
    return duration(seconds) if seconds else ""
