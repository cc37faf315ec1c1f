"""What an acquisition method may ask of the model: passes over chosen examples.

A probe keeps a journal of every block it has computed. When the pieces granted to it
are used up it raises `Paused`; the method is later called again from its beginning
with a probe on the same journal, and everything done is answered from there. So a
method is written as one straight function, and still stops and resumes anywhere.
"""

import concurrent.futures
import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable

import jax
import numpy as np
from jaxtyping import Float, Int, Shaped

from jalpose.pergrad import checks
from jalpose.pergrad.api import Engine
from jalpose.runtime import hosts
from jalpose.runtime.throughput import Meter
from jalpose.scoring import passes
from jalpose.scoring.gradients import Functions, fitted, norms_of, sketches_of
from jalpose.scoring.passes import Examples, Passes
from jalpose.scoring.reductions import key_data, reduction
from jalpose.storage.journal import Arrays, Journal
from jalpose.tasks.task import Task


class Paused(Exception):
    """The granted pieces are used up; the probe's journal holds what is done."""


class Probe:
    """Lazy, blockwise, resumable passes of one trained network.

    What they return is read-only, and of a journal on disk mapped, not in memory.

    Args:
      walker: compiled passes of the network.
      variables: of the network.
      examples: where they are read; their labels are for records alone.
      journal: of earlier calls; the probe's own is a copy.
      pieces: blocks that may be computed before `Paused`.
      forward_block: examples a forward pass.
      gradient_block: examples a pass of gradient norms.
      engine: of gradient norms; with a microbatch of 0 it is made to fit the device.
      memory: GiB a device the norms may take; 0: what it reports.
      meter: counts what is done; None: one of its own.
    """

    def __init__(
        self,
        walker: Passes,
        variables,
        examples: Examples,
        *,
        journal: Journal,
        pieces: int,
        forward_block: int,
        gradient_block: int,
        engine: Engine,
        memory: float = 0.0,
        meter: Meter | None = None,
    ):
        self._walker, self._variables, self._examples = walker, variables, examples
        self._unlabelled = examples._replace(labels_of=None)
        self._meter = meter or Meter()
        self.journal = journal.copy()
        self.progress = ("", 0, 0)  # pass, examples done, examples in all
        self._pieces = pieces
        self._forward_block, self._gradient_block = forward_block, gradient_block
        self._engine, self._memory = engine, memory

    @property
    def task(self) -> Task:
        """What the network predicts."""
        return self._walker.task

    @property
    def mesh(self):
        """The mesh of the devices."""
        return self._walker.mesh

    def embeddings(self, ids: Int[np.ndarray, " m"]) -> Float[np.ndarray, "m c"]:
        """Embedding of each example: float32 [len(ids), C]."""
        return self.describe(ids)["embedding"]

    def describe(
        self, ids: Int[np.ndarray, " m"]
    ) -> dict[str, Shaped[np.ndarray, "m ..."]]:
        """Embedding, what is read off its prediction, and loss of each example.

        For records: the loss is of labels a method must not look at.
        """
        return self._pass(
            "describe",
            self._walker.describe,
            ids,
            self._forward_block,
            examples=self._examples,
        )

    def reduce(
        self,
        fn: Callable,
        ids: Int[np.ndarray, " m"],
        key=None,
        *,
        over: str = "network",
        samples: int = 0,
    ) -> dict[str, Shaped[np.ndarray, "m ..."]]:
        """Compute `fn(output, key)` of each example's `Output`, on the device.

        Args:
          fn: (Output of one example, key of that example) -> dict of arrays; the
            same function object each time, or it is compiled anew.
          ids: example ids.
          key: of the pass; each example's own is folded with its id.
          over: network | members (of the committee) | dropout (`samples` of the
            network); of the latter two the `Output` has a leading axis. Or companion:
            `fn` gets what that says of the example, see `companion.Learner.describe`.
          samples: under dropout, each with channels dropped by the example's key.
        """
        key = jax.random.key(0) if key is None else key
        # As data of the examples: a new key compiles nothing anew.
        draw = functools.partial(key_data, key)
        pass_of = self._walker.once(
            (fn, over, samples), lambda: reduction(self._walker, fn, over, samples)
        )
        name = f"reduce {fn.__name__} {over}-{digest(jax.random.key_data(key))}"
        return self._pass(
            name,
            pass_of,
            ids,
            self._forward_block,
            lambda positions: {"key": np.asarray(draw(ids[positions]))},
        )

    def squared_norms(
        self,
        targets_fn: Callable,
        ids: Int[np.ndarray, " m"],
        weights: Float[np.ndarray, "m k"],
        context: Callable = lambda positions: {},
        *,
        loss_fn: Callable | None = None,
        value: str = "squared",
        approximate: bool = True,
    ) -> dict[str, Float[np.ndarray, "m ..."]]:
        """Squared norms of the loss's gradient for K candidate labels an example.

        Args:
          targets_fn: (one row of context) -> K targets, any tree of arrays [K, ...],
            as `loss_fn` takes them; called inside the block, on the device.
          ids: example ids, M of them.
          weights: float32 [M, K].
          context: positions in `ids` -> dict of arrays with a row for each position.
          loss_fn: (prediction of one example, one target) -> scalar; None: the task's
            loss, of its targets.
          value: of each gradient: "squared" norm | "norm" | "tensors" (sum of the
            parameter tensors' own norms; the other two are of all of them together).
          approximate: by the configured engine; False: by one that is exact.

        The functions must be the same objects each time, or it is compiled anew.

        Returns:
          expected float32 [M], the weighted sum of the values; those themselves,
          norms float32 [M, K], from every engine but `sketch`; its standard_error
          [M], where it estimates one.

        Raises:
          FloatingPointError: a value is not finite; names the example ids.
        """

        def rows_of(positions):
            return {**context(positions), "weights": weights[positions]}

        loss_fn = self.task.loss if loss_fn is None else loss_fn
        functions, engine = Functions(targets_fn, loss_fn, value), self._engine
        if not approximate and engine.name not in ("exact", "ghost"):
            engine = dataclasses.replace(engine, name="ghost")
        block = -(-self._gradient_block // self._walker.num_devices)
        which = (functions, engine, block, weights.shape[1], self._memory)
        norms = self._walker.once(which, lambda: self._fitted(*which))
        name = f"norms-{targets_fn.__name__}"
        found = self._pass(name, norms, ids, self._gradient_block, rows_of)
        if not np.isfinite(found["expected"]).all():
            checks.finite(found["expected"], [f"id {i}" for i in ids])
        return found

    def sketches(
        self,
        targets_fn: Callable,
        ids: Int[np.ndarray, " m"],
        scales: Float[np.ndarray, "m k"],
        names: Int[np.ndarray, "m k"],
        context: Callable = lambda positions: {},
        *,
        size: int,
        key,
        layers: str = "all",
        loss_fn: Callable | None = None,
    ) -> Float[np.ndarray, "m size"]:
        """Random projections of gradients, those of K candidates added up.

        The inner product of two examples' projections estimates, without bias, the sum
        over the candidates whose name both have of the scales times the inner product
        of the gradients: the projections of each name have random signs of their own.

        Args:
          targets_fn: see `squared_norms`.
          ids: example ids, M of them.
          scales: float32 [M, K], each candidate's gradient is multiplied by it.
          names: whole numbers [M, K], of the candidates; distinct in a row.
          context: see `squared_norms`.
          size: numbers a projection has, at most as many as there are parameters.
          key: of the projection, the same for all examples.
          layers: all | last, whose gradients; see `pergrad.api.last_layer`.
          loss_fn: see `squared_norms`.

        Raises:
          FloatingPointError: a projection is not finite; names the example ids.
        """
        draw = np.asarray(jax.random.key_data(key))

        def rows_of(positions):
            return {
                **context(positions),
                "scales": scales[positions],
                "names": names[positions].astype(np.uint32),
                # As data of the examples: a new key compiles nothing anew.
                "draw": np.tile(draw, (len(positions), 1)),
            }

        loss_fn = self.task.loss if loss_fn is None else loss_fn
        functions, engine = Functions(targets_fn, loss_fn), self._engine
        if engine.name not in ("exact", "ghost", "conv_linear"):
            engine = dataclasses.replace(engine, name="ghost")
        block = -(-self._gradient_block // self._walker.num_devices)
        num, model = scales.shape[1], self._walker.gradient_model

        def build():
            return fitted(
                lambda sized: sketches_of(model, functions, sized, size, layers),
                engine,
                model=model,
                block=block,
                num_labels=num,
                memory=self._memory,
            )

        which = ("sketches", functions, engine, block, num, self._memory, size, layers)
        of_layers = "" if layers == "all" else f" {layers}"
        name = f"sketches-{targets_fn.__name__} {size}{of_layers}-{digest(draw)}"
        found = self._pass(
            name,
            self._walker.once(which, build),
            ids,
            self._gradient_block,
            rows_of,
        )["sketch"]
        lengths = np.einsum("mc,mc->m", found, found)
        if not np.isfinite(lengths).all():
            checks.finite(lengths, [f"id {i}" for i in ids])
        return found

    def _fitted(self, functions, engine, block, num_labels, memory):
        """The pass of gradient norms, its microbatch yet to be found where it is 0."""
        model = self._walker.gradient_model
        return fitted(
            lambda sized: norms_of(model, functions, sized),
            engine,
            model=model,
            block=block,
            num_labels=num_labels,
            memory=memory,
        )

    def blocks(
        self, name: str, fn: Callable[[np.ndarray], Arrays], ids: np.ndarray, block: int
    ) -> Arrays:
        """Compute `fn` of each example on the host, block by block, in threads.

        As many blocks at a time as there are threads, on each of the hosts.

        Args:
          name: of the pass: says all that decides its results but the ids.
          fn: positions in `ids` [n] -> dict of arrays with a row for each.
          ids: example ids.
          block: examples a call.
        """

        here = block * self._walker.threads

        def walk(start):
            with concurrent.futures.ThreadPoolExecutor(self._walker.threads) as threads:
                for first in range(start, len(ids), here * hosts.size()):
                    begin = min(first + here * hosts.host(), len(ids) - 1)
                    rows = np.arange(begin, min(begin + here, len(ids)))
                    parts = np.split(rows, range(block, len(rows), block))
                    found = passes.collect(threads.map(fn, parts))
                    yield {
                        key: _of_all_hosts(value, here)[: len(ids) - first]
                        for key, value in found.items()
                    }

        return self._resume(name, ids, walk)

    def iterate(
        self,
        name: str,
        step: Callable[[int, Arrays], Arrays],
        begin: Callable[[], Arrays],
        steps: int,
    ) -> Arrays:
        """The state after `steps` steps of an iteration, each kept in the journal.

        For what is learnt of a pass's results: small, since every state is kept until
        the cycle ends.

        Args:
          name: says all that decides what comes out but the number of steps.
          step: (number of the step, state) -> state; the same on every host.
          begin: the state at first, dict of arrays; kept shapes and dtypes.
          steps: 1 or more.
        """
        numbers = np.arange(steps)
        kept = _full_name(name, numbers)

        def walk(start):
            state = _row(self.journal.read(kept), start - 1) if start else begin()
            for number in range(start, steps):
                state = step(number, state)
                yield {key: np.asarray(value)[None] for key, value in state.items()}

        return _row(self._resume(name, numbers, walk), -1)

    def _pass(self, kind, fn, ids, block, context=None, examples=None):
        def walk(start):
            return self._walker.walk(
                fn,
                self._variables,
                examples or self._unlabelled,
                ids,
                block=block,
                meter=self._meter,
                context=context,
                start=start,
            )

        return self._resume(kind, ids, walk)

    def _resume(self, kind, ids, walk: Callable[[int], Iterable[Arrays]]) -> Arrays:
        """All rows of a pass, of which `walk` gives the blocks from a row on."""
        name, journal = _full_name(kind, ids), self.journal
        if journal.rows(name) < len(ids):
            if self._pieces <= 0:
                raise Paused
            for part in walk(journal.rows(name)):
                journal.append(name, part)
                self._pieces -= 1
                if self._pieces <= 0:
                    break
            journal.sync()
            hosts.barrier("blocks")  # after it what the lead has written is there
            journal.sync()
            count = journal.rows(name)
            hosts.check_same(f"the number of rows of {name}", np.int64(count))
            self.progress = (kind.partition("-")[0], count, len(ids))
            if count < len(ids):
                raise Paused
        return journal.read(name)


def _row(arrays: Arrays, number: int) -> Arrays:
    return {key: np.asarray(value[number]) for key, value in arrays.items()}


def _full_name(kind: str, ids) -> str:
    """Name of a pass in the journal."""
    return f"{kind}-{digest(ids)}"


def _of_all_hosts(values: np.ndarray, count: int) -> np.ndarray:
    """Rows of the hosts end to end: `count` of each, where the last may have fewer."""
    if hosts.size() == 1:
        return values
    missing = [(0, count - len(values))] + [(0, 0)] * (values.ndim - 1)
    found = hosts.gather(np.pad(values, missing, mode="edge"))
    return found.reshape(-1, *values.shape[1:])


def digest(numbers) -> str:
    """A short name for whole numbers in their order."""
    numbers = np.ascontiguousarray(numbers, np.int64)
    return hashlib.blake2b(numbers.tobytes(), digest_size=6).hexdigest()
