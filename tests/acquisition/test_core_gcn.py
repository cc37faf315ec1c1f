"""CoreGCN and UncertainGCN: what is chosen of a trained graph, and how it goes on."""

import jax
import numpy as np
import pytest

from jalpose.acquisition.core_gcn import CoreGcn
from jalpose.acquisition.parts import kcenter
from jalpose.scoring.probe import Paused
from jalpose.settings.checks import ConfigError
from jalpose.storage.journal import FolderJournal
from tests.support import small

POOL = np.arange(40, 59)
KEY = jax.random.key(0)
TINY = {"hidden": 6, "epochs": 25}


def acquire(choose, key=KEY, budget=5, ids=POOL, **options):
    probe = small.probe(small.flat_passes(), small.flat_variables(), **options)
    method = CoreGcn(choose=choose, **TINY)
    return method.acquire(key, probe, small.pool(ids), budget)


def test_uncertain_takes_confidence_nearest_to_the_margin():
    found = acquire("uncertain")
    confidence = found.explanation["labelled_probability"]
    assert ((confidence > 0) & (confidence < 1)).all()
    distance = np.abs(0.1 - confidence)
    np.testing.assert_allclose(found.scores, -distance, rtol=1e-5)
    nearest = POOL[np.argsort(distance, kind="stable")[:5]]
    assert found.indices.tolist() == nearest.tolist()


def test_core_is_k_centre_in_the_hidden_features(monkeypatch):
    given = {}

    def watched(embeddings, centres, budget, **options):
        given.update(pool=embeddings, centres=centres, **options)
        return greedy(embeddings, centres, budget, **options)

    greedy = kcenter.greedy
    monkeypatch.setattr(kcenter, "greedy", watched)
    found = acquire("core")
    labelled = small.labelled_set().ids
    assert given["pool"].shape == (len(POOL), TINY["hidden"])
    assert given["centres"].shape == (len(labelled), TINY["hidden"])
    assert (given["pool"] >= 0).all()  # behind a ReLU
    # Each pick is the farthest from all before it.
    centres = list(given["centres"].astype(np.float64))
    for chosen in found.indices:
        distances = [
            min(np.linalg.norm(row - centre) for centre in centres)
            for row in given["pool"].astype(np.float64)
        ]
        row = POOL.tolist().index(chosen)
        assert distances[row] >= max(distances) - 1e-6
        np.testing.assert_allclose(
            found.explanation["pick_distance"][row], distances[row], rtol=1e-4
        )
        centres.append(given["pool"][row].astype(np.float64))
    assert np.isnan(found.scores).all()


@pytest.mark.parametrize("choose", ["core", "uncertain"])
def test_the_key_decides_and_the_order_of_the_pool_does_not(choose):
    found, again = acquire(choose), acquire(choose)
    assert found.indices.tolist() == again.indices.tolist()
    probability = found.explanation["labelled_probability"]
    assert probability.tobytes() == again.explanation["labelled_probability"].tobytes()
    order = np.random.default_rng(0).permutation(len(POOL))
    moved = acquire(choose, ids=POOL[order])
    assert moved.indices.tolist() == found.indices.tolist()
    for name, values in found.explanation.items():
        np.testing.assert_allclose(
            moved.explanation[name], values[order], rtol=1e-5, err_msg=name
        )
    other = acquire(choose, key=jax.random.key(1))
    assert not np.array_equal(other.explanation["labelled_probability"], probability)


def test_a_training_broken_off_goes_on_from_its_last_kept_state(tmp_path):
    whole = acquire("uncertain")
    pauses, found, told = 0, None, []
    while found is None:
        # As in a process begun anew: the journal is read from the disk.
        journal = FolderJournal(tmp_path / "journal")
        probe = small.probe(
            small.flat_passes(), small.flat_variables(), journal=journal, pieces=1
        )
        method = CoreGcn(choose="uncertain", **TINY)
        try:
            found = method.acquire(KEY, probe, small.pool(POOL), 5)
        except Paused:
            pauses += 1
            told.append(probe.progress)
    assert [row for row in told if row[0] == "graph"] == [
        ("graph", 1, 3),
        ("graph", 2, 3),
    ]
    assert found.indices.tolist() == whole.indices.tolist()
    assert found.scores.tobytes() == whole.scores.tobytes()
    assert found.summary == whole.summary


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"choose": "margin"}, "choose: 'margin'"),
        ({"margin": 1.5}, "margin=1.5 must lie between 0 and 1"),
        ({"hidden": 0}, "hidden=0 must be at least 1"),
        ({"epochs": 0}, "epochs=0 must be at least 1"),
        ({"dropout": 1.0}, "dropout=1.0 must be 0 or more, and below 1"),
        ({"unlabelled_weight": 0.0}, "unlabelled_weight=0.0 must be above 0"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0 must be above 0"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0 must be at least 0"),
    ],
)
def test_options_that_cannot_work_are_refused(change, message):
    with pytest.raises(ConfigError, match=rf"acquisition\.core_gcn\.{message}"):
        CoreGcn(**change)


def test_the_papers_settings_are_the_defaults():
    method = CoreGcn()
    assert (method.hidden, method.dropout, method.epochs) == (128, 0.3, 200)
    assert (method.learning_rate, method.weight_decay) == (1e-3, 5e-4)
    assert (method.unlabelled_weight, method.margin) == (1.2, 0.1)
