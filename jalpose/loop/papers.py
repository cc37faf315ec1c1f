"""Presets of what papers' published codes do: `papers=` after the colon of a config."""

from ml_collections import ConfigDict

from jalpose.settings.checks import ConfigError, one_of
from jalpose.settings.keys import lookup
from jalpose.settings.scales import Changes
from jalpose.tasks import registry as tasks


def changes(task: str, name: str, data: str) -> Changes:
    """What a preset of a task sets on a data set, by dotted key.

    Raises:
      ConfigError: the task has no such preset.
    """
    about = tasks.settings_of(task)
    known = getattr(about, "PAPERS", {})
    if not known:
        raise ConfigError(f"papers={name}: the task {task} has no such presets")
    one_of("the config argument papers", name, known)
    return {**known[name][""], **known[name].get(data, {})}


def check(config: ConfigDict) -> None:
    """Raise ConfigError for a preset that the config's task does not have."""
    if config.papers:
        changes(config.task, config.papers, config.data.name)


def told(config: ConfigDict) -> list[str]:
    """What the preset of a config sets, a line a key, and what it leaves; or []."""
    if not config.papers:
        return []
    lines = [f"papers={config.papers} sets:"]
    for key, value in sorted(
        changes(config.task, config.papers, config.data.name).items()
    ):
        now = lookup(config, key)
        changed = "" if now == value else f" (--config.{key}={now} instead)"
        lines.append(f"  {key} = {value}{changed}")
    left = getattr(tasks.settings_of(config.task), "NOT_DONE", ())
    return [*lines, "and does not do what the published code does with:"] + [
        f"  {one}" for one in left
    ]
