"""Rows from files: what is read, and what is refused with its place."""

import re

import numpy as np
import pytest

from jalpose.data.source import DataError
from jalpose.loop import configs
from jalpose.settings.checks import ConfigError
from jalpose.tasks.regression import rows
from jalpose.tasks.regression.labels import KEYS, NumberLabels
from jalpose.tasks.regression.sources import load_dataset


def config_of(scale="tiny", **changes):
    delta = {key.replace("__", "."): value for key, value in changes.items()}
    config = configs.benchmark("curve", task="regression", delta=delta)(
        f"method=random,scale={scale}"
    )
    configs.check(config)
    return config


def write(folder, text):
    (folder / "houses.csv").write_text(text)
    return folder / "houses.csv"


def drawn_csv(folder, count=80, target=None, constant=False):
    draws = np.random.default_rng(0)
    found = draws.normal(size=(count, 3))
    if target is not None:
        found[:, 2] = target
    if constant:
        found[:, 0] = 7
    lines = [",".join(f"{value:.6g}" for value in row) for row in found]
    return found, write(folder, "\n".join(["area,age,price", *lines]) + "\n")


def test_a_csv_is_read_by_its_headings(tmp_path):
    found, path = drawn_csv(tmp_path)
    read = rows.read_csv(path)
    assert read.headings == ("area", "age") and read.name == "houses"
    np.testing.assert_allclose(read.inputs, found[:, :2], rtol=1e-4)
    np.testing.assert_allclose(read.targets, found[:, 2], rtol=1e-4)
    other = rows.read_csv(path, target="area", inputs=("price",))
    np.testing.assert_allclose(other.targets, found[:, 0], rtol=1e-4)
    assert other.headings == ("price",)
    path.write_text(path.read_text().replace(",", ";") + "\n;;\n")
    np.testing.assert_array_equal(rows.read_csv(path).inputs, read.inputs)


@pytest.mark.parametrize(
    "text, message",
    [
        ("a,b\n1,2\n3,big\n", "line 3 has 'big' as b"),
        ("a,b\n1,2\n,4\n", "line 3 has nothing as a"),
        ("a,b\n1,nan\n", "line 2 has 'nan' as b"),
        ("a,b\n1,2\n3\n", "line 3 has 1 cells"),
        ("a;b\n1;2,5\n", "line 2 has '2,5' as b"),
        ("a,b\n", "needs a line of headings and rows"),
        ("a,a\n1,2\n", "must have different names: a, a"),
        ("1,2\n3,4\n", "first line is numbers"),
        ("a\n1\n", "a is the target, and needs other inputs"),
        ("a,b\n" + "x,1\n" * 9, "and 4 more"),
    ],
)
def test_a_csv_that_is_no_table_of_numbers_is_refused(tmp_path, text, message):
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        rows.read_csv(write(tmp_path, text))
    assert "houses.csv" in str(caught.value)


def test_files_and_columns_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read as CSV"):
        rows.read_csv(tmp_path / "none.csv")
    _, path = drawn_csv(tmp_path)
    with pytest.raises(ConfigError, match=r"'prise'\. .*Did you mean 'price'\?"):
        rows.read_csv(path, target="prise")
    # What is text may stand in a column that nobody asks for.
    path = write(tmp_path, "name,a,b\nx,1,2\ny,3,4\n")
    assert rows.read_csv(path, inputs=("a",)).inputs.tolist() == [[1], [3]]
    with pytest.raises(DataError, match="names a column twice: a, a"):
        rows.read_csv(path, inputs=("a", "a"))


def test_a_dataset_of_rows(tmp_path):
    found, path = drawn_csv(tmp_path)
    config = config_of(
        data__name="csv",
        data__file=path.name,
        data__dir=str(tmp_path),
        data__initial=30,
    )
    data = load_dataset(config.data, 0)
    parts = (data.initial, data.pool, data.test)
    assert [len(ids) for ids in parts] == [30, 30, 20]
    assert len(np.unique(np.concatenate(parts))) == 80
    read = np.stack([data.crop(example, 1) for example in range(80)])
    assert read.dtype == np.float32 and read.shape == (80, 2)
    seen = read[np.concatenate([data.initial, data.pool])]
    np.testing.assert_allclose(seen.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(seen.std(axis=0), 1, atol=1e-5)
    np.testing.assert_allclose(data.truth["value"], found[:, 2], rtol=1e-4)
    other = load_dataset(config.data, 1)
    np.testing.assert_array_equal(other.test, data.test)
    assert set(other.initial) != set(data.initial)


@pytest.mark.parametrize(
    "options, changes, message",
    [
        ({"target": 3.0}, {}, "the target of the 30 rows .* constant, 3: "),
        ({"constant": True}, {}, "in every row as area"),
        (
            {},
            {"data__initial": 61},
            "data.initial=61, but what is left of HOUSES has 60",
        ),
        ({}, {"data__pool": 31}, "data.pool=31, but the pool of HOUSES has 30"),
        ({}, {"data__test": 21}, "data.test=21, but the test part of HOUSES has 20"),
    ],
)
def test_data_that_cannot_be_learnt_from_are_refused(
    tmp_path, options, changes, message
):
    _, path = drawn_csv(tmp_path, **options)
    given = {
        "data__name": "csv",
        "data__file": path.name,
        "data__dir": str(tmp_path),
        "data__initial": 30,
    }
    with pytest.raises(DataError, match=message):
        load_dataset(config_of(**{**given, **changes}).data, 0)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"data__name": "csv"}, "do not go together"),
        ({"data__file": "x.csv"}, "do not go together"),
        ({"data__target": "price"}, "is of data.name=csv alone"),
        ({"data__size": 8}, "rows have no sides"),
        ({"model__name": "resnet"}, "takes images, and regression has rows"),
        ({"data__test_share": 1.0}, "both excluded"),
        ({"model__hidden": (8, 0)}, "every width must be at least 1"),
    ],
)
def test_keys_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        config_of(**changes)


def test_shipped_and_drawn_rows():
    pytest.importorskip("sklearn", reason="scikit-learn, of the extra dev")
    found = rows.diabetes()
    assert found.inputs.shape == (442, 10) and found.targets.min() == 25
    data = load_dataset(config_of(data__name="diabetes").data, 0)
    assert len(data.test) == 110 and len(data.image(3)) == 10
    one, other = rows.curve(), rows.curve()
    np.testing.assert_array_equal(one.inputs, other.inputs)


def test_postures_of_an_arm_come_as_a_stream_with_tests_of_their_own():
    found = rows.arm()
    angles, stream = found.inputs, ~found.test
    assert angles.shape == (5000, 4) and found.test.sum() == 1000
    reach = np.cos(np.cumsum(angles, axis=1)).sum(axis=1)
    assert np.std(found.targets - reach) == pytest.approx(0.02, rel=0.05)
    far = np.abs(angles).max(axis=1) > 0.9
    assert far[stream].mean() < 0.15 < far[found.test].mean()
    # Neighbours of the stream are near copies, those of the test set are not.
    apart = np.linalg.norm(np.diff(angles, axis=0), axis=1)
    assert np.median(apart[stream[1:]]) < 0.1 < 0.3 < np.median(apart[found.test[1:]])
    lengths = np.diff(np.flatnonzero(np.r_[True, apart[stream[1:]] > 0.25, True]))
    longest = np.sort(lengths)[::-1][: len(lengths) // 10]
    assert longest.sum() > 0.4 * 4000

    data = load_dataset(config_of(data__name="arm").data, 0)
    np.testing.assert_array_equal(data.test, np.flatnonzero(found.test))
    assert not set(data.test) & {*data.initial, *data.pool}


def test_scores_of_numbers():
    labels = NumberLabels()
    true = {"value": np.array([0.0, 1, 2, 3, np.nan], np.float32)}
    said = {"value": np.array([0.0, 1, 2, 5, 9], np.float32)}
    score = labels.score(said, true)
    assert score.value == pytest.approx(1.0)
    assert (score.num_scored, score.num_left_out) == (4, 1)
    assert score.parts["highest"] == 2 and score.parts["lowest"] == 0
    assert score.more["explained_variance"] == pytest.approx(1 - 1 / 1.25)
    guess = labels.guess(true, None, None)
    assert guess["value"] == [1.5]
    base = labels.score(guess, true)
    assert base.more["explained_variance"] == pytest.approx(0)
    metrics = labels.metrics(score, base)
    assert metrics[KEYS.key] == 1 and not KEYS.higher_is_better
    assert "RMSE 1 on 4 test rows" in labels.summary(metrics)
    assert labels.verdicts(said, true)[3:] == ["off by +2", "not known"]
    with pytest.raises(ValueError, match="no row whose value"):
        labels.score(said, {"value": np.full(5, np.nan, np.float32)})
    row = {"value": np.float32(1)}
    tile = labels.draw(np.ones(3, np.float32), None, row, row, "a row")
    assert tile.dtype == np.uint8 and tile.shape[2] == 3
