"""Who of the processes that share the tests may run one now: any number side by side, or one alone."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path


class Turns:
    """The turns of all who have the same `folder`, each with an object of its own."""

    def __init__(self, folder: Path) -> None:
        self._door, self._room = ((folder / name).open("w") for name in ("door", "room"))

    @contextlib.contextmanager
    def turn(self, alone: bool) -> Iterator[None]:
        """Wait for a turn, and have it. Who waits to be alone keeps the door shut, so that nobody overtakes."""
        fcntl.flock(self._door, fcntl.LOCK_EX)
        fcntl.flock(self._room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(self._door, fcntl.LOCK_UN)
        try:
            yield
        finally:
            # By word, not by closing: a process that was forked meanwhile has the file too.
            fcntl.flock(self._room, fcntl.LOCK_UN)
