"""A moment of the record by its run: order is by run, dates are what people remember."""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta

from blocklist import clock
from blocklist.errors import RecordError

# A clock is believed by a run of at least a day ago, and of no longer ago than any month and a few days.
_CONFIRMED_AFTER = timedelta(days=1)
_CONFIRMED_FOR = timedelta(days=35)


def last_confirmed(connection: sqlite3.Connection, now: datetime) -> datetime | None:
    """When the last run was that is far behind `now`, where no run since then confirms the clock; else None.

    After a jump of the clock, or where nothing ran for long: from then on a day of runs confirms it.
    """
    late, early = clock.text(now - _CONFIRMED_AFTER), clock.text(now - _CONFIRMED_FOR)
    (last,) = connection.execute("SELECT max(started) FROM run WHERE started <= ?", (late,)).fetchone()
    return clock.parse(last) if last is not None and last < early else None


def run_at(connection: sqlite3.Connection, at: datetime) -> int:
    """The last run that had begun by `at`. Raises RecordError when there was none yet, or what was then is pruned."""
    row = connection.execute("SELECT max(id), min(started) FROM run WHERE started <= ?", (clock.text(at),)).fetchone()
    if row[0] is not None:
        require_kept(connection, int(row[0]), clock.text(at))
        return int(row[0])
    first = connection.execute("SELECT min(started) FROM run").fetchone()[0]
    raise RecordError(
        f"the record knows nothing of {clock.said(clock.text(at))}",
        hint=f"it begins on {clock.said(first)}" if first else "run 'blocklist update' first",
    )


_FORGOTTEN = "forgotten"


def forget_before(connection: sqlite3.Connection, run: int) -> None:
    """Note that of what ended up to `run` nothing is kept: the record is whole from the state after it on."""
    connection.execute(
        "INSERT INTO counter VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = max(value, ?2)", (_FORGOTTEN, run)
    )


def whole_since(connection: sqlite3.Connection) -> tuple[int, str] | None:
    """The first run of which the record still knows all, and when it was; None where nothing was pruned."""
    row = connection.execute(
        "SELECT r.id, r.started FROM counter c JOIN run r ON r.id = c.value WHERE c.name = ?", (_FORGOTTEN,)
    ).fetchone()
    return (int(row[0]), str(row[1])) if row is not None else None


def require_kept(connection: sqlite3.Connection, run: int, of: str) -> None:
    """Raises RecordError where listings of the state after `run` are pruned; `of` names it."""
    whole = whole_since(connection)
    if whole is not None and run < whole[0]:
        raise RecordError(
            f"what was listed as of {of} is pruned: the record is whole since {whole[1]}",
            hint="digests, times and decisions are left: 'blocklist release' and 'blocklist events list'; listings of "
            "then are in a backup, or in evidence that was written out; [keep] history says how long they stay",
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


def periods_after(connection: sqlite3.Connection, run: int) -> list[int]:
    """Months (YYYYMM) in which what was open after `run` can have ended, by whatever the clock said since."""
    (begin,) = connection.execute("SELECT min(started) FROM run WHERE id >= ?", (run,)).fetchone()
    return periods(connection, begin or "")


def state_of(connection: sqlite3.Connection) -> tuple[int | None, tuple[tuple[str, int], ...]]:
    """What tells two states of the listings apart: the last run, and the counters of changes and of pruning."""
    (run,) = connection.execute("SELECT max(id) FROM run").fetchone()
    return run, tuple(connection.execute("SELECT name, value FROM counter ORDER BY name"))
