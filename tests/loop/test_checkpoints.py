"""States that are damaged on disk: named, set aside, and the one before is used."""

import shutil
import warnings

import pytest

from jalpose.loop import advance, checkpoints
from tests.support import small

CLOCK = {"seconds": 1.0}


def saved(folder):
    """A context, and two states of it saved in `folder`: their steps."""
    context = small.flat_context()
    state, steps = advance.start(context), []
    store = checkpoints.StateStore(folder)
    for number in (1, 2):
        state, _ = advance.advance(state, context)
        store.save(number, state, CLOCK)
        steps.append(int(state.phase.train.step))
    store.close()
    return context, steps


def restored(folder, context):
    store = checkpoints.StateStore(folder)
    found = store.restore(context)
    store.close()
    return found


def largest(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("harm", ["flipped", "cut", "lost"])
def test_of_a_damaged_state_the_one_before_is_used(harm, tmp_path):
    context, steps = saved(tmp_path)
    victim = largest(tmp_path / "checkpoints/state/2")
    if harm == "flipped":
        flip(victim)
    elif harm == "cut":
        victim.write_bytes(victim.read_bytes()[:-1])
    else:
        victim.unlink()
    with pytest.warns(UserWarning, match=r"state/2.* is not as it was saved"):
        number, state, _ = restored(tmp_path, context)
    assert (number, int(state.phase.train.step)) == (1, steps[0])
    # Nothing is thrown away, and its number is free again.
    assert (tmp_path / "checkpoints/damaged_state_2").is_dir()
    store = checkpoints.StateStore(tmp_path)
    state, _ = advance.advance(state, context)
    store.save(2, state, CLOCK)
    store.close()
    assert restored(tmp_path, context)[0] == 2


def test_whole_states_are_used_and_told_of_nothing(tmp_path):
    context, steps = saved(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        number, state, _ = restored(tmp_path, context)
    assert (number, int(state.phase.train.step)) == (2, steps[1])
    sums = tmp_path / "checkpoints/state_sums"
    assert sorted(path.stem for path in sums.iterdir()) == ["1", "2"]


def test_a_state_whose_sums_were_not_written_yet_is_orbax_to_judge(tmp_path):
    context, _ = saved(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints/state_sums")
    assert restored(tmp_path, context)[0] == 2
