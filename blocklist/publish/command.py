"""A command of somebody else's: an argument list, a limit in time, its output bounded and made printable."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from selectors import EVENT_READ, DefaultSelector
from threading import current_thread, main_thread

import msgspec

from blocklist.credentials import without_secrets
from blocklist.interruption import postponed

# Enough for any diagnosis and little enough for a report.
_KEPT = 64 * 1024
_SHOWN_LINES, _SHOWN_COLUMNS = 12, 200
_PIECE = 1 << 18
# Seconds: how often a silent command is looked at, and how long its pipes stay open after its end.
_TICK, _GRACE = 0.1, 0.5
_running: set[subprocess.Popen[bytes]] = set()


class Outcome(msgspec.Struct, frozen=True):
    """How a command ended: its `status` (negative: the signal that ended it), or None when time ran out.

    `output` is standard error and, unless somebody else took it, standard output: the first and last 32 KiB.
    """

    status: int | None
    output: str

    def shown(self) -> str:
        """The end of the output for a person: printable ASCII, the last few lines of a bounded width."""
        lines = [line for line in map(_printable, self.output.splitlines()) if line.strip()]
        return "\n".join(f"  {line[:_SHOWN_COLUMNS]}" for line in lines[-_SHOWN_LINES:])


def _printable(line: str) -> str:
    return "".join(char if " " <= char <= "~" else "?" if char != "\t" else " " for char in line)


def run(argv: Sequence[str], *, seconds: float, take: Callable[[bytes], None] | None = None) -> Outcome:
    """Run `argv`, never through a shell, for at most `seconds`; then its whole process group is killed.

    `take` gets the pieces of its standard output. Raises OSError when the command can't be started.
    """
    kept, process = _Kept(), None
    try:
        # A signal that came while it is started would leave it to itself. Only the main thread hears any.
        with postponed() if current_thread() is main_thread() else nullcontext():
            process = subprocess.Popen(  # the group is what can be killed with its children
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=without_secrets(),
                start_new_session=True,
            )
            _running.add(process)
        on_time = _pump(process, time.monotonic() + seconds, kept, take)
        return Outcome(process.returncode if on_time else None, kept.text())
    finally:
        if process is not None:
            _running.discard(process)
            _end(process)


def end_all() -> None:
    """Kill every command that is running in any thread: an interrupted run must not wait for its checkers."""
    for process in list(_running):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _pump(process: subprocess.Popen[bytes], deadline: float, kept: _Kept, take: Callable[[bytes], None] | None) -> bool:
    """Read until both streams and the process have ended; False when the deadline came first."""
    assert process.stdout is not None and process.stderr is not None
    with DefaultSelector() as selector:
        selector.register(process.stdout, EVENT_READ, take or kept.add)
        selector.register(process.stderr, EVENT_READ, kept.add)
        ended: float | None = None
        while selector.get_map() and (now := time.monotonic()) < deadline:
            ready = selector.select(min(deadline - now, _TICK))
            # A command that leaves a child with our pipe must not hold us: its own end is what counts.
            if not ready and process.poll() is not None:
                ended = ended or now
                if now - ended > _GRACE:
                    break
            for key, _ in ready:
                if piece := os.read(key.fd, _PIECE):
                    key.data(piece)
                else:
                    selector.unregister(key.fileobj)
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the group that we started, and collect it."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


class _Kept:
    """The beginning and the end of a stream, whatever its length."""

    def __init__(self) -> None:
        self.head = b""
        self.tail = b""

    def add(self, piece: bytes) -> None:
        room = _KEPT // 2 - len(self.head)
        self.head += piece[:room]
        self.tail = (self.tail + piece[room:])[-_KEPT // 2 :]

    def text(self) -> str:
        return (self.head + self.tail).decode("utf-8", "replace")
