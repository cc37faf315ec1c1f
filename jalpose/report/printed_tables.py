"""Our values beside those that the papers print, for experiments that are theirs."""

from collections.abc import Mapping
from typing import Any

from jalpose.report import measures, printed, statistics
from jalpose.report.gather import Gathered
from jalpose.report.grid import Grid, make_grid, summary
from jalpose.report.printed import Printed
from jalpose.report.tables import Column
from jalpose.report.text_formats import PValue, Table, counted, p_value
from jalpose.storage import cycles

LEVEL = 0.1  # of significance, of EGL++'s one-tailed test


def printed_tables(gathered: Gathered) -> list[Table]:
    """A table for each that the runs' config names, see `printed.OF_CONFIG`.

    Then those of `printed.BESIDE` whose proposed method is among the runs.
    """
    name = str(gathered.runs[0].config.get("name", ""))
    run = {paper_name(run.config) for run in gathered.runs}
    beside = [one for one in printed.BESIDE.get(name, ()) if one.proposed in run]
    shown = [*printed.OF_CONFIG.get(name, ()), *beside]
    return [_table(gathered, one) for one in shown]


def paper_name(config: Mapping[str, Any]) -> str | None:
    """The papers' name of a run's method; None of what is in neither table."""
    acquisition = config["acquisition"]
    method = acquisition["method"]
    if acquisition.get("diverse"):
        return None
    if method != "learning_loss":
        return {
            "random": "Random",
            "coreset": "Core-set",
            "multipeak_entropy": "Multi-peak",
            "eglpp": "EGL++",
        }.get(method)
    options = acquisition.get("learning_loss") or {}
    named = (str(options.get("objective")), str(options.get("head")))
    return {
        ("margin", "average"): "Learning Loss",
        ("kl", "average"): "LL++",
        ("kl", "conv"): "LL++conv",
    }.get(named)


def _table(gathered: Gathered, table: Printed) -> Table:
    grid, lower_wins = _grid(gathered, table)
    named = {paper_name(run.config): run.method for run in gathered.runs}
    ours = {name: named[name] for name in table.rows if name in named}
    rows: list[dict[str, Any]] = []
    bold = set()
    for stage, heading in enumerate(table.stages):
        cycle = stage if table.selected else stage + 1
        for name, values in table.rows.items():
            row: dict[str, Any] = {"stage": heading, "method": name}
            row["printed"] = values[stage]
            row["printed_p"] = p_value(table.p.get(name, (None,) * 5)[stage])
            if name in ours and stage + 1 < len(grid.labelled):
                row["labelled"] = int(grid.labelled[stage + 1])
                scores = grid.of(ours[name])[:, cycle]
                row["ours"] = summary(scores)
                if name != table.proposed and table.proposed in ours:
                    best = grid.of(ours[table.proposed])[:, cycle]
                    result = statistics.compare(scores, best)
                    row["p"] = p_value(result.greater if lower_wins else result.less)
            for key in ("p", "printed_p"):
                if isinstance(row.get(key), PValue) and row[key] < LEVEL:
                    bold.add((len(rows), key))
            rows.append(row)
    form = ".2f" if table.percent else "!.3f"
    better = "worse scored, so finds more failures" if lower_wins else "better"
    return Table(
        table.name,
        f"{table.title}, ours beside what is printed: mean±standard deviation, and p "
        f"of a one-tailed paired t-test that {table.proposed} is {better}; below "
        f"{LEVEL:g} in bold",
        (
            Column("stage", "", "printed stage"),
            Column("labelled", "d", "labelled, ours"),
            Column("method"),
            Column("ours", form),
            Column("printed", form),
            Column("p", "", "p, ours"),
            Column("printed_p", "", "p, printed"),
        ),
        tuple(rows),
        tuple(_notes(gathered, table, ours)),
        bold=frozenset(bold),
    )


def _grid(gathered: Gathered, table: Printed) -> tuple[Grid, bool]:
    """Ours in the paper's unit, and whether the proposed method is to be the lowest."""
    scoring = gathered.scoring
    if table.selected:
        key = measures.selected_key(scoring.keys)
        return make_grid(gathered, lambda r: cycles.measures(r).get(key)), True
    read = scoring.value if table.percent else scoring.share
    return make_grid(gathered, read), False


def _notes(gathered: Gathered, table: Printed, ours: Mapping[str, str]) -> list[str]:
    notes = []
    unknown = [
        f"{name} at {listed}"
        for name, values in table.rows.items()
        if (listed := ", ".join(_lost(values, table.stages)))
    ]
    if unknown:
        notes.append(
            "Printed, but not in the text that these are taken from: "
            f"{'; '.join(unknown)}."
        )
    absent = [name for name in table.rows if name not in ours]
    if absent:
        notes.append(f"Not among these runs: {', '.join(absent)}.")
    seeds = [len(gathered.by(method)) for method in ours.values()]
    if seeds and min(seeds) < 5:
        notes.append(f"Printed: 5 runs. Ours: {counted(min(seeds), 'run')} a method.")
    notes.append(_of_size(gathered.runs[0].config))
    return notes


def _lost(values, stages) -> list[str]:
    return [s for s, value in zip(stages, values, strict=True) if value is None]


def _of_size(config: Mapping[str, Any]) -> str:
    """What the size of the runs allows to conclude, and what not."""
    data, model = config.get("data") or {}, config.get("model") or {}
    acquisition = config.get("acquisition") or {}
    ours = (data.get("size"), model.get("channels"), acquisition.get("budget"))
    if ours == (256, 256, 1000):
        return (
            "The sizes are the papers'. Their codes choose the best weights and the "
            "learning rate by the test set, which is not done here: differences of a "
            "point have that cause among others."
        )
    subset = acquisition.get("pool_subset")
    of = f"a random {subset:,}" if subset else "the whole pool"
    return (
        f"Ours have crops of {ours[0]} pixels, {ours[1]} channels and {ours[2]} labels "
        f"a cycle out of {of}; the papers' 256, 256 and 1,000 out of all. So neither "
        "the scores nor their differences can be compared, and an order of methods "
        "that is found here, or not found, says nothing of the papers': these rows "
        "show that the protocol runs."
    )
