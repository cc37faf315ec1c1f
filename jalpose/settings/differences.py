"""Configs as flat tables: what differs between two, and what that means for a run."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

# Keys that came after the first records, and the values that do what was done before.
SINCE: dict[str, Any] = {
    "task": "pose",
    "papers": "",
    "transfer": "",
    "evaluation.train_score": False,
    "evaluation.test_scores": False,
    "training.optimizer": "adam",
    "training.momentum": 0.9,
    "training.nesterov": False,
    "training.weight_decay": 0.0,
    "training.drop_epochs": [],
    "training.drop_steps": [],
    "training.drop_factor": 0.1,
    "training.heldout": "tenth",
    "training.plateau_reduces": "at",
    "acquisition.multipeak_entropy.threshold": 0.0,
    "acquisition.softmax_entropy.unit": "value",
    "acquisition.egl_ensemble.variance": False,
    "acquisition.budget_unit": "images",
    "acquisition.diverse": "",
    # Of data without equal images; others are refused (`loop.duplicates`).
    "acquisition.duplicates": "once",
    "acquisition.diverse_share": 0.25,
    "experiment.variants": [],
    "oracle.name": "simulated",
    "data.encoder.name": "",
    "data.encoder.size": 0,
    "model.predicts": "numbers",
    "data.rare_test": -1.0,
    "data.frames": 1,
    "data.frames_spread": 0.0,
    "data.groups": "none",
    "data.photos.labelled": "",
    "data.photos.pool": "",
    "data.photos.test": "",
    "data.photos.images": "",
    "data.photos.category": "",
    "data.photos.mirror": [],
    "data.photos.links": [],
    "data.photos.test_share": 0.2,
    "data.photos.test_seed": 0,
    "augment.window": [],
    "evaluation.least_peak": 0.0,
    "evaluation.score": "pck",
    "evaluation.sigmas": [],
    "acquisition.coreset.space": "embedding",
    "acquisition.coreset.cotangents": "random",
    "acquisition.coreset.layers": "all",
    "acquisition.coreset.directions": 4,
    "acquisition.coreset.candidates": 9,
    "acquisition.coreset.size": 512,
    "acquisition.badge.layers": "all",
    "acquisition.bait.layers": "all",
    "acquisition.kmeanspp.layers": "all",
    "acquisition.lcmd.layers": "all",
    "acquisition.maxdet.layers": "all",
    "acquisition.maxherding.layers": "all",
    "acquisition.typiclust.layers": "all",
}

# Keys that went, and the values that did what is done now.
GONE: dict[str, Any] = {
    # Now acquisition.pool_subset, the same for all methods.
    "acquisition.learning_loss.sub_pool": 0,
    # Now `variance`, which leaves the blur of a perfect heatmap out.
    "acquisition.egl_ensemble.covariance": False,
}

# Values that were spelled otherwise: key -> {then: now}.
RESPELLED: dict[str, dict[Any, Any]] = {
    f"acquisition.{method}.measure": {"heatmaps": "prediction", "joints": "decoded"}
    for method in ("ensemble", "mc_dropout")
}


def plain(config: ConfigDict) -> dict:
    """A config as JSON has it, so that tuples and lists compare equal."""
    return json.loads(config.to_json())


def leaves(value: Mapping, prefix: str = "") -> dict[str, Any]:
    """What nested dicts hold, by dotted key."""
    found: dict[str, Any] = {}
    for key, item in value.items():
        deeper = isinstance(item, Mapping) and item
        found |= leaves(item, f"{prefix}{key}.") if deeper else {prefix + key: item}
    return found


def without(config: Mapping, keys: Iterable[str]) -> dict[str, Any]:
    """The leaves of a config but for these dotted keys, each with all below it."""
    ignored = tuple(f"{key}." for key in keys)
    found = leaves(config)
    return {k: v for k, v in found.items() if not f"{k}.".startswith(ignored)}


def modern(record: Mapping) -> dict[str, Any]:
    """The leaves of a recorded config of any age, as today's would have them."""
    found = {**SINCE, **leaves(record)}
    for key, values in RESPELLED.items():
        if isinstance(found.get(key), str):
            found[key] = values.get(found[key], found[key])
    for key, value in GONE.items():
        if key in found and found[key] == value:
            del found[key]
    return found


def differences(old: Mapping, new: Mapping, ignore: Iterable[str] = ()) -> list[str]:
    """Lines `acquisition.budget: 100 -> 200` for every key that differs.

    Options of methods that neither side uses make no difference, so that a run goes on
    where methods have come or gone since it began; nor do those of a plateau where
    neither's learning rate goes by one.

    Args:
      old: a recorded config, of any age.
      new: today's.
      ignore: dotted keys left out, each with everything below it.
    """
    sides = [modern(old), modern(new)]
    ignored = (*(f"{name}." for name in ignore), *_unused(old, new))
    lines = []
    for key in sorted(sides[0].keys() | sides[1].keys()):
        was, now = (_text(s[key]) if key in s else "(absent)" for s in sides)
        if was != now and not f"{key}.".startswith(ignored):
            lines.append(f"{key}: {was} -> {now}")
    return lines


def _unused(old: Mapping, new: Mapping) -> tuple[str, ...]:
    """Prefixes of what neither config uses: methods' sections, a plateau's keys."""
    names: set[str] = set()
    used: set[Any] = {"sketch"}  # the engine's section, not a method's
    for config in (old, new):
        acquisition = config.get("acquisition") or {}
        names |= {k for k, v in acquisition.items() if isinstance(v, Mapping)}
        experiment = config.get("experiment") or {}
        compared = (config.get("loop") or {}).get("compare") or ()
        used |= {acquisition.get("method"), *compared}
        used |= set(experiment.get("methods") or ())
    schedules = {(c.get("training") or {}).get("schedule") for c in (old, new)}
    plateau = () if "plateau" in schedules else ("training.plateau_",)
    return (*(f"acquisition.{name}." for name in sorted(names - used)), *plateau)


def _text(value) -> str:
    if isinstance(value, float) and value != value:
        return '"nan"'
    if value in (float("inf"), float("-inf")):
        return json.dumps(str(value))
    return json.dumps(value)
