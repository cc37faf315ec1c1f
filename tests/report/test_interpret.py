import json
from types import SimpleNamespace

import numpy as np
import pytest

from jalpose.report import interpret

# Label check


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


def test_without_norms_the_loss_ranks_and_what_is_unknown_is_last():
    bought = interpret.bought_labels([made_up_run([1.0, np.nan, 2.0])])
    assert [b.key for b in bought] == ["k2", "k0", "k1"]
    assert bought[0].gradient_norm is None and bought[2].loss is None
    assert json.dumps(interpret.label_check_rows(bought))  # no NaN of NumPy


# Ends, neighbours and maps


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


def test_a_map_made_in_blocks_is_that_of_the_whole():
    rng = np.random.default_rng(1)
    arrays = {"ids": np.arange(30), "selected": [3]}
    arrays["embeddings"] = rng.normal(size=(30, 4)).astype(np.float32) + 100
    arrays["labelled_embeddings"] = arrays["embeddings"][:5] + 3
    whole = interpret.map_embeddings(arrays)
    both = np.concatenate([arrays["embeddings"], arrays["labelled_embeddings"]])
    centred = both - both.mean(axis=0, dtype=np.float64)
    lengths = np.linalg.svd(centred)[1]
    assert whole.explained == pytest.approx(lengths[:2] ** 2 / (lengths**2).sum())
    blocks = interpret.map_embeddings(arrays, block_rows=7)
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
