"""What `--dry_run` shows: all that a run would do, and nothing is compiled for it."""

import dataclasses

import pytest

from jalpose.loop import dry_run, run
from jalpose.settings.checks import ConfigError
from jalpose.storage import records
from jalpose.training.trainer import Trainer
from tests.support import small


@pytest.fixture
def show(monkeypatch, capsys):
    """Show what a run of the small config with changes would do: the text."""
    monkeypatch.setattr(run, "load_dataset", small.drawn_dataset)
    monkeypatch.setattr(dry_run, "Programs", lambda mesh: small.programs(1))
    monkeypatch.setattr(Trainer, "lower_step", None)  # nothing is compiled

    def shown(workdir, **changes):
        dry_run.show(small.configure(changes), str(workdir))
        return capsys.readouterr().out

    return shown


@pytest.mark.slow
def test_everything_is_shown_and_nothing_written(show, tmp_path):
    changes = {"loop.compare": ("random",), "acquisition.budget": 15}
    text = show(tmp_path / "run", **changes)
    for part in (
        "\nseed = 0\n",
        "\ntraining.drop_epochs = ()\n",
        f"workdir: {tmp_path}/run, a new run",
        "40 labelled at the start",
        "cycle 0: 8 steps",
        "cycle 2: 4 steps",
        f"then random, from the same base model, into {tmp_path}/run/compare:\n"
        "cycle 0: the base model as it is\n",
        "a training step of 8 examples: about ",
        "gradient norms of 8 examples, one label each: about ",
        "warning: a cycle's picks are 15 of 16 images",
    ):
        assert part in text
    assert " 0 MiB" not in text and "0.00" not in text.rpartition("labelled")[2]
    assert list(tmp_path.iterdir()) == []


def test_a_workdir_of_another_run_is_refused_and_of_this_one_said(show, tmp_path):
    config = small.configure().to_dict()
    records.write_config(tmp_path, {"config": config})
    records.write_cycle(tmp_path, {"cycle": 0})
    assert "a run that goes on: 1 of 3 models" in show(tmp_path)
    with pytest.raises(records.WorkdirError, match="holds a run of another config"):
        show(tmp_path, **{"training.base_steps": 9})


@pytest.mark.slow
@pytest.mark.parametrize("oracle", ["folder", "auto"])
def test_a_run_that_will_ask_people_is_shown_and_asks_nobody(
    show, monkeypatch, tmp_path, oracle
):
    def without_labels(config):
        return dataclasses.replace(small.drawn_dataset(config), pool_labelled=False)

    monkeypatch.setattr(run, "load_dataset", without_labels)
    text = show(tmp_path / "run", **{"oracle.name": oracle})
    assert "cycle 2: 4 steps" in text
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match=r"set oracle\.name=folder, and people"):
        show(tmp_path / "run", **{"oracle.name": "simulated"})
