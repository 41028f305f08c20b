"""Cases: complaints that were opened (`blocklist.complaint`), and close by themselves when their feeds let go."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from blocklist.catalog import KINDS
from blocklist.errors import BlocklistError, IndicatorError
from blocklist.regular import NotAFileError, open_regular, read_regular
from blocklist.store.feed_pins import feed_pins

if TYPE_CHECKING:
    from blocklist.store.record import Run


class Cited(msgspec.Struct, frozen=True):
    """A listing that a case is about; `listed`: does its feed list it still?"""

    indicator: str
    feed: str
    listed: bool


class Case(msgspec.Struct, frozen=True):
    """A row of `case_file`; `rule` is the allow that came with it, which ends at `allowed_until`."""

    id: int
    name: str
    kind: str
    ticket: str
    opened: str
    opened_by: str
    bundle: str
    sha256: str
    cited: Sequence[Cited]
    rule: int | None
    allowed_until: str | None
    closed: str | None
    closed_by: str | None
    closed_reason: str | None


# Closing


def close_dropped(run: Run) -> list[Case]:
    """Close the cases whose feeds list nothing of them any more, as a part of an update.

    An allow that came with one goes on until its end: publishers drop and list again.
    """
    closed, connection = [], run.connection
    pinned = feed_pins(connection)
    for one in cases(connection):
        # Of a feed that was put back to an earlier list nobody knows what its publisher lists.
        if any(x.listed or x.feed in pinned for x in one.cited):
            continue
        off = {row[0] for row in connection.execute("SELECT name FROM feed WHERE NOT enabled")}
        names = sorted({x.feed for x in one.cited})
        reason = "no longer listed by " + ", ".join(f"{n} (no longer in use)" if n in off else n for n in names)
        close(run, one, reason)
        closed.append(case(connection, one.id))
    return closed


def close(run: Run, one: Case, reason: str) -> None:
    """Close a case as a part of `run`."""
    run.connection.execute(
        "UPDATE case_file SET closed = ?, until = ?, closed_by = ?, closed_reason = ? WHERE id = ?",
        (run.at, run.id, run.by, reason, one.id),
    )
    run.event("case closed", case=one.id, name=one.name, ticket=one.ticket, reason=reason)


# Reading


def case(connection: sqlite3.Connection, number: int) -> Case:
    """Raises IndicatorError when there is none of this number."""
    found = next(_read(connection, "c.id = ?", (number,)), None)
    if found is None:
        raise IndicatorError(f"there is no case {number}", hint="'blocklist case list --all' lists them")
    return found


def cases(connection: sqlite3.Connection, *, closed: bool = False) -> list[Case]:
    """The open cases by number; with `closed`, the others too."""
    return list(_read(connection, "c.closed IS NULL OR ?", (closed,)))


def _read(connection: sqlite3.Connection, where: str, values: tuple[object, ...]) -> Iterator[Case]:
    rows = connection.execute(
        "SELECT c.id, c.name, c.kind, c.ticket, c.opened, c.opened_by, c.bundle, c.sha256, c.cited, c.rule, "
        "coalesce(r.removed, r.expires), c.closed, c.closed_by, c.closed_reason "
        f"FROM case_file c LEFT JOIN rule r ON r.id = c.rule WHERE {where} ORDER BY c.id",
        values,
    ).fetchall()
    for row in rows:
        cited = [Cited(indicator, feed, _listed(connection, indicator, feed)) for indicator, feed in json.loads(row[8])]
        number, name, kind, ticket, opened, opened_by, bundle, sha256, _, rule, until, *closed = row
        yield Case(
            number, name, KINDS[kind - 1], ticket, opened, opened_by, bundle, sha256, cited, rule, until, *closed
        )


def _listed(connection: sqlite3.Connection, indicator: str, feed: str) -> bool:
    found = connection.execute(
        "SELECT 1 FROM listing WHERE name = ? AND feed = (SELECT id FROM feed WHERE name = ?)", (indicator, feed)
    )
    return found.fetchone() is not None


def kept_messages(state: Path, one: Case) -> list[tuple[Path, str]]:
    """The drafts that were kept when the case was opened, or what a person made of them."""
    folder = (state / one.bundle).parent
    found = sorted(folder.glob("to-*.txt")) if folder.is_dir() else []
    try:
        return [(path, read_regular(path).decode("utf-8", "replace")) for path in found]
    except OSError as error:
        raise BlocklistError(f"{error.filename}: {error.strerror}", hint="check owner and mode of the file") from None


def trouble_of(state: Path, one: Case) -> str | None:
    """What is wrong with the kept evidence of a case; None when it is as it was."""
    try:
        with open(open_regular(state / one.bundle), "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        why = f"it {error.what}" if isinstance(error, NotAFileError) else error.strerror
        return f"its evidence can't be read: {why}"
    return None if digest == one.sha256 else "its evidence is not what was kept: the file was altered"


__all__ = [
    "Case",
    "case",
    "cases",
    "close",
    "close_dropped",
    "kept_messages",
    "trouble_of",
]
