"""The sentence on top of a report and at the end of a run."""

import io
import re

import numpy as np
import pytest

from jalpose.loop import conclusion
from jalpose.report import comparison_tables, verdict
from jalpose.report import gather as gathering
from jalpose.report.gather import gather
from jalpose.runtime.screen import Screen
from jalpose.storage import records
from tests.support.recorded_runs import write_experiment, write_run

RISE = np.array([0.0, 0.05, 0.08])


def paired(folder, seeds, gains, noise=0.002, **options):
    """Random and methods so far above it at the end, from shared base models."""
    rng = np.random.default_rng(0)
    base = 0.5 + rng.normal(0, 0.01, (seeds, 1)) + RISE
    share = np.array([0.0, 0.5, 1.0])
    scores = {"random": base.tolist()}
    for method, gain in gains.items():
        own = base + gain * share + rng.normal(0, noise, base.shape) * (share > 0)
        scores[method] = own.tolist()
    return gather([write_experiment(folder, scores, **options)])


def test_what_is_significant_is_said_with_its_evidence(tmp_path):
    found = paired(tmp_path, 5, {"eglpp": 0.04, "coreset": 0.0, "lcmd": -0.04})
    said = verdict.judge(found)
    row = comparison_tables.area_table(found).rows
    ours = next(r for r in row if r["method"] == "eglpp")
    assert said.method == "eglpp"
    assert said.sentence == (
        "eglpp is significantly better than random: its mean PCK@0.2 over 1000 to 1200 "
        f"labels is {ours['difference']:.2f} points above random's (95 % interval "
        f"{ours['interval'].low:+.2f} to {ours['interval'].high:+.2f}, uncorrected; "
        f"p = {ours['holm']} after Holm's correction over 3 methods; 5 paired seeds); "
        "significantly worse: lcmd."
    ).replace(f"p = {ours['holm']}", _p(ours["holm"]))
    saved = comparison_tables.saved_table(found).rows
    ours = next(r for r in saved if r["method"] == "eglpp")
    assert said.saved == (
        f"Labels saved at random's final PCK@0.2 ({ours['target']:.1f} % with 1200 "
        f"labels): {ours['saved']:.0f} (95 % interval {ours['interval'].low:.0f} to "
        f"{ours['interval'].high:.0f}, seeds resampled)."
    )
    assert said.warnings == ()


def _p(value):
    text = format(value)
    return f"p {'< 0.001' if text.startswith('<') else f'= {text}'}"


def test_a_reference_that_was_there_before_is_said_to_have_been(tmp_path):
    rise = np.array([0.0, 0.06, 0.04, 0.05])
    base = 0.5 + np.random.default_rng(1).normal(0, 0.01, (5, 1)) + rise
    ours = base + np.array([0.0, 0.04, 0.06, 0.06])
    scores = {"random": base.tolist(), "coreset": ours.tolist()}
    found = gather([write_experiment(tmp_path, scores)])
    (row,) = comparison_tables.saved_table(found).rows
    # 5 points by 6 of the first hundred; ours has 10 with them.
    assert row["reference"] == pytest.approx(1000 + 100 * 5 / 6)
    assert row["needed"] == pytest.approx(1000 + 100 * 5 / 10)
    said = verdict.judge(found).saved
    assert " with 1300 labels, which it first has with 1083): 33 (95 % interval" in said


def test_what_is_not_shown_is_not_claimed(tmp_path):
    noisy = {"eglpp": 0.004, "coreset": 0.0}
    said = verdict.judge(paired(tmp_path, 6, noisy, noise=0.02))
    assert re.match("No method is (shown to be better than|ahead of)", said.sentence)
    assert "would have been found with 80 % power" in said.notes[-1]


def test_one_method_needs_no_correction(tmp_path):
    sentence = verdict.judge(paired(tmp_path, 5, {"eglpp": -0.04})).sentence
    assert sentence.startswith("eglpp is significantly worse than random: its mean")
    assert "below random's (95 % interval -" in sentence and "Holm" not in sentence


@pytest.mark.parametrize(("seeds", "words"), [(1, "One seed"), (2, "2 seeds")])
def test_of_few_seeds_there_is_no_test(tmp_path, seeds, words):
    said = verdict.judge(paired(tmp_path, seeds, {"eglpp": 0.04, "coreset": 0.0}))
    assert said.sentence.startswith(
        f"{words}: no test is possible. eglpp has the best mean PCK@0.2 over 1000 to "
        "1200 labels, "
    )
    assert said.sentence.endswith(" points above random's, which may be chance.")
    assert "significant" not in " ".join((said.sentence, *said.notes))
    assert "interval" not in said.saved


def test_p_values_of_three_seeds_are_called_fragile(tmp_path):
    said = verdict.judge(paired(tmp_path, 3, {"eglpp": 0.04}))
    assert "p-values of 3 seeds are fragile." in said.warnings


def test_a_single_run_is_compared_with_nothing(tmp_path):
    write_run(tmp_path, "eglpp", 0, (0.5, 0.55, 0.62))
    said = verdict.judge(gather([tmp_path]))
    assert said.sentence == (
        "eglpp alone, 1 seed: PCK@0.2 50.0 % with 1000 labels, 62.0 % with 1200; there "
        "is no method to compare with."
    )
    assert said.saved == "" and said.notes == ()


def test_a_network_below_the_mean_pose_is_warned_of(tmp_path):
    scores = {"random": [(0.1, 0.12, 0.15)], "eglpp": [(0.1, 0.15, 0.25)]}
    said = verdict.judge(gather([write_experiment(tmp_path, scores)]))
    # The mean pose of made-up records has 20 %.
    (line,) = said.warnings
    assert line.startswith(
        "The networks of random are no better than the mean pose (20.0"
    )
    both = {"random": [(0.1, 0.12)], "eglpp": [(0.1, 0.15)]}
    said = verdict.judge(gather([write_experiment(tmp_path / "all", both)]))
    assert said.warnings[0].startswith("All networks are no better than the mean pose")


@pytest.mark.parametrize(("score", "short"), [(0.2, True), (0.95, False)])
def test_a_network_that_is_worse_with_all_labels_is_short_of_training(
    score, short, tmp_path
):
    paired(tmp_path, 3, {"eglpp": 0.02})
    changes = {"data.labelled": "all"}
    write_run(
        tmp_path / "full",
        "random",
        0,
        (score,),
        cycles=0,
        labelled=(2000,),
        changes=changes,
    )
    found = verdict.judge(gather([tmp_path]))
    said = [line for line in found.warnings if line.startswith("With all 2000 labels")]
    assert bool(said) == short
    assert not short or ("(20.0 %)" in said[0] and "short of training" in said[0])


def test_unfinished_runs_are_compared_where_most_pairs_are(tmp_path):
    scores = {
        "random": [(0.5, 0.55, 0.6), (0.5, 0.55)],
        "eglpp": [(0.5, 0.56, 0.62), (0.5, 0.57)],
    }
    said = verdict.judge(gather([write_experiment(tmp_path, scores, cycles=2)]))
    assert "over 1000 to 1100 labels" in said.sentence
    assert said.sentence.startswith("2 seeds: no test is possible.")
    assert any("this is how it stands at 1100 labels" in w for w in said.warnings)
    assert "at random's latest PCK@0.2 (55.0 % with 1100 labels): " in said.saved
    first = {"random": [(0.5,)], "eglpp": [(0.5,)]}
    said = verdict.judge(
        gather([write_experiment(tmp_path / "first", first, cycles=2)])
    )
    assert said.sentence == "There is nothing to compare with random yet."


def test_a_run_that_has_just_begun_cuts_no_verdict_short(tmp_path):
    curve = np.array([0.5, 0.55, 0.6, 0.62])
    seeds = 0.01 * np.arange(5)[:, None]
    noise = np.random.default_rng(0).normal(0, 0.002, (5, 1)) * (curve > 0.5)
    scores = {
        "random": (curve + seeds).tolist(),
        "eglpp": (curve + seeds + noise + 0.02 * (curve > 0.5)).tolist(),
        # One seed, far ahead with the first labels.
        "coreset": [[0.5, 0.75]],
    }
    found = gather([write_experiment(tmp_path, scores, cycles=3)])
    said = verdict.judge(found)
    assert said.sentence.startswith(
        "eglpp is significantly better than random: its mean PCK@0.2 over 1000 to 1300"
    )
    assert said.sentence.endswith("; not tested: coreset (0 paired seeds).")
    assert "this is how it stands at 1300 labels" in said.warnings[0]
    area = comparison_tables.area_table(found).rows
    ours = next(row for row in area if row["method"] == "eglpp")
    assert f" {ours['difference']:.2f} points above" in said.sentence
    assert "at random's final PCK@0.2 (64.0 % with 1300 labels): " in said.saved


def test_a_target_of_fewer_seeds_than_the_reference_has_is_said_to_be(tmp_path):
    scores = {
        "random": [(0.5, 0.55), (0.5, 0.55), (0.6, 0.65)],
        "eglpp": [(0.5, 0.6), (0.5, 0.6)],
    }
    said = verdict.judge(gather([write_experiment(tmp_path, scores)])).saved
    # 5 points of the 10 that eglpp has with a hundred labels more.
    assert said == (
        "Labels saved at random's final PCK@0.2 (55.0 % with 1100 labels, over the 2 "
        "paired seeds): 50."
    )


def test_a_lead_of_one_seed_hides_no_test_of_many(tmp_path):
    found = paired(tmp_path, 5, {"eglpp": 0.004, "lcmd": -0.04}, noise=0.02)
    write_run(tmp_path / "coreset", "coreset", 0, (0.5, 0.7, 0.9))
    said = verdict.judge(gather([tmp_path]))
    assert said.method == verdict.judge(found).method == "eglpp"
    assert said.sentence.startswith("No tested method is ahead of random: the nearest ")
    assert said.sentence.endswith("; not tested: coreset (1 paired seed).")


def test_a_control_that_is_ahead_is_said_to_be(tmp_path):
    paired(tmp_path, 4, {"eglpp": -0.01})
    still = {"labelled": [1000] * 3, "selections": [[]] * 2}
    for run in gather([tmp_path]).by("random"):
        scores = [r["metrics"]["pck"] + 0.03 * (r["cycle"] > 0) for r in run.cycles]
        scores[-1] += 0.001 * run.seed
        write_run(tmp_path / f"c{run.seed}", "control", run.seed, scores, **still)
    sentence = verdict.judge(gather([tmp_path])).sentence
    assert sentence.startswith("No method that buys labels is ahead of random: the ")
    assert "; significantly better: control; significantly worse: eglpp." in sentence


def test_methods_that_have_just_begun_are_not_said_to_buy_no_labels(tmp_path):
    write_run(tmp_path / "random", "random", 0, (0.5, 0.6, 0.7))
    write_run(tmp_path / "eglpp", "eglpp", 0, (0.5,), cycles=2)
    still = {"labelled": [1000] * 3, "selections": [[]] * 2}
    write_run(tmp_path / "control", "control", 0, (0.5, 0.5, 0.5), **still)
    said = verdict.judge(gather([tmp_path]))
    assert said.sentence == "There is nothing to compare with random yet."
    assert said.method is None


def test_a_lead_that_never_reaches_the_target_has_no_number(tmp_path):
    found = paired(tmp_path, 4, {"eglpp": -0.04})
    assert verdict.judge(found).saved.startswith("eglpp does not reach random's final")


def test_a_screen_ends_with_it(tmp_path):
    paired(tmp_path, 1, {"eglpp": 0.04})
    stream = io.StringIO()
    conclusion._say_verdict(tmp_path, Screen(stream))
    assert stream.getvalue().startswith("One seed: no test is possible. eglpp has a")
    assert max(map(len, stream.getvalue().splitlines())) <= 88
    conclusion._say_verdict(tmp_path / "none", Screen(stream))
    assert "warning: no verdict: " in stream.getvalue()


def test_the_lines_of_a_screen(tmp_path):
    paired(tmp_path, 1, {"eglpp": 0.04})
    first, saved = verdict.lines([tmp_path])
    assert first.startswith("One seed") and saved.startswith("Labels saved at random's")
    with pytest.raises(records.WorkdirError):
        verdict.lines([tmp_path / "none"])
    with pytest.raises(gathering.GatherError, match="unknown reference"):
        verdict.lines([tmp_path], "egl")
