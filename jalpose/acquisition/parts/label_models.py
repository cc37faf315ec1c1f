"""Models of a number's label, fitted in closed form: a mean and a variance a query.

Linear least squares and Gaussian processes, each by itself or K of them on bootstraps
of what is labelled (Shukla, WACV 2022, Eq. 7 and 9). Float64; L labelled rows of p
numbers, M queries.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.linalg
from jaxtyping import Float

from jalpose.data.source import DataError

_STEPS, _RATE = 100, 0.1  # of Adam, for the marginal likelihood
_TRIES = 100  # of a bootstrap whose rows span all columns


class Predicted(NamedTuple):
    """Labels that models predict.

    Attributes:
      means: float64 [M], of several models [M, K].
      variances: float64, of the same shape.
    """

    means: np.ndarray
    variances: np.ndarray


class Kernel(NamedTuple):
    """The squared exponential, amplitude * exp(-|x - x'|^2 / (2 length^2)), and noise.

    Attributes:
      length: of the inputs' unit.
      amplitude: variance of the function.
      noise: variance of an observation.
    """

    length: float = 1.0
    amplitude: float = 1.0
    noise: float = 0.0


Fit = Callable[[np.ndarray, np.ndarray, np.ndarray], Predicted]


def linear(inputs, targets, queries, *, noise: bool = True) -> Predicted:
    """Ordinary least squares: the mean, and the variance of a new label.

    s^2(x) = RSS / (L - p) * (1 + x' (X'X)^-1 x). The paper cites it and does not say
    whether the 1, the noise of the label itself, is in it.

    Args:
      inputs: [L, p]; a column of ones is the caller's.
      targets: [L].
      queries: [M, p].
      noise: with the 1.

    Raises:
      DataError: no more rows than columns, or columns that depend on each other.
    """
    inputs, targets, queries = map(_double, (inputs, targets, queries))
    rows, columns = inputs.shape
    if rows <= columns:
        raise DataError(
            f"a linear model of {columns} columns needs more than {columns} labelled "
            f"rows for its variance, and there are {rows}: label more at the start "
            "(data.initial), or leave columns out"
        )
    left, values, right = np.linalg.svd(inputs, full_matrices=False)
    if _rank(values, rows) < columns:
        raise DataError(
            f"the design of {rows} labelled rows is singular: its {columns} columns "
            f"have rank {_rank(values, rows)}. A column is constant beside the "
            "intercept, or a sum of others: leave it out, or label more at the start"
        )
    weights = right.T @ ((left.T @ targets) / values)
    residual = np.sum(np.square(targets - inputs @ weights))
    spread = np.sum(np.square((queries @ right.T) / values), axis=1)
    variances = residual / (rows - columns) * (float(noise) + spread)
    return Predicted(queries @ weights, variances)


def spans(inputs) -> bool:
    """Do rows [L, p] determine a linear model and its variance?"""
    inputs = _double(inputs)
    if len(inputs) <= inputs.shape[1]:
        return False
    return _rank(np.linalg.svd(inputs, compute_uv=False), len(inputs)) == len(inputs.T)


def gaussian_process(inputs, targets, queries, kernel: Kernel) -> Predicted:
    """Exact Gaussian process of mean zero: Eq. 9, noise added to the observations.

    The variance is the function's, without the label's noise. A kernel matrix that is
    singular in float64 (rows that are there twice, as in a bootstrap) gets jitter on
    its diagonal, as little as does.

    Args:
      inputs: [L, p].
      targets: [L].
      queries: [M, p].
      kernel: see `fitted`.
    """
    inputs, targets, queries = map(_double, (inputs, targets, queries))
    observed = covariance(inputs, inputs, kernel)
    factor = _factor(observed + kernel.noise * np.eye(len(inputs)))
    across = covariance(queries, inputs, kernel)
    weights = scipy.linalg.cho_solve((factor, True), targets)
    half = scipy.linalg.solve_triangular(factor, across.T, lower=True)
    variances = kernel.amplitude - np.sum(np.square(half), axis=0)
    return Predicted(across @ weights, np.maximum(variances, 0.0))


def covariance(first, second, kernel: Kernel) -> Float[np.ndarray, "n m"]:
    """The kernel of rows [N, p] with rows [M, p], without noise."""
    apart = first[:, None] - second[None]
    return kernel.amplitude * np.exp(-0.5 * np.sum(apart**2, -1) / kernel.length**2)


def fitted(inputs, targets, steps: int = _STEPS) -> Kernel:
    """The kernel of the highest marginal likelihood near the usual start.

    Adam on the logarithms of the three, from the median distance, the targets'
    variance and a tenth of it.

    Args:
      inputs: [L, p].
      targets: [L], of mean zero.
      steps: of Adam.
    """
    inputs, targets = _double(inputs), _double(targets)
    pairs = np.triu_indices(len(inputs), 1)
    distances = np.linalg.norm(inputs[pairs[0]] - inputs[pairs[1]], axis=1)
    variance = float(targets.var())
    if not (len(pairs[0]) and variance > 0 and np.median(distances) > 0):
        return Kernel()
    begin = np.log([np.median(distances), variance, variance / 10])
    with jax.enable_x64(True):
        found = _climb(jnp.asarray(begin), inputs, targets, steps)
        length, amplitude, noise = np.exp(np.asarray(found)).tolist()
    return Kernel(length, amplitude, noise)


def bootstraps(fit: Fit, inputs, targets, queries, *, members: int, draws) -> Predicted:
    """The same model fitted to K bootstraps: as many rows, with replacement.

    Args:
      fit: `linear`, or `gaussian_process` with a kernel.
      inputs: [L, p].
      targets: [L].
      queries: [M, p].
      members: K, at most L.
      draws: NumPy's generator.

    Raises:
      DataError: K is more than L, or a bootstrap of a linear model never has a
        design that is not singular.
    """
    inputs, targets = _double(inputs), _double(targets)
    if members > len(inputs):
        raise DataError(
            f"{members} members, but only {len(inputs)} labelled rows to draw their "
            "bootstraps from: take fewer members, or label more at the start"
        )
    means, variances = [], []
    for _ in range(members):
        rows = _drawn(fit, inputs, draws)
        found = fit(inputs[rows], targets[rows], queries)
        means.append(found.means)
        variances.append(found.variances)
    return Predicted(np.stack(means, axis=1), np.stack(variances, axis=1))


def _drawn(fit, inputs, draws) -> np.ndarray:
    """Rows of a bootstrap; of a linear model one whose design is not singular."""
    for _ in range(_TRIES):
        rows = draws.choice(len(inputs), len(inputs))
        if getattr(fit, "func", fit) is not linear or spans(inputs[rows]):
            break
    return rows


def _rank(values: np.ndarray, rows: int) -> int:
    """Rank by singular values [p], NumPy's rule."""
    least = values.max() * max(rows, len(values)) * np.finfo(np.float64).eps
    return int((values > least).sum())


def _factor(matrix: np.ndarray) -> np.ndarray:
    """Lower Cholesky factor, with the least jitter of 0, 1e-12, 1e-11, ... that does.

    The jitter is in units of the mean of the diagonal.
    """
    scale = float(np.diag(matrix).mean())
    if not np.isfinite(matrix).all():
        raise DataError(
            "a number among the labelled rows, or a parameter of the kernel, is NaN or "
            "infinite: there is no Gaussian process of them"
        )
    for jitter in (0.0, *(10.0**power for power in range(-12, -3))):
        try:
            return np.linalg.cholesky(matrix + jitter * scale * np.eye(len(matrix)))
        except np.linalg.LinAlgError:
            continue
    raise DataError(
        "the kernel matrix of the labelled rows is singular even with jitter: nearly "
        "all rows are the same, or the kernel is far too long"
    )


def _climb(begin, inputs, targets, steps: int):
    """`steps` of Adam down the negative log marginal likelihood."""
    squares = jnp.sum(jnp.square(inputs[:, None] - inputs[None]), axis=-1)
    eye, optimizer = jnp.eye(len(inputs)), optax.adam(_RATE)

    def surprise(logs):
        length, amplitude, noise = jnp.exp(logs)
        # The floor keeps the factor finite while the noise shrinks.
        matrix = amplitude * jnp.exp(-0.5 * squares / length**2)
        factor = jnp.linalg.cholesky(matrix + (noise + 1e-8 * amplitude) * eye)
        half = jax.scipy.linalg.solve_triangular(factor, targets, lower=True)
        return 0.5 * jnp.sum(half**2) + jnp.sum(jnp.log(jnp.diag(factor)))

    def step(carry, _):
        logs, state = carry
        updates, state = optimizer.update(jax.grad(surprise)(logs), state)
        return (optax.apply_updates(logs, updates), state), None

    whole = jax.jit(lambda start: jax.lax.scan(step, start, length=steps))
    (logs, _), _ = whole((begin, optimizer.init(begin)))
    return logs


def _double(values) -> np.ndarray:
    return np.asarray(values, np.float64)
