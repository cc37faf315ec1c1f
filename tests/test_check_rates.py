"""False alarms of the checks on the real sets that are there: none."""

import importlib.util
from pathlib import Path

import pytest

from jalpose.tasks.pose import checks
from tests.support.miniature import real_data_dir

SCRIPT = Path(__file__).parents[1] / "scripts" / "check_rates.py"
FILES = {
    "lsp": "joints.mat",
    "lspet": "joints.mat",
    "mpii": "test_mpii.json",
    "coco": "annotations/person_keypoints_val2017.json",
}


@pytest.fixture(scope="module")
def rates():
    spec = importlib.util.spec_from_file_location("check_rates", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_alarm_is_counted_by_its_rule(rates, people):
    labels = people.sources[0].annotations
    doubled = type(labels)(
        keys=labels.keys,
        files=labels.files,
        joints=labels.joints * 2,
        status=labels.status,
    )
    folder = Path(people.sources[0].prepared_dir).parents[1]
    for told, spoken in ((labels, {}), (doubled, {"person outside", "set outside"})):
        read = rates.Readable(told, lambda file: folder / file)
        found = rates.alarms_of("mini", lambda read=read: read)
        assert (found.people, found.images) == (24, 24)
        assert {rule for rule, count in found.spoken.items() if count} == set(spoken)
        assert set(checks.RULES) < set(found.spoken)


@pytest.mark.data
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n == "lspet" else ()) for n in FILES],
)
def test_no_real_set_is_refused_or_warned_of(rates, name):
    root = real_data_dir(name, FILES[name])
    if root is None:
        pytest.skip("no real data")
    found = rates.alarms_of(name, lambda: rates.READERS[name](Path(root)))
    assert found.people > 0 and not any(found.spoken.values())
