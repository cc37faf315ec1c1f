"""Sets of classes as shipped, in miniature, and where the real ones are, for tests."""

import os
import pathlib
import pickle

import numpy as np
import scipy.io
from PIL import Image

from jalpose.tasks.classification.cifar import LAYOUTS


def real_data_dir(name: str) -> str | None:
    """Folder that holds the real set `name`, or None: a reason to skip a test."""
    default = pathlib.Path(__file__).parents[3] / "shared" / "data"
    root = os.environ.get("JALPOSE_DATA") or str(default)
    return root if os.path.isdir(os.path.join(root, name)) else None


def drawn(count: int, seed: int, classes: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Labels [N], all classes in turn, and images uint8 [N, 32, 32, 3].

    An image has the colour of its class in half of it, and noise: it can be learnt.
    """
    draws = np.random.default_rng([seed, 17])
    colours = np.random.default_rng(17).integers(0, 256, (classes, 3), np.uint8)
    labels = np.arange(count) % classes
    images = draws.integers(0, 256, (count, 32, 32, 3), np.uint8)
    images[:, 8:24, 8:24] = colours[labels][:, None, None]
    return labels, images


def planes(images: np.ndarray) -> np.ndarray:
    """Images as CIFAR has them: uint8 [N, 3072]."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)


def write_cifar(
    data_dir: str | os.PathLike,
    name: str = "cifar10",
    version: str = "binary",
    counts: tuple[int, ...] = (60, 30),
    test: int = 20,
) -> pathlib.Path:
    """Writes CIFAR-10 or CIFAR-100 as shipped.

    Args:
      data_dir: gets the folder `name`.
      name: of the set.
      version: binary | python.
      counts: records of each training file.
      test: records of the test file.

    Returns:
      The folder of the files.
    """
    layout = LAYOUTS[name]
    folder = pathlib.Path(data_dir) / name / getattr(layout, version)
    folder.mkdir(parents=True, exist_ok=True)
    many = layout.counts["fine"]
    files = [*zip(layout.train, counts, strict=False), (layout.test, test)]
    for number, (stem, count) in enumerate(files):
        labels, images = drawn(count, number, many)
        columns = [
            labels // (many // layout.counts.get(c, many)) for c in layout.labels
        ]
        write = _binary if version == "binary" else _python
        write(folder, layout, stem, columns, planes(images))
    names = {c: [f"{c} {n}" for n in range(layout.counts[c])] for c in layout.labels}
    if version == "binary":
        for column, (file, _) in layout.names.items():
            (folder / file).write_text("\n".join(names[column]) + "\n\n")
    else:
        found = {layout.names[c][1].encode(): values for c, values in names.items()}
        (folder / layout.meta).write_bytes(pickle.dumps(found, protocol=2))
    return folder


def _binary(folder, layout, stem, columns, pixels):
    del layout
    parts = [np.array(column, np.uint8)[:, None] for column in columns]
    np.concatenate([*parts, pixels], axis=1).tofile(folder / f"{stem}.bin")


def _python(folder, layout, stem, columns, pixels):
    batch = {b"data": pixels, b"batch_label": b"a batch", b"filenames": [b"x"]}
    for key, column in zip(layout.labels.values(), columns, strict=True):
        batch[key.encode()] = column.tolist()
    (folder / stem).write_bytes(pickle.dumps(batch, protocol=2))


def data_section(folder, name: str, **changes):
    """The section `data` of a config for a set in `folder`, prepared beside it."""
    from jalpose.settings.keys import common
    from jalpose.tasks.classification import data_keys

    data = common().data
    data_keys.add(data)
    data.name, data.dir = name, str(folder)
    data.cache_dir, data.size = str(pathlib.Path(folder) / "cache"), 32
    data.initial = 40
    data.update(changes)
    return data


def write_svhn(data_dir, train: int = 90, test: int = 20) -> pathlib.Path:
    """Writes SVHN's cropped digits as shipped; returns the folder of the files."""
    folder = pathlib.Path(data_dir) / "svhn"
    folder.mkdir(parents=True, exist_ok=True)
    for number, (part, count) in enumerate((("train", train), ("test", test))):
        digits, images = drawn(count, number)
        save_svhn(folder / f"{part}_32x32.mat", digits, images)
    return folder


def save_svhn(path, digits, images, **variables) -> None:
    """One file of SVHN: digits [N], images uint8 [N, 32, 32, 3]."""
    y = np.where(np.asarray(digits) == 0, 10, digits).astype(np.uint8)[:, None]
    found = {"X": images.transpose(1, 2, 3, 0), "y": y, **variables}
    found = {name: value for name, value in found.items() if value is not None}
    scipy.io.savemat(path, found, do_compression=True)


def write_image(path, seed: int, size: tuple[int, int] = (40, 30)) -> np.ndarray:
    """A noisy image of a size (width, height) in a format by its name's ending."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng([seed, 3])
    pixels = draws.integers(0, 256, (size[1], size[0], 3), np.uint8)
    ending = path.suffix.lower().removeprefix(".")
    kind = {"jpg": "JPEG", "jpe": "JPEG", "tif": "TIFF", "pgm": "PPM"}.get(ending)
    Image.fromarray(pixels).save(path, kind or ending.upper() or "PNG")
    return pixels


def write_classes(folder, counts: dict[str, int], ending: str = ".jpg") -> pathlib.Path:
    """Writes a folder a class, images of different sizes."""
    number = 0
    for name, count in counts.items():
        (pathlib.Path(folder) / name).mkdir(parents=True, exist_ok=True)
        for row in range(count):
            number += 1
            path = pathlib.Path(folder) / name / f"image_{row + 1:04d}{ending}"
            size = (40 + number % 7, 30 + number % 11)
            write_image(path, number, size)
    return pathlib.Path(folder)
