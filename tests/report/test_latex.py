"""LaTeX as TeX would read it: no TeX is at hand, so its rules are checked by a scan."""

import re

import pytest

from jalpose.report.contents import make_tables
from jalpose.report.gather import gather
from jalpose.report.text_formats import Column, Table, latex, latex_text, write_tables
from tests.support.recorded_runs import write_experiment, write_run

STRANGE = r"a_b{c}$d%e#f&g~h^i\j<k>|l"
# All that is written, and with booktabs known to LaTeX.
COMMANDS = {
    "begin", "end", "centering", "caption", "label", "toprule", "midrule",
    "bottomrule", "cmidrule", "multicolumn", "textbf", "textbackslash",
    "textasciitilde", "textasciicircum", "pm", "mu", "sigma", "par", "smallskip",
    "footnotesize",
}  # fmt: skip
TOKEN = re.compile(r"\\([A-Za-z]+)|\\(.)|(.)", re.DOTALL)


def tokens(text):
    """(kind, word): command, sign (escaped or a line's end) or letter."""
    for found in TOKEN.finditer(text):
        kind = ("command", "sign", "letter")[found.lastindex - 1]
        yield kind, found[found.lastindex]


def check_tex(text):
    """Raise AssertionError where LaTeX would stop or print another thing."""
    assert text.isascii()
    text = re.sub(r"\\label\{tab:\w+\}", "", text)  # a name, not printed
    depth, math = 0, False
    for kind, word in tokens(text):
        if kind == "command":
            assert word in COMMANDS, word
        elif kind == "sign":
            assert word in "\\&%$#_{}", word
        elif word == "$":
            math = not math
        elif word in "{}":
            depth += 1 if word == "{" else -1
            assert depth >= 0
        elif word == "\n":
            assert not math and depth == 0
        else:
            assert word not in "%#_^~", word
            assert math or word not in "<>|", word
    assert depth == 0 and not math
    stack = []
    for what, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if what == "begin":
            stack.append(name)
        else:
            assert stack.pop() == name
    assert stack == []
    check_columns(text)


def check_columns(text):
    """Every line of the tabular has as many cells as it has columns."""
    ((form, body),) = re.findall(
        r"\\begin\{tabular\}\{([lrc]+)\}\n(.*?) *\\end\{tabular\}", text, re.DOTALL
    )
    outside = text.replace(body, "")
    assert not re.search(r"(?<!\\)&", outside)
    assert body.count("\\toprule") == body.count("\\bottomrule") == 1
    for line in body.splitlines():
        line = line.strip()
        if line in ("\\toprule", "\\midrule", "\\bottomrule"):
            continue
        if line.startswith("\\cmidrule"):
            for first, last in re.findall(r"\\cmidrule\(lr\)\{(\d+)-(\d+)\}", line):
                assert 1 <= int(first) <= int(last) <= len(form)
            continue
        # A bracket at the start of a line would be an option of the line end before.
        assert line.endswith(" \\\\") and not line.startswith(("[", "*"))
        width = 0
        for cell in cells(line.removesuffix("\\\\")):
            over = re.match(r"\\multicolumn\{(\d+)\}\{c\}\{", cell.strip())
            width += int(over[1]) if over else 1
            check_braces(cell)
        assert width == len(form), line


def cells(line):
    found = [""]
    for kind, word in tokens(line):
        if kind == "letter" and word == "&":
            found.append("")
        else:
            found[-1] += word if kind == "letter" else f"\\{word}"
    return found


def check_braces(cell):
    bare = re.sub(r"\\[{}]", "", cell)
    assert bare.count("{") == bare.count("}"), cell


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Every table there is, of runs that fill as many columns as can be."""
    folder = tmp_path_factory.mktemp("runs")
    scores = {
        method: [
            [0.5, 0.6 + gain * (1 + seed / 9), 0.7 + gain + seed / 90]
            for seed in range(3)
        ]
        for method, gain in (("random", 0.0), ("eglpp", 0.02), (STRANGE, 0.01))
    }
    write_experiment(folder, scores)
    margin = {"acquisition.learning_loss.objective": "margin"}
    for name, changes in (("kl", {}), ("margin", margin)):
        curve = (0.5, 0.55, 0.6)
        write_run(folder / name, "learning_loss", 0, curve, changes=changes)
    level = {"data.labelled": "all"}
    write_run(folder / "full", "random", 0, (0.9,), cycles=0, changes=level)
    return make_tables(gather([folder]))


def test_every_table_is_whole_latex(tables, tmp_path):
    written = write_tables(tables, tmp_path)
    assert len(written) >= 12
    for name, paths in written.items():
        (path,) = [path for path in paths if path.suffix == ".tex"]
        text = path.read_text("ascii")
        try:
            check_tex(text)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}\n{text}") from error
        assert f"\\label{{tab:{name}}}" in text
    assert any(latex_text(STRANGE) in latex(table) for table in tables)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (r"\_", "_"),
        (r"\midrule", r"\midrul"),
        (" & ", " "),
        ("}", ""),
        ("$", ""),
        ("\\end{table}", ""),
        ("\\%", "%"),
    ],
)
def test_the_scan_finds_what_is_broken(right, wrong):
    row = {"name": STRANGE, "score": 1.5}
    columns = (Column("name"), Column("score", ".1f"))
    text = latex(Table("made_up", "50 % of a_b", columns, (row,)))
    check_tex(text)
    assert right in text
    with pytest.raises((AssertionError, ValueError)):
        check_tex(text.replace(right, wrong, 1))


def test_every_sign_prints_as_itself():
    plain = latex_text(STRANGE)
    body = f"\\toprule\n{plain} \\\\\n\\bottomrule\n"
    check_tex(f"\\begin{{tabular}}{{l}}\n{body}\\end{{tabular}}")
    back = {
        r"\textbackslash{}": "\\",
        r"\textasciitilde{}": "~",
        r"\textasciicircum{}": "^",
    }
    for written, sign in back.items():
        plain = plain.replace(written, f"\0{ord(sign)}\0")
    plain = re.sub(r"\\([&%$#_{}])", r"\1", plain.replace("$<$", "<"))
    plain = plain.replace("$>$", ">").replace("$|$", "|")
    assert re.sub(r"\0(\d+)\0", lambda m: chr(int(m[1])), plain) == STRANGE
