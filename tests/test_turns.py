"""Tests that measure time have the machine to themselves, as far as the other tests go."""

from __future__ import annotations

import fcntl
import threading
import time
from pathlib import Path

from turns import Turns


def is_free(path: Path, how: int) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_others_run_side_by_side_and_one_alone_waits_for_them_and_is_not_overtaken(tmp_path: Path) -> None:
    first, second, third = (Turns(tmp_path) for _ in range(3))
    door, room = tmp_path / "door", tmp_path / "room"
    inside, over = threading.Event(), threading.Event()

    def alone() -> None:
        with third.turn(alone=True):
            inside.set()
            assert over.wait(20)

    thread = threading.Thread(target=alone)
    with first.turn(alone=False), second.turn(alone=False):
        thread.start()
        until = time.monotonic() + 20
        while is_free(door, fcntl.LOCK_EX):
            assert time.monotonic() < until
        assert not inside.is_set()
    assert inside.wait(20)
    assert is_free(door, fcntl.LOCK_EX) and not is_free(room, fcntl.LOCK_SH)
    over.set()
    thread.join()
    with first.turn(alone=False):
        assert is_free(room, fcntl.LOCK_SH) and not is_free(room, fcntl.LOCK_EX)
