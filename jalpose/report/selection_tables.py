"""What methods chose and what it cost: overlap, time, memory, and scores of parts."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from jalpose.report.gather import Gathered, Run
from jalpose.report.grid import score_grid, summary
from jalpose.report.tables import Column
from jalpose.report.text_formats import MeanSd, Table, spread
from jalpose.storage import cycles, records

MOST_PARTS = 120  # of which every one has a row
ENDS = 20  # rows of each end, of more parts

# Overlap of selections


def jaccard(first: set[int], second: set[int]) -> float:
    """Size of what both hold over that of what either holds; 1 for two empty sets."""
    either = len(first | second)
    return len(first & second) / either if either else 1.0


def share_in_common(first: set[int], second: set[int]) -> float:
    """Share of the smaller set's members that the other holds too; 1 of none."""
    smaller = min(len(first), len(second))
    return len(first & second) / smaller if smaller else 1.0


def overlap_table(gathered: Gathered) -> Table:
    """Overlap of the selections of every two methods, with the same seed, by cycle."""
    selections, damaged = _selections(gathered)
    last = max((cycle for _, _, cycle in selections), default=-1)
    rows = []
    for cycle in range(last + 1):
        for first, second in itertools.combinations(gathered.methods, 2):
            jaccards, shares, so_far = [], [], []
            for seed in gathered.seeds:
                a = selections.get((first, seed, cycle))
                b = selections.get((second, seed, cycle))
                if a is None or b is None:
                    continue
                jaccards.append(jaccard(a, b))
                shares.append(share_in_common(a, b))
                all_a, all_b = (
                    _picked_until(selections, method, seed, cycle)
                    for method in (first, second)
                )
                if all_a is not None and all_b is not None:
                    so_far.append(share_in_common(all_a, all_b))
            if jaccards:
                rows.append(
                    {
                        "cycle": cycle,
                        "first": first,
                        "second": second,
                        "runs": len(jaccards),
                        "jaccard": summary(np.array(jaccards)),
                        "share": summary(np.array(shares)),
                        "so_far": summary(np.array(so_far)),
                    }
                )
    return Table(
        "selection_overlap",
        "Overlap of the selections of two methods with the same seed",
        (
            Column("cycle"),
            Column("first", heading="method"),
            Column("second", heading="and"),
            Column("runs"),
            Column("jaccard", ".3f", "Jaccard"),
            Column("share", ".3f", "share in common"),
            Column("so_far", ".3f", "share of all so far"),
        ),
        tuple(rows),
        (
            "Jaccard: chosen by both over chosen by either. Share in common: of one "
            "method's choice, chosen by the other too in that cycle; of all so far: "
            "the same of all choices up to that cycle. From cycle 1 on what is left to "
            "choose from differs.",
            *_chance_note(gathered),
            *damaged,
        ),
    )


def overlap_matrix(gathered: Gathered, cycle: int = 0) -> Table:
    """Mean share in common of every two methods in one cycle, as a matrix."""
    selections, damaged = _selections(gathered)
    methods = [m for m in gathered.methods if any(k[0] == m for k in selections)]
    rows = []
    for first in methods:
        row: dict = {"method": first}
        for second in methods:
            shares = [
                share_in_common(
                    selections[first, s, cycle], selections[second, s, cycle]
                )
                for s in gathered.seeds
                if {(first, s, cycle), (second, s, cycle)} <= selections.keys()
            ]
            row[second] = float(np.mean(shares)) if shares else None
        rows.append(row)
    return Table(
        f"selection_overlap_{cycle}",
        f"Share of the selection of cycle {cycle} that two methods have in common, "
        "mean over seeds",
        (Column("method"), *(Column(name, ".2f") for name in methods)),
        tuple(rows),
        (*_chance_note(gathered), *damaged),
    )


_Selections = Mapping[tuple[str, int, int], set[int]]


def _selections(gathered: Gathered) -> tuple[_Selections, list[str]]:
    """Ids chosen by method, seed and cycle; sentences about what cannot be read."""
    found, damaged = {}, []
    for run in gathered.runs:
        for record in run.cycles:
            if not cycles.chose(record):
                continue
            try:
                rows = run.selection(record["cycle"])
            except records.WorkdirError as error:
                damaged.append(f"{error}: left out.")
                continue
            if rows:  # a control chooses nothing
                key = run.method, run.seed, record["cycle"]
                found[key] = {row["id"] for row in rows}
    return found, damaged


def _picked_until(
    selections: _Selections, method: str, seed: int, cycle: int
) -> set[int] | None:
    keys = [(method, seed, c) for c in range(cycle + 1)]
    if not all(key in selections for key in keys):
        return None
    return set().union(*(selections[key] for key in keys))


def _chance_note(gathered: Gathered) -> list[str]:
    """What two selections at random have in common in cycle 0."""
    chances = set()
    for run in gathered.runs:
        chosen = cycles.acquisition(run.record(0) or {})
        if chosen.get("num_scored"):
            chances.add(chosen["budget"] / chosen["num_scored"])
    if len(chances) != 1:
        return []
    return [f"Two random selections of cycle 0 have {chances.pop():.3f} in common."]


# Parts, cost


def parts_table(gathered: Gathered) -> Table:
    """Score of each part at the last budget, of the methods that have reached it.

    A part is a joint, a class, ...; without scores of parts there are no rows. Of very
    many parts the ends are shown, by their means over all runs.
    """
    grid, scoring = score_grid(gathered), gathered.scoring
    cycle, part = len(grid.labelled) - 1, scoring.keys.part
    there = {
        m: [record for r in gathered.by(m) if (record := r.record(cycle))]
        for m in grid.methods
    }
    methods = [method for method, found in there.items() if found]
    names: dict[str, None] = {}
    for found in there.values():
        for record in found:
            names |= dict.fromkeys(scoring.parts(record))
    rows: list[dict] = []
    for name in names:
        row: dict = {part: name}
        for method in methods:
            values = [scoring.parts(record).get(name) for record in there[method]]
            row[method] = _summary([v for v in values if v is not None])
        rows.append(row)
    notes = []
    if len(rows) > MOST_PARTS:
        notes = [
            f"The lowest {ENDS} and the highest {ENDS} of {len(rows)}; all are in each "
            "run's cycles.jsonl."
        ]
        rows = _ends(rows, methods)
    if rows:
        whole = {m: summary(grid.of(m)[:, cycle]) for m in methods}
        rows.append({part: "all", **whole})
    counts = ", ".join(f"{method} {len(found)}" for method, found in there.items())
    return Table(
        f"{part}s" if not part.endswith("s") else f"{part}es",
        f"{scoring.in_unit} of each {part} with {grid.labelled[cycle]} "
        f"labelled images{spread(rows)}",
        (Column(part), *(Column(name, scoring.digits(1)) for name in methods)),
        tuple(rows),
        (f"Runs: {counts}.", *notes),
    )


def _ends(rows: list[dict], methods: list[str]) -> list[dict]:
    """The parts of the lowest and of the highest means, lowest first."""
    known = [
        (float(np.mean([row[m].mean for m in methods if row[m] is not None])), place)
        for place, row in enumerate(rows)
        if any(row[m] is not None for m in methods)
    ]
    order = [place for _, place in sorted(known)]
    return [rows[place] for place in (*order[:ENDS], *order[-ENDS:])]


def cost_table(gathered: Gathered) -> Table:
    """Seconds and memory of the acquisitions, and seconds of training a cycle."""
    rows = []
    for method in gathered.methods:
        runs = gathered.by(method)
        taken = [cycles.choices(run.cycles) for run in runs]
        first = [run[0]["seconds"] for run in taken if run]
        later = [np.mean([a["seconds"] for a in run[1:]]) for run in taken if run[1:]]
        peaks = [cycles.peak_mib(a) for run in taken for a in run]
        engines = {a["engine"] for run in taken for a in run if a.get("engine")}
        training = [_mean_training(run) for run in runs]
        rows.append(
            {
                "method": method,
                "runs": len(runs),
                "first": _summary(first),
                "later": _summary(later),
                "peak": max(peaks, default=None),
                "engine": ", ".join(sorted(engines)) or None,
                "training": _summary([t for t in training if t is not None]),
            }
        )
    kinds = {str((r.about.get("device") or {}).get("kind")) for r in gathered.runs}
    notes = [
        "Acquisition seconds include compilation, which the first of a process pays "
        "for. Peak: of the largest pass of any acquisition, on one device, by the "
        "compiler's account. Training: of a cycle after the base model, with its test. "
        f"Devices: {_list(kinds)}."
    ]
    return Table(
        "cost",
        f"Time and memory of choosing{spread(rows)}",
        (
            Column("method"),
            Column("runs"),
            Column("first", ".2f", "first acquisition s"),
            Column("later", ".2f", "later acquisitions s"),
            Column("peak", ".0f", "peak MiB"),
            Column("engine"),
            Column("training", ".1f", "training s"),
        ),
        tuple(rows),
        tuple(notes),
    )


def _mean_training(run: Run) -> float | None:
    later = [cycles.training_seconds(r) for r in run.cycles if r["cycle"] > 0]
    known = [seconds for seconds in later if seconds is not None]
    return float(np.mean(known)) if known else None


def _summary(values: Sequence[float]) -> MeanSd | None:
    return summary(np.array(values, np.float64))


def _list(names: set[str]) -> str:
    return ", ".join(sorted(names))
