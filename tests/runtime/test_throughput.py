"""The account of a cycle's throughput: what is counted, and what is waiting."""

import time

import jax
import jax.numpy as jnp
import pytest

from jalpose.runtime import throughput
from jalpose.runtime.throughput import Flow, rates


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only where a test lets them."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def let_pass(seconds):
        now[0] += seconds

    return let_pass


def reading(clock, seconds, items):
    for item in items:
        clock(seconds)
        yield item


def test_reading_is_waiting_and_working_is_not(clock):
    flow = Flow()
    for item in flow.through(reading(clock, 1.0, [3, 4]), images=lambda n: n):
        clock(item)
    assert flow == Flow(images=7, seconds=9.0, waiting=2.0)
    assert flow.take() == {"images": 7, "seconds": 9.0, "waiting": 2.0}
    assert flow == Flow()


def test_work_on_the_last_counts_where_no_more_are_asked_for(clock):
    flow = Flow()
    for item in flow.through(reading(clock, 1.0, [3, 4]), images=lambda n: n):
        clock(item)
        break
    assert flow == Flow(images=3, seconds=4.0, waiting=1.0)


def test_reading_while_the_devices_work_is_not_waiting(clock):
    flow, idle = Flow(), iter([True, False, True])
    read = reading(clock, 2.0, range(3))
    for _ in flow.through(read, images=lambda item: 1, idle=lambda: next(idle)):
        clock(0.5)
    assert flow == Flow(images=3, seconds=7.5, waiting=4.0)


def test_rates_of_nothing_are_none():
    assert rates(0, 0.0, 0.0) == {"images_per_second": None, "share_waiting": None}
    assert rates(30, 6.0, 1.5) == {"images_per_second": 5.0, "share_waiting": 0.25}


def test_compiling_is_counted_once():
    throughput.take_compiling()
    jax.jit(lambda x: jnp.sin(x) * 3.25)(jnp.ones(3)).block_until_ready()
    assert 0 < throughput.take_compiling() < 60
    assert throughput.take_compiling() == 0


def test_a_process_knows_its_peak():
    peaks = throughput.peak_bytes()
    assert peaks["process"] > 2**20
    assert peaks["device"] is None  # of a CPU


def test_it_is_known_while_something_is_compiled():
    heard = []
    found = jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: heard.append((event, throughput.compiling()))
    )
    assert found is None
    jax.jit(lambda x: x * 3 + heard.count(1))(jnp.float32(len(heard)))
    told = {event.rpartition("/")[2]: word for event, word in heard}
    # As each part ends: behind the lowering the compiler has the word, till its end.
    assert told["jaxpr_to_mlir_module_duration"] == "compiling"
    assert told["backend_compile_duration"] == throughput.compiling() == ""
