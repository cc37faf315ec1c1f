"""Configs: how they are put together, and that every bad one is refused by name."""

import importlib.util
import pathlib
import re

import pytest
from ml_collections import ConfigDict

from jalpose.loop import run
from jalpose.loop.context import engine_of
from jalpose.pergrad.api import Engine
from jalpose.settings import keys as config_lib
from jalpose.settings.keys import ConfigError, assemble
from jalpose.settings.validation import uneven_splits, validate

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.py"))
SCALES = ("tiny", "small", "paper")


def make(arg="", delta=None, scales=None, **options):
    return assemble(arg, name="x", delta=delta or {}, scales=scales or {}, **options)


def change(config, key, value):
    section, _, last = key.rpartition(".")
    for part in filter(None, section.split(".")):
        config = config[part]
    config[last] = value


def value_of(config, key):
    for part in key.split("."):
        config = config[part]
    return config


def shipped(path, arg):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(arg)


# Putting a config together.


def test_without_argument_it_is_the_default_at_the_papers_size():
    config = make()
    expected = config_lib.default()
    expected.name = "x"
    assert config.to_dict() == expected.to_dict()


@pytest.mark.parametrize(
    ("arg", "scale", "seed"),
    [
        ("", "paper", 0),
        (None, "paper", 0),
        ("scale=small", "small", 0),
        ("seed=7", "paper", 7),
        ("scale=tiny,seed=3", "tiny", 3),
        ("seed=3,scale=tiny,", "tiny", 3),
    ],
)
def test_arguments(arg, scale, seed):
    config = make(arg)
    assert (config.name, config.scale, config.seed) == ("x", scale, seed)


def test_a_config_file_can_choose_another_scale_to_start_from():
    assert make(scale="small").scale == "small"
    assert make("scale=tiny", scale="small").scale == "tiny"


def test_deltas_win_over_the_scale_and_the_files_own_scales_over_deltas():
    # tiny has 16 channels and batches of 8.
    delta = {"model.channels": 8, "training.batch": 4, "seed": 5}
    config = make("scale=tiny", delta, {"tiny": {"training.batch": 2}})
    assert config.model.channels == 8
    assert config.training.batch == 2
    assert config.data.size == config_lib.SCALES["tiny"]["data.size"]
    assert config.seed == 5
    assert make("", delta, {"tiny": {"training.batch": 2}}).training.batch == 4


def test_keys_are_locked():
    with pytest.raises(AttributeError):
        make().training.bach = 3


def test_every_scale_changes_known_keys_only():
    known = config_lib.known_keys(config_lib.default())
    for changes in config_lib.SCALES.values():
        assert set(changes) <= set(known)


def test_runtime_keys_are_keys_or_sections():
    config = config_lib.default()
    for key in config_lib.RUNTIME_KEYS:
        value_of(config, key)


def test_the_data_folder_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("JALPOSE_DATA", "/somewhere")
    assert config_lib.default().data.dir == "/somewhere"
    monkeypatch.delenv("JALPOSE_DATA")
    assert config_lib.default().data.dir == "data"


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        ("speed=3", "unknown config argument 'speed=3'. Known: scale=tiny|small|paper"),
        ("tiny", "unknown config argument 'tiny'. Known: scale="),
        ("seed", "unknown config argument 'seed'"),
        ("seed=1,lr=2", "unknown config argument 'lr=2'"),
        (
            "scale=tny",
            "unknown value of the config argument scale: 'tny'. Did you mean 'tiny'? "
            "Known: tiny, small, paper",
        ),
        ("scale=", "unknown value of the config argument scale: ''. Known: tiny"),
        ("seed=x", "seed='x' is not a whole number"),
        ("seed=1.5", "seed='1.5' is not a whole number"),
        ("seed=", "seed='' is not a whole number"),
    ],
)
def test_bad_arguments(arg, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        make(arg)


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("training.bach", " Did you mean 'training.batch'?"),
        ("modell.channels", " Did you mean 'model.channels'?"),
        ("zzz", ""),
    ],
)
def test_unknown_keys_list_the_known_ones(key, hint):
    message = f"unknown config key {key!r}.{hint} Known keys:\n"
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        make(delta={key: 1})
    listed = str(caught.value).split("\n  ")[1:]
    known = config_lib.known_keys(config_lib.default())
    ours = [name for name in known if name.startswith("training.")]
    assert listed == (ours if key == "training.bach" else known)


def test_known_keys_are_dotted_and_sections_left_out():
    config = ConfigDict({"b": {"d": 1, "c": {"e": 2}}, "a": 3})
    assert config_lib.known_keys(config) == ["a", "b.c.e", "b.d"]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--config=configs/x.py:scale=tiny", "--workdir=w", "--dry_run"],
        ["--config.training.batch=8", "-config.seed=3", "--config.loop.cycles", "4"],
        ["config.nothing=3"],  # no flag
    ],
)
def test_known_overrides_pass(arguments):
    config_lib.check_overrides(arguments)


def test_a_section_is_no_key():
    with pytest.raises(ConfigError, match="unknown config key 'training'"):
        make(delta={"training": 1})


@pytest.mark.parametrize("argument", ["--config.trainig.batch=8", "-config.data=3"])
def test_unknown_overrides_are_refused(argument):
    with pytest.raises(ConfigError, match="unknown config key"):
        config_lib.check_overrides(["--workdir=w", argument])


# Validation. (key, bad value, part of the message)

CHOICES = [
    ("data.name", "lps", "Did you mean 'lsp'? Known: figures, lsp"),
    ("data.labelled", "al", "Did you mean 'all'? Known: initial, all"),
    ("data.crop", "joint", "Did you mean 'joints'? Known: joints, box"),
    ("model.name", "resnet", "Known: hourglass"),
    ("model.dtype", "float16", "Did you mean 'bfloat16'? Known: float32, bfloat16"),
    ("model.convolution", "patches", "Known: auto, native, blocked"),
    ("training.schedule", "cosin", "Did you mean 'cosine'?"),
    ("training.start", "cold", "Known: warm, fresh"),
    ("training.keep", "first", "Known: best, last"),
    ("evaluation.refine", "gauss", "Known: parabola, mass, none"),
    ("acquisition.method", "eglp", "Did you mean 'eglpp'? Known: random, coreset, "),
    ("acquisition.engine", "exakt", "Did you mean 'exact'? Known: exact, ghost, "),
    ("acquisition.products", "float16", "Did you mean 'bfloat16'? Known: float32"),
    ("acquisition.eglpp.labels", "given", "Known: annotated, predicted"),
]
POSITIVE = [
    "data.initial",
    "data.size",
    "data.window",
    "data.threads",
    "heatmap.sigma",
    "heatmap.peak",
    "model.stacks",
    "model.channels",
    "model.depth",
    "training.batch",
    "training.learning_rate",
    "training.heldout_epochs",
    "training.report_steps",
    "training.plateau_patience",
    "evaluation.threshold",
    "evaluation.block",
    "acquisition.budget",
    "acquisition.block",
    "acquisition.pieces",
]
NOT_NEGATIVE = [
    "seed",
    "data.pool",
    "data.test",
    "augment.rotate",
    "augment.shift",
    "augment.brightness",
    "augment.contrast",
    "augment.colour",
    "training.warmup_steps",
    "training.clip_norm",
    "training.plateau_cooldown",
    "acquisition.pool_subset",
    "acquisition.microbatch",
    "acquisition.memory",
    "loop.cycles",
    "loop.checkpoint_seconds",
    "output.images",
]
ONE_LENGTH = "exactly one of training.base_epochs={} and training.base_steps={} must"
OTHERS = [
    ("augment.flip", 1.5, "augment.flip=1.5 must lie between 0 and 1"),
    ("augment.flip", -0.5, "augment.flip=-0.5 must lie between 0 and 1"),
    ("data.rare", 2.0, "data.rare=2.0 must lie between 0 and 1"),
    ("training.plateau_min", 3.0, "training.plateau_min=3.0 must lie between 0 and 1"),
    ("training.plateau_factor", 0.0, "training.plateau_factor=0.0 must lie between"),
    ("training.plateau_factor", 1.0, "training.plateau_factor=1.0 must lie between"),
    ("augment.scale", (0.0, 1.0), "augment.scale=(0.0, 1.0) must be two factors"),
    ("augment.scale", (1.5, 0.5), "augment.scale=(1.5, 0.5) must be two factors"),
    ("augment.scale", (0.5, 1.0, 1.5), "augment.scale=(0.5, 1.0, 1.5) must be two"),
    ("augment.scale", (0.5,), "augment.scale=(0.5,) must be two factors"),
    (
        "acquisition.eglpp.perplexity",
        0.5,
        "acquisition.eglpp.perplexity=0.5 and acquisition.eglpp.neighbours=30 must be",
    ),
    ("acquisition.eglpp.neighbours", 0, "acquisition.eglpp.neighbours=0 must be at"),
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
    ("model.channels", 30, "model.channels=30 must be a multiple of 4"),
    (
        "data.size",
        96,
        "data.size=96 must be a multiple of 64: the stem divides by 4 and "
        "model.depth=4 halves 4 times",
    ),
    ("model.depth", 7, "data.size=256 must be a multiple of 512"),
    (
        "acquisition.pool_subset",
        999,
        "acquisition.budget=1000 is larger than acquisition.pool_subset=999",
    ),
    ("loop.compare", ("random", "random"), "must name methods other than"),
    ("loop.compare", ("random", "eglp"), "unknown value of loop.compare: 'eglp'. Did"),
]
TABLE = (
    [(k, v, f"unknown value of {k}: {v!r}.") for k, v, _ in CHOICES]
    + [(k, v, message) for k, v, message in CHOICES]
    + [(k, bad, f"{k}={bad} must be > 0") for k in POSITIVE for bad in (0, -1)]
    + [(k, -1, f"{k}=-1 must be >= 0") for k in NOT_NEGATIVE]
    + OTHERS
)


@pytest.mark.parametrize(("key", "bad", "message"), TABLE)
def test_bad_values_are_refused_by_name(key, bad, message):
    config = make()
    validate(config, run.KNOWN)
    default = value_of(config, key)
    if isinstance(default, float):
        bad = float(bad)
        message = message.replace("=0 ", "=0.0 ").replace("=-1 ", "=-1.0 ")
    change(config, key, bad)
    with pytest.raises(ConfigError, match=re.escape(message)):
        validate(config, run.KNOWN)


@pytest.mark.parametrize(
    "key", ["training.learning_rate", "augment.rotate", "training.plateau_min"]
)
def test_what_is_no_number_is_refused(key):
    config = make()
    change(config, key, float("nan"))
    with pytest.raises(ConfigError, match=re.escape(f"{key}=nan must")):
        validate(config, run.KNOWN)


@pytest.mark.parametrize("key", NOT_NEGATIVE)
def test_zero_is_allowed_where_it_means_none_or_all(key):
    config = make()
    change(config, key, 0)
    validate(config, run.KNOWN)


@pytest.mark.parametrize(("split_mean", "remainder"), [(True, 3), (False, 4)])
def test_a_sketch_may_spend_all_its_passes(split_mean, remainder):
    # Of four; the mean takes one.
    config = make(delta={"acquisition.sketch.split_mean": split_mean})
    config.acquisition.sketch.remainder = remainder
    validate(config, run.KNOWN)
    engine = engine_of(config.acquisition, name="sketch")
    assert (engine.passes, engine.split_mean, engine.remainder) == (
        4,
        split_mean,
        remainder,
    )
    config.acquisition.sketch.remainder += 1
    with pytest.raises(ConfigError, match="must be at least 5"):
        validate(config, run.KNOWN)
    with pytest.raises(ValueError, match="passes=4 must be at least 1 and cover"):
        engine_of(config.acquisition)


def test_the_engine_is_what_the_config_says():
    assert engine_of(make().acquisition) == Engine("ghost")
    delta = {
        "acquisition.engine": "sketch",
        "acquisition.microbatch": 7,
        "acquisition.products": "bfloat16",
        "acquisition.sketch.passes": 6,
        "acquisition.sketch.split_mean": False,
        "acquisition.sketch.remainder": 2,
    }
    acquisition = make(delta=delta).acquisition
    wanted = Engine("sketch", 7, "bfloat16", passes=6, split_mean=False, remainder=2)
    assert engine_of(acquisition) == wanted
    assert engine_of(acquisition, microbatch=1).microbatch == 1


@pytest.mark.parametrize("phase", ["base", "cycle"])
def test_a_length_is_given_in_epochs_or_in_steps(phase):
    config = make()
    config.training[f"{phase}_epochs"], config.training[f"{phase}_steps"] = 0, 12
    validate(config, run.KNOWN)


@pytest.mark.parametrize(
    ("key", "value", "filled", "lost"),
    [
        ("training.batch", 12, 16, "25%"),
        ("evaluation.block", 60, 64, "6%"),
        ("acquisition.block", 4, 8, "50%"),
    ],
)
def test_what_does_not_split_over_the_devices_is_told(key, value, filled, lost):
    config = make()
    assert uneven_splits(config, 8) == []
    change(config, key, value)
    (line,) = uneven_splits(config, 8)
    assert line == (
        f"{key}={value} does not split over 8 devices: filled up to {filled}, {lost} "
        "of the work is lost"
    )
    assert uneven_splits(config, 1) == []


# What is shipped.


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_are_valid_at_every_scale(path, scale):
    config = shipped(path, f"scale={scale},seed=4")
    validate(config, run.KNOWN)
    assert (config.name, config.scale, config.seed) == (path.stem, scale, 4)
    if scale == "tiny":
        assert uneven_splits(config, 8) == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_say_how_they_are_run(path):
    text = path.read_text()
    assert f"python -m jalpose.main --config=configs/{path.stem}.py" in text


# Sections handed over whole, as keyword arguments, to what is in this file.
WHOLE = {"model": "models/registry.py"} | {
    f"acquisition.{name}": method.acquire.__module__.replace(".", "/")[8:] + ".py"
    for name, method in run.KNOWN["method"].items()
}
# Of these, what their `requires` hands on whole.
SHARED = ("acquisition/parts/heads.py", "acquisition/parts/committees.py")


@pytest.mark.parametrize("key", config_lib.known_keys(config_lib.default()))
def test_every_key_is_read_somewhere(key):
    section, _, last = key.rpartition(".")
    package = ROOT / "jalpose"
    if section in WHOLE and last != "name":
        text = "".join((package / f).read_text() for f in (WHOLE[section], *SHARED))
        assert re.search(rf"\b{last}[,:)]", text)
        return
    asked = {package / "settings/keys.py", package / "settings/validation.py"}
    files = [path for path in package.rglob("*.py") if path not in asked]
    read = re.compile(rf"\.{last}\b(?!\()")
    if section == "seeds":
        read = re.compile(rf'seed_of\([\w.]+, "{last}"\)')
    assert any(read.search(path.read_text()) for path in files)
