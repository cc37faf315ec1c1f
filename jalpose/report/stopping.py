"""A hint on when to stop, in words and as a table: said, never enforced.

The numbers are in the records (`stopping`), see `jalpose.evaluation.stopping`.
"""

import functools
import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jalpose.report.gather import Gathered
from jalpose.report.grid import make_grid, summary
from jalpose.report.tables import Column
from jalpose.report.text_formats import Table, spread
from jalpose.storage import cycles

_ERRORS = 2.0  # standard errors that a difference is to reach to be told from chance


def told_apart(found: Mapping[str, Any]) -> bool | None:
    """Could this test set tell the next gain from chance? None where nobody knows."""
    error = found.get("error")
    return None if error is None else found["expected"] > _ERRORS * error


def hint(found: Mapping[str, Any] | None, loss: float) -> str:
    """A line on what the next labels are expected to gain; "" where nothing is known.

    Args:
      found: the record's `stopping`.
      loss: of the test set, that the gains are shares of.
    """
    if not found or not loss > 0:
        return ""
    gained, ahead = (found[key] / loss for key in ("gained", "expected"))
    error = found.get("error")
    if error is None or math.isnan(error):
        return ""
    return (
        f"the last {found['labels']} labels changed the test loss by {-gained:+z.1%} "
        f"(standard error {error / loss:.1%}); as many more are expected to change it "
        f"by {-ahead:+z.1%}: "
        + (
            "more labels still pay"
            if told_apart(found)
            else "less than this test set can tell from chance, so stopping here may "
            "cost nothing"
        )
    )


def stopping_table(gathered: Gathered) -> Table:
    """Gained and expected gains of each cycle, over runs."""
    grids = {
        key: make_grid(gathered, functools.partial(_share, key))
        for key in ("gained", "error", "expected", "told")
    }
    rows: list[dict[str, Any]] = []
    labelled = grids["gained"].labelled.tolist()
    for cycle, method in itertools.product(range(len(labelled)), gathered.methods):
        own = {key: grid.of(method)[:, cycle] for key, grid in grids.items()}
        told = own.pop("told")
        known = told[np.isfinite(told)]
        if len(known):
            rows.append(
                {
                    "labelled": labelled[cycle],
                    "method": method,
                    **{key: summary(values) for key, values in own.items()},
                    "told": f"{int(known.sum())} of {len(known)}",
                }
            )
    return Table(
        "stopping",
        "What labels gained and are expected to gain, in percent of the test "
        f"loss{spread(rows)}",
        (
            Column("labelled"),
            Column("method"),
            Column("gained", ".2f", "gained by the last labels"),
            Column("error", ".2f", "its standard error"),
            Column("expected", ".2f", "expected of as many more"),
            Column("told", heading="still pays, runs"),
        ),
        tuple(rows),
        (
            "A hint, nothing is stopped by it. Gained: by the losses of the same test "
            "examples before and after. Expected: by the power law through the losses "
            f"of all cycles. It still pays where that is over {_ERRORS:g} standard "
            "errors: where it is less, this test set could not tell whether the next "
            "labels helped. Part of a gain is due to training on, without any label.",
        ),
    )


def _share(key: str, record: cycles.Record) -> float | None:
    found, loss = cycles.stopping(record), cycles.metrics(record).get("test_loss")
    if not found or not loss or found.get("error") is None:
        return None
    if key == "told":
        return float(bool(told_apart(found)))
    return 100 * found[key] / loss
