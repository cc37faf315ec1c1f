"""Workdirs whose run has another config, or models of other data, are refused."""

from collections.abc import Collection

from ml_collections import ConfigDict

from jalpose.data.dataset import Dataset
from jalpose.loop import identity
from jalpose.settings.checks import ConfigError
from jalpose.settings.differences import differences, plain
from jalpose.settings.keys import RUNTIME_KEYS
from jalpose.storage import records
from jalpose.tasks import registry as tasks


def refuse_model_of_other_data(workdir, dataset: Dataset, key: str) -> None:
    """Raise ConfigError where the models in `workdir` were trained on other data.

    Args:
      workdir: of a run.
      dataset: of this one.
      key: what named the workdir, for the error.
    """
    found = identity.difference(workdir, dataset)
    if found:
        raise ConfigError(
            f"{key}={str(workdir)!r}: its models were trained on other data: {found}. "
            "Bring the data back as they were, or train on these"
        )


def model_differences(
    recorded: dict, config: ConfigDict, more: Collection[str] = (), ignore=()
) -> list[str]:
    """Differences in what makes a trained model what it is; see `differences`.

    Args:
      recorded: config of the run it was trained in.
      config: of the run it is for.
      more: sections or keys that have to be the same beside the usual.
      ignore: keys beside the runtime's.
    """
    own = tasks.settings_of(config.task).MODEL_SECTIONS
    sections = ("task", "data", "model", *own, *more)
    there, ours = (
        {name: side[name] for name in sections if name in side}
        for side in (recorded, plain(config))
    )
    return differences(there, ours, ignore=(*RUNTIME_KEYS, *ignore))


def refuse_another_config(
    config: ConfigDict, workdir, ignore: Collection[str] = ()
) -> None:
    """Raise WorkdirError where a run of another config is in `workdir`.

    `ignore` are keys beside the runtime's: `base`, where it follows from the workdir.
    """
    record = records.read_config(workdir)
    if record is None:
        return
    found = differences(
        record["config"], plain(config), ignore=(*RUNTIME_KEYS, *ignore)
    )
    began, cycles = record["config"]["loop"]["cycles"], config.loop.cycles
    if not found and cycles < began:
        raise records.WorkdirError(
            f"{workdir} holds a run of loop.cycles={began}: it can be given more, not "
            f"fewer ({cycles}). What it has finished is whole, whenever it is stopped"
        )
    if found:
        raise records.WorkdirError(
            f"{workdir} holds a run of another config; choose another --workdir, or "
            "repeat that run's config. Differences (there -> now):\n  "
            + "\n  ".join(found)
        )


def refuse_other_data(dataset: Dataset, workdir) -> None:
    """Raise WorkdirError where the run in `workdir` began with other data."""
    found = identity.difference(workdir, dataset)
    if found:
        raise records.WorkdirError(
            f"{workdir} holds a run of other data: {found}. Bring the data back as "
            "they were, or choose another --workdir"
        )
