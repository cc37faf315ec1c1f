"""Crops as they are read, and in what order."""

import dataclasses
import itertools
import logging
import types

import jax
import numpy as np
import pytest

from jalpose.data import pipeline
from jalpose.data.crops import crop_image, to_crop
from jalpose.data.packed import CropsInMemory, Rows
from jalpose.tasks.pose.skeletons import ABSENT
from tests.support import classes, small

# Crops.


def labels_of(data, ids, size=32):
    """Labels of crops of examples, as trainings see them."""
    return small.labels_of(data, np.asarray(ids), size)


def test_a_crop_is_that_of_its_example(people):
    ids = np.array([4, people.pool[2]])
    example = int(ids[1])
    source = pipeline.CropSource(people, ids, 32, labels_of(people, ids))
    row = source[1]
    window = people.windows[example]
    assert len(source) == 2
    assert repr(source) == "CropSource(2 examples, 32 px)"
    assert row["id"] == example
    assert np.array_equal(row["image"], crop_image(people.image(example), window, 32))
    there = people.truth["status"][example] != ABSENT
    expected = to_crop(people.truth["joints"][example], window, 32)
    joints = row["label"].pop("joints")
    np.testing.assert_allclose(joints[there], expected[there], atol=1e-4)
    assert (joints.shape, str(joints.dtype)) == ((14, 2), "float32")
    status = row["label"].pop("status")
    assert (status.shape, str(status.dtype)) == ((14,), "int8")
    assert row.pop("label") == {}
    assert {name: (v.shape, str(v.dtype)) for name, v in row.items()} == {
        "image": ((32, 32, 3), "uint8"),
        "id": ((), "int64"),
    }


def test_without_labels_a_crop_is_read_alone(people):
    row = pipeline.CropSource(people, people.pool, 32)[0]
    assert set(row) == {"image", "id"}


def test_a_part_of_a_source_keeps_image_and_label_together(people):
    source = pipeline.CropSource(
        people, people.pool, 32, labels_of(people, people.pool)
    )
    row, wanted = source.at(np.array([5, 2]))[1], source[2]
    assert row["id"] == wanted["id"]
    for name, values in wanted["label"].items():
        np.testing.assert_array_equal(row["label"][name], values)


def test_absent_joints_are_zero_in_a_batch_and_their_status_kept(people):
    source = pipeline.CropSource(
        people, people.pool, 32, labels_of(people, people.pool)
    )
    (count, rows), *rest = pipeline.blocks_in_order(source, block=9, threads=2)
    assert count == 9
    assert not rest
    joints, status = rows["label"]["joints"], rows["label"]["status"]
    assert np.array_equal(status, people.truth["status"][people.pool])
    absent = status == ABSENT
    assert absent.any()
    assert not absent.all()
    assert (joints[absent] == 0).all()
    assert (joints[~absent] != 0).any(axis=-1).all()
    assert np.isfinite(joints).all()


# Order.


def batches(dataset, ids, *, batch=4, seed=0, position=0, threads=2):
    ids = np.asarray(ids)
    source = pipeline.CropSource(dataset, ids, 16, labels_of(dataset, ids, 16))
    return pipeline.training_batches(
        source, batch=batch, seed=seed, position=position, threads=threads
    )


def take(iterator, count):
    return list(itertools.islice(iterator, count))


def ids_of(rows):
    return np.concatenate([row["id"] for row in rows])


def test_every_epoch_shows_each_example_once_in_a_new_order(figures):
    ids = figures.pool[:10]
    # Six epochs of 10 are 15 batches of 4: some reach over the end of an epoch.
    epochs = ids_of(take(batches(figures, ids), 15)).reshape(6, 10)
    for epoch in epochs:
        assert sorted(epoch) == list(ids)
    assert len(np.unique(epochs, axis=0)) == 6


@pytest.mark.slow
def test_the_seed_decides_the_order(figures):
    ids = figures.pool[:10]
    orders = {
        seed: ids_of(take(batches(figures, ids, seed=seed), 5)).tolist()
        for seed in (0, 1, 2**31 - 1)
    }
    assert len({tuple(order) for order in orders.values()}) == 3
    again = ids_of(take(batches(figures, ids, threads=4), 5)).tolist()
    assert again == orders[0]


@pytest.mark.slow
@pytest.mark.parametrize("position", [0, 1, 3, 7])
def test_a_restart_goes_on_where_the_other_stopped(figures, position):
    ids = figures.pool[:10]
    whole = take(batches(figures, ids), 9)
    rest = take(batches(figures, ids, position=position, threads=1), 9 - position)
    for expected, row in zip(whole[position:], rest, strict=True):
        jax.tree.map(np.testing.assert_array_equal, row, expected)


def test_one_example_fills_a_batch(figures):
    (row,) = take(batches(figures, [7]), 1)
    assert row["id"].tolist() == [7] * 4
    assert row["image"].shape == (4, 16, 16, 3)


@pytest.mark.parametrize(
    ("number", "counts"),
    [(10, [4, 4, 2]), (8, [4, 4]), (3, [3]), (1, [1]), (0, [])],
)
def test_blocks_hold_all_examples_in_order_and_copies_of_the_last(
    figures, number, counts
):
    ids = figures.pool[:number][::-1]
    source = pipeline.CropSource(figures, ids, 16, labels_of(figures, ids, 16))
    blocks = list(pipeline.blocks_in_order(source, block=4, threads=2))
    assert [count for count, _ in blocks] == counts
    assert all(len(v) == 4 for _, rows in blocks for v in jax.tree.leaves(rows))
    real = [rows["id"][:count] for count, rows in blocks]
    assert np.concatenate([*real, []]).tolist() == ids.tolist()
    for count, rows in blocks:
        for value in jax.tree.leaves(rows):
            assert all(np.array_equal(v, value[count - 1]) for v in value[count:])


@pytest.mark.parametrize("batch", [1, 3])
def test_batches_of_any_size_go_through_the_same_order(figures, batch):
    source = pipeline.CropSource(figures, figures.pool[:5], 16)

    def order(size, count):
        found = pipeline.training_batches(
            source, batch=size, seed=3, position=0, threads=1
        )
        rows = itertools.islice(found, count)
        return np.concatenate([row["id"] for row in rows]).tolist()

    assert order(batch, 12 // batch) == order(4, 3)


@pytest.mark.slow
def test_grain_has_nothing_to_warn_of(figures, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("absl"), "propagate", True)
    source = pipeline.CropSource(figures, figures.pool[:5], 16)
    for block, threads in itertools.product((1, 4, 16), (1, 4, 16)):
        list(pipeline.blocks_in_order(source, block=block, threads=threads))
        batches = pipeline.training_batches(
            source, batch=block, seed=0, position=0, threads=threads
        )
        next(batches)
    assert [record.getMessage() for record in caplog.records] == []


def test_ids_need_not_be_a_range(people):
    ids = np.array([30, 2, 17])
    source = pipeline.CropSource(people, ids, 16)
    ((_, rows),) = pipeline.blocks_in_order(source, block=4, threads=2)
    assert rows["id"].tolist() == [30, 2, 17, 17]
    image = crop_image(people.image(17), people.windows[17], 16)
    assert np.array_equal(rows["image"][2], image)


# Rows in memory.


def rows_of_set(limit):
    """A data set of rows made of crops: its dataset, read at once within a limit."""
    data = classes.dataset()

    def make(crops):
        return crops.reshape(len(crops), -1)[:, :7].astype(np.float32)

    rows = Rows(CropsInMemory(classes.SIZE, columns=7), make, 7, len(data.keys), limit)
    return dataclasses.replace(data, packed=rows)


@pytest.mark.slow
@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("rows", [None, (1, 3), (6, 3)])
def test_rows_in_memory_come_as_those_read_one_by_one(labelled, rows):
    ids = np.array([7, 3, 3, 51, 20, 8, 40, 2, 11])
    labels = {"label": np.arange(9) * 10} if labelled else None
    found = []
    for limit in (4 * 7 * classes.COUNT, 4 * 7 * classes.COUNT - 1):
        source = pipeline.CropSource(rows_of_set(limit), ids, classes.SIZE, labels)
        assert source.in_memory == (limit == 4 * 7 * classes.COUNT)
        trained = pipeline.training_batches(
            source, batch=7, seed=3, position=2, threads=1, rows=rows
        )
        blocks = pipeline.blocks_in_order(source, block=7, threads=1, rows=rows)
        found.append(
            [*itertools.islice(trained, 6), *(b for pair in blocks for b in pair)]
        )
    at_once, one_by_one = found
    assert len(at_once) == 10 and at_once[0]["image"].dtype == np.float32
    assert jax.tree.structure(at_once) == jax.tree.structure(one_by_one)
    leaves = [jax.tree.map(np.asarray, jax.tree.leaves(side)) for side in found]
    for one, other in zip(*leaves, strict=True):
        assert np.array_equal(one, other) and one.dtype == other.dtype


def test_rows_of_a_file_are_in_memory_and_images_are_not(figures):
    source = types.SimpleNamespace(rows=np.arange(12, dtype=np.float32).reshape(4, 3))
    source.annotations, source.image = range(4), lambda index: source.rows[index]
    data = dataclasses.replace(figures, sources=(source,), packed=None)
    twice = dataclasses.replace(data, sources=(source, source))
    assert data.in_memory(16) and twice.in_memory(16) and not figures.in_memory(16)
    assert np.array_equal(data.rows(np.array([3, 0, 3]), 16), source.rows[[3, 0, 3]])
    assert np.array_equal(twice.rows(np.array([5, 2]), 16), source.rows[[1, 2]])
