"""The engine in several processes of this machine, each with sockets and windows of its own: one core is not enough.

Names are dealt out once, one share to each. Frames come back through a pipe as they are learned, so that a process
that is killed loses nothing that was handed over; what it still had to ask goes to another in its place.
"""

from __future__ import annotations

import asyncio
import io
import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import TYPE_CHECKING, Final

from blocklist import interruption
from blocklist.verify.loop import run
from blocklist.verify.results import Resolution, Summary, Tally
from blocklist.verify.task import Task, ask

if TYPE_CHECKING:
    import polars as pl

LOST: Final = 3  # processes lost in a row without a name settled, before the run gives up
LAST_WORDS: Final = 5.0  # seconds for what was learned when a run is interrupted


@dataclass(eq=False)
class _Child:
    names: list[str]
    process: SpawnProcess
    pipe: Connection
    settled: list[pl.Series] = field(default_factory=list)

    def unsettled(self) -> list[str]:
        done = {name for names in self.settled for name in names}
        return [name for name in self.names if name not in done]


def resolve_in(
    processes: int,
    names: Sequence[str],
    task: Task,
    *,
    on_batch: Callable[[pl.DataFrame], None] | None = None,
) -> Resolution:
    """`ask` in `processes` processes, which share the rate and the window of `task` among them.

    `on_batch` is called here, in the caller's process. On KeyboardInterrupt, or any error, what the processes have
    learned by then is handed over before it goes on.
    """
    return _Run(processes, names, task, on_batch).run()


class _Run:
    def __init__(
        self, processes: int, names: Sequence[str], task: Task, on_batch: Callable[[pl.DataFrame], None] | None
    ) -> None:
        # Fork would copy the threads of Polars in the middle of what they hold.
        self.context = multiprocessing.get_context("spawn")
        count = max(1, min(processes, len(names)))
        self.task = replace(
            task, rate=max(1, task.rate // count) if task.rate else 0, window=max(1, task.window // count)
        )
        self.started = time.monotonic()
        self.on_batch = on_batch
        self.tally = Tally(len(names), self.started)
        self.children: list[_Child] = []
        self.lost = self.lost_in_a_row = 0
        self.shares = [list(names[i::count]) for i in range(count)] if names else []

    def run(self) -> Resolution:
        try:
            for share in self.shares:
                self._start(share)
            while self.children:
                for pipe in wait([child.pipe for child in self.children]):
                    self._hear(next(child for child in self.children if child.pipe is pipe))
        except BaseException:
            self._interrupt()
            raise
        finally:
            for child in self.children:
                child.process.kill()
                child.process.join()
        notes = {"process": f"lost {self.lost} times, its names were asked again by another"} if self.lost else {}
        return self.tally.resolution(notes)

    def _start(self, names: list[str]) -> None:
        here, there = self.context.Pipe(duplex=False)
        task = self.task
        if task.seconds is not None:
            task = replace(task, seconds=task.seconds - (time.monotonic() - self.started))
        process = self.context.Process(target=_work, args=(there, names, task), daemon=True)
        with interruption.postponed():  # else it reads half of what it is to do, and says so
            process.start()
            there.close()
            self.children.append(_Child(names, process, here))

    def _hear(self, child: _Child) -> None:
        import polars as pl

        try:
            message = child.pipe.recv()
        except EOFError:
            self.children.remove(child)
            child.process.join()
            self._replace(child)
            return
        if isinstance(message, Summary):
            self.tally.add(message)
            self.children.remove(child)
            child.process.join()
        elif isinstance(message, BaseException):
            raise message
        else:
            frame = pl.read_ipc(io.BytesIO(message))
            child.settled.append(frame["name"])
            self.lost_in_a_row = 0
            self.tally.frames.append(frame)
            if self.on_batch is not None:
                self.on_batch(frame)

    def _replace(self, child: _Child) -> None:
        """Go on after a process that ended without a word."""
        self.lost += 1
        self.lost_in_a_row += 1
        if self.lost_in_a_row > LOST:
            self.tally.stopped = f"processes end by themselves (the last with {child.process.exitcode})"
        elif rest := child.unsettled():
            self._start(rest)

    def _interrupt(self) -> None:
        """Let the processes hand over what they have learned, for a while."""
        for child in self.children:
            with suppress(OSError, ValueError):
                child.process.terminate()
        until = time.monotonic() + LAST_WORDS
        on_batch, self.on_batch = self.on_batch, None
        while self.children and (left := until - time.monotonic()) > 0:
            for pipe in wait([child.pipe for child in self.children], left):
                child = next(child for child in self.children if child.pipe is pipe)
                try:
                    message = child.pipe.recv()
                except (EOFError, OSError):
                    self.children.remove(child)
                    child.process.join()
                    continue
                if isinstance(message, bytes) and on_batch is not None:
                    import polars as pl

                    on_batch(pl.read_ipc(io.BytesIO(message)))


def _work(pipe: Connection, names: list[str], task: Task) -> None:
    """In the process: frames as Arrow IPC, then the summary, or the error."""
    # Ctrl-C at a terminal reaches every process of the group; the parent says what is to be done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def send(frame: pl.DataFrame) -> None:
        data = io.BytesIO()
        frame.write_ipc(data)
        pipe.send(data.getvalue())

    async def work() -> Summary:
        current = asyncio.current_task()
        assert current is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, current.cancel)
        return (await ask(names, task, send)).summary

    try:
        pipe.send(run(work()))
    except (asyncio.CancelledError, BrokenPipeError):
        pass  # interrupted, or nobody is there to hear
    except Exception as error:
        pipe.send(error)
