"""Every configuration key, once, with meaning and unit; and what values are allowed.

A file in `configs/` is a short delta: it calls `assemble` with the dotted keys it
changes. `--config=configs/X.py:scale=small,seed=3` picks a size and a seed, and
`--config.section.key=value` changes one key. Everything is validated here, before
anything is read or compiled.
"""

import difflib
import os
from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict


class ConfigError(Exception):
    """A key, argument or value of the configuration is not one of the allowed."""


def default() -> ConfigDict:
    """All keys with their defaults: the papers' protocol at the papers' size."""
    config = ConfigDict()
    config.name = ""  # of the config file; set by assemble
    config.scale = "paper"  # tiny | small | paper; set by assemble
    config.seed = 0  # of initialisation, data order, augmentation and acquisition
    # Workdir of another run: start from its base model instead of training one.
    config.base = ""
    # On a GPU: deterministic operations (slower), so that reruns agree to the bit.
    config.deterministic = True

    data = config.data = ConfigDict()
    # lsp (LSP labelled and test, LSPET pool) | mpii | figures (drawn)
    data.name = "lsp"
    data.dir = os.environ.get("JALPOSE_DATA", "data")  # the sets as shipped
    data.cache_dir = os.path.join("~", ".cache", "jalpose")  # prepared records
    data.initial = 1000  # examples labelled at the start
    data.pool = 0  # examples in the unlabelled pool; 0: all there are
    data.test = 0  # examples in the test set; 0: all there are
    data.size = 256  # crop height and width, pixels
    # joints (box of the annotated joints) | box (person box) | official (MPII's centre
    # and height of the person, as its codes crop)
    data.crop = "joints"
    # Crop side, in longer sides of that box; official: in heights of the person (1.25).
    data.window = 1.75
    data.rare = 0.6  # figures only: fraction of rare poses in pool and test
    data.threads = 4  # reading and cropping threads
    mpii = data.mpii = ConfigDict()
    # Annotation file, relative to <data.dir>/mpii; "": the official .mat if it is
    # there, else HRNet's JSON (annot/trainval.json or trainval.json).
    mpii.annotation = ""
    mpii.all_joints = False  # only people with all 16 joints (the published code: True)
    mpii.head_shift = 0.0  # moves the head towards the neck (the published code: 0.2)

    heatmap = config.heatmap = ConfigDict()
    heatmap.sigma = 1.75  # heatmap pixels at 64x64; scaled with the map's size
    heatmap.peak = 30.0  # value at a joint, as published

    model = config.model = ConfigDict()
    model.name = "hourglass"
    model.stacks = 2
    model.channels = 256  # a multiple of 4
    model.depth = 4  # poolings inside an hourglass
    model.dtype = "float32"  # of activations: float32 | bfloat16
    # native (lax.conv) | blocked (kernel gradients in blocks: faster on a CPU) |
    # auto (blocked on a CPU, else native)
    model.convolution = "auto"
    # Probability with which a residual drops a channel in training (and in the samples
    # of acquisition.method=mc_dropout, which needs it).
    model.dropout = 0.0

    augment = config.augment = ConfigDict()
    augment.scale = (0.75, 1.25)  # factor, uniform
    augment.rotate = 45.0  # degrees either way, uniform
    augment.shift = 0.2  # of the crop side either way, uniform
    augment.flip = 0.5  # probability
    augment.brightness = 0.0  # of the full range either way, uniform
    augment.contrast = 0.0  # factor 1 +- this, uniform
    augment.colour = 0.0  # factor 1 +- this a channel, uniform

    training = config.training = ConfigDict()
    training.batch = 16  # examples a step, over all devices
    training.occluded = True  # occluded joints are trained on
    training.base_epochs = 150  # length of the base training: epochs or steps,
    training.base_steps = 0  # exactly one of the two above 0
    training.cycle_epochs = 100  # length of the training in each later cycle:
    training.cycle_steps = 0  # exactly one of the two above 0
    training.learning_rate = 3e-4  # Adam
    training.schedule = "plateau"  # plateau (of the held-out loss) | cosine | constant
    training.warmup_steps = 0  # linear warm-up at the start of each training
    training.plateau_factor = 0.5  # learning rate factor where the loss stalls
    training.plateau_patience = 5  # held-out evaluations without a better loss
    training.plateau_cooldown = 2  # held-out evaluations after a reduction
    training.plateau_min = 0.01  # smallest learning rate, of learning_rate
    training.clip_norm = 0.0  # global gradient norm; 0: no clipping
    training.start = "warm"  # each cycle: warm (previous weights) | fresh (new ones)
    training.keep = "best"  # best (held-out loss) | last weights of a training
    training.heldout_epochs = 1.0  # epochs between held-out evaluations
    training.report_steps = 50  # steps between two reports, and at most a piece

    evaluation = config.evaluation = ConfigDict()
    evaluation.threshold = 0.2  # for PCK, of the length in `reference`
    # torso (PCK) | head (official PCKh: 0.6 of the head box's diagonal) | head_full
    # (the published code's PCKh: the whole diagonal)
    evaluation.reference = "torso"
    # Mean over: all (every joint alike) | official (every annotated joint alike, MPII's
    # pelvis and thorax left out)
    evaluation.joints = "all"
    evaluation.occluded = True  # occluded joints are evaluated
    evaluation.refine = "parabola"  # sub-pixel decoding: parabola | mass | none
    evaluation.block = 64  # examples a forward pass, over all devices

    acquisition = config.acquisition = ConfigDict()
    acquisition.method = "eglpp"
    acquisition.budget = 1000  # examples labelled a cycle
    # Score a random subset of the unlabelled, the same for all methods; 0: all.
    acquisition.pool_subset = 0
    acquisition.block = 16  # examples a scoring pass, over all devices
    # Of per-example gradient norms: ghost (exact, one backward pass) | exact (vmap over
    # autodiff) | sketch (a few passes) | goodfellow | conv_linear (approximations).
    acquisition.engine = "ghost"
    # Gradients (a candidate label each) taken at once on a device; 0: as many as fit.
    acquisition.microbatch = 0
    acquisition.memory = 0.0  # GiB a device they may take; 0: what it reports
    # Of the products in the norms: float32 | bfloat16 (added up in float32).
    acquisition.products = "float32"
    acquisition.pieces = 8  # blocks between two chances to save
    eglpp = acquisition.eglpp = ConfigDict()
    eglpp.perplexity = 20.0  # true perplexity of the neighbour probabilities
    eglpp.neighbours = 30  # candidate labels an image, K
    eglpp.labels = "annotated"  # annotated | predicted (the published code's default)
    eglpp.renormalise = True  # probabilities of the K candidates sum to one

    sketch = acquisition.sketch = ConfigDict()
    sketch.passes = 4  # backward passes an image; at K or more it is exact
    sketch.split_mean = True  # the mean gradient takes the first
    # Without random passes: extrapolate what the passes leave out, else a lower bound.
    sketch.extrapolate = True
    # Passes of random signs over what the others leave out: above 0 unbiased, above 1
    # with a standard error.
    sketch.remainder = 0

    loop = config.loop = ConfigDict()
    loop.cycles = 5  # acquisitions after the base model
    # Methods also run from this run's base model, into <workdir>/compare/<method>.
    loop.compare = ()
    loop.checkpoint_seconds = 60.0  # at most this much work is lost; 0: every piece

    output = config.output = ConfigDict()
    output.tensorboard = True
    output.images = 16  # pictures drawn a cycle
    output.compilation_cache = ""  # folder of XLA's compilation cache; "": none
    return config


# Keys that do not change a run's results: a workdir may be resumed with others.
RUNTIME_KEYS = (
    "data.dir",
    "data.cache_dir",
    "data.threads",
    "loop.checkpoint_seconds",
    "loop.compare",
    "output",
)

# What each scale changes for every data set; a config file adds its own.
SCALES: dict[str, dict[str, object]] = {
    "tiny": {
        "data.size": 32,
        "data.initial": 40,
        "data.pool": 60,
        "data.test": 24,
        "model.stacks": 1,
        "model.channels": 16,
        "model.depth": 2,
        "training.batch": 8,
        "training.base_epochs": 0,
        "training.base_steps": 12,
        "training.cycle_epochs": 0,
        "training.cycle_steps": 6,
        "training.schedule": "cosine",
        "training.learning_rate": 1e-3,
        "training.report_steps": 4,
        "evaluation.block": 8,
        "acquisition.budget": 8,
        "acquisition.pool_subset": 24,
        "acquisition.block": 8,
        "acquisition.pieces": 1,
        "acquisition.eglpp.neighbours": 5,
        "acquisition.eglpp.perplexity": 3.0,
        "loop.cycles": 2,
        "output.images": 4,
    },
    "small": {
        "data.size": 128,
        "model.stacks": 1,
        "model.channels": 96,
        "training.schedule": "cosine",
        "training.learning_rate": 1e-3,
        "training.warmup_steps": 100,
        "training.base_epochs": 0,
        "training.cycle_epochs": 0,
        "training.heldout_epochs": 5.0,
        "augment.rotate": 30.0,
        "augment.shift": 0.1,
        "augment.brightness": 0.1,
        "augment.contrast": 0.2,
        "augment.colour": 0.1,
        "evaluation.block": 32,
        "loop.cycles": 3,
    },
    "paper": {},
}


def assemble(
    arg: str,
    *,
    name: str,
    delta: Mapping[str, object],
    scales: Mapping[str, Mapping[str, object]],
    scale: str = "paper",
) -> ConfigDict:
    """Build the configuration of one config file.

    Args:
      arg: what follows the colon of `--config=file.py:...`: `scale=...,seed=...`.
      name: of the config file.
      delta: dotted keys this config changes at every scale.
      scales: dotted keys it changes at one scale.
      scale: the scale without `scale=`.

    Raises:
      ConfigError: for unknown arguments, scales, keys, or a seed that is no number.
    """
    given = _parse_argument(arg, scale)
    config = default()
    config.name, config.scale, config.seed = name, given["scale"], given["seed"]
    merged = {**SCALES[config.scale], **delta, **scales.get(config.scale, {})}
    for key, value in merged.items():
        check_key(config, key)
        section, _, last = key.rpartition(".")
        (_lookup(config, section) if section else config)[last] = value
    return config.lock()


def _parse_argument(arg: str, scale: str) -> dict:
    given: dict = {"scale": scale, "seed": 0}
    for part in filter(None, (arg or "").split(",")):
        key, equals, value = part.partition("=")
        if key not in given or not equals:
            raise ConfigError(
                f"unknown config argument {part!r}. Known: scale=tiny|small|paper, "
                "seed=N, separated by commas"
            )
        given[key] = value
    one_of("the config argument scale", given["scale"], SCALES)
    try:
        given["seed"] = int(given["seed"])
    except ValueError:
        raise ConfigError(
            f"the config argument seed={given['seed']!r} is not a whole number"
        ) from None
    return given


def _lookup(config: ConfigDict, dotted: str):
    for part in dotted.split("."):
        config = config[part]
    return config


def known_keys(config: ConfigDict, prefix: str = "") -> list[str]:
    """All dotted keys, sections left out."""
    keys = []
    for key in sorted(config.keys()):
        value = config[key]
        if isinstance(value, ConfigDict):
            keys += known_keys(value, f"{prefix}{key}.")
        else:
            keys.append(prefix + key)
    return keys


def check_key(config: ConfigDict, key: str) -> None:
    """Raise ConfigError with the known keys unless the dotted `key` exists."""
    known = known_keys(config)
    if key in known:
        return
    close = difflib.get_close_matches(key, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ConfigError(
        f"unknown config key {key!r}.{hint} Known keys:\n  " + "\n  ".join(known)
    )


def check_overrides(arguments: Sequence[str]) -> None:
    """Check the `--config.x.y=...` of a command line for unknown keys."""
    for argument in arguments:
        flag = argument.lstrip("-").split("=")[0]
        if argument.startswith("-") and flag.startswith("config."):
            check_key(default(), flag.removeprefix("config."))


def one_of(what: str, value, known) -> None:
    """Raise ConfigError naming the known values unless `value` is one of them."""
    if value in known:
        return
    close = difflib.get_close_matches(str(value), [str(k) for k in known], n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ConfigError(
        f"unknown value of {what}: {value!r}.{hint} Known: "
        + ", ".join(str(k) for k in known)
    )
