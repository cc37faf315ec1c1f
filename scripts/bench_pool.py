"""A pool larger than memory should hold: time, memory and disk of choosing from it.

    python scripts/bench_pool.py --images_per_second=100 --out=pool.json
    python scripts/bench_pool.py --examples=20000    # a smaller try

The pool repeats a thousand drawn figures at few pixels; a small network gives each a
few heatmaps and an embedding of 256 features. Each method is a whole run of one cycle
through `run.run_one`, in a process of its own: base model given, pool scored, examples
chosen, the choice measured, records written. Of EGL++ it is the search for neighbours:
gradient norms take a GPU, and what they would take is worked out from
--images_per_second, a rate measured elsewhere. What is chosen in their place are the
images whose neighbours hold the least probability.

Prints of each method the seconds until the choice was made and those of its measures;
images a second in each pass; the highest resident memory without pages mapped from
files (RssAnon, looked at twenty times a second), and with them (VmHWM); the most the
run had on disk. Exits with 1 where memory without mapped pages rises above --limit.
"""

import concurrent.futures
import dataclasses
import io
import json
import multiprocessing
import os
import sys
import tempfile
import threading
import time

from absl import app, flags

_EXAMPLES = flags.DEFINE_integer("examples", 1_000_000, "in the pool")
_DISTINCT = flags.DEFINE_integer("distinct", 1_000, "figures that the pool repeats")
_FEATURES = flags.DEFINE_integer("features", 256, "of an embedding")
_LABELLED = flags.DEFINE_integer("labelled", 1_000, "examples at the start")
_PICKS = flags.DEFINE_integer("picks", 1_000, "examples to choose")
_METHODS = flags.DEFINE_list(
    "methods", ["random", "multipeak_entropy", "coreset", "eglpp"], "to run"
)
_LIMIT = flags.DEFINE_float("limit", 4.0, "GiB of memory, mapped pages aside")
_RATE = flags.DEFINE_float(
    "images_per_second", 0.0, "scored by EGL++ on the device in mind; 0: not known"
)
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the runs; none: temporary")
_OUT = flags.DEFINE_string("out", None, "write the rows here, as JSON")

PIXELS = 16  # of a crop
MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Of the benchmark, as the flags say."""

    examples: int
    distinct: int
    features: int
    labelled: int
    picks: int


class Watch:
    """The most memory this process and a folder have taken, while it is open."""

    def __init__(self, folder):
        self._folder, self._open = folder, True
        self.anonymous = self.disk = 0
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._open = False
        self._thread.join()

    def _look(self):
        looks = 0
        while self._open:
            self.anonymous = max(self.anonymous, status("RssAnon"))
            if looks % 20 == 0:
                self.disk = max(self.disk, size_of(self._folder))
            looks += 1
            time.sleep(0.05)


def status(name: str) -> int:
    """A field of this process's status, in bytes (Linux)."""
    with open("/proc/self/status") as file:
        (line,) = [line for line in file if line.startswith(f"{name}:")]
    return 1024 * int(line.split()[1])


def size_of(folder) -> int:
    """Bytes of all files in a folder, as far as they stay long enough to be asked."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(path, name)).st_size
            except FileNotFoundError:
                continue
    return total


def make_dataset(sizes: Sizes):
    """Labelled figures, then the pool, then a few to test on."""
    import numpy as np

    from jalpose.tasks.pose.annotations import Annotations
    from jalpose.tasks.pose.figures import FigureSource
    from jalpose.tasks.pose.sources import join

    class Repeated:
        """A source's examples again and again, its images drawn once."""

        def __init__(self, source, count):
            rows = np.arange(count) % len(source.annotations)
            keys = tuple(f"pool/{number:07d}" for number in range(count))
            labels = source.annotations
            self.skeleton = source.skeleton
            self.annotations = Annotations(
                keys=keys,
                files=keys,
                joints=labels.joints[rows],
                status=labels.status[rows],
            )
            self._images = [source.image(i) for i in range(len(labels))]

        def image(self, index):
            return self._images[index % len(self._images)]

    def figures(count, name, start):
        return FigureSource(
            count, 0, 0.5, name=name, image_size=2 * PIXELS, start=start
        )

    labelled = figures(sizes.labelled, "labelled", 0)
    drawn = figures(sizes.distinct, "drawn", sizes.labelled)
    test = figures(16, "test", sizes.labelled + sizes.distinct)
    counts = sizes.labelled, sizes.examples, 16
    parts = np.split(np.arange(sum(counts)), np.cumsum(counts)[:2])
    sources = (
        Repeated(labelled, sizes.labelled),
        Repeated(drawn, sizes.examples),
        Repeated(test, 16),
    )
    return join(
        sources,
        **dict(zip(("initial", "pool", "test"), parts, strict=True)),
        crop="joints",
        window=1.75,
    )


def context_of(method: str, sizes: Sizes):
    """The context of a run on that dataset, from an untrained base model."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jalpose.acquisition.eglpp import EglPlusPlus
    from jalpose.acquisition.method import by_score
    from jalpose.loop import configs
    from jalpose.loop.context import make_context, options_for
    from jalpose.loop.programs import Programs
    from jalpose.models.output import Output
    from jalpose.runtime import sharding

    class Network(nn.Module):
        """A convolution to many features, and one to heatmaps."""

        @nn.compact
        def __call__(self, images, train: bool = False, drop: bool | None = None):
            x = nn.Conv(sizes.features, (4, 4), (4, 4), name="stem")(images)
            x = nn.relu(nn.BatchNorm(not train, name="norm")(x))
            maps = nn.Conv(14, (1, 1), name="maps")(x)
            return Output(30 * maps[:, None], jnp.mean(x, axis=(1, 2)))

    class Search(EglPlusPlus):
        """The search for neighbours alone."""

        def acquire(self, key, probe, pool, budget):
            """Choose those whose neighbours hold the least probability."""
            del key
            found = self.candidates(probe, pool)
            return by_score(
                pool.unlabelled,
                1 - np.asarray(found.mass),
                budget,
                explanation={
                    "neighbour_ids": pool.labelled.ids[found.rows],
                    "neighbour_probabilities": found.probabilities,
                },
                summary=found.summary,
            )

    delta = {
        "data.name": "figures",
        "data.size": PIXELS,
        "data.threads": 2,
        "model.depth": 1,
        "training.cycle_steps": 1,
        "evaluation.true_norms": False,
        "evaluation.block": 1024,
        "acquisition.method": method,
        "acquisition.budget": sizes.picks,
        "acquisition.pool_subset": 0,
        "acquisition.pieces": 32,
        "acquisition.eglpp.perplexity": 20.0,
        "acquisition.eglpp.neighbours": 30,
        "loop.cycles": 1,
        "output.tensorboard": False,
        "output.images": 0,
    }
    config = configs.assemble("scale=tiny", name="pool", delta=delta)
    variables = Network().init(jax.random.key(0), jnp.zeros((1, PIXELS, PIXELS, 3)))
    context = make_context(
        config,
        make_dataset(sizes),
        Programs(sharding.make_mesh()),
        base=variables,
        network=Network(),
    )
    if method == "eglpp":
        search = Search(**options_for(config))
        context = dataclasses.replace(context, method=search)
    return context


def make_screen():
    """One that says nothing, and keeps the time of each pass."""
    from jalpose.runtime.screen import Screen

    class Timed(Screen):
        """Examples done, and when, at each piece of a pass: by pass."""

        def __init__(self):
            super().__init__(io.StringIO())
            self.seen: dict[str, list[tuple[int, float]]] = {}

        def progress(self, what, done, total, note=""):
            name = what.split(maxsplit=2)[-1]  # "cycle 0 describe"
            if total >= 1000:
                seen = self.seen.setdefault(name, [])
                seen.append((done, time.perf_counter()))

        def rates(self):
            """Examples a second, from the first piece's end to the last's."""
            return {
                name: (seen[-1][0] - seen[0][0]) / (seen[-1][1] - seen[0][1])
                for name, seen in self.seen.items()
                if len(seen) > 1
            }

    return Timed()


def measure(method: str, sizes: Sizes, folder: str) -> dict:
    """Run one method in this process: the row of the table."""
    from jalpose.loop import run
    from jalpose.storage import records

    workdir, screen = os.path.join(folder, method), make_screen()
    with Watch(workdir) as watch:
        context = context_of(method, sizes)
        before = status("RssAnon")
        run.run_one(context, workdir, screen)
    record = records.read_cycles(workdir)[0]
    return {
        "method": method if method != "eglpp" else "eglpp, neighbours",
        **dataclasses.asdict(sizes),
        "seconds": record["acquisition"]["seconds"],
        "measures_seconds": record["measures"]["seconds"],
        "rates": screen.rates(),
        "before_bytes": before,
        "anonymous_bytes": watch.anonymous,
        "resident_bytes": status("VmHWM"),
        "disk_bytes": watch.disk,
        "device": context.passes.mesh.devices.flat[0].device_kind,
    }


def in_fresh_process(fn, *arguments):
    """What `fn` returns, called in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context) as fresh:
        return fresh.submit(fn, *arguments).result()


def show(row) -> None:
    """Print a row of the table."""
    anonymous, resident, disk = (
        row[f"{name}_bytes"] / MIB for name in ("anonymous", "resident", "disk")
    )
    rates = ", ".join(f"{name} {rate:.0f}" for name, rate in row["rates"].items())
    print(
        f"{row['method']:18} {row['examples']:8} {row['seconds']:8.1f} "
        f"{row['measures_seconds']:8.1f} {anonymous:8.0f} {resident:8.0f} {disk:8.0f}  "
        f"{rates}",
        flush=True,
    )


def main(argv):
    """Run all, print the table, compare with the limit."""
    del argv
    sizes = Sizes(*(flag.value for flag in (_EXAMPLES, _DISTINCT, _FEATURES)), 0, 0)
    sizes = dataclasses.replace(sizes, labelled=_LABELLED.value, picks=_PICKS.value)
    print(
        "method             examples  seconds measures anon MiB  res MiB disk MiB  "
        "images a second"
    )
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for method in _METHODS.value:
            folder = _WORKDIR.value or temporary
            rows.append(in_fresh_process(measure, method, sizes, folder))
            show(rows[-1])
    if _RATE.value:
        hours = _EXAMPLES.value / _RATE.value / 3600
        print(
            f"gradient norms of EGL++ for {_EXAMPLES.value} images at "
            f"{_RATE.value:g} images a second: {hours:.1f} hours"
        )
    if _OUT.value:
        with open(_OUT.value, "w") as file:
            json.dump({"images_per_second": _RATE.value, "rows": rows}, file, indent=1)
    worst = max(row["anonymous_bytes"] for row in rows)
    if worst > _LIMIT.value * 2**30:
        sys.exit(f"{worst / 2**30:.2f} GiB are more than --limit={_LIMIT.value}")


if __name__ == "__main__":
    app.run(main)
