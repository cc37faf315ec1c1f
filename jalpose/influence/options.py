"""What the bounds are taken of, besides what the config says."""

import dataclasses

from jalpose.influence.products import PRODUCTS
from jalpose.settings.checks import ConfigError, above, one_of

FOLDER = "bounds"  # of the results, in the workdir


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the bounds.

    Attributes:
      cycles: that chose; (): all whose next model is there.
      images: of the pool; 0: all that the run scored.
      training_images: that the curvature is the mean over, drawn; 0: all trained on.
      test_images: whose gradients are summed, spread over the test set; 0: all.
      product: gauss_newton (positive semidefinite) | hessian.
      damping: added to the curvature's diagonal, in units of the loss by a parameter
        squared; above 0. What is flatter than this counts as that flat.
      tolerance: of conjugate gradients: the residual, relative, at which they stop.
      steps: of conjugate gradients, at most.
      out: folder of the results; "": `FOLDER` in the workdir. A number is added where
        that holds something.
    """

    cycles: tuple[int, ...] = ()
    images: int = 0
    training_images: int = 0
    test_images: int = 0
    product: str = "gauss_newton"
    damping: float = 0.01
    tolerance: float = 1e-2
    steps: int = 100
    out: str = ""

    def check(self) -> None:
        """Raise ConfigError where a value is out of range."""
        one_of("--product", self.product, PRODUCTS)
        for name, least in (
            ("images", 0),
            ("training_images", 0),
            ("test_images", 0),
            ("steps", 1),
        ):
            value = getattr(self, name)
            if value < least:
                raise ConfigError(f"--{name}={value} must be at least {least}")
        for name in ("damping", "tolerance"):
            above(0, **{f"--{name}": getattr(self, name)})

    def asdict(self) -> dict:
        """The options by name, for records."""
        return dataclasses.asdict(self)
