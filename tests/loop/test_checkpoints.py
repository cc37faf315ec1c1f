"""Checkpoints on disk: damaged states are set aside, models are read whole."""

import shutil
import threading
import warnings

import numpy as np
import pytest

from jalpose.loop import advance, saved_models, saved_states
from tests.support import small

CLOCK = {"seconds": 1.0}


def saved(folder):
    """A context, and two states of it saved in `folder`: their steps."""
    context = small.flat_context()
    state, steps = advance.start(context), []
    store = saved_states.StateStore(folder)
    for number in (1, 2):
        state, _ = advance.advance(state, context)
        store.save(number, state, CLOCK)
        steps.append(int(state.phase.train.step))
    store.close()
    return context, steps


def restored(folder, context):
    store = saved_states.StateStore(folder)
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


@pytest.mark.slow
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
    store = saved_states.StateStore(tmp_path)
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


# Models, read by others while the run is at work.


def weights(value):
    return {"a": np.full((64, 64), value), "b": {"c": np.full(3, value)}}


def test_a_model_written_anew_while_it_is_read_is_read_as_one_of_both(tmp_path):
    saved_models.save_model(tmp_path, 0, weights(0.0))

    def write():
        for value in range(1, 6):
            saved_models.save_model(tmp_path, 0, weights(float(value)))

    writer, found = threading.Thread(target=write), []
    writer.start()
    while writer.is_alive() or not found:
        model = saved_models.load_model(tmp_path, 0)
        found.append({*np.unique(model["a"]), *np.unique(model["b"]["c"])})
    writer.join()
    assert {len(values) for values in found} == {1}
    assert saved_models.load_model(tmp_path, 0)["a"][0, 0] == 5
    assert [path.name for path in (tmp_path / "checkpoints/models").iterdir()] == ["00"]


@pytest.mark.parametrize("half", ["mixed", "raises"])
def test_what_was_replaced_in_the_middle_of_reading_is_read_again(
    half, tmp_path, monkeypatch
):
    saved_models.save_model(tmp_path, 0, weights(0.0))
    load, times = saved_models._load, []

    def slow(path):
        times.append(path)
        if len(times) > 1:
            return load(path)
        saved_models.save_model(tmp_path, 0, weights(1.0))
        if half == "raises":
            raise FileNotFoundError("a part that is gone")
        return {**weights(1.0), "a": weights(0.0)["a"]}

    monkeypatch.setattr(saved_models, "_load", slow)
    assert np.unique(saved_models.load_model(tmp_path, 0)["a"]) == [1.0]
    assert len(times) == 2


def test_a_model_that_is_not_finished_is_none(tmp_path):
    saved_models.save_model(tmp_path, 0, weights(0.0))
    models = tmp_path / "checkpoints/models"
    for name in ("01.orbax-checkpoint-tmp-7", "01.new", "00.old"):
        shutil.copytree(models / "00", models / name)
    assert saved_models.cycles(tmp_path) == [0]
    assert saved_models.newest_model(tmp_path) == 0
    with pytest.raises(saved_models.CheckpointError, match="no model of cycle 1"):
        saved_models.load_model(tmp_path, 1)


def test_a_damaged_model_is_named(tmp_path):
    saved_models.save_model(tmp_path, 0, weights(0.0))
    for path in (tmp_path / "checkpoints/models/00").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.raises(saved_models.CheckpointError, match=r"cycle 0 at .* is damaged"):
        saved_models.load_model(tmp_path, 0)
