"""One feed back to an earlier snapshot, held there while all others go on, and released again.

The earlier snapshot is taken in anew as any other is: listings, holds and history are what they would be had the
publisher sent it again. While the feed is pinned, an update goes on fetching; what comes is kept, and waits.
"""

from __future__ import annotations

from datetime import datetime

from blocklist import clock
from blocklist.config import Config
from blocklist.decisions import require_reason
from blocklist.errors import IndicatorError
from blocklist.feed_decision import Back, Resume
from blocklist.person import whoami
from blocklist.picture import Picture
from blocklist.store.feed_pins import feed_pins
from blocklist.store.moment import run_at
from blocklist.store.record import Record, Snapshot
from blocklist.update import Updated, update


def roll_back(
    config: Config,
    record: Record,
    feed: str,
    *,
    to: int | None = None,
    at: datetime | None = None,
    reason: str,
    ticket: str | None = None,
) -> tuple[Updated, Picture, Snapshot]:
    """Take in again snapshot `to` of `feed`, what it was read from `at` a time, or else the one before, and stay there.

    Raises IndicatorError where there is no such snapshot, FeedError where it can't be read as it was then, RecordError
    where its bytes are lost; nothing is recorded then.
    """
    require_reason(reason)
    target = _target(record, feed, to, at)
    updated, picture = update(
        config, record, only=[feed], decision=Back(feed, target, reason, ticket), command="feeds rollback"
    )
    return updated, picture, target


def unpin(
    config: Config, record: Record, feed: str, *, reason: str, ticket: str | None = None
) -> tuple[Updated, Picture] | None:
    """End the rollback of `feed`; what came meanwhile and waits is judged as if it had come now.

    None for a feed that is not enabled, of which nothing is taken in. Raises IndicatorError when it is not pinned.
    """
    require_reason(reason)
    if feed not in feed_pins(record.connection):
        raise IndicatorError(f"{feed} is not pinned", hint="'blocklist status' shows which feeds are")
    decision = Resume(feed, reason, ticket)
    if feed in config.feeds:
        return update(config, record, only=[feed], decision=decision, command="feeds unpin")
    with record.new_run("feeds unpin", whoami()) as run:
        decision.write(run)
    return None


_SHOWN = "'blocklist feeds show {} --all' lists those that it was read from"


def _target(record: Record, feed: str, to: int | None, at: datetime | None) -> Snapshot:
    """The snapshot that is meant, of those that were taken in; with its bytes."""
    number = record.feed_ids().get(feed)
    taken = record.taken_snapshots(number) if number is not None else []
    if number is None or not taken:
        raise IndicatorError(
            f"nothing was ever taken in from {feed}", hint="the first list that comes is taken by 'blocklist update'"
        )
    if to is not None:
        found = record.snapshot(min(to, 2**63 - 1))
        if found is None or found.feed != number:
            raise IndicatorError(f"{feed} has no snapshot {to}", hint=_SHOWN.format(feed))
        if found.gate is not None:
            raise IndicatorError(
                f"snapshot {to} of {feed} was never taken in: {found.gate}",
                hint=f"only a list that it stood at can be gone back to: {_SHOWN.format(feed)}",
            )
    elif at is not None:
        run = run_at(record.connection, at)
        before = [one for one in taken if one.run <= run]
        if not before:
            first = record.started(taken[-1].run)
            raise IndicatorError(
                f"nothing of {feed} was taken in by {clock.said(clock.text(at))}",
                hint=f"its first list came at {clock.said(first)}",
            )
        found = before[0]
    else:
        found = _before(record, feed, number, taken)
    if found.stored == 0:
        kept = next((one for one in taken if one.stored > 0 and one.id < found.id), None) or next(
            (one for one in reversed(taken) if one.stored > 0), None
        )
        nearest = f"; the nearest that is kept: --to {kept.id}" if kept is not None else ""
        raise IndicatorError(
            f"the bytes of snapshot {found.id} of {feed} are pruned ([keep] snapshots)",
            hint=f"{_SHOWN.format(feed)}{nearest}",
        )
    return found


def _before(record: Record, feed: str, number: int, taken: list[Snapshot]) -> Snapshot:
    """The newest snapshot with other bytes, before the current one, or before the one that the feed stands at."""
    pin = feed_pins(record.connection).get(feed)
    now = record.current_snapshots().get(number)
    if now is None:
        return taken[0]
    last = pin.snapshot if pin is not None else now.id
    found = next((one for one in taken if one.id < last and one.sha256 != now.sha256), None)
    if found is None:
        raise IndicatorError(
            f"{feed} has no snapshot before the one of {clock.said(now.fetched)}",
            hint=f"to hold it where it is: 'blocklist feeds rollback {feed} --to {now.id}'; to have none of its "
            f"entries: 'blocklist feeds disable {feed}'",
        )
    return found
