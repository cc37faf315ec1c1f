"""Pictures of a run: predictions on test images and on the images chosen."""

import numpy as np

from jalpose.data.dataset import PoseDataset
from jalpose.tasks.pose import drawings


def test_sheet(dataset: PoseDataset, arrays: dict, count: int, reach) -> np.ndarray:
    """Evenly spaced test images with predicted and true joints: uint8 [H, W, 3].

    Args:
      dataset: the benchmark.
      arrays: of a finished model, with test_ids and test_joints (image pixels).
      count: images.
      reach: [test images], image pixels within which a joint counts as found, NaN where
        an image has nothing to measure in.
    """
    ids, predicted = arrays["test_ids"], arrays["test_joints"]
    rows = np.unique(np.linspace(0, len(ids) - 1, min(count, len(ids))).astype(int))
    distance = np.linalg.norm(predicted[rows] - dataset.joints[ids[rows]], axis=-1)
    captions = [
        f"{dataset.keys[ids[row]]}  {np.mean(d[~np.isnan(d)] < reach[row]):.0%} found"
        if reach[row] > 0
        else f"{dataset.keys[ids[row]]}  not measured"
        for row, d in zip(rows, distance, strict=True)
    ]
    return _sheet(dataset, ids[rows], predicted[rows], captions)


def chosen_sheet(dataset: PoseDataset, arrays: dict, count: int) -> np.ndarray | None:
    """The first chosen images with the joints the model predicted before training.

    Args:
      dataset: the benchmark.
      arrays: of a finished acquisition: ids, selected, joints and scores.
      count: images.

    Returns:
      uint8 [H, W, 3], or None where nothing was chosen.
    """
    chosen = arrays["selected"][:count]
    if len(chosen) == 0:
        return None
    rows = np.searchsorted(arrays["ids"], chosen)
    captions = [
        f"{rank}. {dataset.keys[example]}"
        + ("" if np.isnan(score) else f"  {score:.3g}")
        for rank, (example, score) in enumerate(
            zip(chosen, arrays["scores"][rows], strict=True), start=1
        )
    ]
    return _sheet(dataset, chosen, arrays["joints"][rows], captions)


def _sheet(dataset, ids, predicted, captions):
    tiles = []
    for example, joints, caption in zip(ids, predicted, captions, strict=True):
        image, offset = _near(dataset.image(example), dataset.windows[example])
        tiles.append(
            drawings.draw_prediction(
                image,
                joints - offset,
                dataset.joints[example] - offset,
                dataset.status[example],
                dataset.skeleton,
                caption,
            )
        )
    sheet = drawings.contact_sheet(tiles, columns=min(len(tiles), 5))
    legend = drawings.legend(sheet.shape[1])
    width = max(sheet.shape[1], legend.shape[1])
    parts = [
        np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), constant_values=255)
        for p in (sheet, legend)
    ]
    return np.concatenate(parts)


def _near(image, window):
    """The image, or of a large one with a small person the part round it; its corner.

    Returns:
      uint8 [H, W, 3], and (x, y) of its upper left pixel in the whole image.
    """
    x, y, side = window
    if side >= 0.6 * max(image.shape[:2]):
        return image, np.zeros(2)
    left, top = max(0, int(x - side / 2)), max(0, int(y - side / 2))
    right, bottom = int(x + side / 2) + 1, int(y + side / 2) + 1
    return image[top:bottom, left:right], np.array([left, top])
