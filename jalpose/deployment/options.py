"""What the commands that use a trained run may be told."""

import os
from typing import NamedTuple

from jalpose.settings.checks import ConfigError, at_least, one_of
from jalpose.tasks.inference import Place

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


class Model(NamedTuple):
    """Which model of which run.

    Attributes:
      workdir: of the run.
      cycle: that trained it; -1: the newest.
      data_dir: stands in for the run's `data.dir`; "": as recorded.
    """

    workdir: str
    cycle: int = -1
    data_dir: str = ""


class Prediction(NamedTuple):
    """What `jalpose.predict` does.

    Attributes:
      place: of the images.
      out: folder of what is written.
      pictures: images that are drawn, from the first on.
    """

    place: Place
    out: str
    pictures: int = 100

    def check(self) -> None:
        """Raise ConfigError for what cannot be done."""
        at_least(0, pictures=self.pictures)
        refuse_taken(self.out)


class Selection(NamedTuple):
    """What `jalpose.select` does.

    Attributes:
      place: of the images; None: the run's own pool.
      out: folder of what is handed out.
      budget: how many to choose; 0: the run's.
      method: that chooses; "": the run's.
      options: changes of `acquisition`, key=value.
      copy: see `oracle.copy`.
    """

    place: Place | None
    out: str
    budget: int = 0
    method: str = ""
    options: tuple[str, ...] = ()
    copy: str = "copy"

    def check(self) -> None:
        """Raise ConfigError for what cannot be done."""
        at_least(0, budget=self.budget)
        refuse_taken(self.out)


class Export(NamedTuple):
    """What `jalpose.export` does.

    Attributes:
      out: folder of what is written.
      platforms: that it is to run on.
    """

    out: str
    platforms: tuple[str, ...] = ("cpu", "cuda", "tpu")

    def check(self) -> None:
        """Raise ConfigError for what cannot be done."""
        for platform in self.platforms or ("",):
            one_of("--platforms", platform, PLATFORMS)
        refuse_taken(self.out)


def refuse_taken(out: str) -> None:
    """Raise ConfigError where something is at `out` already, or it is no place."""
    if os.path.lexists(out) and not (os.path.isdir(out) and not os.listdir(out)):
        raise ConfigError(
            f"--out={out}: something is there already, and nothing is written over: "
            "name another folder, or move it away"
        )
    if os.path.realpath(out) == os.path.realpath(os.curdir):
        raise ConfigError(
            f"--out={out} is the folder that this command runs in: name one below it"
        )
