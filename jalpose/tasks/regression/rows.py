"""Rows of numbers with one to be predicted: CSV files, shipped and drawn sets."""

import csv
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jalpose.data.source import DataError
from jalpose.settings.checks import one_of
from jalpose.tasks.exchange import separator

_TOLD = 5  # problems of a file that are told one by one


class Rows(NamedTuple):
    """N rows.

    Attributes:
      name: of the set.
      headings: of the F inputs.
      inputs: float64 [N, F].
      targets: float64 [N].
      file: they come from.
      test: bool [N], which are for tests alone; None: those that are drawn.
    """

    name: str
    headings: tuple[str, ...]
    inputs: np.ndarray
    targets: np.ndarray
    file: str
    test: np.ndarray | None = None


def read_csv(
    path: str | os.PathLike[str], target: str = "", inputs: Sequence[str] = ()
) -> Rows:
    """Rows of a CSV file with a line of headings.

    Args:
      path: of the file, UTF-8.
      target: heading of the number to be predicted; "": the last.
      inputs: headings of the inputs; none: all others.

    Raises:
      DataError: there is no such file or column, a line has too many or too few cells,
        or a cell that is used is empty, or no finite number: file, line and column.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            mark = separator(file.readline())
            file.seek(0)
            lines = list(csv.reader(file, delimiter=mark, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}") from error
    while lines and not any(cell.strip() for cell in lines[-1]):
        lines.pop()  # empty ones at the end
    if len(lines) < 2:
        raise DataError(f"{path} needs a line of headings and rows below it")
    headings = [heading.strip() for heading in lines[0]]
    if len(set(headings)) < len(headings) or "" in headings:
        raise DataError(
            f"{path}: its headings must have different names: {', '.join(headings)}"
        )
    if all(_number(heading) is not None for heading in headings):
        raise DataError(
            f"{path}: its first line is numbers, and must be the columns' headings"
        )
    target = target or headings[-1]
    chosen = tuple(inputs) or tuple(h for h in headings if h != target)
    for heading in (target, *chosen):
        if heading not in headings:
            one_of(f"a column of {path}", heading, headings)
    if len(set(chosen)) < len(chosen):
        raise DataError(f"data.inputs names a column twice: {', '.join(chosen)}")
    if target in chosen or not chosen:
        raise DataError(f"{path}: {target} is the target, and needs other inputs")
    places = [headings.index(heading) for heading in (*chosen, target)]
    problems, found = [], np.full((len(lines) - 1, len(places)), np.nan)
    for row, line in enumerate(lines[1:]):
        if len(line) != len(headings):
            problems.append(f"line {row + 2} has {len(line)} cells")
            continue
        for column, place in enumerate(places):
            value = _number(line[place])
            if value is None:
                what = repr(line[place]) if line[place].strip() else "nothing"
                problems.append(f"line {row + 2} has {what} as {headings[place]}")
            else:
                found[row, column] = value
    if problems:
        more = len(problems) - _TOLD
        raise DataError(
            f"{path} has {len(headings)} columns and must hold finite numbers: "
            + "; ".join(problems[:_TOLD])
            + (f"; and {more} more" if more > 0 else "")
            + ". Fill or remove these rows, or name the columns that are numbers in "
            "data.inputs"
        )
    name = os.path.splitext(os.path.basename(path))[0]
    return Rows(name, chosen, found[:, :-1], found[:, -1], os.path.basename(path))


def diabetes() -> Rows:
    """442 patients of ten numbers, and how their diabetes went on (scikit-learn's).

    Raises:
      DataError: scikit-learn is not installed.
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise DataError(
            "data.name=diabetes is shipped with scikit-learn, which is not installed: "
            "pip install scikit-learn, or the extra dev"
        ) from error
    found = datasets.load_diabetes()
    names = tuple(found.feature_names)
    return Rows("diabetes", names, found.data, found.target, "diabetes")


def curve(count: int = 1000, seed: int = 0) -> Rows:
    """Three inputs, a curve in two of them, and noise that grows with the third."""
    draws = np.random.default_rng(seed)
    inputs = draws.normal(size=(count, 3))
    drawn = np.sin(2 * inputs[:, 0]) + 0.5 * inputs[:, 1] ** 2
    noise = np.exp(0.5 * inputs[:, 2] - 1) * draws.normal(size=count)
    return Rows("curve", ("a", "b", "c"), inputs, drawn + noise, "curve")


def arm(count: int = 4000, tests: int = 1000, seed: int = 0) -> Rows:
    """How far an arm of four joints reaches, in a stream as people's footage is.

    Nine sequences of ten are of everyday postures, near the stretched arm, the tenth
    is of any posture; frames of a sequence are near copies, and a few long sequences
    hold most of them (their lengths are log-normal, of a deviation of 1.5). The test
    rows are no sequences, and half of them are of any posture.
    """
    draws = np.random.default_rng(seed)
    lengths = np.exp(1.5 * draws.normal(size=count) + 1.6)
    lengths = np.maximum(1, np.rint(lengths)).astype(int)
    sequence = np.repeat(np.arange(count), lengths)[:count]
    any_posture = np.r_[draws.random(count) < 0.1, draws.random(tests) < 0.5]
    angles = draws.normal(size=(count + tests, 4)) * 0.25
    spread = draws.uniform(-1.0, 1.0, size=(count + tests, 4))
    angles = np.where(any_posture[:, None], spread, angles)
    frames = angles[:count][sequence] + 0.03 * draws.normal(size=(count, 4))
    angles = np.r_[frames, angles[count:]]
    reach = np.cos(np.cumsum(angles, axis=1)).sum(axis=1)
    reach = reach + 0.02 * draws.normal(size=len(reach))
    return Rows(
        "arm",
        ("shoulder", "elbow", "wrist", "hand"),
        angles,
        reach,
        "arm",
        np.arange(count + tests) >= count,
    )


def _number(cell: str) -> float | None:
    """The finite number a cell holds; None: it holds none."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if np.isfinite(value) else None
