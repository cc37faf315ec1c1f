"""What the README says of other libraries' networks, run as it stands there."""

import pathlib
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jalpose import pergrad
from jalpose.pergrad import api
from tests.support.gradients import each_gradient, flat
from tests.support.networks import random, square_loss

README = pathlib.Path(pergrad.__file__).with_name("README.md").read_text()
B = 3
X, Y = random(0, B, 6, 6, 2), random(1, B, 1, 3)


def recipe(heading):
    """The indented lines under a heading, as a program."""
    section = README.split(f"### {heading}\n")[1].split("\n#")[0]
    code = [line[4:] for line in section.splitlines() if re.match("    |$", line)]
    return "\n".join(code)


def run(heading, **names):
    """What a recipe makes of names that it is given."""
    found = {"jax": jax, "x": X, **names}
    exec(recipe(heading), found)
    return found["net"], found["apply_fn"], found["variables"]


def assert_norms(apply_fn, variables):
    @jax.jit
    def norms(variables, x, y):
        return [
            api.squared_norms(engine, apply_fn, square_loss, variables, x, y).total
            for engine in ("ghost", "exact")
        ]

    rows = flat(each_gradient(apply_fn, variables, X, Y))
    for found in norms(variables, X, Y):
        np.testing.assert_allclose(found, np.sum(rows**2, axis=-1), rtol=2e-5)
    ways = {route.shape: route.way for route in api.routes(apply_fn, variables, X)}
    for shape, way in ways.items():
        is_vector = np.prod(shape) == max(shape)
        assert is_vector or way in ("direct", "gram", "shifted"), (shape, way)


def test_linen():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(4, (3, 3))(x))
            return nn.Dense(3)(x.mean(axis=(1, 2)))

    _, apply_fn, variables = run("Flax Linen", Net=Net)
    assert_norms(apply_fn, variables)


def test_nnx():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(2, 4, (3, 3), rngs=rngs)
            self.norm = nnx.BatchNorm(4, rngs=rngs)
            self.drop = nnx.Dropout(0.5, rngs=rngs)
            self.head = nnx.Linear(4, 3, rngs=rngs)

        def __call__(self, x):
            x = nnx.relu(self.norm(self.conv(x)))
            return self.head(self.drop(x).mean(axis=(1, 2)))

    net, apply_fn, variables = run("Flax NNX", nnx=nnx, Net=Net)
    np.testing.assert_allclose(apply_fn(variables, X), net(X), rtol=1e-5)
    assert_norms(apply_fn, variables)


@pytest.mark.slow
def test_equinox():
    eqx = pytest.importorskip("equinox", reason="equinox is not installed: .[dev]")

    class Net(eqx.Module):
        conv: eqx.nn.Conv2d
        drop: eqx.nn.Dropout
        head: eqx.nn.Linear

        def __init__(self, key):
            one, two = jax.random.split(key)
            self.conv = eqx.nn.Conv2d(2, 4, 3, key=one)
            self.drop = eqx.nn.Dropout(0.5)
            self.head = eqx.nn.Linear(4, 3, key=two)

        def __call__(self, x):
            x = jax.nn.relu(self.conv(x.transpose(2, 0, 1)))
            return self.head(self.drop(x.mean(axis=(1, 2))))

    net, apply_fn, variables = run("Equinox", eqx=eqx, Net=Net)
    np.testing.assert_allclose(apply_fn(variables, X)[0], net(X[0]), rtol=1e-5)
    assert_norms(apply_fn, variables)


@pytest.mark.slow
def test_haiku():
    hk = pytest.importorskip("haiku", reason="dm-haiku is not installed: .[dev]")

    def forward(x):
        x = jax.nn.relu(hk.Conv2D(4, 3)(x))
        return hk.Linear(3)(jnp.mean(x, axis=(1, 2)))

    net, apply_fn, variables = run("Haiku", hk=hk, forward=forward)
    found = net.apply(variables["params"], X)
    np.testing.assert_allclose(apply_fn(variables, X), found, rtol=1e-5)
    assert_norms(apply_fn, variables)
