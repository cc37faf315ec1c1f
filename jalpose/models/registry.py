"""Networks by name: the fields of their options are the keys of `config.model`."""

from collections.abc import Callable, Mapping
from typing import Any

from jalpose.models import efficientnet
from jalpose.models.efficientnet import EfficientNetLite0Options
from jalpose.models.hourglass import HourglassOptions
from jalpose.models.mlp import MlpOptions
from jalpose.models.options import Options
from jalpose.models.resnet import ResNetOptions
from jalpose.models.vgg import VggOptions
from jalpose.settings.checks import one_of

MODELS: dict[str, type[Options]] = {
    "hourglass": HourglassOptions,
    "resnet": ResNetOptions,
    "vgg": VggOptions,
    "mlp": MlpOptions,
    "efficientnet_lite0": EfficientNetLite0Options,
}

# Published weights by network and value of its option `weights`: a function that reads
# variables of some of its layers, and says what they are.
WEIGHTS: dict[str, dict[str, Callable[[], tuple[dict, str]]]] = {
    "efficientnet_lite0": {"imagenet": efficientnet.imagenet_weights},
}


def options_of(model: Mapping[str, Any]) -> Options:
    """The options of the network that the config section `model` names."""
    given = dict(model)
    name = given.pop("name")
    one_of("model.name", name, MODELS)
    return MODELS[name](**given)
