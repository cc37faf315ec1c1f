"""A problem of classes, and a network for it, so small that methods run in a test."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jalpose.acquisition.method import Pool
from jalpose.data.dataset import Labelled, join_sources
from jalpose.models.output import Features, Output
from jalpose.pergrad.api import Engine
from jalpose.scoring.passes import Examples, Passes
from jalpose.scoring.probe import Probe
from jalpose.storage.journal import Journal
from jalpose.tasks.classification.annotations import Annotations
from jalpose.tasks.classification.task import ClassTask
from jalpose.training.trainer import scale_images
from tests.support import small

SIZE, CLASSES = 16, ("red", "green", "blue", "grey", "none")
TASK = ClassTask(size=SIZE, num_classes=len(CLASSES))
POOL = np.arange(40, 51)  # two blocks, the second padded
COUNT = 60


class Tinted:
    """Noise, of which a channel is brighter."""

    def __init__(self, count=COUNT):
        keys = tuple(f"tinted/{i:03d}" for i in range(count))
        labels = np.random.default_rng(0).integers(0, len(CLASSES), count)
        labels[51:] = np.arange(count - 51) % len(CLASSES)  # tests have every class
        self.annotations = Annotations(
            keys=keys,
            files=keys,
            labels=labels.astype(np.int32),
            test=np.arange(count) >= 51,
            classes=CLASSES,
        )

    def image(self, index):
        draws = np.random.default_rng([1, index])
        image = draws.integers(0, 100, (SIZE, SIZE, 3))
        label = int(self.annotations.labels[index])
        if label < 4:
            image[..., label if label < 3 else slice(None)] += 90
        return image.astype(np.uint8)


@functools.cache
def dataset():
    """40 labelled, 11 in the pool, 9 for tests."""
    source = Tinted()
    return join_sources(
        [source],
        initial=np.arange(40),
        pool=POOL,
        test=np.arange(51, COUNT),
        truth={"class": source.annotations.labels},
        windows=None,
    )


class Pixels(nn.Module):
    """A convolution, batch norm, features at two levels, and a linear layer."""

    num_outputs: int = len(CLASSES)
    dropout: float = 0.0

    @nn.compact
    def __call__(self, images, train: bool = False, drop: bool | None = None) -> Output:
        x = nn.Conv(6, (4, 4), (2, 2), name="stem")(images)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(x)
        x = jnp.tanh(x)
        if self.dropout:
            dropped = nn.Dropout(self.dropout, broadcast_dims=(1, 2))
            x = dropped(x, not (train if drop is None else drop))
        embedding = jnp.mean(x, axis=(1, 2))
        logits = nn.Dense(self.num_outputs, name="logits")(embedding)
        features = Features(stacks=(x, x), levels=(x, x[:, ::2, ::2]))
        return Output(5 * logits, embedding, features)


NETWORK = Pixels(dropout=0.3)
apply = jax.jit(NETWORK.apply)


@functools.cache
def variables():
    blank = jnp.zeros((1, SIZE, SIZE, 3))
    leaves, tree = jax.tree.flatten(jax.jit(NETWORK.init)(jax.random.key(0), blank))
    draws = np.random.default_rng(1)
    noisy = [np.asarray(v) + 0.2 * draws.random(v.shape, np.float32) for v in leaves]
    return jax.tree.unflatten(tree, noisy)


def labels_of(data, ids):
    return data.truth_of(ids)


@functools.cache
def passes(devices=1, head=None, companion=None) -> Passes:
    return Passes(
        NETWORK,
        TASK,
        mesh=small.mesh(devices),
        threads=1,
        head=head,
        companion=companion,
    )


def probe(
    walker=None, weights=None, journal=None, pieces=10**9, engine="exact", data=None
) -> Probe:
    data = dataset() if data is None else data
    return Probe(
        passes() if walker is None else walker,
        variables() if weights is None else weights,
        Examples(data, functools.partial(labels_of, data)),
        journal=journal or Journal(),
        pieces=pieces,
        forward_block=8,
        gradient_block=8,
        engine=Engine(engine, microbatch=16),
    )


def labelled_set(ids=None) -> Labelled:
    ids = dataset().initial if ids is None else ids
    labels = dataset().truth_of(ids)
    return Labelled(ids, labels, labels["class"] >= 0, dataset().held_out(ids))


def pool(ids=POOL) -> Pool:
    return Pool(unlabelled=np.asarray(ids), labelled=labelled_set())


def images(ids=POOL):
    """Images of these examples, as the network takes them."""
    return scale_images(np.stack([dataset().image(i) for i in ids]))


def logits(ids=POOL, weights=None):
    """Logits of these examples: float64 [N, C]."""
    weights = variables() if weights is None else weights
    return np.asarray(apply(weights, images(ids)).prediction, np.float64)


def gradients(loss, ids=POOL):
    """Gradients of `loss(logits, number of the example)`, one at a time: trees.

    By plain autodiff of the whole network.
    """
    weights = dict(variables())
    params = weights.pop("params")

    @jax.jit
    def gradient(params, image, number):
        def of_params(params):
            output = NETWORK.apply({**weights, "params": params}, image[None])
            return loss(output.prediction[0], number)

        return jax.grad(of_params)(params)

    return [
        jax.tree.leaves(gradient(params, image, number))
        for number, image in enumerate(images(ids))
    ]


def square(leaf):
    return np.sum(np.asarray(leaf, np.float64) ** 2)


def softmax(values, temperature=1.0):
    """Float64, over the last axis."""
    scaled = np.asarray(values, np.float64) / temperature
    shares = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)
