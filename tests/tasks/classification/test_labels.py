"""The NumPy half of classes: scores, the commonest class, words, tiles."""

import dataclasses

import numpy as np
import pytest

from jalpose.loop import configs
from jalpose.settings.checks import ConfigError
from jalpose.tasks.classification import drawings, shapes
from jalpose.tasks.classification.labels import KEYS, ClassLabels, make_labels
from jalpose.tasks.classification.sources import load_dataset

CLASSES = ("bird", "cat", "dog")
LABELS = ClassLabels(classes=CLASSES)


def predicted(classes):
    shares = np.full((len(classes), 3), 0.1, np.float32)
    shares[np.arange(len(classes)), classes] = 0.8
    return {"class": np.array(classes, np.int32), "probabilities": shares}


def truth(*classes):
    return {"class": np.array(classes, np.int32)}


def test_scores_leave_out_what_nobody_knows():
    score = LABELS.score(predicted([0, 1, 2, 0, 1]), truth(0, 2, 2, -1, 0))
    assert score.value == 0.5 and score.name == "accuracy"
    assert score.parts["bird"] == 0.5 and score.parts["dog"] == 0.5
    assert np.isnan(score.parts["cat"])
    assert (score.num_scored, score.num_left_out) == (4, 1)
    expected = -(2 * np.log(0.8) + 2 * np.log(0.1)) / 4
    assert score.more["negative_log_likelihood"] == pytest.approx(expected, rel=1e-6)
    assert score.more["expected_calibration_error"] == pytest.approx(0.3)
    with pytest.raises(ValueError, match="class is known"):
        LABELS.score(predicted([0]), truth(-1))


def test_the_guess_is_the_commonest_class_of_what_is_labelled():
    guess = LABELS.guess(truth(1, 2, 2, -1), None, None)
    assert guess["class"].tolist() == [2]
    np.testing.assert_allclose(guess["probabilities"], [[0, 1 / 3, 2 / 3]])
    score = LABELS.score(guess, truth(2, 2, 1, 0))
    assert score.value == 0.5 and score.num_scored == 4


def test_what_stands_in_records():
    score = LABELS.score(predicted([0, 1]), truth(0, 2))
    metrics = LABELS.metrics(score, score)
    assert KEYS.value_of(metrics) == 50 and KEYS.baseline_of(metrics) == 50
    assert KEYS.parts_of(metrics)["bird"] == 100 and KEYS.name_of(metrics) == "accuracy"
    assert metrics["calibration_bins"] == 15
    line = LABELS.summary(metrics)
    assert line.startswith("accuracy 50.0% on 2 test images (commonest class 50.0%)")
    assert "NLL 1.263, ECE 30.0%" in line


def test_words_for_examples():
    found = LABELS.verdicts(predicted([0, 1, 1]), truth(0, 2, -1))
    assert found == ["right", "wrong", "not known"]


def test_a_class_is_that_of_every_crop_and_has_no_place():
    known = truth(0, -1)
    assert LABELS.in_crop(known, None, 8)["class"] is known["class"]
    assert LABELS.known(known).tolist() == [True, False]
    said = predicted([1])
    assert LABELS.place(said, None, 8) is said


# Drawing.


def colours(tile):
    return {tuple(pixel) for pixel in tile.reshape(-1, 3).tolist()}


def test_bars_are_the_likeliest_classes_and_the_true_one():
    shares = np.array([0.05, 0.5, 0.3, 0.1, 0.05])
    names = tuple("abcde")
    found = drawings.bars(names, 4, shares)
    assert [(b.name, b.share, b.colour) for b in found] == [
        ("b", 0.5, drawings.WRONG),
        ("c", 0.3, drawings.OTHER),
        ("e", 0.05, drawings.TRUE),
    ]
    found = drawings.bars(names, 1, shares)
    assert [b.colour for b in found] == [drawings.TRUE, drawings.OTHER, drawings.OTHER]
    assert [b.name for b in drawings.bars(names, None, shares)] == ["b", "c", "d"]
    assert drawings.bars(names, None, shares)[0].colour == drawings.OTHER
    (alone,) = drawings.bars(names, 2, None)
    assert alone == ("c", None, drawings.TRUE)
    assert drawings.bars(names, -1, None) == []


def test_a_tile_shows_image_bars_and_caption():
    image = np.full((16, 16, 3), (200, 10, 10), np.uint8)
    said = {"probabilities": np.array([0.7, 0.2, 0.1], np.float32)}
    tile = LABELS.draw(image, None, {"class": np.int32(1)}, said, "a caption")
    assert tile.shape[1] == 256 and tile.shape[0] > 256
    assert {drawings.TRUE, drawings.WRONG, drawings.OTHER, (200, 10, 10)} <= colours(
        tile
    )
    bare = LABELS.draw(image, None, None, None, "")
    assert bare.shape == (256, 256, 3) and drawings.TRUE not in colours(bare)
    # The bar of 0.7 is as long.
    row = drawings.draw(image, drawings.bars(CLASSES, 1, said["probabilities"]), 200)
    top = 200 - 3 * 20 + 3
    assert (row[top] == drawings.WRONG).all(axis=-1).sum() == pytest.approx(140, abs=2)
    assert LABELS.legend(400).shape[1] == 400


def test_long_names_are_cut():
    names = ("a name that is much too long for any bar " * 3, "b")
    tile = drawings.draw(
        np.zeros((8, 8, 3), np.uint8), drawings.bars(names, 0, np.array([0.9, 0.1])), 96
    )
    assert tile.shape == (96, 96, 3)


# Of a config.


def config_of(**changes):
    return configs.assemble(
        "scale=tiny",
        name="shapes",
        task="classification",
        delta={
            "data.name": "shapes",
            **{key.replace("__", "."): value for key, value in changes.items()},
        },
    )


def test_made_of_a_config():
    config = config_of(evaluation__bins=7)
    labels = make_labels(config, load_dataset(config.data, 0))
    assert labels == ClassLabels(classes=shapes.CLASSES, bins=7)


@pytest.mark.parametrize("part", ["test", "initial"])
def test_a_set_of_which_nobody_knows_the_classes_is_refused(part):
    config = config_of()
    dataset = load_dataset(config.data, 0)
    known = dataset.truth["class"].copy()
    known[getattr(dataset, part)] = -1
    blind = dataclasses.replace(dataset, truth={"class": known})
    with pytest.raises(ConfigError, match=r"none of the .* has a known class"):
        make_labels(config, blind)
