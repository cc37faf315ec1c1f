"""t-SNE of a few hundred points, exactly: distances of all pairs, in NumPy.

L. van der Maaten and G. Hinton, Visualizing Data using t-SNE, JMLR 9, 2008: Algorithm 1
with early exaggeration and momentum, from the principal components instead of a draw,
so that equal points give equal maps.
"""

import numpy as np

EXAGGERATION = 4.0
EXAGGERATED = 50  # iterations
LEAST = 1e-12


def embed(
    points: np.ndarray, *, perplexity: float = 30.0, iterations: int = 300
) -> np.ndarray:
    """Map points to the plane so that neighbours stay neighbours.

    Args:
      points: [N, D], finite.
      perplexity: effective number of neighbours; at most a third of N - 1.
      iterations: of gradient descent.

    Returns:
      float64 [N, 2], centred.
    """
    points = np.asarray(points, np.float64)
    count = len(points)
    if count < 4:
        return np.zeros((count, 2)) + np.arange(count)[:, None]
    centred = points - points.mean(axis=0)
    shares = affinities(centred, min(perplexity, (count - 1) / 3))
    places = _components(centred)
    places = 1e-2 * places / max(float(places.std()), LEAST)
    # Of exact copies all gradients are the same: they would never part.
    places += 1e-5 * np.random.default_rng(0).normal(size=places.shape)
    step = np.zeros_like(places)
    gains = np.ones_like(places)
    rate = max(count / EXAGGERATION, 50.0)
    for iteration in range(iterations):
        early = iteration < EXAGGERATED
        pull = EXAGGERATION * shares if early else shares
        closeness = 1 / (1 + _squared_distances(places))
        np.fill_diagonal(closeness, 0)
        push = closeness / closeness.sum()
        forces = (pull - push) * closeness
        gradient = 4 * (forces.sum(axis=1)[:, None] * places - forces @ places)
        same = np.sign(gradient) == np.sign(step)
        gains = np.maximum(np.where(same, 0.8 * gains, gains + 0.2), 0.01)
        step = (0.5 if early else 0.8) * step - rate * gains * gradient
        places = places + step
        places -= places.mean(axis=0)
    return places


def affinities(points: np.ndarray, perplexity: float) -> np.ndarray:
    """Symmetric probabilities of pairs, their sum one: float64 [N, N].

    Each row's Gaussian has the perplexity asked for, exp of its entropy in nats.

    Args:
      points: float64 [N, D].
      perplexity: below N - 1.
    """
    squares = _squared_distances(points)
    np.fill_diagonal(squares, np.inf)
    squares -= squares.min(axis=1, keepdims=True)
    np.fill_diagonal(squares, np.inf)
    known = np.isfinite(squares)
    finite = np.where(known, squares, 0.0)
    scale = finite.sum(axis=1) / known.sum(axis=1)
    low = np.full(len(points), -30.0)  # logs of the precisions, in 1 / scale
    high = np.full(len(points), 30.0)
    for _ in range(50):
        middle = (low + high) / 2
        precision = np.exp(middle) / np.maximum(scale, LEAST)
        weights = np.where(known, np.exp(-precision[:, None] * finite), 0.0)
        total = weights.sum(axis=1)
        means = (weights * finite).sum(axis=1) / total
        entropy = np.log(total) + precision * means
        wide = entropy > np.log(perplexity)
        low, high = np.where(wide, middle, low), np.where(wide, high, middle)
    rows = weights / total[:, None]
    return (rows + rows.T) / (2 * len(points))


def _components(centred: np.ndarray) -> np.ndarray:
    """The two principal components, their signs fixed: [N, 2]."""
    left, singular, right = np.linalg.svd(centred, full_matrices=False)
    signs = np.sign(right[np.arange(len(right)), np.abs(right).argmax(axis=1)])
    found = (left * singular * signs)[:, :2]
    return np.pad(found, ((0, 0), (0, 2 - found.shape[1])))


def _squared_distances(points: np.ndarray) -> np.ndarray:
    squares = np.square(points).sum(axis=1)
    found = squares[:, None] + squares[None] - 2 * points @ points.T
    return np.maximum(found, 0.0)
