"""What the record says about one thing: listings, holds, verdicts. Plain values; no Polars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from blocklist.rules import Rule


class Listing(msgspec.Struct, frozen=True):
    """One feed's listing of an indicator that covers what was asked.

    `category`, `confidence`, `family`, `mode` and `direction` are the row's, else its feed's, as the configuration
    has them now; the `mode` of a feed that is not configured any more is `off`. `reference`: is it the listing of a
    reference feed? `holds`: of one with `action = "hold"`? `ends`: from when it no longer counts, by `ends_by`
    (`expires`, `max_age`, `linger`); `expired`: it does not. `dropped`: when its feed ceased to list it. `legal_basis`,
    `tlp`: the row's, else the feed's. `redistribution`: what the feed's publisher says of passing it on.
    """

    indicator: str
    kind: str
    scope: str
    feed: str
    category: str
    confidence: int
    family: str
    mode: str
    direction: str
    reference: bool
    holds: bool
    since: str
    until: str | None
    line: int
    text: str | None
    snapshot: str | None
    url: str | None
    extra: Mapping[str, Any] = msgspec.field(default_factory=dict)
    ends: str | None = None
    ends_by: str | None = None
    expired: bool = False
    dropped: str | None = None
    legal_basis: str | None = None
    tlp: str | None = None
    redistribution: str = "unknown"


class Hold(msgspec.Struct, frozen=True):
    """A guard's hold; `released` names the person who let it pass.

    `whole_by`, `above_by`: references that name the very name (or it without `www.`), or one below it; only told
    where a policy has guards of its own for a category.
    """

    indicator: str
    guard: str
    detail: str
    subtree_only: bool
    since: str
    released: str | None
    whole_by: frozenset[str] = frozenset()
    above_by: frozenset[str] = frozenset()


class Verdict(msgspec.Struct, frozen=True):
    """What DNS said last about `name`."""

    name: str
    status: str
    since: str
    checked: str
    dead: bool
    detail: str | None = None


class Facts(msgspec.Struct, frozen=True):
    """All that decides about one thing at one moment of the record.

    `exempt`: reference addresses that are cut out of wider listed networks, with who names each. `rules`: all that are
    in force. `verdicts` by name. `asked`: the names that were looked up.
    """

    listings: Sequence[Listing] = ()
    holds: Sequence[Hold] = ()
    rules: Sequence[Rule] = ()
    verdicts: Mapping[str, Verdict] = msgspec.field(default_factory=dict)
    exempt: Mapping[str, str] = msgspec.field(default_factory=dict)
    asked: Sequence[str] = ()
