"""What the record may forget: downloads that nothing cites, listings that ended long ago, bytes of old releases.

`[keep]` says how long. Rows of downloads, runs, releases, rules and events stay for good: digests, times and who
decided remain when bytes are gone. One transaction forgets, and files go after it; what a crash leaves there, the next
run removes.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from blocklist import clock
from blocklist.config import Config
from blocklist.publish.recorded import wanted_bytes
from blocklist.quantities import parse_duration
from blocklist.store import kept, snapshots
from blocklist.store.moment import forget_before, last_confirmed
from blocklist.store.record import Record

_ROOM: Final = 4 << 20  # bytes that SQLite wants for its journal before the first row can go


def make_room(state: Path) -> int:
    """On a full disk remove the caches, so that the record can be written at all; how many bytes that gave.

    The caller holds the lock. The next update makes them again, of downloads that are kept.
    """
    try:
        disk = os.statvfs(state)
    except FileNotFoundError:
        return 0
    if disk.f_bavail * disk.f_frsize >= _ROOM:
        return 0
    freed = 0
    for path in (path for folder in ("columns", "decided") for path in (state / folder).glob("*.*")):
        with suppress(OSError):
            size = path.stat().st_blocks * 512
            path.unlink()
            freed += size
    return freed


@dataclass(frozen=True)
class Pruned:
    """How much went, or would: `listings`, `verdicts` and `holds` that ended before `history` (RFC 3339, None where
    nothing did), `downloads` of `download_bytes` on disk, and bytes of releases on disk. `as_of` (RFC 3339): from when
    `[keep]` counted, where not from now.
    """

    listings: int = 0
    verdicts: int = 0
    holds: int = 0
    downloads: int = 0
    download_bytes: int = 0
    release_bytes: int = 0
    history: str | None = None
    as_of: str | None = None

    @property
    def any(self) -> bool:
        return bool(self.listings or self.verdicts or self.holds or self.downloads or self.release_bytes)


class _Undone(Exception):
    """Ends the transaction of a dry run."""


def prune(record: Record, config: Config, *, author: str, dry_run: bool = False, trust_clock: bool = False) -> Pruned:
    """Apply `[keep]` to the record and its folders. `dry_run`: say what would go, and leave all as it is.

    Where no run confirms the clock (see `last_confirmed`), `[keep]` counts from the last run before it jumped, unless
    `trust_clock`: what a wrong clock forgets would never come back. Raises RecordError where the record can't be
    written.
    """
    now = clock.now()
    doubted = None if trust_clock else last_confirmed(record.connection, now)
    at, present = clock.text(now), doubted or now
    as_of = None if doubted is None else clock.text(doubted)
    done = Pruned(as_of=as_of)
    ended_before, fetched_before = (
        clock.text(present - timedelta(seconds=parse_duration(span)))
        for span in (config.keep.history, config.keep.snapshots)
    )
    with suppress(_Undone), record.transaction() as db:
        listings, verdicts, holds, begins = _history(db, ended_before)
        gone, size = _downloads(db, fetched_before)
        released = kept.others(record.state, wanted_bytes(record, config, present))
        done = Pruned(listings, verdicts, holds, len(gone), size, sum(released.values()), begins, as_of)
        if dry_run or not done.any:
            raise _Undone
        run = record.begin_run(db, at, "prune", author)
        told = {"listings": listings, "verdicts": verdicts, "holds": holds, "downloads": len(gone), "history": begins}
        record.event(db, at, run, "record pruned", author, **told)
        record.finish_run(run)
    if not dry_run:
        _remove_files(record)
        kept.forget_others(record.state, wanted_bytes(record, config, present))
    return done


def _history(db: sqlite3.Connection, before: str) -> tuple[int, int, int, str | None]:
    """Forget what ended before; how many listings, verdicts and holds, and from when on the record is whole."""
    run, begins = db.execute("SELECT max(id), max(started) FROM run WHERE started < ?", (before,)).fetchone()
    if run is None:
        return 0, 0, 0, None
    # Ended in that run or earlier: no state of the record after it shows them. The period is the key's first part.
    period = clock.period(clock.parse(before))
    listings = db.execute("DELETE FROM listing_closed WHERE period <= ? AND until <= ?", (period, run)).rowcount
    verdicts = db.execute("DELETE FROM verdict_closed WHERE until < ? AND coalesce(closed, 0) <= ?", (begins, run))
    holds = db.execute("DELETE FROM hold WHERE until <= ?", (run,)).rowcount
    forget_before(db, run)
    return listings, verdicts.rowcount, holds, begins


def _downloads(db: sqlite3.Connection, before: str) -> tuple[list[int], int]:
    """Let go of older downloads: their numbers, and what they take on disk. Their rows stay, with nothing `stored`.

    One a month of each feed stays, what a listing of the record began with, and what a feed is pinned to; and what
    these are patches of.
    """
    rows = db.execute("SELECT id, feed, run, state, base, stored, fetched FROM snapshot ORDER BY id").fetchall()
    cited = set(db.execute("SELECT feed, since FROM listing UNION SELECT feed, since FROM listing_closed"))
    pinned = {row[0] for row in db.execute("SELECT snapshot FROM feed_pin WHERE until IS NULL")}
    bases = {row[0]: row[4] for row in rows}
    months: set[tuple[int, str]] = set()
    stay: set[int] = set()
    for number, feed, run, state, _, stored, fetched in rows:
        first = stored > 0 and state in ("current", "superseded") and (feed, fetched[:7]) not in months
        if first:
            months.add((feed, fetched[:7]))
        if first or state in ("current", "gated") or fetched >= before or (feed, run) in cited or number in pinned:
            stay.update(_chain(bases, number))
    gone = {row[0]: row[5] for row in rows if row[5] > 0 and row[0] not in stay}
    db.executemany("UPDATE snapshot SET stored = 0 WHERE id = ?", [(number,) for number in gone])
    return list(gone), sum(gone.values())


def _chain(bases: dict[int, int | None], number: int) -> Iterator[int]:
    at: int | None = number
    while at is not None:
        yield at
        at = bases[at]


def _remove_files(record: Record) -> None:
    for (number,) in record.connection.execute("SELECT id FROM snapshot WHERE stored = 0"):
        snapshots.file_of(record.state, number).unlink(missing_ok=True)
