"""A program run to its end: how long it took and how much memory it held at most."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ran:
    """Seconds on the wall and of processor, peak resident bytes, bytes written to disk, both streams."""

    seconds: float
    cpu: float
    peak: int
    written: int
    status: int
    output: str


def run(argv: Sequence[str | Path], cwd: Path | None = None) -> Ran:
    """Run `argv`. The caller stays small: a child begins its life with the peak of the process that made it."""
    # What was written before, as the copies that are measured, is not this one's to wait for.
    os.sync()
    with tempfile.TemporaryFile() as out:
        started = time.perf_counter()
        process = subprocess.Popen(argv, stdout=out, stderr=subprocess.STDOUT, cwd=cwd)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        return Ran(
            seconds=seconds,
            cpu=usage.ru_utime + usage.ru_stime,
            peak=usage.ru_maxrss * 1024,
            written=usage.ru_oublock * 512,
            status=process.returncode,
            output=out.read().decode("utf-8", "replace"),
        )


def blocklist() -> Path:
    """The command that a user would run, of the same environment as this program."""
    return Path(sys.executable).with_name("blocklist")
