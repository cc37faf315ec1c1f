"""Small networks with a variance on bootstraps, all trained at once (EGL++ Eq. 8)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jalpose.acquisition.parts.label_models import Predicted
from jalpose.models.mlp import Mlp
from jalpose.tasks.registry import task_of

HIDDEN, STEPS, RATE = (16,), 500, 1e-2


class Trained(NamedTuple):
    """What networks say of a pool.

    Attributes:
      squared_norms: float64 [M], |grad f_z|^2 by the parameters of the one on all.
      predictions: float64 [M], f_z.
      labels: of the K on bootstraps.
    """

    squared_norms: np.ndarray
    predictions: np.ndarray
    labels: Predicted


def train(inputs, targets, pool, *, members: int, draws) -> Trained:
    """One network on all rows, and K on bootstraps: a row counts as often as it is in.

    Whole batches, Adam; the gradient is that of the number alone, as in Eq. 10.

    Args:
      inputs: [L, p].
      targets: [L].
      pool: [M, p].
      members: K.
      draws: NumPy's generator.
    """
    count = len(inputs)
    counts = draws.multinomial(count, np.full(count, 1 / count), size=members)
    weights = np.concatenate([np.ones((1, count)), counts]) / count
    task = task_of("regression").NumberTask(
        columns=inputs.shape[1], mean=0.0, scale=1.0, variance=True
    )
    model, optimizer = Mlp(task.num_outputs, HIDDEN), optax.adam(RATE)

    def predict(params, rows) -> Any:
        said: Any = model.apply(params, rows)
        return said.prediction

    def moments(params, row):
        return task.moments(predict(params, row[None])[0])

    def loss(params, weight):
        known = targets, jnp.ones(count, bool)
        each = jax.vmap(task.loss)(predict(params, inputs), known)
        return jnp.sum(weight * each)

    def trained(key, weight):
        params = model.init(key, inputs)

        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params, weight), state)
            return (optax.apply_updates(params, updates), state), None

        start = params, optimizer.init(params)
        return jax.lax.scan(step, start, length=STEPS)[0][0]

    def squared_norm(params, row):
        tree = jax.grad(lambda params: moments(params, row)[0])(params)
        return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree))

    keys = jax.random.split(jax.random.key(int(draws.integers(2**31))), members + 1)
    every = jax.jit(jax.vmap(trained))(keys, weights)
    over = jax.vmap(jax.vmap(moments, (None, 0)), (0, None))
    means, variances = map(np.asarray, jax.jit(over)(every, pool))
    whole = jax.tree.map(lambda leaf: leaf[0], every)
    norms = np.asarray(jax.jit(jax.vmap(squared_norm, (None, 0)))(whole, pool))
    labels = Predicted(means[1:].T, variances[1:].T)
    return Trained(norms, means[0], labels)
