"""Reading of files that a person named: never a pipe, a socket or a device, which may keep a run waiting for ever."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


class NotAFileError(OSError):
    """`what`: `is a pipe, not a file` and the like."""

    def __init__(self, path: Path, mode: int) -> None:
        self.what = f"is {_KINDS.get(stat.S_IFMT(mode), 'a device')}, not a file"
        super().__init__(errno.EINVAL, self.what, str(path))


def open_regular(path: Path) -> int:
    """A descriptor of the file at `path`, for reading. Raises OSError, NotAFileError where it is something else."""
    # A FIFO would hang the run and a device may act on being opened, so look before opening; O_NONBLOCK and
    # the second look are for a file that is swapped in between.
    mode = path.stat().st_mode
    if stat.S_ISREG(mode):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode):
            return descriptor
        os.close(descriptor)
    raise NotAFileError(path, mode)


def read_regular(path: Path) -> bytes:
    """All of the file at `path`. Raises like `open_regular`."""
    with open(open_regular(path), "rb") as file:
        return file.read()
