"""Pictures of a run: predictions on test images and on the images chosen."""

import numpy as np

from jalpose.data.dataset import Dataset
from jalpose.tasks.labels import Labels
from jalpose.tasks.sheets import contact_sheet


def test_sheet(
    dataset: Dataset, labels: Labels, arrays: dict, count: int
) -> np.ndarray:
    """Evenly spaced test images with prediction and truth: uint8 [H, W, 3].

    Args:
      dataset: the benchmark.
      labels: of the task.
      arrays: of a finished model, with test_ids and its predictions.
      count: images.
    """
    ids = arrays["test_ids"]
    rows = np.unique(np.linspace(0, len(ids) - 1, min(count, len(ids))).astype(int))
    predicted = {name: arrays[f"test_{name}"][rows] for name in labels.recorded}
    verdicts = labels.verdicts(predicted, dataset.truth_of(ids[rows]))
    captions = [
        f"{dataset.keys[example]}  {verdict}"
        for example, verdict in zip(ids[rows], verdicts, strict=True)
    ]
    return _sheet(dataset, labels, ids[rows], predicted, captions)


def chosen_sheet(
    dataset: Dataset, labels: Labels, arrays: dict, count: int, *, truth: bool = True
) -> np.ndarray | None:
    """The first chosen images with what the model predicted before training.

    Args:
      dataset: the benchmark.
      labels: of the task.
      arrays: of a finished acquisition: ids, selected, scores and predictions.
      count: images.
      truth: the data set knows the labels of what was chosen, and they are drawn.

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
    predicted = {name: arrays[name][rows] for name in labels.recorded}
    return _sheet(dataset, labels, chosen, predicted, captions, truth)


def _sheet(dataset: Dataset, labels: Labels, ids, predicted, captions, known=True):
    tiles = []
    for row, (example, caption) in enumerate(zip(ids, captions, strict=True)):
        window = None if dataset.windows is None else dataset.windows[example]
        truth = None
        if known:
            truth = {
                name: np.asarray(values[example])
                for name, values in dataset.truth.items()
            }
        said = {name: values[row] for name, values in predicted.items()}
        image = dataset.image(example)
        tiles.append(labels.draw(image, window, truth, said, caption))
    sheet = contact_sheet(tiles, columns=min(len(tiles), 5))
    legend = labels.legend(sheet.shape[1])
    width = max(sheet.shape[1], legend.shape[1])
    parts = [
        np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), constant_values=255)
        for p in (sheet, legend)
    ]
    return np.concatenate(parts)
