"""Average precision by OKS against pycocotools, areas, pixels."""

import contextlib
import io

import numpy as np
import pytest

from jalpose.tasks.pose import pck, scores
from jalpose.tasks.pose.formats.poses import skeleton_named
from jalpose.tasks.pose.skeletons import ABSENT, OCCLUDED, VISIBLE

PERSON = (
    "nose",
    *(
        f"{side}_{part}"
        for part in ["eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"]
        for side in ("left", "right")
    ),
)
SKELETON = skeleton_named("person", PERSON)


def people(seed, images=12, most=4, noise=6.0):
    """Predictions near true poses, a few far off, some joints absent."""
    draws = np.random.default_rng(seed)
    image = np.repeat(np.arange(images), draws.integers(1, most + 1, images))
    count = len(image)
    joints = draws.uniform(20, 200, (count, 17, 2))
    status = draws.choice([VISIBLE, OCCLUDED, ABSENT], (count, 17), p=[0.6, 0.2, 0.2])
    status[:: max(count // 3, 1)] = ABSENT
    spread = draws.choice([0.5, 1, 3, 10], (count, 1, 1)) * noise
    predicted = joints + draws.normal(0, 1, joints.shape) * spread
    joints[status == ABSENT] = np.nan
    areas = draws.uniform(800, 20000, count)
    # Ties within an image too.
    return predicted, draws.integers(0, 30, count) / 7, joints, status, areas, image


def test_equal_to_pycocotools():
    coco = pytest.importorskip(
        "pycocotools.coco", reason="pycocotools is not installed"
    )
    from pycocotools.cocoeval import COCOeval

    sigmas = scores.sigmas_of(SKELETON)
    for seed in range(6):
        predicted, order, joints, status, areas, image = people(seed)
        counted = status != ABSENT
        found = scores.average_precision(
            predicted, order, joints, counted, sigmas, areas, image
        )
        kept = np.flatnonzero(counted.any(axis=1))  # nobody else is predicted
        truth = coco.COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": int(i) + 1} for i in np.unique(image)],
            "categories": [{"id": 1, "name": "person", "keypoints": list(PERSON)}],
            "annotations": [
                {
                    "id": int(row) + 1,
                    "image_id": int(image[row]) + 1,
                    "category_id": 1,
                    "keypoints": np.concatenate(
                        [np.nan_to_num(joints[row]), 2.0 * counted[row][:, None]],
                        axis=1,
                    )
                    .ravel()
                    .tolist(),
                    "num_keypoints": int(counted[row].sum()),
                    "area": float(areas[row]),
                    "bbox": [0, 0, 10, 10],
                    "iscrowd": 0,
                }
                for row in kept
            ],
        }
        with contextlib.redirect_stdout(io.StringIO()):
            truth.createIndex()
            results = truth.loadRes(
                [
                    {
                        "image_id": int(image[row]) + 1,
                        "category_id": 1,
                        "keypoints": np.concatenate(
                            [predicted[row], np.ones((17, 1))], axis=1
                        )
                        .ravel()
                        .tolist(),
                        "score": float(order[row]),
                    }
                    for row in kept
                ]
            )
            judge = COCOeval(truth, results, "keypoints")
            judge.evaluate()
            judge.accumulate()
            judge.summarize()
        theirs = judge.stats[[0, 1, 2, 5]]
        np.testing.assert_allclose(found, theirs, atol=1e-12)
        assert 0 < found.mean < 1


def test_perfect_and_hopeless():
    _, order, joints, status, areas, image = people(0)
    counted, sigmas = status != ABSENT, scores.sigmas_of(SKELETON)
    common = joints, counted, sigmas, areas, image
    exact = scores.average_precision(np.nan_to_num(joints), order, *common)
    np.testing.assert_allclose(exact, 1.0, atol=1e-9)
    far = scores.average_precision(np.nan_to_num(joints) + 1e4, order, *common)
    assert far == (0, 0, 0, 0)
    lost = scores.average_precision(np.full(joints.shape, np.nan), order, *common)
    assert lost == (0, 0, 0, 0)
    with pytest.raises(ValueError, match="Nobody has a joint"):
        scores.average_precision(
            joints, order, joints, np.zeros_like(counted), sigmas, areas, image
        )


def test_similarity_by_hand():
    sigmas = np.array([0.1, 0.05])
    joints = np.array([[0.0, 0.0], [10.0, 0.0]])
    predicted = np.array([[3.0, 4.0], [10.0, 0.0]])
    found = scores.similarity(
        predicted, joints, np.array([True, True]), sigmas, np.float64(2500.0)
    )
    # Five pixels of a person of 50: d^2 / (2 s^2 (2 sigma)^2) = 25 / (5000 * 0.04).
    assert found == pytest.approx((np.exp(-0.125) + 1) / 2, abs=1e-9)


def test_constants_by_name_and_as_stated():
    assert scores.sigmas_of(SKELETON)[[0, 1, 16]].tolist() == [0.026, 0.025, 0.089]
    mouse = skeleton_named("mouse", ("snout", "tail"))
    assert scores.sigmas_of(mouse) is None
    assert scores.sigmas_of(mouse, (0.1,)).tolist() == [0.1, 0.1]
    assert scores.sigmas_of(mouse, (0.1, 0.2)).tolist() == [0.1, 0.2]
    with pytest.raises(ValueError, match="3 constants for 2 joints"):
        scores.sigmas_of(mouse, (0.1, 0.2, 0.3))


def test_boxes_where_there_are_any_else_of_the_joints():
    nan = np.nan
    joints = np.array([[[0, 0], [6, 8]], [[0, 0], [6, 8]], [[nan, nan]] * 2], float)
    boxes = np.array([[0, 0, 30, 40], [nan] * 4, [nan] * 4], np.float32)
    np.testing.assert_array_equal(
        scores.box_sides(joints, boxes), [[30, 40], [6, 8], [nan, nan]]
    )
    areas = scores.areas_of(joints, boxes, np.array([7, nan, nan]))
    np.testing.assert_array_equal(areas, [7, 48, nan])
    mouse = skeleton_named("mouse", ("snout", "tail"))
    status = np.array([[VISIBLE] * 2, [VISIBLE] * 2, [ABSENT] * 2])
    found = pck.pck(
        np.nan_to_num(joints) + np.array([4, 0]),
        joints,
        status,
        mouse,
        threshold=0.1,
        reference="box",
        boxes=boxes,
    )
    # Four pixels are within a tenth of 50, and not of 10.
    assert found.mean == 0.5 and found.num_left_out == 1


def test_pixels_are_the_mean_and_the_median_distance_over_all_joints():
    joints = np.array([[[0, 0], [0, 0]], [[0, 0], [np.nan, np.nan]]], float)
    predicted = np.array([[[3, 4], [0, 1]], [[0, 3], [9, 9]]], float)
    counted = np.array([[True, True], [True, False]])
    found = scores.pixel_errors(predicted, joints, counted)
    assert found.mean == pytest.approx((5 + 1 + 3) / 3) and found.median == 3
    np.testing.assert_allclose(found.per_joint, [4, 1])
    with pytest.raises(ValueError, match="No joint to measure"):
        scores.pixel_errors(predicted, joints, np.zeros_like(counted))
