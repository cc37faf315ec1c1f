"""Rare light and cameras: what a drawn figure looks like by another one than most.

People's footage is mostly of one camera by day; a few sequences are of the night, of
another lens, of fog. A network that never saw them fails there, and few labels mend it.
"""

import numpy as np

KINDS = ("infrared", "lamp", "fog", "dusk", "negative")
_GREY = np.array([0.299, 0.587, 0.114], np.float32)


def relight(image: np.ndarray, kind: int, rng: np.random.Generator) -> np.ndarray:
    """The image by one of `KINDS` (its number): uint8 [H, W, 3], RGB.

    Args:
      image: uint8 [H, W, 3], RGB, by day.
      kind: infrared (one bright channel, what is dark shines), lamp (dark and red), fog
        (a fifth of the contrast, bright), dusk (a fifth of it, dark, noisy), negative.
      rng: of the noise.
    """
    name, day = KINDS[kind], image.astype(np.float32)
    grey = day @ _GREY
    noise = rng.standard_normal(day.shape, np.float32)
    if name == "infrared":
        found = np.repeat(0.8 * (255 - grey)[..., None], 3, axis=2) + 6 * noise
    elif name == "lamp":
        found = grey[..., None] * np.array([0.7, 0.15, 0.05], np.float32) + 4 * noise
    elif name == "fog":
        found = 190 + 0.2 * (day - 128) + 2 * noise
    elif name == "dusk":
        found = 0.2 * day + 10 * noise
    else:
        found = 255 - day
    return np.clip(np.rint(found), 0, 255).astype(np.uint8)
