"""Tasks that have only the contract, and of the capabilities those that they are given.

What they have is that of the small problem's task, poses; what poses lack is here.
"""

import functools

from jalpose.tasks.task import CAPABILITIES
from tests.support import small

CONTRACT = {
    "size",
    "num_outputs",
    "label_shapes",
    "augment",
    "target",
    "known",
    "loss",
    "decode",
}
# What comes with a capability.
COMPANIONS = {
    "posterior": {"posteriors"},
    "disagreement": {"measures"},
    "skeleton": {"in_map", "errors", "present", "decode_maps", "spec"},
}


def moments(prediction):
    """A number of heatmaps: their mean, and how they vary."""
    return prediction.mean(), prediction.var()


LACKED = {"moments": moments}


class Bare:
    """A task without capabilities but for those named."""

    name = "bare"

    def __init__(self, *capabilities):
        unknown = set(capabilities) - CAPABILITIES.keys()
        assert not unknown, unknown
        companions = (COMPANIONS.get(one, ()) for one in capabilities)
        for attribute in CONTRACT.union(capabilities, *companions):
            own = LACKED.get(attribute) or getattr(small.TASK, attribute)
            setattr(self, attribute, own)


@functools.cache
def bare(*capabilities) -> Bare:
    """The same object for the same capabilities in their order: it is compiled for."""
    return Bare(*capabilities)
