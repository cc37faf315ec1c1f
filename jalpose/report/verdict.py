"""What runs show about their methods, in a sentence that a statistician would sign.

    for line in verdict.lines(["runs/figures"]):
        print(line)

One number a run is compared: the mean height of its learning curve, from the first
budget to the last that most pairs of runs have reached (the area table's number). So
there is one test a method, by paired seeds, and Holm's correction is over the methods.
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from jalpose.report import budgets, doubts, statistics
from jalpose.report.gather import Gathered, gather
from jalpose.report.grid import (
    Grid,
    choose_reference,
    controls,
    reference_first,
    score_grid,
)
from jalpose.report.scoring import Scoring
from jalpose.report.statistics import FEW, FEWEST, LEVEL, Comparison
from jalpose.report.text_formats import PValue, counted, listed

_NOTHING_YET = "There is nothing to compare with {reference} yet."


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What is shown, and what puts it in doubt.

    Attributes:
      sentence: which method is best, its difference to the reference with the 95 %
        interval and Holm's p, or why there is no test.
      saved: labels it saves at the reference's final score; "" where there is nothing
        to compare.
      warnings: sentences: networks below the mean pose, few seeds, unfinished runs.
      notes: sentences: what was tested, and which difference could have been found.
      method: the method that the sentence is about; None without one.
    """

    sentence: str
    saved: str = ""
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    method: str | None = None


def lines(
    folders: Iterable[str | os.PathLike[str]], reference: str | None = None
) -> list[str]:
    """The verdict on the runs in folders as lines of a screen.

    Args:
      folders: as `gather` takes them: a run with its comparisons, an experiment.
      reference: the method that others are compared with; random, else the first.

    Raises:
      WorkdirError: there are no runs, or they cannot be compared.
    """
    found = judge(gather(folders), reference)
    said = [found.sentence, *([found.saved] if found.saved else [])]
    return [*said, *(f"warning: {line}" for line in found.warnings)]


def judge(gathered: Gathered, reference: str | None = None) -> Verdict:
    """The verdict on runs.

    Args:
      gathered: the runs.
      reference: label of a method; by default random, else the first.

    Raises:
      GatherError: there is no method of that label.
    """
    grid, scoring = score_grid(gathered), gathered.scoring
    reference = choose_reference(grid.methods, reference)
    others = reference_first(grid.methods, reference)[1:]
    last = last_shared(grid, reference)
    warnings = doubts.warnings(
        gathered, grid, len(grid.labelled) - 1 if last is None else last
    )
    if not others:
        return Verdict(_alone(grid, scoring), warnings=warnings)
    if last is None:
        return Verdict(_NOTHING_YET.format(reference=reference), warnings=warnings)
    found = _compare(grid, scoring, reference, others, last)
    judged = _Judged(
        scoring,
        reference,
        found,
        dict(zip(found, _holm(found.values()), strict=True)),
        f"{grid.labelled[0]} to {grid.labelled[last]} labels",
        controls(gathered),
    )
    method = judged.method
    if method is None:
        buying = set(others) - set(judged.controls)
        sentence = f"Only {reference} buys labels." if not buying else _NOTHING_YET
        return Verdict(sentence.format(reference=reference), warnings=warnings)
    pairs = found[method].num_pairs
    if FEWEST <= pairs < FEW:
        warnings = (*warnings, f"p-values of {pairs} seeds are fragile.")
    return Verdict(
        judged.sentence(),
        _saved(
            grid,
            scoring,
            reference,
            method,
            last,
            final=all(run.last_cycle <= last for run in gathered.runs),
        ),
        warnings,
        judged.notes(),
        method,
    )


@dataclasses.dataclass(frozen=True)
class _Judged:
    """Comparisons of all methods with the reference, put into words."""

    scoring: Scoring
    reference: str
    found: Mapping[str, Comparison]
    holm: Mapping[str, float | None]
    over: str
    controls: Sequence[str]

    @property
    def method(self) -> str | None:
        """The best of those significantly better, else of those tested, else of all.

        A lead of a seed or two, which no test can judge, says less than many seeds.
        """
        known = [m for m in self._falling() if m not in self.controls]
        better = [m for m in known if self._shown(m, 1)]
        tested = [m for m in known if self.holm[m] is not None]
        return next(iter([*better, *tested, *known]), None)

    def sentence(self) -> str:
        """The sentence of the verdict."""
        method = self.method
        assert method is not None
        found, several = self.found[method], len(self.found) > 1
        difference = found.difference or 0.0
        if found.two_tailed is None:
            return self._untested(method)
        claim = f"{self._how_far(method)} ({self._evidence(method)})"
        mean = f"mean {self.scoring.name} over {self.over}"
        untested = [m for m in self.found if self.holm[m] is None]
        none = "No tested method" if untested else "No method"
        if self.controls:
            none += " that buys labels"
        if self._shown(method, 1):
            text = f"{method} is significantly better than {self.reference}: its {mean}"
        elif several and difference > 0:
            text = (
                f"{none} is shown to be better than {self.reference}: the best is "
                f"{method}, whose {mean}"
            )
        elif several:
            text = (
                f"{none} is ahead of {self.reference}: the nearest is {method}, "
                f"whose {mean}"
            )
        elif self._shown(method, -1):
            text = f"{method} is significantly worse than {self.reference}: its {mean}"
        else:
            text = f"{method} is not shown to differ from {self.reference}: its {mean}"
        text += f" is {claim}"
        more = [m for m in self._falling() if m != method and self._shown(m, 1)]
        worse = [m for m in self._falling() if self._shown(m, -1) and several]
        if more:
            too = " too" if self._shown(method, 1) else ""
            text += f"; significantly better{too}: {listed(more)}"
        if worse:
            text += f"; significantly worse: {listed(worse)}"
        if untested:
            text += f"; not tested: {listed([self._how_many(m) for m in untested])}"
        return f"{text}."

    def notes(self) -> tuple[str, ...]:
        """What was tested."""
        method = self.method
        assert method is not None
        found = self.found[method]
        if found.two_tailed is None:
            return ()
        notes = [
            "Two-tailed paired t-test of the curves' mean heights, seed by seed, at "
            f"the level {LEVEL}."
        ]
        if found.detectable is not None and not self._shown(method, 1):
            notes.append(
                f"With these {counted(found.num_pairs, 'seed')} a true difference of "
                f"{self._number(found.detectable)} would have been found with "
                f"{100 * statistics.POWER:.0f} % power by one such test."
            )
        return tuple(notes)

    def _untested(self, method: str) -> str:
        found = self.found[method]
        if found.num_pairs < FEWEST:
            few = "One seed" if found.num_pairs == 1 else f"{found.num_pairs} seeds"
            why = f"{few}: no test is possible."
        else:
            why = f"No test is possible: {found.reason}."
        mean = f"mean {self.scoring.name} over {self.over}"
        difference = found.difference or 0.0
        if abs(difference) < 1e-12:
            return f"{why} {method} and {self.reference} have the same {mean}."
        if difference > 0:
            best = "the best " if len(self.found) > 1 else "a better "
            return (
                f"{why} {method} has {best}{mean}, {self._how_far(method)}, which may "
                "be chance."
            )
        return (
            f"{why} {self.reference} has the best {mean}; {method}'s is "
            f"{self._how_far(method)}, which may be chance."
        )

    def _how_far(self, method: str) -> str:
        difference = self.found[method].difference or 0.0
        higher = difference * self.scoring.sign >= 0
        side = "above" if higher else "below"
        return f"{self._number(abs(difference))} {side} {self.reference}'s"

    def _how_many(self, method: str) -> str:
        return f"{method} ({counted(self.found[method].num_pairs, 'paired seed')})"

    def _number(self, difference: float) -> str:
        unit = " points" if self.scoring.keys.percent else ""
        return f"{difference:{self.scoring.digits(2)}}{unit}"

    def _evidence(self, method: str) -> str:
        found, holm = self.found[method], self.holm[method]
        assert found.interval is not None and holm is not None
        # As a difference of scores, whichever of them is the better.
        ends = sorted(self.scoring.sign * end for end in found.interval)
        low, high = (f"{end:{self.scoring.digits(2, '+')}}" for end in ends)
        tests = sum(p is not None for p in self.holm.values())
        over = f" after Holm's correction over {tests} methods" if tests > 1 else ""
        alone = ", uncorrected" if tests > 1 else ""
        return (
            f"95 % interval {low} to {high}{alone}; p {_p_text(holm)}{over}; "
            f"{counted(found.num_pairs, 'paired seed')}"
        )

    def _falling(self) -> list[str]:
        """Methods, the one farthest ahead of the reference first."""
        known = [m for m, found in self.found.items() if found.difference is not None]
        return sorted(known, key=lambda m: -(self.found[m].difference or 0.0))

    def _shown(self, method: str, sign: int) -> bool:
        holm, difference = self.holm[method], self.found[method].difference or 0.0
        return holm is not None and holm < LEVEL and sign * difference > 0


def _alone(grid: Grid, scoring: Scoring) -> str:
    """What there is to say of one method."""
    known = np.flatnonzero(np.isfinite(grid.means[0]))
    if not known.size:
        return f"{grid.methods[0]} has no score yet."
    first, last = int(known[0]), int(known[-1])
    scores = [f"{grid.means[0][i]:{scoring.digits(1)}}" for i in (first, last)]
    unit = " %" if scoring.keys.percent else ""
    seeds = int(np.isfinite(grid.values[0, :, last]).sum())
    whose = f"{grid.methods[0]} alone, {counted(seeds, 'seed')}"
    if first == last:
        return (
            f"{whose}: {scoring.name} {scores[0]}{unit} with {grid.labelled[0]} labels."
        )
    return (
        f"{whose}: {scoring.name} {scores[0]}{unit} with {grid.labelled[first]} "
        f"labels, {scores[1]}{unit} with {grid.labelled[last]}; there is no method to "
        "compare with."
    )


def last_shared(grid: Grid, reference: str) -> int | None:
    """The last cycle up to which more than half of the pairs are whole; or None.

    Of pairs of runs that have chosen once. Of unfinished runs the last cycle would show
    the few that are ahead; the first would let one that has just begun cut off all.
    """
    whole = np.cumprod(np.isfinite(grid.values), axis=2).astype(bool)
    theirs = whole[grid.methods.index(reference)]
    ours = np.delete(whole, grid.methods.index(reference), axis=0)
    counts = (ours & theirs).sum(axis=(0, 1))[1:]
    if not counts.size or counts.max() == 0:
        return None
    return 1 + int(np.flatnonzero(2 * counts > counts.max())[-1])


def _compare(
    grid: Grid, scoring: Scoring, reference: str, others: Sequence[str], last: int
) -> dict[str, Comparison]:
    signed = scoring.sign * heights(grid, last)
    theirs = signed[grid.methods.index(reference)]
    return {
        method: statistics.compare(signed[grid.methods.index(method)], theirs)
        for method in others
    }


def heights(grid: Grid, last: int) -> np.ndarray:
    """Mean heights of the curves up to a cycle: [methods, seeds]; else NaN."""
    labelled, values = grid.labelled[: last + 1], grid.values[:, :, : last + 1]
    if (np.diff(labelled) > 0).all():
        return budgets.area_under_curve(labelled, values)
    return values.mean(axis=2)  # labels ran out: what is left are the scores


def _holm(found: Iterable[Comparison]) -> list[float | None]:
    return statistics.holm([comparison.two_tailed for comparison in found])


def _saved(
    grid: Grid,
    scoring: Scoring,
    reference: str,
    method: str,
    last: int,
    *,
    final: bool,
) -> str:
    """Labels saved at the reference's score at cycle `last`, as a sentence.

    Of the pairs alone: with fewer of them the score is not the one of all its runs.
    """
    labelled = grid.labelled[: last + 1]
    if not (np.diff(labelled) > 0).all():
        return ""
    found = budgets.labels_saved(
        labelled,
        scoring.sign * grid.of(method)[:, : last + 1],
        scoring.sign * grid.of(reference)[:, : last + 1],
    )
    if found is None:
        return ""
    target = f"{scoring.sign * found.target:{scoring.digits(1)}}"
    target += " %" if scoring.keys.percent else ""
    held = f"{target} with {labelled[-1]} labels"
    if found.reference is not None and labelled[0] < found.reference < labelled[-2]:
        held += f", which it first has with {_whole(found.reference)}"
    theirs = grid.of(reference)[:, : last + 1]
    if found.num_pairs < np.isfinite(theirs).all(axis=1).sum():
        held += f", over the {counted(found.num_pairs, 'paired seed')}"
    where = f"{reference}'s {'final' if final else 'latest'} {scoring.name} ({held})"
    if found.method is None:
        return f"{method} does not reach {where}: no labels are saved."
    if found.reference == labelled[0]:
        return f"{where} is reached before any choice: there is nothing to save."
    return f"Labels saved at {where}: {_whole(found.saved)}{_resampled(found, method)}."


def _resampled(found: budgets.Saved, method: str) -> str:
    if found.interval is None:
        return ""
    low, high = (_whole(end) for end in found.interval)
    if np.isinf(found.interval.high):
        return (
            f" (no interval: in most resamples of the seeds {method} never reaches it)"
        )
    if np.isinf(found.interval.low):
        return (
            f" (95 % interval up to {high}; in some resamples of the seeds {method} "
            "never reaches it)"
        )
    return f" (95 % interval {low} to {high}, seeds resampled)"


def _whole(number: float | None) -> str:
    return f"{number or 0.0:z.0f}"


def _p_text(p: float) -> str:
    text = format(PValue(p))
    return text.replace("<", "< ") if text.startswith("<") else f"= {text}"
