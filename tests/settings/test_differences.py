"""Configs as flat tables: what differs, and what it means for a run."""

from jalpose.settings import differences
from jalpose.settings.keys import common


def test_every_key_that_differs_has_a_line():
    old = {
        "training": {"budget": 100, "method": "eglpp", "options": {}},
        "seed": 1,
        "versions": {"jax": "1", "os": {"name": "x"}},
        "gone": None,
    }
    new = {
        "training": {"budget": 200, "method": "eglpp", "options": {"k": 3}},
        "seed": 1,
        "versions": {"jax": "2", "os": {"name": "y"}},
        "versions_too": [1, 2],
    }
    assert differences.differences(old, new, ignore=("versions",)) == [
        "gone: null -> (absent)",
        "training.budget: 100 -> 200",
        "training.options: {} -> (absent)",
        "training.options.k: (absent) -> 3",
        "versions_too: (absent) -> [1, 2]",
    ]
    assert differences.differences({"a": 1}, {"a": "1"}) == ['a: 1 -> "1"']


def test_infinities_are_those_of_a_record():
    record, now = {"clip": "inf", "rate": "nan"}, {"clip": float("inf")}
    assert differences.differences(record, now | {"rate": float("nan")}) == []


def test_a_record_without_a_task_is_of_poses():
    assert differences.modern({"seed": 1}) == {
        **differences.SINCE,
        "task": "pose",
        "seed": 1,
    }
    assert differences.differences({"seed": 1}, {"seed": 1, "task": "pose"}) == []


def test_a_record_from_before_a_measure_is_of_one_without_it():
    now = {"evaluation": {"train_score": False, "test_scores": False, "block": 8}}
    assert differences.differences({"evaluation": {"block": 8}}, now) == []
    now["evaluation"]["train_score"] = True
    found = differences.differences({"evaluation": {"block": 8}}, now)
    assert found == ["evaluation.train_score: false -> true"]


def test_a_key_that_went_makes_no_difference_where_it_did_what_is_done_now():
    key = "acquisition.learning_loss.sub_pool"
    used = {"method": "learning_loss"}
    old = {"acquisition": {**used, "learning_loss": {"sub_pool": 0, "steps": 3}}}
    now = {"acquisition": {**used, "learning_loss": {"steps": 3}}}
    assert differences.differences(old, now) == []
    old["acquisition"]["learning_loss"]["sub_pool"] = 50
    assert differences.differences(old, now) == [f"{key}: 50 -> (absent)"]


def test_a_plateau_makes_no_difference_where_none_is_used():
    old = {"training": {"schedule": "cosine", "plateau_patience": 5}}
    now = {"training": {"schedule": "cosine", "plateau_patience": 3}}
    now["training"]["plateau_reduces"] = "beyond"
    assert differences.differences(old, now) == []
    for config in (old, now):
        config["training"]["schedule"] = "plateau"
    assert differences.differences(old, now) == [
        "training.plateau_patience: 5 -> 3",
        'training.plateau_reduces: "at" -> "beyond"',
    ]


def test_keys_that_came_later_have_the_values_they_stand_for():
    old = {"training": {"learning_rate": 1e-3}}
    now = differences.plain(common())
    same = {**old, "task": "pose", "training": dict(now["training"])}
    same["training"] |= {"learning_rate": 1e-3, "plateau_reduces": "at"}
    known = {key for key in differences.SINCE if key.startswith("training.")}
    left_out = [f"training.{key}" for key in now["training"]]
    left_out = [key for key in left_out if key not in known]
    assert differences.differences(old, same, ignore=left_out) == []
    same["training"]["optimizer"] = "sgd"
    found = differences.differences(old, same, ignore=left_out)
    assert found == ['training.optimizer: "adam" -> "sgd"']
