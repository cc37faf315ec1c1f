"""What a run writes down, whatever happens to its pictures."""

import io
import types

import numpy as np
from PIL import Image

from jalpose.loop.recorder import Recorder
from jalpose.runtime.screen import Screen
from tests.support import small


def recorder(workdir):
    """A recorder of no run, and what it prints."""
    stream = io.StringIO()
    context = types.SimpleNamespace(config=small.configure())
    return Recorder(context, workdir, Screen(stream)), stream


def test_a_picture_that_cannot_be_drawn_ends_no_run(tmp_path):
    write, stream = recorder(tmp_path)

    def fail():
        raise ZeroDivisionError("division by zero")

    write._picture("chosen", fail, 3, 0)
    assert stream.getvalue() == (
        "warning: no picture 'chosen' of cycle 3: ZeroDivisionError: division by zero\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_picture_is_written_unless_there_is_nothing_to_draw(tmp_path):
    write, stream = recorder(tmp_path)
    write._picture("chosen", lambda: None, 0, 0)
    assert list(tmp_path.iterdir()) == []
    write._picture("test", lambda: np.full((4, 6, 3), 9, np.uint8), 1, 0)
    with Image.open(tmp_path / "pictures" / "cycle_01_test.png") as image:
        assert image.size == (6, 4)
    assert stream.getvalue() == ""
