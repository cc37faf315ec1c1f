"""Why an example was chosen, in a few words, by the arrays of a choice."""

from collections.abc import Mapping, Sequence

import numpy as np

from jalpose.storage import arrays as names

# Of each site, and what a high value there is.
_OF_SITES = {
    names.JOINT_ENTROPY: "least sure of",
    names.SITE_UNCERTAINTY: "least sure of",
    names.LOG_VARIANCES: "least sure of",
    names.JOINT_VARIANCE: "members disagree most on",
    names.SITE_DISAGREEMENT: "members disagree most on",
}
# One number: of what it is.
_NUMBERS = {
    names.PICK_DISTANCE: "{} away from all that was labelled or picked before",
    names.LABELLED_PROBABILITY: "probability of looking like a labelled one {}",
    names.TYPICALITY: "typicality in its cluster {}",
    names.PICK_GAIN: "gain in what is covered {}",
    names.PICK_VARIANCE: "variance given what was picked before {}",
    names.PICK_REDUCTION: "reduction of the expected variance {}",
    names.EXPECTED_CLICKS: "expected clicks: {}",
}
_SITES_NAMED = 2


def why(
    arrays: Mapping[str, np.ndarray],
    row: int,
    method: str,
    sites: Sequence[str],
    keys: Sequence[str],
) -> str:
    """Words on a chosen example.

    Args:
      arrays: of the cycle, see `storage.arrays`.
      row: of the example.
      method: that chose.
      sites: names of what a prediction consists of; ().
      keys: names of all examples.
    """
    parts = [_of_score(arrays[names.SCORES], row, method)]
    for name, words in _OF_SITES.items():
        values = arrays.get(name)
        if values is None or values.shape[1] != len(sites):
            continue
        own = np.nan_to_num(values[row], nan=-np.inf)
        most = np.argsort(-own, kind="stable")[:_SITES_NAMED]
        parts.append(f"{words} {' and '.join(sites[site] for site in most)}")
    if names.NEIGHBOUR_IDS in arrays:
        shares = arrays[names.NEIGHBOUR_PROBABILITIES][row]
        best = int(np.argmax(shares))
        other = keys[int(arrays[names.NEIGHBOUR_IDS][row][best])]
        parts.append(f"most like the labelled {other} ({shares[best]:.0%})")
    for name, words in _NUMBERS.items():
        if name in arrays and np.isfinite(arrays[name][row]):
            parts.append(words.format(f"{arrays[name][row]:.3g}"))
    return "; ".join(parts)


def _of_score(scores: np.ndarray, row: int, method: str) -> str:
    if method == "random":
        return "drawn at random"
    own = scores[row]
    if not np.isfinite(own):
        return f"chosen by {method}, which gives no score"
    others = scores[np.isfinite(scores)]
    below = float(np.mean(others < own))
    return f"score {own:.3g} by {method}, above {below:.0%} of {len(others)} scored"
