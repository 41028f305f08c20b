"""The record: what was listed when, by whom, in which snapshot. One writer; see `blocklist.store.lock`."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from blocklist import __version__, clock
from blocklist.errors import RecordError
from blocklist.store import columns, frames, identity, ledger, snapshots
from blocklist.store.columns import Columns
from blocklist.store.database import (
    checkpoint,
    explained,
    is_of_this_version,
    is_there,
    open_for_writing,
    path_in,
    refuse_empty,
)
from blocklist.store.frames import Column
from blocklist.store.lost import mark

# An indicators frame (see `blocklist.ingest.normalize`) of rows of `listing` or `listing_closed`.
LISTING = {
    "name": Column("name", pl.String),
    "kind": Column("kind", pl.UInt8),
    "subtree": Column("subtree", pl.Boolean),
    "line": Column("line", pl.UInt32),
    "confidence": Column("confidence", pl.UInt8, nullable=True),
    "extra": Column("extra", pl.String, nullable=True),
}
HOLD = {
    "name": Column("name", pl.String),
    "kind": Column("kind", pl.UInt8),
    "guard": Column("guard", pl.String),
    "subtree_only": Column("subtree_only", pl.Boolean),
    "detail": Column("detail", pl.String),
}
# A times frame (see `blocklist.select.lifetime`) of listings `l`, begun by the run `r`, dropped by the run `d`.
TIMES = {
    "name": Column("l.name", pl.String),
    "since": Column("unixepoch(r.started)", pl.Int64),
    "dropped": Column("unixepoch(d.started)", pl.Int64, nullable=True),
}
FIRST_LISTED = {"name": Column("l.name", pl.String), "since": Column("r.started", pl.String)}

# Rows a VALUES clause; measured: a row a statement takes 4 times as long.
_BATCH = 100
_LINE_BITS = 32
MAX_FEED = 2**16 - 1


class Snapshot(msgspec.Struct, frozen=True):
    """One row of the table `snapshot`; `account` is the JSON of what became of its lines."""

    id: int
    feed: int
    run: int
    state: str
    sha256: str
    bytes: int
    parse_key: str
    url: str
    fetched: str
    etag: str | None
    last_modified: str | None
    base: int | None
    depth: int
    stored: int
    format: str
    lines: int
    entries: int
    account: str
    gate: str | None


_SNAPSHOT = "SELECT {} FROM snapshot".format(", ".join(Snapshot.__struct_fields__))


class Record:
    """The open database and the files beside it. Use `open` and, when done, `close`."""

    def __init__(self, state: Path, connection: sqlite3.Connection, building: Path | None) -> None:
        self.state = state
        self.connection = connection
        self._building = building
        self._holds: pl.DataFrame | None = None
        self._undoing = False
        self._afterwards = ThreadPoolExecutor(1, "afterwards")

    @classmethod
    def open(cls, state: Path) -> Record:
        """Open for writing, migrated; the caller holds the lock.

        With no database yet, one is built beside the final place and moved there by the first `transaction`:
        without journal, sorted, in a third of the time. Raises RecordError with the way out, also where a record was
        and is lost, or is of another installation than the folder.
        """
        path = path_in(state)
        with explained(path):
            state.mkdir(parents=True, exist_ok=True)
            if not is_there(state):
                return cls.anew(state)
            _clear_building(path)
            refuse_empty(path)
            identity.refuse_foreign(path)
            connection = open_for_writing(path)
            if not os.access(path, os.W_OK):
                raise RecordError(f"{path}: not writable", hint=f"check owner and mode of {path}")
            if not is_of_this_version(connection):
                _migrate(connection, path)
            mark(path)
            identity.keep(connection, state)
        return cls(state, connection, None)

    @classmethod
    def anew(cls, state: Path) -> Record:
        """An empty one, built beside the place that the first `transaction` moves it to, whatever is there.

        The caller holds the lock, and knows that nobody has the one in place open for writing.
        """
        path = path_in(state)
        with explained(path):
            building = _clear_building(path)
            connection = open_for_writing(building, fresh=True)
            _migrate(connection, path)
            identity.begin(connection)
        return cls(state, connection, building)

    @property
    def fresh(self) -> bool:
        """Is the first load still to be written?"""
        return self._building is not None

    def close(self) -> None:
        self._afterwards.shutdown()
        self.connection.close()
        if self._building is not None:
            self._building.unlink(missing_ok=True)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing. The first one of a new record puts the file in its place."""
        path = path_in(self.state)
        with explained(path):
            # Within `undone` there is a transaction already, and what is written in this one stays in that.
            self.connection.execute("SAVEPOINT one" if self._undoing else "BEGIN IMMEDIATE")
            try:
                yield self.connection
            except BaseException:
                if self._undoing:
                    self.connection.execute("ROLLBACK TO one")
                elif not self.fresh:
                    self.connection.execute("ROLLBACK")
                raise
            self.connection.execute("RELEASE one" if self._undoing else "COMMIT")
            if self._building is not None:
                self._settle(path)
            elif not self._undoing:
                self._follow(partial(checkpoint, path))

    def _follow(self, step: Callable[[], None]) -> None:
        """Do `step`, which nothing waits for but `close`, beside what follows."""
        try:
            self._afterwards.submit(step)
        except RuntimeError:  # no thread to be had
            step()

    @property
    def undoing(self) -> bool:
        """Is what is written now taken back in the end? Files of what stays current must then be left alone."""
        return self._undoing

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Take back in the end whatever is written within, in the record and among the snapshots: to see what would be.

        Not for a record that is built anew.
        """
        assert not self.fresh
        path = path_in(self.state)
        last = self.next_snapshot() - 1
        with explained(path):
            self.connection.execute("BEGIN IMMEDIATE")
            self._undoing = True
            try:
                yield
            finally:
                if self.connection.in_transaction:  # a full disk ends it by itself
                    self.connection.execute("ROLLBACK")
                self._undoing, self._holds = False, None
                snapshots.remove_unrecorded(self.state, last)
                columns.remove_others(self.state, {now.id for now in self.current_snapshots().values()})

    def _settle(self, path: Path) -> None:
        """Move the fresh file into place: checked, fsynced, renamed; then reopen it with a journal."""
        assert self._building is not None
        # Built without foreign keys, which cost more row by row: asked once, 75 ns a row.
        if (broken := self.connection.execute("PRAGMA foreign_key_check").fetchone()) is not None:
            raise RecordError(
                f"{path}: the first load is not whole: table {broken[0]} names a {broken[2]} that is not there",
                hint="nothing was kept; this is a bug, please report it",
            )
        identity.keep(self.connection, path.parent)
        self.connection.close()
        with self._building.open("rb") as file:
            os.fsync(file.fileno())
        for journal in ("-wal", "-shm"):
            # SQLite would replay one that is left of another database into this one.
            path.with_name(path.name + journal).unlink(missing_ok=True)
        if path.exists():
            shutil.copymode(path, self._building)
            with suppress(OSError):  # not the owner's to give: the folder is shared by its mode then
                os.chown(self._building, path.stat().st_uid, path.stat().st_gid)
        self._building.rename(path)
        mark(path)
        _fsync_folder(path.parent)
        self._building = None
        self.connection = open_for_writing(path)

    def remove_other_columns(self) -> None:
        """Remove the column files of snapshots that are not current: 120 MB take 40 ms, beside what follows."""
        others = columns.others(self.state, {now.id for now in self.current_snapshots().values()})
        self._follow(partial(columns.remove, others))

    # Runs and revisions

    def begin_run(self, connection: sqlite3.Connection, started: str, command: str, by: str) -> int:
        cursor = connection.execute(
            "INSERT INTO run (started, command, by, version) VALUES (?, ?, ?, ?)",
            (started, command, by, __version__),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def finish_run(self, run: int) -> None:
        self.connection.execute("UPDATE run SET finished = ? WHERE id = ?", (clock.text(clock.now()), run))

    @contextmanager
    def new_run(self, command: str, by: str) -> Iterator[Run]:
        """A run that is one transaction: begun now, and finished when the block ends without an error."""
        at = clock.text(clock.now())
        with self.transaction() as connection:
            run = Run(self, connection, self.begin_run(connection, at, command, by), at, by)
            yield run
            self.finish_run(run.id)

    def next_run(self) -> int:
        """The number that the next run will have, while the lock is held."""
        return int(self.connection.execute("SELECT coalesce(max(id), 0) + 1 FROM run").fetchone()[0])

    def next_snapshot(self) -> int:
        return int(self.connection.execute("SELECT coalesce(max(id), 0) + 1 FROM snapshot").fetchone()[0])

    def revision(self) -> int:
        """Rises with every change of listings, holds, rules or verdicts that an export could show."""
        return int(self.connection.execute("SELECT value FROM counter WHERE name = 'revision'").fetchone()[0])

    def bump(self, connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE counter SET value = value + 1 WHERE name = 'revision'")

    def event(self, connection: sqlite3.Connection, at: str, run: int, what: str, who: str, **detail: Any) -> None:
        """Add to the log of what persons decided and what was published, at the end of its chain."""
        ledger.append(connection, at, run, what, who, detail)

    # Feeds and snapshots

    def feed_ids(self) -> dict[str, int]:
        return dict(self.connection.execute("SELECT name, id FROM feed"))

    def add_feeds(self, connection: sqlite3.Connection, names: Sequence[str]) -> dict[str, int]:
        """Ids of `names`, new ones numbered. Numbers are 16 bits wide in the bulk path."""
        connection.executemany("INSERT OR IGNORE INTO feed (name) VALUES (?)", [(n,) for n in names])
        ids: dict[str, int] = dict(connection.execute("SELECT name, id FROM feed"))
        if max(ids.values(), default=0) > MAX_FEED:
            raise RecordError(f"more than {MAX_FEED:,} feeds in one record")
        return ids

    def current_snapshots(self) -> dict[int, Snapshot]:
        """The current snapshot of each feed, by feed id."""
        rows = self.connection.execute(f"{_SNAPSHOT} WHERE state = 'current'")
        return {row[1]: Snapshot(*row) for row in rows}

    def gated_snapshot(self, feed: int) -> Snapshot | None:
        """The newest snapshot of `feed` that waits for a person, if it is newer than the current one."""
        row = self.connection.execute(
            f"{_SNAPSHOT} WHERE feed = ? AND state = 'gated' ORDER BY id DESC LIMIT 1", (feed,)
        ).fetchone()
        return Snapshot(*row) if row else None

    def snapshot(self, number: int) -> Snapshot | None:
        """The row of one snapshot; None when there is none of this number."""
        row = self.connection.execute(f"{_SNAPSHOT} WHERE id = ?", (number,)).fetchone()
        return Snapshot(*row) if row else None

    def taken_snapshots(self, feed: int) -> list[Snapshot]:
        """Every snapshot of `feed` that ever was its current one, the newest first."""
        rows = self.connection.execute(f"{_SNAPSHOT} WHERE feed = ? AND gate IS NULL ORDER BY id DESC", (feed,))
        return [Snapshot(*row) for row in rows]

    def raw(self, snapshot: int) -> bytes:
        """The bytes of `snapshot` as the publisher sent them. Raises RecordError where the files are another one's."""
        (sha256,) = self.connection.execute("SELECT sha256 FROM snapshot WHERE id = ?", (snapshot,)).fetchone()
        return snapshots.read(self.state, snapshots.chain(self.connection, snapshot), sha256)

    def has_chain(self, snapshot: int) -> bool:
        """Are all files there that make up `snapshot`? A patch on a lost base could not be read."""
        links = snapshots.chain(self.connection, snapshot)
        return all(snapshots.file_of(self.state, link).exists() for link in links)

    def current_bytes(self, snapshot: Snapshot) -> bytes:
        """The same for a current one, from the cache where it is whole."""
        data = columns.kept_bytes(self.state, snapshot.id, snapshot.sha256)
        return self.raw(snapshot.id) if data is None else data

    def add_snapshot(self, connection: sqlite3.Connection, snapshot: Snapshot) -> None:
        """Insert the row; a `current` one supersedes the one before."""
        if snapshot.state == "current":
            connection.execute(
                "UPDATE snapshot SET state = 'superseded' WHERE feed = ? AND state IN ('current', 'gated')",
                (snapshot.feed,),
            )
        elif snapshot.state == "gated":
            connection.execute(
                "UPDATE snapshot SET state = 'refused' WHERE feed = ? AND state = 'gated'", (snapshot.feed,)
            )
        names = Snapshot.__struct_fields__
        connection.execute(
            f"INSERT INTO snapshot ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})",
            tuple(getattr(snapshot, name) for name in names),
        )

    def started(self, run: int) -> str:
        """When a run began, RFC 3339."""
        return str(self.connection.execute("SELECT started FROM run WHERE id = ?", (run,)).fetchone()[0])

    def last_started(self) -> str:
        """The latest moment at which any run started by its clock; empty before the first."""
        return str(self.connection.execute("SELECT coalesce(max(started), '') FROM run").fetchone()[0])

    # Listings

    def add_listings(self, connection: sqlite3.Connection, run: int, rows: pl.DataFrame) -> None:
        """Open listings from `run` on. `rows`: an indicators frame with `feed: UInt16`.

        Sorted by key, a hundred rows a statement, and each row in two parameters: the name, and its numbers
        packed into one integer that SQL unpacks. (Measured on 2.6 M rows: 1.1 s; eight parameters a row 3.0 s.)
        Raises RecordError when fewer rows went in: the sqlite3 module asks for an error's code after the call that
        failed, and what another thread asks in between can have cleared it.
        """
        before = connection.total_changes
        plain = pl.col("confidence").is_null() & pl.col("extra").is_null()
        rows = rows.sort("name", "feed")
        bulk = rows.filter(plain).select(
            "name",
            (
                pl.col("feed").cast(pl.Int64) * 2**40
                + pl.col("kind").cast(pl.Int64) * 2**36
                + pl.col("subtree").cast(pl.Int64) * 2**35
                + pl.col("line").cast(pl.Int64)
            ).alias("packed"),
        )
        head = "INSERT INTO listing (name, feed, since, kind, subtree, line, confidence, extra) VALUES "
        for batch in (_BATCH, 1):
            values = ", ".join(_unpacked(i, run) for i in range(batch))
            whole = bulk.height - bulk.height % batch
            connection.executemany(head + values, _flat(bulk.head(whole), batch))
            bulk = bulk.slice(whole)
        connection.executemany(
            head + "(?, ?, ?, ?, ?, ?, ?, ?)",
            rows.filter(~plain)
            .select(
                "name",
                "feed",
                pl.lit(run),
                "kind",
                pl.col("subtree").cast(pl.UInt8),
                "line",
                "confidence",
                "extra",
            )
            .iter_rows(),
        )
        if (written := connection.total_changes - before) != rows.height:
            raise RecordError(
                f"{path_in(self.state)} took {written:,} of {rows.height:,} listings",
                hint="nothing was kept; look at the disk with 'blocklist doctor', and run it again",
            )

    def close_listings(
        self, connection: sqlite3.Connection, run: int, period: int, rows: pl.DataFrame, cause: str
    ) -> None:
        """Close the open listings of `rows` (`name`, `feed`) with `run`; `period` is the month, YYYYMM.

        Raises RecordError when not as many rows went as came in, as `add_listings` does.
        """
        if rows.is_empty():
            return
        before = connection.total_changes
        keys = rows.select("name", "feed").sort("name", "feed")
        left = keys
        for batch in (_BATCH, 1):
            whole = left.height - left.height % batch
            asked = ", ".join(f"(?{4 + 2 * i}, ?{5 + 2 * i})" for i in range(batch))
            connection.executemany(
                f"""
                INSERT INTO listing_closed
                    (period, name, feed, since, until, cause, kind, subtree, line, confidence, extra, dropped)
                SELECT ?1, l.name, l.feed, l.since, ?2, ?3, l.kind, l.subtree, l.line, l.confidence, l.extra, l.dropped
                FROM (VALUES {asked}) c CROSS JOIN listing l ON l.name = c.column1 AND l.feed = c.column2
                """,
                ([period, run, cause, *values] for values in _flat(left.head(whole), batch)),
            )
            left = left.slice(whole)
        closed = connection.total_changes - before
        # One by one: a statement for some of them goes through the whole table, or first makes a list of them, since
        # foreign keys might ask.
        connection.executemany("DELETE FROM listing WHERE name = ? AND feed = ?", keys.iter_rows())
        deleted = connection.total_changes - before - closed
        if closed != deleted:
            raise RecordError(
                f"{path_in(self.state)} closed {closed:,} and removed {deleted:,} of {rows.height:,} listings",
                hint="nothing was kept; look at the disk with 'blocklist doctor', and run it again",
            )

    def close_feed(self, connection: sqlite3.Connection, run: int, period: int, feed: int, cause: str) -> int:
        """Close every open listing of `feed`; how many there were."""
        cursor = connection.execute(
            """
            INSERT INTO listing_closed
                (period, name, feed, since, until, cause, kind, subtree, line, confidence, extra, dropped)
            SELECT ?, name, feed, since, ?, ?, kind, subtree, line, confidence, extra, dropped
            FROM listing WHERE feed = ?
            """,
            (period, run, cause, feed),
        )
        connection.execute("DELETE FROM listing WHERE feed = ?", (feed,))
        connection.execute(
            "UPDATE snapshot SET state = 'superseded' WHERE feed = ? AND state IN ('current', 'gated')", (feed,)
        )
        return cursor.rowcount

    def mark_dropped(self, connection: sqlite3.Connection, run: int | None, feed: int, names: pl.Series) -> None:
        """Note with which run `feed` ceased to list `names`, which linger; None: it lists them again."""
        if names.is_empty():
            return
        connection.executemany(
            "UPDATE listing SET dropped = ? WHERE name = ? AND feed = ?", ((run, name, feed) for name in names)
        )

    def listed_after(self, feed: int, run: int) -> pl.Series:
        """Names (String) of the open listings of `feed` that began after `run`."""
        columns_ = {"name": Column("name", pl.String)}
        return frames.read(self.connection, columns_, "listing WHERE feed = ? AND since > ?", (feed, run))["name"]

    def listed_among(self, names: pl.Series) -> pl.DataFrame:
        """`name`, `kind`, `feed: UInt16` of the open listings of any of `names` (String): 3,000 names take 20 ms."""
        columns_ = {
            "name": Column("l.name", pl.String),
            "kind": Column("l.kind", pl.UInt8),
            "feed": Column("l.feed", pl.UInt16),
        }
        # In order of the table, which then reads each of its pages once.
        asked = json.dumps(names.unique().sort().to_list(), ensure_ascii=False)
        return frames.read(
            self.connection, columns_, "json_each(?) n CROSS JOIN listing l ON l.name = n.value", (asked,)
        )

    def next_ends(self) -> dict[int, str]:
        """When the next listing of each feed ends, by feed id, of those that have an end."""
        return dict(self.connection.execute("SELECT id, next_end FROM feed WHERE next_end IS NOT NULL"))

    def times(self, feed: int, snapshot: int) -> pl.DataFrame:
        """The times frame (`blocklist.select.lifetime`) of a feed's current snapshot: its file, or rebuilt."""
        frame = columns.read_times(self.state, snapshot)
        if frame is None:
            frame = frames.read(
                self.connection,
                TIMES,
                "listing l JOIN run r ON r.id = l.since LEFT JOIN run d ON d.id = l.dropped WHERE l.feed = ?",
                (feed,),
            ).sort("name")
            with suppress(OSError):  # a cache: who may not write to it, or has no room, can read all the same
                columns.write_times(self.state, snapshot, frame)
        return frame

    def indicators(self, feed: int, snapshot: int) -> pl.DataFrame:
        """The indicators frame of a feed's current snapshot."""
        return self.columns(feed, snapshot).frame

    def columns(self, feed: int, snapshot: int) -> Columns:
        """The column file of a feed's current snapshot, written anew from the open listings where it is lost."""
        found = columns.read(self.state, snapshot)
        if found is None:
            frame = frames.read(self.connection, LISTING, "listing WHERE feed = ?", (feed,)).sort("name")
            found = Columns(frame, None)
            with suppress(OSError):  # as above
                columns.write(self.state, snapshot, found)
        return found

    def first_listed(self, feeds: Sequence[int]) -> pl.DataFrame:
        """`name`, `since`: when the first of the open listings of each name by any of `feeds` began."""
        return frames.read(
            self.connection,
            FIRST_LISTED,
            "(SELECT name, min(since) AS since FROM listing "
            f"WHERE feed IN ({', '.join(map(str, feeds))}) GROUP BY name) l JOIN run r ON r.id = l.since",
        )

    # Holds

    def open_holds(self) -> pl.DataFrame:
        """`name`, `kind`, `guard`, `subtree_only`, `detail` of the holds in force, released or not."""
        if self._holds is None:
            self._holds = self._read_holds()
        return self._holds

    def _read_holds(self) -> pl.DataFrame:
        return frames.read(self.connection, HOLD, "hold WHERE until IS NULL").sort("name", "guard")

    def hold_changes(self, now: pl.DataFrame, no_more: pl.Series | None) -> HoldChanges:
        """What must change for `now` to be the holds in force; the record is not asked, but for a first `open_holds`.

        With `no_more` (String), `now` speaks only of some names: those of `no_more` are closed, the others stay.
        A hold whose reason only changes its wording stays the same interval.
        """
        every = before = self.open_holds()
        if no_more is not None:
            spoken = pl.concat([now["name"], no_more]).unique()
            before = before.filter(pl.col("name").is_in(spoken.implode()))
            now = now.filter(~pl.col("name").is_in(no_more.implode()))
        key = ["name", "guard", "subtree_only"]
        opened = now.join(before, on=key, how="anti")
        closed = before.join(now, on=key, how="anti")
        in_force = pl.concat([every.join(closed, on=key, how="anti"), opened.select(every.columns)])
        return HoldChanges(opened, closed, in_force)

    def change_holds(self, connection: sqlite3.Connection, run: int, changes: HoldChanges) -> None:
        """Open and close holds."""
        connection.executemany(
            "UPDATE hold SET until = ? WHERE name = ? AND guard = ? AND until IS NULL",
            ((run, name, guard) for name, guard in changes.closed.select("name", "guard").iter_rows()),
        )
        connection.executemany(
            "INSERT INTO hold (name, kind, guard, subtree_only, detail, since) VALUES (?, ?, ?, ?, ?, ?)",
            changes.opened.select(
                "name", "kind", "guard", pl.col("subtree_only").cast(pl.UInt8), "detail", pl.lit(run)
            ).iter_rows(),
        )
        self._holds = changes.in_force

    def count_held(self) -> int:
        """How many names are held and not released, without reading them."""
        row = self.connection.execute(
            "SELECT count(DISTINCT name) FROM hold WHERE until IS NULL "
            "AND name NOT IN (SELECT name FROM hold_release WHERE until IS NULL)"
        ).fetchone()
        return int(row[0])

    def released_names(self) -> set[str]:
        """Names whose holds a person released."""
        return {row[0] for row in self.connection.execute("SELECT name FROM hold_release WHERE until IS NULL")}

    def pins(self) -> list[tuple[Any, ...]]:
        """Of the exports that are pinned to a release: id of the pin, export, release, digest of what this was chosen
        from, reason, author, created.
        """
        return self.connection.execute(
            "SELECT p.id, p.export, p.release, r.chosen, p.reason, p.author, p.created "
            "FROM pin p JOIN release r ON r.id = p.release WHERE p.until IS NULL"
        ).fetchall()

    def verdict_names(self) -> pl.DataFrame:
        """`name`, `verdict: String` of the domains that a policy may drop for what DNS said of them.

        `verdict` is `dead` (semantics: by the registry's word), `sinkholed` or `parked`.
        """
        columns = {"name": Column("name", pl.String), "verdict": Column("iif(dead = 1, 'dead', status)", pl.String)}
        known = "verdict WHERE dead = 1 OR status IN ('sinkholed', 'parked')"
        return frames.read(self.connection, columns, known).sort("name")

    def guard_input(self) -> dict[str, str]:
        """Digests of what the holds in force were computed from, by name."""
        return dict(self.connection.execute("SELECT name, digest FROM guard_input"))

    def set_guard_input(self, connection: sqlite3.Connection, digests: Mapping[str, str]) -> None:
        connection.execute("DELETE FROM guard_input")
        connection.executemany("INSERT INTO guard_input VALUES (?, ?)", sorted(digests.items()))

    # Feed attributes

    def feed_version(self, feed: int, run: int | None = None) -> str | None:
        """The attributes (JSON) of the newest version of `feed`, or of the one in force at `run`."""
        row = self.connection.execute(
            "SELECT attributes FROM feed_version WHERE feed = ?1 AND (?2 IS NULL OR since <= ?2) "
            "ORDER BY since DESC LIMIT 1",
            (feed, run),
        ).fetchone()
        return row[0] if row else None

    def add_feed_version(
        self, connection: sqlite3.Connection, feed: int, run: int, attributes: Mapping[str, Any], text: str
    ) -> None:
        connection.execute(
            """
            INSERT OR REPLACE INTO feed_version
            (feed, since, category, confidence, family, direction, mode, title, url, attributes)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
            """,
            (feed, run, *(attributes[k] for k in _VERSIONED), text),
        )


class HoldChanges(msgspec.Struct, frozen=True):
    """Holds (as `Record.open_holds` has them) that are opened and closed, and all that are in force then."""

    opened: pl.DataFrame
    closed: pl.DataFrame
    in_force: pl.DataFrame


class Run(msgspec.Struct, frozen=True):
    """A run as it is written: its number, when it began, and who does it."""

    record: Record
    connection: sqlite3.Connection
    id: int
    at: str
    by: str

    def event(self, what: str, **detail: Any) -> None:
        """Tell of what this run does, at its time and by its author."""
        self.record.event(self.connection, self.at, self.id, what, self.by, **detail)


_VERSIONED = ("category", "confidence", "family", "direction", "mode", "title", "url")


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    # What makes tables takes 20 ms to load, and hardly a run has any to make.
    from blocklist.store.schema import migrate

    migrate(connection, path)


def _unpacked(i: int, run: int) -> str:
    """One row of VALUES: parameter 2i+1 is the name, 2i+2 the packed numbers."""
    name, packed = 2 * i + 1, 2 * i + 2
    return (
        f"(?{name}, ?{packed} >> 40, {run:d}, (?{packed} >> 36) & 15, (?{packed} >> 35) & 1, "
        f"?{packed} & {2**_LINE_BITS - 1}, NULL, NULL)"
    )


def _flat(rows: pl.DataFrame, batch: int) -> Iterator[list[object]]:
    """Parameters of `batch` rows at a time, the two columns of `rows` alternating."""
    step = batch * 500
    for start in range(0, rows.height, step):
        part = rows.slice(start, step)
        flat: list[object] = [None] * (2 * part.height)
        flat[0::2], flat[1::2] = (column.to_list() for column in part)
        for i in range(0, len(flat), 2 * batch):
            yield flat[i : i + 2 * batch]


def _clear_building(path: Path) -> Path:
    """Where a new database is built; what a killed run left there is removed."""
    building = path.with_name(path.name + ".new")
    for left in (building, path.with_name(building.name + "-journal")):
        left.unlink(missing_ok=True)
    return building


def _fsync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


__all__ = ["Record", "Snapshot"]
