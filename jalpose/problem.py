"""What stays the same through a run: data, network, method, and how they are used."""

import copy

import numpy as np
from ml_collections import ConfigDict

from jalpose import rng
from jalpose.acquisition.method import Labelled
from jalpose.acquisition.probe import Probe
from jalpose.acquisition.registry import METHODS
from jalpose.config import ConfigError
from jalpose.data import pipeline
from jalpose.data.augment import Ranges
from jalpose.data.crops import from_crop, to_crop
from jalpose.data.dataset import PoseDataset
from jalpose.data.skeletons import ABSENT, VISIBLE
from jalpose.evaluation import baseline, pck
from jalpose.evaluation.passes import Passes, collect
from jalpose.models.registry import create_model
from jalpose.pergrad.api import Engine
from jalpose.training import HeatmapSpec, Trainer


class Problem:
    """A benchmark, a network and an acquisition method, ready to be advanced.

    Args:
      config: validated.
      dataset: the benchmark.
      mesh: of the devices.
      base: variables of another run's base model, or None to train one.

    Raises:
      ConfigError: budgets beyond the pool, options the method cannot work with.
    """

    def __init__(self, config: ConfigDict, dataset: PoseDataset, mesh, base=None):
        self.config, self.dataset, self.base = config, dataset, base
        self.mesh = mesh
        self.method = METHODS[config.acquisition.method]
        self._check_budget()
        self._check_reference()
        size = config.data.size
        self.spec = HeatmapSpec(
            size, size // 4, config.heatmap.sigma, config.heatmap.peak
        )
        self.model = self._network(config.model.convolution)
        self.trainer = Trainer(
            self.model,
            config.training,
            Ranges(**{**config.augment, "scale": tuple(config.augment.scale)}),
            dataset.skeleton.mirror,
            self.spec,
            mesh,
        )
        self.passes = Passes(
            self.model,
            dataset,
            self.spec,
            refine=config.evaluation.refine,
            mesh=mesh,
            threads=config.data.threads,
            gradient_model=self.network_for(engine_of(config.acquisition)),
        )
        self._batches: tuple | None = None

    def _network(self, convolution: str):
        options = {**self.config.model, "convolution": convolution}
        name = options.pop("name")
        return create_model(name, self.dataset.skeleton.num_joints, **options)

    def network_for(self, engine: Engine):
        """The network as `engine` takes it: the same function of the same variables.

        All but `exact` read the network and bring convolutions of their own.
        """
        return self.model if engine.name == "exact" else self._network("native")

    def with_method(self, config: ConfigDict, base) -> "Problem":
        """The same problem under another method, from the base model `base`.

        It shares this one's network and all that is compiled; `config` may differ in
        `acquisition.method`, `base` and `loop.compare` only.
        """
        other = copy.copy(self)
        other.config, other.base = config, base
        other.method = METHODS[config.acquisition.method]
        other._batches = None
        other.passes.peak_bytes = 0
        return other

    def _check_reference(self):
        """Raise ConfigError where no test image has what PCK is measured in."""
        reference, sizes = self.config.evaluation.reference, self.dataset.head_sizes
        if reference == "torso":
            return
        if sizes is None or not (sizes[self.dataset.test] > 0).any():
            raise ConfigError(
                f"evaluation.reference={reference} needs head boxes, but no test image "
                f"of data.name={self.config.data.name} has one (HRNet's JSON of MPII "
                "has none either); set evaluation.reference=torso"
            )

    def _check_budget(self):
        acquisition, cycles = self.config.acquisition, self.config.loop.cycles
        wanted, there = cycles * acquisition.budget, len(self.dataset.pool)
        if wanted > there:
            raise ConfigError(
                f"loop.cycles={cycles} of acquisition.budget={acquisition.budget} "
                f"need {wanted} examples, but the pool has {there}"
            )
        if acquisition.pool_subset > there:
            raise ConfigError(
                f"acquisition.pool_subset={acquisition.pool_subset} is larger than the "
                f"pool of {there}"
            )
        # The methods to compare with as well: what cannot work fails at the start.
        neighbours = int((~self.dataset.held_out(self.dataset.initial)).sum())
        for name in (acquisition.method, *self.config.loop.compare):
            try:
                METHODS[name].check(neighbours, **self.method_options(name))
            except ValueError as error:
                raise ConfigError(str(error)) from error

    def method_options(self, name: str) -> dict:
        """The section of `config.acquisition` of a method's name, if there is one."""
        return dict(self.config.acquisition.get(name, {}))

    # Lengths of the trainings.

    def steps_per_epoch(self, cycle: int) -> int:
        """Of the training of `cycle`, by the labels planned for it.

        Planned, not bought, so that a control without new labels trains as long.
        """
        planned = len(self.dataset.initial) + cycle * self.config.acquisition.budget
        return max(1, round(0.9 * planned / self.config.training.batch))

    def total_steps(self, cycle: int) -> int:
        """Length of the training of `cycle` in steps."""
        training = self.config.training
        epochs, steps = (
            (training.base_epochs, training.base_steps)
            if cycle == 0
            else (training.cycle_epochs, training.cycle_steps)
        )
        return steps or round(epochs * self.steps_per_epoch(cycle))

    def heldout_interval(self, cycle: int) -> int:
        """Steps between held-out evaluations in the training of `cycle`."""
        epochs = self.config.training.heldout_epochs
        return max(1, round(epochs * self.steps_per_epoch(cycle)))

    # Training.

    def train_steps(self, state, labelled, cycle: int, steps: int, total: int):
        """Take `steps` steps of the training of `cycle`: (new state, losses)."""
        batches = self._training_batches(labelled, cycle, int(state.step))
        key = rng.stream(self.config.seed, "augment", cycle)
        state, history = self.trainer.run(state, batches, key, steps, total)
        self._batches = ((cycle, int(state.step), len(labelled)), batches)
        return state, history

    def _training_batches(self, labelled, cycle, position):
        # A running iterator is kept while it stands where the state says; its
        # position is nothing but the number of steps taken.
        if self._batches and self._batches[0] == (cycle, position, len(labelled)):
            return self._batches[1]
        trained_on = labelled[~self.dataset.held_out(labelled)]
        return pipeline.training_batches(
            self.passes.source(trained_on),
            batch=self.config.training.batch,
            seed=rng.stream_seed(self.config.seed, "order", cycle),
            position=position,
            threads=self.config.data.threads,
        )

    def heldout_loss(self, variables, labelled) -> float:
        """Mean loss over the held-out tenth of `labelled`."""
        ids = labelled[self.dataset.held_out(labelled)]
        blocks = pipeline.blocks_in_order(
            self.passes.source(ids),
            block=self.config.evaluation.block,
            threads=self.config.data.threads,
        )
        return self.trainer.heldout_loss(variables, blocks)

    def new_train_state(self, cycle: int):
        """Training state with new weights."""
        return self.trainer.init(rng.stream(self.config.seed, "init", cycle))

    # Evaluation.

    def evaluate(self, variables) -> tuple[dict, dict]:
        """Test metrics, and arrays: ids, predicted joints (image pixels) and losses."""
        data, config = self.dataset, self.config.evaluation
        ids = data.test
        walk = self.passes.walk(
            self.passes.describe, variables, ids, block=config.block
        )
        found = collect(walk)
        predicted = from_crop(found["joints"], data.windows[ids], self.spec.crop_size)
        options = {
            "threshold": config.threshold,
            "count_occluded": config.occluded,
            "reference": config.reference,
            "head_sizes": None if data.head_sizes is None else data.head_sizes[ids],
            "average": config.joints,
        }
        truth = (data.joints[ids], data.status[ids])
        result = pck.pck(predicted, *truth, data.skeleton, **options)
        known = (a[data.initial] for a in (data.joints, data.status, data.windows))
        guess = baseline.predict_mean_pose(
            baseline.mean_crop_pose(*known), data.windows[ids]
        )
        metrics = {
            "pck": result.mean,
            "pck_threshold": config.threshold,
            "pck_reference": config.reference,
            "pck_joints": config.joints,
            "pck_per_joint": dict(
                zip(data.skeleton.joints, result.per_joint.tolist(), strict=True)
            ),
            "num_images": result.num_images,
            "num_left_out": result.num_left_out,
            "mean_pose_pck": pck.pck(guess, *truth, data.skeleton, **options).mean,
            "test_loss": float(found["loss"].mean(dtype=np.float64)),
        }
        arrays = {
            "test_ids": ids,
            "test_joints": predicted.astype(np.float32),
            "test_losses": found["loss"],
        }
        return metrics, arrays

    # Acquisition.

    def probe(self, variables, journal) -> Probe:
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

    def labelled_set(self, labelled: np.ndarray) -> Labelled:
        """The labelled examples as methods see them."""
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
        left = np.setdiff1d(self.dataset.pool, labelled)
        if size is None:
            size = self.config.acquisition.pool_subset
        if size == 0 or size >= len(left):
            return left
        seed = rng.stream_seed(self.config.seed, "subset", cycle)
        draws = np.random.default_rng(seed).random(len(self.dataset.keys))
        return np.sort(left[np.argsort(draws[left], kind="stable")[:size]])

    def in_image(self, ids: np.ndarray, joints: np.ndarray) -> np.ndarray:
        """Crop pixels -> image pixels of the examples `ids`."""
        return from_crop(joints, self.dataset.windows[ids], self.spec.crop_size)

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
