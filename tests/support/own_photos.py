"""Own images in miniature: noise of 60 x 40 pixels, with mice or in a bare folder."""

import numpy as np
from PIL import Image

from tests.support import coco_miniature as mini

SIZE = (60, 40)


def write_images(folder, names, seed=0):
    """Images of noise, no two alike."""
    draws = np.random.default_rng(seed)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = draws.integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8)
        Image.fromarray(pixels).save(path)


def mouse(number, image, **changes):
    """A mouse whose joints are all there, moved by its number."""
    keypoints = [10, 20, 2, 12, 18, 1, 14, 22, 2, 30, 22, 2]
    moved = [v + number % 7 if i % 3 < 2 else v for i, v in enumerate(keypoints)]
    about = {"image_id": image, "keypoints": moved, "area": 100}
    return mini.annotation(number, **{**about, **changes})


def write_labelled(root, count=10, *, per_image=1, file="labels.json", folder="images"):
    """`count` images of day 1 and day 2 in `folder`, and a COCO file beside it."""
    names = [f"{folder}/day {1 + n % 2}/ä{n:02d}.png" for n in range(count)]
    write_images(root, names)
    images = [
        mini.image(n + 1, file_name=name.removeprefix("images/"))
        for n, name in enumerate(names)
    ]
    mice = [
        mouse(n * per_image + k + 1, n + 1)
        for n in range(count)
        for k in range(per_image)
    ]
    mini.write(root / file, images=images, annotations=mice)
    return names


def data_of(root, name="photos", **changes):
    """The data section of a config of own images."""
    from jalpose.loop.configs import benchmark

    config = benchmark(name, name=name)("scale=tiny")
    with config.unlocked():
        config.data.update({"dir": str(root), "cache_dir": str(root / "cache")})
        config.data.packed = False
        photos = {k: v for k, v in changes.items() if k in config.data.photos}
        config.data.photos.update(photos)
        config.data.update({k: v for k, v in changes.items() if k not in photos})
    return config.data
