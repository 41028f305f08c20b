"""Why a release waits for a person (docs/semantics.md, Gates)."""

from __future__ import annotations

from blocklist.config import Config
from blocklist.publish.change import Change, weekly
from blocklist.publish.entries import change_of
from blocklist.publish.job import Job
from blocklist.publish.plan import Wait
from blocklist.publish.recorded import is_approved
from blocklist.publish.selector import Selector
from blocklist.store.record import Record


def weekly_gate(config: Config, job: Job, record: Record, selector: Selector) -> Wait | None:
    """Why the change since a week ago waits for a person, or None; what persons said since does not count."""
    assert job.rendered is not None
    week = weekly(record, job.export.name)
    if week is None or job.live is None or week.id == job.live.id or job.pin is not None:
        return None
    if is_approved(record, job.export.name, job.rendered.body_digest):
        return None
    change = change_of(job, record, week.id)
    if (reason := _too_much(config, job, change)) is None:
        return None
    if (old := selector.approved(job.export, job.fmt, week.id)) is not None:
        reason = _too_much(config, job, change.beyond(old[0].entries(), job.entries))
    return Wait(f"since {week.published[:10]}, {reason}") if reason is not None else None


def gate(config: Config, job: Job, record: Record, change: Change) -> Wait | None:
    """Why the release waits for a person, or None."""
    assert job.rendered is not None
    entries, export = job.rendered.entries, job.export
    if is_approved(record, export.name, job.rendered.body_digest):
        return None
    if missing := _references_never_loaded(config, record):
        shown = ", ".join(missing) if len(missing) < 4 else f"{missing[0]} and {len(missing) - 1} more"
        return Wait(
            f"the reference {shown} never loaded, so nothing tells a well-known name from a hostile one",
            (
                f"load it: 'blocklist update {' '.join(missing)}' says what fails",
                f"do without it: 'blocklist feeds disable {' '.join(missing)}', then 'blocklist update'",
                f"publish this once, all of it looked at: 'blocklist release approve {export.name}'",
            ),
        )
    if not change.any:
        return None
    if entries == 0 and not export.allow_empty:
        return Wait(
            "nothing is left to block after filtering; an empty list blocks nothing (allow_empty = true to publish it)"
        )
    if change.after < export.min_entries:
        return Wait(f"{entries:,} entries, fewer than min_entries = {export.min_entries:,}")
    if job.pin is not None:
        return None  # a person chose this release, whatever it changes
    reason = _too_much(config, job, change)
    return None if reason is None else Wait(reason)


def _too_much(config: Config, job: Job, change: Change) -> str | None:
    """Does more than a share of the entries change?"""
    before = change.before
    if before is None or before < config.gates.min_size or not job.paths[0][1].exists():
        return None
    for count, what in ((change.removed, "removed"), (change.added, "added")):
        share = count / before
        if share > config.gates.max_change:
            limit = f"limit {100 * config.gates.max_change:.0f} %"
            return f"{count:,} of {before:,} entries would be {what}, {100 * share:.0f} % ({limit})"
    return None


def _references_never_loaded(config: Config, record: Record) -> list[str]:
    ids, loaded = record.feed_ids(), record.current_snapshots()
    return [
        feed.id
        for feed in config.feeds.values()
        if feed.is_reference and feed.action == "hold" and ids.get(feed.id) not in loaded
    ]
