import csv
import io
import math
import re

import pytest

from jalpose.report.statistics import Interval
from jalpose.report.tables import Column
from jalpose.report.text_formats import (
    MeanSd,
    PValue,
    Table,
    csv_text,
    latex,
    mark_best,
    markdown,
    plain_text,
    spread,
    write_tables,
)

TABLE = Table(
    "made_up",
    "50 % of a_b & c",
    (
        Column("name"),
        Column("score", ".1f", "PCK"),
        Column("range", "+.1f"),
        Column("p", "", "p"),
        Column("count"),
    ),
    (
        {
            "name": "a|b_c",
            "score": MeanSd(12.345678901234567, 0.25),
            "range": Interval(-1.5, math.inf),
            "p": PValue(0.0004),
            "count": 3,
        },
        {"name": "plain", "score": MeanSd(-1.0, None), "p": PValue(0.04321)},
    ),
    ("Note with p < 0.05.",),
    ("", "of the test", "of the test", "", ""),
    frozenset({(0, "score")}),
)


def test_markdown_golden():
    assert markdown(TABLE) == (
        "**50 % of a_b & c**\n\n"
        "| name | of the test PCK | of the test range | p | count |\n"
        "| --- | ---: | ---: | ---: | ---: |\n"
        "| a\\|b_c | **12.3±0.2** | \\[-1.5, +inf] | \\<0.001 | 3 |\n"
        "| plain | -1.0 | - | 0.043 | - |\n"
        "\n- Note with p \\< 0.05.\n"
    )


def test_latex_golden():
    body = latex(TABLE).split("\\label{tab:made_up}\n")[1]
    assert r"\caption{50 \% of a\_b \& c}" in latex(TABLE)
    assert body == (
        "  \\begin{tabular}{lrrrr}\n"
        "    \\toprule\n"
        "     & \\multicolumn{2}{c}{of the test} &  &  \\\\\n"
        "    \\cmidrule(lr){2-3}\n"
        "    name & PCK & range & p & count \\\\\n"
        "    \\midrule\n"
        "    a$|$b\\_c & \\textbf{12.3$\\pm$0.2} & [$-$1.5, +inf] & $<$0.001 & 3 \\\\\n"
        "    plain & $-$1.0 & -- & 0.043 & -- \\\\\n"
        "    \\bottomrule\n"
        "  \\end{tabular}\n"
        "  \\par\\smallskip\\footnotesize\n"
        "  Note with p $<$ 0.05.\\par\n"
        "\\end{table}\n"
    )


def test_csv_holds_every_digit():
    rows = list(csv.reader(io.StringIO(csv_text(TABLE))))
    assert rows == [
        [
            "name",
            "of the test PCK mean",
            "of the test PCK sd",
            "of the test range low",
            "of the test range high",
            "p",
            "count",
        ],
        ["a|b_c", "12.345678901234567", "0.25", "-1.5", "inf", "0.0004", "3"],
        ["plain", "-1.0", "", "", "", "0.04321", ""],
    ]


def test_every_format_is_written(tmp_path):
    paths = write_tables([TABLE], tmp_path / "tables")["made_up"]
    assert [path.name for path in paths] == ["made_up.md", "made_up.tex", "made_up.csv"]
    assert paths[0].read_text(encoding="utf-8") == markdown(TABLE)
    assert "12.3±0.2" in plain_text(TABLE)


@pytest.mark.parametrize(
    "value, spec, text",
    [
        (MeanSd(0.43, 0.017), "!.3f", ".430±.017"),
        (MeanSd(-0.5, 1.5), "!.1f", "-.5±1.5"),
        (MeanSd(2.3, 0.03778), ".4g", "2.300±0.038"),
        (MeanSd(0.0, 0.5), ".4g", "0±0.5"),
        (MeanSd(123456.0, 2.0), ".4g", "1.235e+05±2"),
        (MeanSd(0.5, None), ".4g", "0.5"),
        (PValue(0.001), "", "0.001"),
        (PValue(1.0), "", "1.000"),
        (PValue(0.5), ".1f", "0.5"),
    ],
)
def test_cells(value, spec, text):
    assert format(value, spec) == text


def test_the_best_is_marked():
    rows = [{"a": 1.0, "b": MeanSd(2.0, None)}, {"a": 1.001, "b": None}, {"a": 0.5}]
    assert mark_best(rows, ["a", "b"]) == {(1, "a")}
    assert mark_best(rows, ["a"], digits=".1f") == {(0, "a"), (1, "a")}
    assert mark_best(rows, ["a"], lowest=True) == {(2, "a")}
    assert mark_best(rows[:2], ["a"], digits=".1f") == frozenset()  # all alike


def test_groups_must_fit():
    with pytest.raises(ValueError, match=re.escape("t: 1 groups, 2 columns")):
        Table("t", "", (Column("a"), Column("b")), (), groups=("x",))


def test_a_caption_speaks_of_deviations_where_a_cell_has_one():
    alone = {"method": "random", "score": MeanSd(40.0, None), "runs": 1}
    of_two = alone | {"score": MeanSd(40.0, 1.5)}
    assert spread([]) == spread([alone]) == ""
    assert spread([alone, of_two]) == ": mean±standard deviation over runs"
    assert spread([of_two], "2 runs") == ": mean±standard deviation over 2 runs"
