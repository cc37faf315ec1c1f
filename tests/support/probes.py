"""Probes and passes that tell what they were asked."""

import functools

import jax
import numpy as np

from jalpose.models.output import Output
from jalpose.scoring.passes import example_keys, execute
from tests.support import small


class Counted:
    """Runs the blocks of `Passes`, and keeps which there were.

    Attributes:
      blocks: (name of the pass, ids of the block, the padding's too), in their order.
    """

    def __init__(self):
        self.blocks = []

    def __call__(self, fn, run, variables, rows):
        ids = np.asarray(rows["id"]).tolist()
        self.blocks.append((small.pass_name(fn), *ids))
        return execute(fn, run, variables, rows)


@functools.cache
def _of_each(fn):
    return jax.jit(jax.vmap(fn))


class GivenOutputs:
    """A probe that gives a method the outputs it was made with, as they are.

    Attributes:
      task: what they are of.
      outputs: `Output` of all examples.
      functions: those that were asked for.
      asked: ids they were asked of.
    """

    def __init__(self, ids, prediction, head=None, task=small.TASK):
        embedding = np.zeros((len(ids), 2), np.float32)
        self.outputs = Output(prediction, embedding, head=head)
        self.task, self.functions, self.asked = task, [], []
        self._rows = {example: row for row, example in enumerate(ids)}

    def reduce(self, fn, ids, key=None):
        self.functions.append(fn)
        self.asked.append(ids)
        rows = np.array([self._rows[example] for example in ids.tolist()])
        outputs = jax.tree.map(lambda leaf: leaf[rows], self.outputs)
        key = jax.random.key(0) if key is None else key
        return jax.tree.map(np.asarray, _of_each(fn)(outputs, example_keys(key, ids)))
