"""Which installation a record is of: a number that the record and its folder both keep.

Files of the folder go by numbers of the record's rows: those of another record would be taken for its own. Standard
library only: `why` reads through here in milliseconds.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from blocklist.errors import RecordError
from blocklist.store import folders

NAME = "identity"
# What goes by numbers of the record, of `exports` the names: the published files may lie there too.
_BELONGS = ("approved", "cases", "columns", "decided", "delivery", "exports/*.frames", NAME, "kept", "snapshots")


def begin(connection: sqlite3.Connection) -> None:
    """Give a new record its number."""
    connection.execute("INSERT OR REPLACE INTO counter VALUES (?, ?)", (NAME, int.from_bytes(os.urandom(7))))


def keep(connection: sqlite3.Connection, state: Path) -> None:
    """Have the record and its folder keep one number: the record's, else that of the folder, else a new one.

    A record has none that was made before there were such numbers, or of which the number was lost.
    """
    own = _of_record(connection)
    if own is None:
        known = _of_folder(state)
        if known is None:
            begin(connection)
        else:
            connection.execute("INSERT INTO counter VALUES (?, ?)", (NAME, known))
        own = _of_record(connection)
    if own != _of_folder(state):
        folders.put(state / NAME, f"{own}\n".encode())


def refuse_foreign(path: Path) -> None:
    """Raise RecordError where the record at `path` is of another installation than its folder."""
    if is_foreign(path):
        raise RecordError(f"{path} {words()}", hint=way_out(path))


def is_foreign(path: Path) -> bool:
    """Is the record at `path` of another installation than its folder? False where that can't be told."""
    known = _of_folder(path.parent)
    if known is None or not path.is_file():
        return False
    # Of a damaged schema SQLite may say what is no UTF-8.
    with (
        suppress(sqlite3.Error, UnicodeDecodeError),
        closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection,
    ):
        return _of_record(connection) not in (None, known)
    return False


def words() -> str:
    """What is wrong with such a record."""
    return "is of another installation than the files beside it"


def way_out(path: Path) -> str:
    """What a person can do about it."""
    found = [what for what in _BELONGS if next(path.parent.glob(what), None) is not None]
    return (
        "put the record that belongs here back from its backup, or bring the whole folder of the other one along; "
        f"to go on with this record alone, move {', '.join(found)} out of {path.parent}"
    )


def _of_record(connection: sqlite3.Connection) -> int | None:
    try:
        row = connection.execute("SELECT value FROM counter WHERE name = ?", (NAME,)).fetchone()
    except sqlite3.OperationalError:
        return None  # of an early version, which had no counters
    return int(row[0]) if row is not None else None


def _of_folder(state: Path) -> int | None:
    try:
        return int((state / NAME).read_bytes())
    except (OSError, ValueError):
        return None
