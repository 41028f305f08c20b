"""Entries of releases as numbers: what came and went between two of them."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from blocklist.publish import approved
from blocklist.publish.change import Change, compared_with
from blocklist.publish.job import Job
from blocklist.publish.selection import Selection
from blocklist.store import derived
from blocklist.store.record import Record


def change_of(job: Job, record: Record, release: int | None) -> Change:
    """How the entries of `job` differ from those of a `release`.

    Of one that shows the last approved list under newer rules, the share that changes is of the list that was approved:
    else rules would move the gate of what waits beside it.
    """
    assert job.entries is not None and job.rendered is not None
    if release is None:
        return Change(None, job.rendered.entries, len(job.entries), 0)
    count, approved_ = record.connection.execute(
        "SELECT r.entries, coalesce(b.entries, r.entries) FROM release r LEFT JOIN release b ON b.id = r.amends "
        "WHERE r.id = ?",
        (release,),
    ).fetchone()
    before = _entries_before(record.state, release)
    if before is None:
        # The cache of entries is gone: of the difference only the balance is known.
        balance = len(job.entries) - count
        return Change(approved_, job.rendered.entries, max(balance, 0), max(-balance, 0))
    added, removed = _difference(before, job.entries)
    return Change(approved_, job.rendered.entries, added, removed)


def entries_of(selection: Selection) -> pl.Series:
    """A number an entry (UInt64), for counting what came and went.

    A collision of hashes would be one in 10^7 releases, and a count off by one.
    """
    frames = (
        selection.domains.select("name", "subtree", "block"),
        selection.networks.select("direction", "cidr"),
        selection.urls.select("url"),
        selection.rows.select("indicator"),
    )
    return pl.concat([frame.hash_rows().alias("entry") for frame in frames])


def _entries_file(state: Path, release: int) -> Path:
    return state / "exports" / f"{release}.frames"


def keep_entries(state: Path, release: int, entries: pl.Series) -> None:
    """A cache for the next difference, on disk before its release is live; without it only the balance is known."""
    derived.write(_entries_file(state, release), {"release": release}, {"entries": entries.to_frame()})


def forget_entries(record: Record) -> None:
    """Remove what is kept of releases that nothing is compared with any more, and what a killed run left."""
    wanted = compared_with(record)
    derived.remove_others(record.state / "exports", {_entries_file(record.state, number).name for number in wanted})
    derived.remove_others(record.state / "approved", {approved.file_of(record.state, n).name for n in wanted})


def _entries_before(state: Path, release: int) -> pl.Series | None:
    kept = derived.read(_entries_file(state, release))
    return kept.frames["entries"]["entry"] if kept is not None and kept.told["release"] == release else None


def _difference(before: pl.Series | None, now: pl.Series) -> tuple[int, int]:
    if before is None:
        return len(now), 0
    added = len(now) - int(now.is_in(before.implode()).sum())
    return added, len(before) - (len(now) - added)
