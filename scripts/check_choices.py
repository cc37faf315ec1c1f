"""What does each way of choosing find on drawn figures? Rare poses, sequences, losses.

    python scripts/check_choices.py runs/figures/seed_0/base --budget=30 --images=1000

The model of a run on drawn figures (`data.name=figures`) chooses once from a part of
its pool, by the highest scores and by distances, and with the true losses at hand. Rare
poses, different sequences, and the mean true loss of the chosen are printed; AUC is of
telling rare from everyday poses by the score.
"""

import argparse

import jax
import numpy as np
from ml_collections import ConfigDict
from scipy.stats import rankdata

from jalpose.acquisition import registry
from jalpose.acquisition.lcmd import Lcmd
from jalpose.acquisition.method import Pool
from jalpose.loop import configs, run, saved_models
from jalpose.loop.context import make_context
from jalpose.loop.finished import cycle_of, state_of
from jalpose.loop.programs import Programs
from jalpose.runtime import sharding
from jalpose.storage import records
from jalpose.storage.journal import Journal

SCORING = ("softmax_entropy", "least_confidence", "expected_gradnorm", "eglpp")
SPREADING = {
    "lcmd embedding": {},
    "lcmd prediction": {"space": "prediction"},
    "lcmd gradients random": {"space": "gradients"},
    "lcmd gradients neighbours": {"space": "gradients", "cotangents": "neighbours"},
    "lcmd gradients predicted": {"space": "gradients", "cotangents": "predicted"},
}


def main() -> None:
    """Print a row for each way of choosing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("workdir")
    parser.add_argument("--budget", default=30, type=int)
    parser.add_argument("--images", default=1000, type=int, help="to choose from")
    given = parser.parse_args()
    config = _config_of(given.workdir)
    dataset, programs = run.load_dataset(config), Programs(sharding.make_mesh())
    context = make_context(config, dataset, programs)
    cycle = cycle_of(given.workdir, -1)
    variables = sharding.replicate(
        programs.mesh, saved_models.load_model(given.workdir, cycle)
    )
    state = state_of(dataset, given.workdir, cycle)
    ids = context.unlabelled(state.taken, cycle, given.images)
    pool = Pool(unlabelled=ids, labelled=context.labelled_set(state))
    probe, key = context.probe(variables, Journal(), pieces=10**9), jax.random.key(0)

    rare = np.concatenate([source.rare for source in dataset.sources])
    lengths = np.cumsum([0, *(len(source.rare) for source in dataset.sources)])
    first = np.concatenate(
        [
            start + source.first_frames
            for start, source in zip(lengths, dataset.sources, strict=False)
        ]
    )
    losses = probe.describe(ids)["loss"]
    print(
        f"{len(ids)} images: {rare[ids].sum()} rare, {len(set(first[ids].tolist()))} "
        f"sequences, mean loss {losses.mean():.2f}"
    )

    def show(name, chosen, scores=None):
        auc = "" if scores is None else f"{_auc(scores, rare[ids]):.2f}"
        there = np.isin(ids, chosen)
        print(
            f"{name:28} rare {rare[chosen].sum():3}, sequences "
            f"{len(set(first[chosen].tolist())):3}, loss {losses[there].mean():.2f}, "
            f"AUC {auc}",
            flush=True,
        )

    drawn = np.random.default_rng(0).permutation(ids)[: given.budget]
    show("random", drawn)
    show("true loss", ids[np.argsort(-losses)[: given.budget]], losses)
    for name in SCORING:
        method = registry.methods()[name]()
        found = method.acquire(key, probe, pool, given.budget)
        show(name, found.indices, found.scores)
    for name, options in SPREADING.items():
        found = Lcmd(**options).acquire(key, probe, pool, given.budget)
        show(name, found.indices, found.explanation["nearest_distance"])


def _config_of(workdir) -> ConfigDict:
    record = records.read_config(workdir)
    if record is None or record["config"]["data"]["name"] != "figures":
        raise SystemExit(f"{workdir} is not the workdir of a run on drawn figures")
    return configs.of_record(record["config"])


def _auc(scores, positive) -> float:
    ranks, count = rankdata(scores)[positive], positive.sum()
    above = ranks.sum() - count * (count + 1) / 2
    return above / (count * (~positive).sum())


if __name__ == "__main__":
    main()
