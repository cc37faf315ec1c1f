"""k-centre greedy: ours against a numpy loop and against a matrix of all distances.

    pip install scikit-learn
    python scripts/bench_kcenter.py --out=kcenter.json

Contenders, each in a process of its own:

- ours: `jalpose.acquisition.parts.kcenter.greedy`, compilation included.
- numpy: one pass over the pool a centre, the same differences, float32.
- matrix: scikit-learn's matrix of the distances between all examples, pool and
  labelled, in float32, as published core-set code builds it; then the same loop. Only
  at --small, as the matrix of the large pool would take tens of gigabytes.

The embeddings are multiples of 1/16, so that float32 has every squared distance
exactly: else the farthest of many examples is now and then decided by rounding, and
from there on no two contenders choose the same.

Prints seconds (of one run), how far the resident size of the process rose above what
it was with the embeddings in memory (`ru_maxrss` at the end less before), the highest
resident size, and for ours the compiler's account. Exits with 1 unless all contenders
of a size chose the same examples in the same order. Without scikit-learn the last
contender is left out, with a line that says so.
"""

import concurrent.futures
import importlib.util
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time

import numpy as np
from absl import app, flags

_POOL = flags.DEFINE_integer("pool", 100_000, "examples in the large pool")
_SMALL = flags.DEFINE_integer("small", 10_000, "examples in the small pool")
_FEATURES = flags.DEFINE_integer("features", 256, "of an embedding")
_LABELLED = flags.DEFINE_integer("labelled", 1_000, "centres at the start")
_PICKS = flags.DEFINE_integer("picks", 1_000, "centres to choose")
_OUT = flags.DEFINE_string("out", None, "write the rows here, as JSON")

PARTS = ("pool", "labelled")


def save_embeddings(folder: str, pool: int, labelled: int, features: int) -> None:
    """Save them as float32 [M, C] and [L, C]: clustered, none negative."""
    generator = np.random.default_rng(0)
    places = generator.standard_normal((50, features), np.float32)
    for part, count in zip(PARTS, (pool, labelled), strict=True):
        rows = generator.standard_normal((count, features), np.float32)
        rows += places[generator.integers(0, len(places), count)]
        values = np.maximum(np.round(rows * 16) / 16, 0)
        np.save(os.path.join(folder, f"{part}.npy"), values)


def ours(pool, labelled, picks):
    """Chosen rows, and the compiler's account in bytes."""
    import jax

    from jalpose.acquisition.parts import kcenter
    from jalpose.pergrad.memory import compiled_bytes
    from jalpose.runtime import sharding

    mesh, chunk = sharding.make_mesh(), 1024
    found = kcenter.greedy(
        pool, labelled, picks, ids=np.arange(len(pool)), mesh=mesh, chunk=chunk
    )
    # After the run, of shapes alone.
    num_blocks = -(-len(pool) // (chunk * mesh.size)) * mesh.size
    blocks, padding, nearest = (
        jax.ShapeDtypeStruct((num_blocks, *shape), dtype)
        for shape, dtype in (
            ((pool.shape[1], chunk), np.float32),
            ((chunk,), bool),
            ((chunk,), np.float32),
        )
    )
    lowered = kcenter.choice(mesh, picks).lower((blocks, padding), nearest)
    return found.order, compiled_bytes(lowered.compile())


def loop(pool, labelled, picks):
    """Chosen rows, by a pass over the pool a centre."""
    nearest = np.full(len(pool), np.inf, np.float32)

    def approach(centre):
        steps = pool - centre
        np.minimum(nearest, np.einsum("ij,ij->i", steps, steps), out=nearest)

    for centre in labelled:
        approach(centre)
    order = np.empty(picks, np.int64)
    for i in range(picks):
        order[i] = nearest.argmax()
        approach(pool[order[i]])
        nearest[order[: i + 1]] = -1
    return order, 0


def matrix(pool, labelled, picks):
    """Chosen rows, by the matrix of the distances between all examples."""
    from sklearn.metrics import pairwise_distances

    distances = pairwise_distances(np.concatenate([labelled, pool]))
    nearest = distances[len(labelled) :, : len(labelled)].min(axis=1)
    order = np.empty(picks, np.int64)
    for i in range(picks):
        order[i] = nearest.argmax()
        row = distances[len(labelled) + order[i], len(labelled) :]
        np.minimum(nearest, row, out=nearest)
        nearest[order[: i + 1]] = -1
    return order, 0


CONTENDERS = {"ours": ours, "numpy": loop, "matrix": matrix}


def resident() -> int:
    """Highest resident size of this process so far, bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure(name, folder, picks):
    """Run one contender in this process: (row of the table, chosen rows)."""
    # Read, since making them would take more memory than some contenders do.
    arrays = [np.load(os.path.join(folder, f"{part}.npy")) for part in PARTS]
    if name == "ours":  # Imports and the backend count as having been there.
        import jax

        from jalpose.acquisition.parts import kcenter

        kcenter.greedy(np.eye(2), np.eye(2), 1, ids=np.arange(2), chunk=1)
        device = jax.devices()[0].device_kind
    elif name == "matrix":
        importlib.import_module("sklearn.metrics")
    before, begun = resident(), time.perf_counter()
    order, compiled = CONTENDERS[name](*arrays, picks)
    seconds = time.perf_counter() - begun
    row = {
        "contender": name,
        "pool": len(arrays[0]),
        "labelled": len(arrays[1]),
        "features": arrays[0].shape[1],
        "picks": picks,
        "seconds": seconds,
        "rise_bytes": resident() - before,
        "resident_bytes": resident(),
        "compiler_bytes": compiled,
        "device": device if name == "ours" else "host",
    }
    return row, order.tolist()


def in_fresh_process(fn, *arguments):
    """What `fn` returns, called in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context) as fresh:
        return fresh.submit(fn, *arguments).result()


def contend(pool: int, names) -> list[dict]:
    """Rows of the table for one size of the pool."""
    rows, first = [], None
    with tempfile.TemporaryDirectory() as folder:
        # Not here: a process starts with its parent's highest resident size.
        sizes = pool, _LABELLED.value, _FEATURES.value
        in_fresh_process(save_embeddings, folder, *sizes)
        for name in names:
            if name == "matrix" and importlib.util.find_spec("sklearn") is None:
                print("matrix: left out, scikit-learn is not installed")
                continue
            row, order = in_fresh_process(measure, name, folder, _PICKS.value)
            first = order if first is None else first
            rows.append({**row, "same_picks": order == first})
            show(rows[-1])
    return rows


def show(row) -> None:
    """Print a row of the table."""
    rise, peak, compiler = (
        row[f"{key}_bytes"] / 2**20 for key in ("rise", "resident", "compiler")
    )
    print(
        f"{row['contender']:9} {row['pool']:7} {row['seconds']:8.2f} {rise:9.0f} "
        f"{peak:13.0f} {compiler:13.0f}  {row['same_picks']}",
        flush=True,
    )


def main(argv):
    """Measure all, print the table, compare the choices."""
    del argv
    print(
        "contender    pool  seconds  rise MiB  resident MiB  compiler MiB  same picks"
    )
    rows = contend(_POOL.value, ("ours", "numpy"))
    rows += contend(_SMALL.value, tuple(CONTENDERS))
    if _OUT.value:
        with open(_OUT.value, "w") as file:
            json.dump(rows, file, indent=1)
    if not all(row["same_picks"] for row in rows):
        sys.exit("the contenders did not choose the same examples")


if __name__ == "__main__":
    app.run(main)
