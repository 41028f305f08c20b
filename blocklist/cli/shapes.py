"""What scripts read of a rule, an export and a feed: one shape each, whichever command tells it (docs/json.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

if TYPE_CHECKING:
    from blocklist.gathering import FeedOutcome
    from blocklist.publish.job import ExportOutcome
    from blocklist.rules import Rule
    from blocklist.store.feed_pins import FeedPin


def rule(r: Rule) -> dict[str, Any]:
    return {
        "id": r.id,
        "action": r.action,
        "what": r.name,
        "scope": "subtree" if r.subtree else "exact",
        "reason": r.reason,
        "author": r.author,
        "ticket": r.ticket,
        "created": r.created,
        "until": r.expires,
    }


def export(outcome: ExportOutcome) -> dict[str, Any]:
    return {**asdict(outcome), "seconds": round(outcome.seconds, 3)}


def feed_pin(pin: FeedPin | None) -> dict[str, Any] | None:
    return None if pin is None else asdict(pin)


def feed(outcome: FeedOutcome) -> dict[str, Any]:
    return {**asdict(outcome), "seconds": round(outcome.seconds, 3)}
