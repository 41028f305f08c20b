"""What the system grants a process of memory, threads and open files; what to say when that is not enough."""

from __future__ import annotations

import errno
import resource
from typing import Final

from blocklist.errors import BlocklistError

_FILES: Final = "let it open more files: 'ulimit -n', or LimitNOFILE= of a systemd service"
# In the words of Python, of the column library, which panics, and of fork(2).
_NO_THREAD: Final = ("can't start new thread", "spawn", "Resource temporarily unavailable")
# What the column library and its threads reserve for a small record; they abort where they get no more.
_ADDRESSES: Final = 2 << 30


def too_many_files(error: OSError) -> bool:
    return error.errno in (errno.EMFILE, errno.ENFILE)


def way_out(error: OSError, otherwise: str) -> str:
    """The hint for `error`: no room on a disk helps a process that has too many files open."""
    return _FILES if too_many_files(error) else otherwise


def narrow() -> str | None:
    """A remark, where limits of memory are such that the column library may abort, which nobody can catch."""
    for kind, name in ((resource.RLIMIT_AS, "ulimit -v"), (resource.RLIMIT_DATA, "ulimit -d")):
        limit = resource.getrlimit(kind)[0]
        if limit != resource.RLIM_INFINITY and limit < _ADDRESSES:
            return (
                f"it may have {limit >> 20:,} MB of memory ('{name}'); the column library reserves "
                f"{_ADDRESSES >> 20:,} MB, of which it uses little, and where it gets no more it ends the run with "
                "'memory allocation failed'"
            )
    return None


def shortage_of(error: BaseException) -> BlocklistError | None:
    """The error in words, when the system granted too little; None when it says something else."""
    if isinstance(error, MemoryError):
        return BlocklistError(
            "memory ran out; nothing is half written",
            hint="grant it more ('ulimit -v' says how much), or let nothing else run beside it",
        )
    if isinstance(error, NameError) and error.name == "plr":
        # Polars itself only warns that its binary is missing, also where there was no memory to load it.
        return BlocklistError(
            "the column library (Polars) can't be loaded; nothing is half written",
            hint="grant it more memory ('ulimit -v' says how much); if that is not it, install blocklist again",
        )
    panicked = type(error).__name__ == "PanicException"
    if (panicked or isinstance(error, RuntimeError | BlockingIOError)) and any(w in str(error) for w in _NO_THREAD):
        return BlocklistError(
            "the system lets it start no more threads or processes; nothing is half written",
            hint="grant it more: 'ulimit -u' and 'ulimit -v', or TasksMax= of a systemd service; "
            "POLARS_MAX_THREADS=1 wants fewer",
        )
    if isinstance(error, OSError) and too_many_files(error):
        where = f"{error.filename}: " if error.filename is not None else ""
        return BlocklistError(f"{where}too many open files", hint=_FILES)
    return None
