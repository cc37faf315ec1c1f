"""The graph network against a dense one in float64, and whether it learns."""

import functools

import jax
import numpy as np
import pytest

from jalpose.acquisition.parts import graph
from jalpose.acquisition.parts.graph import GraphNetwork
from tests.support import small

NETWORK = GraphNetwork(
    hidden=5,
    dropout=0.0,
    unlabelled_weight=1.2,
    learning_rate=0.05,
    weight_decay=0.02,
)
KEY = jax.random.key(3)
NUM, WIDTH = 11, 4
IDS = np.array([90, 7, 8, 3, 55, 21, 40, 41, 60, 61, 62])
LABELLED = np.arange(NUM) % 3 == 0


def embeddings(seed=0, signs=False):
    draws = np.random.default_rng(seed)
    found = draws.normal(1.0, 1.0, (NUM, WIDTH))
    return (found if signs else np.abs(found)).astype(np.float32)


def connected(values, devices=1, labelled=LABELLED, ids=IDS):
    parts = [values[:4], values[4:]]
    nodes = graph.place(small.mesh(devices), parts, labelled, ids)
    return graph.connect(nodes)


def dense(values):
    """The adjacency, element by element."""
    x = values.astype(np.float64)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    s = np.array([[a @ b for b in x] for a in x]) - np.eye(len(x))
    degrees = np.maximum(s.sum(axis=1), 1)
    return s / degrees[:, None] + np.eye(len(x)), x


@functools.cache
def parameters():
    draws = np.random.default_rng(5)
    params = graph.init(NETWORK, KEY, WIDTH)["params"]
    return jax.tree.map(
        lambda leaf: draws.normal(size=leaf.shape).astype(np.float32), params
    )


def dense_read(params, values):
    adjacency, x = dense(values)
    first, second = params["hidden"], params["out"]
    hidden = np.maximum(adjacency @ x @ first["kernel"] + first["bias"], 0)
    return hidden, (adjacency @ hidden @ second["kernel"] + second["bias"])[:, 0]


@pytest.mark.parametrize("signs", [False, True])
def test_propagation_is_a_product_with_the_papers_adjacency(signs):
    values = embeddings(signs=signs)
    found, others = connected(values), np.random.default_rng(1).normal(size=(NUM, 3))
    adjacency, x = dense(values)
    got = jax.jit(graph.propagate)(found, others.astype(np.float32))
    np.testing.assert_allclose(got, adjacency @ others, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.gathered, adjacency @ x, rtol=1e-4, atol=1e-5)
    if not signs:  # then a row of its weights, itself left out, adds up to 1
        np.testing.assert_allclose((adjacency - np.eye(NUM)).sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("devices", [1, 8])
def test_features_and_odds_are_those_of_the_dense_network(devices):
    values = embeddings()
    read = graph.reading(small.mesh(devices))
    hidden, odds = read(parameters(), connected(values, devices))
    wanted_hidden, wanted_odds = dense_read(parameters(), values)
    assert hidden.shape[0] == (NUM if devices == 1 else 16)
    np.testing.assert_allclose(hidden[:NUM], wanted_hidden, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(odds[:NUM], wanted_odds, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("devices", [1, 8])
def test_the_loss_weighs_the_unlabelled_by_lambda(devices):
    values = embeddings()
    _, odds = dense_read(parameters(), values)
    p = 1 / (1 + np.exp(-odds))
    wanted = -np.log(p[LABELLED]).mean() - 1.2 * np.log(1 - p[~LABELLED]).mean()
    found = jax.jit(graph.loss, static_argnums=0)(
        NETWORK, parameters(), connected(values, devices), KEY
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


@pytest.mark.slow
def test_training_is_adam_with_decay_in_the_gradient():
    values, state = embeddings(), graph.init(NETWORK, KEY, WIDTH)
    nodes = connected(values)
    # Its own Adam, by the gradient of the loss at hand.
    gradient = jax.jit(jax.grad(lambda params: graph.loss(NETWORK, params, nodes, KEY)))
    params = jax.tree.map(np.asarray, state["params"])
    first = jax.tree.map(np.zeros_like, params)
    second = jax.tree.map(np.zeros_like, params)
    for number in range(1, 5):
        slope = jax.tree.map(lambda g, p: g + 0.02 * p, gradient(params), params)
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, slope)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, slope)
        params = jax.tree.map(
            lambda p, m, v, t=number: (
                p - 0.05 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            ),
            params,
            first,
            second,
        )
    mesh = small.mesh()
    found = graph.training(mesh, NETWORK, 4)(state, nodes, KEY, 0)
    for got, wanted in zip(
        jax.tree.leaves(found["params"]), jax.tree.leaves(params), strict=True
    ):
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-5)


def dropping(dropout):
    return GraphNetwork(
        hidden=64,
        dropout=dropout,
        unlabelled_weight=1.2,
        learning_rate=1e-2,
        weight_decay=0.0,
    )


def test_what_is_dropped_goes_by_id_and_epoch_and_keeps_the_mean():
    values, network = embeddings(), dropping(0.3)
    params = graph.init(network, KEY, WIDTH)["params"]
    loss = jax.jit(graph.loss, static_argnums=0)
    here = float(loss(network, params, connected(values), KEY))
    # In another order on other devices, the same.
    order = np.random.default_rng(2).permutation(NUM)
    moved = connected(values[order], 8, LABELLED[order], IDS[order])
    np.testing.assert_allclose(loss(network, params, moved, KEY), here, rtol=1e-5)
    other = float(loss(network, params, connected(values), jax.random.key(4)))
    assert abs(other - here) > 1e-5
    whole = float(loss(dropping(0.0), params, connected(values), KEY))
    keys = [jax.random.fold_in(KEY, n) for n in range(30)]
    drawn = [float(loss(network, params, connected(values), key)) for key in keys]
    assert abs(np.mean(drawn) - whole) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [12])
def test_in_pieces_and_on_eight_devices_the_training_is_the_same(epochs):
    values, network = embeddings(), dropping(0.3)
    state = graph.init(network, KEY, WIDTH)
    one = graph.training(small.mesh(), network, epochs)
    whole = one(state, connected(values), KEY, 0)
    parts, half = state, graph.training(small.mesh(), network, epochs // 2)
    for first in (0, epochs // 2):
        parts = half(parts, connected(values), KEY, first)
    eight = graph.training(small.mesh(8), network, epochs)
    split = eight(state, connected(values, 8), KEY, 0)
    for other in (parts, split):
        np.testing.assert_allclose(other["loss"], whole["loss"], rtol=1e-4)
        for got, wanted in zip(
            jax.tree.leaves(other["params"]),
            jax.tree.leaves(whole["params"]),
            strict=True,
        ):
            np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4)


def test_nodes_like_the_labelled_are_taken_for_labelled():
    draws = np.random.default_rng(0)
    centres = np.array([[3.0, 0.2, 0.2], [0.2, 3.0, 0.2]])
    kind = np.arange(80) % 2
    values = np.abs(centres[kind] + 0.3 * draws.normal(size=(80, 3)))
    labelled = (kind == 0) & (np.arange(80) < 40)
    network = dropping(0.3)
    nodes = graph.place(
        small.mesh(), [values.astype(np.float32)], labelled, np.arange(80)
    )
    connected_nodes = graph.connect(nodes)
    state = graph.init(network, KEY, 3)
    learn = graph.training(small.mesh(), network, 100)
    learnt = learn(state, connected_nodes, KEY, 0)
    _, odds = graph.reading(small.mesh())(learnt["params"], connected_nodes)
    alike, others = odds[~labelled & (kind == 0)], odds[kind == 1]
    assert np.min(alike) > np.max(others)
    assert np.max(others) < 0


def test_lengths_are_1_however_large_and_zeros_stay():
    values = np.array([[3e30, 4e30], [0, 0], [1e-30, 0]], np.float32)
    found = graph.at_length_1(values)
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, 0], [1, 0]], rtol=1e-6)
    found = connected(np.zeros((NUM, WIDTH), np.float32))
    assert np.isfinite(found.gathered).all()
