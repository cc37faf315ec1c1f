"""What probabilities are worth: log-likelihood, calibration, accuracy by class.

NumPy alone. Labels are int [N], all known; probabilities float [N, C].
"""

import numpy as np

# Below it a float32 is 0: a probability of 0 counts as this one, 87 nats.
LEAST = float(np.finfo(np.float32).tiny)


def negative_log_likelihood(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean of -log p of the true classes, in nats.

    Args:
      probabilities: [N, C].
      labels: [N].
    """
    own = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(own, LEAST)).mean())


def expected_calibration_error(
    probabilities: np.ndarray, right: np.ndarray, bins: int
) -> float:
    """Mean distance of confidence and accuracy, in [0, 1].

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, Eq. 3: examples
    fall into bins of equal width by their highest probability, bin m is ((m - 1) / M,
    m / M]; the distance of mean confidence and accuracy in each, weighted by its
    number of examples.

    Args:
      probabilities: [N, C].
      right: bool [N], the predicted class is the true one.
      bins: M; the paper's is 15.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(place, confidence - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(right))


def accuracy_of_classes(
    right: np.ndarray, labels: np.ndarray, num_classes: int
) -> np.ndarray:
    """Share of each class's examples that are right: float64 [C], NaN of none.

    Args:
      right: bool [N].
      labels: [N].
      num_classes: C.
    """
    counts = np.bincount(labels, minlength=num_classes)
    found = np.bincount(labels, right, minlength=num_classes)
    return np.where(counts > 0, found / np.maximum(counts, 1), np.nan)
