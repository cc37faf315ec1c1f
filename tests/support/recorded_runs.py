"""Runs of any scores, finished or not, made up of records alone.

For tables and statistics: every config is whole, nothing can be drawn. Configs are as
they were recorded before tasks had names; `task` gives them one.
"""

import json
import pathlib

import numpy as np

from jalpose.storage import records
from jalpose.tasks import registry


def config():
    """Every key of a run, as `config.json` had them before tasks had names."""
    path = pathlib.Path(__file__).with_name("recorded_config.json")
    return json.loads(path.read_text("utf-8"))


def write_run(
    folder,
    method,
    seed,
    scores,
    *,
    cycles=None,
    budget=100,
    labelled=None,
    selections=None,
    changes=None,
    selected=None,
    about=None,
    task=None,
):
    """A run with `scores` (as recorded) from cycle 0 on, that is to have `cycles`.

    Args:
      selections: ids chosen in each cycle; by default `budget` of 1000 at random.
      changes: of the config, by dotted key.
      selected: score of what each cycle chose; by default half the test's.
      task: in the config; None: a record of before.
    """
    cycles = len(scores) - 1 if cycles is None else cycles
    keys = registry.labels_of(task or registry.USUAL).KEYS
    whole = config()
    whole |= {"seed": seed, "name": f"made_up_{method}"}
    whole |= {} if task is None else {"task": task}
    whole["acquisition"] |= {"method": method, "budget": budget}
    whole["loop"]["cycles"] = cycles
    for key, value in (changes or {}).items():
        *sections, last = key.split(".")
        section = whole
        for name in sections:
            section = section[name]
        section[last] = value
    about = {"device": {"kind": "cpu"}, "git": "abc", "versions": {}} | (about or {})
    folder.mkdir(parents=True, exist_ok=True)
    records.write_config(folder, {"config": whole, **about})
    rng = np.random.default_rng([seed, *method.encode()])
    for cycle, score in enumerate(scores):
        record = {
            "cycle": cycle,
            "num_labelled": labelled[cycle] if labelled else 1000 + cycle * budget,
            "metrics": metrics(score, keys),
            "acquisition": None,
            "seconds": 60.0 + seed,
        }
        if cycle < cycles:
            chosen = selections[cycle] if selections else rng.permutation(1000)[:budget]
            rows = [
                {"rank": i, "id": int(e), "key": f"k{e}", "file": f"{e}", "score": 0.5}
                for i, e in enumerate(chosen, start=1)
            ]
            records.write_selection(folder, cycle, rows)
            records.write_arrays(folder, cycle, selected=np.asarray(chosen, np.int64))
            record["acquisition"] = {
                "method": method,
                "budget": budget,
                "num_scored": 1000,
                "peak_bytes": 3 * 2**20,
                "engine": "ghost" if method == "eglpp" else None,
                "microbatch": None,
                "seconds": 2.0 + seed,
            }
            picked = selected[cycle] if selected else score / 2
            record["measures"] = {
                f"selected_{keys.key}": picked if len(rows) else None,
                f"pool_{keys.key}": score,
                "ranking_accuracy": 0.75 if method == "eglpp" else None,
                "chance_overlap": 0.1,
                "near_duplicates": 2,
            }
        records.write_cycle(folder, record)
    return folder


POSE = registry.labels_of("pose").KEYS


def metrics(score, keys=POSE):
    """Of a test on 1000 images; the first part is .05 above the mean, the second below.

    Poses are said to be scored as they are; other tasks have a name alone.
    """
    found = {
        keys.key: score,
        f"{keys.key}_name": keys.usual_name,
        keys.parts: {"first": score + 0.05, "second": score - 0.05},
        "num_images": 1000,
        keys.baseline: 0.2,
        "test_loss": 1.0,
    }
    if keys is POSE:
        found |= {
            "pck_name": "PCK@0.2",
            "pck_threshold": 0.2,
            "pck_reference": "torso",
            "pck_joints": "all",
            "pck_per_joint": {"head": score + 0.05, "neck": score - 0.05},
        }
    return found


def write_experiment(folder, scores, **options):
    """Runs `<folder>/<method>/<seed>` of scores[method][seed], a list by cycle."""
    for method, runs in scores.items():
        for seed, run in enumerate(runs):
            write_run(folder / method / str(seed), method, seed, run, **options)
    return folder
