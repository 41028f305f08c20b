"""Folders below the state, whoever runs the command that first needs them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO


def make(folder: Path) -> None:
    """Make `folder` and what is missing above it; what root makes belongs to the owner of the folder it stands in.

    Root may run one command of an installation that a user of its own updates: a folder that only root can write
    to would stop that user's next update. Raises OSError, with the folder, where something else stands in its place.
    """
    if folder.is_dir():
        return
    make(folder.parent)
    try:
        folder.mkdir(exist_ok=True)  # another thread may have made it since
    except FileExistsError:
        # As of a disk that is not mounted: "File exists" would say the contrary of what is wrong.
        told = "is no folder, or a link to one that is not there"
        raise NotADirectoryError(errno.ENOTDIR, told, str(folder)) from None
    if os.geteuid() == 0:
        above = folder.parent.stat()
        with suppress(OSError):  # a share that knows no owners; 'doctor' names what belongs to others
            os.chown(folder, above.st_uid, above.st_gid)


def put(path: Path, data: bytes | Callable[[BinaryIO], object]) -> None:
    """Put a file of `data`, or of what that writes, in the place of `path`, whole and on disk, or leave that as it is.

    A process that is killed leaves `PATH.new`, which the next run removes. Raises OSError.
    """
    make(path.parent)
    beside = path.with_name(path.name + ".new")
    try:
        with beside.open("wb") as out:
            out.write(data) if isinstance(data, bytes) else data(out)
            out.flush()
            os.fsync(out.fileno())
        beside.rename(path)
    except OSError:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def of_others(state: Path) -> Iterator[tuple[Path, int]]:
    """Folders below `state` that belong to someone else than `state` does, and to whom."""
    owner = state.stat().st_uid
    for parent, names, _ in os.walk(state):
        for name in sorted(names):
            if (found := (Path(parent) / name).stat().st_uid) != owner:
                yield Path(parent) / name, found
