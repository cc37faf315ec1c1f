"""Optimisers against NumPy, the learning rate over a training, nobody held out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jalpose.data.source import DataError
from jalpose.loop import advance, saved_states
from jalpose.loop.configs import default
from jalpose.loop.events import Finished, Selected, StepsTaken, Trained
from jalpose.runtime import sharding
from jalpose.runtime.throughput import Flow
from jalpose.training import lengths
from jalpose.training.optimisation import Optimisation
from jalpose.training.plan import NETWORK, Stage
from tests.support import small

SGD = {"training.optimizer": "sgd", "training.schedule": "constant"}


def optimisation(**changes):
    config = default().training
    config.update(changes)
    return Optimisation.of(config)


# Optimisers.


def numpy_sgd(params, gradients, *, rate, momentum, nesterov, decay, clip):
    """`torch.optim.SGD` behind `clip_grad_norm_`, written out: the weights after each.

    Args:
      params: float64 arrays by name.
      gradients: for each step a function of the weights.
      rate: of each step.
      momentum: m.
      nesterov: whether to look ahead.
      decay: of the weights.
      clip: global norm; 0: none.
    """
    buffers = {name: np.zeros_like(p) for name, p in params.items()}
    for gradient, step_rate in zip(gradients, rate, strict=True):
        found = gradient(params)
        length = np.sqrt(sum(np.sum(g**2) for g in found.values()))
        shrink = clip / length if clip and length > clip else 1.0
        after = {}
        for name, p in params.items():
            g = shrink * found[name] + decay * p
            buffers[name] = momentum * buffers[name] + g
            step = g + momentum * buffers[name] if nesterov else buffers[name]
            after[name] = p - step_rate * step
        params = after
        yield params


VARIANTS = {
    "plain": {"momentum": 0.0, "nesterov": False, "decay": 0.0, "clip": 0.0},
    "momentum": {"momentum": 0.9, "nesterov": False, "decay": 0.0, "clip": 0.0},
    "as the papers": {"momentum": 0.9, "nesterov": False, "decay": 5e-2, "clip": 0.0},
    "nesterov": {"momentum": 0.8, "nesterov": True, "decay": 0.1, "clip": 0.0},
    "clipped": {"momentum": 0.9, "nesterov": True, "decay": 0.1, "clip": 0.5},
}


def named(tree):
    """A tree as float64 arrays by path."""
    found = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(p): np.array(v, np.float64) for p, v in found}


@pytest.mark.parametrize("variant", VARIANTS)
def test_sgd_is_as_written_out(variant):
    # A quadratic of its own in every step, so that the gradient is of the weights.
    about = VARIANTS[variant]
    rng = np.random.default_rng(0)
    start = {"a": rng.normal(size=(3, 2)), "b": rng.normal(size=4)}
    aims = [{k: rng.normal(size=v.shape) for k, v in start.items()} for _ in range(6)]
    rates = [0.1, 0.1, 0.2, 0.05, 0.01, 0.01]
    optimizer = optimisation(
        optimizer="sgd",
        momentum=about["momentum"],
        nesterov=about["nesterov"],
        weight_decay=about["decay"],
        clip_norm=about["clip"],
    ).optimiser()

    def towards(aim):
        return lambda params: {k: params[k] - aim[k] for k in params}

    params = jax.tree.map(jnp.float32, start)
    state = optimizer.init(params)
    wanted = numpy_sgd(start, [towards(aim) for aim in aims], rate=rates, **about)
    for aim, rate, expected in zip(aims, rates, wanted, strict=True):
        gradient = towards(jax.tree.map(jnp.float32, aim))(params)
        updates, state = optimizer.update(gradient, state, params)
        params = jax.tree.map(lambda p, u, r=rate: p - r * u, params, updates)
        for name, value in expected.items():
            np.testing.assert_allclose(params[name], value, rtol=1e-5, atol=1e-6)


def test_rmsprop_is_as_written_out():
    # `torch.optim.RMSprop` with its defaults; the weight decay joins the gradient.
    rng = np.random.default_rng(1)
    weights, mean = rng.normal(size=5), np.zeros(5)
    optimizer = optimisation(optimizer="rmsprop", weight_decay=0.05).optimiser()
    params = {"a": jnp.float32(weights)}
    state = optimizer.init(params)
    for rate in (2.5e-2, 2.5e-2, 2.5e-3):
        gradient = rng.normal(size=5)
        decayed = gradient + 0.05 * weights
        mean = 0.99 * mean + 0.01 * decayed**2
        weights = weights - rate * decayed / (np.sqrt(mean) + 1e-8)
        updates, state = optimizer.update({"a": jnp.float32(gradient)}, state, params)
        params = {"a": params["a"] - rate * updates["a"]}
        np.testing.assert_allclose(params["a"], weights, rtol=1e-4, atol=1e-5)


def torch_plateau(losses, *, factor, patience, cooldown, least):
    """PyTorch's `ReduceLROnPlateau`, written out: the factor after each loss."""
    best, bad, cooling, scale = np.inf, 0, 0, 1.0
    for loss in losses:
        if loss < best * (1 - 1e-4):
            best, bad = loss, 0
        else:
            bad += 1
        if cooling:
            cooling, bad = cooling - 1, 0
        if bad > patience:
            scale, cooling, bad = max(scale * factor, least), cooldown, 0
        yield scale


def plateau_scales(losses, **changes):
    """Factor of the learning rate after each of the losses."""
    plateau = optimisation(**changes).plateau()

    def observe(state, loss):
        _, state = plateau.update({}, state, value=loss)
        return state, state.scale

    _, scales = jax.lax.scan(
        observe, plateau.init({"a": jnp.zeros(1)}), jnp.float32(losses)
    )
    return np.asarray(scales)


@pytest.mark.parametrize("seed", range(4))
def test_the_plateau_counts_as_pytorch(seed):
    rng = np.random.default_rng(seed)
    losses = 3 * 0.97 ** np.arange(60) * rng.uniform(0.8, 1.2, 60)
    losses[30:] = losses[30]  # stalled: not one is better
    options = {"factor": 0.5, "patience": 5, "cooldown": 2, "least": 0.01}
    found = plateau_scales(losses)
    np.testing.assert_allclose(found, list(torch_plateau(losses, **options)), rtol=1e-6)
    assert found[-1] < found[30]


@pytest.mark.parametrize(("reduces", "at"), [("beyond", 6), ("at", 5)])
def test_a_patience_of_five_ends_at_the_sixth_bad_evaluation(reduces, at):
    # The first is better than none.
    scales = plateau_scales([5.0] * 60, plateau_reduces=reduces)
    assert scales.tolist().index(0.5) == at


@pytest.mark.parametrize(
    ("clip_norm", "seen"),
    [
        (0.0, (3000.0, 4000.0)),  # no clipping
        (1.0, (0.6, 0.8)),  # of length 5000 to length 1
        (1e4, (3000.0, 4000.0)),  # short enough
    ],
)
def test_clipping_bounds_what_adam_sees(clip_norm, seen):
    optimizer = optimisation(clip_norm=clip_norm).optimiser()
    params = {"a": np.zeros(1, np.float32), "b": np.zeros(1, np.float32)}
    gradient = {"a": np.float32([3000]), "b": np.float32([4000])}
    _, state = optimizer.update(gradient, optimizer.init(params))
    adam = state[-1]
    # After one step mu = (1 - 0.9) g and nu = (1 - 0.999) g^2.
    for name, value in zip("ab", seen, strict=True):
        assert adam.mu[name][0] == pytest.approx(0.1 * value, rel=1e-4)
        assert adam.nu[name][0] == pytest.approx(0.001 * value**2, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["as the papers", "clipped"])
def test_a_training_by_sgd_is_as_written_out(variant):
    # Gradients of the network's loss on the batches that the trainer takes.
    about = VARIANTS[variant]
    trainer = small.flat_trainer(
        1,
        optimizer="sgd",
        schedule="steps",
        drop_epochs=(1,),
        drop_factor=0.5,
        learning_rate=3e-3,
        momentum=about["momentum"],
        nesterov=about["nesterov"],
        weight_decay=about["decay"],
        clip_norm=about["clip"],
    )
    task, batches = trainer.task, [small.crops(small.dataset().initial[:8])] * 3
    key, variables = jax.random.key(3), small.flat_variables()
    tree = jax.tree.structure(variables["params"])
    stats = variables["batch_stats"]  # of batches alone: they do not reach the loss

    @jax.jit
    def gradient_at(params, step):
        own = jax.random.fold_in(key, step)
        rows = {k: batches[0][k] for k in ("image", "label")}
        keys = jax.random.split(own, 8)
        images = rows["image"].astype(jnp.float32) / 255
        images, labels = jax.vmap(task.augment)(keys, images, rows["label"])

        def loss(params):
            output, _ = trainer.model.apply(
                {"params": params, "batch_stats": stats},
                images,
                train=True,
                mutable=["batch_stats"],
            )
            targets = jax.vmap(task.target)(labels)
            return jnp.mean(jax.vmap(task.loss)(output.prediction, targets))

        return jax.grad(loss)(params)

    def gradient_of(step):
        def gradient(params):
            leaves = [np.float32(v) for v in params.values()]
            return named(gradient_at(jax.tree.unflatten(tree, leaves), step))

        return gradient

    gradients = [gradient_of(step) for step in range(3)]
    rates = [3e-3, 3e-3, 1.5e-3]
    start = named(variables["params"])
    *_, wanted = numpy_sgd(start, gradients, rate=rates, **about)
    state = trainer.restart(variables)
    state, _ = trainer.run(state, iter(batches), key, 3, 3, flow=Flow(), drops=(2,))
    found = named(state.params)
    for name, value in wanted.items():
        moved = np.abs(value - start[name]).max()
        np.testing.assert_allclose(found[name], value, atol=2e-3 * moved, rtol=1e-4)


def test_weight_decay_is_of_all_parameters_under_either_optimiser():
    params = {"kernel": jnp.full(3, 2.0), "scale": jnp.ones(3), "bias": jnp.ones(2)}
    zero = jax.tree.map(jnp.zeros_like, params)
    for name in ("sgd", "adam"):
        made = optimisation(optimizer=name, weight_decay=0.1).optimiser()
        updates, _ = made.update(zero, made.init(params), params)
        for key, update in updates.items():
            # Adam's first step is the sign of the gradient.
            wanted = 0.1 * params[key] if name == "sgd" else jnp.ones_like(params[key])
            np.testing.assert_allclose(update, wanted, rtol=1e-4, err_msg=key)


def test_adam_carries_what_it_always_did():
    # Checkpoints of runs have this structure.
    params = {"a": jnp.ones(2)}
    adam = optax.scale_by_adam()
    clipped = optax.chain(optax.clip_by_global_norm(2.0), adam)
    for changes, wanted in (({}, optax.chain(adam)), ({"clip_norm": 2.0}, clipped)):
        ours = optimisation(**changes).optimiser().init(params)
        assert jax.tree.structure(ours) == jax.tree.structure(wanted.init(params))


@pytest.mark.slow
def test_a_head_learns_by_the_networks_optimiser():
    changes = {**SGD, "acquisition.method": "learning_loss"}
    changes |= {"acquisition.learning_loss.head": "average"}
    context = small.flat_context(changes)
    trainer = context.trainer
    state = context.plan.begin(0, context.plan.of(0)[0])
    wanted = jax.tree.structure(trainer.optimizer.init(state.head))
    assert jax.tree.structure(state.head_opt_state) == wanted
    labelled = context.true_labels(small.dataset().initial)
    stage = Stage(NETWORK, 8)
    state, _ = context.plan.advance(state, labelled, 0, stage, 2, Flow())
    (momentum,) = state.head_opt_state
    assert all(np.any(leaf) for leaf in jax.tree.leaves(momentum.trace))


# The learning rate.


def rates(total, drops=(), **changes):
    made = optimisation(learning_rate=2.0, **changes)
    return np.array([made.rate(step, total, drops) for step in range(total)])


def test_a_constant_rate_and_the_plateaus_start_are_the_rate():
    for schedule in ("constant", "plateau"):
        assert (rates(20, schedule=schedule, warmup_steps=0) == 2.0).all()


def test_warm_up_is_linear_and_never_zero():
    values = rates(50, schedule="constant", warmup_steps=10)
    np.testing.assert_allclose(values[:10], 0.2 * np.arange(1, 11))
    assert (values[9:] == 2.0).all()


def test_warm_up_takes_at_most_half_of_a_training():
    values = rates(10, schedule="constant", warmup_steps=100)
    np.testing.assert_allclose(values[:5], [0.4, 0.8, 1.2, 1.6, 2.0])
    assert (values[5:] == 2.0).all()
    assert rates(1, schedule="cosine", warmup_steps=100).tolist() == [2.0]


def test_cosine_falls_from_the_rate_to_nothing():
    values = rates(200, schedule="cosine", warmup_steps=0)
    assert values[0] == 2.0
    assert values[100] == pytest.approx(1.0)
    assert 0 < values[-1] < 1e-3
    assert (np.diff(values) < 0).all()
    warmed = rates(200, schedule="cosine", warmup_steps=20)
    assert warmed[:20].tolist() == pytest.approx((0.1 * np.arange(1, 21)).tolist())
    assert warmed[20] == 2.0
    assert warmed[110] == pytest.approx(1.0)
    assert 0 < warmed[-1] < 1e-3


def test_the_rate_drops_at_the_steps_named():
    values = rates(10, (4, 7), schedule="steps", drop_factor=0.1, warmup_steps=0)
    np.testing.assert_allclose(values, [2.0] * 4 + [0.2] * 3 + [0.02] * 3)
    warmed = rates(10, (2, 7), schedule="steps", drop_factor=0.1, warmup_steps=4)
    np.testing.assert_allclose(warmed, [0.5, 1, 1.5, 2, *[0.2] * 3, *[0.02] * 3])
    # Other schedules have none.
    assert (rates(10, (4,), schedule="constant") == 2.0).all()


def test_drops_are_of_epochs_or_steps_and_shares_of_other_trainings():
    config = small.configure(
        {
            "training.schedule": "steps",
            "training.drop_epochs": (160, 180.5),
            "training.base_steps": 0,
            "training.base_epochs": 200,
            "training.batch": 8,
        }
    )
    # Nine tenths of 80 labels in batches of 8 are nine steps an epoch.
    assert lengths.total_steps(config, 80, 0) == 1800
    assert lengths.drops(config, 80, 0, 1800) == (1440, 1624)
    assert lengths.drops(config, 80, 0, 100) == (80, 90)
    config.training.drop_epochs, config.training.drop_steps = (), (900,)
    assert lengths.drops(config, 80, 0, 1800) == (900,)
    assert lengths.drops(config, 80, 0, 7) == (4,)


def test_an_epoch_is_of_all_labels_where_none_is_held_out():
    changes = {"training.heldout": "none", "training.keep": "last"}
    config = small.configure({**changes, "training.batch": 8})
    assert lengths.steps_per_epoch(config, 80, 0) == 10
    assert lengths.steps_per_epoch(config, 80, 2) == 12  # 8 bought a cycle


@pytest.mark.parametrize("stage", [Stage(NETWORK, 8), Stage("member", 4)])
def test_trainings_drop_their_rate_where_the_config_says(stage, monkeypatch):
    changes = {"training.schedule": "steps", "training.drop_steps": (6,)}
    changes |= {"acquisition.method": "ensemble", "training.learning_rate": 1e-3}
    context = small.flat_context(changes)
    asked = []
    rate = Optimisation.rate

    def noted(self, step, total, drops=()):
        asked.append(rate(self, step, total, drops))
        return asked[-1]

    monkeypatch.setattr(Optimisation, "rate", noted)
    state = context.plan.begin(0, stage, small.flat_variables())
    labelled = context.true_labels(small.dataset().initial)
    context.plan.advance(state, labelled, 0, stage, stage.steps, Flow())
    drop = {8: 6, 4: 3}[stage.steps]
    wanted = [1e-3] * drop + [1e-4] * (stage.steps - drop)
    np.testing.assert_allclose(asked, wanted)


# Nobody held out.

ALL = {
    **SGD,
    "training.heldout": "none",
    "training.keep": "last",
    "training.weight_decay": 1e-3,
    "training.clip_norm": 1.0,
}


def test_all_that_are_labelled_are_trained_on_where_none_is_held_out():
    context = small.flat_context(ALL)
    data = small.dataset()
    labelled = context.true_labels(np.concatenate([data.initial, data.pool[:8]]))
    assert not labelled.held_out.any()
    assert context.plan.heldout_interval(0) is None
    batches = context.plan.batches(labelled, 1, Stage(NETWORK, 4), 0)
    seen = [next(batches)["id"] for _ in range(6)]  # once round 48 in batches of 8
    assert sorted(np.concatenate(seen)) == sorted(labelled.ids)
    # The dataset itself is as it was.
    assert data.held_out(data.initial).any()
    assert small.flat_context().dataset.holds_out


@pytest.mark.slow
def test_a_run_without_held_out_examples_goes_all_the_way():
    changes = {**ALL, "acquisition.method": "eglpp", "acquisition.pieces": 10**9}
    # As neighbours those may be that were held out.
    changes |= {"acquisition.eglpp.neighbours": 40, "acquisition.eglpp.perplexity": 9.0}
    context = small.flat_context(changes)
    _, events = small.advance_until(advance.start(context), context, Finished)
    steps = [e for e in events if isinstance(e, StepsTaken)]
    assert [e.step for e in steps if e.cycle == 0] == [4, 8]  # reports alone
    assert all(e.heldout_loss is None for e in steps)
    assert all(e.learning_rate_scale is None for e in steps)
    assert len([e for e in events if isinstance(e, Trained)]) == 3
    first = next(e for e in events if isinstance(e, Selected))
    near = np.ravel(first.arrays["neighbour_ids"])
    assert set(small.dataset().initial) == set(near)


def test_the_last_weights_are_kept_where_none_is_held_out():
    context = small.flat_context(ALL)
    stage = context.plan.of(0)[0]
    state = context.plan.begin(0, stage)
    labelled = context.true_labels(small.dataset().initial)
    state, _ = context.plan.advance(state, labelled, 0, stage, 3, Flow())
    kept = context.plan.finish(stage, state, None)
    for got, wanted in zip(
        jax.tree.leaves(kept), jax.tree.leaves(state.variables), strict=True
    ):
        np.testing.assert_array_equal(got, wanted)


def test_too_few_to_hold_some_out_are_enough_where_none_is():
    few = {"data.initial": 1, "acquisition.method": "random"}
    data = small.drawn_dataset(small.configure(few))
    with pytest.raises(DataError, match=r"or training\.heldout=none"):
        small.flat_context(few, dataset=data)
    context = small.flat_context({**few, **ALL}, dataset=data)
    assert len(context.labelled_set(advance.start(context)).ids) == 1


# Going on.


def test_a_training_by_sgd_that_was_saved_goes_on_to_the_bit(tmp_path):
    context = small.flat_context({**ALL, "acquisition.method": "random"})
    state, _ = advance.advance(advance.start(context), context)
    store = saved_states.StateStore(tmp_path)
    store.save(1, state, {"seconds": 1.0})
    store.close()
    whole, _ = small.advance_until(state, context, Trained)
    store = saved_states.StateStore(tmp_path)
    _, found, _ = store.restore(context)
    store.close()
    trace = optax.tree_utils.tree_get(found.phase.train.opt_state, "trace")
    assert all(np.any(leaf) for leaf in jax.tree.leaves(trace))
    again, _ = small.advance_until(found, context, Trained)
    pairs = [sharding.to_host(s.phase.variables) for s in (again, whole)]
    for got, wanted in zip(*map(jax.tree.leaves, pairs), strict=True):
        np.testing.assert_array_equal(got, wanted)
