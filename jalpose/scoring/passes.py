"""Compiled passes of one network over any number of examples, block by block.

A pass never holds the predictions of a pool: what it computes of each example is
reduced on the device, and only that comes back.
"""

import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Integer, UInt8

from jalpose.data import pipeline
from jalpose.data.dataset import Dataset
from jalpose.models.output import Output
from jalpose.pergrad.memory import compiled_bytes, largest_fitting
from jalpose.runtime import hosts, sharding
from jalpose.runtime.shapes import AnyArray
from jalpose.runtime.throughput import Meter
from jalpose.tasks.task import Task
from jalpose.training.companion import Learner, Seen
from jalpose.training.trainer import network_of, scale_images

# Images, or rows of numbers.
Images = UInt8[AnyArray, "b y x 3"] | Float[AnyArray, "b f"]
LabelsOf = Callable[[np.ndarray], dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A pass whose microbatch is chosen, when it is compiled, to fit the device.

    Attributes:
      build: microbatch -> pass.
      most: (variables, rows on the devices) -> largest microbatch worth trying.
      limit: bytes on one device.
    """

    build: Callable[[int], Callable]
    most: Callable[..., int]
    limit: int


Pass = Callable | Fitted


class Compiled(NamedTuple):
    """A compiled pass.

    Attributes:
      run: (variables, rows on the devices) -> dict of arrays on the devices.
      peak_bytes: on one device, by the compiler's account.
      microbatch: chosen for a `Fitted` pass, else 0.
    """

    run: Callable
    peak_bytes: int
    microbatch: int


class Examples(NamedTuple):
    """Where a pass reads its examples.

    Attributes:
      dataset: of the images.
      labels_of: ids -> labels of their crops, where the pass may see them: arrays
        [len(ids), ...] by name; None: it may not.
    """

    dataset: Dataset
    labels_of: LabelsOf | None = None

    def source(self, ids: Int[np.ndarray, " n"], size: int) -> pipeline.CropSource:
        """Crops of these examples, with their labels if there are any."""
        labels = None if self.labels_of is None else self.labels_of(ids)
        return pipeline.CropSource(self.dataset, ids, size, labels)


def execute(fn: Pass, run: Callable, variables, rows):
    """Run a compiled block; a test may stand in its way.

    Args:
      fn: the pass.
      run: what it was compiled to.
      variables: on the devices.
      rows: on the devices.
    """
    del fn
    return run(variables, rows)


class Passes:
    """Walks a network over examples, on all devices of a mesh.

    What is compiled depends on no examples: passes of one network serve every dataset
    of its task.

    Args:
      model: Linen module returning `Output`.
      task: what its predictions are.
      mesh: blocks are split over it.
      threads: reading ahead.
      gradient_model: the same network as gradient norms are taken of it; None: as is.
      head: Linen module of a head beside the network, or None.
      companion: learner of a model beside the network, or None.
      run_block: runs a compiled block; None: `execute`.
    """

    def __init__(
        self,
        model,
        task: Task,
        *,
        mesh,
        threads: int,
        gradient_model=None,
        head=None,
        companion: Learner | None = None,
        run_block: Callable | None = None,
    ):
        self.model, self.task, self.head, self.mesh = model, task, head, mesh
        self.companion = companion
        self.gradient_model = model if gradient_model is None else gradient_model
        self.threads = threads
        self.num_devices = mesh.size
        self._run_block = run_block
        self._compiled: dict = {}
        self._built: dict = {}
        self._halved: set = set()
        whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        self._gather = jax.jit(lambda results: results, out_shardings=whole)

    def walk(
        self,
        fn: Pass,
        variables,
        examples: Examples,
        ids: Int[np.ndarray, " n"],
        *,
        block: int,
        meter: Meter,
        context: Callable | None = None,
        start: int = 0,
    ) -> Iterator[dict[str, np.ndarray]]:
        """Compute `fn` of each example, one fixed-size padded block at a time.

        Args:
          fn: (variables, rows of one device) -> dict of arrays with a row each, or
            `Fitted`; compiled once for each such object and shape.
          variables: Linen variables.
          examples: where they are read.
          ids: of those walked over.
          block: examples at a time, over all devices; made a multiple of their number.
          meter: counts what is done.
          context: positions in `ids` [n] -> dict of arrays [n, ...] that `fn` finds
            in rows["context"].
          start: position in `ids` to begin at.

        Yields:
          What `fn` returns for the block, as numpy, padding removed.
        """
        position = start
        part = sharding.part_of(self.mesh, block)
        blocks = pipeline.blocks_in_order(
            examples.source(ids[start:], self.task.size),
            block=part.rows,
            threads=self.threads,
            rows=(part.first, part.here),
        )
        flow = meter.scoring
        for count, rows in flow.through(blocks, images=lambda block: block[0]):
            rows = self.place(rows, count, position, context)
            result = self._run(fn, variables, rows, meter)
            yield {name: value[:count] for name, value in result.items()}
            position += count

    def place(self, rows: dict, count: int, position: int, context=None) -> dict:
        """Put a block of `pipeline.blocks_in_order` on the devices, with its context.

        Args:
          rows: this host's rows of the block, padded.
          count: rows of the block, on all hosts, that are no padding.
          position: of its first row among the ids walked over.
          context: see `walk`.
        """
        rows = dict(rows)
        if context is not None:
            own = hosts.host() * len(rows["id"]) + np.arange(len(rows["id"]))
            rows["context"] = context(position + np.minimum(own, count - 1))
        rows["id"] = rows["id"].astype(np.uint32)
        return sharding.split(self.mesh, rows)

    def once(self, key, build: Callable[[], Pass]) -> Pass:
        """The pass `build` makes for `key`, the same object at every call.

        A pass is compiled once for each function object.
        """
        if key not in self._built:
            self._built[key] = build()
        return self._built[key]

    def output(self, variables, images: Images) -> Output:
        """What the network, and the head if any, says of uint8 [B, S, S, 3]."""
        output = self.model.apply(network_of(variables), scale_images(images))
        if "head" in variables:
            said = self.head.apply({"params": variables["head"]}, output)
            output = output._replace(head=said)
        return output

    def members_output(self, variables, images: Images) -> Output:
        """What each member of a committee says: `Output` of [K, B, ...]."""
        members = [
            variables["members"][k] for k in sorted(variables["members"], key=int)
        ]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
        images = scale_images(images)
        return jax.lax.map(lambda member: self.model.apply(member, images), stacked)

    def dropout_output(self, variables, images: Images, keys) -> Output:
        """What the network says of each image under dropout: `Output` [K, B, ...].

        Args:
          variables: of the network.
          images: uint8 [B, S, S, 3].
          keys: [B, K], so that what is dropped depends on the example alone.
        """
        variables, images = network_of(variables), scale_images(images)

        def one(image, key):
            return self.model.apply(
                variables, image[None], drop=True, rngs={"dropout": key}
            )

        def sample(keys):
            output = jax.vmap(one)(images, keys)
            return jax.tree.map(lambda leaf: leaf[:, 0], output)

        return jax.lax.map(sample, jnp.swapaxes(keys, 0, 1))

    def companion_output(self, variables, images: Images):
        """What the companion says of uint8 [B, S, S, 3]: see `Learner.describe`."""
        assert self.companion is not None  # it is among the variables
        output = self.output(variables, images)
        return self.companion.describe(
            variables["companion"], Seen(scale_images(images), output)
        )

    def describe(self, variables, rows) -> dict:
        """Pass: embedding [C], what `Task.decode` reads off, and loss.

        The loss is of the example's own label, where labels may be seen; only records
        and reports may look at it for examples whose label is not bought.
        """
        output = self.output(variables, rows["image"])
        found = {
            "embedding": output.embedding,
            **jax.vmap(self.task.decode)(output.prediction),
        }
        if "label" in rows:
            targets = jax.vmap(self.task.target)(rows["label"])
            found["loss"] = jax.vmap(self.task.loss)(output.prediction, targets)
        return found

    def compiled(self, fn, variables, rows) -> Compiled:
        """`fn` (see `walk`) compiled for these shapes, once."""
        key = self._key(fn, variables, rows)
        if key not in self._compiled:
            if isinstance(fn, Fitted):
                # Of all hosts the least: they are to run the same program.
                limit = int(hosts.gather(np.int64(fn.limit)).min())
                found, microbatch = largest_fitting(
                    lambda size: self._compile(fn.build(size), variables, rows),
                    fn.most(variables, rows),
                    limit,
                )
            else:
                found, microbatch = self._compile(fn, variables, rows), 0
            self._keep(key, found, microbatch)
        return self._compiled[key]

    def _key(self, fn, variables, rows):
        leaves = jax.tree.leaves((variables, rows))
        return fn, tuple((v.shape, str(v.dtype)) for v in leaves)

    def _compile(self, fn, variables, rows):
        jitted = jax.jit(sharding.per_device(self.mesh, fn))
        return jitted.lower(variables, rows).compile()

    def _keep(self, key, found, microbatch):
        self._compiled[key] = Compiled(found, compiled_bytes(found), microbatch)

    def _run(self, fn, variables, rows, meter: Meter) -> dict[str, np.ndarray]:
        """A block's results, of all hosts, on every host.

        Where memory does not suffice on a device, all hosts halve the microbatch of a
        `Fitted` pass once, for all blocks that follow.
        """
        result = self._try(fn, variables, rows, meter)
        microbatch = self.compiled(fn, variables, rows).microbatch
        key = self._key(fn, variables, rows)
        if result is None and microbatch > 1 and key not in self._halved:
            warnings.warn(
                f"a device ran out of memory with {microbatch} gradients at once: from "
                f"here on {microbatch // 2}, on all devices",
                stacklevel=2,
            )
            self._halved.add(key)
            halved = self._compile(fn.build(microbatch // 2), variables, rows)
            self._keep(key, halved, microbatch // 2)
            result = self._try(fn, variables, rows, meter)
        if result is None:
            at_once = self.compiled(fn, variables, rows).microbatch
            if at_once:
                what = f"with {at_once} gradients at once: lower acquisition.microbatch"
            else:
                what = "in a forward pass: lower evaluation.block"
            raise MemoryError(
                f"a device ran out of memory {what} (or data.size, or take devices "
                "with more memory). What is scored so far is kept"
            )
        if hosts.size() > 1:
            result = self._gather(result)
        return sharding.to_host(result)

    def _try(self, fn, variables, rows, meter):
        """A block's results on the devices; None where any host had no memory."""
        result, full = None, False
        try:
            result = self._execute(fn, variables, rows, meter)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            full = True
        return None if hosts.any_host(full) else result

    def _execute(self, fn, variables, rows, meter):
        found = self.compiled(fn, variables, rows)
        meter.peak_bytes = max(meter.peak_bytes, found.peak_bytes)
        if found.microbatch:
            meter.microbatch = found.microbatch
        run_block = self._run_block or execute
        result = run_block(fn, found.run, variables, rows)
        # Waited for: a host has to know that it has its part before all gather.
        return jax.block_until_ready(result)


def num_blocks(count: int, block: int) -> int:
    """Blocks that `count` examples fill."""
    return math.ceil(count / block)


def collect(blocks) -> dict[str, np.ndarray]:
    """Lay the results of a walk end to end."""
    blocks = list(blocks)
    return {name: np.concatenate([b[name] for b in blocks]) for name in blocks[0]}


def example_keys(key, ids: Integer[AnyArray, " n"]):
    """A key for each example id: the same whatever block or device it falls in."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(ids.astype(jnp.uint32))
