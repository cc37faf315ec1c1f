"""COCO's keypoint format in miniature: four joints of a mouse, two of whom mirror."""

import json

JOINTS = ("snout", "left_ear", "right_ear", "tail")


def image(number=1, **changes):
    fields = {"id": number, "file_name": f"{number:03d}.jpg", "width": 60, "height": 40}
    return {**fields, **changes}


def category(**changes):
    fields = {"id": 7, "name": "mouse", "supercategory": "animal"}
    links = [[1, 2], [1, 3], [1, 4]]
    return {**fields, "keypoints": list(JOINTS), "skeleton": links, **changes}


def annotation(number=1, **changes):
    """A mouse whose snout is visible, left ear hidden, right ear absent."""
    return {
        "id": number,
        "image_id": number,
        "category_id": 7,
        "keypoints": [10, 20, 2, 12, 18, 1, 5, 5, 0, 30, 22, 2],
        "num_keypoints": 3,
        "bbox": [8, 15, 24, 10],
        "iscrowd": 0,
        **changes,
    }


def write(path, *, images=None, categories=None, annotations=None, **others):
    """Write a file of one mouse, or of these lists."""
    content = {
        "images": [image()] if images is None else images,
        "categories": [category()] if categories is None else categories,
        "annotations": [annotation()] if annotations is None else annotations,
        **others,
    }
    path.write_text(json.dumps(content))
    return path
