"""A record that is missing where one has been: told by what only a record leaves in its folder.

Standard library only: `why` reads through here in milliseconds.
"""

from __future__ import annotations

import errno
from pathlib import Path

from blocklist.errors import RecordError
from blocklist.store import folders

# A run that was killed before it had a record leaves downloads, caches of them, a lock and `record.db.new`: none of
# these is here. Of `exports` the names, since `state` may be the folder in which the published files lie too.
_LEFT = (
    "record.db-wal",
    "record-*.db",
    "record.db.damaged-*",
    "kept",
    "decided",
    "exports/*.frames",
    "approved",
    "cases",
    "delivery",
)


def present(path: Path) -> bool:
    """Is something at `path`? Raises OSError where that can't be seen; from Python 3.14 on `exists` says no there."""
    try:
        path.stat()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        return False
    return True


def left_of(path: Path) -> list[str]:
    """What a record at `path` has left in its folder, as words for a shell there. Empty where there never was one."""
    return [what for what in _LEFT if next(path.parent.glob(what), None) is not None]


def mark(path: Path) -> None:
    """Leave something of the record at `path` from its first moment on, whatever it holds and publishes."""
    folders.make(path.parent / "kept")


def refuse_lost(path: Path) -> None:
    """Raise RecordError where the record at `path` is missing and was there: a new one would know none of its rules."""
    if not present(path) and left_of(path):
        raise RecordError(f"{path} {words_for(path)}", hint=way_out(path))


def words_for(path: Path) -> str:
    """What is wrong with the record that is missing at `path`."""
    return f"is missing, but one was there and has left {', '.join(_beside(path))}"


def way_out(path: Path) -> str:
    """What a person can do where the record at `path` is missing, or is beyond repair."""
    folder = path.parent
    copies = sorted(p.name for p in (*folder.glob("record-*.db"), *folder.glob("record.db.damaged-*Z")))
    beside = f"; beside it lie {', '.join(copies[:5])}" if copies else ""
    # SQLite would write it over the backup.
    journal = "; remove record.db-wal first" if path.with_name(path.name + "-wal").exists() else ""
    away = "these" if not path.exists() else ", ".join(["it", *_beside(path)])
    return (
        f"restore it from a backup{beside}{journal}. 'doctor --repair' can't make one: rules, released holds, history "
        f"and the log stood in it alone. To begin anew without them, move {away} out of {folder} and run 'blocklist "
        "update': every feed is asked again, listed from that day on, and exported without your rules"
    )


def _beside(path: Path) -> list[str]:
    downloads = sum(1 for _ in (path.parent / "snapshots").glob("[0-9]*/*.zst"))
    return [*left_of(path), *([f"snapshots ({downloads:,} downloads)"] if downloads else [])]
