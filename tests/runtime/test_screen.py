import io
import threading
import types

import pytest

from jalpose.runtime import screen
from jalpose.runtime.screen import Screen


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    """The time as the screen has it."""

    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def lines(stream):
    return stream.getvalue().splitlines()


def test_plain_lines_tell_progress_and_the_time_left(clock):
    stream = io.StringIO()
    shown = Screen(stream, clock=clock)
    shown.progress("cycle 0 training", 10, 100, "loss 3.500")
    clock.now += 20.0
    shown.progress("cycle 0 training", 20, 100, "loss 3.000")
    clock.now += 20.0
    shown.progress("cycle 0 training", 30, 100)
    # 10 steps in 20 seconds: 80 more take 160; then 70 take 140.
    assert lines(stream) == [
        "cycle 0 training: 10/100, loss 3.500",
        "cycle 0 training: 20/100, 2 min 40 s left, loss 3.000",
        "cycle 0 training: 30/100, 2 min 20 s left",
    ]


def test_plain_lines_are_seldom_but_the_end_is_shown(clock):
    stream = io.StringIO()
    shown = Screen(stream, clock=clock)
    for done in range(1, 101):
        shown.progress("scoring", done, 100)
        clock.now += 1.0
    found = lines(stream)
    assert len(found) == 1 + 9 + 1  # the first, one in ten seconds, the last
    assert found[-1] == "scoring: 100/100, 0 s left"


def test_time_left_of_a_resumed_phase_counts_what_was_done_since(clock):
    stream = io.StringIO()
    shown = Screen(stream, clock=clock)
    shown.progress("training", 900, 1000)
    clock.now += 10.0
    shown.progress("training", 910, 1000)
    assert lines(stream)[-1] == "training: 910/1000, 1 min 30 s left"


@pytest.mark.parametrize("make", [io.StringIO, Terminal])
def test_no_progress_and_nothing_to_do_are_no_error(clock, make):
    shown = Screen(make(), clock=clock)
    shown.progress("scoring", 0, 10)
    clock.now += 20.0
    shown.progress("scoring", 0, 10)
    shown.progress("nothing", 0, 0)
    shown.end()
    shown.end()


@pytest.mark.parametrize("total", [8, 40])
def test_a_second_pass_of_the_same_name_begins_anew(clock, total):
    # EGL++ describes the pool, then the labelled set, under one name.
    stream = io.StringIO()
    shown = Screen(stream, clock=clock)
    shown.progress("cycle 0 describe", 4, 8)
    clock.now += 20.0
    shown.progress("cycle 0 describe", 8, 8)
    clock.now += 20.0
    shown.progress("cycle 0 describe", 2, total)
    clock.now += 20.0
    shown.progress("cycle 0 describe", 4, total)
    seconds = 10 * (total - 4)
    left = f"{seconds} s" if seconds < 60 else f"{seconds // 60} min 00 s"
    assert lines(stream)[2:] == [
        f"cycle 0 describe: 2/{total}",
        f"cycle 0 describe: 4/{total}, {left} left",
    ]


def test_no_bar_where_the_stream_is_no_terminal(clock):
    stream = io.StringIO()
    shown = Screen(stream, clock=clock)
    for done in (0, 5, 10):
        shown.progress("training", done, 10)
        clock.now += 20.0
    shown.end()
    assert "\r" not in stream.getvalue() and "█" not in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_bars_on_a_terminal():
    stream = Terminal()
    shown = Screen(stream)
    shown.progress("cycle 1 training", 0, 10, "loss 9.000")
    shown.progress("cycle 1 training", 5, 10, "loss 8.000")
    shown.line("a line above the bar")
    shown.progress("cycle 1 training", 10, 10, "loss 7.000")
    shown.end()
    text = stream.getvalue()
    assert "\r" in text and "cycle 1 training" in text
    assert "0/10" in text
    assert "a line above the bar\n" in text


def drawn(stream):
    """What a bar has shown, one state after the other."""
    return [text.strip() for text in stream.getvalue().rstrip("\r").split("\r")]


def test_a_bar_makes_way_for_the_next_phase():
    stream = Terminal()
    shown = Screen(stream)
    shown.progress("training", 10, 10)
    shown.progress("scoring", 3, 6)
    assert drawn(stream)[-1].startswith("scoring:") and "3/6" in drawn(stream)[-1]
    shown.progress("scoring", 2, 40)  # another pass of the same name
    assert "2/40" in drawn(stream)[-1]
    shown.end()
    assert drawn(stream)[-1] == ""  # wiped out
    shown.line("done")
    assert stream.getvalue().endswith("\rdone\n")


def test_lines_are_whole_and_at_once():
    flushed = []

    class Stream(io.StringIO):
        def flush(self):
            flushed.append(self.getvalue())

    Screen(Stream()).line("cycle 0: 40 labelled")
    assert flushed[-1] == "cycle 0: 40 labelled\n"


def watched(clock, look, seconds):
    """Look whenever the screen asks to, for so many seconds."""
    end = clock.now + seconds
    while (next_look := clock.now + max(look(), 0.01)) <= end:
        clock.now = next_look
    clock.now = end


def test_a_silent_phase_is_told_of_ever_more_seldom(clock):
    stream = io.StringIO()
    shown = Screen(stream, clock=clock)
    look = shown.watching("preparing the network", lambda: "compiling")
    watched(clock, look, 9.0)
    assert lines(stream) == []
    watched(clock, look, 191.0)
    # Silences of 10, 20, 40 and 80 seconds; one of 160 is not over.
    assert lines(stream) == [
        f"preparing the network: compiling, {past} so far"
        for past in ("10 s", "30 s", "1 min 10 s", "2 min 30 s")
    ]


def test_pieces_of_a_phase_that_end_soon_are_not_told_of(clock):
    stream = io.StringIO()
    shown = Screen(stream, clock=clock)
    for done in range(0, 120, 10):  # a training in pieces of four seconds
        shown.progress("cycle 0 training", done, 110)
        watched(clock, shown.watching("cycle 0 training and testing"), 4.0)
    assert len(lines(stream)) == 5
    assert all(line.startswith("cycle 0 training: ") for line in lines(stream))
    assert all(line.endswith(" left") for line in lines(stream)[1:])


def test_a_phase_in_long_pieces_is_told_of_once_and_from_its_beginning(clock):
    stream = io.StringIO()
    shown = Screen(stream, clock=clock)
    for done in (50, 100, 150):
        watched(clock, shown.watching("cycle 0 training and testing"), 15.0)
        shown.progress("cycle 0 training", done, 200)
    shown.line("cycle 0: 40 labelled")
    watched(clock, shown.watching("cycle 0 choosing"), 15.0)
    assert lines(stream) == [
        "cycle 0 training and testing: 10 s so far",
        "cycle 0 training: 50/200",
        "cycle 0 training: 100/200, 30 s left",
        "cycle 0 training: 150/200, 15 s left",
        "cycle 0: 40 labelled",
        "cycle 0 choosing: 10 s so far",
    ]


def test_silence_after_progress_is_told_of(clock):
    stream = io.StringIO()
    shown = Screen(stream, clock=clock)
    look = shown.watching("cycle 0 training and testing")
    shown.progress("cycle 0 training", 0, 10)
    clock.now += 5.0
    shown.progress("cycle 0 training", 5, 10)  # no line: the last is of just now
    watched(clock, look, 9.0)
    assert len(lines(stream)) == 1
    watched(clock, look, 2.0)
    assert lines(stream)[1:] == ["cycle 0 training and testing: 15 s so far"]


def test_a_bar_that_stands_still_says_for_how_long_and_keeps_its_note(clock):
    stream = Terminal()
    shown = Screen(stream, clock=clock)
    shown.progress("cycle 0 training", 5, 10, "loss 8.000")
    look = shown.watching("cycle 0 training and testing", lambda: "compiling")
    watched(clock, look, 1.9)
    assert "so far" not in stream.getvalue()
    watched(clock, look, 2.2)
    assert "loss 8.000, compiling, 4 s so far" in drawn(stream)[-1]
    shown.end()


def test_what_is_done_in_a_block_is_watched_until_it_ends(monkeypatch):
    monkeypatch.setattr(screen, "SILENT_SECONDS", 0.01)
    stream, said = io.StringIO(), threading.Event()

    def how():
        said.set()
        return "compiling"

    shown = Screen(stream)
    with shown.doing("cycle 0 training", how):
        assert said.wait(10)
    assert lines(stream)[0] == "cycle 0 training: compiling, 0 s so far"
    told = len(lines(stream))
    with Screen(stream, silent=True).doing("in silence", how):
        pass
    assert len(lines(stream)) == told


@pytest.mark.parametrize(("columns", "bars"), [(0, False), (80, True)])
def test_a_terminal_of_no_columns_gets_lines(monkeypatch, columns, bars):
    size = types.SimpleNamespace(columns=columns)
    monkeypatch.setattr(screen.os, "get_terminal_size", lambda number: size)
    monkeypatch.setattr(Terminal, "fileno", lambda self: 1, raising=False)
    stream = Terminal()
    shown = Screen(stream)
    shown.progress("training", 0, 10)
    shown.progress("training", 10, 10)
    assert ("\r" in stream.getvalue()) == bars
    if not bars:
        assert lines(stream)[-1] == "training: 10/10, 0 s left"
