"""What a budget buys: so many images, or images that cost so many clicks.

With `acquisition.budget_unit=clicks` an example costs the clicks that its label is
expected to take (`Labels.expected_clicks`: of a pose its joints; of a task without it
one), before anybody has labelled it, so that people and a simulation are asked for the
same. Of several people in an image each is an example with a price of its own. The
method is asked for as many as the cheapest of the pool would be, and its picks are
bought in its order until the next would cost too much.
"""

import numpy as np

from jalpose.acquisition.method import Pool, Selection
from jalpose.loop import duplicates
from jalpose.loop.context import RunContext
from jalpose.loop.state import CycleState
from jalpose.scoring.probe import Probe
from jalpose.storage.arrays import EXPECTED_CLICKS

IMAGES, CLICKS = "images", "clicks"


def acquire(
    context: RunContext, state: CycleState, key, probe: Probe, pool: Pool
) -> Selection:
    """What the method of a run chooses for the run's budget.

    Args:
      context: of the run.
      state: of the run.
      key: of the acquisition.
      probe: of the network that chooses.
      pool: to choose from.
    """
    acquisition, ids = context.config.acquisition, pool.unlabelled

    def choose(count: int) -> Selection:
        return duplicates.acquire(
            context.method,
            key,
            probe,
            pool,
            count,
            context.dataset,
            acquisition.duplicates,
        )

    if acquisition.budget_unit == IMAGES:
        return choose(min(acquisition.budget, len(ids)))
    prices = context.evaluator.expected_clicks(
        probe, pool.labelled.ids, context.labelled_truth(state), ids
    )
    most = _affordable(np.sort(prices), acquisition.budget)
    found = choose(most)
    own = prices[np.searchsorted(ids, found.indices)]
    bought = _affordable(own, acquisition.budget)
    return found._replace(
        indices=found.indices[:bought],
        explanation={**found.explanation, EXPECTED_CLICKS: prices},
        summary={**found.summary, EXPECTED_CLICKS: int(own[:bought].sum())},
    )


def _affordable(prices: np.ndarray, budget: int) -> int:
    """How many of these, one after the other, a budget pays for; at least one."""
    return max(1, int((np.cumsum(prices) <= budget).sum()))
