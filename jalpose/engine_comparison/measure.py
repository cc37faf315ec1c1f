"""Run every contestant over the same blocks, in turn, and take the time."""

import dataclasses
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np

from jalpose.acquisition.eglpp import NeighbourLabels
from jalpose.data import pipeline
from jalpose.engine_comparison.contestants import Contestant, norms_pass, residual_pass
from jalpose.loop.context import RunContext
from jalpose.pergrad import checks
from jalpose.scoring.gradients import Functions, fitted
from jalpose.scoring.passes import Compiled, Examples


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """What one contestant found, and what it took.

    Attributes:
      scores: float32 [M].
      tensors: float32 [M, P], the scores' parts by tensor; None for the residual.
      standard_error: float32 [M], of an engine that estimates, else None.
      seconds: [blocks, repeats], wall time.
      peak_bytes: on one device, by the compiler's account.
      microbatch: gradients at once; 0 for the residual.
    """

    scores: np.ndarray
    tensors: np.ndarray | None
    standard_error: np.ndarray | None
    seconds: np.ndarray
    peak_bytes: int
    microbatch: int

    @property
    def block_seconds(self) -> np.ndarray:
        """[blocks], medians over the repeats."""
        return np.median(self.seconds, axis=1)


def measure(
    context: RunContext,
    variables,
    ids: np.ndarray,
    candidates: NeighbourLabels,
    contestants: Sequence[Contestant],
    names: Sequence[str],
    *,
    block: int,
    repeats: int,
    progress: Callable[[str, int, int, str], None],
) -> dict[str, Measured]:
    """Score the images with every contestant, in one process, block by block.

    Everything is compiled, and has run once, before the first time is taken. Then each
    block goes through all contestants before the next comes, each time beginning with
    another of them, so that whatever else the machine does falls on all alike.

    Args:
      context: of the model.
      variables: of the model, on the devices.
      ids: int64 [M]; their crops are held in memory together.
      candidates: of these images.
      contestants: to be measured.
      names: of the parameter tensors, P of them.
      block: images at a time, over all devices.
      repeats: runs on each block.
      progress: (what, done, total, note) -> None.

    Raises:
      FloatingPointError: a score is not finite; names the contestant and the ids.
    """
    passes = context.passes
    threads = context.config.data.threads
    # Read before the clock runs: reading ahead would take cores away from the first.
    source = Examples(context.dataset).source(ids, context.task.size)
    blocks = list(pipeline.blocks_in_order(source, block=block, threads=threads))

    def labels_of(positions):
        weights = candidates.probabilities[positions]
        return {**candidates.context(positions), "weights": weights}

    def place(number):
        count, rows = blocks[number]
        return passes.place(rows, count, number * block, labels_of)

    compiled: dict[str, Compiled] = {}
    first = place(0)
    for done, item in enumerate(contestants):
        progress("compiling", done, len(contestants), item.label)
        fn = _pass(context, candidates, item, names, block)
        compiled[item.label] = passes.compiled(fn, variables, first)
        jax.block_until_ready(compiled[item.label].run(variables, first))
    progress("compiling", len(contestants), len(contestants), "")

    seconds = {item.label: np.zeros((len(blocks), repeats)) for item in contestants}
    parts: dict[str, list] = {item.label: [] for item in contestants}
    for number, (count, _) in enumerate(blocks):
        rows = jax.block_until_ready(place(number))
        begin = number % len(contestants)
        for repeat in range(repeats):
            for item in (*contestants[begin:], *contestants[:begin]):
                run = compiled[item.label].run
                begun = time.perf_counter()
                result = jax.block_until_ready(run(variables, rows))
                seconds[item.label][number, repeat] = time.perf_counter() - begun
                if repeat == 0:
                    host = {k: np.asarray(v)[:count] for k, v in result.items()}
                    parts[item.label].append(host)
        progress("scoring", number * block + count, len(ids), "")
    return {
        item.label: _measured(
            item, ids, parts[item.label], seconds[item.label], compiled[item.label]
        )
        for item in contestants
    }


def _pass(context: RunContext, candidates, item: Contestant, names, block):
    engine = item.engine
    functions = Functions(candidates.targets_fn, context.task.loss)
    if engine is None:
        return residual_pass(context.model, functions)
    model, config = context.network_for(engine), context.config.acquisition
    return fitted(
        lambda sized: norms_pass(model, functions, sized, names),
        engine,
        model=model,
        block=block // context.passes.num_devices,
        num_labels=candidates.rows.shape[1],
        memory=config.memory,
    )


def _measured(item, ids, parts, seconds, compiled: Compiled) -> Measured:
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    checks.finite(found["scores"], [f"{item.label}: id {i}" for i in ids])
    given = item.engine.microbatch if item.engine else 0
    return Measured(
        scores=found["scores"],
        tensors=found.get("tensors"),
        standard_error=found.get("standard_error"),
        seconds=seconds,
        peak_bytes=compiled.peak_bytes,
        microbatch=compiled.microbatch or given,
    )
