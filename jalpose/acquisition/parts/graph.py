"""A graph convolution network that tells labelled nodes from unlabelled ones.

Caramalau, Bhattarai & Kim, "Sequential Graph Convolutional Network for Active
Learning", CVPR 2021. A node is an example, its features x the network's embedding at
length 1. With S the products of all pairs of them, the adjacency is

    A = D^-1 (S - I) + I

where D has the sums of the rows of S - I (Eq. 1 there). Two layers: the hidden features
are relu(A X W1 + b1), the probability of being labelled is sigmoid(A H w2 + b2), H the
hidden features under dropout; the loss is the mean of -log p over the labelled nodes
and, with the weight lambda, the mean of -log(1 - p) over the unlabelled ones.

No graph is held: S is a product of the features with themselves, so A times anything is
two thin products. M nodes of C features take memory for a few [M, C], split over the
devices, in the place of [M, M], and the result is the same. So there is no limit on the
nodes but that; `acquisition.pool_subset` draws the papers' sub-pool.

We differ: a sum of a row below 1 counts as 1, else features of both signs, which the
paper's networks do not have, would turn weights round or make them as large as you
like. The biases, which the paper's equations do not show, start at zero; the kernels
by Glorot's uniform. Weight decay is added to the gradient, as was usual there.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jalpose.runtime import sharding
from jalpose.scoring.passes import example_keys

_KERNEL_INIT = jax.nn.initializers.glorot_uniform()


@dataclasses.dataclass(frozen=True)
class GraphNetwork:
    """Sizes of the network and how it learns.

    Attributes:
      hidden: features of the hidden layer.
      dropout: of them, probability, in training.
      unlabelled_weight: of the unlabelled nodes' loss, lambda.
      learning_rate: of Adam.
      weight_decay: times the parameters, added to the gradient.
    """

    hidden: int
    dropout: float
    unlabelled_weight: float
    learning_rate: float
    weight_decay: float

    @property
    def optimizer(self):
        """Adam with its weight decay."""
        return optax.chain(
            optax.add_decayed_weights(self.weight_decay), optax.adam(self.learning_rate)
        )


class Nodes(NamedTuple):
    """The nodes of a graph, each array split over the devices; see `place`.

    Attributes:
      features: float32 [M, C], of length 1, or 0.
      ids: uint32 [M], of the examples: what is dropped goes by them.
      labelled: float32 [M], 1 or 0.
      unlabelled: float32 [M], 1 or 0; padding is neither.
    """

    features: Any
    ids: Any
    labelled: Any
    unlabelled: Any


class Graph(NamedTuple):
    """Nodes, and what of the adjacency is needed again and again.

    Attributes:
      nodes: of the graph.
      degrees: float32 [M], of each, itself left out; at least 1.
      gathered: float32 [M, C], adjacency times features.
    """

    nodes: Nodes
    degrees: Any
    gathered: Any


def place(mesh, parts, labelled: np.ndarray, ids: np.ndarray) -> Nodes:
    """Put the nodes on the devices, a part on each, padded.

    Args:
      mesh: of the devices.
      parts: embeddings [m, C] that follow each other, M rows together; may be mapped
        from a disk.
      labelled: bool [M].
      ids: int [M].
    """
    count = len(ids)
    length = -(-count // mesh.size) * mesh.size
    ends = np.cumsum([len(part) for part in parts])

    def features(rows):
        found = np.zeros((len(rows), parts[0].shape[1]), np.float32)
        for part, end in zip(parts, ends, strict=True):
            inside = (rows >= end - len(part)) & (rows < end)
            found[inside] = part[rows[inside] - (end - len(part))]
        return at_length_1(found)

    def padded(values, dtype):
        def make(rows):
            found = np.zeros(len(rows), dtype)
            found[rows < count] = values[rows[rows < count]]
            return found

        return make

    makers = (
        features,
        padded(ids, np.uint32),
        padded(labelled, np.float32),
        padded(~labelled, np.float32),
    )
    return Nodes(*(sharding.split_by_part(mesh, length, make) for make in makers))


def at_length_1(embeddings: np.ndarray) -> np.ndarray:
    """Rows [M, C] divided by their lengths; those of zeros stay."""
    # Scaled first, so that no square overflows.
    largest = np.abs(embeddings).max(axis=1, keepdims=True)
    scaled = embeddings / np.where(largest > 0, largest, 1)
    lengths = np.linalg.norm(scaled, axis=1, keepdims=True)
    return (scaled / np.where(lengths > 0, lengths, 1)).astype(np.float32)


@jax.jit
def connect(nodes: Nodes) -> Graph:
    """The graph of the nodes."""
    features = nodes.features
    degrees = jnp.maximum(features @ jnp.sum(features, axis=0) - 1, 1)
    graph = Graph(nodes, degrees, features)
    return graph._replace(gathered=propagate(graph, features))


def propagate(graph: Graph, values):
    """Adjacency times values [M, n]."""
    features = graph.nodes.features
    others = features @ (features.T @ values) - values
    return others / graph.degrees[:, None] + values


def init(network: GraphNetwork, key, width: int) -> dict:
    """State of a training's beginning: new parameters for features of this width."""
    keys = jax.random.split(key)
    params = {
        "hidden": {
            "kernel": _KERNEL_INIT(keys[0], (width, network.hidden)),
            "bias": jnp.zeros(network.hidden),
        },
        "out": {
            "kernel": _KERNEL_INIT(keys[1], (network.hidden, 1)),
            "bias": jnp.zeros(1),
        },
    }
    return {
        "params": params,
        "optimizer": network.optimizer.init(params),
        "loss": jnp.float32(jnp.nan),
    }


def hidden_features(params, graph: Graph):
    """Features of the hidden layer, float32 [M, H]."""
    layer = params["hidden"]
    return jax.nn.relu(graph.gathered @ layer["kernel"] + layer["bias"][None])


def log_odds(params, graph: Graph, hidden):
    """Log odds of being labelled, float32 [M]."""
    layer = params["out"]
    return propagate(graph, hidden @ layer["kernel"])[:, 0] + layer["bias"]


def loss(network: GraphNetwork, params, graph: Graph, key):
    """Of the labelled nodes and, weighted, of the unlabelled; `key` drops features."""
    hidden = hidden_features(params, graph)
    if network.dropout:
        keep = 1 - network.dropout

        def kept(key):
            return jax.random.bernoulli(key, keep, (network.hidden,))

        # A key each, by its id: the same wherever a node stands.
        mask = jax.vmap(kept)(example_keys(key, graph.nodes.ids))
        hidden = jnp.where(mask, hidden / keep, 0)
    odds = log_odds(params, graph, hidden)
    nodes = graph.nodes
    labelled = jnp.sum(nodes.labelled * jax.nn.softplus(-odds))
    unlabelled = jnp.sum(nodes.unlabelled * jax.nn.softplus(odds))
    return labelled / jnp.maximum(
        jnp.sum(nodes.labelled), 1
    ) + network.unlabelled_weight * unlabelled / jnp.maximum(
        jnp.sum(nodes.unlabelled), 1
    )


@functools.cache
def training(mesh, network: GraphNetwork, epochs: int):
    """The compiled training over some epochs: (state, graph, key, first) -> state.

    An epoch is one step, of all nodes; its key is `key` folded with its number, of
    which the first is `first`. The state is whole on each device.
    """

    def train(state, graph, key, first):
        def epoch(state, number):
            value, gradient = jax.value_and_grad(
                lambda params: loss(
                    network, params, graph, jax.random.fold_in(key, number)
                )
            )(state["params"])
            updates, optimizer = network.optimizer.update(
                gradient, state["optimizer"], state["params"]
            )
            params = optax.apply_updates(state["params"], updates)
            return {"params": params, "optimizer": optimizer, "loss": value}, None

        return jax.lax.scan(epoch, state, first + jnp.arange(epochs))[0]

    return jax.jit(train, out_shardings=_whole(mesh))


@functools.cache
def reading(mesh):
    """The compiled reading of a trained network: (params, graph) -> (hidden, odds).

    Hidden features [M, H] without dropout, log odds of being labelled [M], whole on
    each device.
    """

    def read(params, graph):
        hidden = hidden_features(params, graph)
        return hidden, log_odds(params, graph, hidden)

    return jax.jit(read, out_shardings=_whole(mesh))


def _whole(mesh):
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
