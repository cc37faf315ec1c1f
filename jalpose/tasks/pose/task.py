"""Human pose to everything that computes: joints drawn as heatmaps, and read off them.

A label is {"joints": float32 [J, 2] crop pixels, "status": int8 [J]}, a prediction the
heatmaps [S, h, w, J] of every stack, a target (maps [h, w, J], bool [J] which count).
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Shaped
from ml_collections import ConfigDict

from jalpose.data.dataset import Dataset
from jalpose.runtime.shapes import AnyArray
from jalpose.tasks.pose import augment, counting, heatmaps, losses, peaks
from jalpose.tasks.pose.annotations import skeleton_of
from jalpose.tasks.pose.augment import NO_AUGMENTATION, Ranges
from jalpose.tasks.pose.heatmaps import HeatmapSpec
from jalpose.tasks.pose.skeletons import VISIBLE, Skeleton
from jalpose.tasks.task import CandidateOptions, Candidates

MEASURES = ("prediction", "decoded")  # of `disagreement`

Maps = Float[AnyArray, "h w j"]
Prediction = Float[AnyArray, "s h w j"]
Label = Mapping[str, Shaped[AnyArray, "j ..."]]
Target = tuple[Float[AnyArray, "..."], Bool[AnyArray, " j"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PoseTask:
    """Joints of a skeleton, learnt as Gaussians on maps a quarter the size of the crop.

    Attributes:
      skeleton: whose joints.
      spec: of the label heatmaps.
      ranges: of the augmentations.
      occluded: occluded joints are learnt too.
      refine: sub-pixel decoding, see `heatmaps.decode_heatmaps`.
    """

    skeleton: Skeleton
    spec: HeatmapSpec
    ranges: Ranges = NO_AUGMENTATION
    occluded: bool = True
    refine: str = "parabola"
    name = "pose"
    posteriors = heatmaps.POSTERIORS
    pixels = True
    candidate_posteriors = peaks.POSTERIORS
    measures = MEASURES

    @property
    def size(self) -> int:
        """Side of the crop, pixels."""
        return self.spec.crop_size

    @property
    def peak(self) -> float:
        """Height of a label's heatmap: the unit that predictions come in."""
        return self.spec.peak

    @property
    def num_outputs(self) -> int:
        """Joints, a heatmap each."""
        return self.skeleton.num_joints

    @property
    def label_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Joints [J, 2] and their status [J]."""
        joints = self.skeleton.num_joints
        return {
            "joints": jax.ShapeDtypeStruct((joints, 2), jnp.float32),
            "status": jax.ShapeDtypeStruct((joints,), jnp.int8),
        }

    def augment(
        self, key, image: Float[AnyArray, "y x 3"], label: Label
    ) -> tuple[Float[AnyArray, "y x 3"], dict[str, Shaped[AnyArray, "j ..."]]]:
        """Scaled, turned, moved, mirrored and recoloured; see `augment.augment`."""
        image, joints, status = augment.augment(
            key,
            image,
            label["joints"],
            label["status"],
            ranges=self.ranges,
            mirror=self.skeleton.mirror,
        )
        return image, {"joints": joints, "status": status}

    def target(self, label: Label) -> Target:
        """Maps [h, w, J] of the joints that count, and which those are: bool [J]."""
        present = self.present(label)
        return self.spec.render(label["joints"], present), present

    def present(self, label: Label) -> Bool[AnyArray, " j"]:
        """Which joints of a label count: bool [J]."""
        return counting.counted(
            label["joints"], label["status"], occluded=self.occluded, size=self.size
        )

    def known(self, target: Target) -> Bool[AnyArray, ""]:
        """Does any joint count?"""
        return jnp.any(target[1])

    def loss(self, prediction: Prediction, target: Target) -> Float[AnyArray, ""]:
        """Mean squared error over stacks, pixels and the joints that count."""
        return losses.labelled_loss(prediction, target)

    def decode(self, prediction: Prediction) -> dict[str, Float[AnyArray, "j ..."]]:
        """Joints [J, 2] (crop pixels) of the last stack, and the maps' peaks [J]."""
        joints, values = self.decode_maps(prediction[-1], self.refine)
        return {"joints": joints, "peaks": values}

    def decode_maps(
        self, maps: Maps, refine: str
    ) -> tuple[Float[AnyArray, "j 2"], Float[AnyArray, " j"]]:
        """[h, w, J] -> joints [J, 2] in crop pixels, peaks [J]."""
        return heatmaps.decode_heatmaps(
            maps, crop_size=self.size, sigma=self.spec.sigma, refine=refine
        )

    def illustrate(self, prediction: Prediction) -> dict[str, Maps]:
        """Heatmaps of the last stack; half their bytes are enough."""
        return {"heatmaps": prediction[-1].astype(jnp.float16)}

    # Capabilities.

    def posterior(
        self, prediction: Prediction, kind: str, temperature: float, log: bool = False
    ) -> Float[AnyArray, "sites values"]:
        """Distribution of each joint over the pixels of its map: [J, h * w].

        Args:
          prediction: the last stack counts.
          kind: see `heatmaps.posterior`.
          temperature: of a softmax.
          log: of the softmax its logarithm, exact where it is small.
        """
        maps = prediction[-1]
        if log and kind == "softmax":
            found = jax.nn.log_softmax(maps / temperature, axis=(0, 1))
        else:
            shares = heatmaps.posterior(maps, kind, temperature, self.spec.sigma)
            found = jnp.log(shares) if log else jnp.asarray(shares)
        return jnp.moveaxis(found.reshape(-1, found.shape[-1]), -1, 0)

    def candidates(self, options: CandidateOptions) -> Candidates:
        """The local peaks of each joint's map; see `peaks`."""
        return peaks.candidates(self.spec, self.skeleton.num_joints, options)

    def disagreement(
        self, predictions: Float[AnyArray, "k s h w j"], measure: str
    ) -> Float[AnyArray, " j"]:
        """How much K predictions differ, by joint: [J].

        "prediction": variance over the K, mean over the pixels of the last stack.
        "decoded": variance of the position of each map's highest pixel, heatmap pixels
        squared, x and y together.
        """
        maps = predictions[:, -1]  # [K, h, w, J]
        if measure == "prediction":
            return jnp.var(maps, axis=0).mean(axis=(0, 1))
        count, height, width, joints = maps.shape
        highest = jnp.argmax(maps.reshape(count, height * width, joints), axis=1)
        places = jnp.stack([highest % width, highest // width]).astype(jnp.float32)
        apart = jnp.var(places, axis=1).sum(axis=0)
        # A map with a NaN has a highest pixel too.
        known = jnp.isfinite(maps).all(axis=(0, 1, 2))
        return jnp.where(known, apart, jnp.nan)

    def predicted_target(self, prediction: Prediction, label: Label) -> Target:
        """The network's own maps of every stack, for the joints that count."""
        return prediction, self.present(label)

    def predicted_label(
        self, prediction: Prediction
    ) -> dict[str, Shaped[AnyArray, "j ..."]]:
        """Every joint where it is decoded, as if it were seen there."""
        joints, _ = self.decode_maps(prediction[-1], self.refine)
        status = jnp.full(len(joints), VISIBLE, jnp.int8)
        return {"joints": joints, "status": status}

    def predicted_point(self, prediction: Prediction) -> Float[AnyArray, " c"]:
        """The decoded joints about their mean, in crop widths: [2 J].

        Poses are compared, not where in its crop a body stands.
        """
        joints, _ = self.decode_maps(prediction[-1], self.refine)
        point = jnp.ravel(joints - joints.mean(axis=0, keepdims=True)) / self.size
        # A map with a NaN has a highest pixel too.
        return jnp.where(jnp.isfinite(prediction[-1]).all(), point, jnp.nan)

    # What the methods of poses alone ask for.

    def in_map(self, xy: Float[AnyArray, "*n 2"]) -> Float[AnyArray, "*n 2"]:
        """Crop pixels to heatmap pixels."""
        return heatmaps.crop_to_heatmap(xy, self.spec.crop_size, self.spec.heatmap_size)

    def errors(
        self, prediction: Prediction, label: Label
    ) -> tuple[Float[AnyArray, "j 2"], Float[AnyArray, "j 2"], Bool[AnyArray, " j"]]:
        """Highest pixels of the last stack, labelled joints, which count.

        Returns:
          predicted float32 [J, 2] and joints float32 [J, 2], heatmap pixels, and bool
          [J].
        """
        predicted, _ = self.decode_maps(prediction[-1], "none")
        return (
            self.in_map(predicted),
            self.in_map(label["joints"]),
            self.present(label),
        )


def make_task(config: ConfigDict, dataset: Dataset) -> PoseTask:
    """The task that a config describes, of the skeleton of its data set."""
    size = config.data.size
    augmented = {
        **config.augment,
        "scale": tuple(config.augment.scale),
        "window": tuple(side / config.data.window for side in config.augment.window),
    }
    return PoseTask(
        skeleton=skeleton_of(dataset),
        spec=HeatmapSpec(size, size // 4, config.heatmap.sigma, config.heatmap.peak),
        ranges=Ranges(**augmented),
        occluded=config.training.occluded,
        refine=config.evaluation.refine,
    )
