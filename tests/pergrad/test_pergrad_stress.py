"""Networks and inputs drawn at random against float64, by every exact engine.

A thousand draws, and what the worst of them was off by:

    python -m pytest -m slow -n 0 -s tests/pergrad/test_pergrad_stress.py
"""

import collections

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalpose.pergrad import api
from jalpose.pergrad.api import Engine
from tests.support.networks import Net, oracle_norms, variables_of

B, K = 3, 2
# Each network is compiled once, and run on all of these.
INPUTS = ("noise", "flat", "nearly flat", "equal", "large", "small", "zeros")
ACTIVATIONS = (nn.relu, jnp.tanh, nn.gelu, lambda x: x)


def inner(output, cotangent):
    return jnp.sum(output * cotangent)


def draw_network(draws):
    """(network, shape of an example, its dtype, number of indices if it takes them)."""
    kind = draws.choice(["image", "image", "sequence", "sequence", "ids", "vector"])
    channels = int(draws.choice([1, 3, 8, 16, 64]))
    steps = []
    if kind == "image":
        shape = (*(int(n) for n in draws.integers(3, 8, 2)), channels)
    elif kind == "vector":
        shape = (channels,)
    else:
        shape = (int(draws.integers(1, 9)), channels)
    if kind == "ids":
        steps.append(nn.Embed(7, channels))
        shape = shape[:1]
    for _ in range(int(draws.integers(1, 3))):
        features = int(draws.choice([4, 8, 32]))
        if kind == "image":
            grouped = channels in (4, 8) and features >= 8 and draws.random() < 0.3
            window = tuple(int(n) for n in draws.integers(1, 4, 2))
            padding = str(draws.choice(["SAME", "VALID", "CIRCULAR"]))
            steps.append(
                nn.Conv(
                    features,
                    window,
                    int(draws.choice([1, 1, 2])),
                    padding=padding,
                    feature_group_count=channels if grouped else 1,
                )
            )
        elif kind != "vector" and draws.random() < 0.2:
            features = 8
            steps.append(
                nn.MultiHeadDotProductAttention(2, qkv_features=8, out_features=8)
            )
        else:
            steps.append(nn.Dense(features, use_bias=bool(draws.random() < 0.7)))
        channels = features
        norms = [nn.LayerNorm(), nn.RMSNorm(), nn.BatchNorm(use_running_average=True)]
        if kind != "vector":
            norms += [nn.GroupNorm(2), nn.InstanceNorm(), nn.InstanceNorm()]
        if draws.random() < 0.5:
            steps.append(norms[draws.integers(len(norms))])
        steps.append(ACTIVATIONS[draws.integers(len(ACTIVATIONS))])
        if kind == "image" and min(shape[:2]) < 6:
            break  # the next might have nothing left
    ending = draws.choice(["as it is", "mean", "flat"]) if kind != "vector" else ""

    def body(module, x):
        x = x if kind == "ids" else x.astype(jnp.promote_types(jnp.float32, x.dtype))
        for number, step in enumerate(steps):
            if isinstance(step, nn.Module):
                step = step.clone(name=f"step{number}", parent=module)
            x = step(x)
        if ending == "mean":
            x = x.mean(axis=tuple(range(1, x.ndim - 1)))
        if ending in ("mean", "flat"):
            x = nn.Dense(3)(x.reshape(len(x), -1))
        return x

    dtypes = [np.float32, np.float32, np.float16, np.uint8]
    dtype = np.int32 if kind == "ids" else dtypes[draws.integers(len(dtypes))]
    return Net(body), shape, np.dtype(dtype), 7 if kind == "ids" else 0


def draw_inputs(draws, kind, shape, dtype, indices):
    shape = (B, *shape)
    if indices:
        found = draws.integers(0, indices, shape)
        if kind in ("flat", "nearly flat", "zeros"):
            found[:] = found.flat[0]
    else:
        found = draws.normal(size=shape)
        scale = {"large": 1e3, "small": 1e-3, "zeros": 0.0}.get(kind, 1.0)
        if kind in ("flat", "nearly flat"):
            found = 0.5 + (kind != "flat") * 10 ** draws.uniform(-4, -1) * found
        found = scale * found
        if dtype == np.uint8:
            found = np.clip(found + 3, 0, 255)
    if kind == "equal":
        found[:] = found[:1]
    return found.astype(dtype)


def draw_cotangents(draws, shape):
    sizes = 10 ** draws.uniform(-12, 4, (B, K))
    found = draws.normal(size=(B, K, *shape)) * np.expand_dims(
        sizes, tuple(range(2, 2 + len(shape)))
    )
    if len(shape) > 1 and draws.random() < 0.3:  # as behind a normalisation
        found -= found.mean(axis=tuple(range(2, found.ndim - 1)), keepdims=True)
    return found.astype(np.float32)


def compare(seed, worst):
    """Errors of a network's draws, added to `worst`: the number of draws."""
    draws = np.random.default_rng(seed)
    net, *about = draw_network(draws)
    inputs = [draw_inputs(draws, kind, *about) for kind in INPUTS]
    variables = variables_of(net, inputs[0], seed)
    shape = jax.eval_shape(net.apply, variables, inputs[0]).shape[1:]
    weights = draws.uniform(0.1, 1, (B, K)).astype(np.float32)

    @jax.jit
    def norms(variables, inputs, cotangents):
        arguments = net.apply, inner, variables, inputs, cotangents
        exact, ghost = (
            api.squared_norms(engine, *arguments).total for engine in ("exact", "ghost")
        )
        sketch = api.expected_squared_norm(
            Engine("sketch", passes=K), *arguments, weights
        ).total
        return exact, ghost, sketch

    for kind, x in zip(INPUTS, inputs, strict=True):
        cotangents = draw_cotangents(draws, shape)
        exact, ghost, sketch = map(np.asarray, norms(variables, x, cotangents))
        wanted = oracle_norms(net.apply, variables, x, cotangents)
        summed = np.sum(weights * wanted, axis=1)

        def error(found, wanted):
            with np.errstate(all="ignore"):
                off = np.abs(found.astype(np.float64) / wanted - 1)
            return np.where(wanted == found, 0, off)

        sure = error(exact, wanted) < 1e-5
        both = sure.all(axis=1)
        found = {
            "exact": error(exact, wanted)[sure],
            "ghost": error(ghost, wanted)[sure],
            "sketch": error(sketch, summed)[both],
        }
        worst["norms"] += int(sure.sum())
        worst["unsure"] += int((~sure).sum())
        for engine, errors in found.items():
            largest = errors.max(initial=0)
            # Not of NaN, which is no number below.
            assert largest < 1e-4, (engine, seed, kind, largest, about, str(net))
            worst[engine] = max(worst[engine], float(largest))
    return len(INPUTS)


@pytest.mark.slow
def test_networks_drawn_at_random_are_exact():
    worst = collections.defaultdict(float)
    assert sum(compare(seed, worst) for seed in range(5)) >= 35
    assert worst["norms"] > 5 * worst["unsure"]


@pytest.mark.slow
def test_a_thousand_draws_are_exact():
    worst, count, seed = collections.defaultdict(float), 0, 1000
    while count < 1000:
        count += compare(seed, worst)
        seed += 1
        jax.clear_caches()
    print(f"\n{count} draws, {seed - 1000} networks: {dict(worst)}")
    assert worst["norms"] > 5 * worst["unsure"]
