"""The examples of `scripts/examples` run, and say what their first lines promise."""

import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "scripts" / "examples"


@pytest.fixture
def example(monkeypatch):
    """What imports an example by its name."""
    monkeypatch.syspath_prepend(str(FOLDER))
    names = [path.stem for path in FOLDER.glob("*.py")]
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.slow
def test_approximate_norms_are_compared_on_a_network_of_ones_own(example, capsys):
    found = example("are_approximate_norms_good_enough").main()
    # All of this network are linear maps and biases: conv_linear leaves nothing out.
    assert found["conv_linear"] == pytest.approx((1, 1), abs=1e-3)
    correlation, shared = found["goodfellow"]
    assert 0.5 < correlation < 1 + 1e-9
    assert 0.5 < shared <= 1
    assert "rank correlation" in capsys.readouterr().out


@pytest.mark.slow
def test_wrong_labels_come_first(example, capsys):
    share = example("which_labels_are_wrong").main()
    assert share > 0.5  # 0.1 by chance
    assert "longest gradients" in capsys.readouterr().out


@pytest.mark.slow
def test_the_images_to_label_next_are_listed(example, tmp_path, capsys):
    rows = example("which_images_next").main(str(tmp_path))
    assert [int(row["rank"]) for row in rows] == list(range(1, len(rows) + 1))
    assert len({row["id"] for row in rows}) == len(rows) == 8
    assert rows[0]["key"] in capsys.readouterr().out


@pytest.mark.slow
def test_a_verdict_ends_the_comparison(example, tmp_path, capsys):
    said = example("is_a_method_better").main(str(tmp_path))
    assert "random" in said[0]
    assert "3 paired seeds" in said[0]
    assert said[0] in capsys.readouterr().out
