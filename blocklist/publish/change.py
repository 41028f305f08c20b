"""How much a release changes, and what it is compared with: the live release, and the one of seven days ago."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import polars as pl

from blocklist import clock
from blocklist.store.record import Record

WEEK = timedelta(days=7)
# Of the releases of so many days one is kept for comparison.
_DAYS = 3


class Change(msgspec.Struct, frozen=True):
    """Entries `before` (None: there is no release to compare with), `after`, and those that come and go."""

    before: int | None
    after: int
    added: int
    removed: int

    @property
    def any(self) -> bool:
        """Does anything change? A first release does."""
        return self.before is None or bool(self.added or self.removed)

    def beyond(self, person: pl.Series, now: pl.Series) -> Change:
        """The change without what rules did since: `person` are the old entries under the rules of now (UInt64)."""
        common = int(now.is_in(person.implode()).sum())
        before = len(person) if self.before is None else self.before
        # What a person took away or added counts neither way.
        return Change(self.before, self.after + before - len(person), len(now) - common, len(person) - common)


class Before(msgspec.Struct, frozen=True):
    """A release to compare with."""

    id: int
    published: str


def weekly(record: Record, export: str) -> Before | None:
    """The release of seven days ago, or some days more; a later one that a person approved takes its place."""
    row = record.connection.execute(
        f"SELECT id, published FROM release r WHERE export = ?1 AND (id IN ({_KEPT} HAVING min(published) <= ?2) "
        "OR (published IS NOT NULL AND EXISTS (SELECT 1 FROM release h WHERE h.export = ?1 "
        "AND h.body_digest = r.body_digest AND h.note LIKE 'approved by %'))) ORDER BY id DESC LIMIT 1",
        (export, clock.text(clock.now() - WEEK)),
    ).fetchone()
    return Before(*row) if row else None


def compared_with(record: Record) -> set[int]:
    """Releases of which something is kept: live ones, those of a week ago, and one of every three days since."""
    wanted = {row[0] for row in record.connection.execute("SELECT id FROM release WHERE state = 'live'")}
    for (export,) in record.connection.execute("SELECT DISTINCT export FROM release").fetchall():
        before = weekly(record, export)
        since = before.id if before else 0
        wanted |= {since} | {row[0] for row in record.connection.execute(_KEPT, (export,)) if row[0] > since}
    return wanted


# The first release of each span of days, by the calendar.
_KEPT = (
    "SELECT min(id) FROM release WHERE export = ?1 AND published IS NOT NULL "
    f"GROUP BY CAST(julianday(published) AS INTEGER) / {_DAYS}"
)
