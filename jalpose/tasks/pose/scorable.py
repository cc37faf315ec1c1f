"""Can the scores that a config asks for be taken of a data set, and it be learnt?"""

from ml_collections import ConfigDict

from jalpose.data.dataset import Dataset
from jalpose.settings.checks import ConfigError
from jalpose.tasks.labels import Truth
from jalpose.tasks.pose import counting, pck, scores
from jalpose.tasks.pose.skeletons import Skeleton


def sigmas(
    config: ConfigDict, dataset: Dataset, skeleton: Skeleton
) -> tuple[float, ...] | None:
    """Constants of OKS, None where nobody states them and they are not asked for.

    Raises:
      ConfigError: they are asked for, and not stated, or of no use with this data set.
    """
    evaluation = config.evaluation
    try:
        found = scores.sigmas_of(skeleton, tuple(evaluation.sigmas))
    except ValueError as error:
        raise ConfigError(f"evaluation.sigmas: {error}") from error
    if evaluation.score != "oks":
        return None if found is None else tuple(found.tolist())
    if "image" not in dataset.truth:
        raise ConfigError(
            "evaluation.score=oks needs areas of people, and which are in one image; "
            f"data.name={config.data.name} has none: set evaluation.score=pck"
        )
    if found is None:
        raise ConfigError(
            "evaluation.score=oks: COCO states no constants for the joints "
            f"{', '.join(skeleton.joints)}; set evaluation.sigmas, one a joint or one "
            "for all, e.g. (0.1,)"
        )
    return tuple(found.tolist())


def check_scored(config: ConfigDict, truth: Truth, skeleton: Skeleton) -> None:
    """Raise ConfigError where no joint of the test images can be scored."""
    evaluation, status = config.evaluation, truth["status"]
    lengths = pck.reference_lengths(
        truth["joints"],
        status,
        skeleton,
        evaluation.reference,
        truth.get("head_size"),
        truth.get("box"),
    )
    measured = lengths > 0
    if not measured.any() and evaluation.reference == "box":
        raise ConfigError(
            f"evaluation.reference=box: none of the {len(status)} test people has a "
            "box, or two joints"
        )
    if not measured.any():  # of head boxes it has been said
        raise ConfigError(
            f"evaluation.reference={evaluation.reference} needs a shoulder and the hip "
            f"on the other side, which none of the {len(status)} test people has; "
            "annotate them, set evaluation.reference=box, or head where there are head "
            "boxes"
        )
    scored = counting.annotated(status, evaluation.occluded)[measured]
    if not scored.any():
        raise ConfigError(
            f"evaluation.occluded={evaluation.occluded} leaves no joint to score: all "
            f"of the {len(scored)} test people are occluded (are the flags inverted?); "
            "set evaluation.occluded=True"
        )
    if evaluation.joints == "official":
        scored[:, list(skeleton.left_out)] = False
        if not scored.any():
            raise ConfigError(
                "evaluation.joints=official leaves no joint to score of the "
                f"{len(scored)} test people; set evaluation.joints=all"
            )


def check_trained(config: ConfigDict, dataset: Dataset) -> None:
    """Raise ConfigError where nobody who is trained on has a joint to learn."""
    for held_out, who in ((False, "trained on"), (True, "held out")):
        ids = dataset.initial[dataset.held_out(dataset.initial) == held_out]
        status = dataset.truth["status"][ids]
        known = counting.annotated(status, config.training.occluded)
        if len(ids) and not known.any():
            raise ConfigError(
                f"training.occluded={config.training.occluded}: none of the "
                f"{len(ids)} people labelled at the start who are {who} has a joint "
                "to learn; set training.occluded=True, or a larger data.initial"
            )
