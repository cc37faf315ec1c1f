import re

import numpy as np
import pytest

from jalpose.tasks import sheets
from jalpose.tasks.pose import drawings
from jalpose.tasks.pose.skeletons import ABSENT, LSP, OCCLUDED, VISIBLE

GREY = np.full((96, 128, 3), 100, np.uint8)
# A stick figure: head above, hips below, left of the person on the right.
POSE = np.array(
    [
        *((64, 8), (64, 20)),
        *((76, 22), (86, 34), (92, 46), (52, 22), (42, 34), (36, 46)),
        *((72, 50), (74, 68), (76, 88), (56, 50), (54, 68), (52, 88)),
    ],
    np.float32,
)
ALL_VISIBLE = np.full(LSP.num_joints, VISIBLE, np.int8)


def changed(before, after):
    return (before.astype(int) != after.astype(int)).any(axis=-1)


def near(point, radius=5):
    y, x = np.mgrid[: GREY.shape[0], : GREY.shape[1]]
    return np.hypot(x - point[0], y - point[1]) <= radius


def with_status(**joints):
    status = ALL_VISIBLE.copy()
    for name, value in joints.items():
        status[LSP.joints.index(name.replace("_", " "))] = value
    return status


# Drawings


def test_every_joint_is_drawn_in_the_colour_of_its_side():
    drawn = drawings.draw_pose(GREY, POSE, ALL_VISIBLE, LSP)
    assert drawn.dtype == np.uint8 and drawn.shape == GREY.shape
    left, right, middle = drawings.PREDICTED.colours
    for name, (x, y) in zip(LSP.joints, POSE.astype(int), strict=True):
        side = {"left": left, "right": right}.get(name.split()[0], middle)
        np.testing.assert_allclose(drawn[y, x], side, atol=40, err_msg=name)
    assert (GREY == 100).all()  # a copy was drawn on


@pytest.mark.parametrize("style", ["PREDICTED", "TRUE"])
def test_nothing_is_drawn_away_from_the_pose(style):
    drawn = drawings.draw_pose(GREY, POSE, None, LSP, style=getattr(drawings, style))
    assert not changed(GREY, drawn)[:, :28].any()
    assert not changed(GREY, drawn)[:, 100:].any()


@pytest.mark.parametrize("how", ["absent", "nan", "infinite"])
def test_a_joint_that_is_not_there_is_not_drawn(how):
    joints, status = POSE.copy(), ALL_VISIBLE.copy()
    wrist = LSP.joints.index("left wrist")
    if how == "absent":
        status = with_status(left_wrist=ABSENT)
    else:
        joints[wrist] = np.nan if how == "nan" else np.inf
    drawn = changed(GREY, drawings.draw_pose(GREY, joints, status, LSP))
    assert not drawn[near(POSE[wrist])].any()
    assert drawn[near(POSE[wrist - 1], 2)].all()  # the elbow still is


def test_no_joint_at_all_leaves_the_image():
    nothing = np.full_like(POSE, np.nan)
    np.testing.assert_array_equal(drawings.draw_pose(GREY, nothing, None, LSP), GREY)


@pytest.mark.parametrize("style", ["PREDICTED", "TRUE"])
def test_an_occluded_joint_is_hollow(style):
    image = np.kron(GREY, np.ones((4, 4, 1), np.uint8))
    look = {"style": getattr(drawings, style)}
    x, y = (int(v) for v in POSE[LSP.joints.index("left wrist")] * 4)
    hidden = with_status(left_wrist=OCCLUDED)
    ring = drawings.draw_pose(image, POSE * 4, hidden, LSP, **look)
    disc = drawings.draw_pose(image, POSE * 4, ALL_VISIBLE, LSP, **look)
    assert (ring[y, x] == 100).all() and (disc[y, x] != 100).any()
    assert changed(image, ring)[y, x : x + 14].any()


def test_joints_far_outside_do_no_harm():
    joints = POSE.copy()
    joints[0] = 1e30, -1e30
    drawn = drawings.draw_pose(GREY, joints, None, LSP)
    assert changed(GREY, drawn).any()


@pytest.mark.parametrize("shape", [(40, 80), (80, 40), (64, 64), (700, 500)])
@pytest.mark.parametrize("caption", ["", "one line", "two\nlines " + "w" * 200])
def test_predictions_are_as_large_as_asked(shape, caption):
    image = np.full((*shape, 3), 100, np.uint8)
    picture = drawings.draw_prediction(image, POSE, POSE, ALL_VISIBLE, LSP, caption)
    strips = [
        drawings.draw_prediction(image, None, None, None, LSP, text).shape[0] - 256
        for text in ("", "one", "two\nlines")
    ]
    assert 0 == strips[0] < strips[1] < strips[2]
    height = 256 + strips[0 if not caption else 1 + caption.count("\n")]
    assert picture.shape == (height, 256, 3)
    assert picture.dtype == np.uint8


def test_poses_move_with_the_enlarged_image():
    # One bright pixel at (x, y) = (30, 10) of 64 becomes a block of 4 by 4 of 256; a
    # joint there is drawn round the middle of that block, (121.5, 41.5).
    image = np.zeros((64, 64, 3), np.uint8)
    joints = np.full((LSP.num_joints, 2), np.nan)
    joints[0] = 30, 10
    drawn = drawings.draw_prediction(image, None, joints, ALL_VISIBLE, LSP)
    y, x = np.nonzero((drawn > 128).all(axis=-1))
    assert (x.mean(), y.mean()) == pytest.approx((121.5, 41.5), abs=0.3)


def test_prediction_and_truth_look_different():
    predicted = drawings.draw_prediction(GREY, POSE, None, None, LSP)
    true = drawings.draw_prediction(GREY, None, POSE, ALL_VISIBLE, LSP)
    plain = drawings.draw_prediction(GREY, None, None, None, LSP)
    assert changed(plain, predicted).sum() > 1.3 * changed(plain, true).sum()
    saturated = np.ptp(true.astype(int), axis=-1)
    assert saturated.max() == 0 < np.ptp(predicted.astype(int), axis=-1).max()


def test_captions_are_written():
    strips = [
        drawings.draw_prediction(GREY, None, None, None, LSP, text)[256:]
        for text in ("score 1", "score 2", "umlaut ä 漢")
    ]
    assert all(strip.min() < 128 < strip.max() for strip in strips)
    assert changed(strips[0], strips[1]).any()


def test_the_legend_wraps():
    wide, narrow = drawings.legend(900), drawings.legend(300)
    assert wide.shape[1] == 900 and narrow.shape[1] == 300
    assert narrow.shape[0] > wide.shape[0] and narrow.shape[0] % wide.shape[0] == 0
    colours = {tuple(pixel) for pixel in wide.reshape(-1, 3)}
    assert colours >= set(drawings.PREDICTED.colours)


def test_where_nobody_has_labelled_the_legend_has_no_labels():
    with_labels, without = (drawings.legend(300, labelled=x) for x in (True, False))
    colours = {tuple(pixel) for pixel in without.reshape(-1, 3)}
    assert colours >= set(drawings.PREDICTED.colours)
    assert without.shape[0] < with_labels.shape[0]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: drawings.draw_pose(GREY / 255, POSE, None, LSP), "uint8 [H, W, 3]"),
        (lambda: drawings.draw_pose(GREY[..., 0], POSE, None, LSP), "uint8 [H, W, 3]"),
        (lambda: drawings.draw_pose(GREY, POSE[1:], None, LSP), "expected 14 joints"),
        (lambda: sheets.contact_sheet([]), "need images"),
        (lambda: sheets.contact_sheet([GREY], columns=0), "need images"),
    ],
    ids=["float", "grey", "joints", "empty", "columns"],
)
def test_drawings_refuse(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


# Of no task


def test_contact_sheet():
    images = [np.full((10 + i, 20, 3), 10 * i, np.uint8) for i in range(5)]
    sheet = sheets.contact_sheet(images, columns=3, pad=4)
    assert sheet.shape == (4 + 2 * (14 + 4), 4 + 3 * (20 + 4), 3)
    assert (sheet[22 : 22 + 14, 28:48] == 40).all()  # the last: row 1, column 1
    assert (sheet[22:, 52:] == 255).all()
    assert sheets.contact_sheet(images[:1], columns=3, pad=0).shape == (10, 20, 3)


def test_a_heatmap_is_bright_where_it_is_high_and_its_peaks_have_rings():
    image = np.full((128, 128, 3), 100, np.uint8)
    values = np.zeros((16, 16), np.float16)
    values[4, 10] = 20.0  # covers rows 32 to 39 and columns 80 to 87
    bare = sheets.heatmap(image, values, np.zeros((0, 2)))
    assert bare.shape == image.shape and bare.dtype == np.uint8
    assert (bare[100:, :40] == 55).all()  # darkened where there is nothing
    brightest = np.unravel_index(bare.sum(axis=2).argmax(), (128, 128))
    assert np.abs(np.subtract(brightest, (35.5, 83.5))).max() <= 4
    ringed = sheets.heatmap(image, values, np.array([[10, 4], [2, 12]]))
    differs = (ringed != bare).any(axis=2)
    rows, columns = np.nonzero(differs)
    assert rows.min() < 36 < rows.max() and columns.min() < 20 < columns.max()
    # Inside a ring nothing is changed.
    np.testing.assert_array_equal(ringed[99:101, 19:21], bare[99:101, 19:21])
    assert differs[:60].sum() > differs[60:].sum() > 0  # the first is the thick one


@pytest.mark.parametrize("value", [0.0, -3.0, np.nan, np.inf])
def test_a_heatmap_without_a_peak_is_drawn(value):
    values = np.full((8, 8), value, np.float16)
    drawn = sheets.heatmap(GREY[:, :96], values, np.zeros((0, 2)))
    assert drawn.shape == (96, 96, 3)
