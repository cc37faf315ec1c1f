import json

import pytest

from jalpose.storage import cycles, records

WHOLE = {
    "cycle": 0,
    "num_labelled": 10,
    "seconds": 8.0,
    "metrics": {"pck": 0.5},
    "acquisition": {"method": "egl", "seconds": 3.0, "peak_bytes": 2**21},
    "measures": {"pearson": 0.1, "seconds": 2.0},
    "throughput": {"seconds_compiling": 1.0},
}
LAST = {"cycle": 1, "num_labelled": 20, "seconds": 4.0, "metrics": {}}


def test_where_things_stand():
    assert cycles.metrics(WHOLE)["pck"] == 0.5
    assert cycles.chose(WHOLE) and cycles.choices([WHOLE, LAST]) == [
        WHOLE["acquisition"]
    ]
    assert cycles.training_seconds(WHOLE) == 8.0
    assert cycles.choosing_seconds(WHOLE) == 3.0
    assert cycles.all_seconds(WHOLE) == 13.0
    assert cycles.measures(WHOLE)["pearson"] == 0.1
    assert cycles.throughput(WHOLE) == {"seconds_compiling": 1.0}
    assert cycles.peak_mib(WHOLE["acquisition"]) == 2.0


@pytest.mark.parametrize("missing", [{}, {"acquisition": None, "measures": None}])
def test_what_is_not_there_is_empty(missing):
    record = LAST | missing
    assert not cycles.chose(record)
    assert cycles.acquisition(record) == cycles.measures(record) == {}
    assert cycles.metrics(record) == cycles.throughput(record) == {}
    assert cycles.choosing_seconds(record) is None
    assert cycles.all_seconds(record) == 4.0
    assert cycles.all_seconds({}) == 0.0


def test_a_control_stands_beside_those_that_buy():
    control = [{"cycle": c, "num_labelled": 10} for c in range(3)]
    buys = [{"cycle": c, "num_labelled": 10 + c} for c in range(2)]
    assert cycles.most_labelled([control, buys]) == {0: 10, 1: 11, 2: 10}


def test_what_is_whole_is_read_beside_what_is_not(tmp_path):
    assert cycles.read_whole(tmp_path) == ([], [])
    again = LAST | {"seconds": 9}
    lines = [json.dumps(LAST), "{", json.dumps(WHOLE), json.dumps(again)]
    (tmp_path / records.CYCLES).write_text("\n".join(lines) + "\n")
    found, warnings = cycles.read_whole(tmp_path)
    assert found == [WHOLE, again]
    assert "cycles.jsonl:2 is damaged and left out" in warnings[0]
    assert "cycles.jsonl:4 repeats cycle 1: this line counts" in warnings[1]
