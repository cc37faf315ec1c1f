"""MC dropout: how much samples of one network under dropout disagree.

Gal and Ghahramani, ICML 2016; Gal, Islam and Ghahramani, ICML 2017. The network is
trained with `model.dropout` and sampled with it, batch norm in evaluation mode.
"""

from jalpose.acquisition.method import Method, Requires, Selection, by_score
from jalpose.acquisition.parts import committees


def acquire(key, probe, labelled, unlabelled, budget, *, samples, measure) -> Selection:
    """Choose the `budget` examples on which the samples disagree most.

    Args:
      key: of what is dropped, folded with each example's id.
      probe: of the trained network.
      labelled: unused.
      unlabelled: int64 [M], example ids.
      budget: how many to choose.
      samples: K, forward passes an example.
      measure: see `committee.disagreement`.
    """
    del labelled
    found = probe.reduce(
        committees.disagreement(measure),
        unlabelled,
        key,
        over="dropout",
        samples=samples,
    )
    return by_score(
        unlabelled,
        found["variance"].mean(axis=1),
        budget,
        explanation={"joint_variance": found["variance"]},
    )


def check(num_neighbours, *, samples, measure) -> None:
    """Raise ValueError for options that cannot work."""
    del num_neighbours
    if samples < 2:
        raise ValueError(f"acquisition.mc_dropout.samples={samples} must be at least 2")
    committees.check_measure("acquisition.mc_dropout", measure)


def requires(skeleton, **options) -> Requires:
    """A network trained with dropout."""
    del skeleton, options
    return Requires(dropout=True)


METHOD = Method(acquire, check, requires=requires)
