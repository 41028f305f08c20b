"""An operator's word: `allow` and `deny`, and which of them decides. Plain values; no Polars."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from blocklist.names import parents


@dataclass(frozen=True)
class Rule:
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
    depth = {name: 0} | {parent: i for i, parent in enumerate(parents(name), start=1)}
    best: tuple[tuple[int, bool, bool], Rule] | None = None
    for rule in rules:
        if rule.kind != "domain" or rule.name not in depth or (not rule.subtree and rule.name != name):
            continue
        rank = (depth[rule.name], rule.subtree, rule.blocks)
        if best is None or rank < best[0]:
            best = (rank, rule)
    return best[1] if best else None
