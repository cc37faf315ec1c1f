"""Is a resolved configuration usable? Asked before anything is read or compiled."""

from collections.abc import Collection, Mapping

from ml_collections import ConfigDict

from jalpose.settings.keys import ConfigError, one_of


def validate(config: ConfigDict, known: Mapping[str, Collection[str]]) -> None:
    """Check every value that can be checked without data or devices.

    Args:
      config: resolved.
      known: names registered for `data`, `model`, `engine` and `method`.

    Raises:
      ConfigError: names the key, its value and what is allowed.
    """
    _check_choices(config, known)
    _check_numbers(config)
    _check_lengths(config.training)
    _check_sizes(config)
    _check_labelled(config)
    _check_sketch(config.acquisition.sketch)


def refuse_experiment(config: ConfigDict) -> None:
    """Raise ConfigError where methods or seeds are given to a command that runs one."""
    for key, value in config.experiment.items():
        if value:
            shown = value if value is True else tuple(value)
            raise ConfigError(
                f"experiment.{key}={shown} is for `python -m "
                "jalpose.experiment`, which runs methods and seeds; this command runs "
                "one: set acquisition.method and seed"
            )


def _check_choices(config, known):
    one_of("data.name", config.data.name, known["data"])
    one_of("data.crop", config.data.crop, ("joints", "box", "official"))
    one_of("data.labelled", config.data.labelled, ("initial", "all"))
    one_of("model.name", config.model.name, known["model"])
    one_of("model.dtype", config.model.dtype, ("float32", "bfloat16"))
    one_of("model.convolution", config.model.convolution, ("auto", "native", "blocked"))
    training = config.training
    one_of("training.schedule", training.schedule, ("plateau", "cosine", "constant"))
    one_of("training.start", training.start, ("warm", "fresh"))
    one_of("training.keep", training.keep, ("best", "last"))
    one_of("evaluation.refine", config.evaluation.refine, ("parabola", "mass", "none"))
    references = ("torso", "head", "head_full")
    one_of("evaluation.reference", config.evaluation.reference, references)
    one_of("evaluation.joints", config.evaluation.joints, ("all", "official"))
    one_of("acquisition.method", config.acquisition.method, known["method"])
    for method in config.loop.compare:
        one_of("loop.compare", method, known["method"])
    methods = (config.acquisition.method, *config.loop.compare)
    if len(set(methods)) < len(methods):
        raise ConfigError(
            f"loop.compare={tuple(config.loop.compare)} must name methods other than "
            f"acquisition.method={config.acquisition.method!r}, each once"
        )
    one_of("acquisition.engine", config.acquisition.engine, known["engine"])
    products = ("float32", "bfloat16")
    one_of("acquisition.products", config.acquisition.products, products)
    one_of(
        "acquisition.eglpp.labels",
        config.acquisition.eglpp.labels,
        ("annotated", "predicted"),
    )


def _check_numbers(config):
    positive = {
        "data": ("initial", "size", "window", "threads"),
        "heatmap": ("sigma", "peak"),
        "model": ("stacks", "channels", "depth"),
        "training": (
            "batch",
            "learning_rate",
            "heldout_epochs",
            "report_steps",
            "plateau_patience",
        ),
        "evaluation": ("threshold", "block"),
        "acquisition": ("budget", "block", "pieces"),
    }
    not_negative = {
        "data": ("pool", "test"),
        "augment": ("shift", "brightness", "contrast", "colour", "rotate"),
        "training": ("warmup_steps", "clip_norm", "plateau_cooldown"),
        "acquisition": ("pool_subset", "microbatch", "memory"),
        "loop": ("cycles", "checkpoint_seconds"),
        "output": ("images", "trace"),
    }
    for rule, table, bound in (("> 0", positive, True), (">= 0", not_negative, False)):
        for section, keys in table.items():
            for key in keys:
                value = config[section][key]
                if not value >= 0 or (bound and value == 0):  # nan is neither
                    raise ConfigError(f"{section}.{key}={value} must be {rule}")
    if config.seed < 0:
        raise ConfigError(f"seed={config.seed} must be >= 0")
    for part, seed in config.seeds.items():
        if seed < -1:
            raise ConfigError(
                f"seeds.{part}={seed} must be 0 or more, or -1: the same as `seed`"
            )
    for section, key in (
        ("augment", "flip"),
        ("data", "rare"),
        ("training", "plateau_min"),
    ):
        _between(f"{section}.{key}", config[section][key], 0, 1)
    _between("data.mpii.head_shift", config.data.mpii.head_shift, 0, 1)
    dropout = config.model.dropout
    if not 0 <= dropout < 1:
        raise ConfigError(f"model.dropout={dropout} must be 0 or more, and below 1")
    factor = config.training.plateau_factor
    if not 0 < factor < 1:
        raise ConfigError(
            f"training.plateau_factor={factor} must lie between 0 and 1, both excluded"
        )
    scale = tuple(config.augment.scale)
    if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
        raise ConfigError(f"augment.scale={scale} must be two factors, 0 < low <= high")
    eglpp = config.acquisition.eglpp
    if eglpp.perplexity < 1 or eglpp.neighbours < 1:
        raise ConfigError(
            f"acquisition.eglpp.perplexity={eglpp.perplexity} and "
            f"acquisition.eglpp.neighbours={eglpp.neighbours} must be at least 1"
        )


def _check_sketch(sketch):
    least = max(1, sketch.remainder + sketch.split_mean)
    if sketch.remainder < 0 or sketch.passes < least:
        raise ConfigError(
            f"acquisition.sketch.passes={sketch.passes} must be at least {least}: "
            f"acquisition.sketch.remainder={sketch.remainder} (0 or more) of them are "
            "random, and acquisition.sketch.split_mean takes one"
        )


def _between(key, value, low, high):
    if not low <= value <= high:
        raise ConfigError(f"{key}={value} must lie between {low} and {high}")


def _check_lengths(training):
    for phase in ("base", "cycle"):
        epochs, steps = training[f"{phase}_epochs"], training[f"{phase}_steps"]
        if epochs < 0 or steps < 0 or (epochs > 0) == (steps > 0):
            raise ConfigError(
                f"exactly one of training.{phase}_epochs={epochs} and "
                f"training.{phase}_steps={steps} must be above 0"
            )


def _check_sizes(config):
    channels, depth, size = config.model.channels, config.model.depth, config.data.size
    if channels % 4:
        raise ConfigError(f"model.channels={channels} must be a multiple of 4")
    unit = 4 * 2**depth
    if size % unit:
        raise ConfigError(
            f"data.size={size} must be a multiple of {unit}: the stem divides by 4 "
            f"and model.depth={depth} halves {depth} times"
        )
    subset, budget = config.acquisition.pool_subset, config.acquisition.budget
    if 0 < subset < budget:
        raise ConfigError(
            f"acquisition.budget={budget} is larger than "
            f"acquisition.pool_subset={subset}: choose a smaller budget or a larger "
            "subset"
        )


def _check_labelled(config):
    if config.data.labelled == "all" and config.loop.cycles:
        raise ConfigError(
            "data.labelled='all' leaves nothing to choose: set loop.cycles=0 (it is "
            f"{config.loop.cycles})"
        )


def uneven_splits(config: ConfigDict, num_devices: int) -> list[str]:
    """A line for each batch and block that does not split evenly over the devices.

    They are filled up: the results are the same, and the work on the filling is lost.
    """
    lines = []
    for section, key in (
        ("training", "batch"),
        ("evaluation", "block"),
        ("acquisition", "block"),
    ):
        value = config[section][key]
        if value % num_devices:
            filled = -(-value // num_devices) * num_devices
            lines.append(
                f"{section}.{key}={value} does not split over {num_devices} devices: "
                f"filled up to {filled}, {1 - value / filled:.0%} of the work is lost"
            )
    return lines
