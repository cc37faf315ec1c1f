"""Which examples play which part, and in what order they are read."""

import itertools
import logging
import re

import numpy as np
import pytest
from jalpose.tasks.pose.benchmarks import load_dataset

from jalpose.data import pipeline
from jalpose.data.crops import crop_image, to_crop
from jalpose.data.dataset import join_sources
from jalpose.data.source import DataError
from jalpose.settings.keys import default
from jalpose.tasks.pose.annotations import Annotations
from jalpose.tasks.pose.skeletons import ABSENT, LSP, VISIBLE
from tests.support.miniature import write_miniature

NUM_LSP, NUM_LSPET = 24, 9


@pytest.fixture(scope="module")
def miniature_data(tmp_path_factory):
    """The data section of a config for LSP and LSPET in miniature."""
    folder = tmp_path_factory.mktemp("miniature")
    write_miniature(folder, NUM_LSP, NUM_LSPET)
    data = default().data
    data.dir, data.cache_dir = str(folder), str(folder / "cache")
    data.initial = NUM_LSP // 2
    return data


@pytest.fixture(scope="module")
def people(miniature_data):
    return load_dataset(miniature_data, 0)


def figures_data(**changes):
    data = default().data
    data.name = "figures"
    data.update(changes)
    return data


def changed(data, **changes):
    copy = data.copy_and_resolve_references()
    copy.update(changes)
    return copy


# The parts of a benchmark.


def assert_disjoint(*parts):
    together = np.concatenate(parts)
    assert len(np.unique(together)) == len(together)
    assert all(part.dtype == np.int64 for part in parts)


def test_parts_of_the_figures(figures):
    assert [len(p) for p in (figures.initial, figures.pool, figures.test)] == [
        40,
        60,
        24,
    ]
    assert_disjoint(figures.initial, figures.pool, figures.test)
    assert len(figures.keys) == len(set(figures.keys)) == len(figures.windows) == 124
    assert figures.skeleton is LSP


def test_no_figure_is_drawn_twice(figures):
    joints = np.nan_to_num(figures.joints.reshape(len(figures.keys), -1))
    assert len(np.unique(joints, axis=0)) == len(joints)
    # The labelled are of common poses alone; the others of rare ones too.
    labelled, other = figures.sources
    assert not labelled.rare.any()
    assert 0.3 < other.rare.mean() < 0.9


def test_parts_of_lsp_and_lspet(people):
    # The first half of LSP, all of LSPET, and the second half of LSP.
    assert [people.keys[i] for i in people.initial[[0, -1]]] == [
        "lsp/im0001",
        "lsp/im0012",
    ]
    assert [people.keys[i] for i in people.test[[0, -1]]] == [
        "lsp/im0013",
        "lsp/im0024",
    ]
    assert [people.keys[i] for i in people.pool[[0, -1]]] == [
        "lspet/im00001",
        "lspet/im00009",
    ]
    assert_disjoint(people.initial, people.pool, people.test)
    assert len(people.initial) + len(people.pool) + len(people.test) == 24 + 9


def test_parts_can_be_smaller(miniature_data):
    data = changed(miniature_data, initial=11, pool=3, test=5)
    smaller = load_dataset(data, 0)
    assert [smaller.keys[i] for i in smaller.initial] == [
        f"lsp/im{n:04d}" for n in range(1, 12)
    ]
    assert [smaller.keys[i] for i in smaller.pool] == [
        f"lspet/im{n:05d}" for n in range(1, 4)
    ]
    assert [smaller.keys[i] for i in smaller.test] == [
        f"lsp/im{n:04d}" for n in range(13, 18)
    ]


def test_an_id_leads_to_its_image_and_labels(people):
    lsp, lspet = people.sources
    assert np.array_equal(people.image(5), lsp.image(5))
    assert np.array_equal(people.image(np.int64(NUM_LSP)), lspet.image(0))
    last = NUM_LSP + NUM_LSPET - 1
    assert np.array_equal(people.image(last), lspet.image(NUM_LSPET - 1))
    assert people.files[last] == "lspet/images/im00009.jpg"
    assert np.array_equal(
        people.joints[last], lspet.annotations.joints[-1], equal_nan=True
    )
    with pytest.raises(IndexError, match=f"no example {last + 1}: there are 33"):
        people.image(last + 1)


def test_about_a_tenth_is_held_out_whatever_the_seed():
    first, second = (
        load_dataset(figures_data(initial=1000, pool=10, test=10), seed)
        for seed in (0, 1)
    )
    held_out = first.held_out(first.initial)
    # 4 standard errors of a tenth of 1000 are 0.038.
    assert abs(held_out.mean() - 0.1) < 0.038
    assert not np.array_equal(first.joints, second.joints, equal_nan=True)
    assert np.array_equal(held_out, second.held_out(second.initial))
    # It is a property of each example, not of the set it is asked in.
    some = np.array([700, 3, 41, 3])
    assert np.array_equal(first.held_out(some), held_out[some])


def test_held_out_golden(people):
    # Must never change: resumed and compared runs would be of different splits.
    held_out = people.initial[people.held_out(people.initial)]
    names = [people.keys[i] for i in held_out]
    assert names == ["lsp/im0007", "lsp/im0008", "lsp/im0012"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"initial": 13}, "data.initial=13, but the first half of LSP has 12 examples"),
        ({"test": 13}, "data.test=13, but the second half of LSP has 12 examples"),
        ({"pool": 10}, "data.pool=10, but LSPET has 9 examples"),
        ({"crop": "box"}, "data.crop=box needs person boxes"),
    ],
)
def test_a_benchmark_too_small_for_the_config(miniature_data, changes, message):
    with pytest.raises(DataError, match=re.escape(message)):
        load_dataset(changed(miniature_data, **changes), 0)


@pytest.mark.parametrize("initial", [1, 2])
def test_too_few_to_hold_some_out(initial):
    message = (
        rf"of the {initial} examples labelled at the start \d fall into the held-out "
        r"tenth: choose a larger data\.initial"
    )
    with pytest.raises(DataError, match=message):
        load_dataset(figures_data(initial=initial, pool=5, test=5), 0)


class BareSource:
    """Black images of people without a joint but for those named."""

    skeleton = LSP

    def __init__(self, count, with_joints=()):
        joints = np.full((count, 14, 2), np.nan, np.float32)
        status = np.full((count, 14), ABSENT, np.int8)
        for index in with_joints:
            joints[index, 0], status[index, 0] = (8, 8), VISIBLE
        keys = tuple(f"bare/{n}" for n in range(count))
        self.annotations = Annotations(
            keys=keys,
            files=keys,
            joints=joints,
            status=status,
            boxes=np.tile(np.array([0, 0, 16, 16], np.float32), (count, 1)),
        )

    def image(self, index):
        return np.zeros((16, 16, 3), np.uint8)


@pytest.mark.parametrize("with_joints", [(), (45,)])
def test_no_labelled_joint_is_an_error(with_joints):
    # A joint in the pool does not help.
    message = "none of the 40 examples labelled at the start has an annotated joint"
    with pytest.raises(DataError, match=message):
        join_sources(
            [BareSource(50, with_joints)],
            initial=range(40),
            pool=range(40, 45),
            test=range(45, 50),
            crop="box",
            window=1.0,
        )


def test_one_labelled_joint_is_enough():
    join_sources(
        [BareSource(50, (3,))],
        initial=range(40),
        pool=range(40, 45),
        test=range(45, 50),
        crop="box",
        window=1.0,
    )


# Crops.


def test_a_crop_is_that_of_its_example(people):
    example = int(people.pool[2])
    source = pipeline.CropSource(people, np.array([4, example]), 32)
    row = source[1]
    window = people.windows[example]
    assert len(source) == 2
    assert repr(source) == "CropSource(2 examples, 32 px)"
    assert row["id"] == example
    assert np.array_equal(row["image"], crop_image(people.image(example), window, 32))
    there = people.status[example] != ABSENT
    expected = to_crop(people.joints[example], window, 32)
    np.testing.assert_allclose(row["joints"][there], expected[there], atol=1e-4)
    assert {name: (v.shape, str(v.dtype)) for name, v in row.items()} == {
        "image": ((32, 32, 3), "uint8"),
        "joints": ((14, 2), "float32"),
        "status": ((14,), "int8"),
        "id": ((), "int64"),
    }


def test_absent_joints_are_zero_in_a_batch_and_their_status_kept(people):
    source = pipeline.CropSource(people, people.pool, 32)
    (count, rows), *rest = pipeline.blocks_in_order(source, block=9, threads=2)
    assert count == 9
    assert not rest
    assert np.array_equal(rows["status"], people.status[people.pool])
    absent = rows["status"] == ABSENT
    assert absent.any()
    assert not absent.all()
    assert (rows["joints"][absent] == 0).all()
    assert (rows["joints"][~absent] != 0).any(axis=-1).all()
    assert np.isfinite(rows["joints"]).all()


# Order.


def batches(dataset, ids, *, batch=4, seed=0, position=0, threads=2):
    source = pipeline.CropSource(dataset, np.asarray(ids), 16)
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


def test_the_seed_decides_the_order(figures):
    ids = figures.pool[:10]
    orders = {
        seed: ids_of(take(batches(figures, ids, seed=seed), 5)).tolist()
        for seed in (0, 1, 2**31 - 1)
    }
    assert len({tuple(order) for order in orders.values()}) == 3
    again = ids_of(take(batches(figures, ids, threads=4), 5)).tolist()
    assert again == orders[0]


@pytest.mark.parametrize("position", [0, 1, 3, 7])
def test_a_restart_goes_on_where_the_other_stopped(figures, position):
    ids = figures.pool[:10]
    whole = take(batches(figures, ids), 9)
    rest = take(batches(figures, ids, position=position, threads=1), 9 - position)
    for expected, row in zip(whole[position:], rest, strict=True):
        for name, value in expected.items():
            assert np.array_equal(row[name], value)


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
    source = pipeline.CropSource(figures, ids, 16)
    blocks = list(pipeline.blocks_in_order(source, block=4, threads=2))
    assert [count for count, _ in blocks] == counts
    assert all(len(v) == 4 for _, rows in blocks for v in rows.values())
    real = [rows["id"][:count] for count, rows in blocks]
    assert np.concatenate([*real, []]).tolist() == ids.tolist()
    for count, rows in blocks:
        for value in rows.values():
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
