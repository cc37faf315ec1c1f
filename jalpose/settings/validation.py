"""Is a resolved configuration usable? What can be said of the common keys."""

from itertools import pairwise

from ml_collections import ConfigDict

from jalpose.settings.checks import ConfigError, above, at_least, between, one_of


def check(config: ConfigDict) -> None:
    """Check the values of the common keys, without data or devices.

    Raises:
      ConfigError: names the key, its value and what is allowed.
    """
    _check_choices(config)
    _check_numbers(config)
    _check_lengths(config.training)
    _check_sizes(config)
    _check_labelled(config)
    _check_oracle(config)
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


def _check_choices(config):
    one_of("data.labelled", config.data.labelled, ("initial", "all"))
    one_of("data.damaged", config.data.damaged, ("refuse", "leave_out"))
    one_of("data.check", config.data.check, ("warn", "strict", "off"))
    one_of("training.start", config.training.start, ("warm", "fresh"))
    _check_optimisation(config.training)
    methods = (config.acquisition.method, *config.loop.compare)
    if len(set(methods)) < len(methods):
        raise ConfigError(
            f"loop.compare={tuple(config.loop.compare)} must name methods other than "
            f"acquisition.method={config.acquisition.method!r}, each once"
        )
    units = ("images", "clicks")
    one_of("acquisition.budget_unit", config.acquisition.budget_unit, units)
    ways = ("once", "skip", "keep")
    one_of("acquisition.duplicates", config.acquisition.duplicates, ways)
    products = ("float32", "bfloat16")
    one_of("acquisition.products", config.acquisition.products, products)


def _check_optimisation(training):
    schedules = ("plateau", "cosine", "steps", "constant")
    one_of("training.optimizer", training.optimizer, ("adam", "rmsprop", "sgd"))
    one_of("training.plateau_reduces", training.plateau_reduces, ("beyond", "at"))
    one_of("training.schedule", training.schedule, schedules)
    one_of("training.heldout", training.heldout, ("tenth", "none"))
    one_of("training.keep", training.keep, ("best", "last"))
    if not 0 <= training.momentum < 1:
        raise ConfigError(
            f"training.momentum={training.momentum} must be 0 or more, and below 1"
        )
    if training.nesterov and not training.momentum:
        raise ConfigError(
            "training.nesterov=True goes on along the momentum, and there is none: "
            "set training.momentum above 0, e.g. 0.9"
        )
    for key in ("drop_epochs", "drop_steps"):
        drops = tuple(training[key])
        if any(later <= earlier for earlier, later in pairwise((0, *drops))):
            raise ConfigError(
                f"training.{key}={drops} must rise, each above the one before and the "
                "first above 0"
            )
    epochs, steps = tuple(training.drop_epochs), tuple(training.drop_steps)
    if training.schedule == "steps" and bool(epochs) == bool(steps):
        raise ConfigError(
            "training.schedule='steps' needs exactly one of training.drop_epochs and "
            "training.drop_steps, where the learning rate drops; they are "
            f"{epochs} and {steps}"
        )
    if training.heldout == "none":
        for key, needs in (("schedule", "plateau"), ("keep", "best")):
            if training[key] == needs:
                raise ConfigError(
                    f"training.{key}={needs!r} goes by the loss of held-out examples, "
                    "and training.heldout='none' holds none out: set training.keep="
                    "last and a training.schedule that needs no loss (cosine, steps, "
                    "constant), or training.heldout=tenth"
                )


_POSITIVE = {
    "data": ("size", "threads"),
    "training": (
        "batch",
        "learning_rate",
        "heldout_epochs",
        "report_steps",
        "plateau_patience",
    ),
    "evaluation": ("block",),
    "acquisition": ("budget", "block", "pieces"),
}
_NOT_NEGATIVE = {
    "data": ("initial", "pool", "test"),
    "training": ("warmup_steps", "clip_norm", "plateau_cooldown", "weight_decay"),
    "acquisition": ("pool_subset", "microbatch", "memory"),
    "loop": ("cycles", "checkpoint_seconds"),
    "output": ("images", "trace"),
}


def _check_numbers(config):
    for rule, table in ((above, _POSITIVE), (at_least, _NOT_NEGATIVE)):
        for section, keys in table.items():
            for key in keys:
                rule(0, **{f"{section}__{key}": config[section][key]})
    at_least(0, seed=config.seed)
    for part, seed in config.seeds.items():
        if seed < -1:
            raise ConfigError(
                f"seeds.{part}={seed} must be 0 or more, or -1: the same as `seed`"
            )
    between("training.plateau_min", config.training.plateau_min, 0, 1)
    for key in ("plateau_factor", "drop_factor"):
        factor = config.training[key]
        if not 0 < factor < 1:
            raise ConfigError(
                f"training.{key}={factor} must lie between 0 and 1, both excluded"
            )


def _check_sketch(sketch):
    least = max(1, sketch.remainder + sketch.split_mean)
    if sketch.remainder < 0 or sketch.passes < least:
        raise ConfigError(
            f"acquisition.sketch.passes={sketch.passes} must be at least {least}: "
            f"acquisition.sketch.remainder={sketch.remainder} (0 or more) of them are "
            "random, and acquisition.sketch.split_mean takes one"
        )


def _check_lengths(training):
    for phase in ("base", "cycle"):
        epochs, steps = training[f"{phase}_epochs"], training[f"{phase}_steps"]
        if epochs < 0 or steps < 0 or (epochs > 0) == (steps > 0):
            raise ConfigError(
                f"exactly one of training.{phase}_epochs={epochs} and "
                f"training.{phase}_steps={steps} must be above 0"
            )


def _check_sizes(config):
    subset, budget = config.acquisition.pool_subset, config.acquisition.budget
    if 0 < subset < budget and config.acquisition.budget_unit == "images":
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


def _check_oracle(config):
    oracle = config.oracle
    one_of("oracle.name", oracle.name, ("simulated", "folder", "auto"))
    one_of("oracle.copy", oracle.copy, ("copy", "link", "none"))
    one_of("oracle.corrected", oracle.corrected, ("refuse", "keep", "take"))
    if oracle.name == "folder":
        refuse_many_methods(config)


def refuse_many_methods(config: ConfigDict) -> None:
    """Raise ConfigError where people would be asked for the labels of many methods."""
    others = {
        "loop.compare": tuple(config.loop.compare),
        "experiment.methods": tuple(config.experiment.methods),
    }
    for key, names in others.items():
        if names:
            raise ConfigError(
                f"oracle.name={config.oracle.name} asks people for the labels of one "
                f"method's choices, and {key}={names} names more: set {key}=()"
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
