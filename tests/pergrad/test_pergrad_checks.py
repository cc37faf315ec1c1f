"""What has no per-example norm is refused, and what went wrong is named."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from jax import lax

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


W = {"params": {"w": random(1, 5, 3)}}


def product(variables, x):
    return x @ variables["params"]["w"]


def hidden(variables, x):
    """A small dependence beside a large output."""
    rest = x[:, :1] - 1e-3 * x.mean(axis=0, keepdims=True)[:, :1]
    return jnp.concatenate([1e6 * product(variables, x), rest], axis=1)


def slightly(variables, x):
    return product(variables, x) + 1e-4 * x.mean()


def scaled(variables, x):
    """Of one number an example."""
    return variables["params"]["w"][0, 0] * x / jnp.max(jnp.abs(x))


EQUAL = np.repeat(INPUTS[:1], B, axis=0)


@pytest.mark.parametrize(
    ("apply_fn", "variables", "inputs"),
    [
        (in_training_mode, TRAINING_VARIABLES, EQUAL),
        (in_training_mode, TRAINING_VARIABLES, 0 * INPUTS),
        (in_training_mode, TRAINING_VARIABLES, np.full_like(INPUTS[:1], 0.5)),
        (scaled, W, INPUTS[:1, 0]),
        (scaled, W, INPUTS[:, 0]),
        (slightly, W, INPUTS),
        (slightly, W, INPUTS[:1]),
        (hidden, W, INPUTS),
    ],
    ids=[
        "equal examples",
        "zero padding",
        "one flat example",
        "one number",
        "numbers",
        "a small mean",
        "a small mean of one",
        "beside a large output",
    ],
)
def test_every_dependence_is_found(apply_fn, variables, inputs):
    with pytest.raises(ValueError, match=r"depends on the others .*training mode\?"):
        checks.independent(apply_fn, variables, inputs)


def dropped(variables, x):
    y = product(variables, x)
    keys = {"dropout": jax.random.key(0)}
    return nn.Dropout(0.5, deterministic=False).apply({}, y, rngs=keys)


def noisy(variables, x):
    y = product(variables, x)
    return y + 0.1 * jax.random.normal(jax.random.key(1), y.shape)


def by_number(variables, x):
    return product(variables, x) / len(x)


@pytest.mark.parametrize("apply_fn", [dropped, noisy, by_number])
def test_random_numbers_of_a_whole_batch_have_a_message_of_their_own(apply_fn):
    for inputs in (INPUTS, INPUTS[:1], EQUAL):
        with pytest.raises(ValueError, match=r"place in the batch .* key of its own"):
            checks.independent(apply_fn, W, inputs)


def test_keys_among_the_inputs_are_independent():
    def apply_fn(variables, inputs):
        x, keys = inputs
        return product(variables, x) + jax.vmap(
            lambda key: jax.random.normal(key, (3,))
        )(keys)

    keys = jax.random.split(jax.random.key(0), B)
    checks.independent(apply_fn, W, (INPUTS, keys))
    checks.independent(apply_fn, W, (INPUTS, jax.random.key_data(keys)))


def test_inputs_of_every_kind_have_companions():
    rows = {"params": {"w": random(0, 9, 3)}}

    def apply_fn(variables, x):
        table = variables["params"]["w"]
        chosen = table[x["ids"]] + jnp.where(x["there"], 1.0, 0.0)[:, None]
        return chosen * x["half"][:, None] + x["byte"][:, None] * x["nan"][:, None]

    for count in (1, 3):
        inputs = {
            "ids": np.full(count, 8),
            "there": np.ones(count, bool),
            "half": jnp.ones(count, jnp.bfloat16),
            "byte": np.full(count, 255, np.uint8),
            "nan": np.full(count, np.nan, np.float32),
        }
        checks.independent(apply_fn, rows, inputs)


def test_the_check_is_compiled_once():
    traces = []

    class Model:
        def apply(self, variables, x):
            traces.append(x.shape)
            return product(variables, x)

    model = Model()
    for _ in range(3):  # each a bound method of its own
        checks.independent(model.apply, W, INPUTS)
    assert sorted(traces) == [(1, 5), (2, 5)]
    checks.independent(Model().apply, W, INPUTS)
    assert len(traces) == 4


def test_a_function_without_a_hash_is_checked_too():
    class Model:
        __hash__ = None

        def __call__(self, variables, x):
            return product(variables, x)

    checks.independent(Model(), W, INPUTS)


@pytest.mark.slow
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
def test_an_output_without_a_row_for_each_is_refused(engine):
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

        with pytest.raises(
            ValueError, match=f"must return arrays with a row .*{shapes}"
        ):
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


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"w": W["params"]["w"]}, r"'params': .*got one with the keys \['w'\]: wrap"),
        ([W["params"]["w"]], "must be a mapping .* got a list: wrap"),
        (DENSE, "must be a mapping .* got a Dense: wrap"),
        ({"params": DENSE}, "leaf of type Dense: split a module"),
        ({"params": {"f": jnp.tanh, **W["params"]}}, "split a module into its arrays"),
        ({"params": {}}, "no floating array: there is nothing"),
        ({"params": {"w": np.ones((5, 3), int)}}, "no floating array"),
    ],
)
def test_variables_that_are_none_are_refused(no_hook, variables, message):
    with pytest.raises(ValueError, match=message):
        norms(product, variables)
    with pytest.raises(ValueError, match=message):
        api.routes(product, variables, INPUTS)
    with pytest.raises(ValueError, match=message):
        arguments = product, square_loss, variables, INPUTS, TARGETS, WEIGHTS
        api.expected_squared_norm("sketch", *arguments)


def test_parameters_may_be_any_tree_of_arrays():
    found = norms(lambda v, x: x @ v["params"][0], {"params": [W["params"]["w"]]})
    assert isinstance(found, api.NormResult) and found.total.shape == (B, K)


@pytest.mark.parametrize("engine", ["ghost", "exact"])
@pytest.mark.parametrize(
    ("loss", "got"),
    [
        (lambda o, t: square_loss(o, t)[None], r"float32\[1\]"),
        (lambda o, t: (square_loss(o, t), o), r"\('float32\[\]', 'float32\[3\]'\)"),
        (lambda o, t: jnp.argmax(o - t), r"int32\[\]"),
        (lambda o, t: o - t, r"float32\[3\]"),
    ],
)
def test_a_loss_is_one_floating_scalar(engine, loss, got):
    with pytest.raises(ValueError, match=f"one real floating scalar .* got {got}"):
        api.squared_norms(engine, DENSE.apply, loss, VARIABLES, INPUTS, TARGETS)


@pytest.mark.slow
def test_targets_without_candidates_are_refused():
    def apply_fn(variables, x):
        return jnp.stack([product(variables, x)] * 4, axis=1)[..., :2]

    targets = random(1, B, 4, 2)
    with pytest.raises(
        ValueError, match=r"expected \[B, K, \*output\] = \[B, K, 4, 2\]"
    ):
        norms(apply_fn, W, targets=targets)
    assert norms(apply_fn, W, targets=targets[:, None]).total.shape == (B, 1)
    # One array of a tree, with each target broadcast, and K = 1 are what they are.
    found = api.squared_norms(
        "ghost",
        apply_fn,
        lambda o, t: square_loss(o, t[0][None]),
        W,
        INPUTS,
        (targets,),
    )
    assert found.total.shape == (B, 4)

    def one_stack(variables, x):
        return product(variables, x)[:, None]

    found = api.squared_norms(
        "ghost",
        one_stack,
        lambda o, t: square_loss(o, t[None]),
        W,
        INPUTS,
        TARGETS[:, :1],
    )
    assert found.total.shape == (B, 1)
    # Of three candidate classes for three logits K is meant.
    labels = np.tile(np.arange(3), (B, 1))

    def cross_entropy(logits, label):
        return -jax.nn.log_softmax(logits)[label]

    found = api.squared_norms("ghost", product, cross_entropy, W, INPUTS, labels)
    assert found.total.shape == (B, 3)


def test_cotangents_are_shaped_as_outputs():
    with pytest.raises(ValueError, match=r"= \[B, K, 3\], got \[B, 2, 4\]"):
        api.cotangent_squared_norms("ghost", product, W, INPUTS, random(0, B, 2, 4))


def test_batches_without_gradients_are_refused():
    for inputs, targets, got in (
        (INPUTS[:0], TARGETS[:0], "B=0 examples, K=2"),
        (INPUTS, TARGETS[:, :0], "B=4 examples, K=0"),
    ):
        with pytest.raises(ValueError, match=f"no gradients to take: {got}"):
            norms(inputs=inputs, targets=targets)


@pytest.mark.parametrize("engine", ["ghost", "exact"])
def test_outputs_that_have_no_gradient_are_refused(engine):
    def convolved(variables, x):
        return lax.conv_general_dilated(
            x.reshape(-1, 5, 1), variables["params"]["k"], (1,), "VALID",
            dimension_numbers=("NHC", "HIO", "NHC"),
        )  # fmt: skip

    kernel = {"params": {"k": random(0, 7, 1, 3)}}
    for apply_fn, variables, got in (
        (lambda v, x: product(v, x)[:, :0], W, r"float32\[1, 0\]"),
        (lambda v, x: jnp.argmax(product(v, x), axis=1), W, r"int32\[1\]"),
        (convolved, kernel, r"float32\[1, 0, 3\]"),
    ):

        @jax.jit
        def run(inputs, apply_fn=apply_fn, variables=variables):
            return api.squared_norms(
                engine, apply_fn, square_loss, variables, inputs, TARGETS
            )

        with pytest.raises(ValueError, match=f"must return floats .* got {got}"):
            run(INPUTS)


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
