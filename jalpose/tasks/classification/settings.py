"""Keys that classes add to a config, what scales change of them, and benchmarks."""

from ml_collections import ConfigDict

from jalpose.settings.checks import ConfigError, above, at_least, between
from jalpose.settings.scales import Benchmark
from jalpose.tasks.classification import data_keys

MODEL = "resnet"  # of a config that names no other
PREDICTS = "logits"  # of its network
# A few layers on what an encoder sees.
_ENCODED: dict[str, object] = {
    "model.predicts": "logits",
    "data.encoder.name": "efficientnet_lite0",
    "augment.pad": 0,
    "augment.flip": 0.0,
    "acquisition.learning_loss.head": "average",
}
# What options of networks that can do both become here.
MODEL_OPTIONS: dict[str, dict[str, object]] = {
    "efficientnet_lite0": {"model.decoder": 0},
    "mlp": _ENCODED,
}
# Sections of these keys that make a trained model what it is.
MODEL_SECTIONS = ()

# What the methods' own defaults, made for poses, become here.
METHOD_OPTIONS: dict[str, object] = {
    "acquisition.egl.posterior": "softmax",
    "acquisition.egl.peaks": 1000,  # every class of every benchmark
    "acquisition.expected_gradnorm.posterior": "softmax",
    "acquisition.entropy_gradnorm.posterior": "softmax",
    "acquisition.softmax_entropy.unit": "value",
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

# How the codes of gradnorm (Wang et al., AAAI 2022) and Learning Loss (Yoo & Kweon,
# CVPR 2019) train: on all that is labelled, and the last weights are kept.
_PROTOCOL: dict[str, object] = {
    "training.optimizer": "sgd",
    "training.learning_rate": 0.1,
    "training.momentum": 0.9,
    "training.weight_decay": 5e-4,
    "training.heldout": "none",
    "training.keep": "last",
    "evaluation.train_score": True,  # gradnorm's Table 3
}
_PAPER: dict[str, object] = {
    "training.batch": 128,
    "training.base_epochs": 200,
    "training.cycle_epochs": 200,
    "training.schedule": "steps",
    "training.drop_epochs": (160,),
    "evaluation.block": 512,
    "acquisition.block": 128,
}
# A run of one method takes minutes on two CPU cores (`scripts/RESULTS.md`).
_SMALL: dict[str, object] = {
    "data.test": 2000,
    "model.depth": 8,
    "training.batch": 64,
    "training.base_steps": 800,
    "training.cycle_steps": 400,
    "training.warmup_steps": 50,
    "evaluation.block": 250,
    "acquisition.block": 50,
    "loop.cycles": 5,
}
# A few layers on rows: seconds a training.
_FEW_STEPS: dict[str, object] = {
    "model.hidden": (64,),
    "training.heldout": "none",
    "training.keep": "last",
    "training.batch": 32,
    "training.learning_rate": 1e-3,
    "training.schedule": "cosine",
    "training.base_epochs": 0,
    "training.base_steps": 300,
    "training.cycle_epochs": 0,
    "training.cycle_steps": 300,
    "training.warmup_steps": 0,
    "training.start": "fresh",
    "evaluation.block": 256,
    "evaluation.true_norms": False,
    "acquisition.block": 256,
}


def _shares(total: int, initial: float, budget: float) -> dict[str, object]:
    """Gradnorm's protocol: shares of the training set, each choice out of half of it.

    Of CIFAR-10 the published code chooses 2,500 out of a random 25,000; of the other
    sets neither paper nor code says out of how many, and we take half of them too.
    """
    return {
        "data.initial": round(initial * total),
        "acquisition.budget": round(budget * total),
        "acquisition.pool_subset": total // 2,
    }


def _normalised(mean: tuple, std: tuple) -> dict[str, object]:
    """Mean and deviation of red, green and blue in [0, 1], as the codes have them."""
    return {"model.mean": mean, "model.std": std}


_IMAGENET = _normalised((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CIFAR10 = _normalised((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
_CIFAR100 = _normalised((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
_SVHN = _normalised((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970))
_FIVES: dict[str, object] = {"loop.cycles": 6}  # from 10 % to 40 % by 5 %
_OUT_OF_5000: dict[str, object] = {
    "data.initial": 500,
    "acquisition.budget": 500,
    "acquisition.pool_subset": 5000,
}
# Of photographs of any size.
_LARGE: dict[str, object] = {"augment.pad": 0, "augment.least_area": 0.08}

BENCHMARKS: dict[str, Benchmark] = {
    # Drawn shapes: no data needed.
    "shapes": Benchmark(
        {"data.name": "shapes", **_PROTOCOL},
        {
            "small": {
                **_SMALL,
                "data.initial": 200,
                "data.pool": 2000,
                "data.test": 1000,
                "acquisition.budget": 100,
                "acquisition.pool_subset": 1000,
                "loop.cycles": 3,
            },
            "paper": {**_PAPER, "data.pool": 20_000, "data.test": 5000},
        },
    ),
    # CIFAR-10 as an encoder sees it, by few labels: a protocol of ours.
    "cifar10_encoded": Benchmark(
        {
            "data.name": "cifar10",
            "data.encoder.size": 96,
            **_ENCODED,
            **_FEW_STEPS,
        },
        {
            "small": {
                "data.initial": 50,
                "data.test": 2000,
                "acquisition.budget": 25,
                "acquisition.pool_subset": 5000,
                "loop.cycles": 6,
            },
            "paper": {"data.initial": 50, "acquisition.budget": 25, "loop.cycles": 6},
        },
    ),
    # Gradnorm's protocol, as its code has it.
    "cifar10": Benchmark(
        {"data.name": "cifar10", **_PROTOCOL, **_CIFAR10},
        {
            "small": {**_SMALL, **_OUT_OF_5000},
            "paper": {**_PAPER, **_FIVES, **_shares(50_000, 0.1, 0.05)},
        },
    ),
    # Learning Loss's protocol, as its text has it.
    "cifar10_learning_loss": Benchmark(
        {
            "data.name": "cifar10",
            "augment.pad": 2,
            **_PROTOCOL,
            **_CIFAR10,
            "evaluation.test_scores": True,  # the paper's ranking accuracy
        },
        {
            "small": {**_SMALL, **_OUT_OF_5000},
            "paper": {
                **_PAPER,
                "data.initial": 1000,
                "acquisition.budget": 1000,
                "acquisition.pool_subset": 10_000,
                "loop.cycles": 9,
            },
        },
    ),
    "cifar100": Benchmark(
        {"data.name": "cifar100", **_PROTOCOL, **_CIFAR100},
        {
            "small": {
                **_SMALL,
                "data.initial": 1000,
                "data.test": 1000,
                "acquisition.budget": 500,
                "acquisition.pool_subset": 2000,
            },
            "paper": {**_PAPER, **_FIVES, **_shares(50_000, 0.1, 0.05)},
        },
    ),
    # A mirrored digit is none: no flips, which the paper does not speak of.
    "svhn": Benchmark(
        {"data.name": "svhn", "augment.flip": 0.0, **_PROTOCOL, **_SVHN},
        {
            "small": {**_SMALL, **_OUT_OF_5000},
            "paper": {**_PAPER, **_FIVES, **_shares(73_257, 0.1, 0.05)},
        },
    ),
    # The paper does not say how the set is split: as TOD's code does (S. Huang et al.,
    # ICCV 2021), which tests on 911 of the 8,677 images and begins with 868.
    "caltech101": Benchmark(
        {
            "data.name": "caltech101",
            "data.test_share": 0.105,
            "data.size": 224,
            "model.stem": "original",
            **_LARGE,
            **_PROTOCOL,
            **_IMAGENET,
        },
        {
            "tiny": {"data.size": 32},
            "small": {
                **_SMALL,
                "data.size": 64,
                "data.initial": 300,
                "data.test": 0,
                "acquisition.budget": 100,
                "acquisition.pool_subset": 0,
            },
            "paper": {
                **_PAPER,
                **_FIVES,
                "data.initial": 868,
                "acquisition.budget": 434,
                "evaluation.block": 128,
            },
        },
    ),
    # From 10 % to 30 %. Neither paper nor code says how long ImageNet is trained: as
    # PyTorch's published VGG-16 with batch norm is, 90 epochs, dropped every 30.
    "imagenet": Benchmark(
        {
            "data.name": "imagenet",
            "data.size": 224,
            **_LARGE,
            **_PROTOCOL,
            **_IMAGENET,
            "training.weight_decay": 1e-4,
        },
        {
            "tiny": {"data.size": 32},
            "small": {
                **_SMALL,
                "data.size": 64,
                "data.initial": 5000,
                "data.pool": 20_000,
                "model.depth": 11,
                "acquisition.budget": 2500,
                "acquisition.pool_subset": 5000,
                "loop.cycles": 3,
            },
            "paper": {
                **_PAPER,
                **_shares(1_281_167, 0.1, 0.05),
                "model.classifier": "original",
                "model.dropout": 0.5,
                "training.batch": 256,
                "training.base_epochs": 90,
                "training.cycle_epochs": 90,
                "training.drop_epochs": (30, 60),
                "evaluation.block": 256,
                "loop.cycles": 4,
            },
        },
    ),
}


def check(config: ConfigDict) -> None:
    """Check the values of the keys above.

    Raises:
      ConfigError: names the key, its value and what is allowed.
    """
    data_keys.check(config.data)
    augment = config.augment
    if config.data.encoder.name and (
        augment.pad or augment.flip or augment.least_area < 1
    ):
        raise ConfigError(
            f"data.encoder.name={config.data.encoder.name!r} sees each image once, as "
            "it is: set augment.pad=0, augment.flip=0.0 and augment.least_area=1.0"
        )
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
