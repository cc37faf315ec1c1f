"""Configs of runs: how they are put together, what is refused, what is shipped."""

import dataclasses
import functools
import importlib.util
import inspect
import pathlib
import re
import sys

import pytest

from jalpose.acquisition import registry as methods
from jalpose.loop import configs
from jalpose.loop.configs import assemble
from jalpose.loop.context import engine_of
from jalpose.models.registry import MODELS
from jalpose.pergrad.api import Engine
from jalpose.settings.checks import ConfigError
from jalpose.settings.differences import differences, plain
from jalpose.settings.keys import RUNTIME_KEYS, known_keys, lookup
from jalpose.settings.validation import uneven_splits
from jalpose.tasks import registry as tasks
from tests.support import recorded_runs

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.py"))
EXPERIMENTS = sorted((ROOT / "configs" / "experiments").glob("*.py"))
# With `method=`, and which it is without.
USUAL = {
    "lsp": "eglpp",
    "mpii": "eglpp",
    "coco": "eglpp",
    "cifar10": "entropy_gradnorm",
    "cifar10_learning_loss": "learning_loss",
    "cifar100": "entropy_gradnorm",
    "svhn": "entropy_gradnorm",
    "caltech101": "entropy_gradnorm",
    "imagenet": "entropy_gradnorm",
    "shapes": "entropy_gradnorm",
    "regression": "egl_regression",
}
BENCHMARKS = [ROOT / "configs" / f"{name}.py" for name in USUAL]
SCALES = ("tiny", "small", "paper")


def make(arg="", delta=None, scales=None, **options):
    return assemble(arg, name="x", delta=delta or {}, scales=scales or {}, **options)


def change(config, key, value):
    section, _, last = key.rpartition(".")
    (lookup(config, section) if section else config)[last] = value


def shipped(path, arg):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(arg)


# Putting a config together.


def test_without_argument_it_is_the_default_at_the_papers_size():
    config = make()
    expected = configs.default()
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
    assert config.data.size == tasks.settings_of("pose").SCALES["tiny"]["data.size"]
    assert config.seed == 5
    assert make("", delta, {"tiny": {"training.batch": 2}}).training.batch == 4


def test_keys_are_locked():
    with pytest.raises(AttributeError):
        make().training.bach = 3


@pytest.mark.parametrize("task", tasks.TASKS)
@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_changes_known_keys_only(task, scale):
    config = configs.default(task)
    assert set(configs.scale_changes(config, scale)) <= set(known_keys(config))


def test_a_config_has_the_options_of_its_network_and_of_every_method():
    config = configs.default()
    fields = {f.name: f.default for f in dataclasses.fields(MODELS["hourglass"])}
    assert dict(config.model) == {"name": "hourglass", **fields}
    for name, method in methods.methods().items():
        fields = {f.name: f.default for f in dataclasses.fields(method)}
        assert dict(config.acquisition.get(name, {})) == fields


def test_an_argument_chooses_the_method_and_brings_its_presets():
    get_config = configs.benchmark("lsp", delta={"training.batch": 2})
    assert get_config().acquisition.method == "eglpp"
    assert get_config().name == "lsp_eglpp"
    config = get_config("method=mc_dropout,scale=tiny,seed=4")
    assert (config.acquisition.method, config.name) == ("mc_dropout", "lsp_mc_dropout")
    assert (config.scale, config.seed, config.training.batch) == ("tiny", 4, 2)
    assert config.model.dropout == 0.05
    assert get_config("method=random").model.dropout == 0


def test_nothing_is_compared_with_itself():
    get_config = configs.benchmark(
        "figures", delta={"loop.compare": ("random", "coreset")}
    )
    assert get_config("method=coreset").loop.compare == ("random",)
    assert get_config("").loop.compare == ("random", "coreset")
    configs.check(get_config("method=random"))


def test_a_benchmark_keeps_the_lengths_that_a_file_does_not_change():
    whole = configs.benchmark("lsp")("scale=small")
    scales = {"small": {"acquisition.budget": 7}}
    other = configs.benchmark("lsp", scales=scales, name="{method} here")
    config = other("scale=small,method=coreset")
    assert config.name == "coreset here"
    assert config.acquisition.budget == 7
    assert config.training.base_steps == whole.training.base_steps == 2600


def test_an_experiment_has_the_presets_of_all_its_methods():
    get_config = configs.experiment("figures", ("random", "mc_dropout"), (0, 1))
    config = get_config("scale=tiny")
    assert config.experiment.methods == ("random", "mc_dropout")
    assert (config.experiment.seeds, config.experiment.full) == ((0, 1), True)
    assert config.model.dropout == 0.05
    with pytest.raises(ConfigError, match="unknown config argument 'method=random'"):
        get_config("method=random")


def test_an_unknown_benchmark_or_task_is_refused():
    message = r"benchmark of the task pose: 'lps'\. Known: lsp, .* Did you mean 'lsp'"
    with pytest.raises(ConfigError, match=message):
        configs.benchmark("lps")
    with pytest.raises(ConfigError, match="unknown value of task: 'posse'"):
        configs.default("posse")
    with pytest.raises(ConfigError, match=r"unknown value of model\.name: 'resnot'"):
        configs.default("pose", "resnot")


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        ("speed=3", "unknown config argument 'speed=3'. Known: scale=tiny|small|paper"),
        ("tiny", "unknown config argument 'tiny'. Known: scale="),
        ("seed", "unknown config argument 'seed'"),
        ("seed=1,lr=2", "unknown config argument 'lr=2'"),
        (
            "scale=tny",
            "unknown value of the config argument scale: 'tny'. Known: tiny, small, "
            "paper. Did you mean 'tiny'?",
        ),
        ("scale=", "unknown value of the config argument scale: ''. Known: tiny"),
        ("seed=x", "seed='x' is not a whole number"),
        ("seed=1.5", "seed='1.5' is not a whole number"),
        ("seed=", "seed='' is not a whole number"),
        ("method=random", "unknown config argument 'method=random'. Known: scale="),
    ],
)
def test_bad_arguments(arg, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        make(arg)


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        (
            "method=coresett",
            "config argument method: 'coresett'. Known: random, coreset",
        ),
        ("method=", "unknown value of the config argument method: ''. Known: random"),
        (
            "metod=eglpp",
            "Known: method=NAME, scale=tiny|small|paper, seed=N, papers=PRESET",
        ),
    ],
)
def test_bad_arguments_of_a_benchmark(arg, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        configs.benchmark("lsp")(arg)


def test_unknown_keys_of_a_delta_list_the_known_ones():
    message = r"unknown config key 'modell\.channels'.* mean 'model\.channels'\?$"
    with pytest.raises(ConfigError, match=message):
        make(delta={"modell.channels": 1})
    with pytest.raises(ConfigError, match="unknown config key 'training'"):
        make(delta={"training": 1})


def test_keys_of_a_command_line_are_of_some_task():
    configs.check_keys([])
    configs.check_keys(["training.batch", "acquisition.eglpp.neighbours"])
    for key in ("trainig.batch", "data"):
        with pytest.raises(ConfigError, match="unknown config key"):
            configs.check_keys([key])


def test_an_option_without_a_default_is_told():
    @dataclasses.dataclass(frozen=True)
    class Bare:
        width: int

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "bare", Bare)
        with pytest.raises(ConfigError, match=r"Bare\.width has no default"):
            configs.default("pose", "bare")


# Values of tasks, networks, methods and engines. (key, bad value, part of the message)

CHOICES = [
    ("task", "posse", "Known: pose"),
    ("data.name", "lps", "Known: figures, lsp"),
    ("data.crop", "joint", "Known: joints, box"),
    ("model.name", "resnets", "Known: hourglass, resnet"),
    ("model.dtype", "float16", "Known: float32, bfloat16. Did you mean 'bfloat16'?"),
    ("model.convolution", "patches", "Known: auto, native, blocked"),
    ("evaluation.refine", "gauss", "Known: parabola, mass, none"),
    ("acquisition.method", "eglp", "Known: random, coreset, "),
    ("acquisition.engine", "exakt", "Known: exact, ghost, "),
    ("acquisition.eglpp.labels", "given", "Known: annotated, predicted"),
]
POSITIVE = [
    "data.window",
    "heatmap.sigma",
    "heatmap.peak",
    "model.stacks",
    "model.channels",
    "model.depth",
    "evaluation.threshold",
]
NOT_NEGATIVE = [
    "augment.rotate",
    "augment.shift",
    "augment.brightness",
    "augment.contrast",
    "augment.colour",
]
OTHERS = [
    ("augment.flip", 1.5, "augment.flip=1.5 must lie between 0 and 1"),
    ("augment.flip", -0.5, "augment.flip=-0.5 must lie between 0 and 1"),
    ("data.rare", 2.0, "data.rare=2.0 must lie between 0 and 1"),
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
    (
        "data.photos.mirror",
        (("nose", "tail"), ("ear", "nose")),
        "data.photos.mirror: 'nose' is there 2 times",
    ),
    ("data.photos.mirror", (("a", "a"),), "data.photos.mirror: 'a' is there 2 times"),
    ("model.channels", 30, "model.channels=30 must be a multiple of 4"),
    ("model.dropout", 1.0, "model.dropout=1.0 must be 0 or more, and below 1"),
    (
        "data.size",
        96,
        "data.size=96 must be a multiple of 64: the stem divides by 4 and "
        "model.depth=4 halves 4 times",
    ),
    ("data.size", 90, "data.size=90 must be a multiple of 4: heatmaps have a quarter"),
    ("model.depth", 7, "data.size=256 must be a multiple of 512"),
    # The common keys are checked too; see tests/settings/test_validation.py.
    ("training.batch", 0, "training.batch=0 must be above 0"),
    ("loop.compare", ("coreset", "eglp"), "value of loop.compare: 'eglp'. Known"),
    ("experiment.methods", ("eglp",), "unknown value of experiment.methods: 'eglp'."),
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
    config = make()
    configs.check(config)
    if isinstance(lookup(config, key), float):
        bad = float(bad)
        message = message.replace("=0 ", "=0.0 ").replace("=-1 ", "=-1.0 ")
    change(config, key, bad)
    with pytest.raises(ConfigError, match=re.escape(message)):
        configs.check(config)


def test_what_is_no_number_is_refused():
    config = make()
    config.augment.rotate = float("nan")
    with pytest.raises(ConfigError, match=re.escape("augment.rotate=nan must")):
        configs.check(config)


@pytest.mark.parametrize("key", NOT_NEGATIVE)
def test_zero_is_allowed_where_it_means_none(key):
    config = make()
    change(config, key, 0.0)
    configs.check(config)


@pytest.mark.parametrize(("split_mean", "remainder"), [(True, 3), (False, 4)])
def test_a_sketch_may_spend_all_its_passes(split_mean, remainder):
    # Of four; the mean takes one.
    config = make(delta={"acquisition.sketch.split_mean": split_mean})
    config.acquisition.sketch.remainder = remainder
    configs.check(config)
    engine = engine_of(config.acquisition, name="sketch")
    assert (engine.passes, engine.split_mean, engine.remainder) == (
        4,
        split_mean,
        remainder,
    )
    config.acquisition.sketch.remainder += 1
    with pytest.raises(ConfigError, match="must be at least 5"):
        configs.check(config)
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


# What is shipped.


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("path", [*CONFIGS, *EXPERIMENTS], ids=lambda path: path.stem)
def test_shipped_configs_are_valid_at_every_scale(path, scale):
    config = shipped(path, f"scale={scale},seed=4")
    configs.check(config)
    name = f"{path.stem}_{USUAL[path.stem]}" if path in BENCHMARKS else path.stem
    assert (config.name, config.scale, config.seed) == (name, scale, 4)
    if scale == "tiny":
        assert uneven_splits(config, 8) == []
    if path in EXPERIMENTS:
        assert config.experiment.methods and config.experiment.seeds


@pytest.mark.parametrize("method", methods.METHODS)
@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_every_method_is_had_on_every_benchmark_at_every_scale(path, method):
    for scale in SCALES:
        config = shipped(path, f"method={method},scale={scale},seed=4")
        configs.check(config)
        assert config.acquisition.method == method
        found = (config.name, config.scale, config.seed)
        assert found == (f"{path.stem}_{method}", scale, 4)


@pytest.mark.parametrize("path", [*CONFIGS, *EXPERIMENTS], ids=lambda path: path.stem)
def test_shipped_configs_say_how_they_are_run(path):
    name = path.relative_to(ROOT).as_posix()
    command = "experiment" if path in EXPERIMENTS else "main"
    assert f"python -m jalpose.{command} --config={name}" in path.read_text()


def test_a_run_from_before_tasks_had_names_goes_on_under_todays_config():
    record = recorded_runs.config()
    assert "task" not in record
    config = make()
    config.name = record["name"]
    config.acquisition.method = record["acquisition"]["method"]
    # It counted the evaluations of a plateau as optax does, and goes on with that.
    counting = 'training.plateau_reduces: "at" -> "beyond"'
    assert differences(record, plain(config), ignore=RUNTIME_KEYS) == [counting]
    config.training.plateau_reduces = "at"
    assert differences(record, plain(config), ignore=RUNTIME_KEYS) == []
    config.acquisition.budget += 1
    (line,) = differences(record, plain(config), ignore=RUNTIME_KEYS)
    assert line.startswith("acquisition.budget: ")


# Is every key read?

PACKAGE = ROOT / "jalpose"
# What is asked of a dataclass of options is asked in its own module, or in what it
# hands itself to.
SHARED = tuple(
    f"acquisition/parts/{name}.py"
    for name in ("heads", "committees", "spaces", "adversarial", "number_labels")
)
OPTIONS = {"model": MODELS["hourglass"]} | {
    f"acquisition.{name}": method for name, method in methods.METHODS.items()
}


@pytest.mark.parametrize(
    ("section", "field"),
    [(s, field.name) for s, o in OPTIONS.items() for field in dataclasses.fields(o)],
)
def test_every_option_is_read_by_what_has_it(section, field):
    own = inspect.getsource(sys.modules[OPTIONS[section].__module__])
    whole = ("tasks/pose/peaks.py",) if "asdict(self)" in own else ()
    shared = "".join((PACKAGE / name).read_text() for name in (*SHARED, *whole))
    # Beyond its checks: what is checked alone does nothing.
    bodies = re.sub(
        r"def (__post_init__|check|check_\w+)\(.*?(?=\n    def |\n\S)",
        "",
        own,
        flags=re.S,
    )
    shared = re.sub(r"def check_\w+\(.*?(?=\n\S|\Z)", "", shared, flags=re.S)
    read = re.compile(rf"\b(?:self|options)\.{field}\b")
    assert read.search(bodies) or read.search(shared)


@functools.cache
def readers():
    """The source of every module but those that define keys and check them."""
    asked = {PACKAGE / "settings/keys.py", PACKAGE / "settings/validation.py"}
    asked |= {PACKAGE / f"tasks/{name}/settings.py" for name in tasks.TASKS}
    return [path.read_text() for path in PACKAGE.rglob("*.py") if path not in asked]


@pytest.mark.parametrize("key", known_keys(configs.default()))
def test_every_key_is_read_somewhere(key):
    section, _, last = key.rpartition(".")
    if section in OPTIONS and last != "name":
        return  # by the test above
    read = re.compile(rf'\.{last}\b(?!\()|\["{last}"\]')
    if section == "seeds":
        read = re.compile(rf'seed_of\([\w.]+, "{last}"\)')
    assert any(map(read.search, readers()))
