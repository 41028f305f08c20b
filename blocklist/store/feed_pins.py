"""Feeds that a person put back to an earlier snapshot, and that stand there until another word.

Standard library only: `why` reads through here in milliseconds.
"""

from __future__ import annotations

import sqlite3

import msgspec

from blocklist import clock


class FeedPin(msgspec.Struct, frozen=True):
    """`snapshot` is what the feed stands at, taken in at the time `taken`; since when, by whom, why (RFC 3339)."""

    snapshot: int
    taken: str
    since: str
    author: str
    reason: str
    ticket: str | None

    @property
    def said(self) -> str:
        """In one sentence, for screens and for what is kept with a download."""
        ticket = f" ({self.ticket})" if self.ticket else ""
        return (
            f"pinned to snapshot {self.snapshot} of {clock.said(self.taken)} "
            f"since {clock.said(self.since)} by {self.author}: {self.reason}{ticket}"
        )


def feed_pins(connection: sqlite3.Connection, run: int | None = None) -> dict[str, FeedPin]:
    """The pins in force by feed: of now, or as of `run`."""
    rows = connection.execute(
        "SELECT f.name, x.snapshot, r.started, x.created, x.author, x.reason, x.ticket FROM feed_pin x "
        "JOIN feed f ON f.id = x.feed JOIN snapshot s ON s.id = x.snapshot JOIN run r ON r.id = s.run "
        "WHERE iif(?1 IS NULL, x.until IS NULL, x.since <= ?1 AND (x.until IS NULL OR x.until > ?1))",
        (run,),
    )
    return {name: FeedPin(*values) for name, *values in rows}


def pin_over(connection: sqlite3.Connection, feed: int, run: int | None = None) -> int | None:
    """The number of the pin that the feed of this number stood under after `run`, or stands under now."""
    row = connection.execute(
        "SELECT x.id FROM feed_pin x WHERE x.feed = ?1 "
        "AND iif(?2 IS NULL, x.until IS NULL, x.since <= ?2 AND (x.until IS NULL OR x.until > ?2))",
        (feed, run),
    ).fetchone()
    return int(row[0]) if row is not None else None
