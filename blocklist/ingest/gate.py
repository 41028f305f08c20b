"""The feed gate: a new snapshot that does not look like the one before waits for a person."""

from __future__ import annotations

from blocklist.catalog import Feed
from blocklist.errors import FeedGated
from blocklist.ingest.parse import Parsed

# Below this, one entry is already a large share: small lists change as they like.
FROM_ENTRIES = 100


def check(feed: Feed, parsed: Parsed, before: int | None) -> None:
    """Raise FeedGated when `parsed` is empty, mostly unparseable, too small, or changed beyond the feed's limits.

    `before`: entries of the current snapshot, None for a feed's first.
    """
    entries = parsed.frame.height
    inspect = f"inspect with 'blocklist feeds show {feed.id}', accept with 'blocklist update --accept {feed.id}'"
    if entries == 0:
        refused = sum(parsed.rejects.values())
        what = f"none of its {refused:,} lines could be read as {parsed.format}" if refused else "it is empty"
        raise FeedGated(f"{feed.id}: {what}", hint=inspect)
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
