"""What stays the same through a run: data, network, method, and how they are used."""

import copy
import hashlib
import json
from collections.abc import Callable

import jax
import numpy as np
from ml_collections import ConfigDict

from jalpose.acquisition.method import Labelled, Requires
from jalpose.acquisition.registry import METHODS
from jalpose.data.crops import to_crop
from jalpose.data.dataset import PoseDataset
from jalpose.evaluation.evaluator import Judge
from jalpose.models.registry import create_model
from jalpose.pergrad.api import Engine
from jalpose.runtime import random_streams
from jalpose.scoring.passes import Passes
from jalpose.scoring.probe import Probe
from jalpose.settings.keys import RUNTIME_KEYS, ConfigError, seed_of
from jalpose.storage.journal import Journal
from jalpose.tasks.pose.augment import Ranges
from jalpose.tasks.pose.skeletons import ABSENT, VISIBLE
from jalpose.training.plan import Stages
from jalpose.training.trainer import HeatmapSpec, Trainer, pose_of


class Problem:
    """A benchmark, a network and an acquisition method, ready to be advanced.

    Args:
      config: validated.
      dataset: the benchmark.
      mesh: of the devices.
      base: variables of another run's base model, or None to train one; of them the
        pose network is used, what a method requires beside it is trained anew.

    Attributes:
      journals: (cycle, fingerprint) -> journal of that cycle's passes; in memory,
        unless whoever runs the problem has a folder for them.

    Raises:
      ConfigError: budgets beyond the pool, options the method cannot work with.
    """

    def __init__(self, config: ConfigDict, dataset: PoseDataset, mesh, base=None):
        self.journals: Callable[[int, str], Journal] = lambda *_: Journal()
        self.config, self.dataset = config, dataset
        self.base = None if base is None else pose_of(base)
        self.mesh = mesh
        self.method = METHODS[config.acquisition.method]
        self.requires = self._requires(config.acquisition.method)
        self._check_budget()
        self.judge = Judge(config.evaluation, dataset)
        size = config.data.size
        self.spec = HeatmapSpec(
            size, size // 4, config.heatmap.sigma, config.heatmap.peak
        )
        self.model = self._network(config.model.convolution)
        trainer = Trainer(
            self.model,
            config.training,
            Ranges(**{**config.augment, "scale": tuple(config.augment.scale)}),
            dataset.skeleton.mirror,
            self.spec,
            mesh,
            self.requires.head,
        )
        self.passes = Passes(
            self.model,
            dataset,
            self.spec,
            refine=config.evaluation.refine,
            mesh=mesh,
            threads=config.data.threads,
            gradient_model=self.network_for(engine_of(config.acquisition)),
            head=self.requires.head and self.requires.head.module,
        )
        self.stages = Stages(
            config, dataset, trainer, self.passes, self.requires, self.base
        )
        # Problems made with this one, one a head: what is compiled is theirs.
        self._kin = [self]
        self._remembered: dict[str, tuple] = {}

    @property
    def trainer(self) -> Trainer:
        """The compiled training steps."""
        return self.stages.trainer

    def _requires(self, method: str) -> Requires:
        return METHODS[method].requires(
            self.dataset.skeleton, **self.method_options(method)
        )

    def _network(self, convolution: str):
        options = {**self.config.model, "convolution": convolution}
        name = options.pop("name")
        return create_model(name, self.dataset.skeleton.num_joints, **options)

    def network_for(self, engine: Engine):
        """The network as `engine` takes it: the same function of the same variables.

        All but `exact` read the network and bring convolutions of their own.
        """
        return self.model if engine.name == "exact" else self._network("native")

    def with_method(
        self, config: ConfigDict, base, dataset: PoseDataset | None = None
    ) -> "Problem":
        """The same problem under another method or seed, from the base model `base`.

        It shares the network, and all that is compiled, with the problems made in this
        way before whose methods require the same head. With another `dataset` those
        are spent: they and this one read their examples in the same passes.

        Args:
          config: may differ in `acquisition.method`, `base`, `seed`, `seeds`, `loop`,
            `data.labelled` and the lengths of trainings only.
          base: as in `Problem`.
          dataset: the benchmark as `config` draws it; None: the same.
        """
        dataset = dataset or self.dataset
        requires = self._requires(config.acquisition.method)
        # One by one: heads are compared, nobody promises that they can be hashed.
        kin = next((p for p in self._kin if p.requires.head == requires.head), None)
        if kin is None:
            other = Problem(config, dataset, self.mesh, base)
            other._kin = self._kin
            self._kin.append(other)
            return other
        other = copy.copy(kin)
        other.config, other.dataset, other._remembered = config, dataset, {}
        other.base = None if base is None else pose_of(base)
        other.method, other.requires = METHODS[config.acquisition.method], requires
        other._check_budget()
        other.judge = Judge(config.evaluation, dataset)
        other.passes.read_from(dataset)
        other.passes.peak_bytes = 0
        other.stages = Stages(
            config, dataset, kin.trainer, kin.passes, requires, other.base
        )
        return other

    def _check_budget(self):
        acquisition, cycles = self.config.acquisition, self.config.loop.cycles
        wanted, there = cycles * acquisition.budget, len(self.dataset.pool)
        if wanted > there:
            raise ConfigError(
                f"loop.cycles={cycles} of acquisition.budget={acquisition.budget} "
                f"need {wanted} examples, but the pool has {there}"
            )
        if cycles and acquisition.pool_subset > there:
            raise ConfigError(
                f"acquisition.pool_subset={acquisition.pool_subset} is larger than the "
                f"pool of {there}"
            )
        # The methods to compare with as well: what cannot work fails at the start.
        neighbours = int((~self.dataset.held_out(self.dataset.initial)).sum())
        for name in (acquisition.method, *self.config.loop.compare):
            try:
                METHODS[name].check(neighbours, **self.method_options(name))
                self._check_requires(name)
            except ValueError as error:
                raise ConfigError(str(error)) from error

    def _check_requires(self, name: str):
        """Raise ConfigError where what a method needs would not be trained."""
        requires, section = self._requires(name), f"acquisition.{name}"
        given = self.base is not None or name != self.config.acquisition.method
        if requires.head is not None and given and requires.head.steps < 1:
            raise ConfigError(
                f"{name} needs a head, which the base model it starts from does not "
                f"have: set {section}.steps, the steps of training the head alone, "
                f"above 0 (it is {requires.head.steps}), or train a base model of its "
                "own without config.base"
            )
        if requires.members is not None:
            for key, value, least in (
                ("members", requires.members.count, 2),
                ("steps", requires.members.steps, 1),
            ):
                if value < least:
                    raise ConfigError(
                        f"{name} needs an ensemble: {section}.{key}={value} must be "
                        f"{least} or more"
                    )
        if requires.dropout and not self.config.model.dropout > 0:
            raise ConfigError(
                f"{name} needs a network trained with dropout: set model.dropout above "
                f"0 (it is {self.config.model.dropout}), e.g. 0.05"
            )
        engine = self.config.acquisition.engine
        if requires.each_norm and engine == "sketch":
            raise ConfigError(
                f"{name} with these options needs the norm for each label by itself, "
                "acquisition.engine=sketch gives only expectations of squared norms: "
                "choose ghost or exact"
            )

    def method_options(self, name: str) -> dict:
        """The section of `config.acquisition` of a method's name, if there is one."""
        return dict(self.config.acquisition.get(name, {}))

    def evaluate(self, variables) -> tuple[dict, dict]:
        """Test metrics and arrays of a model, see `Judge.evaluate`."""
        return self.judge.evaluate(self.passes, variables)

    def journal(self, cycle: int, labelled: np.ndarray, variables) -> Journal:
        """The journal of the passes of `variables` in `cycle`: new, or what is left."""
        return self.journals(cycle, self._fingerprint(cycle, labelled, variables))

    def _fingerprint(self, cycle, labelled, variables) -> str:
        """A name for all that decides what the passes of a cycle find.

        Number and kind of the devices are no part of it: a run may go on on others.
        """
        config = _without(self.config.to_dict(), (*RUNTIME_KEYS, "base"))
        found = hashlib.blake2b(digest_size=16)
        found.update(json.dumps([config, cycle, labelled.tolist()]).encode())
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
            values = np.asarray(leaf)
            about = [jax.tree_util.keystr(path), str(values.dtype), values.shape]
            found.update(json.dumps(about).encode() + values.tobytes())
        return found.hexdigest()

    def probe(self, variables, journal: Journal) -> Probe:
        """A probe of `variables` on a journal."""
        config = self.config.acquisition
        return Probe(
            self.passes,
            variables,
            journal=journal,
            pieces=config.pieces,
            forward_block=self.config.evaluation.block,
            gradient_block=config.block,
            engine=engine_of(config),
            memory=config.memory,
        )

    def engine_record(self) -> dict:
        """Engine of gradient norms and its microbatch, None where none is used."""
        config = self.config.acquisition
        if not self.method.uses_engine:
            return {"engine": None, "microbatch": None}
        microbatch = config.microbatch or self.passes.microbatch
        return {"engine": config.engine, "microbatch": microbatch}

    def labelled_set(self, labelled: np.ndarray) -> Labelled:
        """The labelled examples as methods see them."""
        return self._remember(self._labelled_set, labelled)

    def _labelled_set(self, labelled):
        data = self.dataset
        joints = to_crop(
            data.joints[labelled], data.windows[labelled], self.spec.crop_size
        )
        status = data.status[labelled]
        wanted = (
            status != ABSENT if self.config.training.occluded else status == VISIBLE
        )
        return Labelled(
            ids=labelled,
            joints=np.nan_to_num(joints, nan=0.0).astype(np.float32),
            present=wanted,
            held_out=data.held_out(labelled),
        )

    def unlabelled(
        self, labelled: np.ndarray, cycle: int, size: int | None = None
    ) -> np.ndarray:
        """Pool examples to be scored in `cycle`, rising ids.

        With a `size` (None: `acquisition.pool_subset`; 0: all there are) each example
        draws a priority from the seed, the cycle and its id, and the lowest are taken:
        methods compared under one seed see the same subset, but for what they have
        already labelled.
        """
        if size is None:
            size = self.config.acquisition.pool_subset
        seed = seed_of(self.config, "acquire")
        return self._remember(self._unlabelled, labelled, cycle, size, seed)

    def _unlabelled(self, labelled, cycle, size, seed):
        left = np.setdiff1d(self.dataset.pool, labelled)
        if size == 0 or size >= len(left):
            return left
        own = random_streams.stream_seed(seed, "subset", cycle)
        generator = np.random.default_rng(own)
        draws = generator.random(len(self.dataset.keys))
        return np.sort(left[np.argsort(draws[left], kind="stable")[:size]])

    def _remember(self, compute: Callable, labelled: np.ndarray, *others):
        """`compute` of these arguments, kept for the next call: each piece asks again.

        Of a large pool it would else take longer than the piece itself.
        """
        before, key, found = self._remembered.get(compute.__name__, (None, None, None))
        if before is None or key != others or not np.array_equal(before, labelled):
            found = compute(labelled, *others)
            self._remembered[compute.__name__] = labelled.copy(), others, found
        return found

    def has_labels(self, ids: np.ndarray) -> bool:
        """Are the labels of `ids` there? In simulation every label is."""
        return bool(np.isin(ids, self.dataset.pool).all())


def engine_of(acquisition: ConfigDict, **changes) -> Engine:
    """The engine of gradient norms that `config.acquisition` describes."""
    options = {
        "name": acquisition.engine,
        "microbatch": acquisition.microbatch,
        "products": acquisition.products,
        **acquisition.sketch,
        **changes,
    }
    return Engine(**options)


def _without(section: dict, keys, prefix: str = "") -> dict:
    """The section of a config and those in it, without these dotted keys."""
    return {
        name: _without(value, keys, f"{prefix}{name}.")
        if isinstance(value, dict)
        else value
        for name, value in section.items()
        if prefix + name not in keys
    }
