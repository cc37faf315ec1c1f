"""What the READMEs show works as it stands there, and what they name is there."""

import inspect
import re
import runpy
import textwrap
from pathlib import Path

import jax
import numpy as np
import pytest

from jalpose.acquisition.registry import METHODS
from jalpose.loop import configs
from jalpose.settings.scales import SCALES
from tests.support import small

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README]
for folder in ("configs", "jalpose", "scripts"):
    PAGES += sorted((ROOT / folder).rglob("*.md"))
LARGEST = 9 * 1024  # bytes of README.md
# The page that shows the code after a marker.
SHOWN_IN = {
    "method": "jalpose/acquisition/README.md",
    "config": "configs/README.md",
    "norms": "jalpose/pergrad/README.md",
}

_LINK = re.compile(r"\]\((?P<file>[^)#\s]*)(#(?P<heading>[^)\s]*))?\)")
# From the root: configs/x.py, jalpose/room/, scripts/{one,other}.py.
_PATH = re.compile(r"(?<![\w./-])(?:configs|jalpose|scripts|tests)/[\w./{},-]*[\w/]")


def name_of(page):
    return str(page.relative_to(ROOT))


def code_after(marker):
    """The indented block behind an HTML comment."""
    page = SHOWN_IN[marker]
    text = (ROOT / page).read_text()
    found = re.search(rf"<!-- {marker} -->\n((?:    .*\n|\n)+)", text)
    assert found, f"{page} has no block {marker}"
    return textwrap.dedent(found.group(1))


def headings_of(page):
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def spelt_out(path):
    """The paths that a path with braces stands for."""
    found = re.search(r"{(.*?)}", path)
    if found is None:
        return [path]
    return [path.replace(found[0], one, 1) for one in found[1].split(",")]


@pytest.mark.parametrize("joints", [1, 3])
def test_the_method_it_shows_chooses_by_the_lowest_peaks(joints):
    module: dict = {}
    exec(compile(code_after("method"), "least_peak.py", "exec"), module)
    method = module["LeastPeak"](joints=joints)
    probe = small.probe(small.flat_passes(), small.flat_variables())
    pool = small.pool(small.dataset().pool[:12])
    ids = pool.unlabelled
    found = method.acquire(jax.random.key(0), probe, pool, 4)
    images = small.crops(ids)["image"].astype(np.float32) / 255
    maps = small.flat_apply(small.flat_variables(), images).prediction[:, -1]
    peaks = np.sort(np.asarray(maps).max(axis=(1, 2)), axis=1)
    lowest = peaks[:, :joints].mean(axis=1)
    np.testing.assert_allclose(found.scores, -lowest, rtol=1e-4)
    np.testing.assert_array_equal(found.indices, ids[np.argsort(lowest)[:4]])


def test_the_config_it_shows_is_one():
    module: dict = {}
    exec(compile(code_after("config"), "my_figures.py", "exec"), module)
    config = module["get_config"]("seed=3")
    assert (config.name, config.scale, config.seed) == ("my_figures", "small", 3)
    assert config.data.pool == 2000
    assert config.acquisition.method == "coreset"
    for scale in SCALES:
        configs.check(module["get_config"](f"scale={scale}"))


@pytest.mark.slow
def test_the_norms_it_shows_are_those_of_the_gradients(capsys):
    shown: dict = {}
    exec(compile(code_after("norms"), "norms.py", "exec"), shown)
    variables, x, y = shown["variables"], shown["x"], shown["y"]

    def loss(params, example, label):
        output = shown["apply_fn"]({"params": params}, example[None])[0]
        return shown["loss_fn"](output, label)

    for example, label in ((0, 0), (4, 2)):
        gradient = jax.grad(loss)(variables["params"], x[example], y[example, label])
        squares = {name: float((g**2).sum()) for name, g in gradient.items()}
        found = shown["result"]
        assert found.total[example, label] == pytest.approx(sum(squares.values()))
        hidden = found.by_tensor["hidden"][example, label]
        assert hidden == pytest.approx(squares["hidden"], rel=1e-5)
    assert "way='" in capsys.readouterr().out


def test_a_table_lists_every_method_once():
    page = (ROOT / "jalpose/acquisition/README.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert sorted(rows) == sorted(METHODS)


def test_the_first_page_names_every_method_once():
    table = README.read_text().partition("| by | methods |")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"`(\w+)`", table)) == sorted(METHODS)


def test_the_page_of_methods_lists_the_paper_of_each():
    listed = (ROOT / "jalpose/acquisition/README.md").read_text().partition("## Papers")
    listed = " ".join(listed[2].split())
    missing = {}
    for name, method in METHODS.items():
        said = " ".join(inspect.getmodule(method).__doc__.split())
        # The first that a module names is the method's own.
        paper = re.search(r"\b[A-Z]\w*[A-Z]\b (?:\S+, )?(?:19|20)\d\d\b", said)
        if paper and paper[0].replace("NIPS", "NeurIPS", 1) not in listed:
            missing[name] = paper[0]
    assert not missing


def test_it_is_told_who_labels_own_photos():
    page = (ROOT / "jalpose/oracles/README.md").read_text()
    said = re.findall(r"^\| `(\w+)` \|.*`configs/own_photos\.py`", page, re.MULTILINE)
    config = runpy.run_path(str(ROOT / "configs/own_photos.py"))["get_config"]("")
    assert said == [config.oracle.name]


def test_the_annotator_plays_with_the_labels_that_were_put_aside():
    pages = [page.read_text() for page in PAGES]
    pages.append((ROOT / "scripts/play_annotator.py").read_text())
    files = [re.findall(r"play_annotator\.py .*--labels=(\S+)", page) for page in pages]
    aside = re.findall(r"^    mv \S+ (\S+\.csv)$", "\n".join(pages), re.MULTILINE)
    assert {file for found in files for file in found} == set(aside)


def test_the_first_page_is_short():
    assert len(README.read_bytes()) <= LARGEST


def test_the_first_page_leads_to_all_others():
    linked = {found["file"] for found in _LINK.finditer(README.read_text())}
    assert linked >= {name_of(page) for page in PAGES} - {"README.md"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for found in _LINK.finditer(page.read_text()):
        file, heading = found["file"], found["heading"]
        if file.startswith("https://"):
            continue
        target = page.parent / file if file else page
        assert target.exists(), file
        assert heading is None or heading in headings_of(target), found[0]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_are_named_are_there(page):
    named = _PATH.findall(page.read_text())
    paths = {path for name in named for path in spelt_out(name)}
    missing = {path for path in paths if not (ROOT / path).exists()}
    assert not missing
