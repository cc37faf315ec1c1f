"""The NumPy half: what a config asks of the data, and drawing whatever is there."""

import dataclasses

import numpy as np
import pytest

from jalpose.settings.checks import ConfigError
from jalpose.tasks.pose import labels as half
from jalpose.tasks.pose.labels import make_labels, near
from jalpose.tasks.pose.skeletons import ABSENT, LSP, OCCLUDED
from tests.support import small

SHOULDERS_AND_HIPS = [LSP.joints.index(j) for j in ("left shoulder", "right hip")] + [
    LSP.joints.index(j) for j in ("right shoulder", "left hip")
]


def relabelled(data, ids, joints=slice(None), status=OCCLUDED):
    """The dataset with another status of some joints of some examples."""
    truth = {name: values.copy() for name, values in data.truth.items()}
    truth["status"][np.ix_(ids, np.arange(14)[joints])] = status
    truth["joints"][truth["status"] == ABSENT] = np.nan
    return dataclasses.replace(data, truth=truth)


class TestWhatAConfigAsks:
    """Refused before anything is trained."""

    def test_what_is_there_is_enough(self, figures):
        make_labels(small.configure(), figures)

    def test_test_people_without_a_torso(self, figures):
        data = relabelled(figures, figures.test, SHOULDERS_AND_HIPS, ABSENT)
        message = (
            r"evaluation\.reference=torso needs a shoulder and the hip on the other "
            r"side, which none of the 24 test people has"
        )
        with pytest.raises(ConfigError, match=message):
            make_labels(small.configure(), data)

    def test_test_people_without_a_visible_joint(self, figures):
        data = relabelled(figures, figures.test)
        make_labels(small.configure(), data)
        with pytest.raises(ConfigError, match=r"evaluation\.occluded=False leaves"):
            make_labels(small.configure({"evaluation.occluded": False}), data)

    def test_nobody_labelled_has_a_visible_joint(self, figures):
        data = relabelled(figures, figures.initial)
        make_labels(small.configure(), data)
        message = "training.occluded=False: none of the .* who are trained on"
        with pytest.raises(ConfigError, match=message):
            make_labels(small.configure({"training.occluded": False}), data)

    def test_nobody_held_out_has_a_visible_joint(self, figures):
        held_out = figures.initial[figures.held_out(figures.initial)]
        data = relabelled(figures, held_out)
        with pytest.raises(ConfigError, match="who are held out"):
            make_labels(small.configure({"training.occluded": False}), data)


@pytest.mark.parametrize("window", [(5000, 5000, 40), (-400, 20, 30), (-15.2, 20, 30)])
def test_a_person_outside_leaves_the_image_whole(figures, window):
    image = np.zeros((120, 160, 3), np.uint8)
    part, corner = near(image, np.array(window, np.float32))
    assert part.shape == (120, 160, 3)
    assert corner.tolist() == [0, 0]


def test_a_person_outside_is_drawn(figures):
    labels = make_labels(small.configure(), figures)
    image = np.zeros((120, 160, 3), np.uint8)
    truth = {k: v[0] for k, v in figures.truth_of(figures.test[:1]).items()}
    truth["joints"] = truth["joints"] + 5000
    predicted = {"joints": truth["joints"]}
    drawn = labels.draw(image, np.array([5030.0, 5040, 100]), truth, predicted, "far")
    assert drawn.dtype == np.uint8 and drawn.size


def test_a_joint_whose_map_is_too_low_is_not_found(figures):
    # The earlier commit of the published code: below a quarter of a label's 30.
    config = small.configure({"evaluation.least_peak": 0.25})
    own, usual = make_labels(config, figures), make_labels(small.configure(), figures)
    truth = figures.truth_of(figures.test)
    count = len(figures.test)
    peaks = np.full((count, 14), 7.6)
    predicted = {"joints": truth["joints"].astype(float), "peaks": peaks}
    assert own.score(predicted, truth).value == 1
    peaks[:, 3] = 7.4
    found = own.score(predicted, truth)
    assert found.parts[LSP.joints[3]] == 0 and found.parts[LSP.joints[4]] == 1
    assert found.value == pytest.approx(13 / 14)
    assert usual.score(predicted, truth).value == 1
    # A guess has no heatmap.
    assert own.score({"joints": predicted["joints"]}, truth).value == 1


def test_the_main_score_and_those_beside_it():
    pose = np.stack([np.arange(14.0), np.arange(14.0) ** 1.5], axis=1)
    joints = np.stack([pose] * 3) + np.array([50.0, 40.0])
    truth = {
        "joints": joints.astype(np.float32),
        "status": np.ones((3, 14), np.int8),
        "box": np.full((3, 4), np.nan, np.float32),
        "area": np.full(3, 900, np.float32),
        "image": np.array([0, 0, 1], np.int32),
    }
    predicted = {"joints": joints + np.array([3.0, 4.0]), "peaks": np.ones((3, 14))}
    for main in half.KEYS_OF:
        own = half.PoseLabels(
            skeleton=LSP,
            size=64,
            main=main,
            reference="box",
            sigmas=(0.1,) * 14,
        )
        score = own.score(predicted, truth)
        metrics = own.metrics(score, score)
        assert {"pck", "pixel_error", "average_precision"} <= metrics.keys()
        assert metrics["pixel_error"] == pytest.approx(5.0, abs=1e-5)
        assert metrics["pixel_error_median"] == pytest.approx(5.0, abs=1e-5)
        assert own.keys is half.KEYS_OF[main]
        assert metrics[own.keys.key] == score.value
        assert f"{own.keys.key}_name" in metrics
        named = [k for k in half.EVERY_KEYS if f"{k.key}_name" in metrics]
        assert named == [own.keys]  # which the report tells the main one by
        assert str(metrics["num_images"]) in own.summary(metrics)
        assert ("5.0 (median 5.0) on" in own.summary(metrics)) == (main == "pixels")
        assert len(own.verdicts(predicted, truth)) == 3
