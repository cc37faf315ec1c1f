"""What must be equal for runs to be compared, and what may differ and is named.

Configs and records as plain objects in; keys, labels and sentences out.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

# Of a config: who and where a run is, not how it is run.
_IDENTITY = (
    "acquisition.method",
    "base",
    "experiment",
    "name",
    "seed",
    "seeds",
)
# Sizes of the work taken at once: they change time and memory, not the choice.
_EFFORT = (
    "acquisition.block",
    "acquisition.memory",
    "acquisition.microbatch",
    "acquisition.pieces",
    "evaluation.block",
    "training.report_steps",
)
# Options of a method that no section of its own holds. mc_dropout needs a network
# with dropout; that this changes the training as well is said by `cautions`.
_DROPOUT = "model.dropout"
_ENGINE = ("acquisition.engine", "acquisition.products")
_SKETCH = "acquisition.sketch"
# In what a run on all labels is unlike those that buy labels.
BUYING = (
    "acquisition",
    "data.labelled",
    "loop",
    "training.base_epochs",
    "training.base_steps",
)
_SCORING = ("pck_name", "pck_threshold", "pck_reference", "pck_joints", "num_images")


def flatten(config: dict, prefix: str = "") -> dict[str, Any]:
    """Dotted keys and their values."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def protocol(config: dict, *, ignore: Iterable[str] = ()) -> dict[str, Any]:
    """The keys of a config that have to be equal in all runs of a table.

    All but seeds, names, the method, every section of `acquisition` (the methods'
    own), what sets the effort alone, `model.dropout`, and `ignore` (dotted keys, each
    with everything below it).
    """
    acquisition = config.get("acquisition", {})
    sections = [f"acquisition.{k}" for k, v in acquisition.items() if type(v) is dict]
    ignored = *_IDENTITY, *_EFFORT, *_ENGINE, _DROPOUT, *sections, *ignore
    below = tuple(f"{key}." for key in ignored)
    return {
        key: value
        for key, value in flatten(config).items()
        if not f"{key}.".startswith(below) and not key.endswith("_seed")
    }


def scoring(cycles: Sequence[dict]) -> dict[str, Any]:
    """How the records say that a run was scored, and on how many images."""
    metrics = cycles[0]["metrics"] if cycles else {}
    return {f"metrics.{key}": metrics[key] for key in _SCORING if key in metrics}


def labels(configs: Sequence[dict], cycles: Sequence[Sequence[dict]]) -> list[str]:
    """A label for each run: its method and the options in which runs of it differ.

    An engine is an option of the methods whose records name one; its sketch's of
    those that take the sketch.
    """
    methods = [config["acquisition"]["method"] for config in configs]
    with_engine = {
        method
        for method, run in zip(methods, cycles, strict=True)
        if any((record.get("acquisition") or {}).get("engine") for record in run)
    }
    options = [
        _options(config, method, method in with_engine)
        for config, method in zip(configs, methods, strict=True)
    ]
    values: dict[tuple[str, str], set[str]] = {}
    for method, own in zip(methods, options, strict=True):
        for key, value in own.items():
            values.setdefault((method, key), set()).add(json.dumps(value))
    found = []
    for method, own in zip(methods, options, strict=True):
        differing = [key for key in own if len(values[method, key]) > 1]
        found.append(" ".join([method, *(f"{k}={_word(own[k])}" for k in differing)]))
    return found


def _options(config: dict, method: str, engine: bool) -> dict[str, Any]:
    """Options of a run's method by their short names, sorted."""
    flat, own = flatten(config), f"acquisition.{method}."
    taken = {k.removeprefix(own): v for k, v in flat.items() if k.startswith(own)}
    more = [_DROPOUT, *(_ENGINE if engine else ())]
    if engine and flat.get("acquisition.engine") == "sketch":
        more += [key for key in flat if key.startswith(f"{_SKETCH}.")]
    for key in more:
        if key in flat:
            short = key.removeprefix("acquisition.").removeprefix("model.")
            taken[short] = flat[key]
    return dict(sorted(taken.items()))


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def cautions(runs: Sequence[Any]) -> list[str]:
    """What may differ but should be known: devices, versions, revisions, base models.

    A GPU's model alone can change which method is best (Ji et al., WACV 2023).

    Args:
      runs: with `method`, `seed`, `config`, `about` and `cycles`, sorted.
    """
    found = []
    for what, of in (
        ("devices", lambda run: (run.about.get("device") or {}).get("kind")),
        ("revisions", lambda run: run.about.get("git")),
        ("versions of JAX", lambda run: (run.about.get("versions") or {}).get("jax")),
        ("model.dropout", lambda run: run.config.get("model", {}).get("dropout")),
    ):
        holders: dict[str, list[str]] = {}
        for run in runs:
            name = f"{run.method} seed {run.seed}"
            holders.setdefault(str(of(run)), []).append(name)
        if len(holders) > 1:
            parts = [f"{value} ({_few(names)})" for value, names in holders.items()]
            found.append(f"{what} differ: " + "; ".join(parts))
    return found + _unlike_bases(runs)


def _unlike_bases(runs: Sequence[Any]) -> list[str]:
    scores: dict[int, dict[float, list[str]]] = {}
    for run in runs:
        for record in run.cycles:
            pck = record["metrics"].get("pck")
            if record["cycle"] == 0 and pck is not None:
                same = scores.setdefault(run.seed, {}).setdefault(pck, [])
                same.append(run.method)
    unlike = [seed for seed, found in sorted(scores.items()) if len(found) > 1]
    if not unlike:
        return []
    which = "seed" if len(unlike) == 1 else "seeds"
    return [
        f"with {which} {', '.join(map(str, unlike))} the methods did not start from "
        "one base model: scores of cycle 0 differ, and methods differ in more than "
        "their choices"
    ]


def _few(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
