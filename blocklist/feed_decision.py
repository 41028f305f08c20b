"""A person's word about one feed, as an update writes it down with what it changes."""

from __future__ import annotations

import msgspec

from blocklist.store.feed_pins import feed_pins
from blocklist.store.record import Run, Snapshot


class Back(msgspec.Struct, frozen=True):
    """A person's word that `feed` goes back to the snapshot `to`, and stays there."""

    feed: str
    to: Snapshot
    reason: str
    ticket: str | None = None

    def write(self, run: Run) -> None:
        """The pin in the place of one that stands, and the event."""
        end_pin(run, self.to.feed, None)
        run.connection.execute(
            "INSERT INTO feed_pin (feed, snapshot, reason, ticket, author, created, since) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (self.to.feed, self.to.id, self.reason, self.ticket, run.by, run.at, run.id),
        )
        said = {"snapshot": self.to.id, "sha256": self.to.sha256, "reason": self.reason, "ticket": self.ticket}
        run.event("feed rolled back", feed=self.feed, **said)


class Resume(msgspec.Struct, frozen=True):
    """A person's word that `feed`, which is pinned, goes on with what its publisher sends."""

    feed: str
    reason: str
    ticket: str | None = None

    def write(self, run: Run) -> None:
        """The end of the pin, and the event."""
        pin = feed_pins(run.connection)[self.feed]
        end_pin(run, run.record.feed_ids()[self.feed], self.reason)
        run.event("feed unpinned", feed=self.feed, snapshot=pin.snapshot, reason=self.reason, ticket=self.ticket)


def end_pin(run: Run, feed: int, reason: str | None) -> None:
    """End the pin of a feed with this run, where there is one; without a reason another takes its place."""
    run.connection.execute(
        "UPDATE feed_pin SET ended = ?, until = ?, ended_by = ?, ended_reason = ? WHERE feed = ? AND until IS NULL",
        (run.at, run.id, run.by, reason, feed),
    )
