"""What changed between two states of the record: by feed and category, name by name, and in the exports.

What came and went again in between changed nothing. From the record alone, by SQLite; no column library.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from blocklist import clock
from blocklist.catalog import CATEGORIES, KINDS, Feed
from blocklist.config import Policy
from blocklist.dates import past
from blocklist.errors import IndicatorError
from blocklist.publish import settings
from blocklist.store.moment import periods, require_kept, run_at

Change = Literal["added", "removed", "changed"]


@dataclass(frozen=True)
class Point:
    """One end of a difference: the record after `run`; `at`, RFC 3339; of a `release`, its export and policy too."""

    run: int
    at: str
    release: int | None = None
    export: str | None = None
    policy: Policy | None = None


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


class Difference:
    """The difference of `a` and `b`, two points of the record that `db` reads. Raises IndicatorError for b before a."""

    def __init__(self, db: sqlite3.Connection, a: Point, b: Point) -> None:
        if b.run < a.run:
            raise IndicatorError("the second is earlier than the first", hint="give the earlier one first")
        if a.export is not None and b.export is not None and a.export != b.export:
            raise IndicatorError(
                f"release {a.release} is of export {a.export}, release {b.release} of {b.export}",
                hint="'blocklist release' lists the releases of each export",
            )
        self._db, self.a, self.b, self._gathered = db, a, b, False
        self.export = a.export or b.export
        self._policy = b.policy or a.policy
        self._names = dict(db.execute("SELECT id, name FROM feed"))
        self._feeds = (settings.feeds_at(db, a.run), settings.feeds_at(db, b.run))

    def items(self) -> Iterator[Item]:
        """Every listing that differs, those that came first; for an export, those that its policy takes."""
        for change, name, kind, feed, told in self._rows("name, kind, feed, category", ""):
            item = Item(change, name, KINDS[kind - 1], *self._of(change, feed, told))
            if self._taken(item.feed, item.category, item.kind):
                yield item

    def counted(self) -> list[Counted]:
        """The same, counted by feed and category."""
        counts: dict[tuple[str, str], Counter[Change]] = {}
        columns = "count(*), kind, feed, category"
        for change, count, kind, feed, told in self._rows(columns, "GROUP BY kind, feed, category"):
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

    def _rows(self, columns: str, group: str) -> Iterator[tuple[Change, Any, int, int, str | None]]:
        self._gather()
        same = "SELECT 1 FROM {} o WHERE o.name = x.name AND o.feed = x.feed"
        asked: tuple[tuple[Change, str, str], ...] = (
            ("added", "came", f"NOT EXISTS ({same.format('was')})"),
            ("changed", "came", f"EXISTS ({same.format('was')})"),
            ("removed", "was", f"until <= {self.b.run:d} AND NOT EXISTS ({same.format('came')})"),
        )
        for change, table, where in asked:
            for row in self._db.execute(f"SELECT {columns} FROM {table} x WHERE {where} {group}"):
                yield change, *row

    def _gather(self) -> None:
        """Temporary tables by name and feed: what was open at `a` and ended since; what came since, open at `b`.

        Asking the closed listings for each row instead, a step a month, takes longer the more months there are.
        """
        if self._gathered:
            return
        # What was open after a run was closed in its month or later.
        after_a, after_b = (", ".join(map(str, periods(self._db, end.at))) for end in (self.a, self.b))
        self._db.execute("PRAGMA temp_store = FILE")
        for table, extra in (("was", ", until INTEGER"), ("came", "")):
            self._db.execute(
                f"CREATE TEMP TABLE {table} (name TEXT, feed INTEGER, kind INTEGER, category TEXT{extra}, "
                "PRIMARY KEY (name, feed)) WITHOUT ROWID"
            )
        columns = "name, feed, kind, extra ->> '$.category'"
        run = (self.a.run, self.b.run)
        self._db.execute(
            f"INSERT OR IGNORE INTO was SELECT {columns}, until FROM listing_closed WHERE period IN ({after_a}) "
            "AND since <= ?1 AND until > ?1",
            run[:1],
        )
        self._db.execute(
            f"INSERT OR IGNORE INTO came SELECT {columns} FROM listing WHERE since > ?1 AND since <= ?2", run
        )
        self._db.execute(
            f"INSERT OR IGNORE INTO came SELECT {columns} FROM listing_closed WHERE period IN ({after_b}) "
            "AND since > ?1 AND since <= ?2 AND until > ?2",
            run,
        )
        self._gathered = True

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
