"""Checks that every room uses, with errors that name the key and what is allowed."""

import difflib
from collections.abc import Collection


class ConfigError(ValueError):
    """A key, argument or value of the configuration is not one of the allowed."""


def one_of(what: str, value, known: Collection) -> None:
    """Raise ConfigError naming the known values unless `value` is one of them."""
    if value in known:
        return
    raise ConfigError(
        f"unknown value of {what}: {value!r}. Known: "
        f"{', '.join(str(k) for k in known)}.{did_you_mean(value, known)}"
    )


def did_you_mean(value, known: Collection) -> str:
    """A hint at the nearest of the known, with a space before it; or nothing.

    The last of a message, where it is seen.
    """
    close = difflib.get_close_matches(str(value), [str(k) for k in known], n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def above(low, **values) -> None:
    """Raise ConfigError unless each value is above `low`."""
    for key, value in values.items():
        if not value > low:  # nan is neither
            raise ConfigError(f"{_dotted(key)}={value} must be above {low}")


def at_least(low, **values) -> None:
    """Raise ConfigError unless each value is `low` or more."""
    for key, value in values.items():
        if not value >= low:
            raise ConfigError(f"{_dotted(key)}={value} must be at least {low}")


def between(key: str, value, low, high) -> None:
    """Raise ConfigError unless the value lies in [low, high]."""
    if not low <= value <= high:
        raise ConfigError(f"{key}={value} must lie between {low} and {high}")


def _dotted(key: str) -> str:
    return key.replace("__", ".")
