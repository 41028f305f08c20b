"""What a current snapshot lists, known from elsewhere than the table of listings; and that table set right by it."""

from __future__ import annotations

import hashlib
import sqlite3
from dataclasses import dataclass

import polars as pl

from blocklist.catalog import Feed
from blocklist.errors import BlocklistError
from blocklist.ingest.change import difference
from blocklist.ingest.intake import parse_key
from blocklist.ingest.normalize import SCHEMA
from blocklist.ingest.parse import parse
from blocklist.store import columns, frames
from blocklist.store.columns import Columns
from blocklist.store.frames import Column
from blocklist.store.record import LISTING, Record, Snapshot

LEFT_OVER = "not listed; found when the record was repaired"
"""The cause of listings that a repair closed: their feed's snapshot does not have them."""


@dataclass(frozen=True)
class Mended:
    """What was put right of one feed. `begun`: listings that begin again with their snapshot, since when they really
    stand is lost; `ended`: that no snapshot lists. `known` is False where nothing tells what the snapshot lists.
    """

    feed: str
    begun: int = 0
    ended: int = 0
    known: bool = True


def remove_impossible(connection: sqlite3.Connection) -> int:
    """Remove listings whose numbers nothing of ours ever wrote; how many."""
    return sum(
        connection.execute(
            f"DELETE FROM {table} WHERE kind NOT BETWEEN 1 AND 4 OR subtree NOT BETWEEN 0 AND 1 "
            "OR line NOT BETWEEN 0 AND 4294967295 OR coalesce(confidence, 0) NOT BETWEEN 0 AND 255"
        ).rowcount
        for table in ("listing", "listing_closed")
    )


_OVERLAP = "listing_closed c JOIN listing l ON l.name = c.name AND l.feed = c.feed WHERE l.since < c.until"


def remove_overlapping(connection: sqlite3.Connection) -> int:
    """Remove listings that began after they ended, and open ones that began before the last one ended; how many.

    Their runs are damaged. The open ones are to begin again with their snapshots.
    """
    gone = connection.execute("DELETE FROM listing_closed WHERE since >= until").rowcount
    return (
        gone
        + connection.execute(
            f"DELETE FROM listing WHERE (name, feed) IN (SELECT l.name, l.feed FROM {_OVERLAP})"
        ).rowcount
    )


def remove_overlapped(connection: sqlite3.Connection) -> int:
    """Remove ended listings that reach into an open one that begins with its snapshot; how many."""
    return connection.execute(
        "DELETE FROM listing_closed WHERE (period, name, feed, since) IN "
        f"(SELECT c.period, c.name, c.feed, c.since FROM {_OVERLAP})"
    ).rowcount


def read(record: Record, feed: Feed | None, snapshot: Snapshot) -> Columns | None:
    """The kept download of a current snapshot, read again; None when it is lost, or would be read otherwise now."""
    if feed is None or parse_key(feed, snapshot.sha256) != snapshot.parse_key:
        return None
    try:
        data = record.current_bytes(snapshot)
        if hashlib.sha256(data).hexdigest() != snapshot.sha256:
            return None
        parsed = parse(data, feed)
    except (BlocklistError, pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return None
    return Columns(parsed.frame, parsed.repeated)


def standing(connection: sqlite3.Connection, feed: int) -> pl.DataFrame:
    """The open listings of a feed as an indicators frame, with `dropped: Int64`, the run, of those that linger."""
    dropped = {"dropped": Column("dropped", pl.Int64, nullable=True)}
    return frames.read(connection, LISTING | dropped, "listing WHERE feed = ?", (feed,)).sort("name")


def with_lingering(listed: Columns, open_: pl.DataFrame) -> Columns:
    """The columns of a snapshot and what of the open listings lingers beside it."""
    lingers = open_.filter(
        pl.col("dropped").is_not_null(), ~pl.col("name").is_in(listed.frame["name"].implode())
    ).select(listed.frame.columns)
    return Columns(pl.concat([listed.frame, lingers]).sort("name"), listed.repeated)


def mend(
    record: Record, connection: sqlite3.Connection, run: int, period: int, name: str, feed: Feed | None, now: Snapshot
) -> Mended:
    """Make the open listings of a feed those of its current snapshot `now`: by the column file, else by the download.

    What is missing begins again with the run of the snapshot. What lingered ends as it would have.
    """
    found = columns.read(record.state, now.id)
    open_ = standing(connection, now.feed)
    if found is None and (found := read(record, feed, now)) is not None:
        found = with_lingering(found, open_)
    if found is None:
        return Mended(name, known=False)
    frame = found.frame.select(*SCHEMA).sort("name")
    added, removed, changed = difference(open_.drop("dropped").select(frame.columns), frame)
    if removed.height:
        _take_out(connection, run, period, now.feed, removed["name"], added["name"])
    if added.height:
        _begin(record, connection, now, added)
    return Mended(name, added.height, removed.height - changed)


def _take_out(
    connection: sqlite3.Connection, run: int, period: int, feed: int, names: pl.Series, again: pl.Series
) -> None:
    """End the listings of `names`; those of `again` are replaced, and leave nothing behind."""
    connection.execute("CREATE TEMP TABLE left_over (name TEXT PRIMARY KEY, replaced INTEGER) WITHOUT ROWID")
    marked = pl.DataFrame({"name": names, "replaced": names.is_in(again.implode()).cast(pl.Int64)})
    connection.executemany("INSERT INTO left_over VALUES (?, ?)", marked.iter_rows())
    # One that is closed already has only come back with a page that was not in use any more.
    connection.execute(
        """
        INSERT INTO listing_closed
            (period, name, feed, since, until, cause, kind, subtree, line, confidence, extra, dropped)
        SELECT ?1, l.name, l.feed, l.since, ?2, ?3, l.kind, l.subtree, l.line, l.confidence, l.extra, l.dropped
        FROM left_over o JOIN listing l ON l.name = o.name AND l.feed = ?4
        WHERE NOT o.replaced AND l.since < ?2
        AND (l.name, l.since) NOT IN (SELECT name, since FROM listing_closed WHERE feed = ?4)
        """,
        (period, run, LEFT_OVER, feed),
    )
    connection.execute("DELETE FROM listing WHERE feed = ? AND name IN (SELECT name FROM left_over)", (feed,))
    connection.execute("DROP TABLE left_over")


def _begin(record: Record, connection: sqlite3.Connection, now: Snapshot, added: pl.DataFrame) -> None:
    added = added.with_columns(pl.lit(now.feed, pl.UInt16).alias("feed"))
    times = columns.read_times(record.state, now.id)
    dropped = (
        None
        if times is None
        else times.filter(pl.col("dropped").is_not_null(), pl.col("name").is_in(added["name"].implode()))
    )
    if dropped is None or dropped.is_empty():
        record.add_listings(connection, now.run, added)
        return
    # What lingers stands in no line of this snapshot, but of the last one before its feed dropped it.
    lingers = added["name"].is_in(dropped["name"].implode())
    record.add_listings(connection, now.run, added.filter(~lingers))
    for (at,), names in dropped.group_by("dropped"):
        # A name is dropped by the run that takes the next list.
        taken = connection.execute(
            "SELECT r.id FROM run r JOIN snapshot s ON s.run = r.id WHERE s.feed = ? AND unixepoch(r.started) <= ? "
            "AND s.state IN ('current', 'superseded') ORDER BY r.id DESC LIMIT 2",
            (now.feed, at),
        ).fetchall()
        run, since = (taken[0][0], taken[-1][0]) if taken else (now.run, now.run)
        these = names["name"].sort()
        record.add_listings(connection, since, added.filter(pl.col("name").is_in(these.implode())))
        record.mark_dropped(connection, run, now.feed, these)
