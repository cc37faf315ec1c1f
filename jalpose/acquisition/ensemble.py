"""Query by committee: how much networks trained on bootstraps disagree.

Seung, Opper and Sompolinsky, COLT 1992, with the committee of EGL++'s baselines: pose
networks, each trained on as many labels drawn with replacement.
"""

from jalpose.acquisition.method import Method, Requires, Selection, by_score
from jalpose.acquisition.parts import committees


def acquire(
    key, probe, labelled, unlabelled, budget, *, members, steps, start, measure
) -> Selection:
    """Choose the `budget` examples on which the members disagree most.

    Args:
      key: unused, nothing is drawn.
      probe: of the trained networks.
      labelled: unused.
      unlabelled: int64 [M], example ids.
      budget: how many to choose.
      members: K, networks.
      steps: of each one's training in every cycle.
      start: see `method.Members`. Warm members are cheaper and less diverse.
      measure: see `committee.disagreement`.
    """
    del key, labelled, members, steps, start
    found = probe.reduce(committees.disagreement(measure), unlabelled, over="members")
    return by_score(
        unlabelled,
        found["variance"].mean(axis=1),
        budget,
        explanation={"joint_variance": found["variance"]},
    )


def check(num_neighbours, *, measure, **members) -> None:
    """Raise ValueError for options that cannot work."""
    del num_neighbours
    committees.check_members("acquisition.ensemble", **members)
    committees.check_measure("acquisition.ensemble", measure)


def requires(skeleton, *, measure, **members) -> Requires:
    """The members."""
    del skeleton, measure
    return Requires(members=committees.requires_members(**members))


METHOD = Method(acquire, check, requires=requires)
