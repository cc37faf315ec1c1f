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

from jalpose.settings.scales import SCALES


class ConfigError(Exception):
    """A key, argument or value of the configuration is not one of the allowed."""


def default() -> ConfigDict:
    """All keys with their defaults: the papers' protocol at the papers' size."""
    config = ConfigDict()
    config.name = ""  # of the config file; set by assemble
    config.scale = "paper"  # tiny | small | paper; set by assemble
    config.seed = 0  # of everything that is drawn
    # Seeds of a part of it, where only that part is to vary or to stay; -1: `seed`.
    seeds = config.seeds = ConfigDict()
    seeds.init = -1  # new weights: of the network, of heads and of committees' members
    seeds.order = -1  # order of the training data, augmentation, bootstraps
    # Which examples are labelled at the start, and with them the pool (MPII; of drawn
    # figures all of them; LSP's are the authors').
    seeds.initial = -1
    seeds.acquire = -1  # draws of the methods, subset of the pool
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
    # initial | all (the pool's too: the level that choosing can reach, without choices)
    data.labelled = "initial"
    data.size = 256  # crop height and width, pixels
    # joints (box of the annotated joints) | box (person box) | official (MPII's centre
    # and height of the person, as its codes crop)
    data.crop = "joints"
    # Crop side, in longer sides of that box; official: in heights of the person (1.25).
    data.window = 1.75
    data.rare = 0.6  # figures only: fraction of rare poses in pool and test
    # Keep the crops of image files in cache_dir, cut once: 3 size^2 bytes an example.
    data.packed = True
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
    # Of everything scored, once its choice is made: the gradient norms of the true
    # labels, and how many of the highest were chosen. A backward pass an image.
    evaluation.true_norms = True
    evaluation.block = 64  # examples a forward pass, over all devices

    acquisition = config.acquisition = ConfigDict()
    acquisition.method = "eglpp"  # see jalpose/acquisition/registry.py
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

    multipeak = acquisition.multipeak_entropy = ConfigDict()
    multipeak.peaks = 5  # at most, a joint
    multipeak.min_distance = 5  # between peaks, pixels of a 64x64 map
    multipeak.normalise = "sum"  # sum (shares of one, as described) | raw (published)
    multipeak.border = 0  # width of the border without peaks; published: 5

    softmax = acquisition.softmax_entropy = ConfigDict()
    softmax.temperature = 1.0  # of the softmax over a heatmap's pixels

    # Methods with a head beside the network. head: stacks (Learning Loss) | average
    # (LL++) | conv (LL++conv). weight: of its objective beside the pose loss.
    # detach_after: epochs of each training after which the objective no longer reaches
    # the network; 0: it never does. steps: of training it alone on a finished model.
    learning_loss = acquisition.learning_loss = ConfigDict()
    learning_loss.objective = "kl"  # kl (LL++) | margin (Learning Loss)
    learning_loss.head = "conv"
    learning_loss.margin = 1.0  # of objective=margin
    learning_loss.weight = 1.0
    learning_loss.detach_after = 0.0
    learning_loss.steps = 5000
    learning_loss.sub_pool = 0  # score this many at random; 0: all
    aleatoric = acquisition.aleatoric = ConfigDict()
    aleatoric.head = "average"
    aleatoric.weight = 1.0
    aleatoric.detach_after = 0.0
    aleatoric.steps = 5000
    aleatoric.published = False  # the published code's likelihood, of one coordinate
    vl4pose = acquisition.vl4pose = ConfigDict()
    vl4pose.head = "average"
    vl4pose.weight = 1.0
    vl4pose.detach_after = 0.0
    vl4pose.steps = 5000
    vl4pose.peaks = 5  # candidate positions a joint
    vl4pose.min_distance = 8  # between them, pixels of a 64x64 map
    vl4pose.positions = "best"  # best placement of the joints | expected over all

    # Gradient norms without labels. posterior: over a heatmap's pixels, normalised
    # (its positive part) | softmax (at a temperature; heatmap.peak matters). norm:
    # global | tensors (sum of the parameter tensors' norms, as published).
    for name in ("expected_gradnorm", "entropy_gradnorm"):
        gradnorm = acquisition[name] = ConfigDict()
        gradnorm.posterior = "normalised"
        gradnorm.temperature = 1.0
        gradnorm.norm = "global"
    # Differentiate through the posterior; without, the gradient is 0: refused.
    acquisition.expected_gradnorm.attached = True
    egl = acquisition.egl = ConfigDict()
    egl.peaks = 2  # candidate positions a joint
    egl.min_distance = 5  # between them, pixels of a 64x64 map
    egl.posterior = "normalised"  # over the peaks: normalised | softmax
    egl.temperature = 1.0

    # Committees. start: warm (from the cycle's network) | fresh (new weights).
    for name in ("ensemble", "egl_ensemble"):
        ensemble = acquisition[name] = ConfigDict()
        ensemble.members = 5
        ensemble.steps = 5000  # of each member's training in every cycle
        ensemble.start = "fresh"
    acquisition.ensemble.measure = "heatmaps"  # variance of: heatmaps | joints
    acquisition.egl_ensemble.form = "trace"  # trace (EGL++'s Eq. 10) | cai (Eq. 2)
    # Members' own variances, of positions under their posterior.
    acquisition.egl_ensemble.covariance = False
    acquisition.egl_ensemble.posterior = "normalised"  # of the soft-argmax, or softmax
    acquisition.egl_ensemble.temperature = 1.0
    dropout = acquisition.mc_dropout = ConfigDict()
    dropout.samples = 10  # forward passes an image; needs model.dropout above 0
    dropout.measure = "heatmaps"  # variance of: heatmaps | joints

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

    # Of `jalpose.experiment` alone, which runs each method with each seed.
    experiment = config.experiment = ConfigDict()
    experiment.methods = ()  # see jalpose/acquisition/registry.py
    experiment.seeds = ()  # values of `seed`; of the same seed, the same base model
    experiment.full = False  # each seed also once on all labels, without choices

    output = config.output = ConfigDict()
    output.tensorboard = True
    output.images = 16  # pictures drawn a cycle
    output.report = True  # with loop.compare: end with the report of all methods
    output.trace = 0  # pieces of each kind of work traced by JAX's profiler
    output.compilation_cache = ""  # folder of XLA's compilation cache; "": none
    return config


# Keys that do not change a run's results: a workdir may be resumed with others.
RUNTIME_KEYS = (
    "data.dir",
    "data.cache_dir",
    "data.packed",
    "data.threads",
    "loop.checkpoint_seconds",
    "loop.compare",
    "output",
)

# Keys in which the hosts of one run may differ.
HOST_KEYS = (
    "data.dir",
    "data.cache_dir",
    "data.packed",
    "data.threads",
    "output.compilation_cache",
)


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


def seed_of(config: ConfigDict, part: str) -> int:
    """The seed of a part of what is drawn: `seeds.<part>`, or `seed` where it is -1."""
    own = config.seeds[part]
    return config.seed if own < 0 else own


def from_base(config: ConfigDict, method: str, base: str) -> ConfigDict:
    """`config` with another method alone, from the base model of the run in `base`."""
    other = ConfigDict(config.to_dict())
    other.base, other.acquisition.method = base, method
    other.loop.compare = ()
    return other


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
    """Raise ConfigError with the known keys of its section unless `key` exists.

    A key of no known section is answered with all there are.
    """
    known = known_keys(config)
    if key in known:
        return
    close = difflib.get_close_matches(key, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    beside = [k for k in known if k.startswith(key.partition(".")[0] + ".")]
    listed = "\n  ".join(beside or known)
    raise ConfigError(f"unknown config key {key!r}.{hint} Known keys:\n  {listed}")


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
