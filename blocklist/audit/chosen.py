"""What a release was chosen from, by what is kept of it: for files that are not of what was listed when they were made.

Such is the file of a release that went back to an earlier one, or that shows the last approved list under newer rules.
What its policy asked was settled when it was chosen; guards, verdicts and scopes too, unless it is chosen from again.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from blocklist.audit.rendering import Rendering
from blocklist.catalog import KINDS
from blocklist.config import Policy
from blocklist.evidence import Facts, Listing
from blocklist.names import parents
from blocklist.suffixes import builtin_rules_about

_DIRECTIONS = ("both", "inbound", "outbound")


def listings(data: bytes, names: Sequence[str]) -> list[Listing]:
    """The rows of the text `data` (`blocklist.publish.rollback.text`) for `names`, as listings of one feed."""
    found = []
    for name in names:
        key = f"\n{name}\t".encode()
        at = data.find(key)
        while at >= 0:
            end = data.find(b"\n", at + 1)
            _, kind, subtree, direction, *_ = data[at + 1 : end if end >= 0 else None].decode().split("\t")
            found.append(_listing(name, KINDS[int(kind) - 1], subtree == "1", _DIRECTIONS[int(direction)]))
            # No name begins so but this one, and its rows stand together.
            at = end if end >= 0 and data.startswith(key, end) else -1
    return found


def _listing(name: str, kind: str, subtree: bool, direction: str) -> Listing:
    return Listing(
        indicator=name,
        kind=kind,
        scope="subtree" if subtree else "exact",
        feed="",
        category="other",
        confidence=100,
        family="",
        mode="live",
        direction=direction,
        reference=False,
        holds=False,
        since="",
        until=None,
        line=0,
        text=None,
        snapshot=None,
        url=None,
    )


def as_made(facts: Facts, rows: Sequence[Listing]) -> Facts:
    """`facts` of the moment when a release was made, with the `rows` that it was made of."""
    exact = {x.indicator for x in rows if x.scope == "exact"}
    # Who holds what was settled, but for what an exact name may not be widened to.
    return replace(facts, listings=rows, holds=[h for h in facts.holds if h.subtree_only and h.indicator in exact])


def as_pinned(facts: Facts, rows: Sequence[Listing]) -> Facts:
    """`facts` of now with the `rows` of an earlier release, from which is chosen again: see `Pinned`."""
    held = {h.indicator for h in facts.holds if h.subtree_only and h.released is None}
    narrow = {name for name in held if builtin_rules_about([name, *parents(name)]).is_registrable(name)}
    return replace(facts, listings=[replace(x, scope="exact") if x.indicator in narrow else x for x in rows])


def settled(rendering: Rendering, *, again: bool) -> Rendering:
    """`rendering` by a policy that takes all rows; `again`: but for the kinds and verdicts that it leaves out."""
    own = rendering.policy
    kept = {"kinds": own.kinds, "dead": own.dead, "sinkholed": own.sinkholed, "parked": own.parked} if again else {}
    policy = msgspec.structs.replace(Policy(), categories=["other"], min_confidence=0, widen=False, **kept)
    return replace(rendering, policy=policy)
