"""Outputs that are trees, losses that see more than outputs, some of the parameters."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalpose.pergrad import api
from tests.support.gradients import each_gradient, flat
from tests.support.networks import Net, random, square_loss, variables_of

B, K = 3, 2


def autoencoder():
    """A variational one: the loss sees the input, by way of the output."""

    def body(m, x):
        h = jnp.tanh(nn.Dense(6, name="encoder")(x["image"]))
        mean, spread = nn.Dense(2, name="mean")(h), nn.Dense(2, name="spread")(h)
        z = mean + jnp.exp(spread / 2) * x["noise"]
        made = nn.Dense(5, name="decoder")(z)
        return {"made": made, "mean": mean, "spread": spread, "image": x["image"]}

    def loss(output, weight):
        mean, spread = output["mean"], output["spread"]
        distance = jnp.sum(mean**2 + jnp.exp(spread) - spread - 1) / 2
        error = jnp.sum((output["made"] - output["image"]) ** 2)
        return error + weight * distance

    inputs = {"image": random(0, B, 5), "noise": random(1, B, 2)}
    return Net(body), loss, inputs, random(2, B, K) ** 2


def actor_critic():
    def body(m, x):
        h = jnp.tanh(nn.Dense(6)(x))
        return nn.Dense(4, name="policy")(h), nn.Dense(1, name="value")(h)[:, 0]

    def loss(output, target):
        logits, value = output
        chosen = jax.nn.log_softmax(logits)[target["action"]]
        return -chosen * target["advantage"] + (value - target["return"]) ** 2

    targets = {
        "action": np.random.default_rng(0).integers(0, 4, (B, K)),
        "advantage": random(1, B, K),
        "return": random(2, B, K),
    }
    return Net(body), loss, random(0, B, 5), targets


def detector():
    """Boxes and classes of a place each, and what was found as integers beside."""

    def body(m, x):
        h = nn.relu(nn.Conv(4, (3, 3))(x))
        classes = nn.Conv(3, (1, 1), name="classes")(h)
        boxes = nn.Conv(4, (1, 1), name="boxes")(h)
        return {"boxes": boxes, "classes": classes, "found": classes.argmax(-1)}

    def loss(output, target):
        there = (target["class"] >= 0) & (output["found"] >= 0)
        logs = jax.nn.log_softmax(output["classes"])
        labels = jnp.maximum(target["class"], 0)[..., None]
        missed = -jnp.take_along_axis(logs, labels, axis=-1)[..., 0]
        off = jnp.abs(output["boxes"] - target["boxes"]).sum(axis=-1)
        return jnp.sum(jnp.where(there, missed + off, 0.1 * missed))

    targets = {
        "class": np.random.default_rng(0).integers(-1, 3, (B, K, 4, 4)),
        "boxes": random(1, B, K, 4, 4, 4),
    }
    return Net(body), loss, random(0, B, 4, 4, 2), targets


CASES = {"VAE": autoencoder, "actor-critic": actor_critic, "detector": detector}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    """(apply_fn, loss, variables, inputs, targets), gradients [b, k, n]."""
    net, loss, inputs, targets = CASES[request.param]()
    variables = variables_of(net, inputs)
    arguments = net.apply, loss, variables, inputs, targets
    return arguments, flat(each_gradient(net.apply, *arguments[2:], loss))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def norms(engine, apply_fn, loss, *arrays):
    return api.squared_norms(engine, apply_fn, loss, *arrays).total


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ghost", "exact"])
def test_norms_of_a_tree_of_outputs(case, engine):
    arguments, rows = case
    found = norms(engine, *arguments)
    np.testing.assert_allclose(found, np.sum(rows**2, axis=-1), rtol=2e-5)


@pytest.mark.slow
def test_expected_norms_of_a_tree_of_outputs(case):
    arguments, rows = case
    weights = np.random.default_rng(0).random((B, K)).astype(np.float32)
    wanted = np.sum(weights * np.sum(rows**2, axis=-1), axis=1)
    # As many passes as candidates, and by way of the Gram of the last layers.
    for engine in ("ghost", api.Engine("sketch", passes=K)):
        found = jax.jit(
            lambda *arrays, engine=engine: api.expected_squared_norm(
                engine, *arguments[:2], *arrays
            )
        )(*arguments[2:], weights)
        np.testing.assert_allclose(found.total, wanted, rtol=1e-4)


@pytest.mark.slow
def test_sums_and_sketches_of_a_tree_of_outputs(case):
    arguments, rows = case

    @jax.jit
    def run(*arrays):
        options = {"size": 9, "key": jax.random.key(0)}
        return (
            api.norms_and_gradient("ghost", *arguments[:2], *arrays),
            api.sketches("ghost", *arguments[:2], *arrays, **options),
        )

    both, sketches = run(*arguments[2:])
    np.testing.assert_allclose(both.squared_norms, np.sum(rows**2, -1), rtol=2e-5)
    found = np.concatenate([np.ravel(g) for g in jax.tree.leaves(both.gradient)])
    wanted = rows.mean(axis=(0, 1))
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5 * scale)
    assert sketches.shape == (B, K, 9)


@pytest.mark.slow
def test_cotangents_are_a_tree_like_the_output():
    net, _, inputs, _ = actor_critic()
    variables = variables_of(net, inputs)
    cotangents = random(1, B, K, 4), random(2, B, K)
    rows = flat(
        each_gradient(
            net.apply,
            variables,
            inputs,
            cotangents,
            lambda y, r: jnp.sum(y[0] * r[0]) + y[1] * r[1],
        )
    )
    arrays = variables, inputs
    found = api.cotangent_squared_norms("ghost", net.apply, *arrays, cotangents)
    np.testing.assert_allclose(found.total, np.sum(rows**2, axis=-1), rtol=2e-5)
    with pytest.raises(ValueError, match="cotangents must be a tree like the output"):
        api.cotangent_squared_norms("ghost", net.apply, *arrays, cotangents[:1])
    with pytest.raises(ValueError, match=r"\[B, K, 4\], got \[B, 2, 3\]"):
        wrong = cotangents[0][..., :3], cotangents[1]
        api.cotangent_squared_norms("ghost", net.apply, *arrays, wrong)


def test_a_loss_that_sees_parameters_has_them_as_an_output():
    def apply_fn(variables, x):
        w = variables["params"]["w"]
        return {"y": x @ w, "decay": jnp.full(len(x), jnp.sum(w**2))}

    def loss(output, target):
        return square_loss(output["y"], target) + 0.1 * output["decay"]

    arrays = {"params": {"w": random(0, 5, 3)}}, random(1, B, 5), random(2, B, 1, 3)
    w, x, y = arrays[0]["params"]["w"], *arrays[1:]
    gradients = np.einsum("bi,bj->bij", x, x @ w - y[:, 0]) + 0.2 * w
    wanted = np.sum(gradients**2, axis=(1, 2))
    found = norms("ghost", apply_fn, loss, *arrays)
    np.testing.assert_allclose(found[:, 0], wanted, rtol=1e-5)


# Some of the parameters.


class Adapted(nn.Module):
    """A linear layer with a low-rank one beside it (LoRA)."""

    @nn.compact
    def __call__(self, x):
        down = self.param("lora_down", nn.initializers.normal(), (5, 2))
        up = self.param("lora_up", nn.initializers.normal(), (2, 4))
        y = nn.Dense(4, name="base")(x) + x @ down @ up
        return nn.Dense(3, name="head")(jnp.tanh(y))


def is_adapter(name):
    return "lora" in name


@pytest.fixture(scope="module")
def adapted():
    net, inputs, targets = Adapted(), random(0, B, 5), random(1, B, K, 3)
    arrays = variables_of(net, inputs), inputs, targets
    gradients = each_gradient(net.apply, *arrays)
    chosen = {name: g for name, g in gradients.items() if is_adapter(name)}
    return net.apply, arrays, flat(chosen)


def test_norms_of_some_of_the_parameters(adapted):
    apply_fn, arrays, rows = adapted
    wanted = np.sum(rows**2, axis=-1)
    for engine in ("ghost", "exact"):
        found = jax.jit(
            lambda *arrays, engine=engine: api.squared_norms(
                engine,
                apply_fn,
                square_loss,
                *arrays,
                by_tensor=True,
                trainable=is_adapter,
            )
        )(*arrays)
        np.testing.assert_allclose(found.total, wanted, rtol=2e-5)
        structure = jax.tree.structure(arrays[0]["params"])
        assert jax.tree.structure(found.by_tensor) == structure
        assert not found.by_tensor["base"]["kernel"].any()


def test_sums_of_some_of_the_parameters(adapted):
    apply_fn, arrays, rows = adapted

    @jax.jit
    def run(*arrays):
        arguments, options = (apply_fn, square_loss, *arrays), {"trainable": is_adapter}
        return (
            api.norms_and_gradient("ghost", *arguments, **options),
            api.weighted_gradient(*arguments, jnp.ones(B), **options),
            api.clipped_gradient("ghost", *arguments, jnp.inf, **options),
            api.inner_products(*arguments, **options),
        )

    both, total, cut, products = run(*arrays)
    for gradient, factor in ((both.gradient, B * K), (total, 1), (cut.gradient, 1)):
        assert gradient["base"]["kernel"] is None
        found = np.concatenate([np.ravel(g) for g in jax.tree.leaves(gradient)])
        np.testing.assert_allclose(factor * found, rows.sum(axis=(0, 1)), rtol=1e-3)
    np.testing.assert_allclose(both.squared_norms, np.sum(rows**2, -1), rtol=2e-5)
    wanted = np.einsum("bkn,cln->bkcl", rows, rows)
    np.testing.assert_allclose(products, wanted, rtol=1e-3, atol=1e-4 * wanted.max())


def test_sketches_of_some_of_the_parameters(adapted):
    apply_fn, arrays, rows = adapted
    arguments = "ghost", apply_fn, square_loss, *arrays
    options = {"size": rows.shape[-1], "trainable": is_adapter}
    keys = jax.random.split(jax.random.key(0), 200)
    found = jax.jit(
        lambda keys: jax.lax.map(
            lambda key: jnp.sum(api.sketches(*arguments, key=key, **options) ** 2, -1),
            keys,
        )
    )(keys)
    error = np.std(found, axis=0) / np.sqrt(len(keys))
    assert np.all(np.abs(found.mean(0) - np.sum(rows**2, axis=-1)) < 4.5 * error)
    with pytest.raises(ValueError, match=f"number of parameters, {rows.shape[-1]}"):
        options["size"] += 1
        api.sketches(*arguments, key=keys[0], **options)


def test_routes_of_some_of_the_parameters(adapted):
    apply_fn, (variables, inputs, _), _ = adapted
    found = api.routes(apply_fn, variables, inputs, trainable=is_adapter)
    assert [route.name for route in found] == ["lora_down", "lora_up"]
    with pytest.raises(ValueError, match=r"none of the parameters, .*base/bias"):
        api.routes(apply_fn, variables, inputs, trainable=lambda name: False)
