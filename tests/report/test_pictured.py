"""Galleries of a made-up task whose pictures have neither maps nor a ranking."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from jalpose.data.source import DataError
from jalpose.report import pictured
from jalpose.report.evidence import first_choices
from jalpose.report.gather import gather
from jalpose.tasks.pictures import Key, Terms
from tests.support import fake_runs


class Squares:
    """Draws a square as bright as the first number of the prediction."""

    noun, one = "squares", "a square"
    prediction = ("embeddings",)
    legend = (Key("bright", (255, 0, 0), 3), Key("dark", (0, 0, 0), 3, hollow=True))
    heats = ranking = None
    overview_text = ""

    def draw(self, library, example, image, predicted, *, labelled, size):
        if predicted is None and image is None:
            return None
        picture = np.zeros((size, size, 3), np.uint8) if image is None else image.copy()
        if predicted is not None:
            picture[: size // 2] = min(255, int(abs(predicted["embeddings"][0]) * 20))
        return picture

    def overview(self, arrays, example):
        return None


class Library:
    name = "figures"

    def __init__(self, keys, broken=()):
        self.keys, self.broken = keys, broken

    def crop(self, example, size):
        if example in self.broken:
            raise DataError(f"{example} is lost")
        return np.full((size, size, 3), 100, np.uint8)


def task(open_library):
    return SimpleNamespace(
        TITLE="guessing squares",
        TERMS={"figures": Terms("drawn squares", "Nobody is shown.", "No terms.")},
        drawn_seed=lambda config: config["seed"],
        open_library=open_library,
        make_pictures=lambda config: Squares(),
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for method in ("random", "eglpp"):
        fake_runs.write_run(folder / method, method, 0)
    return gather([folder])


def sections(found, open_library, **options):
    made = pictured.Sections(task(open_library), found, "random", **options)
    choices = list(first_choices(found, lambda run, cycle: run.arrays(cycle)))
    return made, made.explanations(choices)


def keys_of(found):
    chosen = {r["id"]: r["key"] for run in found.runs for c in (0, 1)
              for r in run.selection(c)}  # fmt: skip
    return [chosen.get(i, f"k{i}") for i in range(100)]


def test_galleries_are_drawn_by_the_task(found):
    library = Library(keys_of(found), broken=range(20))
    made, parts = sections(found, lambda config, data_dir: library)
    assert [part.anchor for part in parts] == ["chosen", "neighbours"]
    assert all("Nobody is shown." in part.body for part in parts)
    assert all('class="key hollow"' in part.body for part in parts)
    assert parts[0].body.count("<img") == 2 * 6
    assert made.title({"figures"}) == "guessing squares: drawn squares"
    assert made.title({"other"}) == "guessing squares: other"
    (line,) = made.problems()
    assert re.match(r"\d+ images could not be read; the first: \d+ is lost", line)
    assert "No terms." in made.terms().body
    assert made.prediction == ("embeddings",) and made.one == "a square"


def test_without_photographs_nothing_of_the_data_is_drawn(found):
    library = Library(keys_of(found))
    made, parts = sections(found, lambda *_: library, photographs=False)
    assert "squares alone are drawn" in parts[0].body
    assert "image/jpeg" not in parts[0].body and made.terms() is None


def test_other_data_are_told_and_predictions_drawn_without(found):
    library = Library([f"k{i}" for i in range(100)])
    made, parts = sections(found, lambda *_: library)
    assert all("not the same data" in line for line in made.problems())
    assert "squares are drawn without" in made.problems()[0]
    assert parts[0].body.count("image/png") == 2 * 6
    assert "no picture" in parts[1].body  # of neighbours there is no prediction
