"""Signals that end a run: Ctrl-C, and what systemd, `timeout` and a closed terminal send. The first is heard.

By themselves SIGTERM and SIGHUP end a process where it stands: a checker or reload command that it started goes on,
and temporary files stay. And a second signal breaks into the clearing up that the first began.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    import asyncio

_T = TypeVar("_T")
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Seconds for clearing up, in which no other is heard: a closed terminal sends two, a person who waits many.
_PATIENCE: Final = 10.0
_heard: signal.Signals | None = None
_at = 0.0
_task: asyncio.Task[Any] | None = None
_postponed = False


def listen() -> None:
    """From now on the first of these signals raises KeyboardInterrupt in the main thread; those that follow do nothing.

    What is ignored when the process starts, as SIGHUP under nohup, stays so.
    """
    for number in _ENDING:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _hear)


def heard() -> signal.Signals:
    """The signal that ended the run."""
    return _heard or signal.SIGINT


def wakeable() -> None:
    """From now on Ctrl-C breaks into waiting for threads: the column library, once imported, keeps it from that.

    Its own handler, which then calls ours, is set with SA_RESTART: a wait begins again before Python looks (signal(7)).
    """
    signal.siginterrupt(signal.SIGINT, True)


@contextmanager
def postponed() -> Iterator[None]:
    """A signal that comes within is told at the end: for what must not be left half done, and takes a moment."""
    global _postponed
    before, _postponed = _heard, True
    try:
        yield
    finally:
        _postponed = False
    if _heard is not before:
        raise KeyboardInterrupt


def run(main: Coroutine[Any, Any, _T], loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> _T:
    """`asyncio.run` in the main thread: a signal cancels `main`, as Ctrl-C does there; then KeyboardInterrupt."""
    import asyncio

    async def cancellable() -> _T:
        global _task
        _task = asyncio.current_task()
        try:
            return await main
        finally:
            _task = None

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        try:
            result = runner.run(cancellable())
        except asyncio.CancelledError:
            if _heard is None:
                raise
            raise KeyboardInterrupt from None
    if _heard is not None:  # and `main` came to its end all the same
        raise KeyboardInterrupt
    return result


def _hear(number: int, frame: FrameType | None) -> None:
    global _heard, _at
    if _heard is not None and time.monotonic() < _at + _PATIENCE:
        return
    _heard, _at = signal.Signals(number), time.monotonic()
    if _postponed:
        return
    if _task is None:
        raise KeyboardInterrupt
    _task.cancel()
    _task.get_loop().call_soon_threadsafe(lambda: None)  # which may be asleep
