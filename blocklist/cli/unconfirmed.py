"""A clock far ahead of the last runs, said wherever it keeps history from being forgotten."""

from __future__ import annotations

from blocklist.cli.screen import moment


def unconfirmed(last: str) -> str:
    """What to say where no run since `last` (RFC 3339) confirms the clock."""
    return (
        f"this machine's clock is far ahead of the runs up to {moment(last)}: until a day of runs confirms it, "
        "[keep] counts from then, so that a wrong clock forgets nothing; "
        "if it is right, wait that day, or 'blocklist prune --trust-clock'"
    )
