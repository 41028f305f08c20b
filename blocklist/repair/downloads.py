"""Rows of current downloads that are lost, written again: the log says which bytes each feed was last taken from."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from blocklist import clock
from blocklist.catalog import Feed
from blocklist.errors import BlocklistError, RecordError
from blocklist.ingest.header import read_header
from blocklist.ingest.intake import account_of, account_text, parse_key
from blocklist.ingest.parse import parse
from blocklist.store import columns, ledger, snapshots
from blocklist.store.record import Record, Snapshot

ENDED = "its snapshot is lost; found when the record was repaired"
"""The cause of listings that a repair closed, since nothing can say any more what their feed lists."""


@dataclass(frozen=True)
class Taken:
    """The list of a feed that was taken last, by the log: its bytes' SHA-256, the run, and when."""

    sha256: str
    run: int
    at: str


@dataclass(frozen=True)
class GivenBack:
    """A feed whose current download has a row again; or none, and how many of its listings ended for that."""

    feed: str
    found: bool
    ended: int = 0


def give_back(
    record: Record, connection: sqlite3.Connection, run: int, period: int, feeds: Mapping[str, Feed]
) -> list[GivenBack]:
    """Give every feed that lists something its current snapshot again; where that can't be, end what it lists.

    A feed without one takes no part in exports, and its next download would begin all its listings again.
    """
    names = {number: name for name, number in record.feed_ids().items()}
    listing = {row[0] for row in connection.execute("SELECT DISTINCT feed FROM listing")}
    lost = sorted(listing - record.current_snapshots().keys())
    if not lost:
        return []
    taken, out = _taken(connection), []
    rows = {row[0] for row in connection.execute("SELECT id FROM snapshot")}
    files = {n: path for n, path in unknown(record.state, connection).items() if n not in rows}
    for number in lost:
        name = names[number]
        found = _row(record.state, number, feeds[name], taken[name], files) if name in taken and name in feeds else None
        if found is not None:
            record.add_snapshot(connection, found)
            del files[found.id]
            out.append(GivenBack(name, found=True))
        else:
            connection.execute(
                "DELETE FROM listing WHERE feed = ?1 AND (name, since) IN "
                "(SELECT name, since FROM listing_closed WHERE feed = ?1)",
                (number,),
            )
            out.append(GivenBack(name, found=False, ended=record.close_feed(connection, run, period, number, ENDED)))
    return out


def unknown(state: Path, connection: sqlite3.Connection) -> dict[int, Path]:
    """Kept downloads by number that no row names any more."""
    known = {row[0] for row in connection.execute("SELECT id FROM snapshot WHERE stored > 0")}
    found = {int(p.stem): p for p in (state / "snapshots").glob("[0-9]*/*.zst") if p.stem.isdigit()}
    return {number: path for number, path in sorted(found.items()) if number not in known}


def _taken(connection: sqlite3.Connection) -> dict[str, Taken]:
    out = {}
    for event in ledger.events(connection, what="lists taken"):
        if event.run is not None and ledger.is_sound(event):
            for name, sha256 in json.loads(event.detail).get("snapshots", {}).items():
                out[name] = Taken(sha256, event.run, event.at)
    return out


def _row(state: Path, number: int, feed: Feed, taken: Taken, files: Mapping[int, Path]) -> Snapshot | None:
    """The row of what was `taken`, if one of `files` or its unpacked bytes is that; kept whole then."""
    for snapshot in files:
        data = columns.kept_bytes(state, snapshot, taken.sha256) or _whole(state, snapshot)
        if data is None or hashlib.sha256(data).hexdigest() != taken.sha256:
            continue
        try:
            parsed = parse(data, feed)
        except (BlocklistError, pl.exceptions.PolarsError, pl.exceptions.PanicException):
            return None
        stored = snapshots.write(state, snapshot, data, None, 0, sha256=taken.sha256)
        return Snapshot(
            id=snapshot,
            feed=number,
            run=taken.run,
            state="current",
            sha256=taken.sha256,
            bytes=len(data),
            parse_key=parse_key(feed, taken.sha256),
            url=feed.urls[0],
            fetched=clock.text(clock.parse(taken.at)),
            etag=None,
            last_modified=None,
            base=None,
            depth=0,
            stored=stored.stored,
            format=parsed.format,
            lines=parsed.lines,
            entries=parsed.frame.height,
            account=account_text(account_of(parsed, read_header(data))),
            gate=None,
        )
    return None


def _whole(state: Path, snapshot: int) -> bytes | None:
    try:
        return snapshots.read(state, [snapshot])
    except RecordError:
        return None
