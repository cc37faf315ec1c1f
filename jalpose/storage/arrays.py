"""Arrays of `arrays/cycle_NN.npz`, each named once: shape, dtype and who adds it.

A name is a string and stands wherever a key of the arrays does. Letters of the shapes:

    M  examples scored, in the order of `ids`      b  examples selected
    L  examples labelled before                    n  examples drawn with their maps
    B  examples bought in the cycle before
    T  test examples                               C  length of an embedding
    K  labelled neighbours of an example           J  joints
    P  peaks of a map, at most                     Q  links between joints
    S  sites of a prediction: joints, pixels, ...  h, w  height and width of a map

What a method adds as its `explanation` is open: it may hold arrays that are not here.
Of a prediction's arrays those of poses are here; another task's are named by the task
(`Labels.recorded`), those of the test set by `of_test_set`.
"""

from collections.abc import Mapping

import numpy as np


class ArrayName(str):
    """The name of an array, with what is known of it.

    Attributes:
      shape: letters and numbers of its dimensions.
      dtype: of its values.
      producer: the event with which the recorder writes it (trained, selected,
        measured), or `explanation of` the methods that add it.
    """

    __slots__ = ("dtype", "producer", "shape")

    shape: tuple[str, ...]
    dtype: np.dtype
    producer: str

    def __new__(cls, name: str, shape: str, dtype: str, producer: str):
        """Take the shape as words: "M K"."""
        made = super().__new__(cls, name)
        made.shape = tuple(shape.split())
        made.dtype = np.dtype(dtype)
        made.producer = producer
        return made


DECLARED: dict[str, ArrayName] = {}


def _declare(name: str, shape: str, dtype: str, producer: str) -> ArrayName:
    declared = DECLARED[name] = ArrayName(name, shape, dtype, producer)
    return declared


# The test set, by the network that a cycle trained.
TEST_IDS = _declare("test_ids", "T", "int64", "trained")
TEST_LOSSES = _declare("test_losses", "T", "float32", "trained")
TEST_JOINTS = _declare("test_joints", "T J 2", "float32", "trained")  # image pixels
# The examples bought last, by the network trained on them: norms of the gradients of
# their labels, as `true_squared_norms` of the cycle before has them.
BOUGHT_IDS = _declare("bought_ids", "B", "int64", "trained")
BOUGHT_SQUARED_NORMS = _declare("bought_squared_norms", "B", "float32", "trained")

# A choice.
IDS = _declare("ids", "M", "int64", "selected")  # of what was scored, rising
SCORES = _declare("scores", "M", "float32", "selected")  # NaN without a score
SELECTED = _declare("selected", "b", "int64", "selected")  # ids, the first pick first
# Place of each one's group among the names in the cycle's record, `acquisition.groups`;
# -1 of one that is in none. Of sets with videos, sequences or groups alone.
GROUP_NUMBERS = _declare("group_numbers", "M", "int32", "selected")

EXPECTED_CLICKS = _declare(  # where the budget is in clicks
    "expected_clicks", "M", "int64", "selected"
)

# What is measured of a choice once it is made.
EMBEDDINGS = _declare("embeddings", "M C", "float32", "measured")
TRUE_LOSSES = _declare("true_losses", "M", "float32", "measured")
TRUE_SQUARED_NORMS = _declare("true_squared_norms", "M", "float32", "measured")
JOINTS = _declare("joints", "M J 2", "float32", "measured")  # predicted, image pixels
PEAKS = _declare("peaks", "M J", "float32", "measured")  # heights of the heatmaps
TEST_SCORES = _declare("test_scores", "T", "float32", "measured")  # by the method

# What is kept for pictures of a choice.
LABELLED_IDS = _declare("labelled_ids", "L", "int64", "measured")
LABELLED_EMBEDDINGS = _declare("labelled_embeddings", "L C", "float32", "measured")
HEATMAP_IDS = _declare("heatmap_ids", "n", "int64", "measured")  # rising
HEATMAPS = _declare("heatmaps", "n h w J", "float16", "measured")  # of the last stack

# Explanations: rows are those of `ids`.
_EGLPP = "explanation of eglpp"
NEIGHBOUR_IDS = _declare("neighbour_ids", "M K", "int64", _EGLPP)
NEIGHBOUR_PROBABILITIES = _declare("neighbour_probabilities", "M K", "float32", _EGLPP)
NEIGHBOUR_SQUARED_NORMS = _declare("neighbour_squared_norms", "M K", "float32", _EGLPP)
ACHIEVED_PERPLEXITY = _declare("achieved_perplexity", "M", "float64", _EGLPP)
# Of the expected squared norms, by the engine `sketch` alone.
STANDARD_ERROR = _declare("standard_error", "M", "float32", _EGLPP)
JOINT_ENTROPY = _declare(  # nats, of each site: a joint, ...
    "joint_entropy",
    "M S",
    "float32",
    "explanation of multipeak_entropy and softmax_entropy",
)
NUM_PEAKS = _declare("num_peaks", "M J", "int32", "explanation of multipeak_entropy")
PEAK_POSITIONS = _declare(  # (x, y), heatmap pixels, the highest first, -1: none
    "peak_positions", "M J P 2", "int16", "explanation of multipeak_entropy and egl"
)
PEAK_PROBABILITIES = _declare(
    "peak_probabilities", "M J P", "float32", "explanation of egl"
)
JOINT_VARIANCE = _declare(  # of each site: a joint, ...
    "joint_variance",
    "M S",
    "float32",
    "explanation of ensemble, mc_dropout and egl_ensemble",
)
SITE_UNCERTAINTY = _declare(  # 1 less confidence or margin, of each site
    "site_uncertainty",
    "M S",
    "float32",
    "explanation of least_confidence and least_margin",
)
SITE_DISAGREEMENT = _declare(  # of posteriors, of each site
    "site_disagreement", "M S", "float32", "explanation of ensemble and mc_dropout"
)
LOG_VARIANCES = _declare("log_variances", "M J", "float32", "explanation of aleatoric")
LINK_LENGTHS = _declare("link_lengths", "M Q", "float32", "explanation of vl4pose")
LINK_LOG_VARIANCES = _declare(
    "link_log_variances", "M Q", "float32", "explanation of vl4pose"
)
NEAREST_DISTANCE = _declare(  # to what was labelled before
    "nearest_distance",
    "M",
    "float32",
    "explanation of coreset, lcmd, kmeanspp, badge and core_gcn",
)
PICK_DISTANCE = _declare(  # to all labelled, when picked; NaN: not picked
    "pick_distance",
    "M",
    "float32",
    "explanation of coreset, lcmd, kmeanspp, badge and core_gcn",
)
LABELLED_PROBABILITY = _declare(  # of being labelled, by what was trained to tell
    "labelled_probability", "M", "float32", "explanation of vaal, sraal and core_gcn"
)
CLUSTER = _declare(  # number of the nearest labelled or picked; of typiclust its own
    "cluster", "M", "int64", "explanation of lcmd, kmeanspp, badge, typiclust"
)
VARIANCE = _declare("variance", "M", "float32", "explanation of maxdet")
PICK_VARIANCE = _declare("pick_variance", "M", "float32", "explanation of maxdet")
# Of a number's labels: variance over all models, squared distance of their mean from
# the network's number, and the squared norm of that number's gradient.
LABEL_VARIANCE = _declare(
    "label_variance",
    "M",
    "float32",
    "explanation of egl_regression and predictive_variance",
)
SQUARED_BIAS = _declare("squared_bias", "M", "float32", "explanation of egl_regression")
SQUARED_NORM = _declare("squared_norm", "M", "float32", "explanation of egl_regression")
REDUCTION = _declare("reduction", "M", "float32", "explanation of bait")
PICK_REDUCTION = _declare("pick_reduction", "M", "float32", "explanation of bait")
TYPICALITY = _declare("typicality", "M", "float32", "explanation of typiclust")
COVERED = _declare("covered", "M", "float32", "explanation of maxherding")
PICK_GAIN = _declare("pick_gain", "M", "float32", "explanation of maxherding")


def of_test_set(name: str) -> str:
    """Name of a prediction's array where it is that of the test set."""
    return f"test_{name}"


def mismatches(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Sentences: which arrays of a cycle are not of the shape or dtype declared.

    Equal letters are equal lengths. Arrays that are not declared are let pass.
    """
    lengths: dict[str, int] = {}
    found = []
    for name, array in arrays.items():
        declared = DECLARED.get(name)
        if declared is None:
            continue
        wanted = " ".join(declared.shape)
        if array.dtype != declared.dtype:
            found.append(f"{name} is {array.dtype}, not {declared.dtype}")
        if array.ndim != len(declared.shape):
            found.append(f"{name} is {list(array.shape)}, not [{wanted}]")
            continue
        for letter, length in zip(declared.shape, array.shape, strict=True):
            known = lengths.setdefault(letter, length)
            if length != (int(letter) if letter.isdigit() else known):
                found.append(
                    f"{name} is {list(array.shape)}, not [{wanted}] with {letter} = "
                    f"{letter if letter.isdigit() else known}"
                )
    return found
