"""From example ids to batches of crops, through Grain."""

from collections.abc import Iterator

import grain
import numpy as np

from jalpose.data.crops import crop_image, to_crop
from jalpose.data.dataset import PoseDataset


class CropSource:
    """Random access to the crops of chosen examples, as Grain reads them.

    (Grain 0.2.18 slices by ranges only, so chosen ids are a source of their own.)
    """

    def __init__(self, dataset: PoseDataset, ids: np.ndarray, size: int):
        self._dataset, self._ids, self._size = dataset, np.asarray(ids), size

    def __len__(self) -> int:
        return len(self._ids)

    def __repr__(self) -> str:
        # Grain describes its sources in logs and checkpoints: keep it short.
        return f"CropSource({len(self)} examples, {self._size} px)"

    def __getitem__(self, position) -> dict[str, np.ndarray]:
        """Crop: image uint8 [S, S, 3], joints float32 [J, 2] (0 where absent),
        status int8 [J], id int64.
        """
        example = int(self._ids[position])
        window = self._dataset.windows[example]
        image = crop_image(self._dataset.image(example), window, self._size)
        joints = to_crop(self._dataset.joints[example], window, self._size)
        return {
            "image": image,
            "joints": np.nan_to_num(joints, nan=0.0).astype(np.float32),
            "status": self._dataset.status[example],
            "id": np.int64(example),
        }


def training_batches(
    source: CropSource, *, batch: int, seed: int, position: int, threads: int
) -> Iterator[dict[str, np.ndarray]]:
    """Endless batches in an order shuffled anew each epoch by `seed`.

    Args:
      source: of the examples trained on; any number of them, one suffices.
      batch: examples a batch; a batch may reach over the end of an epoch.
      seed: of the order.
      position: batches already taken: where a resumed run goes on.
      threads: reading ahead.
    """
    batches = grain.MapDataset.source(source).seed(seed).shuffle().repeat().batch(batch)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    iterator = iter(batches.to_iter_dataset(options))
    iterator.set_state({"next_index": position})
    return iterator


def blocks_in_order(
    source: CropSource, *, block: int, threads: int
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """All examples once, in order: (number that count, block of fixed size).

    The last block is filled up with copies of its last example.
    """
    dataset = grain.MapDataset.source(source)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * block)
    for rows in dataset.to_iter_dataset(options).batch(block):
        count = len(rows["id"])
        if count < block:
            rows = {
                name: np.concatenate([v, np.repeat(v[-1:], block - count, axis=0)])
                for name, v in rows.items()
            }
        yield count, rows
