"""Are approximate gradient norms good enough for my model? On a network of your own.

    python scripts/examples/are_approximate_norms_good_enough.py

Gradient norms rank images: what counts is whether an approximation ranks them alike.
Put your own network, loss and images in the place of those below.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.stats import spearmanr

from jalpose.pergrad import api


class Network(nn.Module):
    """A small convolutional network of four classes."""

    @nn.compact
    def __call__(self, images):
        """Logits [B, 4] of images [B, 16, 16, 1]."""
        for width in (16, 32):
            images = nn.relu(nn.Conv(width, (3, 3))(images))
            images = nn.avg_pool(images, (2, 2), strides=(2, 2))
        return nn.Dense(4)(images.reshape(len(images), -1))


def bars(count: int, seed: int):
    """Noisy images of a bar in one of four directions: [N, 16, 16, 1], classes [N]."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(4, size=count)
    y, x = np.mgrid[:16, :16] - 7.5
    turned = np.pi / 4 * classes[:, None, None]
    across = x * np.sin(turned) - y * np.cos(turned) + rng.normal(0, 2, (count, 1, 1))
    images = np.exp(-(across**2) / 2) + rng.normal(0, 0.4, (count, 16, 16))
    return images[..., None].astype(np.float32), classes


def loss(logits, label):
    """Cross-entropy of one example."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, label)


def train(model, images, labels, steps=150):
    """The parameters after some steps of Adam, on all images at once."""
    variables = model.init(jax.random.key(0), images[:1])
    optimiser = optax.adam(1e-2)

    def mean_loss(variables):
        return jnp.mean(jax.vmap(loss)(model.apply(variables, images), labels))

    @jax.jit
    def step(variables, state):
        updates, state = optimiser.update(jax.grad(mean_loss)(variables), state)
        return optax.apply_updates(variables, updates), state

    state = optimiser.init(variables)
    for _ in range(steps):
        variables, state = step(variables, state)
    return variables


def main(count: int = 400):
    """Print, and return by engine, the rank correlation and the shared top tenth."""
    model, (images, labels) = Network(), bars(count, seed=0)
    variables = train(model, images[: count // 4], labels[: count // 4])
    pool, classes = images[count // 4 :], labels[count // 4 :]
    norms = {}
    for engine in ("ghost", "conv_linear", "goodfellow"):
        measure = jax.jit(partial(api.squared_norms, engine, model.apply, loss))
        norms[engine] = np.asarray(measure(variables, pool, classes[:, None]).total)[
            :, 0
        ]
    exact, top = norms.pop("ghost"), len(pool) // 10
    best, found = set(np.argsort(-exact)[:top].tolist()), {}
    print(f"against exact norms, of {len(pool)} images:")
    for engine, values in norms.items():
        correlation = float(spearmanr(exact, values).statistic)
        shared = len(best & set(np.argsort(-values)[:top].tolist())) / top
        error = float(np.median(np.abs(values - exact) / exact))
        found[engine] = correlation, shared
        print(
            f"{engine:12} rank correlation {correlation:.3f}, {shared:.0%} of the top "
            f"tenth, median error of the squared norm {error:.0%}"
        )
    return found


if __name__ == "__main__":
    main()
