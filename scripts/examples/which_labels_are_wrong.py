"""Which labels are wrong? Those whose gradients the network disagrees with the most.

    python scripts/examples/which_labels_are_wrong.py

A tenth of the labels of a drawn set are made wrong. A network is trained on one half
and looks at the other, and the other way round, so that no example is judged by a
network that learnt its label by heart; then the longest gradients come first.
"""

from functools import partial

import jax
import numpy as np
from are_approximate_norms_good_enough import Network, bars, loss, train

from jalpose.pergrad import api


def main(count: int = 400, wrong: float = 0.1):
    """Print, and return, the share of wrong labels among as many of the first."""
    model, (images, truth) = Network(), bars(count, seed=1)
    rng = np.random.default_rng(2)
    spoilt = rng.permutation(count)[: round(wrong * count)]
    labels = truth.copy()
    labels[spoilt] = (truth[spoilt] + rng.integers(1, 4, len(spoilt))) % 4

    measure = jax.jit(partial(api.squared_norms, "ghost", model.apply, loss))
    norms = np.zeros(count)
    halves = np.arange(count) % 2 == 0
    for half in (halves, ~halves):
        variables = train(model, images[~half], labels[~half])
        found = measure(variables, images[half], labels[half][:, None])
        norms[half] = np.asarray(found.total)[:, 0]

    first = np.argsort(-norms)[: len(spoilt)]
    share = float(np.isin(first, spoilt).mean())
    print(
        f"{len(spoilt)} of {count} labels are wrong. Of the {len(spoilt)} with the "
        f"longest gradients {share:.0%} are, where {wrong:.0%} are by chance."
    )
    for example in first[:5]:
        print(f"look at image {example}: labelled {labels[example]}")
    return share


if __name__ == "__main__":
    main()
