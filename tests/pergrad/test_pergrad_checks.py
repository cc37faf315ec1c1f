"""What has no per-example norm is refused, and what went wrong is named."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from jalpose.pergrad import api, checks
from jalpose.pergrad.api import ENGINES, Engine
from tests.support import small
from tests.support.networks import Net, random, square_loss, variables_of

B, K = 4, 2
DENSE = nn.Dense(3)
INPUTS = random(0, B, 5)
VARIABLES = variables_of(DENSE, INPUTS)
TARGETS = random(1, B, K, 3)
WEIGHTS = np.full((B, K), 0.5, np.float32)


def norms(apply_fn=DENSE.apply, variables=VARIABLES, inputs=INPUTS, targets=TARGETS):
    return api.squared_norms("ghost", apply_fn, square_loss, variables, inputs, targets)


# Examples that are not independent.


def normed(module, x):
    return nn.BatchNorm(use_running_average=False, name="norm")(nn.Dense(3)(x))


TRAINING = Net(normed)
TRAINING_VARIABLES = variables_of(TRAINING, INPUTS)


def in_training_mode(variables, x):
    return TRAINING.apply(variables, x, mutable=["batch_stats"])[0]


@pytest.mark.parametrize("count", [1, 2, B])
@pytest.mark.parametrize("engine", ["exact", "sketch"])
def test_batch_norm_in_training_mode_is_refused(engine, count):
    arguments = (
        engine,
        in_training_mode,
        square_loss,
        TRAINING_VARIABLES,
        INPUTS[:count],
        TARGETS[:count],
        WEIGHTS[:count],
    )
    with pytest.raises(ValueError, match=r"depends on the others .*training mode\?"):
        api.expected_squared_norm(*arguments)


def test_examples_that_meet_are_refused():
    def centred(variables, x):
        return DENSE.apply(variables, x - x.mean(axis=0, keepdims=True))

    def rolled(variables, x):
        return DENSE.apply(variables, x + 0.1 * jnp.roll(x, 1, axis=0))

    for apply_fn in (centred, rolled):
        with pytest.raises(ValueError, match="output of an example depends on"):
            norms(apply_fn)
        with pytest.raises(ValueError, match="output of an example depends on"):
            checks.independent(apply_fn, VARIABLES, INPUTS)


def test_examples_that_do_not_meet_are_none_of_these():
    checks.independent(DENSE.apply, VARIABLES, INPUTS)
    checks.independent(DENSE.apply, VARIABLES, INPUTS[:1])
    # A step in the network may turn rounding into more, not into this much.
    checks.independent(
        lambda variables, x: jnp.sign(DENSE.apply(variables, x)), VARIABLES, INPUTS
    )


def test_nothing_is_looked_at_under_jit():
    # With all arguments traced, and with all of them closed over.
    wanted = norms().total
    np.testing.assert_allclose(
        jax.jit(lambda v, x, t: norms(DENSE.apply, v, x, t).total)(
            VARIABLES, INPUTS, TARGETS
        ),
        wanted,
        rtol=1e-5,
    )
    found = jax.jit(lambda targets: norms(targets=targets).total)(TARGETS)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


# Shapes.


@pytest.fixture
def no_hook(monkeypatch):
    """Shapes as a user has them checked, who has no import hook that looks first."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def test_annotations_are_checked_here():
    arguments = DENSE.apply, square_loss, VARIABLES, INPUTS
    with pytest.raises(jaxtyping.TypeCheckError, match="parameter 'targets'"):
        api.squared_norms("ghost", *arguments, TARGETS[:3])
    with pytest.raises(jaxtyping.TypeCheckError, match="parameter 'weights'"):
        api.expected_squared_norm("ghost", *arguments, TARGETS, WEIGHTS[:, 0])
    with pytest.raises(jaxtyping.TypeCheckError, match="parameter 'weights'"):
        api.expected_squared_norm("ghost", *arguments, TARGETS, WEIGHTS > 0)


@pytest.mark.parametrize(
    ("targets", "weights"),
    [
        (TARGETS[:3], WEIGHTS),
        (TARGETS, WEIGHTS[:3]),
        (TARGETS, WEIGHTS[:, :1]),
        (TARGETS, WEIGHTS[:, 0]),
        ((TARGETS, TARGETS[:, :1]), WEIGHTS),
        (TARGETS[:, 0, 0], WEIGHTS),
    ],
)
def test_targets_and_weights_of_other_numbers_are_refused(no_hook, targets, weights):
    def loss(output, target):
        return square_loss(output, jax.tree.leaves(target)[0])

    arguments = (DENSE.apply, loss, VARIABLES, INPUTS, targets, weights)
    with pytest.raises(ValueError, match=r"must be \[B, K, \.\.\.\].*B=\[4\]"):
        api.expected_squared_norm("ghost", *arguments)


def test_inputs_of_differing_numbers_are_refused(no_hook):
    inputs = {"a": INPUTS, "b": INPUTS[:3]}
    with pytest.raises(ValueError, match=r"B=\[3, 4\]"):
        norms(lambda v, x: DENSE.apply(v, x["a"]), inputs=inputs)


@pytest.mark.parametrize("engine", ["ghost", "exact", "goodfellow"])
def test_an_output_that_is_not_one_array_of_a_row_each_is_refused(engine):
    def two(variables, x):
        y = DENSE.apply(variables, x)
        return y, jnp.mean(y)

    def rowless(variables, x):
        return DENSE.apply(variables, x)[0]

    for apply_fn, shapes in ((two, r"\(\(1, 3\), \(\)\)"), (rowless, r"\(3,\)")):

        @jax.jit  # before anything else could complain
        def run(inputs, apply_fn=apply_fn):
            return api.squared_norms(
                engine, apply_fn, square_loss, VARIABLES, inputs, TARGETS
            )

        with pytest.raises(ValueError, match=f"must return one array .*{shapes}"):
            run(INPUTS)


def test_a_network_that_returns_its_statistics_is_told_so():
    def apply_fn(variables, x):
        return TRAINING.apply(variables, x, mutable=["batch_stats"])

    def loss(output, target):
        return square_loss(output[0], target)

    with pytest.raises(
        ValueError, match=r"no updated statistics|depends on the others"
    ):
        api.squared_norms("ghost", apply_fn, loss, TRAINING_VARIABLES, INPUTS, TARGETS)


def test_a_mesh_has_to_divide_the_examples():
    with pytest.raises(ValueError, match="4 examples do not split evenly over 8 dev"):
        api.squared_norms(
            "ghost",
            DENSE.apply,
            square_loss,
            VARIABLES,
            INPUTS,
            TARGETS,
            mesh=small.mesh(8),
        )


# Engines.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "gost"}, "unknown engine 'gost'. Known: exact, ghost, "),
        ({"products": "float16"}, "unknown products='float16'. Known: float32, bfl"),
        ({"microbatch": -1}, "microbatch=-1 must be >= 0"),
        ({"passes": 0}, "passes=0 must be at least 1"),
        ({"passes": 0, "split_mean": False}, "passes=0 must be at least 1"),
        ({"remainder": -1}, "remainder=-1"),
        ({"passes": 2, "remainder": 2}, "passes=2 must be .*remainder=2 and.* mean: 3"),
    ],
)
def test_engines_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Engine(**options)


def test_engines_are_values():
    assert Engine("ghost", 3) == Engine(microbatch=3) and hash(Engine()) == hash(
        Engine()
    )
    assert Engine("sketch", passes=2, split_mean=False, remainder=2).remainder == 2
    assert set(ENGINES) == {"exact", "ghost", "goodfellow", "conv_linear", "sketch"}


# Numbers that are none.


def test_norms_that_are_not_finite_are_named():
    values = np.ones((15, 2), np.float32)
    checks.finite(values, range(15))
    checks.finite(values[:, 0], range(15))
    values[3, 1], values[7, 0] = np.nan, np.inf
    with pytest.raises(FloatingPointError, match=r"2 of 15 examples .*: k3, k7\. "):
        checks.finite(values, [f"k{n}" for n in range(15)])
    with pytest.raises(FloatingPointError, match=r"12 of 15 .*: 0, 1, .*, 9 and 2 mor"):
        checks.finite(np.where(np.arange(15) < 12, np.nan, 1), range(15))


def test_a_nan_in_an_image_is_in_the_norm_of_that_image_alone():
    inputs = INPUTS.copy()
    inputs[2, 1] = np.nan
    found = np.asarray(norms(inputs=inputs).total)
    np.testing.assert_allclose(np.delete(found, 2, 0), np.delete(norms().total, 2, 0))
    with pytest.raises(FloatingPointError, match=r"1 of 4 examples is .*: id 2\. "):
        checks.finite(found, [f"id {n}" for n in range(B)])


IDS = np.arange(40, 52)


def constant_targets(row):
    # The row's number is in every target.
    maps = row["number"] * jnp.ones((2, 8, 8, 14))
    return maps, jnp.ones((2, 14), bool)


def probed(engine, bad):
    probe = small.probe(small.flat_passes(), small.flat_variables(), engine=engine)

    def context(positions):
        number = np.where(np.isin(positions, bad), np.nan, 1.0)
        return {"number": number.astype(np.float32)}

    weights = np.full((len(IDS), 2), 0.5, np.float32)
    return probe.squared_norms(constant_targets, IDS, weights, context)


def test_a_probe_names_the_ids_whose_norms_are_not_finite():
    assert np.isfinite(probed("ghost", [])["expected"]).all()
    with pytest.raises(FloatingPointError, match=r"2 of 12 .*: id 43, id 51\. Weights"):
        probed("ghost", [3, 11])
