"""What must be equal for runs to be compared, and what may differ and is named.

Configs and records as plain objects in; keys, labels and sentences out.
"""

import collections
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jalpose.report import scoring as scores
from jalpose.settings import differences
from jalpose.settings.checks import ConfigError
from jalpose.storage import cycles

# Of a config: who and where a run is, not how it is run.
_IDENTITY = (
    "acquisition.diverse",
    "acquisition.diverse_share",
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
# Measures that are taken or not: they change neither training nor choice.
_MEASURED = ("evaluation.test_scores", "evaluation.train_score")
# Options of a method that no section of its own holds. mc_dropout needs a network
# with dropout; that this changes the training as well is said by `cautions`.
_DROPOUT = "model.dropout"
_ENGINE = ("acquisition.engine", "acquisition.products")
_SKETCH = "acquisition.sketch"
_DIVERSE = "acquisition.diverse"
# In what a run on all labels is unlike those that buy labels.
BUYING = (
    "acquisition",
    "data.labelled",
    "loop",
    "training.base_epochs",
    "training.base_steps",
)


def protocol(
    config: Mapping[str, Any], *, ignore: Iterable[str] = ()
) -> dict[str, Any]:
    """The keys of a config that have to be equal in all runs of a table.

    All but seeds, names, the method, every section of `acquisition` (the methods'
    own), what sets the effort or measures alone, `model.dropout`, and `ignore` (dotted
    keys, each with everything below it).
    """
    acquisition = config.get("acquisition", {})
    sections = [f"acquisition.{k}" for k, v in acquisition.items() if type(v) is dict]
    ignored = *_IDENTITY, *_EFFORT, *_MEASURED, *_ENGINE, _DROPOUT, *sections, *ignore
    below = tuple(f"{key}." for key in ignored)
    return {
        key: value
        for key, value in differences.modern(config).items()
        if not f"{key}.".startswith(below) and not key.endswith("_seed")
    }


def scoring(run: Any) -> dict[str, Any]:
    """How the records say that a run was scored, and on how many images."""
    metrics = cycles.metrics(run.cycles[0]) if run.cycles else {}
    try:
        keys = scores.keys_of(run.task, metrics)
    except ConfigError:  # a task that is not known here is refused as such
        return {}
    found = scores.how(metrics, keys)
    return {f"metrics.{key}": value for key, value in found.items()}


# Of methods that do not choose in the embedding where nothing else is asked for.
_SPACES = {"badge": "gradients"}


def labels(
    configs: Sequence[dict], records: Sequence[Sequence[cycles.Record]]
) -> list[str]:
    """A label for each run: its method and the options in which runs of it differ.

    That it is spread out, or chooses in another space than it usually does, is always
    said. Of two runs of one seed that differ in `seeds.acquire` alone, as two draws of
    random do, the one that has its own says so.

    An engine is an option of the methods whose records name one; its sketch's of
    those that take the sketch.
    """
    methods = [config["acquisition"]["method"] for config in configs]
    with_engine = {
        method
        for method, run in zip(methods, records, strict=True)
        if any(cycles.acquisition(record).get("engine") for record in run)
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
        # What makes another method of it is told though all its runs have it.
        other_space = own.get("space") not in (None, _SPACES.get(method, "embedding"))
        always = {"diverse", *(["space"] if other_space else [])}
        shown = [key for key in own if len(values[method, key]) > 1 or key in always]
        found.append(" ".join([method, *(f"{k}={_word(own[k])}" for k in shown)]))
    return _draws_apart(found, configs)


def _draws_apart(found: Sequence[str], configs: Sequence[dict]) -> list[str]:
    """Labels with the seed of the draws, of methods that have one seed twice."""
    seeds = [config.get("seed") for config in configs]
    twice = {
        label
        for (label, _), number in collections.Counter(
            zip(found, seeds, strict=True)
        ).items()
        if number > 1
    }
    draws = [config.get("seeds", {}).get("acquire", -1) for config in configs]
    return [
        f"{label} seeds.acquire={draw}" if label in twice and draw >= 0 else label
        for label, draw in zip(found, draws, strict=True)
    ]


def _options(config: dict, method: str, engine: bool) -> dict[str, Any]:
    """Options of a run's method by their short names, sorted."""
    flat, own = differences.modern(config), f"acquisition.{method}."
    taken = {k.removeprefix(own): v for k, v in flat.items() if k.startswith(own)}
    more = [_DROPOUT, *(_ENGINE if engine else ())]
    if flat.get(_DIVERSE):
        more += [_DIVERSE, f"{_DIVERSE}_share"]
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

    And numbers of labels, and scores that are not there.

    A GPU's model alone can change which method is best (Ji et al., WACV 2023).

    Args:
      runs: with `method`, `seed`, `task`, `config`, `about` and `cycles`, sorted.
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
    return found + _unlike_bases(runs) + _unlike_numbers(runs) + _without_score(runs)


def _unlike_bases(runs: Sequence[Any]) -> list[str]:
    found: dict[int, dict[float, list[str]]] = {}
    for run in runs:
        for record in run.cycles:
            metrics = cycles.metrics(record)
            score = metrics.get(scores.keys_of(run.task, metrics).key)
            if record["cycle"] == 0 and score is not None:
                same = found.setdefault(run.seed, {}).setdefault(score, [])
                same.append(run.method)
    unlike = [seed for seed, bases in sorted(found.items()) if len(bases) > 1]
    if not unlike:
        return []
    which = "seed" if len(unlike) == 1 else "seeds"
    return [
        f"with {which} {', '.join(map(str, unlike))} the methods did not start from "
        "one base model: scores of cycle 0 differ, and methods differ in more than "
        "their choices"
    ]


def _unlike_numbers(runs: Sequence[Any]) -> list[str]:
    """Runs that have bought more labels than others at the same cycle, if any.

    A budget of clicks buys what it pays for, and people reject examples. A control's
    are not meant.
    """
    apart: dict[int, tuple[int, str]] = {}
    found: dict[int, dict[int, str]] = {}
    for run in runs:
        numbers = {record["cycle"]: record["num_labelled"] for record in run.cycles}
        if len(numbers) > 1 and len(set(numbers.values())) == 1:
            continue
        for cycle, number in numbers.items():
            name = f"{run.method} seed {run.seed}"
            found.setdefault(cycle, {}).setdefault(number, name)
    for cycle, holders in found.items():
        least, most = min(holders), max(holders)
        said = f"from {least} ({holders[least]}) to {most} ({holders[most]})"
        apart[cycle] = most - least, f"{said} at cycle {cycle}"
    widest, said = max(apart.values(), default=(0, ""))
    if not widest:
        return []
    return [
        f"numbers of labels differ, {said}: each cycle stands at the number of the run "
        "with most, in tables, curves, areas and labels saved"
    ]


def _without_score(runs: Sequence[Any]) -> list[str]:
    """Cycles that are there and have no score, which comparisons leave out."""
    found = []
    for run in runs:
        for record in run.cycles:
            metrics = cycles.metrics(record)
            score = metrics.get(scores.keys_of(run.task, metrics).key)
            if score is None or not math.isfinite(score):
                found.append(f"{run.method} seed {run.seed} cycle {record['cycle']}")
    return [f"there is no score of {_few(found)}"] if found else []


def _few(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
