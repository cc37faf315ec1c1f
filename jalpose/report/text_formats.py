r"""A table as data, and as Markdown, LaTeX, CSV and plain text.

Markdown and LaTeX round as the columns say; CSV holds every digit, so that whatever a
report prints can be computed again from it. LaTeX needs `\usepackage{booktabs}`.
"""

import csv
import dataclasses
import io
import itertools
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jalpose.report.statistics import Interval
from jalpose.report.tables import Column, format_table
from jalpose.storage import records

MU, SIGMA, MINUS = "\N{GREEK SMALL LETTER MU}", "\N{GREEK SMALL LETTER SIGMA}", "\u2212"


class MeanSd(NamedTuple):
    """A mean and its standard deviation over runs (ddof=1); None with one run.

    Its format is that of a number; by one of so many digits ("g") the deviation has as
    many decimals as the mean has then: 2.300±0.038. A leading "!" leaves out the zero
    before the point, as LL++'s tables print fractions: format(MeanSd(0.43, 0.017),
    "!.3f") is .430±.017.
    """

    mean: float
    sd: float | None

    def __format__(self, spec: str) -> str:
        """Both by `spec`; the mean alone without a deviation."""
        number = spec.removeprefix("!")
        if self.sd is not None and re.fullmatch(r"\.\d+g", number):
            number = _decimals(self.mean, int(number[1:-1])) or number
        parts = [format(part, number) for part in self if part is not None]
        if spec.startswith("!"):
            parts = [re.sub(r"^(-?)0\.", r"\1.", part) for part in parts]
        return "±".join(parts)


def _decimals(mean: float, digits: int) -> str:
    """The format in which a mean has so many digits; "" where it would be long."""
    if not mean or not math.isfinite(mean):
        return ""
    decimals = digits - 1 - math.floor(math.log10(abs(mean)))
    return f".{decimals}f" if 0 <= decimals <= digits + 1 else ""


class PValue(float):
    """A p-value, printed with three digits, and none that would be 0.000."""

    def __format__(self, spec: str) -> str:
        """`0.043`, or `<0.001`; another `spec` than "" is a float's."""
        if spec or not math.isfinite(self):
            return super().__format__(spec)
        return "<0.001" if self < 0.001 else super().__format__(".3f")


def p_value(value: float | None) -> PValue | None:
    """`value` as a table's cell."""
    return None if value is None else PValue(value)


def spread(rows: Iterable[Mapping[str, Any]], over: str = "runs") -> str:
    """How the cells of a table of means are meant: the end of its caption.

    "" where no cell has a deviation, as with one seed.
    """
    cells = (value for row in rows for value in row.values())
    if any(isinstance(cell, MeanSd) and cell.sd is not None for cell in cells):
        return f": mean±standard deviation over {over}"
    return ""


def counted(number: int, noun: str) -> str:
    """A number of things in words: "1 run", "2 runs"."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def listed(names: Sequence[str]) -> str:
    """Names as a sentence has them: "a, b and c"."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of a report, ready to be written in any format.

    Attributes:
      name: stem of its files and label in LaTeX, of letters, digits and "_".
      caption: a sentence or a few.
      columns: what of the rows is shown, with format and heading.
      rows: values by column key: numbers, words, `MeanSd`, `Interval`, `PValue`, None.
      notes: sentences below the table.
      groups: a heading above each column; equal neighbours share one. () for none.
      bold: (row, column key) of the cells in bold.
      aside: keys of the columns that a page leaves to the files.
    """

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    bold: frozenset[tuple[int, str]] = frozenset()
    aside: frozenset[str] = frozenset()

    def __post_init__(self):
        """Refuse groups that do not fit the columns."""
        if self.groups and len(self.groups) != len(self.columns):
            raise ValueError(
                f"{self.name}: {len(self.groups)} groups, {len(self.columns)} columns"
            )

    @property
    def headings(self) -> tuple[str, ...]:
        """Headings of the columns, without their groups."""
        return tuple(c.key if c.heading is None else c.heading for c in self.columns)

    @property
    def full_headings(self) -> tuple[str, ...]:
        """Headings of the columns, each after its group."""
        groups = self.groups or ("",) * len(self.columns)
        pairs = zip(groups, self.headings, strict=True)
        return tuple(f"{group} {heading}".strip() for group, heading in pairs)

    def text(self, row: int, column: Column) -> str:
        """A cell as printed; "" for what is missing."""
        value = self.rows[row].get(column.key)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return ""
        return value if isinstance(value, str) else format(value, column.format)

    def is_words(self, column: Column) -> bool:
        """Whether a column is set flush left."""
        values = [row.get(column.key) for row in self.rows]
        return any(isinstance(value, str) for value in values)


BEST = "Bold: the best mean, as the paper prints it; that is no test."


def mark_best(
    rows: Sequence[Mapping[str, Any]],
    keys: Iterable[str],
    *,
    lowest: bool = False,
    digits: str = ".12g",
) -> frozenset[tuple[int, str]]:
    """The best mean of each column, all that print alike: `bold` of a Table.

    Where all print alike, none is best.
    """
    bold: set[tuple[int, str]] = set()
    for key in keys:
        means = {i: _mean(row.get(key)) for i, row in enumerate(rows)}
        known = {i: mean for i, mean in means.items() if mean is not None}
        shown = {i: format(mean, digits) for i, mean in known.items()}
        if len(set(shown.values())) > 1:
            best = (min if lowest else max)(known, key=known.__getitem__)
            bold |= {(i, key) for i, text in shown.items() if text == shown[best]}
    return frozenset(bold)


def _mean(value: Any) -> float | None:
    value = value.mean if isinstance(value, MeanSd) else value
    return None if value is None or math.isnan(value) else value


# Writers


def write_tables(
    tables: Sequence[Table], folder: str | os.PathLike[str]
) -> dict[str, list[Path]]:
    """Write `<name>.md`, `.tex` and `.csv` of each: the paths by the table's name."""
    writers = {"md": markdown, "tex": latex, "csv": csv_text}
    written: dict[str, list[Path]] = {}
    for table in tables:
        for end, writer in writers.items():
            path = Path(folder) / f"{table.name}.{end}"
            records.atomic_write_text(path, writer(table))
            written.setdefault(table.name, []).append(path)
    return written


def plain_text(table: Table) -> str:
    """A table for a terminal."""
    columns = [
        Column(column.key, column.format, heading)
        for column, heading in zip(table.columns, table.full_headings, strict=True)
    ]
    body = format_table(table.rows, columns)
    return "\n".join([table.caption, "", body, *map("  {}".format, table.notes)]) + "\n"


def markdown(table: Table) -> str:
    """A table as GitHub's Markdown has it: caption, table, notes as a list."""
    ends = ["---" if table.is_words(c) else "---:" for c in table.columns]
    lines = [[_markdown_text(heading) for heading in table.full_headings], ends]
    for row in range(len(table.rows)):
        cells = []
        for column in table.columns:
            text = _markdown_text(table.text(row, column)) or "-"
            cells.append(f"**{text}**" if (row, column.key) in table.bold else text)
        lines.append(cells)
    body = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    notes = "".join(f"- {_markdown_text(note)}\n" for note in table.notes)
    caption = _markdown_text(table.caption)
    return f"**{caption}**\n\n{body}" + (f"\n{notes}" if notes else "")


def _markdown_text(text: str) -> str:
    return re.sub(r"([\\|*<\[`])", r"\\\1", " ".join(text.split()))


def latex(table: Table) -> str:
    """A table as LaTeX with booktabs, in a `table` of its own."""
    form = "".join("l" if table.is_words(column) else "r" for column in table.columns)
    lines = [
        "\\begin{table}",
        "  \\centering",
        f"  \\caption{{{latex_text(table.caption)}}}",
        f"  \\label{{tab:{table.name}}}",
        f"  \\begin{{tabular}}{{{form}}}",
        "    \\toprule",
        *_latex_groups(table.groups),
        f"    {' & '.join(map(latex_text, table.headings))} \\\\",
        "    \\midrule",
    ]
    for row in range(len(table.rows)):
        cells = []
        for column in table.columns:
            text = _latex_cell(table, row, column)
            is_bold = (row, column.key) in table.bold
            cells.append(f"\\textbf{{{text}}}" if is_bold else text)
        lines.append(f"    {' & '.join(cells)} \\\\")
    lines += ["    \\bottomrule", "  \\end{tabular}"]
    if table.notes:
        lines.append("  \\par\\smallskip\\footnotesize")
        lines += [f"  {latex_text(note)}\\par" for note in table.notes]
    return "\n".join([*lines, "\\end{table}", ""])


def _latex_groups(groups: Sequence[str]) -> list[str]:
    """The line of headings over several columns, with a rule under each."""
    if not any(groups):
        return []
    cells, rules, start = [], [], 1
    for group, members in itertools.groupby(groups):
        count = len(list(members))
        if group:
            cells.append(f"\\multicolumn{{{count}}}{{c}}{{{latex_text(group)}}}")
            rules.append(f"\\cmidrule(lr){{{start}-{start + count - 1}}}")
        else:
            cells += [""] * count
        start += count
    return [f"    {' & '.join(cells)} \\\\", f"    {' '.join(rules)}"]


def _latex_cell(table: Table, row: int, column: Column) -> str:
    text, value = table.text(row, column), table.rows[row].get(column.key)
    if not text:
        return "--"
    if isinstance(value, str):
        return latex_text(text)
    return latex_text(re.sub(r"-(?=[\d.i])", MINUS, text))


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    MU: r"$\mu$",
    SIGMA: r"$\sigma$",
    MINUS: "$-$",
    "<": "$<$",
    ">": "$>$",
    "|": r"$|$",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def latex_text(text: str) -> str:
    """Words as LaTeX prints them, its own signs escaped."""
    return "".join(_LATEX.get(sign, sign) for sign in " ".join(text.split()))


def csv_text(table: Table) -> str:
    """A table as CSV with every digit: a mean and a deviation are two columns.

    What is missing is an empty cell.
    """
    parts = [_csv_parts(table, column) for column in table.columns]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    headings = zip(table.full_headings, parts, strict=True)
    writer.writerow([f"{h} {p}".strip() for h, names in headings for p in names])
    for row in table.rows:
        cells: list[Any] = []
        for column, names in zip(table.columns, parts, strict=True):
            value = row.get(column.key)
            if names == ("",):
                cells.append(_csv_number(value))
            else:
                some = [None] * len(names) if value is None else value
                cells += [_csv_number(part) for part in some]
        writer.writerow(cells)
    return text.getvalue()


def _csv_parts(table: Table, column: Column) -> tuple[str, ...]:
    values = [row.get(column.key) for row in table.rows]
    if any(isinstance(value, MeanSd) for value in values):
        return "mean", "sd"
    if any(isinstance(value, Interval) for value in values):
        return "low", "high"
    return ("",)


def _csv_number(value: Any) -> Any:
    """A cell for the csv module, which writes floats by repr and None as empty."""
    if isinstance(value, float):  # NumPy's and PValue print as other than numbers
        return None if math.isnan(value) else float(value)
    return value
