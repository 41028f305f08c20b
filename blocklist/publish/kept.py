"""The bytes of every release, for as long as history is kept: patches of each other, as snapshots are.

`var/releases/` holds them; what each was made by is in the record for good, so that bytes that are gone can be
made again (`blocklist.publish.past`).
"""

from __future__ import annotations

import hashlib
import sqlite3
from datetime import datetime, timedelta
from pathlib import Path

from blocklist import clock
from blocklist.errors import RecordError
from blocklist.hunks import hunks
from blocklist.publish.settings import Common, Own, note
from blocklist.store import snapshots
from blocklist.store.record import Record
from blocklist.store.snapshots import Stored

FOLDER = "releases"


def keep(
    record: Record, release: int, sealed: Path, replaced: tuple[int, Path, str] | None, common: Common, own: Own
) -> None:
    """Keep the file `sealed` as the bytes of `release`, and what made it; before the file is put in its place.

    `replaced`: the release before it, its file and digest: most of a list is what it was. Where there is no room
    for the bytes, only what made them is written down: a list is not held back for that.
    """
    base = replaced[0] if replaced is not None else None
    stored: Stored | None
    try:
        stored = _write(record, release, sealed.read_bytes(), None if own.format.binary else replaced)
    except OSError:
        snapshots.file_of(record.state, release, FOLDER).unlink(missing_ok=True)
        stored = None
    with record.transaction() as connection:
        connection.execute(
            "INSERT OR REPLACE INTO release_file (release, common, own, base, depth, stored) VALUES (?, ?, ?, ?, ?, ?)",
            (
                release,
                note(connection, common),
                note(connection, own),
                base if stored is not None and stored.depth else None,
                stored.depth if stored is not None else 0,
                stored.stored if stored is not None else None,
            ),
        )


def _write(record: Record, release: int, data: bytes, replaced: tuple[int, Path, str] | None) -> Stored:
    snapshots.remove_unrecorded(record.state, _last(record.connection), FOLDER)
    before, changed, depth = None, None, 0
    if replaced is not None and (known := _depth(record, replaced[0])) is not None:
        before = _bytes(replaced[1], replaced[2])
        changed = hunks(before, data) if before is not None else None
        depth = known
    # With little in common, a patch would be sought for long and found large.
    return snapshots.write(
        record.state, release, data, before if changed is not None else None, depth, changed, folder=FOLDER
    )


def _last(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT coalesce(max(release), 0) FROM release_file").fetchone()[0])


def _depth(record: Record, release: int) -> int | None:
    """How deep in patches the bytes of `release` lie; None where a file of its chain is missing."""
    row = record.connection.execute(
        "SELECT depth FROM release_file WHERE release = ? AND stored IS NOT NULL", (release,)
    ).fetchone()
    links = _chain(record.connection, release) if row is not None else []
    whole = bool(links) and all(snapshots.file_of(record.state, link, FOLDER).exists() for link in links)
    return int(row[0]) if whole else None


def _bytes(path: Path, digest: str) -> bytes | None:
    try:
        data = path.read_bytes() if path.is_file() else b""
    except OSError:
        return None
    return data if hashlib.sha256(data).hexdigest() == digest else None


def _chain(connection: sqlite3.Connection, release: int) -> list[int]:
    links: list[int] = []
    at: int | None = release
    while at is not None:
        links.append(at)
        row = connection.execute("SELECT base FROM release_file WHERE release = ?", (at,)).fetchone()
        at = row[0] if row is not None else None
    return links[::-1]


def read(connection: sqlite3.Connection, state: Path, release: int) -> bytes | None:
    """The bytes of `release` as they were published; None where they are not kept (any more).

    Raises RecordError when they are kept and can't be read, or are not what their digest says.
    """
    row = connection.execute(
        "SELECT r.digest FROM release r JOIN release_file f ON f.release = r.id "
        "WHERE r.id = ? AND f.stored IS NOT NULL",
        (release,),
    ).fetchone()
    if row is None:
        return None
    data = snapshots.read(state, _chain(connection, release), FOLDER)
    if hashlib.sha256(data).hexdigest() != row[0]:
        raise RecordError(
            f"{snapshots.file_of(state, release, FOLDER)}: the kept bytes of release {release} are not what was "
            "published: their digest differs",
            hint="restore the folder 'releases' from a backup; the published lists themselves are not affected",
        )
    return data


def forget(record: Record, history: int, now: datetime) -> int:
    """Remove the bytes of releases older than `history` seconds; how many.

    The live ones stay, and what a kept patch is made on. What they were made by is never forgotten.
    """
    limit = clock.text(now - timedelta(seconds=history))
    rows = record.connection.execute(
        "SELECT f.release, f.base, r.state = 'live' OR r.created >= ? FROM release_file f "
        "JOIN release r ON r.id = f.release WHERE f.stored IS NOT NULL",
        (limit,),
    ).fetchall()
    bases = {release: base for release, base, _ in rows}
    needed: set[int] = set()
    for release, _, fresh in rows:
        at = release if fresh else None
        while at is not None and at not in needed:
            needed.add(at)
            at = bases.get(at)
    old = sorted(set(bases) - needed)
    if not old:
        return 0
    with record.transaction() as connection:
        connection.executemany("UPDATE release_file SET stored = NULL WHERE release = ?", ((n,) for n in old))
    for number in old:
        snapshots.file_of(record.state, number, FOLDER).unlink(missing_ok=True)
    return len(old)
