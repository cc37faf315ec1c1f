"""Expected gradient length for regression, in closed form.

Shukla, WACV 2022 (EGL++'s paper), Eq. 2, 5 to 8, 10 and 11. Of one number f_z(x) the
loss l = (y - f_z)^2 / 2 has the gradient (f_z - y) grad f_z, and of labels that K
models q_k predict only two moments count: their means mu_k and variances s_k^2. What
the models are (of a line Eq. 7, a network with a variance Eq. 8, a Gaussian process
Eq. 9) makes no difference here. With l = (y - f)^2 every score is four times as large;
no order changes. The paper's sigma is a deviation in Eq. 6 and 7, a variance in Eq. 9.

    EGL = |grad f_z|^2 [Var(y) + (mean_k mu_k - f_z)^2]

exactly: predictive variance (Eq. 11) times the squared gradient norm only where f_z is
the mean of the K models. All arrays are float64; M queries, K models.
"""

import numpy as np
from jaxtyping import Float

from jalpose.runtime.shapes import AnyArray


def expected_squared(
    squared_norms: Float[AnyArray, " m"],
    predictions: Float[AnyArray, " m"],
    means: Float[AnyArray, "m k"],
    variances: Float[AnyArray, "m k"],
) -> Float[np.ndarray, " m"]:
    """Expected squared gradient norm of a label: Eq. 5, in closed form Eq. 7 and 10.

    Args:
      squared_norms: |grad f_z|^2 by the parameters; |x|^2 of a linear model (Eq. 7).
      predictions: f_z.
      means: mu_k.
      variances: s_k^2; 0: labels as the models predict them.
    """
    apart = np.square(_double(means) - _double(predictions)[:, None])
    return _double(squared_norms) * (_double(variances) + apart).mean(axis=1)


def expected_change(
    squared_norms: Float[AnyArray, " m"],
    predictions: Float[AnyArray, " m"],
    means: Float[AnyArray, "m k"],
) -> Float[np.ndarray, " m"]:
    """Mean gradient norm of the labels that the models predict: Eq. 2.

    Expected model change (Cai, Zhang and Zhou, ICDM 2013): no variances, and no square.
    Its square is at most `expected_squared` without variances, and equal to it where
    the models are all as far from f_z; the two may order examples differently.

    Args:
      squared_norms: |grad f_z|^2 by the parameters.
      predictions: f_z.
      means: mu_k.
    """
    apart = np.abs(_double(means) - _double(predictions)[:, None])
    return np.sqrt(_double(squared_norms)) * apart.mean(axis=1)


def predictive_variance(
    means: Float[AnyArray, "m k"], variances: Float[AnyArray, "m k"]
) -> Float[np.ndarray, " m"]:
    """Variance of the label under all K models: Eq. 11 (Kendall and Gal, NIPS 2017).

    Args:
      means: mu_k.
      variances: s_k^2.
    """
    # As a variance, not as the equation's difference: nothing cancels.
    return _double(variances).mean(axis=1) + _double(means).var(axis=1)


def squared_bias(
    predictions: Float[AnyArray, " m"], means: Float[AnyArray, "m k"]
) -> Float[np.ndarray, " m"]:
    """(mean_k mu_k - f_z)^2: what EGL has and predictive variance has not."""
    return np.square(_double(means).mean(axis=1) - _double(predictions))


def _double(values) -> np.ndarray:
    return np.asarray(values, np.float64)
