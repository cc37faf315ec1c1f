"""What published codes of the papers do, as keys of a config: presets of `papers=`.

Read off the code of EGL++ and LL++ (github.com/meghshukla/ActiveLearningForHumanPose),
at its last commit (9a329a0, December 2022) and at the one "used for experimentation"
(4b2758e, June 2021), which most of the printed baselines seem to come from. Lengths of
trainings, sizes and budgets stay those of the scale.
"""

from collections.abc import Mapping

from jalpose.settings.scales import Changes

_HEAD: dict[str, object] = {
    # What the network says of the neighbours, K probabilities as they are, and a
    # perplexity of 20 that by a mix of bases (2 to the entropy in nats) is this one.
    "acquisition.eglpp.labels": "predicted",
    "acquisition.eglpp.renormalise": False,
    "acquisition.eglpp.perplexity": 75.33,
    "acquisition.eglpp.neighbours": 30,
    # Gradients of convolutions and linear layers alone, without batch norms.
    "acquisition.engine": "conv_linear",
    "acquisition.multipeak_entropy.normalise": "raw",
    "acquisition.multipeak_entropy.peaks": 5,
    "acquisition.multipeak_entropy.min_distance": 5,
    "acquisition.multipeak_entropy.border": 5,
    "acquisition.multipeak_entropy.threshold": 0.0,
    "acquisition.aleatoric.published": True,
    "augment.window": (1.5, 2.0),
    "augment.scale": (0.75, 1.25),
    "augment.rotate": 45.0,
    "augment.shift": 0.2,
    "augment.flip": 0.5,
    "augment.brightness": 0.0,
    "augment.contrast": 0.0,
    "augment.colour": 0.0,
    "evaluation.refine": "mass",
    "evaluation.least_peak": 0.0,
    "training.plateau_patience": 5,
}
_EARLIER: dict[str, object] = {
    **_HEAD,
    "acquisition.multipeak_entropy.peaks": 20,
    "acquisition.multipeak_entropy.min_distance": 7,
    "acquisition.multipeak_entropy.border": 7,
    "acquisition.multipeak_entropy.threshold": 0.25,
    "augment.window": (1.5, 2.5),
    "augment.rotate": 60.0,
    "augment.shift": 0.15,
    "augment.flip": 0.0,
    "data.window": 2.0,
    "evaluation.least_peak": 0.25,
    "evaluation.occluded": False,
    "training.occluded": False,
    "training.plateau_patience": 8,
}
_MPII: dict[str, object] = {
    "data.crop": "joints",
    "data.window": 1.75,
    "data.mpii.all_joints": True,
    "data.mpii.head_shift": 0.2,
    "evaluation.reference": "head_full",
    "evaluation.joints": "all",
}
_EARLIER_MPII: dict[str, object] = {
    **_MPII,
    "data.window": 2.0,
    "data.mpii.all_joints": False,
}

# By name, then by data set; "": of all.
PAPERS: Mapping[str, Mapping[str, Changes]] = {
    "eglpp_published": {"": _HEAD, "mpii": _MPII},
    "eglpp_published_2021": {"": _EARLIER, "mpii": _EARLIER_MPII},
}

# What of those codes no key does.
NOT_DONE = (
    "weights and learning rate chosen by the test set",
    "crops of labelled, pool and test images cut differently from each other, and at "
    "the earlier commit height and width scaled apart",
    "absent joints learnt as empty heatmaps, those of LSPET at a placeholder",
    "heatmaps cut off beyond 11 x 11 pixels",
    "PCK at the thresholds of a grid that has neither 0.2 nor 0.5",
)
