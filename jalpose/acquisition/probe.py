"""What an acquisition method may ask of the model: passes over chosen examples.

A probe keeps a journal of every block it has computed. When the pieces granted to it
are used up it raises `Paused`; the method is later called again from its beginning
with a probe on the same journal, and everything done is answered from there. So a
method is written as one straight function, and still stops and resumes anywhere.
"""

import hashlib
from collections.abc import Callable

import jax
import numpy as np

from jalpose import losses
from jalpose.evaluation import passes
from jalpose.evaluation.passes import Passes, example_keys
from jalpose.pergrad import api as pergrad
from jalpose.training import scale_images

Journal = dict[str, np.ndarray]


class Paused(Exception):
    """The granted pieces are used up; the probe's journal holds what is done."""


class Probe:
    """Lazy, blockwise, resumable passes of one trained network.

    Args:
      walker: compiled passes of the network.
      variables: of the network.
      journal: of earlier calls; it is copied, never changed.
      pieces: blocks that may be computed before `Paused`.
      forward_block: examples a forward pass.
      gradient_block: examples a pass of gradient norms.
      engine: of gradient norms, see `pergrad.api`.
      chunk: candidates whose gradients are held at once; 0: all.
    """

    def __init__(
        self,
        walker: Passes,
        variables,
        *,
        journal: Journal,
        pieces: int,
        forward_block: int,
        gradient_block: int,
        engine: str,
        chunk: int,
    ):
        self._walker, self._variables = walker, variables
        self.journal = dict(journal)
        self.progress = ("", 0, 0)  # pass, examples done, examples in all
        self._pieces = pieces
        self._forward_block, self._gradient_block = forward_block, gradient_block
        self._engine, self._chunk = engine, chunk

    @property
    def spec(self):
        """How label heatmaps are drawn; `spec.render(joints, present)` draws them."""
        return self._walker.spec

    def embeddings(self, ids: np.ndarray) -> np.ndarray:
        """Embedding of each example: float32 [len(ids), C]."""
        return self.describe(ids)["embedding"]

    def describe(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        """Embedding, predicted joints (crop pixels), peaks and loss of each example.

        For records: the loss is of labels a method must not look at.
        """
        return self._pass("describe", self._walker.describe, ids, self._forward_block)

    def reduce(self, fn: Callable, ids: np.ndarray, key=None) -> dict:
        """Compute `fn(output, key)` of each example's `PoseOutput`, on the device.

        Args:
          fn: (PoseOutput of one example, key of that example) -> dict of arrays; the
            same function object each time, or it is compiled anew.
          ids: example ids.
          key: of the pass; each example's own is folded with its id.
        """
        key = jax.random.key(0) if key is None else key
        which = (fn, jax.random.key_data(key).tobytes())
        reduction = self._walker.once(
            which, lambda: _reduction(self._walker.model, fn, key)
        )
        name = f"reduce-{fn.__name__}-{_digest(jax.random.key_data(key))}"
        return self._pass(name, reduction, ids, self._forward_block)

    def squared_norms(
        self, targets_fn: Callable, ids: np.ndarray, weights: np.ndarray, context
    ) -> dict[str, np.ndarray]:
        """Squared norms of the loss's gradient for K candidate labels an example.

        Args:
          targets_fn: (one row of context) -> (target heatmaps [K, ..., J], present
            bool [K, J]); called inside the block, on the device; the same function
            object each time, or it is compiled anew.
          ids: example ids, M of them.
          weights: float32 [M, K].
          context: positions in `ids` -> dict of arrays with a row for each position.

        Returns:
          norms float32 [M, K], expected float32 [M]: their weighted sum.
        """

        def rows_of(positions):
            return {**context(positions), "weights": weights[positions]}

        which = (targets_fn, self._engine, self._chunk)
        norms = self._walker.once(which, lambda: _norms(self._walker.model, *which))
        name = f"norms-{targets_fn.__name__}"
        return self._pass(name, norms, ids, self._gradient_block, rows_of)

    def memo(self, name: str, compute: Callable[[], dict]) -> dict[str, np.ndarray]:
        """Arrays that are computed on the host once and kept in the journal."""
        stored = self._stored(f"memo-{name}")
        if not stored:
            stored = compute()
            self._store(f"memo-{name}", stored)
        return stored

    def _pass(self, kind, fn, ids, block, context=None):
        name = f"{kind}-{_digest(ids)}"
        done = self._stored(name)
        count = len(next(iter(done.values()))) if done else 0
        parts = [done] if done else []
        if count < len(ids):
            if self._pieces <= 0:
                raise Paused
            walk = self._walker.walk(
                fn, self._variables, ids, block=block, context=context, start=count
            )
            for part in walk:
                parts.append(part)
                count += len(next(iter(part.values())))
                self._pieces -= 1
                if self._pieces <= 0:
                    break
            done = passes.collect(parts)
            self._store(name, done)
            self.progress = (kind.partition("-")[0], count, len(ids))
            if count < len(ids):
                raise Paused
        return done

    def _stored(self, name) -> dict[str, np.ndarray]:
        prefix = name + "."
        return {
            key.removeprefix(prefix): value
            for key, value in self.journal.items()
            if key.startswith(prefix)
        }

    def _store(self, name, arrays):
        self.journal.update({f"{name}.{key}": value for key, value in arrays.items()})


def _digest(numbers) -> str:
    numbers = np.ascontiguousarray(numbers, np.int64)
    return hashlib.blake2b(numbers.tobytes(), digest_size=6).hexdigest()


def _reduction(model, fn, key):
    def reduction(variables, rows):
        output = model.apply(variables, scale_images(rows["image"]))
        return jax.vmap(fn)(output, example_keys(key, rows["id"]))

    return reduction


def _norms(model, targets_fn, engine, chunk):
    def apply_fn(variables, images):
        return model.apply(variables, images).heatmaps

    def loss_fn(maps, candidate):
        return losses.heatmap_loss(maps, *candidate)

    def norms(variables, rows):
        context = dict(rows["context"])
        weights = context.pop("weights")
        result = pergrad.squared_norms(
            engine,
            apply_fn,
            loss_fn,
            variables,
            scale_images(rows["image"]),
            jax.vmap(targets_fn)(context),
            chunk=chunk,
        )
        expected = (weights * result.total).sum(axis=1)
        return {"norms": result.total, "expected": expected}

    return norms
