"""Which groups a method chose from: videos, cameras, folders of a set that has them."""

import numpy as np

from jalpose.report.gather import Gathered, Run
from jalpose.report.grid import summary
from jalpose.report.tables import Column
from jalpose.report.text_formats import Table, spread
from jalpose.storage import cycles

SHOWN = 40  # groups that have a row; all are in the records


def groups_table(gathered: Gathered) -> Table:
    """Share of each group that was chosen in all cycles together, by method.

    Of many groups those with the most examples. Without groups there are
    no rows.
    """
    pools: dict[str, list[int]] = {}
    shares: dict[tuple[str, str], list[float]] = {}
    whole: dict[str, list[float]] = {}
    for run in gathered.runs:
        pool, chosen = _counts(run)
        for name, count in pool.items():
            pools.setdefault(name, []).append(count)
            share = 100 * chosen.get(name, 0) / count
            shares.setdefault((name, run.method), []).append(share)
        if pool:
            share = 100 * sum(chosen.values()) / sum(pool.values())
            whole.setdefault(run.method, []).append(share)
    methods = [method for method in gathered.methods if method in whole]
    order = sorted(pools, key=lambda name: (-np.mean(pools[name]), name))
    rows: list[dict] = [
        {
            "group": name,
            "pool": float(np.mean(pools[name])),
            **{m: summary(np.array(shares.get((name, m), []))) for m in methods},
        }
        for name in order[:SHOWN]
    ]
    if rows:
        counts = [sum(_counts(run)[0].values()) for run in gathered.runs]
        known = [count for count in counts if count]
        of_all = {m: summary(np.array(whole[m])) for m in methods}
        rows.append({"group": "all", "pool": float(np.mean(known)), **of_all})
    notes = [
        "Groups are the videos or sequences that the data set names, else what "
        "data.groups makes of the images' paths."
    ]
    if len(order) > SHOWN:
        notes.append(
            f"The largest {SHOWN} of {len(order)}; all are in each run's cycles.jsonl."
        )
    return Table(
        "groups",
        f"Share of each group that was chosen, percent{spread(rows)}",
        (
            Column("group"),
            Column("pool", ".0f", "in the pool"),
            *(Column(method, ".1f") for method in methods),
        ),
        tuple(rows),
        tuple(notes),
    )


def _counts(run: Run) -> tuple[dict[str, int], dict[str, int]]:
    """Examples of each group in the pool, and of it chosen in all cycles."""
    pool: dict[str, int] = {}
    chosen: dict[str, int] = {}
    for record in run.cycles:
        for name, counts in cycles.groups(record).items():
            pool[name] = counts["pool"]
            chosen[name] = chosen.get(name, 0) + counts["chosen"]
    return pool, chosen
