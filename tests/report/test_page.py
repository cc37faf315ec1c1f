import csv
import dataclasses
import html.parser
import json
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from jalpose.data.source import DataError
from jalpose.report import __main__ as command
from jalpose.report import images, interpret, page, page_tables
from jalpose.report.gather import gather
from jalpose.settings.keys import default
from jalpose.storage import records
from jalpose.tasks.pose.benchmarks import load_dataset
from tests.support import fake_runs, miniature, mpii_miniature, recorded_runs

SECTIONS = [
    "state", "runs", "results", "tables", "scores", "chosen", "neighbours", "peaks",
    "confidence", "labels", "terms", "provenance",
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
    links = [a["href"] for a in reader.all("a")]
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
    assert all(a["href"].startswith("#") for a in reader.all("a"))
    assert not reader.all("link")
    assert all("src" not in a for a in reader.all("script"))
    assert not re.search(r"https?://|url\(|@import|fetch\(", text)
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


def test_without_images_no_image_of_the_data_is_in(folder, tmp_path):
    assert command.main([str(folder), f"--out={tmp_path}", "--no-images"]) == 0
    text = (tmp_path / "index.html").read_text("utf-8")
    assert "data:image/jpeg" not in text
    reader = read(tmp_path / "index.html")
    assert "poses alone are drawn" in reader.text
    sections = [a["id"] for a in reader.all("section")]
    assert sections == [name for name in SECTIONS if name != "terms"]


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


def test_it_starts_without_jax():
    code = (
        "import sys, jalpose.report.__main__, jalpose.report.write\n"
        "heavy = {'jax', 'flax', 'grain', 'optax', 'tensorflow_datasets'}\n"
        "sys.exit(', '.join(heavy & sys.modules.keys()) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


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


# Label check


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


def made_up_run(losses, squared=None, drawn=None):
    ids = np.arange(len(losses))
    arrays = {"ids": ids, "scores": ids * 1.0, "true_losses": np.array(losses)}
    if squared is not None:
        arrays["true_squared_norms"] = np.array(squared)
    rows = [{"id": i, "key": f"k{i}", "file": f"f{i}"} for i in ids.tolist()]
    return SimpleNamespace(
        method="egl",
        seed=0,
        drawn=drawn,
        cycles=[{"cycle": 0, "acquisition": {}}, {"cycle": 1, "acquisition": {"s": 1}}],
        arrays=lambda cycle: arrays,
        selection=lambda cycle: rows,
    )


def test_an_example_bought_twice_stands_as_where_its_norm_was_greatest():
    first = made_up_run([1.0, 9.0, 2.0], [4.0, 1.0, 9.0])
    second = made_up_run([3.0, 1.0, 1.0], [16.0, 0.0, 1.0])
    bought = interpret.bought_labels([first, second])
    assert [(b.key, b.gradient_norm, b.loss, b.purchases) for b in bought] == [
        ("k0", 4.0, 3.0, 2),
        ("k2", 3.0, 2.0, 2),
        ("k1", 1.0, 9.0, 2),
    ]
    assert [b.key for b in interpret.by_loss(bought)] == ["k1", "k0", "k2"]


def test_figures_of_two_seeds_are_two_though_their_keys_are_alike():
    runs = [made_up_run([1.0 + seed, 9.0], drawn=seed) for seed in (0, 1)]
    bought = interpret.bought_labels([*runs, runs[0]])
    assert [(b.key, b.loss, b.purchases) for b in bought] == [
        ("k1", 9.0, 2),
        ("k1", 9.0, 1),
        ("k0", 2.0, 1),
        ("k0", 1.0, 2),
    ]


def test_figures_are_drawn_from_the_seed_of_the_initial_set():
    config = default().to_dict()
    assert images.drawn_seed(config) is None  # photographs
    config["data"]["name"], config["seed"] = "figures", 3
    assert images.drawn_seed(config) == 3
    config["seeds"]["initial"] = 0
    assert images.drawn_seed(config) == 0
    config["data"] |= {"initial": 4, "pool": 3, "test": 2}
    library = images.open_library(config)
    config["seed"] = 5
    again = images.open_library(config)
    np.testing.assert_array_equal(library.joints, again.joints)


def test_without_norms_the_loss_ranks_and_what_is_unknown_is_last():
    bought = interpret.bought_labels([made_up_run([1.0, np.nan, 2.0])])
    assert [b.key for b in bought] == ["k2", "k0", "k1"]
    assert bought[0].gradient_norm is None and bought[2].loss is None
    assert json.dumps(interpret.label_check_rows(bought))  # no NaN of NumPy


# Galleries


def test_extremes_are_the_ends_and_never_overlap():
    values = np.array([3.0, np.nan, 1.0, 5.0, 2.0, np.inf])
    high, low = interpret.extremes(values, 2)
    assert high.tolist() == [3, 0] and low.tolist() == [2, 4]
    high, low = interpret.extremes(values[:4], 9)
    assert high.tolist() == [3, 0] and low.tolist() == [2]
    assert interpret.extremes(np.full(3, np.nan), 2)[0].size == 0


def test_neighbours_come_likeliest_first():
    arrays = {
        "neighbour_ids": np.array([[7, 8, 9]]),
        "neighbour_probabilities": np.array([[0.2, 0.7, 0.1]], np.float32),
    }
    found = interpret.neighbours_of(arrays, 0, 2)
    assert [example for example, _ in found] == [8, 7]
    assert found[0][1] == pytest.approx(0.7)


def test_the_gallery_shows_the_highest_scores_first(report, folder):
    text = (report / "index.html").read_text("utf-8")
    section = text[text.index('<section id="neighbours">') :].split("</section>")[0]
    shown = re.findall(r'class="tile query">.*?<strong>(.*?)</strong>', section)
    arrays = records.read_arrays(folder / "eglpp", 0)
    order = arrays["ids"][np.argsort(-arrays["scores"], kind="stable")]
    keys = [f"figures/{number:06d}" for number in order]
    assert shown == [*keys[:6], *keys[::-1][:6]]


def test_the_map_is_of_the_two_largest_variances_with_fixed_signs():
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(50, 4)) * (1.0, 9.0, 0.1, 4.0) + 7.0
    arrays = {"embeddings": embeddings, "ids": np.arange(50), "selected": [3, 4]}
    drawn = interpret.map_embeddings(arrays)
    variances = np.linalg.eigvalsh(np.cov(embeddings.T, bias=True))[::-1]
    np.testing.assert_allclose(drawn.places.var(axis=0), variances[:2])
    assert drawn.explained[0] == pytest.approx(variances[0] / variances.sum())
    assert np.flatnonzero(drawn.selected).tolist() == [3, 4]
    again = interpret.map_embeddings({**arrays, "embeddings": -embeddings + 1})
    np.testing.assert_allclose(again.places, -drawn.places, atol=1e-9)


def test_a_map_made_in_blocks_is_that_of_the_whole(monkeypatch):
    rng = np.random.default_rng(1)
    arrays = {"ids": np.arange(30), "selected": [3]}
    arrays["embeddings"] = rng.normal(size=(30, 4)).astype(np.float32) + 100
    arrays["labelled_embeddings"] = arrays["embeddings"][:5] + 3
    whole = interpret.map_embeddings(arrays)
    both = np.concatenate([arrays["embeddings"], arrays["labelled_embeddings"]])
    centred = both - both.mean(axis=0, dtype=np.float64)
    lengths = np.linalg.svd(centred)[1]
    assert whole.explained == pytest.approx(lengths[:2] ** 2 / (lengths**2).sum())
    monkeypatch.setattr(interpret, "_BLOCK", 7)
    blocks = interpret.map_embeddings(arrays)
    np.testing.assert_allclose(blocks.places, whole.places, atol=1e-9)
    np.testing.assert_allclose(blocks.labelled, whole.labelled, atol=1e-9)


@pytest.mark.parametrize("shape", [(1, 4), (6, 1)])
def test_a_map_of_what_hardly_varies_has_two_directions(shape):
    arrays = {"ids": np.arange(shape[0]), "selected": [0]}
    drawn = interpret.map_embeddings({**arrays, "embeddings": np.ones(shape)})
    assert drawn.places.tolist() == [[0.0, 0.0]] * shape[0]
    assert drawn.explained == (0.0, 0.0)


def test_labelled_examples_stand_on_the_map():
    rng = np.random.default_rng(0)
    arrays = {"ids": np.arange(30), "selected": [3]}
    arrays["embeddings"] = rng.normal(size=(30, 4))
    assert interpret.map_embeddings(arrays).labelled.shape == (0, 2)
    arrays["labelled_embeddings"] = arrays["embeddings"][[7, 9]]
    drawn = interpret.map_embeddings(arrays)
    assert drawn.places.shape == (30, 2) and drawn.selected.shape == (30,)
    np.testing.assert_allclose(drawn.labelled, drawn.places[[7, 9]])


def test_the_most_uncertain_joints_come_with_their_peaks():
    places = np.full((1, 3, 2, 2), -1)
    places[0, 1] = [[4, 5], [6, 7]]
    places[0, 2, 0] = 1, 2
    arrays = {"peak_positions": places}
    shares = np.array([[[0.0, 0.0], [0.5, 0.5], [1.0, 0.0]]])
    for more in (
        {"peak_probabilities": shares},
        {"joint_entropy": [[0.0, np.log(2), 0.0]]},
    ):
        first, second = interpret.most_uncertain_joints({**arrays, **more}, 0, 2)
        assert (first.joint, second.joint) == (1, 0)
        assert first.entropy == pytest.approx(np.log(2)) and second.entropy == 0
        assert first.places.tolist() == [[4, 5], [6, 7]] and len(second.places) == 0


def test_heatmaps_are_found_by_their_example():
    arrays = {"heatmap_ids": np.array([4, 9]), "heatmaps": np.arange(2)[:, None, None]}
    assert interpret.heatmaps_of(arrays, 9) == 1
    assert interpret.heatmaps_of(arrays, 5) is None
    assert interpret.heatmaps_of({}, 9) is None


def test_peaks_are_told_with_their_heights(folder, report):
    text = (report / "index.html").read_text("utf-8")
    section = text[text.index('<section id="peaks">') :].split("</section>")[0]
    arrays = records.read_arrays(folder / "multipeak_entropy", 0)
    row = int(np.argmax(arrays["scores"]))
    joint = int(np.argmax(arrays["joint_entropy"][row]))
    maps = interpret.heatmaps_of(arrays, arrays["ids"][row])[..., joint]
    count = arrays["num_peaks"][row, joint]
    heights = [f"{maps[y, x]:.3g}" for x, y in arrays["peak_positions"][row, joint]]
    said = f"{count} peak{'s' * int(count > 1)}: {', '.join(heights[:count])}"
    first = re.findall(r'class="row">(.*?)</div>', section)[0]
    assert said in first and "<img" in first
    assert section.count('class="tile query"') == 8


# Images


def test_figures_are_those_of_the_run():
    config = default()
    config.data.name, config.seed = "figures", 3
    config.data.initial, config.data.pool, config.data.test = 20, 6, 4
    dataset = load_dataset(config.data, config.seed)
    library = images.open_library(json.loads(config.to_json()))
    assert library.keys == dataset.keys and library.files == dataset.files
    np.testing.assert_array_equal(library.joints, dataset.joints)
    np.testing.assert_array_equal(library.windows, dataset.windows)
    for example in (0, 19, 20, 29):
        np.testing.assert_array_equal(library.image_of(example), dataset.image(example))
    with pytest.raises(DataError, match="no example 30"):
        library.image_of(30)


@pytest.mark.parametrize("name", ["lsp", "mpii"])
def test_files_are_read_as_a_run_reads_them(name, tmp_path):
    if name == "lsp":
        miniature.write_miniature(tmp_path, 24, 6)
    else:
        mpii_miniature.write_benchmark(tmp_path)
    config = default()
    config.data.name, config.data.dir = name, str(tmp_path)
    config.data.cache_dir, config.data.initial = str(tmp_path / "cache"), 12
    dataset = load_dataset(config.data, config.seed)
    library = images.open_library(json.loads(config.to_json()))
    assert library.keys == dataset.keys and library.files == dataset.files
    assert library.skeleton == dataset.skeleton
    np.testing.assert_array_equal(library.joints, dataset.joints)
    np.testing.assert_array_equal(library.status, dataset.status)
    np.testing.assert_array_equal(library.windows, dataset.windows)
    last = len(library.keys) - 1
    np.testing.assert_array_equal(library.image_of(last), dataset.image(last))
    (tmp_path / library.files[last]).unlink()
    with pytest.raises(DataError, match="cannot read"):
        library.image_of(last)


def test_other_data_than_the_runs_are_refused():
    config = fake_runs.config("egl", 0)
    library = images.open_library(config)
    images.check_keys(library, [{"id": 3, "key": library.keys[3]}])
    with pytest.raises(DataError, match="not the same data"):
        images.check_keys(library, [{"id": 3, "key": "lsp/im0001"}])


def test_a_lost_image_leaves_the_poses(tmp_path):
    library = images.open_library(fake_runs.config("egl", 0))

    def lost(example):
        raise DataError("gone")

    broken = dataclasses.replace(library, image_of=lost)
    pictures = images.Pictures(broken, library.skeleton)
    tile = pictures.tile(0)
    assert tile.mime == "image/png" and not tile.photograph
    assert pictures.unreadable == {0: "gone"}
    bare = images.Pictures(None, library.skeleton)
    assert bare.tile(0) is None
    assert bare.tile(0, library.joints[0]).mime == "image/png"
