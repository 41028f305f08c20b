"""Entries of releases as numbers: what came and went between two of them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl

from blocklist.publish import approved
from blocklist.publish.change import Change, compared_with
from blocklist.publish.job import Job
from blocklist.store import derived
from blocklist.store.record import Record


def change_of(job: Job, record: Record, release: int | None) -> Change:
    """How the entries of `job` differ from those of a `release`.

    Of one that shows the last approved list under newer rules, the share that changes is of the list that was approved:
    else rules would move the gate of what waits beside it.
    """
    assert job.rendered is not None
    if release is None:
        return Change(None, job.rendered.entries, len(job.entries), 0)
    count, approved_, digest = record.connection.execute(
        "SELECT r.entries, coalesce(b.entries, r.entries), r.digest FROM release r "
        "LEFT JOIN release b ON b.id = r.amends WHERE r.id = ?",
        (release,),
    ).fetchone()
    if job.splice is not None and job.live is not None and job.live.id == release:
        # The lines that are others than in its file are known one by one.
        assert job.origin is not None and job.origin.step is not None
        return Change(approved_, job.rendered.entries, *job.origin.step.change())
    before = _entries_before(record.state, release, digest)
    if before is None:
        # The cache of entries is gone: of the difference only the balance is known.
        balance = len(job.entries) - count
        return Change(approved_, job.rendered.entries, max(balance, 0), max(-balance, 0))
    added, removed = _difference(before, job.entries)
    return Change(approved_, job.rendered.entries, added, removed)


def _entries_file(state: Path, release: int) -> Path:
    return state / "exports" / f"{release}.frames"


def keep_entries(job: Job, record: Record) -> None:
    """A cache for the next difference, before its release has a number; without it only the balance is known."""
    assert job.rendered is not None
    made_of = None if job.origin is None else job.origin.under(job.origin.token)
    told = {"of": job.rendered.digest, "made_of": made_of, "chosen": job.token}
    derived.write(_beside(job, record.state), told, {"entries": job.entries.to_frame()})


def place_entries(job: Job, record: Record) -> None:
    """Put what was kept in its place, before the release is live."""
    assert job.outcome.release is not None
    with suppress(OSError):
        _beside(job, record.state).replace(_entries_file(record.state, job.outcome.release))


def _beside(job: Job, state: Path) -> Path:
    assert job.rendered is not None
    return state / "exports" / f"{derived.digest([job.export.name, job.rendered.digest])[:16]}.frames"


def chosen_from(state: Path, release: int, digest: str) -> str | None:
    """The token of the decisions that the `chosen` text of a release, whose files have this digest, is of, if known."""
    return _told(state, release, digest).get("chosen")


def comes_from(job: Job, record: Record) -> bool:
    """Is the list in place what the export would have been by the decisions that the step of `job` begins with?"""
    if job.live is None or job.origin is None or job.origin.step is None:
        return False
    told = _told(record.state, job.live.id, job.live.digest)
    return told.get("made_of") == job.origin.under(job.origin.step.before_token)


def _told(state: Path, release: int, digest: str) -> dict[str, Any]:
    """What is said of the entries of a release; nothing where it is said of files with another digest."""
    told = derived.told(_entries_file(state, release))
    return told if told is not None and told.get("of") == digest else {}


def forget_entries(record: Record) -> None:
    """Remove what is kept of releases that nothing is compared with any more, and what a killed run left."""
    wanted = compared_with(record)
    derived.remove_others(record.state / "exports", {_entries_file(record.state, number).name for number in wanted})
    derived.remove_others(record.state / "approved", {approved.file_of(record.state, n).name for n in wanted})


def _entries_before(state: Path, release: int, digest: str) -> pl.Series | None:
    kept = derived.read(_entries_file(state, release))
    return kept.frames["entries"]["entry"] if kept is not None and kept.told.get("of") == digest else None


def _difference(before: pl.Series | None, now: pl.Series) -> tuple[int, int]:
    if before is None:
        return len(now), 0
    added = len(now) - int(now.is_in(before.implode()).sum())
    return added, len(before) - (len(now) - added)
