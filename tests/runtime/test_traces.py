"""Profiler traces: of which pieces of work, and that they can be read."""

import gzip
import io
import json

import pytest
from jalpose.loop.cycle import Event

from jalpose.loop import run
from jalpose.runtime.profiler import Traces
from jalpose.runtime.screen import Screen
from tests.support import small


def steps(step, stage="pose"):
    values = {"stage": stage, "step": step, "total": 3}
    return Event(kind="steps", cycle=0, values=values)


def scored(done):
    values = {"pass": "describe", "done": done, "total": 16}
    return Event(kind="scoring", cycle=0, values=values)


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


def go_through(traces, events):
    for event in events:
        with traces.piece():
            pass
        traces.saw(event)


def test_the_first_piece_of_a_kind_compiles_and_is_not_traced(traced):
    events = steps(1), steps(2), steps(3), scored(8), scored(16), steps(1), steps(3)
    go_through(Traces("t", 5), events)
    assert traced == [
        "t/steps_pose_0",
        "t/steps_pose_1",
        "t/scoring_describe_0",
        "t/steps_pose_2",
    ]


def test_no_more_pieces_than_asked_for_are_traced(traced):
    events = [steps(1), steps(2), steps(3), steps(1, "head"), steps(2, "head")]
    go_through(Traces("t", 1), [*events, *events])
    assert traced == ["t/steps_pose_0", "t/steps_head_0"]


def test_none_are_traced_unless_asked_for(traced):
    go_through(Traces("t", 0), [steps(1), steps(2), scored(8), scored(16)])
    assert traced == []


def test_a_run_leaves_traces_that_can_be_read(tmp_path):
    changes = {"output.trace": 1, "training.report_steps": 1, "loop.cycles": 0}
    run.run_one(small.flat_problem(changes), tmp_path, Screen(io.StringIO()))
    (trace,) = tmp_path.glob("traces/host_0/steps_pose_0/**/perfetto_trace.json.gz")
    with gzip.open(trace) as file:
        names = {event.get("name") for event in json.load(file)["traceEvents"]}
    assert any("_step_fn" in str(name) for name in names)
    assert list(trace.parent.glob("*.xplane.pb"))
