import csv
import html.parser
import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from jalpose.report import __main__ as command
from jalpose.report import interpret, page, page_tables
from jalpose.report.gather import gather
from jalpose.storage import records
from jalpose.tasks.pose import pictures
from tests.support import fake_runs, recorded_runs

SECTIONS = [
    "results", "diversity", "choices", "parts", "cost", "layouts", "scores", "chosen",
    "neighbours", "peaks", "confidence",
    "labels", "runs", "terms", "provenance",
]  # fmt: skip
METHODS = ("random", "eglpp", "multipeak_entropy")
_VOID = {"meta", "img", "br", "hr", "input", "link"}


class Reader(html.parser.HTMLParser):
    """Every tag is closed where it should be; collects tags and text."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def read(path):
    reader = Reader()
    reader.feed(path.read_text("utf-8"))
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    for method in METHODS:
        fake_runs.write_run(place / method, method, 0)
    fake_runs.write_run(place / "unfinished", "eglpp", 1, done=2)
    # Words of records are words, not markup.
    config = records.read_config(place / "random")
    config["config"]["name"] = '<script>alert("name")</script>'
    config["git"] = "<img src=x>"
    records.write_config(place / "random", config)
    return place


@pytest.fixture(scope="module")
def report(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    assert command.main([str(folder), f"--out={out}"]) == 0
    return out


# The page


def test_every_section_is_there_and_in_the_contents(report):
    reader = read(report / "index.html")
    assert [a["id"] for a in reader.all("section")] == SECTIONS
    links = [a["href"] for a in reader.all("a") if a["href"].startswith("#")]
    assert links[: len(SECTIONS)] == [f"#{anchor}" for anchor in SECTIONS]


def test_nothing_comes_from_elsewhere(report):
    text = (report / "index.html").read_text("utf-8")
    reader = read(report / "index.html")
    pictures = reader.all("img")
    assert len(pictures) > 50
    assert all(
        re.match(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+$", a["src"])
        for a in pictures
    )
    links = {a["href"] for a in reader.all("a") if not a["href"].startswith("#")}
    assert links and all((report / link).is_file() for link in links)
    assert not reader.all("link")
    assert all("src" not in a for a in reader.all("script"))
    assert not re.search(r"https?://|url\((?!#)|@import|fetch\(", text)
    assert "default-src &#x27;none&#x27;" in text


def test_words_of_records_are_escaped(report):
    text = (report / "index.html").read_text("utf-8")
    assert text.count("<script>") == 1  # the page's own
    assert "<img src=x>" not in text
    assert "&lt;script&gt;alert(" in text


def test_what_is_missing_stands_on_top(report):
    text = read(report / "index.html").text
    assert "eglpp, seed 1: cycle 2 of 0 to 2 is not there yet" in text
    assert "multipeak_entropy: there is no run of seed 1" in text


def test_the_verdict_stands_before_the_contents(report):
    text = (report / "index.html").read_text("utf-8")
    top = text[: text.index("<nav")]
    assert 'class="verdict"' in top and "no test is possible." in top
    assert "plots/learning_curves.pdf" in top and "<svg viewBox" in top


def test_a_press_makes_a_picture_large_without_a_script(report):
    reader = read(report / "index.html")
    boxes = [a for a in reader.all("input") if a["type"] == "checkbox"]
    assert len(boxes) == len(reader.all("img")) > 50
    assert ".zoom input:checked" in page.resource("page_style.css")


def test_of_one_seed_what_says_nothing_is_left_out(report):
    text = read(report / "index.html").text
    for words in ("says nothing", "Columns without a value", "Pairwise penalty"):
        assert words not in text
    assert not re.search(r"-0\.0*(?!\d)", text)
    assert not re.search(r"-0\.0*(?!\d)", text)


@pytest.mark.slow
def test_a_single_run_is_compared_with_nothing(tmp_path):
    run = fake_runs.write_run(tmp_path / "run", "eglpp", 0)
    assert command.main([str(run), f"--out={tmp_path / 'out'}"]) == 0
    reader = read(tmp_path / "out" / "index.html")
    assert "compared with" not in reader.text and "Area under" not in reader.text
    assert "eglpp alone, 1 seed" in reader.text
    assert not {"pairs", "layouts"} & {a["id"] for a in reader.all("section")}


def test_the_base_models_seconds_stand_apart(folder):
    table = page_tables.runs_table(gather([folder / "random", folder / "unfinished"]))
    cells = re.findall("<td[^>]*>(.*?)</td>", table)
    assert cells[2:4] == ["2 of 2", "18"]  # eglpp, a cycle behind: two choices
    assert cells[6:9] == ["10", "10", "4"]
    assert cells[15:18] == ["10", "20", "4"]


def test_tables_sort_by_numbers_and_are_written(report):
    reader = read(report / "index.html")
    assert len(reader.all("table")) >= 8
    values = [a["data-value"] for a in reader.all("td") if "data-value" in a]
    assert len(values) > 50 and all(np.isfinite(float(v)) for v in values)
    for end in ("md", "tex", "csv"):
        assert (report / "tables" / f"scores.{end}").stat().st_size > 100
    for plot in ("learning_curves", "score_against_loss", "embedding_map"):
        for end in ("png", "pdf"):
            assert (report / "plots" / f"{plot}.{end}").stat().st_size > 1000


def test_how_fast_each_run_went_is_told(folder):
    found = gather([folder / "random", folder / "unfinished"])
    cells = re.findall("<td[^>]*>(.*?)</td>", page_tables.throughput_table(found))
    # Two cycles and three: compiling is their sum, memory the most.
    assert cells == [
        *("eglpp", "1", "40", "25", "-", "-", "20", "-", "2.0"),
        *("random", "0", "40", "25", "-", "-", "30", "-", "3.0"),
    ]


def test_of_runs_without_a_throughput_nothing_is_told(tmp_path):
    recorded_runs.write_run(tmp_path, "random", 0, [0.5, 0.6])
    assert not page_tables.throughput_table(gather([tmp_path]))


def test_a_line_says_whose_pictures_they_are(report):
    text = read(report / "index.html").text
    assert text.count("Drawn figures: nobody is shown.") == 5  # under each gallery


@pytest.mark.slow
def test_without_images_no_image_of_the_data_is_in(folder, tmp_path):
    assert command.main([str(folder), f"--out={tmp_path}", "--no-images"]) == 0
    text = (tmp_path / "index.html").read_text("utf-8")
    assert "data:image/jpeg" not in text
    reader = read(tmp_path / "index.html")
    assert "poses alone are drawn" in reader.text
    sections = [a["id"] for a in reader.all("section")]
    assert sections == [name for name in SECTIONS if name != "terms"]


@pytest.mark.slow
def test_data_that_are_not_there_are_a_warning(tmp_path, monkeypatch):
    monkeypatch.delenv("JALPOSE_DATA", raising=False)
    data = {"name": "lsp", "dir": str(tmp_path / "none")}
    run = fake_runs.write_run(tmp_path / "run", "eglpp", 0, data=data)
    assert command.main([str(run), f"--out={tmp_path / 'out'}"]) == 0
    text = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert "cannot be read, poses are drawn without" in text
    assert "data:image/jpeg" not in text
    assert "labels" in [
        a["id"] for a in read(tmp_path / "out" / "index.html").all("section")
    ]


def test_damaged_arrays_are_a_warning(tmp_path):
    run = fake_runs.write_run(tmp_path / "run", "eglpp", 0)
    (run / "arrays" / "cycle_00.npz").write_bytes(b"PK damaged")
    assert command.main([str(run), f"--out={tmp_path / 'out'}"]) == 0
    text = read(tmp_path / "out" / "index.html").text
    assert "cycle_00.npz is damaged" in text


def test_a_run_of_one_cycle_is_a_report(tmp_path):
    run = fake_runs.write_run(tmp_path / "run", "random", 0, done=1)
    assert command.main([str(run), f"--out={tmp_path / 'out'}"]) == 0
    assert "cycles 1 to 2 of 0 to 2" in read(tmp_path / "out" / "index.html").text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{}/nowhere"], "is not a folder"),
        (["{}/empty"], "no run to report on"),
        (["{}/random", "--reference=egl"], "unknown reference method 'egl'"),
    ],
    ids=["no folder", "nothing", "reference"],
)
def test_a_report_of_nothing_says_so(folder, tmp_path, capsys, arguments, message):
    (folder / "empty").mkdir(exist_ok=True)
    given = [text.format(folder) for text in arguments]
    assert command.main([*given, f"--out={tmp_path / 'out'}"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "index.html").exists()


def test_a_folder_in_a_files_place_is_named(folder, tmp_path, capsys):
    (tmp_path / "index.html").mkdir()
    assert command.main([str(folder), f"--out={tmp_path}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        f"error: {tmp_path / 'index.html'} cannot be read or written"
    )


def test_a_page_of_somebody_elses_is_not_written_over(folder, tmp_path, capsys):
    page = tmp_path / "index.html"
    page.write_text("<h1>My holidays</h1>")
    assert command.main([str(folder), f"--out={tmp_path}"]) == 2
    assert "nothing is written over" in capsys.readouterr().err
    assert page.read_text() == "<h1>My holidays</h1>"


@pytest.mark.slow
def test_a_whole_report_is_written_without_jax(folder, tmp_path):
    code = (
        "import sys\n"
        "from jalpose.report import __main__ as command\n"
        f"assert command.main([{str(folder)!r}, {f'--out={tmp_path}'!r}]) == 0\n"
        "heavy = {'jax', 'flax', 'grain', 'optax', 'orbax', 'tensorflow_datasets'}\n"
        "sys.exit(', '.join(heavy & sys.modules.keys()) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "index.html").exists()


@pytest.mark.slow
def test_a_first_report_says_nothing_of_fonts(tmp_path):
    # matplotlib looks for fonts once a machine, and tells of it where that takes long:
    # here at once. A folder without runs, as that is before anything is drawn.
    code = (
        "import runpy, sys, threading\n"
        "at_once = lambda _, *rest, timer=threading.Timer: timer(0.0, *rest)\n"
        "threading.Timer = at_once\n"
        f"sys.argv = ['report', {str(tmp_path)!r}, {f'--out={tmp_path}'!r}]\n"
        "runpy.run_module('jalpose.report', run_name='__main__')"
    )
    fonts = tmp_path / "fonts"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "MPLCONFIGDIR": str(fonts)},
        capture_output=True,
        text=True,
    )
    assert list(fonts.glob("fontlist*"))  # it has looked for them
    assert done.stdout == "" and done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


def test_infinite_numbers_stand_under_each_other_and_do_not_sort():
    cells = [[page.Cell("[-inf, +3]", -math.inf)], [None]]
    shown = page.table(["interval"], cells)
    assert shown.count('class="number"') == 3 and "data-value" not in shown


def test_text_is_escaped_and_markup_is_not():
    bold = page.element("strong", "a < b", title='"quoted"')
    assert bold == '<strong title="&quot;quoted&quot;">a &lt; b</strong>'
    assert page.join(["<", bold, None]) == f"&lt;{bold}-"
    row = page.table(["<h>"], [["<c>"], [1.5], [float("nan")]], "<t>", ["<n>"])
    for tag in ("h", "c", "t", "n"):
        assert f"<{tag}>" not in row and f"&lt;{tag}&gt;" in row
    assert row.count("data-value") == 1


def test_a_long_table_opens_on_a_press():
    assert page.table(["a"], [[1]] * 100, "Long").startswith("<details>")
    assert "<details>" not in page.table(["a"], [[1]] * 5, "Short")


def test_labels_are_ranked_by_gradient_norm(report, folder):
    with open(report / "label_check.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == interpret.LABEL_CHECK_COLUMNS
    norms = [float(row["gradient_norm"]) for row in rows]
    assert norms == sorted(norms, reverse=True)
    # Of figures each seed has its own.
    keys = [(row["key"], row["seed"]) for row in rows]
    assert len(set(keys)) == len(keys)
    top = rows[0]
    run = {("eglpp", "1"): "unfinished"}.get(
        (top["method"], top["seed"]), top["method"]
    )
    arrays = records.read_arrays(folder / run, int(top["cycle"]))
    chosen = {
        row["key"]: row["id"]
        for row in records.read_selection(folder / run, int(top["cycle"]))
    }
    place = np.searchsorted(arrays["ids"], chosen[top["key"]])
    assert norms[0] == pytest.approx(np.sqrt(arrays["true_squared_norms"][place]))
    assert float(top["loss"]) == pytest.approx(arrays["true_losses"][place])
    losses = sorted(rows, key=lambda row: int(row["rank_by_loss"]))
    assert [row["loss"] for row in losses] == sorted(
        (row["loss"] for row in rows), key=float, reverse=True
    )


def test_the_gallery_shows_the_highest_scores_first(report, folder):
    text = (report / "index.html").read_text("utf-8")
    section = text[text.index('<section id="neighbours">') :].split("</section>")[0]
    shown = re.findall(r'class="tile query">.*?<strong>(.*?)</strong>', section)
    arrays = records.read_arrays(folder / "eglpp", 0)
    order = arrays["ids"][np.argsort(-arrays["scores"], kind="stable")]
    keys = [f"figures/{number:06d}" for number in order]
    assert shown == [*keys[:6], *keys[::-1][:6]]


def test_peaks_are_told_with_their_heights(folder, report):
    text = (report / "index.html").read_text("utf-8")
    section = text[text.index('<section id="peaks">') :].split("</section>")[0]
    arrays = records.read_arrays(folder / "multipeak_entropy", 0)
    row = int(np.argmax(arrays["scores"]))
    joint = int(np.argmax(arrays["joint_entropy"][row]))
    maps = pictures.heatmaps_of(arrays, int(arrays["ids"][row]))[..., joint]
    count = arrays["num_peaks"][row, joint]
    heights = [f"{maps[y, x]:.3g}" for x, y in arrays["peak_positions"][row, joint]]
    said = f"{count} peak{'s' * int(count > 1)}: {', '.join(heights[:count])}"
    first = re.findall(r'class="row">(.*?)</div>', section)[0]
    assert said in first and "<img" in first
    assert section.count('class="tile query"') == 8
