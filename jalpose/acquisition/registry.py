"""Acquisition methods by name: a new one is a file beside this and a line here.

Methods of other packages are found by their entry points of the group
`jalpose.methods`: name = "package.module:Class".
"""

import dataclasses
import functools
import warnings
from collections.abc import Mapping
from importlib import metadata
from typing import Any, NamedTuple

from jalpose.acquisition import (
    badge,
    bait,
    control,
    core_gcn,
    coreset,
    egl,
    egl_regression,
    eglpp,
    ensemble,
    entropy_gradnorm,
    expected_gradnorm,
    kmeanspp,
    lcmd,
    learning_loss,
    least_confidence,
    least_margin,
    maxdet,
    maxherding,
    mc_dropout,
    predictive_variance,
    random,
    softmax_entropy,
    sraal,
    typiclust,
    vaal,
)
from jalpose.acquisition.diverse import Diverse
from jalpose.acquisition.method import Method
from jalpose.acquisition.parts.spaces import Spatial
from jalpose.acquisition.pose import aleatoric, egl_ensemble, multipeak_entropy, vl4pose
from jalpose.settings.checks import ConfigError, one_of
from jalpose.settings.keys import common
from jalpose.tasks.task import CAPABILITIES, Task, lacking

GROUP = "jalpose.methods"

METHODS: dict[str, type[Method]] = {
    "random": random.Random,
    "coreset": coreset.CoreSet,
    "lcmd": lcmd.Lcmd,
    "kmeanspp": kmeanspp.KMeansPlusPlus,
    "badge": badge.Badge,
    "maxdet": maxdet.MaxDet,
    "bait": bait.Bait,
    "typiclust": typiclust.TypiClust,
    "maxherding": maxherding.MaxHerding,
    "multipeak_entropy": multipeak_entropy.MultiPeakEntropy,
    "softmax_entropy": softmax_entropy.SoftmaxEntropy,
    "least_confidence": least_confidence.LeastConfidence,
    "least_margin": least_margin.LeastMargin,
    "learning_loss": learning_loss.LearningLoss,
    "eglpp": eglpp.EglPlusPlus,
    "expected_gradnorm": expected_gradnorm.ExpectedGradnorm,
    "entropy_gradnorm": entropy_gradnorm.EntropyGradnorm,
    "egl": egl.Egl,
    "egl_ensemble": egl_ensemble.EglEnsemble,
    "egl_regression": egl_regression.EglRegression,
    "predictive_variance": predictive_variance.PredictiveVariance,
    "ensemble": ensemble.Ensemble,
    "mc_dropout": mc_dropout.McDropout,
    "aleatoric": aleatoric.Aleatoric,
    "vl4pose": vl4pose.Vl4Pose,
    "vaal": vaal.Vaal,
    "sraal": sraal.Sraal,
    "core_gcn": core_gcn.CoreGcn,
    "control": control.Control,
}


class Plugins(NamedTuple):
    """What other packages bring.

    Attributes:
      found: methods by name.
      failed: of names whose method cannot be had, the reason.
    """

    found: dict[str, type[Method]]
    failed: dict[str, str]


def methods() -> dict[str, type[Method]]:
    """All methods there are: the above, and those of other packages."""
    return {**METHODS, **plugins().found}


def check_name(what: str, name: str) -> None:
    """Raise ConfigError unless there is a method of that name.

    Args:
      what: key or argument that names it, for the message.
      name: of the method.
    """
    failed = plugins().failed
    if name in failed:
        raise ConfigError(f"the method {name!r} cannot be used: {failed[name]}")
    one_of(what, name, methods())


def method_of(name: str, options: dict) -> Method:
    """The method of a name with these options.

    Raises:
      ConfigError: it is not known, its package fails to import, or an option is not
        allowed.
    """
    check_name("acquisition.method", name)
    return methods()[name](**options)


def configured(acquisition: Mapping, name: str) -> Method | Diverse:
    """The method of a name as the config section `acquisition` describes it.

    What `acquisition.diverse` names chooses among the best of methods that score: those
    that go by distances are spread out already, and random and control are what the
    others are compared with.

    Raises:
      ConfigError: as `method_of`, or the second method is none that spreads.
    """
    method, spreading = _made(acquisition, name), acquisition["diverse"]
    if not spreading or isinstance(method, Spatial) or name in ("random", "control"):
        return method
    check_name("acquisition.diverse", spreading)
    second = _made(acquisition, spreading)
    return Diverse(method, second, acquisition["diverse_share"])


def _made(acquisition: Mapping, name: str) -> Method:
    return method_of(name, dict(acquisition.get(name, {})))


def check_capabilities(name: str, task: Task) -> None:
    """Raise ConfigError where a method asks for what a task does not have."""
    missing = lacking(task, methods()[name].capabilities)
    if not missing:
        return
    wanted = "; ".join(f"{one} {CAPABILITIES[one]}" for one in missing)
    working = [k for k, m in methods().items() if not lacking(task, m.capabilities)]
    raise ConfigError(
        f"{name} does not work on the task {task.name}, which lacks {wanted}. These "
        f"methods do: {', '.join(working)}"
    )


@functools.cache
def plugins() -> Plugins:
    """Methods of entry points, looked for once; `plugins.cache_clear()`: once more.

    What cannot be had, or has a name that is taken, is left out with a warning.
    """
    found: dict[str, type[Method]] = {}
    failed: dict[str, str] = {}
    for point in metadata.entry_points(group=GROUP):
        name, reason = point.name, _taken(point.name, found)
        if not reason:
            try:
                found[name] = _load(point)
                continue
            except Exception as error:  # whatever another package's import may raise
                reason = f"{type(error).__name__}: {error}"
        if name not in METHODS and name not in found:
            failed[name] = f"{point.value}: {reason}"
        warnings.warn(
            f"the entry point {name} = {point.value} of the group {GROUP} is left out: "
            f"{reason}",
            stacklevel=2,
        )
    return Plugins(found, failed)


def _taken(name: str, found: dict) -> str:
    """Who has the name already; "": nobody."""
    if name in METHODS:
        return "jalpose has a method of that name"
    if name in found:
        return "another package has a method of that name"
    if name in common().acquisition:
        return f"acquisition.{name} is a key of every config"
    return ""


def _load(point: metadata.EntryPoint) -> type[Method]:
    method: Any = point.load()
    contract = [name for name in vars(Method) if not name.startswith("_")]
    usable = isinstance(method, type) and dataclasses.is_dataclass(method)
    if not usable or not all(hasattr(method, name) for name in contract):
        raise TypeError(
            "not a dataclass with jalpose.acquisition.method.Method as its base"
        )
    for field in dataclasses.fields(method):
        if field.default is dataclasses.MISSING:
            raise TypeError(f"its option {field.name} has no default")
    return method
