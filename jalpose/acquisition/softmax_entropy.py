"""Softmax entropy: the entropy of a softmax over all pixels of each heatmap.

The entropy baseline of Yoo & Kweon, "Learning Loss for Active Learning", CVPR 2019,
section 4.3: a softmax over each joint's heatmap, its entropy, the mean over joints,
the largest first. The paper does not say how high its heatmaps' peaks are, and the
softmax depends on it: at `heatmap.peak` 30 a peak takes nearly all of it, at 1 it is
nearly uniform whatever the network has seen. `temperature` divides the heatmaps first.
"""

import functools

import jax
import jax.numpy as jnp

from jalpose.acquisition.method import Method, Selection, by_score


def acquire(key, probe, labelled, unlabelled, budget, *, temperature) -> Selection:
    """Choose the `budget` examples of the highest mean entropy over joints, in nats.

    Args:
      key: unused, nothing is drawn.
      probe: of the trained network; the last stack's heatmaps are used.
      labelled: unused.
      unlabelled: int64 [M], example ids.
      budget: how many to choose.
      temperature: above 0, in units of the heatmaps; 1 is the paper's.

    Raises:
      FloatingPointError: a heatmap has a NaN; names the example ids.
    """
    del key, labelled
    entropies = probe.reduce(_entropies(temperature), unlabelled)["entropies"]
    return by_score(
        unlabelled,
        entropies.mean(axis=1),
        budget,
        explanation={"joint_entropy": entropies},
        summary={"mean_joint_entropy": float(entropies.mean())},
    )


def check(num_neighbours, *, temperature) -> None:
    """Raise ValueError for a temperature there is no softmax at."""
    del num_neighbours
    if not temperature > 0:
        raise ValueError(
            f"acquisition.softmax_entropy.temperature={temperature} must be above 0"
        )


@functools.cache
def _entropies(temperature):
    def entropies(output, key):
        del key
        maps = output.heatmaps[-1] / temperature  # [h, w, J]
        logs = jax.nn.log_softmax(maps, axis=(0, 1))
        # A NaN or an infinity anywhere in a map makes its sum NaN.
        return {"entropies": -jnp.sum(jnp.exp(logs) * logs, axis=(0, 1))}

    # The probe's journal goes by this name.
    entropies.__name__ = f"softmax_entropy_{temperature}"
    return entropies


METHOD = Method(acquire, check)
