"""What changed between two states of the record: by feed and category, name by name, and in the exports.

What came and went again in between changed nothing. From the record alone.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import polars as pl

from blocklist import clock
from blocklist.catalog import CATEGORIES, KINDS, Feed
from blocklist.config import Policy
from blocklist.dates import past
from blocklist.errors import IndicatorError
from blocklist.publish import settings
from blocklist.store import frames
from blocklist.store.frames import Column
from blocklist.store.moment import periods_after, require_kept, run_at

_CHANGED = {
    "name": Column("name", pl.String),
    "kind": Column("kind", pl.UInt8),
    "feed": Column("feed", pl.UInt16),
    "category": Column("extra ->> '$.category'", pl.String, nullable=True),
}
# All that a row says: one that went and came again as it was is no change. Read of these alone, since of all rows it
# would take as long as everything else.
_SAYS = {
    "name": Column("name", pl.String),
    "feed": Column("feed", pl.UInt16),
    "says": Column("subtree || ' ' || coalesce(confidence, '') || ' ' || coalesce(extra, '')", pl.String),
}
Change = Literal["added", "removed", "changed"]


@dataclass(frozen=True)
class Point:
    """One end of a difference: the record after `run`; `at`, RFC 3339; of a `release`, its export and policy too.

    `snapshot`: what of one feed was taken in with that run.
    """

    run: int
    at: str
    release: int | None = None
    export: str | None = None
    policy: Policy | None = None
    snapshot: int | None = None


@dataclass(frozen=True)
class Item:
    """A listing that is there at one end only, or says something else at both."""

    change: Change
    indicator: str
    kind: str
    feed: str
    category: str


@dataclass(frozen=True)
class Counted:
    """How many listings of a feed in a category came, went, or say something else."""

    feed: str
    category: str
    added: int
    removed: int
    changed: int


@dataclass(frozen=True)
class InFile:
    """What was live of one export at both ends: number of the release, entries and digest; None where none was."""

    export: str
    before: tuple[int, int, str] | None
    after: tuple[int, int, str] | None


def point(db: sqlite3.Connection, text: str, now: datetime, place: str) -> Point:
    """A date (see `blocklist.dates`) or the number of a release. Raises IndicatorError, RecordError."""
    if not text.isdigit():
        at = past(text, now, place=place)
        return Point(run_at(db, at), clock.text(at))
    row = db.execute(
        "SELECT id, run, coalesce(published, created), export FROM release WHERE id = ?", (int(text[:18]),)
    ).fetchone()
    if row is None:
        raise IndicatorError(
            f"{place}: there is no release {text}",
            hint="'blocklist release' lists them; a date is written 2026-03-03, 7d or yesterday",
        )
    require_kept(db, row[1], f"release {text}")
    made_by = settings.of_release(db, row[0])
    return Point(row[1], row[2], row[0], row[3], made_by.own.policy if made_by else None)


def point_of(db: sqlite3.Connection, feed: str, text: str, now: datetime, place: str) -> Point:
    """A date, or the number of a snapshot of `feed`: the record once that was taken in.

    Raises IndicatorError for another feed's, and for one that never was taken in; RecordError.
    """
    if not text.isdigit():
        return point(db, text, now, place)
    row = db.execute(
        "SELECT s.id, s.run, r.started, s.gate FROM snapshot s JOIN feed f ON f.id = s.feed JOIN run r ON r.id = s.run "
        "WHERE s.id = ? AND f.name = ?",
        (int(text[:18]), feed),
    ).fetchone()
    if row is None:
        raise IndicatorError(
            f"{place}: {feed} has no snapshot {text}",
            hint=f"'blocklist feeds show {feed} --all' lists them; a date is written 2026-03-03, 7d or yesterday",
        )
    if row[3] is not None:
        raise IndicatorError(
            f"{place}: snapshot {text} of {feed} was never taken in: {row[3]}",
            hint=f"'blocklist feeds show {feed} --snapshot {text} -o FILE' writes it out",
        )
    require_kept(db, row[1], f"snapshot {text}")
    return Point(row[1], row[2], snapshot=row[0])


class Difference:
    """The difference of `a` and `b`, two points of the record that `db` reads; of one `feed`, where it is named.

    Raises IndicatorError for b before a.
    """

    def __init__(self, db: sqlite3.Connection, a: Point, b: Point, feed: str | None = None) -> None:
        if b.run < a.run:
            raise IndicatorError("the second is earlier than the first", hint="give the earlier one first")
        if a.export is not None and b.export is not None and a.export != b.export:
            raise IndicatorError(
                f"release {a.release} is of export {a.export}, release {b.release} of {b.export}",
                hint="'blocklist release' lists the releases of each export",
            )
        self._db, self.a, self.b = db, a, b
        self._found: Mapping[Change, pl.DataFrame] | None = None
        self.export = a.export or b.export
        self._policy = b.policy or a.policy
        self._names: dict[int, str] = dict(db.execute("SELECT id, name FROM feed"))
        number = next((i for i, name in self._names.items() if name == feed), None)
        self._only = "" if feed is None else f" AND feed = {number if number is not None else -1:d}"
        self._feeds = (settings.feeds_at(db, a.run), settings.feeds_at(db, b.run))

    def items(self) -> Iterator[Item]:
        """Every listing that differs, those that came first; for an export, those that its policy takes."""
        for change, frame in self._changes().items():
            for name, kind, feed, told in frame.sort("name", "feed").iter_rows():
                item = Item(change, name, KINDS[kind - 1], *self._of(change, feed, told))
                if self._taken(item.feed, item.category, item.kind):
                    yield item

    def counted(self) -> list[Counted]:
        """The same, counted by feed and category."""
        counts: dict[tuple[str, str], Counter[Change]] = {}
        for change, frame in self._changes().items():
            for kind, feed, told, count in frame.group_by("kind", "feed", "category").len().iter_rows():
                feed_id, category = self._of(change, feed, told)
                if self._taken(feed_id, category, KINDS[kind - 1]):
                    counts.setdefault((feed_id, category), Counter())[change] += count
        return [
            Counted(feed, category, found["added"], found["removed"], found["changed"])
            for (feed, category), found in sorted(counts.items())
        ]

    def decisions(self) -> dict[str, int]:
        """What persons, guards and the DNS decided in between."""
        a, b = self.a.run, self.b.run
        asked = {
            "rules_added": "SELECT count(*) FROM rule WHERE since > ?1 AND since <= ?2",
            "rules_removed": "SELECT count(*) FROM rule WHERE until > ?1 AND until <= ?2",
            "holds_opened": "SELECT count(*) FROM hold WHERE since > ?1 AND since <= ?2",
            "holds_closed": "SELECT count(*) FROM hold WHERE until > ?1 AND until <= ?2",
            "holds_released": "SELECT count(*) FROM hold_release WHERE since > ?1 AND since <= ?2",
            "names_dead": "SELECT (SELECT count(*) FROM verdict WHERE died > ?1 AND died <= ?2) + "
            "(SELECT count(*) FROM verdict_closed WHERE died > ?1 AND died <= ?2)",
        }
        return {what: int(self._db.execute(sql, (a, b)).fetchone()[0]) for what, sql in asked.items()}

    def files(self) -> list[InFile]:
        """What was live of each export, or of the one asked for, at both ends."""
        names = [row[0] for row in self._db.execute("SELECT DISTINCT export FROM release ORDER BY 1")]
        return [
            InFile(name, before, after)
            for name in names
            if self.export in (None, name)
            and ((before := self._live(name, self.a)), (after := self._live(name, self.b))) != (None, None)
        ]

    def _live(self, export: str, end: Point) -> tuple[int, int, str] | None:
        where, value = ("id = ?", end.release) if end.release is not None else ("published <= ?", end.at)
        row = self._db.execute(
            f"SELECT id, entries, digest FROM release WHERE export = ? AND {where} "
            "ORDER BY published DESC, id DESC LIMIT 1",
            (export, value),
        ).fetchone()
        return tuple(row) if row else None

    def _changes(self) -> Mapping[Change, pl.DataFrame]:
        """Frames of `name`, `kind`, `feed`, `category` by what became of the listings."""
        if self._found is None:
            was, came = self._was({**_CHANGED, "until": Column("until", pl.Int64)}), self._came(_CHANGED)
            key = ["name", "feed"]
            both = came.join(was, on=key, how="semi")
            if both.height:
                among = json.dumps(both["name"].unique().to_list())
                same = self._came(_SAYS, among).join(self._was(_SAYS, among), on=[*key, "says"], how="semi")
                both = both.join(same, on=key, how="anti")
            self._found = {
                "added": came.join(was, on=key, how="anti"),
                "changed": both,
                "removed": was.filter(pl.col("until") <= self.b.run).drop("until").join(came, on=key, how="anti"),
            }
        return self._found

    def _was(self, columns: Mapping[str, Column], among: str | None = None) -> pl.DataFrame:
        """What was open at `a` and ended since; of the names `among` (JSON), where they are given."""
        source = f"listing_closed WHERE {self._ended_after(self.a)} AND since <= ?1 AND until > ?1"
        return frames.read(self._db, columns, source + self._only + _of_names(among), (self.a.run, None, among))

    def _came(self, columns: Mapping[str, Column], among: str | None = None) -> pl.DataFrame:
        """What came since `a` and was open at `b`; likewise."""
        values = (self.a.run, self.b.run, among)
        closed = f"listing_closed WHERE {self._ended_after(self.b)} AND since > ?1 AND since <= ?2 AND until > ?2"
        opened = "listing WHERE since > ?1 AND since <= ?2"
        return pl.concat(
            frames.read(self._db, columns, source + self._only + _of_names(among), values)
            for source in (opened, closed)
        )

    def _ended_after(self, end: Point) -> str:
        """The months in which what was open after a run can have been closed."""
        return f"period IN ({', '.join(map(str, periods_after(self._db, end.run)))})"

    def _of(self, change: Change, feed: int, told: str | None) -> tuple[str, str]:
        """The feed, and the category: the row's, else the feed's at the end at which it lists."""
        name = self._names[feed]
        feeds: Mapping[str, Feed] = self._feeds[change != "removed"]
        if told in CATEGORIES:
            return name, str(told)
        return name, feeds[name].category if name in feeds else "other"

    def _taken(self, feed: str, category: str, kind: str) -> bool:
        policy = self._policy
        return policy is None or (
            category in policy.categories and kind in policy.kinds and (policy.feeds is None or feed in policy.feeds)
        )


def _of_names(among: str | None) -> str:
    """The condition that a row is of the names in parameter 3; with it that parameter is used in any case."""
    return " AND ?3 IS NULL" if among is None else " AND name IN (SELECT value FROM json_each(?3))"
