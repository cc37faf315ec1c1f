"""What is compared, besides what the config says."""

import dataclasses

from jalpose.settings.checks import ConfigError

FOLDER = "compare_engines"  # of the results, in the workdir


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a comparison.

    Attributes:
      cycle: whose model; -1: the newest.
      images: how many of the unlabelled; 0: all there are.
      engines: names, see `contestants.contestants`.
      repeats: timed runs of each engine on each block.
      out: folder of the results; "": `FOLDER` in the workdir. A number is added where
        that holds something.
    """

    cycle: int = -1
    images: int = 300
    engines: tuple[str, ...] = ("exact", "ghost", "conv_linear", "goodfellow", "sketch")
    repeats: int = 1
    out: str = ""

    def check(self) -> None:
        """Raise ConfigError where a number is out of range."""
        for name, least in (("cycle", -1), ("images", 0), ("repeats", 1)):
            value = getattr(self, name)
            if value < least:
                raise ConfigError(f"--{name}={value} must be at least {least}")

    def asdict(self) -> dict:
        """The options by name, for records."""
        return dataclasses.asdict(self)
