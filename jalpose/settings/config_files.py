"""Config files by path or by name: those of `configs/` are found from anywhere.

They lie beside the package in a checkout, and inside it where it was installed.
"""

import os
from pathlib import Path

from jalpose.settings.checks import ConfigError, did_you_mean

_PACKAGE = Path(__file__).parents[1]


def shipped() -> dict[str, Path]:
    """Config files that come with the project, by name: quickstart, experiments/lsp."""
    for folder in (_PACKAGE / "configs", _PACKAGE.parent / "configs"):
        found = {
            path.relative_to(folder).with_suffix("").as_posix(): path
            for path in sorted(folder.rglob("*.py"))
        }
        if found:
            return found
    return {}


def resolve(value: str) -> str:
    """The value of `--config` with the path of its file: `quickstart:scale=tiny`.

    A file that is there by the path as given comes first; then the shipped ones, with
    or without `configs/` and `.py`.

    Raises:
      ConfigError: there is none, with the nearest name.
    """
    path, colon, rest = value.partition(":")
    if os.path.isfile(path):
        return value
    own, name = shipped(), path.removeprefix("configs/").removesuffix(".py")
    if name in own:
        return f"{own[name]}{colon}{rest}"
    benchmark, _, method = name.partition("_")
    if method and benchmark in own:
        picked = ",".join(filter(None, (f"method={method}", rest)))
        raise ConfigError(
            f"there is no {path}: a benchmark has one config file, with its method as "
            f"an argument. The same is --config={benchmark}:{picked}"
        )
    raise ConfigError(
        f"--config={value}: there is no file {path}, and no shipped config of this "
        f"name. Shipped are: {', '.join(own)}.{did_you_mean(name, own)}"
    )
