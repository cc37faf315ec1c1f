"""Keys that regression adds to a config, what scales change of them, and benchmarks."""

from ml_collections import ConfigDict

from jalpose.settings.checks import ConfigError, above, at_least
from jalpose.settings.scales import Benchmark

MODEL = "mlp"  # of a config that names no other
PREDICTS = "numbers"  # of its network
MODEL_OPTIONS: dict[str, dict[str, object]] = {}
# Sections of these keys that make a trained model what it is.
MODEL_SECTIONS = ()

# What the methods' own defaults, made for images, become here.
METHOD_OPTIONS: dict[str, object] = {
    "acquisition.learning_loss.head": "average",
    "acquisition.ensemble.steps": 2000,
    "acquisition.egl_regression.steps": 2000,
    "acquisition.predictive_variance.steps": 2000,
}


def add_keys(config: ConfigDict) -> None:
    """Add the keys of regression to the common ones."""
    data = config.data
    data.name = "curve"  # csv | diabetes (scikit-learn's) | curve, arm (drawn)
    data.size = 1  # rows have no sides
    data.file = ""  # of csv: with a line of headings, relative to data.dir
    data.target = ""  # of csv: heading of the column to be predicted; "": the last
    data.inputs = ()  # of csv: headings of the inputs; (): all others
    # Share of the rows that is the test set, and the seed of their choice, which is the
    # same for every `seed`.
    data.test_share = 0.25
    data.test_seed = 0
    # The network has a second output, the logarithm of the label's variance, learnt by
    # the likelihood (EGL++'s Eq. 8).
    config.training.variance = False


SCALES: dict[str, dict[str, object]] = {
    "tiny": {"data.pool": 0, "data.test": 0},
    "small": {},
    "paper": {},
}

# No paper has a protocol for rows: this one is ours.
_PROTOCOL: dict[str, object] = {
    "data.threads": 1,  # there is nothing to read ahead
    "training.heldout": "none",
    "training.keep": "last",
    "training.schedule": "cosine",
    "training.learning_rate": 1e-2,
    "training.start": "fresh",
}
_LENGTHS: dict[str, object] = {
    "data.initial": 40,
    "training.batch": 20,
    "training.base_epochs": 0,
    "training.base_steps": 1000,
    "training.cycle_epochs": 0,
    "training.cycle_steps": 1000,
    "training.warmup_steps": 0,
    "training.report_steps": 500,
    "evaluation.block": 256,
    "acquisition.budget": 10,
    "acquisition.block": 256,
    "loop.cycles": 8,
}
_SCALES: dict[str, dict[str, object]] = {
    "small": {**_LENGTHS, "training.base_steps": 600, "training.cycle_steps": 600},
    "paper": {**_LENGTHS, "training.base_steps": 4000, "training.cycle_steps": 4000},
}

BENCHMARKS: dict[str, Benchmark] = {
    name: Benchmark({"data.name": name, **_PROTOCOL}, _SCALES)
    for name in ("curve", "arm", "diabetes", "csv")
}


def check(config: ConfigDict) -> None:
    """Check the values of the keys above.

    Raises:
      ConfigError: names the key, its value and what is allowed.
    """
    data = config.data
    above(0, data__initial=data.initial)
    at_least(0, data__test_seed=data.test_seed)
    if data.size != 1:
        raise ConfigError(f"data.size={data.size}: rows have no sides, it must be 1")
    if not 0 < data.test_share < 1:
        raise ConfigError(
            f"data.test_share={data.test_share} must lie between 0 and 1, both excluded"
        )
    if (data.name == "csv") != bool(data.file):
        raise ConfigError(
            f"data.name={data.name!r} and data.file={data.file!r} do not go together: "
            "data.name=csv reads data.file, and the others read none"
        )
    for key in ("target", "inputs"):
        if data[key] and data.name != "csv":
            raise ConfigError(f"data.{key}={data[key]!r} is of data.name=csv alone")
    if config.model.name != "mlp":
        raise ConfigError(
            f"model.name={config.model.name!r} takes images, and regression has rows "
            "of numbers: set model.name=mlp"
        )
