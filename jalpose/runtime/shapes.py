"""Letters of array shapes, and the arrays that annotations mean.

Shapes in signatures are jaxtyping's and are checked when the tests run. Letters mean
the same in every room (`jalpose/pergrad` has its own, for any network):

- b: examples of a batch or a block; m: examples scored; l: labelled ones; n: of a set.
- j: joints; s: stacks; h, w: rows and columns of a map; p: peaks of a joint.
- y, x: rows and columns of an image; c: features.
- k: candidate labels of an example, or predictions of one.
- sites, values: of a posterior, the things predicted and what each may be.
"""

import jax
import numpy as np

AnyArray = jax.Array | np.ndarray  # traced or in hand
