"""A moment of the record by its run: order is by run, dates are what people remember."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from blocklist import clock
from blocklist.errors import RecordError


def run_at(connection: sqlite3.Connection, at: datetime) -> int:
    """The last run that had begun by `at`. Raises RecordError when there was none yet."""
    row = connection.execute("SELECT max(id), min(started) FROM run WHERE started <= ?", (clock.text(at),)).fetchone()
    if row[0] is not None:
        return int(row[0])
    first = connection.execute("SELECT min(started) FROM run").fetchone()[0]
    raise RecordError(
        f"the record knows nothing of {clock.text(at)}",
        hint=f"it begins on {first}" if first else "run 'blocklist update' first",
    )


def periods(connection: sqlite3.Connection, since: str = "") -> list[int]:
    """Months (YYYYMM) in which listings ended, by one step through the key each.

    With `since` (RFC 3339) those that what was open then can have ended in: its own month and later ones.
    """
    rows = connection.execute(
        "WITH RECURSIVE p(period) AS (SELECT min(period) FROM listing_closed UNION ALL "
        "SELECT (SELECT min(period) FROM listing_closed WHERE period > p.period) FROM p WHERE period IS NOT NULL) "
        "SELECT period FROM p WHERE period IS NOT NULL"
    )
    begin = clock.period(clock.parse(since)) if since else 0
    return [row[0] for row in rows if row[0] >= begin]
