"""A damaged `record.db`: kept as it is, and a new one made of what can be read, of the log and of the downloads.

Nothing of it but its journal is changed in place: the new one is built beside, checked, synced and renamed by
`Record.transaction`, so that a repair that is killed has done nothing, and the next one begins again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path

from blocklist import clock
from blocklist.config import Config
from blocklist.errors import RecordError
from blocklist.finding import Finding
from blocklist.ingest.guard import guard
from blocklist.person import whoami
from blocklist.picture import Picture
from blocklist.repair import decided, downloads, listings, references, releases, salvage, texts
from blocklist.repair.account import Done, detail, findings
from blocklist.repair.decided import GivenBack
from blocklist.store import ledger
from blocklist.store.database import MIGRATIONS, applied, path_in
from blocklist.store.record import Record

_JOURNALS = ("", "-wal")
_SECOND = timedelta(seconds=1)


def troubles_of(state: Path) -> list[str]:
    """What SQLite says of the whole database, at most a hundred lines; of a sound one nothing."""
    path = path_in(state)
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=10)) as db:
            found = [str(row[0]) for row in db.execute("PRAGMA integrity_check(100)") if row[0] != "ok"]
            if not found:
                found = [
                    f"a row of {row[0]} names a {row[2]} that is not there"
                    for row in db.execute("PRAGMA foreign_key_check")
                ]
            found = found or (texts.faults(db) if _is_current(db) else [])
    except sqlite3.OperationalError as error:
        if "locked" in str(error) or "unable to open" in str(error):
            raise RecordError(
                f"{path}: {error}", hint="end the program that has it open; check owner and mode"
            ) from None
        return [str(error)]
    except salvage.UNREADABLE as error:
        return [str(error)]
    return found[:100]


def _is_current(db: sqlite3.Connection) -> bool:
    """Is it a record of this version? Of others nothing is known of what their texts should be."""
    tables = {row[0] for row in db.execute("SELECT name FROM sqlite_schema")}
    return "_sqlite_migrations" in tables and applied(db) == set(MIGRATIONS)


def repair(config: Config) -> Iterator[Finding]:
    """Make a new record of a damaged one. The caller holds the lock. Raises RecordError when nothing can be made."""
    state = config.state
    path = path_in(state)
    said = troubles_of(state)
    _require_room(path)
    copy = keep_damaged(path)
    yield Finding(
        "record", "fixed", str(copy), "the damaged database is kept here, as it is", "remove it when all is well"
    )
    _settle_journal(path)
    record = Record.anew(state)
    try:
        with record.transaction() as connection:
            done = _made(config, record, connection, said, copy)
            broken = [row[0] for row in connection.execute("PRAGMA integrity_check(3)") if row[0] != "ok"]
            if broken:
                raise RecordError(
                    f"{path}: what was read of it makes no sound database: {broken[0]}", hint="restore a backup"
                )
    finally:
        record.close()
    yield from findings(path, done)


def keep_damaged(path: Path) -> Path:
    """A copy of the database and its journal, beside and synced; the same one as before where it is there already."""
    for known in sorted(path.parent.glob(f"{path.name}.damaged-*Z")):
        if all(_digest(known, j) == _digest(path, j) for j in _JOURNALS):
            return known
    at = clock.now()
    copy = path.with_name(f"{path.name}.damaged-{at:%Y%m%dT%H%M%SZ}")
    while copy.exists():
        at += _SECOND
        copy = path.with_name(f"{path.name}.damaged-{at:%Y%m%dT%H%M%SZ}")
    sources = [path.with_name(path.name + journal) for journal in reversed(_JOURNALS)]
    copies = {s: copy.with_name(copy.name + s.name.removeprefix(path.name)) for s in sources if s.exists()}
    beside = {source: end.with_name(f"{end.name}.new") for source, end in copies.items()}
    try:
        for source, new in beside.items():
            shutil.copyfile(source, new)
            shutil.copymode(source, new)
            with new.open("rb") as file:
                os.fsync(file.fileno())
        # The journal first: a copy without it would be taken for a whole one.
        for source, new in beside.items():
            new.rename(copies[source])
    except OSError:
        for new in beside.values():
            with suppress(OSError):
                new.unlink(missing_ok=True)  # a quota is full, and the next try would need as much again
        raise
    return copy


def _digest(path: Path, journal: str) -> str | None:
    try:
        with path.with_name(path.name + journal).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def _require_room(path: Path) -> None:
    """For the copy and for the new one."""
    wanted = 2 * sum(p.stat().st_size for j in _JOURNALS if (p := path.with_name(path.name + j)).exists())
    if (free := shutil.disk_usage(path.parent).free) < wanted:
        raise RecordError(
            f"{path}: to repair it takes {wanted / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free",
            hint=f"make room on the disk that holds {path.parent}; nothing was changed",
        )


def _settle_journal(path: Path) -> None:
    """Have SQLite bring the write-ahead log into the file, and see that nobody else has it open."""
    busy = RecordError(f"{path}: another program has it open", hint="end it (lsof, fuser say which), then repair again")
    try:
        with closing(sqlite3.connect(path, timeout=5, isolation_level=None)) as db:
            if db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 1:
                raise busy
            # Whoever has it open still could put its journal over the new database (sqlite.org/howtocorrupt.html §2.4).
            db.execute("PRAGMA journal_mode = DELETE")
    except salvage.UNREADABLE as error:
        if "locked" in str(error) or "busy" in str(error):
            raise busy from None
        # Too damaged even for that: what is in the file counts, the log is kept beside the copy.


def _made(config: Config, record: Record, connection: sqlite3.Connection, said: list[str], copy: Path) -> Done:
    """Fill the new record; what was found and done."""
    path = path_in(record.state)
    tables = salvage.copy(path, connection)
    hurt = [one for one in tables if not one.whole]
    given, impossible, returned = GivenBack(0, 0, 0), 0, 0
    odd = texts.remove(connection)
    if hurt or odd:
        impossible = listings.remove_impossible(connection) + listings.remove_overlapping(connection)
        returned = releases.give_back(connection, config)
        given = decided.give_back(connection)
    unpinned = releases.lost_pins(connection)
    mended = references.mend(connection, [one.table for one in tables], {**config.catalog, **config.feeds})
    troubles = [*ledger.verify(connection), *ledger.compare(connection)]
    now = clock.now()
    at, who = clock.text(now), whoami()
    run = record.begin_run(connection, at, "doctor --repair", who)
    for export, number in unpinned.items():
        connection.execute(
            "UPDATE pin SET until = ?, ended = ?, ended_by = ? WHERE export = ? AND until IS NULL",
            (run, at, who, export),
        )
        record.event(connection, at, run, "release unpinned", who, export=export, release=number)
    taken = downloads.give_back(record, connection, run, clock.period(now), config.feeds)
    feeds = _listings(config, record, connection, run, clock.period(now))
    if hurt or odd:
        impossible += listings.remove_overlapped(connection)
    held = _holds(config, record, connection, run) if hurt or odd else 0
    _counters(record, connection)
    gaps: dict[str, list[tuple[int, int]]] = {
        table: _gaps(connection, table) for table in ("event", "rule") if table in {one.table for one in hurt}
    }
    moved = _move_unknown(record.state, connection) if hurt or odd else None

    done = Done(
        copy=copy,
        said=said,
        tables=tables,
        impossible=impossible,
        odd=odd,
        given=given,
        gaps=gaps,
        releases=(returned, releases.missing(connection)),
        unpinned=unpinned,
        mended=mended,
        taken=taken,
        feeds=feeds,
        held=held,
        moved=moved,
        troubles=troubles,
    )
    record.event(connection, at, run, ledger.REPAIRED, who, **detail(done))
    record.finish_run(run)
    return done


def _listings(
    config: Config, record: Record, connection: sqlite3.Connection, run: int, period: int
) -> list[listings.Mended]:
    names = {number: name for name, number in record.feed_ids().items()}
    return [
        listings.mend(record, connection, run, period, names[feed], config.feeds.get(names[feed]), now)
        for feed, now in sorted(record.current_snapshots().items())
    ]


def _holds(config: Config, record: Record, connection: sqlite3.Connection, run: int) -> int:
    """Let the guards look at everything again; how many holds they ask for that are lost. None is ended."""
    picture = Picture(config, record)
    now = guard(picture.current(), picture.references())
    changes = record.hold_changes(now, now["name"].clear())
    record.change_holds(connection, run, changes)
    # With no word of what they saw last, the next update has them look at everything once more.
    connection.execute("DELETE FROM guard_input")
    return changes.opened.height


def _counters(record: Record, connection: sqlite3.Connection) -> None:
    """A revision above every one that a release was made of."""
    connection.execute(
        "INSERT INTO counter SELECT 'revision', coalesce(max(revision), 0) FROM release WHERE true "
        "ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)"
    )
    record.bump(connection)


def _gaps(connection: sqlite3.Connection, table: str) -> list[tuple[int, int]]:
    """Numbers that are missing before the last one, as spans; of tables that give every number."""
    rows = connection.execute(
        f"SELECT before + 1, id - 1 FROM (SELECT id, lag(id, 1, 0) OVER (ORDER BY id) AS before FROM {table}) "
        "WHERE id > before + 1"
    )
    return [(int(first), int(last)) for first, last in rows]


def _move_unknown(state: Path, connection: sqlite3.Connection) -> Path | None:
    """Put aside downloads whose rows are lost: the next update would remove them, or give their numbers again."""
    unknown = downloads.unknown(state, connection)
    if not unknown:
        return None
    folder = state / f"snapshots.lost-{clock.now():%Y%m%dT%H%M%SZ}"
    folder.mkdir(exist_ok=True)
    for path in unknown.values():
        path.rename(folder / path.name)
    return folder
