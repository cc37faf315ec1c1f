"""Sketches of whole gradients against the gradients, on images of a folder.

    python scripts/check_sketches.py --images=DATA/lsp/images

A stacked hourglass of random weights, each image with one random cotangent of its
output. For each size: the root mean square, over all pairs of images and several keys,
of the error of an inner product by the lengths of its gradients, and the same times the
root of the size, which should not change; the mean error by its standard error; and how
the squared distances of pairs by sketch and by gradient correlate.
"""

import argparse
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from jalpose.models.hourglass import StackedHourglass
from jalpose.pergrad import api


def main() -> None:
    """Print a row for each size."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", required=True, type=Path)
    parser.add_argument("--count", default=50, type=int, help="images")
    parser.add_argument("--channels", default=32, type=int, help="of the hourglass")
    parser.add_argument("--side", default=64, type=int, help="of an image, pixels")
    parser.add_argument("--sizes", default=[64, 256, 1024], type=int, nargs="+")
    parser.add_argument("--keys", default=8, type=int)
    given = parser.parse_args()
    images = read(given.images, given.count, given.side)
    model = StackedHourglass(14, stacks=1, channels=given.channels, depth=2)
    variables = jax.jit(model.init)(jax.random.key(0), images[:1])

    def apply_fn(variables, images):
        return model.apply(variables, images).prediction

    shape = jax.eval_shape(apply_fn, variables, images).shape
    draws = np.random.default_rng(1)
    cotangents = draws.normal(size=(shape[0], 1, *shape[1:])).astype(np.float32)
    gram = np.asarray(exact(apply_fn, variables, images, cotangents), float)
    lengths = np.sqrt(np.diag(gram))
    cosines = gram / np.outer(lengths, lengths)
    pairs = np.triu_indices(len(images), 1)
    print(f"{len(images)} images, cosines from {cosines[pairs].min():.2f} to 1")
    print("size  error  times its root  mean by its error  correlation of distances")
    for size in given.sizes:
        errors, related = [], []
        sketches = sketcher(apply_fn, size)
        for number in range(given.keys):
            key = jax.random.key(number)
            rows = sketches(key, variables, images, cotangents)
            rows = np.asarray(rows, float)[:, 0]
            found = rows @ rows.T
            errors.append((found / np.outer(lengths, lengths) - cosines)[pairs])
            related.append(
                np.corrcoef(distances(found)[pairs], distances(gram)[pairs])[0, 1]
            )
        means = np.mean(errors, axis=1)  # one a key: pairs share it
        rms = np.sqrt(np.mean(np.square(errors)))
        off = means.mean() / (means.std(ddof=1) / np.sqrt(len(means)))
        print(
            f"{size:4}  {rms:.4f}  {rms * size**0.5:.2f}  {off:+.1f}  "
            f"{np.mean(related):.3f}"
        )


def read(folder: Path, count: int, side: int) -> np.ndarray:
    """The first images of a folder, [count, side, side, 3] from 0 to 1."""
    paths = sorted(p for p in folder.iterdir() if p.suffix in (".jpg", ".png"))
    rows = []
    for path in paths[:count]:
        with Image.open(path) as image:
            rows.append(np.asarray(image.convert("RGB").resize((side, side))))
    return np.stack(rows).astype(np.float32) / 255


def exact(apply_fn, variables, images, cotangents):
    """Inner products of all gradients."""

    def loss(output, cotangent):
        return (output * cotangent).sum()

    @jax.jit
    def run(*arrays):
        return api.inner_products(apply_fn, loss, *arrays, block=len(images))

    return run(variables, images, cotangents)[:, 0, :, 0]


def sketcher(apply_fn, size):
    """A function of a key and arrays that gives the sketches of all gradients."""
    engine = api.Engine("ghost", microbatch=1)

    @jax.jit
    def run(key, *arrays):
        return api.cotangent_sketches(engine, apply_fn, *arrays, size=size, key=key)

    return run


def distances(gram: np.ndarray) -> np.ndarray:
    """Squared distances of all pairs from their inner products."""
    lengths = np.diag(gram)
    return lengths[:, None] + lengths[None] - 2 * gram


if __name__ == "__main__":
    main()
