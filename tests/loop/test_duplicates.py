"""Nothing is bought twice: equal images once, and by option near duplicates once."""

import types

import numpy as np
import pytest
from ml_collections import ConfigDict

from jalpose.acquisition.method import Pool, Selection
from jalpose.data.dataset import Labelled
from jalpose.loop import duplicates, wording
from jalpose.storage import records

LABELLED = np.array([0, 1])
POOL = np.arange(2, 62)


def dataset(digests, windows=None):
    return types.SimpleNamespace(
        digests=tuple(digests), windows=windows, initial=LABELLED, pool=POOL
    )


class Falling:
    """Chooses by falling id, and notes how many it is asked for."""

    def __init__(self):
        self.asked = []

    def acquire(self, key, probe, pool, budget):
        self.asked.append(budget)
        scores = pool.unlabelled.astype(np.float32)
        return Selection(pool.unlabelled[::-1][:budget], scores, {}, {"own": 1.0})


class Probe:
    """Embeddings on a line: places by id."""

    def __init__(self, places):
        self.places = np.asarray(places, float)

    def embeddings(self, ids):
        return self.places[ids][:, None]


def choose(data, way, budget=8, probe=None):
    pool = Pool(POOL, Labelled(LABELLED, {}, LABELLED > 0, LABELLED > 9))
    method = Falling()
    found = duplicates.acquire(method, None, probe, pool, budget, data, way)
    return found, method.asked


def thrice():
    """60 images of the pool that are 3; a labelled one equals the first of them."""
    return dataset(["a", "x", *("abc"[i % 3] for i in range(60))])


def test_of_equal_images_one_is_chosen_and_none_that_is_labelled():
    found, asked = choose(thrice(), "once")
    # Ids 61, 60, 59 are c, b, a; a is labelled. No more are to be had.
    assert found.indices.tolist() == [61, 60]
    assert asked == [8, 16, 32, 60]
    assert found.summary == {
        "own": 1.0,
        "equal_chosen": 0,
        "equal_skipped": 58,
        "near_skipped": 0,
    }
    (line,) = wording.chosen(found.summary)
    assert line == "58 equal images of labelled or chosen ones were left out"


def test_asked_for_they_are_kept_and_warned_of():
    found, asked = choose(thrice(), "keep")
    assert found.indices.tolist() == list(range(61, 53, -1)) and asked == [8]
    assert found.summary["equal_chosen"] == 6
    (line,) = wording.chosen(found.summary)
    assert line.startswith("warning: 6 of the chosen are images equal to labelled or")


def test_a_choice_without_repeats_is_the_methods_own():
    digests = [str(i) for i in range(62)]
    for data in (dataset(digests), dataset([""] * 62)):  # unknown ones are no repeats
        found, asked = choose(data, "once")
        assert found.indices.tolist() == list(range(61, 53, -1)) and asked == [8]
        assert wording.chosen(found.summary) == []
        assert not duplicates.repeated(data)


def test_people_of_one_image_are_not_equal():
    windows = np.arange(62 * 3, dtype=np.float32).reshape(62, 3)
    found, _ = choose(dataset(["one"] * 62, windows), "once")
    assert len(found.indices) == 8
    windows[61] = windows[60]
    found, _ = choose(dataset(["one"] * 62, windows), "once")
    assert found.indices.tolist() == [61, *range(59, 52, -1)]


def test_near_duplicates_are_skipped_by_option():
    # Pairs of neighbours lie together; the last pair beside a labelled one.
    places = np.repeat(np.arange(31) * 10.0, 2) + np.tile([0, 0.1], 31)
    places[60:] = places[0] - 0.05
    data, probe = dataset([""] * 62), Probe(places)
    found, asked = choose(data, "skip", budget=4, probe=probe)
    assert found.indices.tolist() == [59, 57, 55, 53]
    assert found.summary["near_skipped"] >= 5 and asked == [4, 8, 16]
    same, _ = choose(data, "once", budget=4)
    assert same.indices.tolist() == [61, 60, 59, 58]
    assert wording.measured({"near_duplicates": 3})[0].startswith("warning: 3 pairs of")
    assert wording.measured({"near_duplicates": 0}) == wording.measured({}) == []


@pytest.mark.parametrize(
    ("data", "way", "refused"),
    [
        (thrice(), "once", True),
        (thrice(), "skip", True),
        (thrice(), "keep", False),
        (dataset([""] * 62), "once", False),
    ],
)
def test_an_older_run_on_equal_images_goes_on_as_it_was(tmp_path, data, way, refused):
    config = ConfigDict({"acquisition": {"duplicates": way}})
    records.write_config(tmp_path, {"config": {"acquisition": {"method": "random"}}})
    if refused:
        told = "set acquisition.duplicates=keep"
        with pytest.raises(records.WorkdirError, match=told):
            duplicates.refuse_older(config, data, tmp_path)
    else:
        duplicates.refuse_older(config, data, tmp_path)
    records.write_config(tmp_path, {"config": config.to_dict()})
    duplicates.refuse_older(config, data, tmp_path)
