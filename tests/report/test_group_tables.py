"""Which groups were chosen from: in records, and in the report."""

import dataclasses
import types

import numpy as np

from jalpose.data.dataset import join_sources
from jalpose.loop.recorder import group_numbers, groups_chosen
from jalpose.report.contents import make_tables
from jalpose.report.gather import gather
from jalpose.report.group_tables import SHOWN, groups_table
from jalpose.storage import records
from jalpose.tasks.pose.figures import FigureSource
from tests.support import fake_runs, small

DATA = small.dataset()


def test_records_count_the_pool_and_the_chosen_of_each_group():
    groups = tuple(f"video {n % 3}" for n in range(len(DATA.keys)))
    data = dataclasses.replace(DATA, groups=groups)
    chosen = data.pool[[0, 1, 3]]
    found = groups_chosen(data, chosen)
    for name, counts in found.items():
        assert counts == {
            "pool": sum(groups[i] == name for i in data.pool),
            "chosen": sum(groups[i] == name for i in chosen),
        }
    assert list(found) == ["video 0", "video 1", "video 2"]
    assert groups_chosen(DATA, chosen) == {}
    alone = dataclasses.replace(DATA, groups=DATA.files)
    assert groups_chosen(alone, chosen) == {}


def test_videos_come_before_groups_and_frames_of_none_are_left_out():
    videos = tuple("" if n % 4 == 3 else f"v{n % 4}" for n in range(len(DATA.keys)))
    groups = ("all",) * len(DATA.keys)
    data = dataclasses.replace(DATA, groups=groups, videos=videos)
    chosen = data.pool[:4]
    found = groups_chosen(data, chosen)
    assert list(found) == ["v0", "v1", "v2"]
    assert sum(counts["chosen"] for counts in found.values()) == 3
    numbers = group_numbers(data, chosen)
    names = [videos[i] for i in chosen.tolist()]
    wanted = [list(found).index(name) if name else -1 for name in names]
    assert numbers.tolist() == wanted and numbers.dtype == np.int32
    assert group_numbers(DATA, chosen) is None


def test_frames_of_drawn_sequences_have_their_sequence():
    source = FigureSource(7, 3, 0.5, image_size=32, start=4, frames=3)
    videos = source.annotations.videos
    assert [videos.count(name) for name in dict.fromkeys(videos)] == [3, 3, 1]
    alone = FigureSource(3, 3, 0.5, image_size=32)
    assert alone.annotations.videos is None
    parts = {"initial": [0], "pool": [1], "test": [2]}
    joined = join_sources([alone, source], **parts, truth={}, windows=None)
    assert joined.videos == ("", "", "", *videos)
    assert join_sources([alone], **parts, truth={}, windows=None).videos is None


def run_of(method, *choices):
    """A run that chose so many of each group in each cycle, of 10 of a and 4 of b."""
    sizes = {"a": 10, "b": 4}
    lines = [
        {
            "acquisition": {
                "groups": {
                    name: {"pool": sizes[name], "chosen": count}
                    for name, count in zip(sizes, counts, strict=True)
                }
            }
        }
        for counts in choices
    ]
    return types.SimpleNamespace(method=method, cycles=[*lines, {"acquisition": None}])


def gathered(*runs):
    methods = list(dict.fromkeys(run.method for run in runs))
    return types.SimpleNamespace(runs=runs, methods=methods)


def test_shares_of_groups_are_of_all_cycles_and_seeds():
    runs = [run_of("egl", (3, 1), (2, 0)), run_of("egl", (5, 0), (4, 0))]
    table = groups_table(gathered(*runs, run_of("random", (1, 1))))
    first, second, whole = table.rows
    assert (first["group"], first["pool"]) == ("a", 10)
    assert (first["egl"].mean, first["random"].mean) == (70, 10)
    assert (second["egl"].mean, second["random"].mean) == (12.5, 25)
    np.testing.assert_allclose(whole["egl"].mean, 100 * (6 / 14 + 9 / 14) / 2)
    assert whole["pool"] == 14


def test_of_many_groups_the_largest_are_shown():
    counts = {f"{n:03d}": {"pool": 100 - n, "chosen": 1} for n in range(SHOWN + 9)}
    line = {"acquisition": {"groups": counts}}
    run = types.SimpleNamespace(method="egl", cycles=[line])
    table = groups_table(gathered(run))
    assert [row["group"] for row in table.rows][:2] == ["000", "001"]
    assert len(table.rows) == SHOWN + 1 and table.rows[-1]["group"] == "all"
    assert f"The largest {SHOWN} of {SHOWN + 9}" in table.notes[-1]


def test_it_is_on_the_page_where_there_are_groups(tmp_path):
    folder = fake_runs.write_run(tmp_path / "egl", "egl", 0)
    names = [table.name for table in make_tables(gather([str(folder)]))]
    assert "groups" not in names
    for line in records.read_cycles(folder):
        if line["acquisition"]:
            line["acquisition"]["groups"] = {"day 1": {"pool": 30, "chosen": 6}}
            records.write_cycle(folder, line)
    (table,) = [
        table for table in make_tables(gather([str(folder)])) if table.name == "groups"
    ]
    assert table.rows[0]["egl"].mean == 40
