"""What a reader of the verdict has to know before believing it."""

import numpy as np

from jalpose.report.gather import Gathered
from jalpose.report.grid import Grid, full_level, make_grid
from jalpose.report.text_formats import listed


def warnings(gathered: Gathered, grid: Grid, last: int) -> tuple[str, ...]:
    """Sentences on networks that have learnt little and runs that are not finished.

    Args:
      gathered: the runs.
      grid: their scores.
      last: place of the number labelled that the verdict is of.
    """
    scoring, found = gathered.scoring, []
    floor = make_grid(gathered, scoring.baseline)
    below = [
        method
        for method, score, level in zip(
            grid.methods, grid.means[:, last], floor.means[:, last], strict=True
        )
        if scoring.sign * score <= scoring.sign * level  # NaN is not
    ]
    if below:
        who = (
            "All networks are"
            if len(below) == len(grid.methods)
            else (f"The networks of {listed(below)} are")
        )
        level = float(np.nanmax(floor.means[:, last]))
        unit = " %" if scoring.keys.percent else ""
        name = scoring.keys.baseline_name
        found.append(
            f"{who} no better than the {name} ({level:{scoring.digits(1)}}{unit}), "
            f"which looks at no image, at {grid.labelled[last]} labels: what they "
            "choose means little. Train longer or with more labels."
        )
    found += _short_of_training(gathered, grid, last)
    if gathered.missing:
        found.append(
            "Not all runs are finished: this is how it stands at "
            f"{grid.labelled[last]} labels."
        )
    return tuple(found)


def _short_of_training(gathered: Gathered, grid: Grid, last: int) -> list[str]:
    """Whether with all labels the network is worse than with the few of any method."""
    full, scoring = full_level(gathered), gathered.scoring
    means = grid.means[:, last]
    means = scoring.sign * means[np.isfinite(means)]
    if full is None or not len(means) or scoring.sign * full.score.mean >= means.min():
        return []
    unit = " %" if scoring.keys.percent else ""
    return [
        f"With all {full.labelled} labels and as many steps the network is worse "
        f"({full.score.mean:{scoring.digits(1)}}{unit}) than with the "
        f"{grid.labelled[last]} of any method: it is short of training, not of labels, "
        "and of a choice this shows what it is worth to a network trained so briefly."
    ]
