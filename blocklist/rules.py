"""An operator's word: `allow` and `deny`, and which of them decides. Plain values; no Polars."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import msgspec

from blocklist import clock
from blocklist.catalog import KINDS
from blocklist.names import parents

# How long before its end a rule is announced.
NOTICE = timedelta(days=7)


class Rule(msgspec.Struct, frozen=True):
    """`allow` or `deny` of a name (with everything below it unless `exact`), a network or a URL."""

    id: int
    action: str
    name: str
    kind: str
    subtree: bool
    reason: str
    author: str
    created: str
    ticket: str | None = None
    expires: str | None = None

    @property
    def blocks(self) -> bool:
        return self.action == "deny"


def deciding_rule(name: str, rules: Iterable[Rule]) -> Rule | None:
    """The domain rule that decides for `name`: the most specific one that covers it; `allow` wins a tie.

    An exact rule covers its own name only, and is more specific there than one for the subtree.
    """
    depth = {above: i for i, above in enumerate([name, *parents(name)])}
    covering = (r for r in rules if r.kind == "domain" and r.name in depth and (r.subtree or r.name == name))
    return min(covering, key=lambda r: (depth[r.name], r.subtree, r.blocks), default=None)


def deciding_network_rule(networks: Sequence[str], rules: Iterable[Rule]) -> Rule | None:
    """The rule that decides for an address or network: the longest prefix of `networks`; `allow` wins a tie.

    `networks` are the canonical texts of what was asked and of everything around it, the narrowest first.
    """
    depth = {network: i for i, network in enumerate(networks)}
    covering = (r for r in rules if r.kind in ("ipv4", "ipv6") and r.name in depth)
    return min(covering, key=lambda r: (depth[r.name], r.blocks), default=None)


def rules_in_force(connection: sqlite3.Connection, now: datetime) -> list[Rule]:
    """Rules that are neither removed nor expired at `now`, by number."""
    return rules_where(connection, "until IS NULL AND (expires IS NULL OR expires > ?)", (clock.text(now),))


def rules_at(connection: sqlite3.Connection, run: int, at: datetime) -> list[Rule]:
    """Those that were in force after `run`, and had not expired by `at`."""
    condition = "since <= ?1 AND (until IS NULL OR until > ?1) AND (expires IS NULL OR expires > ?2)"
    return rules_where(connection, condition, (run, clock.text(at)))


def rules_where(connection: sqlite3.Connection, condition: str, values: Sequence[object]) -> list[Rule]:
    """Those rules `x` of the record that meet a condition in SQL, by number."""
    rows = connection.execute(
        "SELECT id, action, name, kind, subtree, reason, author, created, ticket, expires "
        f"FROM rule x WHERE {condition} ORDER BY id",
        values,
    )
    return [Rule(r[0], r[1], r[2], KINDS[r[3] - 1], bool(r[4]), *r[5:]) for r in rows]


def ending_soon(connection: sqlite3.Connection, now: datetime) -> list[Rule]:
    """Those that end within `NOTICE`, the soonest first."""
    limit = clock.text(now + NOTICE)
    ending = [r for r in rules_in_force(connection, now) if r.expires is not None and r.expires <= limit]
    return sorted(ending, key=lambda r: (r.expires or "", r.id))
