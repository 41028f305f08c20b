"""Exports as of then: the bytes that were published, or made again from the record and compared with their digest."""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec
import polars as pl
from msgspec.structs import replace

from blocklist import __version__, clock
from blocklist.config import Config, Export, Policy
from blocklist.errors import ReleaseError
from blocklist.picture import Picture
from blocklist.publish import settings
from blocklist.publish.capacity import unlimited
from blocklist.publish.descriptor import Format
from blocklist.publish.render import Rendered, render
from blocklist.publish.selector import Selector
from blocklist.rules import rules_at
from blocklist.store import frames, kept
from blocklist.store.database import reading
from blocklist.store.frames import Column
from blocklist.store.moment import periods_after, state_of, whole_since
from blocklist.store.record import FIRST_LISTED, HOLD, LISTING, TIMES, Record, Snapshot
from blocklist.store.verdicts import BEGAN
from blocklist.suffixes import SuffixRules, builtin_rules


class Published(msgspec.Struct, frozen=True):
    """One release of the past: `how` its bytes were had, `kept` or `made again`.

    `files`: name and bytes of each file; of an export that is not split the only one.
    """

    release: int
    export: str
    published: str
    digest: str
    files: dict[str, bytes]
    how: str


_FEED = {"feed": Column("feed", pl.UInt16)}
_ROW = {**_FEED, **LISTING}


class PastRecord(Record):
    """The record as it was after `run`, for reading: what a `Picture` and a `Selector` ask of it.

    `state` is a folder that does not exist, so that no cache of now is believed; `now` the real one.
    """

    def __init__(self, now: Path, connection: sqlite3.Connection, run: int) -> None:
        super().__init__(now / "past", connection, None)
        self._now, self.run = now, run
        self._loaded: dict[int, pl.DataFrame] | None = None
        self._months = periods_after(connection, run)
        self._later = f"period IN ({', '.join(map(str, self._months))}) AND"
        self._state = state_of(connection)

    def indicators(self, feed: int, snapshot: int) -> pl.DataFrame:
        return self._frames()[feed]

    def current_snapshots(self) -> dict[int, Snapshot]:
        """The newest snapshot that each feed had then, of the feeds that listed anything."""
        names = ", ".join(f"s.{name}" for name in Snapshot.__struct_fields__)
        rows = self.connection.execute(
            f"SELECT {names} FROM snapshot s WHERE s.id = (SELECT max(id) FROM snapshot "
            "WHERE feed = s.feed AND run <= ? AND state IN ('current', 'superseded'))",
            (self.run,),
        )
        return {row[1]: Snapshot(*row) for row in rows if row[1] in self._frames()}

    def times(self, feed: int, snapshot: int) -> pl.DataFrame:
        return frames.read(
            self.connection,
            TIMES,
            "(SELECT name, since, dropped FROM listing WHERE feed = ?1 AND since <= ?2 UNION ALL "
            f"SELECT name, since, dropped FROM listing_closed WHERE {self._later} "
            "feed = ?1 AND since <= ?2 AND until > ?2) l "
            "JOIN run r ON r.id = l.since LEFT JOIN run d ON d.id = l.dropped AND d.id <= ?2",
            (feed, self.run),
        ).sort("name")

    def first_listed(self, feeds: Sequence[int]) -> pl.DataFrame:
        mine = f"feed IN ({', '.join(map(str, feeds))}) AND since <= ?1"
        return frames.read(
            self.connection,
            FIRST_LISTED,
            f"(SELECT name, min(since) AS since FROM (SELECT name, since FROM listing WHERE {mine} UNION ALL "
            f"SELECT name, since FROM listing_closed WHERE {self._later} {mine} AND until > ?1) GROUP BY name) l "
            "JOIN run r ON r.id = l.since",
            (self.run,),
        )

    def released_names(self) -> set[str]:
        rows = self.connection.execute(
            "SELECT name FROM hold_release WHERE since <= ?1 AND (until IS NULL OR until > ?1)", (self.run,)
        )
        return {row[0] for row in rows}

    def pins(self) -> list[tuple[Any, ...]]:
        """Those in force then; where what the release held is kept no more, with what was published by the pin."""
        rows = self.connection.execute(
            """
            SELECT p.id, p.export, p.release, r.chosen, p.reason, p.author, p.created, (
                SELECT chosen FROM release WHERE export = p.export AND published IS NOT NULL
                AND run >= p.since AND run <= ?1 ORDER BY id DESC LIMIT 1)
            FROM pin p JOIN release r ON r.id = p.release WHERE p.since <= ?1 AND (p.until IS NULL OR p.until > ?1)
            """,
            (self.run,),
        ).fetchall()
        return [(*row[:3], self._first_kept(row[3], row[7]), *row[4:7]) for row in rows]

    def _first_kept(self, *digests: str | None) -> str:
        known = [digest for digest in digests if digest is not None]
        return next((digest for digest in known if kept.is_kept(self._now, digest)), known[0] if known else "")

    def verdict_names(self) -> pl.DataFrame:
        rows = self.connection.execute(
            "SELECT name, 'dead' FROM verdict WHERE died <= ?1 UNION "
            "SELECT name, 'dead' FROM verdict_closed WHERE died <= ?1 AND closed > ?1 UNION "
            "SELECT name, status FROM verdict v WHERE status IN ('sinkholed', 'parked') "
            f"AND (run <= ?1 OR {BEGAN}) UNION "
            "SELECT name, status FROM verdict_closed v WHERE status IN ('sinkholed', 'parked') AND closed > ?1 "
            f"AND {BEGAN} ORDER BY 1",
            (self.run,),
        ).fetchall()
        return pl.DataFrame(rows, schema={"name": pl.String, "verdict": pl.String}, orient="row")

    def next_ends(self) -> dict[int, str]:
        return {}

    def _read_holds(self) -> pl.DataFrame:
        return frames.read(
            self.connection, HOLD, "hold WHERE since <= ?1 AND (until IS NULL OR until > ?1)", (self.run,)
        ).sort("name", "guard")

    def _frames(self) -> dict[int, pl.DataFrame]:
        """Indicators frames by feed: those of now, without what came since, with what went since."""
        if self._loaded is None:
            found, gone = self._standing_and_gone()
            for key, rows in gone.partition_by("feed", as_dict=True, include_key=False).items():
                feed = cast(int, key[0])
                before = found.get(feed)
                found[feed] = (rows if before is None else pl.concat([before, rows])).sort("name")
            self._loaded = {feed: frame for feed, frame in found.items() if frame.height}
        return self._loaded

    def _standing_and_gone(self) -> tuple[dict[int, pl.DataFrame], pl.DataFrame]:
        """What stood then and is still open, by feed, and what was open then and ended since, with `feed: UInt16`."""
        # By turns, since the months of a growing record grow.
        halves = [half for half in (self._months[::2], self._months[1::2]) if half]
        with ThreadPoolExecutor(2, "past") as beside:
            reading = [beside.submit(self._ended_beside, half) for half in halves]
            standing = self._standing()
            read = [part.result() for part in reading]
        # What was written since our own transaction began is seen by the others; it alone tells what stood before.
        parts = [
            self._ended(self.connection, half) if got is None else got for half, got in zip(halves, read, strict=True)
        ]
        return standing, pl.concat([pl.DataFrame(schema={n: c.dtype for n, c in _ROW.items()}), *parts])

    def _ended_beside(self, months: Sequence[int]) -> pl.DataFrame | None:
        """`_ended` by a connection of its own, for two cores; None where the record is not as ours shows it."""
        with reading(self._now) as own:
            return self._ended(own, months) if state_of(own) == self._state else None

    def _ended(self, connection: sqlite3.Connection, months: Sequence[int]) -> pl.DataFrame:
        """What ended in `months` and was open then."""
        source = f"listing_closed WHERE period IN ({', '.join(map(str, months))}) AND since <= ?1 AND until > ?1"
        return frames.read(connection, _ROW, source, (self.run,))

    def _standing(self) -> dict[int, pl.DataFrame]:
        """Indicators frames, by feed, of what stood then and is still open."""
        present = Record(self._now, self.connection, None)
        staying, names = self._staying()
        found: dict[int, pl.DataFrame] = {}
        for feed, snapshot in present.current_snapshots().items():
            if feed in names or not staying:
                frame = present.indicators(feed, snapshot.id).select(*LISTING)
                if feed in names:
                    frame = frame.join(names[feed], on="name", how="semi" if staying else "anti")
                found[feed] = frame
        return found

    def _staying(self) -> tuple[bool, dict[int, pl.DataFrame]]:
        """Names of open listings by feed: of those that stood then (True), or of those that came since if fewer."""
        every, stood = self.connection.execute(
            "SELECT count(*), count(*) FILTER (WHERE since <= ?) FROM listing", (self.run,)
        ).fetchone()
        staying = 2 * stood < every
        return staying, self._by_feed({"name": LISTING["name"]}, f"listing WHERE since {'<=' if staying else '>'} ?1")

    def _by_feed(self, columns: Mapping[str, Column], source: str) -> dict[int, pl.DataFrame]:
        every = frames.read(self.connection, {**_FEED, **columns}, source, (self.run,))
        split = every.partition_by("feed", as_dict=True, include_key=False)
        return {cast(int, key[0]): frame for key, frame in split.items()}


def exports_known(connection: sqlite3.Connection) -> list[str]:
    """Every export that was ever published."""
    return [row[0] for row in connection.execute("SELECT DISTINCT export FROM release WHERE published IS NOT NULL")]


def published(config: Config, connection: sqlite3.Connection, export: str, at: datetime) -> Published:
    """The bytes of `export` that were live at `at`.

    Raises ReleaseError when none was, or when they are not kept and what is made again is not the same.
    """
    row = connection.execute(
        "SELECT id, published, digest, path, run, judged, created, serial, left_out, amends, files, "
        "(SELECT max(p.release) FROM pin p WHERE p.export = r.export AND p.since <= r.run "
        "AND (p.until IS NULL OR p.until > r.run)) FROM release r "
        "WHERE export = ? AND published <= ? ORDER BY id DESC LIMIT 1",
        (export, clock.text(at)),
    ).fetchone()
    if row is None:
        raise ReleaseError(
            f"export {export}: nothing was published by {clock.said(clock.text(at))}", hint=_begins(connection, export)
        )
    number, when, digest, path, run, judged, created, serial, left_out, amends, files, pinned = row
    wanted = {Path(f["path"]).name: f["digest"] for f in json.loads(files)} if files else {Path(path).name: digest}
    if all(kept.is_kept(config.state, each) for each in wanted.values()):
        whole = {name: kept.read(config.state, each) for name, each in wanted.items()}
        return Published(number, export, when, digest, whole, "kept")
    if files is not None:
        raise ReleaseError(
            f"release {number} of {export} is split by category, and the bytes of its files are no longer kept",
            hint="a backup of the folder 'kept' has them; [keep] history says how long they stay",
        )
    made_by = settings.of_release(connection, number)
    if made_by is None:
        raise ReleaseError(
            f"release {number} of {export} was made by a version that kept neither its bytes nor what made it",
            hint="'blocklist why WHAT --at DATE' answers from the listings of then",
        )
    common, own = made_by.common, made_by.own
    then = replace(
        config,
        feeds=common.feeds,
        protect=common.protect,
        verify=msgspec.structs.replace(config.verify, resolvers=common.resolvers),
        policies={own.export.policy: own.policy},
    )
    suffixes = builtin_rules()
    out = io.BytesIO()
    _render(
        then, PastRecord(config.state, connection, run), suffixes, own.export, own.format, serial, out,
        judged=clock.parse(judged or created), ruled=clock.parse(created),
    )  # fmt: skip
    data = out.getvalue()
    if hashlib.sha256(data).hexdigest() != digest:
        pruned = whole_since(connection)
        causes = []
        if pruned is not None and run < pruned[0]:
            causes.append(f"its listings are pruned: the record is whole since {pruned[1]}")
        causes += [f"version {common.version} made it, this is {__version__}"] if common.version != __version__ else []
        causes += [f"it was pinned to release {pinned}"] if pinned is not None else []
        causes += [f"it shows the list of release {amends} under newer rules"] if amends is not None else []
        causes += ["part of it was left out, and is not cut again"] if left_out is not None else []
        causes += ["its suffix list was another one"] if common.suffixes != suffixes.digest else []
        raise ReleaseError(
            f"release {number} of {export}: its bytes are no longer kept, and what is made again differs from its "
            f"digest ({'; '.join(causes) or 'the record does not hold all that made it'}); nothing was written",
            hint="a backup of the folder 'kept' has the bytes; [keep] says how long they stay",
        )
    return Published(number, export, when, digest, {Path(path).name: data}, "made again")


def _begins(connection: sqlite3.Connection, export: str) -> str:
    first = connection.execute("SELECT min(published) FROM release WHERE export = ?", (export,)).fetchone()[0]
    if first is not None:
        return f"its first release is of {clock.said(first)}"
    known = ", ".join(exports_known(connection))
    return f"it was never published; those that were: {known}" if known else "run 'blocklist export' first"


def render_at(
    config: Config,
    connection: sqlite3.Connection,
    run: int,
    at: datetime,
    suffixes: SuffixRules,
    export: Export,
    fmt: Format,
    out: BinaryIO,
) -> tuple[Rendered, dict[str, int]]:
    """A one-off from the listings, holds, verdicts, rules and feeds of then, by a policy of now."""
    feeds = settings.feeds_at(connection, run)
    record = PastRecord(config.state, connection, run)
    then = replace(config, feeds=feeds or config.feeds)
    return _render(then, record, suffixes, export, fmt, clock.serial(at), out, judged=at, ruled=at)


def _render(
    config: Config,
    record: PastRecord,
    suffixes: SuffixRules,
    export: Export,
    fmt: Format,
    serial: int,
    out: BinaryIO,
    *,
    judged: datetime,
    ruled: datetime,
) -> tuple[Rendered, dict[str, int]]:
    picture = Picture(config, record, suffixes, judged)
    policies: Mapping[str, Policy] = config.policies
    selector = Selector(picture, record, policies, rules_at(record.connection, record.run, ruled))
    selection, lost = selector.selection(export, fmt)
    rendered = render(unlimited(fmt), selection, {**export.options, "serial": serial}, out)
    return rendered, {k: v for k, v in {**lost, **rendered.lost}.items() if v}
