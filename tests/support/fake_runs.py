"""Runs written down without being run: records as a run leaves them, numbers made up.

The examples are drawn figures of a config, so that reports can draw them.
"""

import numpy as np

from jalpose.storage import records
from jalpose.storage.arrays import DECLARED
from jalpose.tasks.pose import figures

INITIAL, POOL, TEST, RARE = 12, 30, 8, 0.4
BUDGET = 6
# What the report asks of a config; a real one has more keys, none of them read.
DATA = {
    "name": "figures",
    "dir": "data",
    "initial": INITIAL,
    "pool": POOL,
    "test": TEST,
    "rare": RARE,
    "crop": "joints",
    "window": 1.75,
    "size": 32,
    "mpii": {"annotation": "", "all_joints": False, "head_shift": 0.0},
}


def config(method, seed, cycles=2, data=None, name="fake"):
    return {
        "name": name,
        "seed": seed,
        "data": {**DATA, **(data or {})},
        "heatmap": {"peak": 30.0},
        "model": {"dropout": 0.0},
        "loop": {"cycles": cycles},
        "acquisition": {"method": method, "budget": BUDGET, "engine": "ghost"},
    }


def write_run(folder, method, seed, *, done=None, cycles=2, gain=0.0, **options):
    """A run of `done` cycles (all: cycles + 1) in `folder`; gives the folder."""
    about = {
        "versions": {"python": "3.11", "jax": "0.8.1"},
        "device": {"kind": "cpu", "platform": "cpu", "count": 1},
        "git": "0123456789abcdef",
    }
    whole = config(method, seed, cycles, **options)
    records.write_config(folder, {**about, "config": whole})
    rng = np.random.default_rng([seed, len(method)])
    sources, _ = figures.benchmark(DATA, seed)
    keys = [key for source in sources for key in source.annotations.keys]
    joints = np.concatenate([source.annotations.joints for source in sources])
    labelled = np.arange(INITIAL)
    done = cycles + 1 if done is None else done
    for cycle in range(done):
        pck = 0.3 + 0.01 * seed + cycle * (0.02 + gain) + 0.002 * rng.normal()
        ids = np.setdiff1d(np.arange(INITIAL, INITIAL + POOL), labelled)
        chosen = choose(rng, method, ids, labelled, joints)
        acquisition = {"method": method, "seconds": 2.0, "peak_bytes": 1024}
        last = cycle == cycles
        records.write_cycle(
            folder,
            {
                "cycle": cycle,
                "num_labelled": len(labelled),
                "metrics": {
                    "pck": pck,
                    "pck_name": "PCK@0.2",
                    "pck_threshold": 0.2,
                    "pck_reference": "torso",
                    "pck_per_joint": {"head": pck},
                    "num_images": TEST,
                    "mean_pose_pck": 0.1,
                    "test_loss": 1.0 - pck,
                },
                "seconds": 10.0,
                "acquisition": None if last else acquisition,
                "throughput": {
                    "training": {"images_per_second": 40.0, "share_waiting": 0.25},
                    "scoring": {"images_per_second": None, "share_waiting": None},
                    "seconds_compiling": 10.0,
                    "peak_bytes": {"device": None, "process": (1 + cycle) * 2**30},
                },
            },
        )
        if not last:
            records.write_arrays(folder, cycle, **chosen)
            rows = [
                {
                    "rank": rank,
                    "id": example,
                    "key": keys[example],
                    "file": keys[example],
                    "score": chosen["scores"][np.searchsorted(ids, example)],
                }
                for rank, example in enumerate(chosen["selected"].tolist(), start=1)
            ]
            records.write_selection(folder, cycle, rows)
            labelled = np.concatenate([labelled, chosen["selected"]])
    return folder


def choose(rng, method, ids, labelled, joints):
    """Arrays of an acquisition."""
    count = len(ids)
    losses = rng.gamma(2.0, size=count)
    scores = losses + rng.gamma(2.0, size=count)
    arrays = {
        "ids": ids,
        "scores": np.full(count, np.nan) if method == "random" else scores,
        "selected": ids[np.argsort(-scores)[:BUDGET]],
        "joints": joints[ids] + rng.normal(scale=4.0, size=(count, 14, 2)),
        "peaks": rng.uniform(0.0, 30.0, size=(count, 14)),
        "embeddings": rng.normal(size=(count, 5)) * (5, 3, 1, 1, 1),
        "labelled_ids": labelled,
        "labelled_embeddings": rng.normal(size=(len(labelled), 5)) * (5, 3, 1, 1, 1),
        "true_losses": losses,
        "true_squared_norms": losses**2 + rng.gamma(1.0, size=count),
    }
    if method == "eglpp":
        shares = rng.dirichlet(np.ones(4), size=count)
        arrays["neighbour_ids"] = rng.choice(labelled, size=(count, 4))
        arrays["neighbour_probabilities"] = -np.sort(-shares, axis=1)
    if method == "multipeak_entropy":
        arrays["joint_entropy"] = rng.uniform(0.0, 1.6, size=(count, 14))
        arrays["num_peaks"] = rng.integers(1, 6, size=(count, 14))
        there = np.arange(5) < arrays["num_peaks"][..., None]
        places = rng.integers(0, 8, size=(count, 14, 5, 2))
        arrays["peak_positions"] = np.where(there[..., None], places, -1)
    if method != "random":
        ends = np.argsort(-scores)[[0, 1, 2, 3, -4, -3, -2, -1]]
        arrays["heatmap_ids"] = np.sort(ids[ends])
        heatmaps = rng.uniform(-1.0, 30.0, size=(8, 8, 8, 14))
        arrays["heatmaps"] = heatmaps
    return {name: a.astype(DECLARED[name].dtype) for name, a in arrays.items()}
