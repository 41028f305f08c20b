"""The feed gate: a new snapshot that does not look like the one before waits for a person."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from blocklist.catalog import Feed
from blocklist.errors import FeedGated
from blocklist.ingest.header import Header
from blocklist.ingest.parse import Parsed
from blocklist.lifetime import moment

# Below this, one entry is already a large share: small lists change as they like.
FROM_ENTRIES = 100
# A header in local time without its zone moves by an hour twice a year; mirrors' clocks differ by less.
_LEEWAY = timedelta(hours=1)


class Known(msgspec.Struct, frozen=True):
    """What tells the age of a copy beside its own header.

    `account` of the current snapshot; `last_modified` of it and of the new answer, as the servers wrote them.
    """

    account: Mapping[str, Any] = msgspec.field(default_factory=dict)
    last_modified: str | None = None
    answer: str | None = None


def check(feed: Feed, parsed: Parsed, before: int | None) -> None:
    """Raise FeedGated when `parsed` is empty, mostly unparseable, too small, or changed beyond the feed's limits.

    `before`: entries of the current snapshot, None for a feed's first. With `allow_empty` a list that holds nothing
    passes, one of which nothing could be read does not.
    """
    entries = parsed.frame.height
    inspect = ways_out(feed.id)
    if entries == 0 and (parsed.rejects or not feed.allow_empty):
        refused = sum(parsed.rejects.values())
        what = (
            f"none of its {refused:,} lines could be read as {parsed.format}"
            if refused
            else f"it holds comments only ({parsed.comments:,} lines)"
            if parsed.comments
            else "it is empty"
        )
        may_be = "" if refused else "; allow_empty = true if it may have nothing to report"
        raise FeedGated(f"{feed.id}: {what}", hint=f"{inspect}{may_be}")
    if parsed.unparseable > parsed.accepted:
        raise FeedGated(
            f"{feed.id}: {parsed.unparseable:,} of its entries can't be read as {parsed.format}, "
            f"more than the {parsed.accepted:,} that can",
            hint=f"has the publisher changed the format? {inspect}",
        )
    if entries < feed.min_entries:
        raise FeedGated(f"{feed.id}: {entries:,} entries, fewer than min_entries = {feed.min_entries:,}", hint=inspect)
    if before is None or before < FROM_ENTRIES:
        return
    shrink = 1 - entries / before
    if shrink > feed.max_shrink:
        raise FeedGated(
            f"{feed.id}: {entries:,} entries, {100 * shrink:.3g} % fewer than the {before:,} before "
            f"(limit {100 * feed.max_shrink:.3g} %)",
            hint=inspect,
        )
    if entries > before * feed.max_growth:
        raise FeedGated(
            f"{feed.id}: {entries:,} entries, {entries / before:.3g} times the {before:,} before "
            f"(limit {feed.max_growth:g} times)",
            hint=inspect,
        )


def ways_out(feed_id: str) -> str:
    return f"inspect with 'blocklist feeds show {feed_id} --gated', accept with 'blocklist update --accept {feed_id}'"


def check_header(feed: Feed, parsed: Parsed, stated: Header, known: Known) -> None:
    """Raise FeedGated when the file contradicts the count that it states, or is older than the current one."""
    before = known.account.get("stated", {})
    _check_age(feed, stated, before, known)
    # Of several parts each states its own count; a ranking of which only the top is taken states that of the whole.
    if stated.count is None or not feed.check_count or len(feed.urls) > 1:
        return
    if max(stated.count, parsed.accepted) < FROM_ENTRIES or stated.count in _counts(parsed):
        return
    if "count" in before and before["count"] not in _kept_counts(known.account):
        # A person accepted a copy that did not match either: this publisher counts something else.
        return
    entries = parsed.lines - parsed.comments - parsed.blank
    raise FeedGated(
        f"{feed.id}: it holds {entries:,} entries, but says '{stated.count_text}'",
        hint=f"was the download cut short? {ways_out(feed.id)}; check_count = false if it counts something else",
    )


def _counts(parsed: Parsed) -> set[int]:
    """The numbers that a publisher may call its count: lines, entries read, with what we refuse, or distinct ones."""
    lines = parsed.lines - parsed.comments - parsed.blank
    # A table's header is counted among the comments, and so are rows that `where` leaves out.
    return {lines, parsed.accepted, parsed.accepted + sum(parsed.rejects.values()), parsed.frame.height, parsed.lines}


def _kept_counts(account: Mapping[str, Any]) -> set[int]:
    """The same of the current snapshot, from its account."""
    accepted = sum(account["indicators"].values())
    lines = account["lines"] - account["comments"] - account["blank"]
    refused = sum(account["rejects"].values())
    return {lines, accepted, accepted + refused, account.get("entries", accepted), account["lines"]}


def _check_age(feed: Feed, stated: Header, before: Mapping[str, Any], known: Known) -> None:
    """A header's date decides where both copies have one; then a version made of a date; then Last-Modified."""
    made, was = _moment(stated.made), _moment(before.get("made"))
    if made is not None and was is not None:
        if made + _LEEWAY < was:
            raise _older(feed, f"made {stated.made}", str(before["made"]))
        return
    version = before.get("version")
    if stated.version is not None and version is not None and len(version) == len(stated.version):
        if list(stated.version) < list(version):
            raise _older(feed, "version " + ".".join(map(str, stated.version)), ".".join(map(str, version)))
        return
    answered, last = _http(known.answer), _http(known.last_modified)
    if answered is not None and last is not None and answered + _LEEWAY < last:
        raise _older(feed, f"of {known.answer} by its server", str(known.last_modified))


def _older(feed: Feed, what: str, current: str) -> FeedGated:
    return FeedGated(
        f"{feed.id}: an older copy, {what}; the current one: {current}",
        hint=f"a mirror or cache that lags behind? {ways_out(feed.id)}",
    )


def _moment(text: object) -> datetime | None:
    return moment(text) if isinstance(text, str) else None


def _http(text: str | None) -> datetime | None:
    """RFC 9110 §5.6.7."""
    try:
        at = parsedate_to_datetime(text) if text else None
    except (ValueError, TypeError):
        return None
    return at if at is not None and at.tzinfo is not None else None
