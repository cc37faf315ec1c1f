"""CoreGCN and UncertainGCN: a graph network tells labelled from unlabelled examples.

Caramalau, Bhattarai & Kim, "Sequential Graph Convolutional Network for Active
Learning", CVPR 2021. The network is `parts.graph`, trained in every cycle from new
weights on the embeddings of all labelled examples and of those that are scored, with
the paper's settings: 128 hidden features, dropout 0.3, lambda 1.2, 200 epochs of Adam
at 1e-3 with weight decay 5e-4.

choose=core, CoreGCN, is core-set in the hidden features: each example chosen is the
farthest from all labelled and chosen ones. choose=uncertain, UncertainGCN, takes those
whose confidence, the probability of being labelled, is nearest to a margin of 0.1: of
|margin - confidence| the smallest first. The paper prints the largest, which would be
those that the network takes for labelled, the opposite of what its text wants.
"""

import dataclasses
import zlib
from typing import ClassVar

import jax
import numpy as np
from scipy.special import expit

from jalpose.acquisition.method import Method, Pool, Selection, by_score
from jalpose.acquisition.parts import graph, kcenter, points, spaces
from jalpose.acquisition.parts.graph import GraphNetwork
from jalpose.runtime import sharding
from jalpose.scoring.probe import digest
from jalpose.settings.checks import ConfigError, above, at_least, between, one_of

SECTION = "acquisition.core_gcn"
EPOCHS_AT_ONCE = 10  # between two states that are kept


@dataclasses.dataclass(frozen=True)
class CoreGcn(Method):
    """Coverage or confidence by a graph network over the embeddings.

    Attributes:
      choose: core (CoreGCN: k-centre in the hidden features) | uncertain (UncertainGCN:
        confidence near the margin).
      margin: of choose=uncertain, a probability.
      hidden: features of the hidden layer.
      dropout: of them in training, a probability.
      unlabelled_weight: of the unlabelled nodes' loss, the paper's lambda.
      epochs: of training, a step of all nodes each.
      learning_rate: of Adam.
      weight_decay: times the parameters, added to the gradient.
    """

    choose: str = "core"
    margin: float = 0.1
    hidden: int = 128
    dropout: float = 0.3
    unlabelled_weight: float = 1.2
    epochs: int = 200
    learning_rate: float = 1e-3
    weight_decay: float = 5e-4

    scales: ClassVar = {"tiny": {"hidden": 8, "epochs": 15}}

    def __post_init__(self):
        """Refuse options that cannot work."""
        one_of(f"{SECTION}.choose", self.choose, ("core", "uncertain"))
        between(f"{SECTION}.margin", self.margin, 0, 1)
        at_least(1, **{f"{SECTION}.hidden": self.hidden})
        at_least(1, **{f"{SECTION}.epochs": self.epochs})
        at_least(0, **{f"{SECTION}.weight_decay": self.weight_decay})
        above(0, **{f"{SECTION}.unlabelled_weight": self.unlabelled_weight})
        above(0, **{f"{SECTION}.learning_rate": self.learning_rate})
        if not 0 <= self.dropout < 1:
            raise ConfigError(
                f"{SECTION}.dropout={self.dropout} must be 0 or more, and below 1"
            )

    def acquire(self, key, probe, pool: Pool, budget) -> Selection:
        """Choose `budget` examples by the graph of their embeddings.

        The key draws the first weights and what is dropped. Held-out examples are
        labelled too, as for core-set.

        The explanation has `labelled_probability`, the confidence of each; with
        choose=core `nearest_distance` and `pick_distance` too, of core-set but in the
        hidden features, and scores are NaN.

        Raises:
          ValueError: nothing is labelled.
          FloatingPointError: an embedding is NaN or infinite; names the ids.
        """
        spaces.labelled_needed(pool, "core_gcn")
        order = np.argsort(pool.unlabelled, kind="stable")
        unlabelled, labelled = pool.unlabelled[order], np.sort(pool.labelled.ids)
        features, odds, loss = self._learn(key, probe, unlabelled, labelled)
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        here = len(unlabelled)
        confidence = expit(odds)
        explanation = {"labelled_probability": confidence[:here][back]}
        summary = {
            "graph_loss": loss,
            "mean_labelled_probability": float(confidence[:here].mean()),
            "mean_probability_of_labelled": float(confidence[here:].mean()),
        }
        if self.choose == "uncertain":
            scores = -np.abs(np.float32(self.margin) - confidence[:here])
            return by_score(pool.unlabelled, scores[back], budget, explanation, summary)
        cover = kcenter.greedy(
            features[:here],
            features[here:],
            min(budget, here),
            ids=unlabelled,
            centre_ids=labelled,
            mesh=probe.mesh,
        )
        chosen = order[cover.order]  # rows of the pool as it came
        return spaces.unscored(
            pool,
            chosen,
            {
                **explanation,
                "nearest_distance": cover.nearest[back],
                "pick_distance": spaces.at_turn(pool, chosen, cover.distances),
            },
            {
                **summary,
                "covering_radius_before": float(cover.nearest.max()),
                "covering_radius": cover.radius,
            },
        )

    def _learn(self, key, probe, unlabelled, labelled):
        """Hidden features and log odds of all nodes, unlabelled first, and the loss."""
        parts = [probe.embeddings(ids) for ids in (unlabelled, labelled)]
        for part, ids, name in zip(
            parts, (unlabelled, labelled), ("unlabelled", "labelled"), strict=True
        ):
            points.check_finite(part, ids, name)
        ids, mesh = np.concatenate([unlabelled, labelled]), probe.mesh
        is_labelled = np.arange(len(ids)) >= len(unlabelled)
        network = GraphNetwork(
            hidden=self.hidden,
            dropout=self.dropout,
            unlabelled_weight=self.unlabelled_weight,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
        )
        nodes = graph.connect(graph.place(mesh, parts, is_labelled, ids))
        keys = jax.random.split(key)
        begun = graph.init(network, keys[0], parts[0].shape[1])
        structure = jax.tree.structure(begun)

        def step(number, state):
            first = number * EPOCHS_AT_ONCE
            epochs = min(EPOCHS_AT_ONCE, self.epochs - first)
            learn = graph.training(mesh, network, epochs)
            tree = jax.tree.unflatten(structure, [state[k] for k in sorted(state)])
            tree = sharding.replicate(mesh, tree)
            found = learn(tree, nodes, keys[1], first)
            return flat(found)

        def flat(tree):
            leaves = jax.tree.leaves(sharding.to_host(tree))
            return {f"leaf{i:02d}": leaf for i, leaf in enumerate(leaves)}

        options = zlib.crc32(repr(network).encode())
        about = digest([options, *np.asarray(jax.random.key_data(key)), *ids])
        state = probe.iterate(
            f"graph-{about}",
            step,
            lambda: flat(begun),
            -(-self.epochs // EPOCHS_AT_ONCE),
        )
        tree = jax.tree.unflatten(structure, [state[k] for k in sorted(state)])
        params = sharding.replicate(mesh, tree["params"])
        features, odds = sharding.to_host(graph.reading(mesh)(params, nodes))
        return features[: len(ids)], odds[: len(ids)], float(tree["loss"])
