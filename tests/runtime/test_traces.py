"""Profiler traces: of which pieces of work, and that they can be read."""

import gzip
import io
import json

import pytest

from jalpose.loop import run
from jalpose.runtime.profiler import Traces
from jalpose.runtime.screen import Screen
from tests.support import small


@pytest.fixture
def traced(monkeypatch):
    """Names of the folders into which a trace was written."""
    names = []

    class Trace:
        def __init__(self, folder, **_):
            names.append(folder)

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            pass

    monkeypatch.setattr("jax.profiler.trace", Trace)
    return names


STEPS, HEAD, SCORING = "steps network", "steps head", "scoring describe"


def go_through(traces, kinds):
    """Pieces, of which each says what comes next."""
    for kind in kinds:
        with traces.piece():
            pass
        traces.next_is(kind)


def test_the_first_piece_of_a_kind_compiles_and_is_not_traced(traced):
    # Of three steps, of two blocks, and of two steps: "" after the last of them.
    go_through(Traces("t", 5), [STEPS, STEPS, "", SCORING, "", STEPS, ""])
    assert traced == [
        "t/steps_network_0",
        "t/steps_network_1",
        "t/scoring_describe_0",
        "t/steps_network_2",
    ]


def test_no_more_pieces_than_asked_for_are_traced(traced):
    kinds = [STEPS, STEPS, "", STEPS, HEAD, HEAD]
    go_through(Traces("t", 1), [*kinds, *kinds])
    assert traced == ["t/steps_network_0", "t/steps_head_0"]


def test_none_are_traced_unless_asked_for(traced):
    go_through(Traces("t", 0), [STEPS, STEPS, SCORING, ""])
    assert traced == []


@pytest.mark.slow
def test_a_run_says_which_piece_comes_next(traced, tmp_path):
    changes = {
        "output.trace": 9,
        "training.base_steps": 3,
        "training.cycle_steps": 1,
        "training.report_steps": 1,
        "acquisition.method": "softmax_entropy",
        "acquisition.pieces": 1,
        "loop.cycles": 1,
    }
    run.run_one(small.flat_context(changes), tmp_path, Screen(io.StringIO()))
    # Two of three steps; of the pool's two blocks the second, in scoring it and in
    # measuring it. The labelled, in five blocks, are described next: four of them.
    folder = f"{tmp_path}/traces/host_0"
    assert traced == [
        f"{folder}/{name}"
        for name in (
            "steps_network_0",
            "steps_network_1",
            "scoring_reduce_softmax_entropy_30_0_network_0",
            "measuring_describe_0",
            "measuring_describe_1",
            "measuring_describe_2",
            "measuring_describe_3",
            "measuring_describe_4",
        )
    ]


@pytest.mark.slow
def test_a_run_leaves_traces_that_can_be_read(tmp_path):
    changes = {"output.trace": 1, "training.report_steps": 1, "loop.cycles": 0}
    run.run_one(small.flat_context(changes), tmp_path, Screen(io.StringIO()))
    (trace,) = tmp_path.glob("traces/host_0/steps_network_0/**/perfetto_trace.json.gz")
    with gzip.open(trace) as file:
        names = {event.get("name") for event in json.load(file)["traceEvents"]}
    assert any("_step_fn" in str(name) for name in names)
    assert list(trace.parent.glob("*.xplane.pb"))
