"""How long a listing counts: the definition, one at a time; in columns it is `blocklist.select.lifetime`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec

from blocklist import clock
from blocklist.catalog import Feed
from blocklist.quantities import parse_duration

Cause = Literal["expires", "max_age", "linger"]
# A feed is stale after so many times its cadence without a change.
STALE_CADENCES = 4


class End(msgspec.Struct, frozen=True):
    """From `at` on a listing no longer counts, and by what: its row, its feed's `max_age`, or `linger` run out."""

    at: datetime
    cause: Cause


def end_of(
    feed: Feed | None, *, expires: str | None, date: str | None, since: datetime, dropped: datetime | None
) -> End | None:
    """The first end that a listing comes to, None where it has none.

    `expires` and `date` are of the row, ISO 8601; a day in `expires` is its last day. `max_age` counts from the row's
    date, or from `since` where it has none or one of the future. `dropped`: when the feed ceased to list it.
    """
    ends: list[End] = []
    if expires is not None and (until := moment(expires)) is not None:
        ends.append(End(until + timedelta(days=len(expires) == 10), "expires"))
    if feed is not None and feed.max_age is not None:
        told = moment(date) if date is not None else None
        begun = min(told, since) if told is not None else since
        ends.append(End(begun + timedelta(seconds=parse_duration(feed.max_age)), "max_age"))
    if dropped is not None:
        ends.append(End(dropped + timedelta(seconds=(feed.keeps_for or 0) if feed is not None else 0), "linger"))
    return min(ends, key=lambda end: end.at, default=None)


def moment(text: str) -> datetime | None:
    """A day (its beginning) or a time as `blocklist.ingest.dates` writes them; None for any other text."""
    try:
        if len(text) == 10:
            return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
        return clock.parse(text)
    except ValueError:
        return None


def stale_since(feed: Feed, changed: str | None, now: datetime) -> str | None:
    """`changed` where the feed should have changed since then: after `stale_after`, else four times its cadence.

    A file of one's own has no cadence: it is stale only where its feed says after what time.
    """
    if changed is None or (feed.stale_after is None and all(url.startswith("file:") for url in feed.urls)):
        return None
    limit = parse_duration(feed.stale_after) if feed.stale_after else STALE_CADENCES * parse_duration(feed.update)
    return changed if clock.parse(changed) + timedelta(seconds=limit) < now else None
