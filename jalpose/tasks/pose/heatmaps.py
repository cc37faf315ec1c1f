"""Heatmaps: where joints lie on them, drawing them, reading joints and peaks off them.

Everything is written for one example; batch with `jax.vmap`. Channels come last,
as in the network. Absence of a joint is a mask, never a coordinate.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Num

from jalpose.runtime.shapes import AnyArray

REFERENCE_SIZE = 64  # `sigma` is given in pixels of a 64x64 map, as in the papers.
REFINEMENTS = ("parabola", "mass", "none")
POSTERIORS = ("window", "normalised", "softmax")
USUAL_SIGMA = 1.75  # of the papers
NOTHING = 1e-12  # A positive part that sums to less is none: its gradient overflows.


class HeatmapSpec(NamedTuple):
    """How label heatmaps are drawn: sizes in pixels, sigma at a 64x64 map."""

    crop_size: int
    heatmap_size: int
    sigma: float
    peak: float

    def render(
        self, joints: Float[AnyArray, "j 2"], present: Bool[AnyArray, " j"]
    ) -> Float[AnyArray, "h w j"]:
        """[J, 2] crop pixels, bool [J] -> float32 [h, w, J]."""
        return render_heatmaps(joints, present, **self._asdict())


def crop_to_heatmap(
    xy: Num[AnyArray, "*points 2"], crop_size: int, heatmap_size: int
) -> Float[AnyArray, "*points 2"]:
    """Convert crop pixels to heatmap pixels.

    A heatmap pixel v covers `stride` crop pixels and its centre is theirs:
    u = stride * v + (stride - 1) / 2, with pixel centres at whole numbers. That is
    where a network of same-padded, stride-2 layers looks. We differ: the published
    code puts the corner pixels' centres on each other, v = u (h - 1) / (S - 1).
    """
    stride = _stride(crop_size, heatmap_size)
    return (xy - (stride - 1) / 2) / stride


def heatmap_to_crop(
    xy: Num[AnyArray, "*points 2"], crop_size: int, heatmap_size: int
) -> Float[AnyArray, "*points 2"]:
    """Convert heatmap pixels to crop pixels: the inverse of `crop_to_heatmap`."""
    stride = _stride(crop_size, heatmap_size)
    return xy * stride + (stride - 1) / 2


def render_heatmaps(
    joints: Float[AnyArray, "j 2"],
    present: Bool[AnyArray, " j"],
    *,
    crop_size: int,
    heatmap_size: int,
    sigma: float,
    peak: float,
) -> Float[AnyArray, "h w j"]:
    """Draw one Gaussian a joint, centred between pixels where the joint is.

    We differ from the published code, which cuts the Gaussian off outside an 11x11
    window round the rounded centre: the cut values are at most 0.72 % of the peak
    (5.5 pixels away, sigma 1.75; 1.7 % were the centre rounded down), and without
    the cut a map is an outer product of two vectors and smooth in the joint.

    Args:
      joints: [J, 2] (x, y) in crop pixels; anything, NaN too, where not present.
      present: bool [J]; the map of a joint that is not present is zero.
      crop_size: side of the square crop, a multiple of `heatmap_size`.
      heatmap_size: side h of the maps.
      sigma: standard deviation in pixels of a 64x64 map; scaled by h / 64.
      peak: value at the centre (reached on a pixel only if the centre is one).

    Returns:
      float32 [h, h, J].
    """
    # The mask comes before the arithmetic, so that no NaN reaches a gradient.
    joints = jnp.where(present[:, None], joints, 0).astype(jnp.float32)
    centres = crop_to_heatmap(joints, crop_size, heatmap_size)
    pixels = jnp.arange(heatmap_size, dtype=jnp.float32)
    steps = (pixels[:, None, None] - centres[None]) / _scaled(sigma, heatmap_size)
    bells = jnp.exp(-0.5 * jnp.square(steps))  # [h, J, 2]
    across = jnp.where(present[None], peak * bells[..., 0], 0)  # [w, J]
    return bells[:, None, :, 1] * across[None]


def decode_heatmaps(
    heatmaps: Float[AnyArray, "h w j"],
    *,
    crop_size: int,
    sigma: float,
    refine: str = "parabola",
) -> tuple[Float[AnyArray, "j 2"], Float[AnyArray, " j"]]:
    """Read each joint off its map: the highest pixel (the first of equals), refined.

    `parabola` fits a quadratic to the log of the values at the peak and its four
    neighbours, which is exact for a Gaussian whatever its width and height; along an
    axis where the peak is at the border, or the three values are not positive and
    concave, there is no offset. `mass` is the published code's way: the centre of
    mass of the positive part in a window of radius ceil(sigma), clipped to the map.
    The window is too small and centred on the pixel, so it pulls the joint towards
    the pixel's centre: for sigma 1.75 by up to 0.25 heatmap pixels (a whole crop
    pixel at stride 4), even on a perfect map. Hence `parabola` is the default.

    Args:
      heatmaps: [h, h, J].
      crop_size: side of the square crop, a multiple of h.
      sigma: as given to `render_heatmaps`; only `mass` uses it.
      refine: `parabola`, `mass` or `none`.

    Returns:
      joints: float32 [J, 2], (x, y) in crop pixels.
      values: float32 [J], the map's value at its highest pixel; 0 for an empty map
        and NaN for a map with a NaN, whose joints mean nothing.
    """
    if refine not in REFINEMENTS:
        raise ValueError(f"Unknown {refine=}. Known: {', '.join(REFINEMENTS)}.")
    size, width, _ = heatmaps.shape
    if size != width:
        raise ValueError(f"heatmaps must be square, got {size} x {width} pixels.")
    radius = math.ceil(_scaled(sigma, size)) if refine == "mass" else 1
    offset_fn = {"mass": _mass_offset, "parabola": _vertex_offset}.get(refine)

    def decode_one(heatmap):  # [h, h]
        index = jnp.argmax(heatmap)
        row, column = index // size, index % size
        xy = jnp.stack([column, row]).astype(jnp.float32)
        if offset_fn is not None:
            side = 2 * radius + 1
            padded = jnp.pad(heatmap, radius)
            xy += offset_fn(jax.lax.dynamic_slice(padded, (row, column), (side, side)))
        return xy, heatmap[row, column]

    maps = heatmaps.astype(jnp.float32)
    xy, values = jax.vmap(decode_one, in_axes=-1)(maps)
    return heatmap_to_crop(xy, crop_size, size), values


def local_peaks(
    maps: Num[AnyArray, "h w j"],
    *,
    num_peaks: int,
    min_distance: int,
    threshold: float | None = None,
    exclude_border: int = 0,
) -> tuple[Float[AnyArray, "j p"], Int[AnyArray, "j p 2"], Bool[AnyArray, "j p"]]:
    """Find the strongest local maxima of each map, strongest first.

    A peak is a pixel that no other exceeds within `min_distance` along both axes, and
    that is above the map's minimum: a constant map has none. Equal pixels that close
    are one peak, the first in reading order; a plateau wider than that has several,
    more than `min_distance` apart.

    As scikit-image's `peak_local_max` (0.26), with three differences. Equal maxima at
    exactly `min_distance` are one peak here, two there. Nothing at the map's minimum
    is a peak here, however low `threshold` is; there, pixels of a flat background are.
    There, the border of `min_distance` pixels is excluded by default, and with it
    every joint near the edge of the crop.

    Args:
      maps: [h, w, J].
      num_peaks: P, at most this many a joint.
      min_distance: heatmap pixels, at least 1.
      threshold: a peak is above it; None: above the map's minimum alone.
      exclude_border: pixels at each side that are no peaks, though they still hide
        lower ones beside them.

    Returns:
      values: float32 [J, P]; 0 where there is no such peak, NaN throughout for a map
        that has a NaN or an infinity, which has no peaks.
      positions: int32 [J, P, 2], (x, y) in heatmap pixels; 0 where there is none.
      found: bool [J, P].
    """
    if num_peaks < 1 or min_distance < 1 or exclude_border < 0:
        raise ValueError(
            f"{num_peaks=} and {min_distance=} must be at least 1, {exclude_border=} "
            "at least 0."
        )
    maps = maps.astype(jnp.float32)
    height, width, _ = maps.shape
    side, highest = 2 * min_distance + 1, maps
    for window in ((side, 1, 1), (1, side, 1)):
        highest = jax.lax.reduce_window(
            highest, -jnp.inf, jax.lax.max, window, (1, 1, 1), "SAME"
        )
    floor = maps.min(axis=(0, 1), keepdims=True)
    if threshold is not None:
        floor = jnp.maximum(floor, threshold)
    rows, columns = jnp.arange(height), jnp.arange(width)

    def inside(pixels, size):
        return (pixels >= exclude_border) & (pixels < size - exclude_border)

    allowed = inside(rows, height)[:, None] & inside(columns, width)[None]
    is_peak = (maps == highest) & (maps > floor) & allowed[..., None]

    def take(left, _):
        flat = left.reshape(-1, left.shape[-1])
        index = jnp.argmax(flat, axis=0)  # [J], the first of equals
        y, x = index // width, index % width
        near_y = jnp.abs(rows[:, None] - y[None]) <= min_distance  # [h, J]
        near_x = jnp.abs(columns[:, None] - x[None]) <= min_distance
        left = jnp.where(near_y[:, None] & near_x[None], -jnp.inf, left)
        return left, (flat.max(axis=0), jnp.stack([x, y], axis=-1))

    left = jnp.where(is_peak, maps, -jnp.inf)
    _, (values, positions) = jax.lax.scan(take, left, length=num_peaks)
    values, positions = values.T, positions.swapaxes(0, 1).astype(jnp.int32)
    finite = jnp.isfinite(maps).all(axis=(0, 1))[:, None]
    found = (values > -jnp.inf) & finite
    values = jnp.where(finite, jnp.where(found, values, 0), jnp.nan)
    return values, jnp.where(found[..., None], positions, 0), found


def recorded_positions(
    positions: Int[AnyArray, "j p 2"], found: Bool[AnyArray, "j p"]
) -> Int[AnyArray, "j p 2"]:
    """Peaks as methods hand them to the records, to be drawn on the heatmaps.

    Args:
      positions: int32 [J, P, 2], as `local_peaks` gives them.
      found: bool [J, P].

    Returns:
      int16 [J, P, 2], (x, y) in heatmap pixels, -1 where there is no peak.
    """
    return jnp.where(found[..., None], positions, -1).astype(jnp.int16)


def posterior(
    maps: Float[AnyArray, "h w j"],
    kind: str = "normalised",
    temperature: float = 1.0,
    sigma: float = USUAL_SIGMA,
) -> Float[AnyArray, "h w j"]:
    """Turn each map into a distribution over its pixels, differentiably.

    `normalised` is the positive part divided by its sum, uniform (with no gradient)
    where there is no positive part; for a map as it was drawn it is the Gaussian
    itself. Of a network's map it is mostly background: what is left of it everywhere,
    0.05 beside a peak of 30, is a quarter of the whole over 64x64 pixels. Hence
    `window`, the same within ceil(6 sigma) pixels about the highest one, the window
    that the published code draws a joint in, and 0 beyond. `softmax` is that of the
    map divided by `temperature`; it depends on the height of the peaks,
    `heatmap.peak`: at 30 it is nearly all on the highest pixel.

    Args:
      maps: [h, w, J].
      kind: `window`, `normalised` or `softmax`.
      temperature: above 0, in units of the map; for `softmax` alone.
      sigma: as given to `render_heatmaps`; for `window` alone.

    Returns:
      float32 [h, w, J], sums to one over the pixels; NaN for a map with a NaN.
    """
    if kind not in POSTERIORS:
        raise ValueError(f"Unknown {kind=}. Known: {', '.join(POSTERIORS)}.")
    maps = maps.astype(jnp.float32)
    if kind == "softmax":
        if not temperature > 0:
            raise ValueError(f"{temperature=} must be above 0.")
        return jax.nn.softmax(maps / temperature, axis=(0, 1))
    positive = jax.nn.relu(maps)
    if kind == "window":
        positive = jnp.where(_near_the_highest(maps, sigma), positive, 0)
    total = positive.sum(axis=(0, 1), keepdims=True)
    empty = total <= NOTHING  # False for NaN, which goes on
    uniform = 1 / (maps.shape[0] * maps.shape[1])
    return jnp.where(empty, uniform, positive / jnp.where(empty, 1, total))


def soft_argmax(
    maps: Float[AnyArray, "h w j"],
    kind: str = "normalised",
    temperature: float = 1.0,
    sigma: float = USUAL_SIGMA,
) -> Float[AnyArray, "j 2"]:
    """Expected pixel under each map's `posterior`: smooth, unlike the highest pixel.

    Args:
      maps: [h, w, J].
      kind: see `posterior`.
      temperature: see `posterior`.
      sigma: see `posterior`.

    Returns:
      float32 [J, 2], (x, y) in heatmap pixels.
    """
    weights = posterior(maps, kind, temperature, sigma)
    height, width, _ = maps.shape
    rows = jnp.arange(height, dtype=jnp.float32)
    columns = jnp.arange(width, dtype=jnp.float32)
    x = (weights.sum(axis=0) * columns[:, None]).sum(axis=0)
    y = (weights.sum(axis=1) * rows[:, None]).sum(axis=0)
    return jnp.stack([x, y], axis=-1)


def _near_the_highest(maps, sigma):
    """Pixels of the window round each map's highest one: bool [h, w, J]."""
    height, width, _ = maps.shape
    radius = math.ceil(6 * _scaled(sigma, height)) // 2
    # The first NaN, where there is one: it is in the window.
    highest = jnp.argmax(maps.reshape(height * width, -1), axis=0)
    y, x = highest[None] // width, highest[None] % width
    rows = jnp.abs(jnp.arange(height)[:, None] - y) <= radius  # [h, J]
    columns = jnp.abs(jnp.arange(width)[:, None] - x) <= radius
    return rows[:, None] & columns[None]


def _mass_offset(window: jax.Array) -> jax.Array:
    """(x, y) of the centre of mass of the positive part, from the window's centre."""
    radius = window.shape[0] // 2
    steps = jnp.arange(-radius, radius + 1, dtype=jnp.float32)
    weights = jnp.maximum(window, 0)
    sums = jnp.stack([weights.sum(axis=0), weights.sum(axis=1)])  # [2, side]
    total = sums[0].sum()
    return (sums * steps[None]).sum(axis=1) / jnp.where(total > 0, total, 1)


def _vertex_offset(window: jax.Array) -> jax.Array:
    """(x, y) of the vertices of the parabolas through the logs of a 3x3 window."""
    values = jnp.stack([window[1], window[:, 1]])  # [2, 3]
    positive = (values > 0).all(axis=1)
    logs = jnp.log(jnp.where(positive[:, None], values, 1))
    curvature = logs[:, 0] - 2 * logs[:, 1] + logs[:, 2]
    concave = positive & (curvature < 0)
    offset = 0.5 * (logs[:, 0] - logs[:, 2]) / jnp.where(concave, curvature, -1)
    return jnp.where(concave, jnp.clip(offset, -0.5, 0.5), 0)


def _scaled(sigma: float, heatmap_size: int) -> float:
    """Standard deviation in pixels of this map."""
    return sigma * heatmap_size / REFERENCE_SIZE


def _stride(crop_size: int, heatmap_size: int) -> int:
    """Crop pixels a heatmap pixel."""
    stride, rest = divmod(crop_size, heatmap_size)
    if rest or not stride:
        raise ValueError(
            f"{crop_size=} must be a multiple of {heatmap_size=}: "
            f"take {max(stride, 1) * heatmap_size} pixels, or another map size."
        )
    return stride
