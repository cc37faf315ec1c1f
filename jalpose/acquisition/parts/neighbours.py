"""Which labelled images a pool image resembles, as probabilities.

EGL++ (Shukla) takes its candidate labels from the labelled images nearest to a pool
image in the network's embedding, weighted as t-SNE weights neighbours: a Gaussian
kernel whose width is set per image so that the distribution has a given perplexity
(Eq. 13); Algorithm 1, line 6 keeps the K most probable.
"""

import dataclasses

import numpy as np
from scipy.spatial import distance

TOLERANCE = 1e-5  # of the perplexity, relative
MAX_LOG_PRECISION = 600.0  # exp() of it times any row's largest distance is finite
UNDERFLOW = 800.0  # exp(-800) is zero in float64
BLOCK_ROWS = 256  # pool images whose distances are held at a time,
BLOCK_VALUES = 2**24  # fewer where there would be more distances than these
LABELLED_ROWS = 2**16  # whose embeddings are held in float64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Neighbours:
    """The K most probable labelled images of each of M pool images.

    Attributes:
      indices: int64 [M, K], rows of the labelled embeddings by falling probability,
        ties by index.
      probabilities: float64 [M, K]; sum to one if renormalised.
      achieved_perplexity: float64 [M], of the distribution over all L.
      converged: bool [M], whether that is the perplexity asked for. It is not where
        more labelled images than that tie for the nearest; the probabilities are
        then the closest attainable, uniform over the tied.
      captured_mass: float64 [M], probability of the K together among all L.
    """

    indices: np.ndarray
    probabilities: np.ndarray
    achieved_perplexity: np.ndarray
    converged: np.ndarray
    captured_mass: np.ndarray


def nearest_labels(
    pool_embeddings: np.ndarray,
    labelled_embeddings: np.ndarray,
    *,
    perplexity: float,
    num_neighbours: int,
    renormalise: bool = True,
    block_rows: int | None = None,
) -> Neighbours:
    """Find the labelled neighbours of each pool image and their probabilities.

    EGL++ Eq. 13 and Algorithm 1, line 6. Two notes on the published code:
    Its perplexity is 2^H with H in nats, so its "20" is a true perplexity of
    exp(log2(20)) = 75.33; ask for that to mimic it.
    It does not renormalise the K probabilities, so the expectation of an image whose
    probability is spread over more than K neighbours lacks the rest of its mass and
    the image scores lower for that alone. We do, unless told otherwise; the mass
    is returned either way.

    Args:
      pool_embeddings: [M, D].
      labelled_embeddings: [L, D].
      perplexity: effective number of neighbours, at least 1 and less than L.
      num_neighbours: K, at most L.
      renormalise: whether the K probabilities are divided by their sum.
      block_rows: pool images at a time; None: `BLOCK_ROWS`, or what `BLOCK_VALUES`
        allows. Bounds the memory to a few [block_rows, L] float64 arrays and changes
        nothing else.
    """
    pool, labelled = np.asarray(pool_embeddings), np.asarray(labelled_embeddings)
    _check_embeddings(pool, labelled)
    _check_perplexity(perplexity, len(labelled))
    if not 1 <= num_neighbours <= len(labelled):
        raise ValueError(
            f"{num_neighbours=} neighbours cannot be taken of {len(labelled)} labelled "
            f"images: ask for 1 to {len(labelled)}, or label more."
        )
    if block_rows is None:
        block_rows = max(1, min(BLOCK_ROWS, BLOCK_VALUES // len(labelled)))
    if block_rows < 1:
        raise ValueError(f"{block_rows=} must be at least 1.")
    indices = np.empty((len(pool), num_neighbours), np.int64)
    kept = np.empty((len(pool), num_neighbours))
    achieved = np.empty(len(pool))
    for start in range(0, len(pool), block_rows):
        rows = slice(start, start + block_rows)
        found = calibrate(_sq_distances(pool[rows], labelled), perplexity)
        probabilities, achieved[rows] = found
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :num_neighbours]
        indices[rows] = order
        kept[rows] = np.take_along_axis(probabilities, order, axis=1)
    mass = kept.sum(axis=1)
    return Neighbours(
        indices=indices,
        probabilities=kept / mass[:, None] if renormalise else kept,
        achieved_perplexity=achieved,
        converged=is_converged(achieved, perplexity),
        captured_mass=mass,
    )


def _sq_distances(pool: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    """Float64 [M, L], the labelled taken in blocks.

    Of explicit differences: duplicates are at distance zero exactly, and a pair's
    distance does not depend on the block it is in, as in a matrix product.
    """
    found = np.empty((len(pool), len(labelled)))
    for start in range(0, len(labelled), LABELLED_ROWS):
        columns = slice(start, start + LABELLED_ROWS)
        some = labelled[columns].astype(np.float64)
        found[:, columns] = distance.cdist(pool, some, "sqeuclidean")
    return found


def calibrate(
    sq_distances: np.ndarray,
    perplexity: float,
    *,
    tolerance: float = TOLERANCE,
    max_steps: int = 100,
) -> tuple[np.ndarray, np.ndarray]:
    """Turn squared distances into probabilities of a given perplexity, row by row.

    p_j = exp(-b d_j) / sum_k exp(-b d_k), with the precision b > 0 such that
    exp(H(p)) is `perplexity`, H in nats: natural logarithm both ways. The row's
    minimum is subtracted first, without which all terms of far-off rows underflow
    together; the perplexity then falls steadily in b, from L to the number of ties
    for the minimum, and bisection in log b cannot miss.

    Args:
      sq_distances: [M, L]; adding a constant to a row, or scaling it, changes nothing.
      perplexity: at least 1 and less than L.
      tolerance: relative error of the perplexity at which a row is done.
      max_steps: bound on the steps of a row, bracketing included; 40 are plenty.

    Returns:
      probabilities: float64 [M, L].
      achieved: float64 [M], the perplexity of each row; see `is_converged`.
    """
    if max_steps < 1:
        raise ValueError(f"{max_steps=} must be at least 1.")
    distances = np.asarray(sq_distances, np.float64)
    _check_perplexity(perplexity, distances.shape[1])
    finite = np.isfinite(distances).all(axis=1)
    if not finite.all():
        raise ValueError(f"Row {np.argmin(finite)} of the distances is not finite.")
    shifted = distances - distances.min(axis=1, keepdims=True)
    scale = shifted.mean(axis=1, keepdims=True)
    scaled = shifted / np.where(scale > 0, scale, 1)  # so that log b is near zero
    num_rows = len(scaled)
    log_b, step = np.zeros(num_rows), np.ones(num_rows)
    low, high = np.full(num_rows, -np.inf), np.full(num_rows, np.inf)
    probabilities, achieved = np.empty_like(scaled), np.empty(num_rows)
    todo = np.arange(num_rows)
    for _ in range(max_steps):
        if not todo.size:
            break
        found = _distribution(scaled[todo], log_b[todo])
        probabilities[todo], achieved[todo] = found
        todo = todo[~is_converged(achieved[todo], perplexity, tolerance)]
        wide = achieved[todo] > perplexity
        low[todo[wide]] = log_b[todo[wide]]
        high[todo[~wide]] = log_b[todo[~wide]]
        guess = _next(low[todo], high[todo], step[todo])
        moved = guess != log_b[todo]  # else out of reach, as where too many tie
        todo, guess = todo[moved], guess[moved]
        log_b[todo] = guess
        step[todo] *= 2
    return probabilities, achieved


def is_converged(
    achieved: np.ndarray, perplexity: float, tolerance: float = TOLERANCE
) -> np.ndarray:
    """Whether each achieved perplexity is the one asked for; bool, as `achieved`."""
    return np.abs(achieved - perplexity) <= tolerance * perplexity


def _distribution(
    distances: np.ndarray, log_precision: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and perplexities of rows whose minimum is zero."""
    energy = np.minimum(np.exp(log_precision)[:, None] * distances, UNDERFLOW)
    weights = np.exp(-energy)
    total = weights.sum(axis=1)
    probabilities = weights / total[:, None]
    entropy = np.log(total) + (probabilities * energy).sum(axis=1)
    return probabilities, np.exp(entropy)


def _next(low: np.ndarray, high: np.ndarray, step: np.ndarray) -> np.ndarray:
    """The middle of a bracket, or a step beyond its only end."""
    closed = np.isfinite(low) & np.isfinite(high)
    with np.errstate(invalid="ignore"):
        middle = (low + high) / 2
    beyond = np.where(np.isfinite(low), low + step, high - step)
    guess = np.where(closed, middle, beyond)
    return np.clip(guess, -MAX_LOG_PRECISION, MAX_LOG_PRECISION)


def _check_perplexity(perplexity: float, num_labelled: int) -> None:
    """Raise where no distribution over that many images has this perplexity."""
    if not 1 <= perplexity < num_labelled:
        raise ValueError(
            f"{perplexity=} is unreachable with {num_labelled} labelled images: it "
            f"must be at least 1 and less than {num_labelled}. Lower it or label more."
        )


def _check_embeddings(pool, labelled) -> None:
    """Raise where they do not fit or are not finite."""
    if pool.ndim != 2 or labelled.ndim != 2 or pool.shape[1] != labelled.shape[1]:
        raise ValueError(
            f"Embeddings must be [M, D] and [L, D], got {pool.shape} and "
            f"{labelled.shape}."
        )
    for name, values in (("pool", pool), ("labelled", labelled)):
        finite = np.isfinite(values).all(axis=1)
        if not finite.all():
            row = np.argmin(finite)
            raise ValueError(f"Row {row} of the {name} embeddings is not finite.")
