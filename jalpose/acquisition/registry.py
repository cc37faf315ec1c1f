"""Acquisition methods by name: a new one is a file beside this and a line here.

Methods of other packages are found by their entry points of the group
`jalpose.methods`: name = "package.module:Class".
"""

import functools
import warnings
from importlib import metadata

from jalpose.acquisition import (
    control,
    coreset,
    egl,
    eglpp,
    ensemble,
    entropy_gradnorm,
    expected_gradnorm,
    learning_loss,
    mc_dropout,
    random,
    softmax_entropy,
)
from jalpose.acquisition.method import Method
from jalpose.acquisition.pose import aleatoric, egl_ensemble, multipeak_entropy, vl4pose
from jalpose.settings.checks import ConfigError, one_of
from jalpose.tasks.task import CAPABILITIES, Task, lacking

GROUP = "jalpose.methods"

METHODS: dict[str, type[Method]] = {
    "random": random.Random,
    "coreset": coreset.CoreSet,
    "multipeak_entropy": multipeak_entropy.MultiPeakEntropy,
    "softmax_entropy": softmax_entropy.SoftmaxEntropy,
    "learning_loss": learning_loss.LearningLoss,
    "eglpp": eglpp.EglPlusPlus,
    "expected_gradnorm": expected_gradnorm.ExpectedGradnorm,
    "entropy_gradnorm": entropy_gradnorm.EntropyGradnorm,
    "egl": egl.Egl,
    "egl_ensemble": egl_ensemble.EglEnsemble,
    "ensemble": ensemble.Ensemble,
    "mc_dropout": mc_dropout.McDropout,
    "aleatoric": aleatoric.Aleatoric,
    "vl4pose": vl4pose.Vl4Pose,
    "control": control.Control,
}


def methods() -> dict[str, type[Method]]:
    """All methods there are: the above, and those of other packages."""
    return {**METHODS, **_found()[0]}


def method_of(name: str, options: dict) -> Method:
    """The method of a name with these options.

    Raises:
      ConfigError: it is not known, its package fails to import, or an option is not
        allowed.
    """
    known, (_, failed) = methods(), _found()
    if name in failed:
        raise ConfigError(f"the method {name!r} cannot be imported: {failed[name]}")
    one_of("acquisition.method", name, known)
    return known[name](**options)


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
def _found() -> tuple[dict[str, type[Method]], dict[str, str]]:
    """Methods of entry points, and of those that cannot be had the reason."""
    found: dict[str, type[Method]] = {}
    failed: dict[str, str] = {}
    for point in metadata.entry_points(group=GROUP):
        if point.name in METHODS:
            failed_with = "jalpose has a method of that name"
        else:
            try:
                found[point.name] = point.load()
                continue
            except Exception as error:  # whatever another package's import may raise
                failed_with = f"{type(error).__name__}: {error}"
                failed[point.name] = f"{point.value}: {failed_with}"
        warnings.warn(
            f"the entry point {point.name} = {point.value} of the group {GROUP} is "
            f"left out: {failed_with}",
            stacklevel=2,
        )
    return found, failed
