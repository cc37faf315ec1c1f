"""Benchmarks: which examples of which sets play which part."""

import re

import numpy as np
import pytest

from jalpose.data.source import DataError
from jalpose.loop.configs import default
from jalpose.tasks.pose.annotations import Annotations
from jalpose.tasks.pose.skeletons import ABSENT, LSP, VISIBLE
from jalpose.tasks.pose.sources import join, load_dataset
from tests.support.miniature import NUM_LSP, NUM_LSPET


def figures_data(**changes):
    data = default().data
    data.name = "figures"
    data.update(changes)
    return data


def changed(data, **changes):
    copy = data.copy_and_resolve_references()
    copy.update(changes)
    return copy


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
    assert figures.sources[0].skeleton is LSP


def test_no_figure_is_drawn_twice(figures):
    joints = np.nan_to_num(figures.truth["joints"].reshape(len(figures.keys), -1))
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
        people.truth["joints"][last], lspet.annotations.joints[-1], equal_nan=True
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
    assert not np.array_equal(
        first.truth["joints"], second.truth["joints"], equal_nan=True
    )
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
        r"tenth: choose a larger data\.initial, or training\.heldout=none"
    )
    found = load_dataset(figures_data(initial=initial, pool=5, test=5), 0)
    with pytest.raises(DataError, match=message):
        found.holding_out(True)
    assert not found.holding_out(False).held_out(found.initial).any()


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
        join(
            [BareSource(50, with_joints)],
            initial=range(40),
            pool=range(40, 45),
            test=range(45, 50),
            crop="box",
            window=1.0,
        )


def test_one_labelled_joint_is_enough():
    join(
        [BareSource(50, (3,))],
        initial=range(40),
        pool=range(40, 45),
        test=range(45, 50),
        crop="box",
        window=1.0,
    )
