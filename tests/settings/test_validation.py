"""Values of the common keys: every bad one is refused by name, without a task."""

import re

import pytest

from jalpose.settings import validation
from jalpose.settings.checks import ConfigError
from jalpose.settings.keys import common, lookup


def change(config, key, value):
    section, _, last = key.rpartition(".")
    (lookup(config, section) if section else config)[last] = value


# (key, bad value, part of the message)
CHOICES = [
    ("data.labelled", "al", "Known: initial, all. Did you mean 'all'?"),
    ("training.schedule", "cosin", "Did you mean 'cosine'?"),
    ("training.start", "cold", "Known: warm, fresh"),
    ("training.keep", "first", "Known: best, last"),
    ("training.optimizer", "lion", "Known: adam, rmsprop, sgd"),
    ("training.heldout", "half", "Known: tenth, none"),
    ("acquisition.products", "float16", "Known: float32, bfloat16. Did you mean"),
]
POSITIVE = [
    "data.size",
    "data.threads",
    "training.batch",
    "training.learning_rate",
    "training.heldout_epochs",
    "training.report_steps",
    "training.plateau_patience",
    "evaluation.block",
    "acquisition.budget",
    "acquisition.block",
    "acquisition.pieces",
]
NOT_NEGATIVE = [
    "seed",
    "data.initial",
    "data.pool",
    "data.test",
    "training.warmup_steps",
    "training.clip_norm",
    "training.plateau_cooldown",
    "training.weight_decay",
    "acquisition.pool_subset",
    "acquisition.microbatch",
    "acquisition.memory",
    "loop.cycles",
    "loop.checkpoint_seconds",
    "output.images",
    "output.trace",
]
ONE_LENGTH = "exactly one of training.base_epochs={} and training.base_steps={} must"
OTHERS = [
    ("seeds.init", -2, "seeds.init=-2 must be 0 or more, or -1: the same as `seed`"),
    ("training.plateau_min", 3.0, "training.plateau_min=3.0 must lie between 0 and 1"),
    ("training.plateau_factor", 0.0, "training.plateau_factor=0.0 must lie between"),
    ("training.plateau_factor", 1.0, "training.plateau_factor=1.0 must lie between"),
    ("training.drop_factor", 1.0, "training.drop_factor=1.0 must lie between"),
    ("training.momentum", 1.0, "training.momentum=1.0 must be 0 or more, and below"),
    ("training.momentum", -0.1, "training.momentum=-0.1 must be 0 or more, and below"),
    ("training.drop_epochs", (3, 3), "training.drop_epochs=(3, 3) must rise"),
    ("training.drop_steps", (0, 3), "training.drop_steps=(0, 3) must rise"),
    ("training.schedule", "steps", "needs exactly one of training.drop_epochs and"),
    ("training.heldout", "none", "training.schedule='plateau' goes by the loss of"),
    ("acquisition.sketch.passes", 0, "acquisition.sketch.passes=0 must be at least 1"),
    ("acquisition.sketch.remainder", -1, "acquisition.sketch.remainder=-1 (0 or more)"),
    ("acquisition.sketch.remainder", 4, "acquisition.sketch.passes=4 must be at least"),
    ("data.labelled", "all", "leaves nothing to choose: set loop.cycles=0 (it is 5)"),
    ("training.base_epochs", 0, ONE_LENGTH.format(0, 0)),
    ("training.base_steps", 5, ONE_LENGTH.format(150, 5)),
    ("training.base_epochs", -1, ONE_LENGTH.format(-1, 0)),
    ("training.base_steps", -1, ONE_LENGTH.format(150, -1)),
    ("training.cycle_epochs", 0, "training.cycle_epochs=0 and training.cycle_steps=0"),
    ("training.cycle_steps", 9, "training.cycle_epochs=100 and training.cycle_steps=9"),
    (
        "acquisition.pool_subset",
        999,
        "acquisition.budget=1000 is larger than acquisition.pool_subset=999",
    ),
    ("loop.compare", ("random", "random"), "must name methods other than"),
    ("loop.compare", ("eglpp", "eglpp"), "must name methods other than"),
]
TABLE = (
    [(k, v, f"unknown value of {k}: {v!r}.") for k, v, _ in CHOICES]
    + [(k, v, message) for k, v, message in CHOICES]
    + [(k, bad, f"{k}={bad} must be above 0") for k in POSITIVE for bad in (0, -1)]
    + [(k, -1, f"{k}=-1 must be at least 0") for k in NOT_NEGATIVE]
    + OTHERS
)


@pytest.mark.parametrize(("key", "bad", "message"), TABLE)
def test_bad_values_are_refused_by_name(key, bad, message):
    config = common()
    validation.check(config)
    if isinstance(lookup(config, key), float):
        bad = float(bad)
        message = message.replace("=0 ", "=0.0 ").replace("=-1 ", "=-1.0 ")
    change(config, key, bad)
    with pytest.raises(ConfigError, match=re.escape(message)):
        validation.check(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"momentum": 0.0, "nesterov": True}, "training.nesterov=True goes on along"),
        (
            {"schedule": "steps", "drop_epochs": (3,), "drop_steps": (90,)},
            "training.drop_steps, where the learning rate drops; they are (3,) and (90",
        ),
        (
            {"heldout": "none", "schedule": "cosine"},
            "training.keep='best' goes by the loss of held-out examples",
        ),
    ],
)
def test_values_that_do_not_go_together_are_refused(changes, message):
    config = common()
    config.training.update(changes)
    with pytest.raises(ConfigError, match=re.escape(message)):
        validation.check(config)


@pytest.mark.parametrize(
    "changes",
    [
        {"heldout": "none", "schedule": "constant", "keep": "last"},
        {"schedule": "steps", "drop_epochs": (1.5, 160), "optimizer": "sgd"},
        {"schedule": "steps", "drop_steps": [20], "nesterov": True},
    ],
)
def test_values_that_go_together_are_let_pass(changes):
    config = common()
    for key, value in changes.items():
        config.training[key] = tuple(value) if isinstance(value, list) else value
    validation.check(config)


@pytest.mark.parametrize("key", ["training.learning_rate", "training.plateau_min"])
def test_what_is_no_number_is_refused(key):
    config = common()
    change(config, key, float("nan"))
    with pytest.raises(ConfigError, match=re.escape(f"{key}=nan must")):
        validation.check(config)


@pytest.mark.parametrize("key", NOT_NEGATIVE)
def test_zero_is_allowed_where_it_means_none_or_all(key):
    config = common()
    change(config, key, 0)
    validation.check(config)


@pytest.mark.parametrize("phase", ["base", "cycle"])
def test_a_length_is_given_in_epochs_or_in_steps(phase):
    config = common()
    config.training[f"{phase}_epochs"], config.training[f"{phase}_steps"] = 0, 12
    validation.check(config)


@pytest.mark.parametrize(
    ("key", "value", "filled", "lost"),
    [
        ("training.batch", 12, 16, "25%"),
        ("evaluation.block", 60, 64, "6%"),
        ("acquisition.block", 4, 8, "50%"),
    ],
)
def test_what_does_not_split_over_the_devices_is_told(key, value, filled, lost):
    config = common()
    assert validation.uneven_splits(config, 8) == []
    change(config, key, value)
    (line,) = validation.uneven_splits(config, 8)
    assert line == (
        f"{key}={value} does not split over 8 devices: filled up to {filled}, {lost} "
        "of the work is lost"
    )
    assert validation.uneven_splits(config, 1) == []


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("methods", ("random", "eglpp"), "experiment.methods=('random', 'eglpp')"),
        ("seeds", (1, 2), "experiment.seeds=(1, 2)"),
        ("full", True, "experiment.full=True"),
    ],
)
def test_an_experiment_is_not_for_a_command_that_runs_one(key, value, shown):
    config = common()
    validation.refuse_experiment(config)
    config.experiment[key] = value
    with pytest.raises(ConfigError, match=re.escape(f"{shown} is for `python -m")):
        validation.refuse_experiment(config)
