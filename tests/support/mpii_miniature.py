"""MPII in miniature, in the nesting of the authors' file and as HRNet ships it."""

import json

import numpy as np
import scipy.io
from PIL import Image

from jalpose.tasks.pose import mpii

MAT = "mpii_human_pose_v1_u12_1.mat"
NOTHING = np.zeros((0, 0))  # MATLAB's []


def struct(*elements):
    """A MATLAB struct array of dicts, all with the fields of the first."""
    array = np.empty((1, len(elements)), [(name, object) for name in elements[0]])
    for position, element in enumerate(elements):
        for name, value in element.items():
            array[0, position][name] = value
    return array


def point(joint, x=None, y=None, **visible):
    x, y = 100.0 + joint if x is None else x, 200.0 + joint if y is None else y
    return {"x": x, "y": y, "id": joint, **visible}


def points(joints=range(16), **visible):
    return struct({"point": struct(*[point(joint, **visible) for joint in joints])})


def person(**changes):
    """A person of 16 visible joints: joint j is at (100 + j, 200 + j) as shipped."""
    fields = {
        "x1": 10,
        "y1": 20,
        "x2": 40,
        "y2": 60,  # a diagonal of 50
        "annopoints": points(is_visible=1),
        "scale": 2.0,
        "objpos": struct({"x": 301, "y": 201}),
    }
    return {**fields, **changes}


def image(name, *people, video=NOTHING):
    rects = struct(*people) if people else NOTHING
    return {"image": struct({"name": name}), "annorect": rects, "vididx": video}


def save_release(folder, images, img_train=None, single=None, **changes):
    """Write the .mat of `images`; people are separate unless `single` says who is."""
    cells = np.empty((len(images), 1), object)
    for row in range(len(images)):
        count = images[row]["annorect"].size
        cells[row, 0] = np.arange(1, count + 1) if single is None else single[row]
    train = np.ones(len(images)) if img_train is None else np.array(img_train)
    release = {
        "annolist": struct(*images),
        "img_train": train,
        "version": "12",
        "single_person": cells,
        **changes,
    }
    (folder / "mpii").mkdir(exist_ok=True, parents=True)
    scipy.io.savemat(folder / "mpii" / MAT, {"RELEASE": release})


def entry(name="a.jpg", **changes):
    """HRNet's entry of a person whose joint j is at (100 + j, 200 + j) as shipped."""
    fields = {
        "image": name,
        "joints": [[100.0 + joint, 200.0 + joint] for joint in range(16)],
        "joints_vis": [1] * 16,
        "center": [301.0, 201.0],
        "scale": 2.0,
    }
    return {**fields, **changes}


def save_json(folder, entries, name="annot/trainval.json"):
    path = folder / "mpii" / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(json.dumps(entries))


def read(folder, **options):
    return mpii.read_annotations(str(folder), **options)


NUM_IMAGES = 30


def write_benchmark(folder, validation=range(20, 30)):
    """Images of different sizes, two people in every third, and the .mat and list."""
    rng = np.random.default_rng(0)
    (folder / "mpii" / "images").mkdir(parents=True)
    images = []
    for n in range(NUM_IMAGES):
        size = (64 + n, 50 + 2 * n, 3)
        picture = Image.fromarray(rng.integers(0, 256, size, np.uint8))
        picture.save(folder / "mpii" / "images" / f"{n:03d}.jpg")
        people = []
        for _ in range(1 + (n % 3 == 0)):
            at = rng.uniform(10, 50, (16, 2))
            places = struct(*[point(j, *at[j], is_visible=1) for j in range(16)])
            people.append(
                person(
                    annopoints=struct({"point": places}),
                    scale=0.2,
                    objpos=struct({"x": 30, "y": 30}),
                )
            )
        images.append(image(f"{n:03d}.jpg", *people))
    save_release(folder, images)
    names = [f"{n:03d}.jpg" for n in validation]
    (folder / "mpii" / mpii.VALIDATION_LIST).write_text("\r\n".join([*names, names[0]]))
