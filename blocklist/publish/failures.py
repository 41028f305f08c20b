"""Exports that fail, run after run: noted until one of them works, for whoever looks between the runs.

What fails before it is published leaves no release, and the release before it stays live: without this note nothing
in the record would tell. Standard library only: `status` and `why` read through here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import msgspec

from blocklist import clock
from blocklist.person import whoami
from blocklist.store import ledger

if TYPE_CHECKING:
    from blocklist.publish.job import ExportOutcome
    from blocklist.store.record import Record


class Failure(msgspec.Struct, frozen=True):
    """Why an export was not written or loaded; `since` and `last`: the first and the last of the runs in a row."""

    since: str
    last: str
    error: str
    hint: str | None

    @property
    def said(self) -> str:
        """In one line: what a checker or a reload command wrote has several."""
        error = "; ".join(filter(None, map(str.strip, self.error.splitlines())))
        return f"fails since {clock.said(self.since)}: {error}"


def failures(connection: sqlite3.Connection) -> dict[str, Failure]:
    """The exports that fail, by name."""
    rows = connection.execute("SELECT export, since, last, error, hint FROM export_failure ORDER BY export")
    return {export: Failure(*row) for export, *row in rows}


def note(record: Record, outcomes: Sequence[ExportOutcome], configured: Collection[str], run: int | None) -> None:
    """Note which of `outcomes` failed, and forget those that did not, or are not among `configured` any more.

    The log has the first of a row of failures, and the first success after it; a run that changes nothing writes
    nothing. Raises RecordError.
    """
    known = failures(record.connection)
    failed = {outcome.name: outcome for outcome in outcomes if outcome.outcome == "failed"}
    well = {outcome.name for outcome in outcomes} & known.keys() - failed.keys()
    gone = known.keys() - set(configured)
    if not (failed or well or gone):
        return
    at, who = clock.text(clock.now()), whoami()
    with record.transaction() as connection:
        connection.executemany("DELETE FROM export_failure WHERE export = ?", [(name,) for name in well | gone])
        for name in sorted(well - gone):
            ledger.append(connection, at, run, "export works again", who, {"export": name, "since": known[name].since})
        for name, outcome in failed.items():
            told = (outcome.error or "", outcome.hint)
            connection.execute(
                "INSERT INTO export_failure (export, since, last, error, hint) VALUES (?1, ?2, ?2, ?3, ?4) "
                "ON CONFLICT (export) DO UPDATE SET last = ?2, error = ?3, hint = ?4",
                (name, at, *told),
            )
            if name not in known:
                ledger.append(connection, at, run, "export failed", who, {"export": name, "error": told[0]})
