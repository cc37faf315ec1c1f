"""A disk that is full, for the writes of records and journal."""

import builtins
import errno
import io
import os


class Room:
    """Bytes that can still be written; below none there is no limit."""

    def __init__(self, left: int):
        self.left = left

    def take(self, wanted: int) -> int:
        """How much of it can be written, or OSError where nothing can."""
        taken = min(wanted, self.left)
        if wanted and not taken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.left -= taken
        return taken


def fill_disk(monkeypatch, left: int) -> Room:
    """Let no more than so many bytes be written, by `open` and by `os.pwrite`."""
    room = Room(left)

    class Limited(io.FileIO):
        def write(self, data):
            data = memoryview(data).cast("B")
            return super().write(data[: room.take(len(data))])

    def limited(file, mode="r", *arguments, **options):
        if mode != "xb":
            return opened(file, mode, *arguments, **options)
        return io.BufferedWriter(Limited(file, "x"))

    def pwrite(descriptor, data, place):
        return written(descriptor, data[: room.take(len(data))], place)

    opened, written = builtins.open, os.pwrite
    monkeypatch.setattr(builtins, "open", limited)
    monkeypatch.setattr(os, "pwrite", pwrite)
    return room
