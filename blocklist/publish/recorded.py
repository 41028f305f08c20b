"""Releases in the record: pending before their file is renamed, live after, held until a person decides."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from blocklist import clock
from blocklist.config import Config
from blocklist.person import whoami
from blocklist.publish import settings
from blocklist.publish.entries import forget_entries
from blocklist.publish.job import Job, Live
from blocklist.publish.standing import file_digest, in_place, places_of
from blocklist.quantities import parse_duration
from blocklist.store import kept
from blocklist.store.moment import last_confirmed
from blocklist.store.record import Record


def live_release(record: Record, export: str) -> Live | None:
    row = record.connection.execute(
        "SELECT id, serial, digest, body_digest, entries, inputs, reloaded, path, amends FROM release "
        "WHERE export = ? AND state = 'live'",
        (export,),
    ).fetchone()
    return Live(*row) if row else None


def recover(record: Record) -> None:
    """Finish what a killed run left between recording and renaming: the file's digest tells which it was."""
    rows = record.connection.execute(
        "SELECT id, export, path, digest, files FROM release WHERE state = 'pending'"
    ).fetchall()
    if rows:
        # Should the lists be what they were before, this run keeps nothing and would leave it there.
        kept.remove_half_written(record.state)
    for number, export, path, digest, files in rows:
        published = in_place(places_of(path, files), file_digest) == digest
        with record.transaction() as connection:
            if published:
                make_live(record, connection, number, export)
            else:
                connection.execute(
                    "UPDATE release SET state = 'failed', note = 'interrupted before it was published' WHERE id = ?",
                    (number,),
                )
    forget_entries(record)


def renew(record: Record, jobs: Sequence[Job]) -> None:
    """Other inputs that gave the same file: note them, so that the next run need not render it again, and what of them
    is not in it either.
    """
    renewed = [
        (job.inputs, job.left_out.digest if job.left_out is not None else None, job.live.id)
        for job in jobs
        if job.same_body and job.live is not None and (job.live.inputs != job.inputs or job.left_out is not None)
    ]
    if renewed:
        with record.transaction() as connection:
            connection.executemany(
                "UPDATE release SET inputs = ?, left_out = coalesce(?, left_out) WHERE id = ?", renewed
            )


def is_approved(record: Record, export: str, body_digest: str) -> bool:
    row = record.connection.execute(
        "SELECT 1 FROM release WHERE export = ? AND body_digest = ? AND state = 'held' "
        "AND note LIKE 'approved%' LIMIT 1",
        (export, body_digest),
    ).fetchone()
    return row is not None


def files_of(record: Record, release: int) -> dict[str, str]:
    """The digests of the files of a release by category; of one that is not split, its own."""
    row = record.connection.execute("SELECT digest, files FROM release WHERE id = ?", (release,)).fetchone()
    if row is None:
        return {}
    return {"": row[0]} if row[1] is None else {file["category"]: file["digest"] for file in json.loads(row[1])}


def wanted_bytes(record: Record, config: Config, now: datetime | None = None) -> set[str]:
    """Digests of what is kept: releases published in the time of `[keep] releases`, those that count now, and for all
    the time of `[keep] history` those that `blocklist.publish.past` could not make again.

    `[keep]` counts from `now`; by default from what the clock says, unless nothing confirms it.
    """
    if now is None:
        now = clock.now()
        now = last_confirmed(record.connection, now) or now
    recent, history = (
        clock.text(now - timedelta(seconds=parse_duration(span)))
        for span in (config.keep.releases, config.keep.history)
    )
    rows = record.connection.execute(
        """
        SELECT digest, chosen, left_out, files FROM release r
        WHERE state IN ('live', 'pending') OR published >= ?1
        OR id IN (SELECT release FROM pin WHERE until IS NULL)
        OR (published >= ?2 AND (
            left_out IS NOT NULL OR amends IS NOT NULL OR files IS NOT NULL
            OR EXISTS (SELECT 1 FROM pin p WHERE p.export = r.export AND p.since <= r.run
                       AND (p.until IS NULL OR p.until > r.run))))
        """,
        (recent, history),
    )
    wanted: set[str] = set()
    for digest, chosen, missing, files in rows:
        wanted |= {known for known in (digest, chosen, missing) if known is not None}
        wanted |= {file["digest"] for file in json.loads(files or "[]")}
    return wanted


def record_releases(
    record: Record, jobs: Sequence[Job], run: int | None, at: str, judged: str, config: Config, suffixes: str
) -> None:
    common = settings.common_of(config, suffixes)
    with record.transaction() as connection:
        number = run
        if number is None:
            number = record.begin_run(connection, at, "export", whoami())
        for name in {job.export.name for job in jobs if job.rendered is not None and job.state != "failed"}:
            connection.execute("DELETE FROM release WHERE export = ? AND state = 'pending'", (name,))
        for job in jobs:
            if job.rendered is None or job.state == "failed":
                continue
            rendered, outcome = job.rendered, job.outcome
            # Another one that was published in between leaves this one the newest only when it is recorded again.
            if job.state == "held" and job.amended is None and _same_held(record, job):
                continue
            cursor = connection.execute(
                """
                INSERT INTO release (export, format, policy, path, run, revision, state, created, serial, digest,
                    body_digest, bytes, entries, added, removed, lost, inputs, checked, note, judged, chosen,
                    left_out, amends, files)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                """,
                (
                    job.export.name,
                    job.export.format,
                    job.export.policy,
                    str(job.path.absolute()),
                    number,
                    record.revision(),
                    job.state,
                    at,
                    outcome.serial,
                    rendered.digest,
                    rendered.body_digest,
                    rendered.size,
                    rendered.entries,
                    outcome.added,
                    outcome.removed,
                    json.dumps(outcome.lost, sort_keys=True),
                    job.inputs,
                    outcome.checked,
                    outcome.error or outcome.note,
                    judged,
                    job.chosen.digest if job.chosen is not None else None,
                    job.left_out.digest if job.left_out is not None else None,
                    job.amends,
                    msgspec.json.encode(job.candidate.files).decode()
                    if job.candidate is not None and job.export.split is not None
                    else None,
                ),
            )
            outcome.release = cursor.lastrowid
            assert cursor.lastrowid is not None
            own = settings.Own(export=job.export, policy=config.policies[job.export.policy], format=job.fmt)
            settings.note(connection, cursor.lastrowid, common, own)
            if job.state == "held" and outcome.plan is not None:
                connection.execute(
                    "INSERT INTO plan (release, plan) VALUES (?, ?)",
                    (outcome.release, msgspec.json.encode(outcome.plan).decode()),
                )
            if job.state == "held" and cursor.lastrowid is not None:
                _tell(record, connection, cursor.lastrowid, "release held")
        if run is None:
            record.finish_run(number)


def _same_held(record: Record, job: Job) -> bool:
    """Is the newest release of this export the same one, still held? Then it is reported, not recorded again."""
    assert job.rendered is not None
    row = record.connection.execute(
        "SELECT id, state, body_digest FROM release WHERE export = ? ORDER BY id DESC LIMIT 1",
        (job.export.name,),
    ).fetchone()
    if row and row[1] == "held" and row[2] == job.rendered.body_digest:
        job.outcome.release = row[0]
        return True
    return False


def make_live(record: Record, connection: sqlite3.Connection, number: int, export: str) -> None:
    connection.execute(
        # A held one that is newer waits on: this one only carries a person's rules.
        "UPDATE release SET state = 'superseded' WHERE export = ? AND state IN ('live', 'held') AND id <= ?",
        (export, number),
    )
    connection.execute(
        "UPDATE release SET state = 'live', published = ? WHERE id = ?", (clock.text(clock.now()), number)
    )
    _tell(record, connection, number, "release published")


def _tell(record: Record, connection: sqlite3.Connection, number: int, what: str) -> None:
    """An event of a release: which file it is, by its digest."""
    columns = ("run", "export", "format", "serial", "digest", "entries", "added", "removed", "note")
    row = connection.execute(f"SELECT {', '.join(columns)} FROM release WHERE id = ?", (number,)).fetchone()
    run, *told = row
    at = clock.text(clock.now())
    record.event(connection, at, run, what, whoami(), release=number, **dict(zip(columns[1:], told, strict=True)))
