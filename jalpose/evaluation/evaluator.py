"""How a run judges its models on the test set, and its choices by the pool's labels."""

import functools

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jalpose.data.crops import from_crop
from jalpose.data.dataset import PoseDataset
from jalpose.evaluation import measures
from jalpose.scoring.passes import Passes, collect
from jalpose.settings.keys import ConfigError
from jalpose.tasks.pose import baseline, pck
from jalpose.training.trainer import HeatmapSpec


class Judge:
    """The evaluation that a config describes, on one dataset.

    Args:
      config: the section `evaluation`.
      dataset: the benchmark.

    Raises:
      ConfigError: no test image has what PCK is to be measured in.
    """

    def __init__(self, config: ConfigDict, dataset: PoseDataset):
        self.config, self.dataset = config, dataset
        sizes = dataset.head_sizes
        if config.reference == "torso":
            return
        if sizes is None or not (sizes[dataset.test] > 0).any():
            raise ConfigError(
                f"evaluation.reference={config.reference} needs head boxes, but no "
                "test image of this data set has one (HRNet's JSON of MPII has none "
                "either); set evaluation.reference=torso"
            )

    def evaluate(self, passes: Passes, variables) -> tuple[dict, dict]:
        """Test metrics, and arrays: ids, predicted joints (image pixels) and losses."""
        data, config = self.dataset, self.config
        ids = data.test
        found = collect(
            passes.walk(passes.describe, variables, ids, block=config.block)
        )
        predicted = from_crop(found["joints"], data.windows[ids], passes.spec.crop_size)
        result = self.pck(ids, predicted)
        known = (a[data.initial] for a in (data.joints, data.status, data.windows))
        guess = baseline.predict_mean_pose(
            baseline.mean_crop_pose(*known), data.windows[ids]
        )
        metrics = {
            "pck": result.mean,
            "pck_name": pck.score_name(config.reference, config.threshold),
            "pck_threshold": config.threshold,
            "pck_reference": config.reference,
            "pck_joints": config.joints,
            "pck_per_joint": dict(
                zip(data.skeleton.joints, result.per_joint.tolist(), strict=True)
            ),
            "num_images": result.num_images,
            "num_left_out": result.num_left_out,
            "mean_pose_pck": self.pck(ids, guess).mean,
            "test_loss": float(found["loss"].mean(dtype=np.float64)),
        }
        arrays = {
            "test_ids": ids,
            "test_joints": predicted.astype(np.float32),
            "test_losses": found["loss"],
        }
        return metrics, arrays

    def measure(self, probe, labels, chosen, scores) -> tuple[dict, dict]:
        """Measure a choice by the labels of all that was scored, in simulation.

        Args:
          probe: of the network that chose.
          labels: `Labelled` of what was scored, M examples.
          chosen: ids of what was chosen.
          scores: float32 [M].

        Returns:
          Measures for the record (see `measures.summarise`), and arrays.
        """
        ids = labels.ids
        described = probe.describe(ids)
        joints = from_crop(
            described["joints"], self.dataset.windows[ids], probe.spec.crop_size
        )
        norms = self._true_norms(probe, labels) if self.config.true_norms else None
        picked = np.isin(ids, chosen)
        values = measures.summarise(
            ids,
            scores,
            chosen,
            described["loss"],
            sq_norms=norms,
            embeddings=described["embedding"],
            selected_pck=self._mean_pck(ids[picked], joints[picked]),
            pool_pck=self._mean_pck(ids, joints),
        )
        arrays = {
            "embeddings": described["embedding"],
            "joints": joints.astype(np.float32),
            "peaks": described["peaks"],
            "true_losses": described["loss"],
        }
        if norms is not None:
            arrays["true_squared_norms"] = norms
        return values, arrays

    def illustrate(self, probe, labelled, ids, scores, most) -> dict:
        """Arrays that no measure needs, for pictures of the choice.

        Args:
          probe: of the network that chose.
          labelled: int64 [L], ids of the examples it was trained on.
          ids: int64 [M], of what was scored, rising.
          scores: float32 [M].
          most: examples whose heatmaps are kept, half of them of the highest scores
            and half of the lowest; none where a method gives no scores.

        Returns:
          labelled_ids [L], labelled_embeddings float32 [L, C]; heatmap_ids [n], rising,
          heatmaps float16 [n, h, w, J], of the last stack.
        """
        arrays = {
            "labelled_ids": labelled,
            "labelled_embeddings": probe.embeddings(labelled),
        }
        shown = measures.ends(ids, scores, most)
        if len(shown):
            arrays["heatmap_ids"] = shown
            arrays |= probe.reduce(last_heatmaps, shown)
        return arrays

    def pck(self, ids, predicted) -> pck.PckResult:
        """PCK of `predicted`, image pixels, on the examples `ids`."""
        data, config = self.dataset, self.config
        return pck.pck(
            predicted,
            data.joints[ids],
            data.status[ids],
            data.skeleton,
            threshold=config.threshold,
            count_occluded=config.occluded,
            reference=config.reference,
            head_sizes=self._head_sizes(ids),
            average=config.joints,
        )

    def reference_lengths(self, ids) -> np.ndarray:
        """Lengths that PCK measures in, image pixels; NaN where there is none."""
        data = self.dataset
        return pck.reference_lengths(
            data.joints[ids],
            data.status[ids],
            data.skeleton,
            self.config.reference,
            self._head_sizes(ids),
        )

    def _head_sizes(self, ids):
        sizes = self.dataset.head_sizes
        return None if sizes is None else sizes[ids]

    def _mean_pck(self, ids, predicted) -> float | None:
        """PCK of images, None where there is nothing to measure."""
        try:
            return self.pck(ids, predicted).mean
        except ValueError:
            return None

    def _true_norms(self, probe, labels):
        """Squared norm of each example's own gradient: float32 [M]."""

        def context(positions):
            return {
                "joints": labels.joints[positions],
                "present": labels.present[positions],
            }

        weights = np.broadcast_to(np.float32(1), (len(labels.ids), 1))
        target = own_label(probe.spec)
        found = probe.squared_norms(
            target, labels.ids, weights, context, approximate=False
        )
        return found["expected"]


def last_heatmaps(output, key) -> dict:
    """Heatmaps of the last stack, for `Probe.reduce`; half their bytes are enough."""
    del key
    return {"heatmaps": output.heatmaps[-1].astype(jnp.float16)}


@functools.cache
def own_label(spec: HeatmapSpec):
    """The one target of an example whose label is known, for `Probe.squared_norms`."""

    def target(row):
        maps = spec.render(row["joints"], row["present"])
        return maps[None], row["present"][None]

    return target
