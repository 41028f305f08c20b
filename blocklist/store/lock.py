"""One writer at a time: an advisory lock on a file that says who holds it."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from blocklist import clock
from blocklist.errors import LockedError, RecordError


class Lock:
    """Hold `state/lock` for the length of a `with` block.

    The kernel frees the lock when its process ends, however that was; a file left by a dead process is taken
    over, and `told` hears of it. Raises LockedError, naming process and since when, after `wait` seconds.
    """

    def __init__(
        self, state: Path, command: str, *, wait: float = 0.0, told: Callable[[str], None] | None = None
    ) -> None:
        self._path = state / "lock"
        self._command = command
        self._wait = wait
        self._told = told
        self._fd: int | None = None

    def __enter__(self) -> Lock:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise RecordError(
                f"{self._path}: {error.strerror}",
                hint=f"blocklist needs to write to {self._path.parent}; check its owner and mode, or set 'state'",
            ) from None
        until = time.monotonic() + self._wait
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    holder = self._holder(fd)
                    os.close(fd)
                    raise LockedError(
                        f"the record in {self._path.parent} is in use by {holder}",
                        hint="wait for it to finish, or end that process",
                    ) from None
                time.sleep(0.1)
        left = os.pread(fd, 4096, 0)
        if left and self._told is not None:
            self._told(f"took over the lock that {self._holder(fd)} left behind")
        os.ftruncate(fd, 0)
        now = clock.text(clock.now())
        with suppress(OSError):  # a full disk: who holds it is a courtesy, and 'prune' must be able to make room
            os.pwrite(fd, json.dumps({"pid": os.getpid(), "since": now, "command": self._command}).encode(), 0)
        self._fd = fd
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None

    @staticmethod
    def _holder(fd: int) -> str:
        try:
            holder = json.loads(os.pread(fd, 4096, 0) or b"{}")
            return f"'blocklist {holder['command']}', process {holder['pid']}, since {holder['since']}"
        except (ValueError, KeyError, TypeError):
            return "another process"
