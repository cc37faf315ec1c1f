"""Tasks that have only the contract, and of the capabilities those that they are given.

What they have is that of the small problem's task, poses.
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
    "illustrate",
}
# What comes with a capability.
COMPANIONS = {
    "posterior": {"posteriors"},
    "disagreement": {"measures"},
    "skeleton": {"in_map", "errors", "present", "decode_maps", "spec"},
}


class Bare:
    """A task without capabilities but for those named."""

    name = "bare"

    def __init__(self, *capabilities):
        unknown = set(capabilities) - CAPABILITIES.keys()
        assert not unknown, unknown
        companions = (COMPANIONS.get(one, ()) for one in capabilities)
        self.has = CONTRACT.union(capabilities, *companions)

    def __getattr__(self, name):
        if name not in self.has:
            raise AttributeError(name)
        return getattr(small.TASK, name)


@functools.cache
def bare(*capabilities) -> Bare:
    """The same object for the same capabilities in their order: it is compiled for."""
    return Bare(*capabilities)
