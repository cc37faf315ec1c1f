"""Keys of the data of classes: `settings` puts them into the section `data`."""

from ml_collections import ConfigDict

from jalpose.settings.checks import one_of

LABELS = ("fine", "coarse")  # values of `data.cifar.labels`


def add(data: ConfigDict) -> None:
    """Add the keys of classes to the section `data`."""
    # cifar10 | cifar100 | shapes (drawn)
    data.name = "cifar10"
    # At the start the same number of each class, as far as there are so many; False:
    # drawn from all alike, as in the papers.
    data.balanced = False
    cifar = data.cifar = ConfigDict()
    cifar.labels = "fine"  # of CIFAR-100: fine (100 classes) | coarse (20)


def check(data: ConfigDict) -> None:
    """Check the values of these keys.

    Raises:
      ConfigError: names the key, its value and what is allowed.
    """
    one_of("data.cifar.labels", data.cifar.labels, LABELS)
