"""Keys of the data of classes: `settings` puts them into the section `data`."""

from ml_collections import ConfigDict

from jalpose.settings.checks import ConfigError, above, at_least, one_of

LABELS = ("fine", "coarse")  # values of `data.cifar.labels`


def add(data: ConfigDict) -> None:
    """Add the keys of classes to the section `data`."""
    # cifar10 | cifar100 | svhn | caltech101 | imagenet | folders (a folder a
    # class) | shapes (drawn)
    data.name = "cifar10"
    # At the start the same number of each class, as far as there are so many; False:
    # drawn from all alike, as in the papers.
    data.balanced = False
    # Classes by name of which labelled and pool hold few, and the share of their
    # training images that stays: 1/20 is one in twenty. The test set stays as it is.
    data.rare_classes = ()
    data.rare_share = 0.05
    cifar = data.cifar = ConfigDict()
    cifar.labels = "fine"  # of CIFAR-100: fine (100 classes) | coarse (20)
    # Of sets with a folder a class: the folder that holds those (or train/ and val/),
    # relative to data.dir; "": caltech101/101_ObjectCategories, imagenet, or data.dir.
    data.folder = ""
    # Of one such folder without train/ and val/: share of each class's images that is
    # the test set, and the seed of their choice, which is the same for every `seed`.
    data.test_share = 0.2
    data.test_seed = 0
    # Of images of any size: side of the crop, from the middle, in shorter sides of the
    # image (224 of 256 pixels, as is usual).
    data.window = 0.875
    caltech101 = data.caltech101 = ConfigDict()
    # BACKGROUND_Google is a class too: 102 (False: 101, as the gradnorm paper has it).
    caltech101.background = False


def check(data: ConfigDict) -> None:
    """Check the values of these keys.

    Raises:
      ConfigError: names the key, its value and what is allowed.
    """
    one_of("data.cifar.labels", data.cifar.labels, LABELS)
    above(0, data__initial=data.initial)
    at_least(0, data__test_seed=data.test_seed)
    for key in ("rare_share", "window"):
        if not 0 < data[key] <= 1:
            raise ConfigError(f"data.{key}={data[key]} must be above 0, and at most 1")
    if not 0 < data.test_share < 1:
        raise ConfigError(
            f"data.test_share={data.test_share} must lie between 0 and 1, both excluded"
        )
    if isinstance(data.rare_classes, str):
        raise ConfigError(
            f"data.rare_classes={data.rare_classes!r} must be names in brackets: "
            f"('{data.rare_classes}',)"
        )
