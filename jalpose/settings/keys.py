"""Every configuration key that is of no one task, network or method, with its meaning.

A file in `configs/` is a short delta: `jalpose.loop.configs` puts these keys together
with those of its task (`tasks/<task>/settings.py`), network (the fields of its options)
and of every method (likewise), and makes the changes. What follows the colon of
`--config=configs/X.py:method=coreset,scale=small,seed=3` picks from what there is, and
`--config.section.key=value` changes one key.
"""

import ast
import os

from ml_collections import ConfigDict

from jalpose.settings.checks import ConfigError, did_you_mean


def common() -> ConfigDict:
    """The keys of every config with their defaults: the papers' protocol and size."""
    config = ConfigDict()
    config.name = ""  # of the config file; set by it
    config.scale = "paper"  # tiny | small | paper; set by it
    # Preset of what a paper's published code does, see a task's `published.py`; set by
    # papers= after the colon, before any --config.key.
    config.papers = ""
    config.task = ""  # what is predicted, see jalpose/tasks/registry.py; set by it
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
    # Workdir of another run, of any skeleton or classes: trainings from scratch begin
    # with the weights of its newest network, all but the last layers.
    config.transfer = ""
    # On a GPU: deterministic operations (slower), so that reruns agree to the bit.
    config.deterministic = True

    data = config.data = ConfigDict()
    data.name = ""  # of the data set, see SOURCES of the task
    data.dir = os.environ.get("JALPOSE_DATA", "data")  # the sets as shipped
    data.cache_dir = os.path.join("~", ".cache", "jalpose")  # prepared records
    data.initial = 1000  # examples labelled at the start
    data.pool = 0  # examples in the unlabelled pool; 0: all there are
    data.test = 0  # examples in the test set; 0: all there are
    # initial | all (the pool's too: the level that choosing can reach, without choices)
    data.labelled = "initial"
    data.size = 256  # crop height and width, pixels
    # Keep the crops of image files in cache_dir, of drawn images in memory, cut once:
    # 3 size^2 bytes an example.
    data.packed = True
    data.threads = 4  # reading and cropping threads
    # A pretrained network that is never trained sees each crop once, and model.name=mlp
    # learns from the row it makes of it: "" (none) | efficientnet_lite0 (ImageNet's
    # weights, of the extra `pretrained`).
    encoder = data.encoder = ConfigDict()
    encoder.name = ""
    encoder.size = 0  # pixels that crops are resized to for it; 0: data.size
    # Images that cannot be decoded to their end: refuse | leave_out (and their labels).
    data.damaged = "refuse"
    # Labels against images: warn (refuse what cannot be, warn of what is unlikely) |
    # strict (refuse both) | off
    data.check = "warn"
    model = config.model = ConfigDict()
    model.name = ""  # see jalpose/models/registry.py; its options stand beside it

    training = config.training = ConfigDict()
    training.batch = 16  # examples a step, over all devices
    training.base_epochs = 150  # length of the base training: epochs or steps,
    training.base_steps = 0  # exactly one of the two above 0
    training.cycle_epochs = 100  # length of the training in each later cycle:
    training.cycle_steps = 0  # exactly one of the two above 0
    training.optimizer = "adam"  # adam | rmsprop | sgd
    training.learning_rate = 3e-4  # of the optimiser
    training.momentum = 0.9  # of sgd; 0: none
    training.nesterov = False  # of sgd: the gradient at the point momentum leads to
    # Times the weights, added to their gradient: all of them, biases and batch norms
    # too, as torch.optim does.
    training.weight_decay = 0.0
    # plateau (of the held-out loss) | cosine | steps (drops) | constant
    training.schedule = "plateau"
    # With schedule=steps the rate drops after so many epochs, or steps, of each
    # training: exactly one of the two, e.g. (160,).
    training.drop_epochs = ()
    training.drop_steps = ()
    training.drop_factor = 0.1  # learning rate factor of a drop
    training.warmup_steps = 0  # linear warm-up at the start of each training
    training.plateau_factor = 0.5  # learning rate factor where the loss stalls
    training.plateau_patience = 5  # held-out evaluations without a better loss
    # Where that reduces it: beyond (at the 6th of a patience of 5, as PyTorch does) |
    # at (at the 5th, as optax does)
    training.plateau_reduces = "beyond"
    training.plateau_cooldown = 2  # held-out evaluations after a reduction
    training.plateau_min = 0.01  # smallest learning rate, of learning_rate
    training.clip_norm = 0.0  # global gradient norm; 0: no clipping
    training.start = "warm"  # each cycle: warm (previous weights) | fresh (new ones)
    # Of the labelled, who is not trained on and says which weights are best: tenth |
    # none (all are trained on, as papers on classes do; with keep=last).
    training.heldout = "tenth"
    training.keep = "best"  # best (held-out loss) | last weights of a training
    training.heldout_epochs = 1.0  # epochs between held-out evaluations
    training.report_steps = 50  # steps between two reports, and at most a piece

    evaluation = config.evaluation = ConfigDict()
    # Of everything scored, once its choice is made: the gradient norms of the true
    # labels, and how many of the highest were chosen. A backward pass an image.
    evaluation.true_norms = True
    # Score the images trained on too, as they are, without augmentation: how far above
    # the test set's their score is. A forward pass an image.
    evaluation.train_score = False
    # Have the method score the test set too, once its choice is made: how well its
    # scores order the true losses there. What scoring costs, an image.
    evaluation.test_scores = False
    evaluation.block = 64  # examples a forward pass, over all devices

    acquisition = config.acquisition = ConfigDict()
    # See jalpose/acquisition/registry.py; its options are the section of its name.
    acquisition.method = "random"
    acquisition.budget = 1000  # examples labelled a cycle, or what labelling costs:
    # images | clicks (what labels are expected to cost: of a pose a click a joint)
    acquisition.budget_unit = "images"
    # "": the method alone | coreset | lcmd | kmeanspp | ...: chooses the batch among
    acquisition.diverse = ""
    acquisition.diverse_share = 0.25  # the best of all scored, never below the budget
    # Examples that repeat a labelled or chosen one: once (equal images are not bought
    # twice) | skip (near duplicates by the embedding neither) | keep (they are)
    acquisition.duplicates = "once"
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
    sketch = acquisition.sketch = ConfigDict()
    sketch.passes = 4  # backward passes an image; at K or more it is exact
    sketch.split_mean = True  # the mean gradient takes the first
    # Without random passes: extrapolate what the passes leave out, else a lower bound.
    sketch.extrapolate = True
    # Passes of random signs over what the others leave out: above 0 unbiased, above 1
    # with a standard error.
    sketch.remainder = 0

    # Who labels what is chosen: see jalpose/oracles/README.md.
    oracle = config.oracle = ConfigDict()
    # simulated (the data set's own labels, at once) | folder (people: what is to be
    # labelled is written to <workdir>/to_label, answers are read from <workdir>/labels)
    # | auto (folder where the pool has no labels)
    oracle.name = "simulated"
    # Images beside what is to be labelled: copy | link | none (they stay in data.dir)
    oracle.copy = "copy"
    oracle.allow_partial = False  # go on with those that are labelled
    # Labels that were corrected since they were trained on: refuse | keep (the old) |
    # take (the new, from now on)
    oracle.corrected = "refuse"

    loop = config.loop = ConfigDict()
    loop.cycles = 5  # acquisitions after the base model
    # Methods also run from this run's base model, into <workdir>/compare/<method>.
    loop.compare = ()
    loop.checkpoint_seconds = 60.0  # at most this much work is lost; 0: every piece

    # Of `jalpose.experiment` alone, which runs each method with each seed.
    experiment = config.experiment = ConfigDict()
    experiment.methods = ()  # see jalpose/acquisition/registry.py, and below
    # Methods with other options, by a name of their own, each ("eglpp_spread", "eglpp",
    # "acquisition.diverse=lcmd", ...): its name, the method's, what is changed of
    # `acquisition`, or seeds.acquire.
    experiment.variants = ()
    experiment.seeds = ()  # values of `seed`; of the same seed, the same base model
    experiment.full = False  # each seed also once on all labels, without choices

    output = config.output = ConfigDict()
    output.tensorboard = True  # scalars and pictures for TensorBoard
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
    "data.damaged",  # the examples themselves are compared
    "data.check",
    "oracle.copy",
    # What they let in is part of the state, and of its journal's fingerprint.
    "oracle.allow_partial",
    "oracle.corrected",
    "loop.cycles",  # a run can be given more; fewer are refused (`loop.run`)
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


def lookup(config: ConfigDict, dotted: str):
    """The section or value of a dotted key."""
    for part in dotted.split("."):
        config = config[part]
    return config


def seed_of(config: ConfigDict, part: str) -> int:
    """The seed of a part of what is drawn: `seeds.<part>`, or `seed` where it is -1."""
    own = config.seeds[part]
    return config.seed if own < 0 else own


def from_base(config: ConfigDict, method: str, base: str) -> ConfigDict:
    """`config` with another method alone, from the base model of the run in `base`.

    Args:
      config: of the runs.
      method: of the registry, or a name of `experiment.variants`.
      base: workdir; "": none.

    Raises:
      ConfigError: a variant changes what there is not.
    """
    other = ConfigDict(config.to_dict())
    other.base, other.loop.compare, other.experiment.variants = base, (), ()
    own, *changes = variants_of(config).get(method, (method,))
    other.acquisition.method = own
    for change in changes:
        key, equals, value = change.partition("=")
        allowed = key.startswith("acquisition.") or key == "seeds.acquire"
        if not equals or not allowed:
            raise ConfigError(
                f"experiment.variants: {method} changes {change!r}, which is not of "
                "the form acquisition.key=value, nor seeds.acquire=N"
            )
        check_key(other, key)
        section, _, last = key.rpartition(".")
        lookup(other, section)[last] = _read(key, value, lookup(other, key))
    return other


def variants_of(config: ConfigDict) -> dict[str, tuple[str, ...]]:
    """Method and changes of each of `experiment.variants`, by its name.

    Raises:
      ConfigError: one is not of the form that the key asks for, or a name stands twice.
    """
    found: dict[str, tuple[str, ...]] = {}
    for given in config.experiment.variants:
        strings = not isinstance(given, str) and all(isinstance(s, str) for s in given)
        if not strings or len(given) < 2 or given[0] in found:
            raise ConfigError(
                f"experiment.variants: {given!r} must be a name of its own, a method's "
                'and changes, e.g. ("eglpp_spread", "eglpp", '
                '"acquisition.diverse=lcmd")'
            )
        found[given[0]] = tuple(given[1:])
    return found


def _read(key: str, text: str, before):
    """A value as the one it replaces is written."""
    if isinstance(before, str):
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = None
    whole = isinstance(before, float) and type(value) is int
    if type(value) is not type(before) and not whole:
        raise ConfigError(
            f"experiment.variants: {key}={text} must be of the kind of {before!r}"
        )
    return type(before)(value)


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


def _is_known(config: ConfigDict, key: str) -> bool:
    """Whether `key` is one of `known_keys`, which a config asks a hundred times."""
    found = config
    for part in key.split("."):
        if not isinstance(found, ConfigDict) or part not in found:
            return False
        found = found[part]
    return not isinstance(found, ConfigDict)


def by_section(config: ConfigDict) -> list[str]:
    """All dotted keys, a section's own before those of the sections in it."""
    return sorted(known_keys(config), key=lambda key: key.rpartition(".")[0])


def check_key(config: ConfigDict, key: str) -> None:
    """Raise ConfigError unless `key` exists, with those of its section, or sections."""
    if _is_known(config, key):
        return
    known = known_keys(config)
    section, _, _ = key.rpartition(".")
    while section and not any(k.startswith(f"{section}.") for k in known):
        section = section.rpartition(".")[0]
    start = f"{section}." if section else ""
    below = [k.removeprefix(start) for k in known if k.startswith(start)]
    names = dict.fromkeys(name.partition(".")[0] for name in below)
    where = f"in {section}" if section else "at the top"
    raise ConfigError(
        f"unknown config key {key!r}. Known {where}: {', '.join(names)}; "
        f"--config_help{'=' if section else ''}{section} says what they are."
        f"{did_you_mean(key, known)}"
    )
