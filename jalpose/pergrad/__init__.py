"""Per-example gradient norms of any Linen model; knows nothing of poses.

Shapes are written as jaxtyping has them and checked when the tests run. Letters mean
the same in every module:

- b: examples of a batch.
- k: candidate labels of an example, one cotangent of the output each; for what is
  written for one example (all but `api` and `checks`), the cotangents at hand.
- m: backward passes of the engine `sketch`.
- g: groups of a layer; t: positions it is applied at; d, p: width of what it sees and
  of what it returns at a position, in a group.
- n: images an example holds; *size, *padded, *out: spatial axes of a convolution's
  input, of that input padded, and of its output; c, f: channels of input and output;
  *kernel: axes of its kernel, w: their product, the pixels of a window.

Floats are of any width, bfloat16 too, unless a docstring says otherwise.
"""

import jax
import numpy as np

AnyArray = jax.Array | np.ndarray  # traced or in hand
