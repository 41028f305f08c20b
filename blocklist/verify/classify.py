"""From what the resolvers said about a name to one verdict, and to what should still be asked."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from blocklist.verify.wire import AAAA, A, Answer, Outcome


class Status(StrEnum):
    """The verdicts that need no knowledge of sinkholes and parking."""

    LIVE = "live"
    NODATA = "nodata"
    NXDOMAIN = "nxdomain"
    BROKEN = "broken"
    UNKNOWN = "unknown"


class Observation(NamedTuple):
    """One question about one name: who was asked (an index), which type, and what came of it."""

    resolver: int
    qtype: int
    answer: Answer


class Verdict(NamedTuple):
    """`addresses` are distinct and sorted, 4 or 16 octets; `resolvers` are indices: whose word this is."""

    status: Status
    addresses: tuple[bytes, ...] = ()
    authority: str | None = None
    rcode: int | None = None
    resolvers: tuple[int, ...] = ()


class Question(NamedTuple):
    """A question still worth asking: the type, and the resolver to ask."""

    qtype: int
    resolver: int


_EXISTS = (Outcome.ADDRESS, Outcome.NODATA)
_SAYS_NOTHING = (Outcome.LOOP, Outcome.FAILED)


def classify(seen: Sequence[Observation], quorum: int) -> Verdict:
    """The verdict on a name from everything seen of it; `quorum` resolvers must agree on bad news.

    - A resolver *denies* a name when it says NXDOMAIN and nothing else of substance; one that says NXDOMAIN
      to AAAA but has an A record has met the name-server fault of RFC 4074 §4.2, and does not deny.
    - Some deny and some don't: `unknown`. An address: `live`. A and AAAA both empty: `nodata`.
    - `nxdomain` and `broken` take the word of `quorum` different resolvers, and nobody's to the contrary.
    - Anything less, time-outs first of all: `unknown`, which never counts as dead.
    - `authority` of `nxdomain` is the deepest SOA owner that a quorum of deniers gave at least, since the
      deepest is furthest from being the registry's word; None when fewer gave one.
    """
    exist = _resolvers(seen, _EXISTS)
    deny = [index for index in _resolvers(seen, (Outcome.NXDOMAIN,)) if index not in exist]
    if deny:
        if exist or len(deny) < quorum:
            return Verdict(Status.UNKNOWN, rcode=_rcode(seen), resolvers=(*exist, *deny))
        owners = {
            o.resolver: o.answer.authority
            for o in seen
            if o.answer.outcome is Outcome.NXDOMAIN and o.answer.authority is not None
        }
        authority = max(owners.values(), key=_depth) if len(owners) >= quorum else None
        return Verdict(Status.NXDOMAIN, authority=authority, rcode=_rcode(seen), resolvers=tuple(deny))

    addresses = {address for o in seen for address in o.answer.addresses}
    if addresses:
        return Verdict(Status.LIVE, tuple(sorted(addresses)), None, 0, tuple(exist))

    fail = _resolvers(seen, _SAYS_NOTHING)
    silent = {o.resolver for o in seen}.difference(exist, fail)
    if exist:
        empty = {o.qtype for o in seen if o.answer.outcome is Outcome.NODATA}
        if len(empty) == 2:
            authority = next((o.answer.authority for o in seen if o.answer.authority is not None), None)
            return Verdict(Status.NODATA, (), authority, _rcode(seen), tuple(exist))
    if len(fail) >= quorum and not silent:
        return Verdict(Status.BROKEN, rcode=_rcode(seen), resolvers=tuple(fail))
    return Verdict(Status.UNKNOWN, rcode=_rcode(seen), resolvers=(*exist, *fail))


def next_question(seen: Sequence[Observation], quorum: int, usable: Sequence[int], attempts: int) -> Question | None:
    """What to ask next about a name, or None when the verdict is as good as it will get.

    `usable` are resolvers in order of preference. A type without an answer is asked `attempts` times in all,
    of the resolver asked least so far; a denial is put to others until a quorum agrees; one that denies what
    another knows is asked for the type that the other answered.
    """
    exist = _resolvers(seen, _EXISTS)
    deny = [index for index in _resolvers(seen, (Outcome.NXDOMAIN,)) if index not in exist]
    if deny and exist:
        types = {o.qtype for o in seen if o.answer.outcome in _EXISTS}
        for resolver in deny:
            asked = [o.qtype for o in seen if o.resolver == resolver]
            for qtype in sorted(types):
                if resolver in usable and qtype not in asked:
                    return Question(qtype, resolver)
        return None
    if deny:
        others = [index for index in usable if index not in deny]
        tried = sum(o.resolver not in deny for o in seen)
        return _least_asked(seen, A, others) if len(deny) < quorum and tried < attempts else None
    if any(o.answer.outcome is Outcome.ADDRESS for o in seen):
        return None
    for qtype in (A, AAAA):
        if not any(o.qtype == qtype and o.answer.outcome is Outcome.NODATA for o in seen):
            # Without A settled there is no verdict that AAAA could still complete.
            return _least_asked(seen, qtype, usable) if _count(seen, qtype) < attempts else None
    return None


def _least_asked(seen: Sequence[Observation], qtype: int, candidates: Sequence[int]) -> Question | None:
    if not candidates:
        return None
    tries = dict.fromkeys(candidates, 0)
    for o in seen:
        if o.resolver in tries:
            # A resolver already asked for this very type is the last to give another answer.
            tries[o.resolver] += 2 if o.qtype == qtype else 1
    return Question(qtype, min(candidates, key=tries.__getitem__))


def _count(seen: Sequence[Observation], qtype: int) -> int:
    return sum(o.qtype == qtype for o in seen)


def _resolvers(seen: Sequence[Observation], outcomes: tuple[Outcome, ...]) -> list[int]:
    return sorted({o.resolver for o in seen if o.answer.outcome in outcomes})


def _rcode(seen: Sequence[Observation]) -> int | None:
    """The rcode to show: of the most telling reply, the first of equals."""
    ranked = [o.answer for o in seen if o.answer.rcode is not None]
    return min(ranked, key=lambda answer: answer.outcome).rcode if ranked else None


def _depth(owner: str) -> int:
    return 0 if owner == "." else owner.count(".") + 1
