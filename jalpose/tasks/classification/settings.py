"""Keys that classes add to a config, what scales change of them, and benchmarks."""

from ml_collections import ConfigDict

from jalpose.settings.checks import ConfigError, above, at_least, between
from jalpose.settings.scales import Benchmark
from jalpose.tasks.classification import data_keys

MODEL = "resnet"  # of a config that names no other
# Sections of these keys that make a trained model what it is.
MODEL_SECTIONS = ()

# What the methods' own defaults, made for poses, become here.
METHOD_OPTIONS: dict[str, object] = {
    "acquisition.egl.posterior": "softmax",
    "acquisition.egl.peaks": 1000,  # every class of every benchmark
    "acquisition.expected_gradnorm.posterior": "softmax",
    "acquisition.entropy_gradnorm.posterior": "softmax",
    # Learning Loss as for CIFAR-10 (Yoo & Kweon, CVPR 2019, 4.1).
    "acquisition.learning_loss.objective": "margin",
    "acquisition.learning_loss.head": "blocks",
    "acquisition.learning_loss.detach_after": 120.0,
    "acquisition.ensemble.measure": "vote_entropy",
    "acquisition.mc_dropout.measure": "mutual_information",  # BALD
}


def add_keys(config: ConfigDict) -> None:
    """Add the keys of classes to the common ones."""
    data_keys.add(config.data)
    config.data.size = 32

    augment = config.augment = ConfigDict()
    # Zeros a side (4 as the codes have it, 2 as Learning Loss's text does), of which a
    # crop of the image's size is taken; 0: none.
    augment.pad = 4
    augment.flip = 0.5  # probability
    # Instead of padding: a crop of at least this share of the image's area, of sides
    # 3:4 to 4:3, resized to its size; 1: none.
    augment.least_area = 1.0

    config.training.label_smoothing = 0.0  # share of a label that all classes have

    config.evaluation.bins = 15  # of the expected calibration error


SCALES: dict[str, dict[str, object]] = {"tiny": {}, "small": {}, "paper": {}}

# Of the normalisation: mean and deviation of red, green and blue in [0, 1].
_CIFAR10 = {
    "model.mean": (0.4914, 0.4822, 0.4465),
    "model.std": (0.2023, 0.1994, 0.2010),
}

# Minutes a run on two CPU cores.
_SMALL: dict[str, object] = {
    "data.initial": 500,
    "data.test": 2000,
    "training.batch": 64,
    "training.base_steps": 800,
    "training.cycle_steps": 400,
    "acquisition.budget": 500,
    "acquisition.pool_subset": 5000,
    "evaluation.block": 250,
    "loop.cycles": 5,
}

BENCHMARKS: dict[str, Benchmark] = {
    "shapes": Benchmark({"data.name": "shapes"}, {}),
    "cifar10": Benchmark({"data.name": "cifar10", **_CIFAR10}, {"small": _SMALL}),
}


def check(config: ConfigDict) -> None:
    """Check the values of the keys above.

    Raises:
      ConfigError: names the key, its value and what is allowed.
    """
    data_keys.check(config.data)
    augment = config.augment
    at_least(0, augment__pad=augment.pad)
    between("augment.flip", augment.flip, 0, 1)
    above(0, augment__least_area=augment.least_area)
    between("augment.least_area", augment.least_area, 0, 1)
    if augment.pad and augment.least_area < 1:
        raise ConfigError(
            f"augment.pad={augment.pad} and augment.least_area={augment.least_area} "
            "are two ways to crop: set augment.pad=0, or augment.least_area=1"
        )
    if augment.pad >= config.data.size:
        raise ConfigError(
            f"augment.pad={augment.pad} must be below data.size={config.data.size}"
        )
    smoothing = config.training.label_smoothing
    if not 0 <= smoothing < 1:
        raise ConfigError(
            f"training.label_smoothing={smoothing} must be 0 or more, and below 1"
        )
    at_least(1, evaluation__bins=config.evaluation.bins)
