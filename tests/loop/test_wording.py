"""What a run says of itself."""

import numpy as np
import pytest

from jalpose.loop import recorder, wording
from jalpose.loop.events import Passed
from jalpose.loop.state import CycleState, Done, Measuring, Scoring, Training
from jalpose.storage.journal import Journal
from jalpose.tasks.classification.labels import KEYS as CLASSES
from jalpose.tasks.pose.labels import KEYS_OF
from tests.support import small


def test_the_first_line_says_what_is_run_and_where():
    config = small.configure({"loop.compare": ("random",)})
    assert wording.begins(config, "runs/x") == (
        "runs/x: small, eglpp then random, scale tiny, seed 0, 2 choices of 8"
    )


@pytest.mark.parametrize(
    ("name", "measuring", "told"),
    [
        ("describe", False, "cycle 1 choosing, embeddings and outputs"),
        ("describe", True, "cycle 1 measuring the choice, embeddings and outputs"),
        ("norms", True, "cycle 1 measuring the choice, gradient norms"),
        ("reduce _peak network", False, "cycle 1 choosing, outputs"),
        ("neighbours", False, "cycle 1 choosing, neighbours"),
    ],
)
def test_passes_are_told_by_what_they_are_for(name, measuring, told):
    event = Passed(cycle=1, measuring=measuring, name=name, done=1, total=2)
    assert wording.passed(event) == told


def test_a_piece_of_work_has_a_name():
    ids = np.zeros(0, np.int64)
    phases = {
        "training and testing": Training(train=None),
        "choosing": Scoring(variables={}, journal=Journal()),
        "measuring the choice": Measuring(
            variables={}, journal=Journal(), chosen=ids, scores=ids
        ),
    }
    for told, phase in {**phases, "training and testing": Done(variables={})}.items():
        state = CycleState(cycle=2, labelled=ids, phase=phase)
        assert wording.doing(state) == f"cycle 2 {told}"


@pytest.mark.parametrize(
    ("keys", "score", "baseline", "told"),
    [
        (KEYS_OF["pck"], 0.015, 0.437, r"no better than the mean pose (1.5 to 43.7)"),
        (KEYS_OF["pck"], 0.5, 0.437, ""),
        (KEYS_OF["pixels"], 12.0, 9.0, r"no better than the mean pose (12 to 9)"),
        (KEYS_OF["pixels"], 8.0, 9.0, ""),
        (KEYS_OF["oks"], 0.0, 0.0, r"no better than the mean pose (0 to 0)"),
        (CLASSES, 0.1, 0.125, r"no better than the commonest class (10 to 12.5)"),
        (CLASSES, 0.1, None, ""),
    ],
)
def test_a_network_no_better_than_what_looks_at_no_image_is_warned_of(
    keys, score, baseline, told
):
    lines = wording.below_baseline(keys, {keys.key: score, keys.baseline: baseline})
    assert len(lines) == bool(told) and all(told in line for line in lines)


def test_without_a_score_the_csv_has_the_distance_of_the_pick():
    arrays = {
        "scores": np.array([np.nan, 0.5], np.float32),
        "pick_distance": np.array([2.0, 3.0], np.float32),
    }
    assert [recorder.score_of(arrays, row) for row in (0, 1)] == [2.0, 0.5]
    assert np.isnan(recorder.score_of({"scores": arrays["scores"]}, 0))
