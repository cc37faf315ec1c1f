"""What is said below the tables of comparisons: what they mean and what they show."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from jalpose.report import statistics
from jalpose.report.gather import Gathered
from jalpose.report.grid import Grid, controls, full_level, reference_first
from jalpose.report.scoring import Scoring
from jalpose.report.statistics import LEVEL, Comparison
from jalpose.report.text_formats import counted


def legend(
    comparisons: Sequence[Comparison], reference: str, family: int, scoring: Scoring
) -> list[str]:
    """What the columns mean, as far as there is something in them."""
    notes = []
    if comparisons:
        notes.append(
            f"Difference: {scoring.difference(reference)}, over the seeds both have, "
            "with Student's interval."
        )
    if family:
        notes.append(
            "p one-tailed: paired t-test that the method is better; two-tailed: that "
            "they differ. Wilcoxon: exact signed-rank test, two-tailed. Holm: "
            f"corrected over the {family} comparisons of this table."
        )
    if any(found.detectable is not None for found in comparisons):
        notes.append(
            "Detectable: the smallest true difference that a two-tailed paired t-test "
            f"at {LEVEL} would find with {statistics.POWER:.0%} power."
        )
    return notes


def significance_notes(
    comparisons: Sequence[Comparison],
    rows: Sequence[Mapping[str, Any]],
    reference: str,
    family: int,
) -> list[str]:
    """Why p-values are missing, what they cannot show, and what is significant."""
    notes = sorted({c.reason for c in comparisons} | {c.caution for c in comparisons})
    notes = [f"{note[0].upper()}{note[1:]}." for note in notes if note]
    known = [c.smallest_wilcoxon for c in comparisons if c.smallest_wilcoxon]
    if family > 1 and known and min(known) <= LEVEL < family * min(known):
        notes.append(
            f"Corrected over {family} comparisons Wilcoxon cannot be significant: its "
            f"p cannot fall below {min(1.0, family * min(known)):.3g}."
        )
    if not comparisons:
        return notes
    if not any(row.get("two_tailed") is not None for row in rows):
        return [*notes, "Nothing here is shown to be significant."]
    found = [row for row in rows if row.get("holm") is not None and row["holm"] < LEVEL]
    if not found:
        notes.append(
            f"After Holm's correction no method differs significantly from {reference} "
            f"at {LEVEL} (paired t-test)."
        )
    shown = []
    for sign, word in ((1, "better"), (-1, "worse")):
        names = [_where(row) for row in found if sign * row["difference"] > 0]
        if names:
            shown.append(
                f"Significantly {word} than {reference} at {LEVEL} after Holm's "
                f"correction (paired t-test): {', '.join(names)}."
            )
    return [*notes, " ".join(shown)] if shown else notes


def bold_notes(bold: Collection[Any], reference: str) -> list[str]:
    """What bold means, where something is bold."""
    if not bold:
        return []
    return [f"Bold: significantly better than {reference} after Holm's correction."]


def control_notes(gathered: Gathered) -> list[str]:
    """Which methods buy no labels."""
    return [
        f"{method} buys no labels: it stands where the others are at its cycle."
        for method in controls(gathered)
    ]


def full_notes(gathered: Gathered) -> list[str]:
    """What the runs on all labels are, where there are any."""
    if full_level(gathered) is None:
        return []
    return [
        "All labels: the initial set and the whole pool, trained on from new weights "
        "for as many steps as the last network of a method's run has behind it; what "
        "choosing may reach. It is not tested."
    ]


def shares_of_full(gathered: Gathered, grid: Grid, reference: str) -> list[str]:
    """How much of what all labels reach each method's last budget does."""
    full = full_level(gathered)
    if full is None:
        return []
    scoring = gathered.scoring
    lasts = {m: grid.means[grid.methods.index(m)][-1] for m in grid.methods}
    known = {
        method: lasts[method]
        for method in reference_first(grid.methods, reference)
        if method not in controls(gathered) and np.isfinite(lasts[method])
    }
    if not known or full.score.mean <= 0:
        return []
    shares = {method: score / full.score.mean for method, score in known.items()}
    if scoring.sign > 0:
        said = "Shares of that"
        parts = [f"{method} {share:.0%}" for method, share in shares.items()]
    else:
        said = "Multiples of that"
        parts = [f"{method} {share:.2f}" for method, share in shares.items()]
    return [
        f"All {full.labelled} labels reach {full.score:{scoring.digits(2)}} "
        f"({counted(full.runs, 'run')}). {said} at {grid.labelled[-1]} labels: "
        f"{', '.join(parts)}."
    ]


def _where(row: Mapping[str, Any]) -> str:
    return (
        f"{row['method']} at {row['labelled']}" if "labelled" in row else row["method"]
    )
