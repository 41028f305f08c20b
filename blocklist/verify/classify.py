"""From what the resolvers said about a name to one verdict, and to what should still be asked."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from blocklist.verify.known import Known, Mark
from blocklist.verify.wire import AAAA, A, Answer, Outcome


class Status(StrEnum):
    """The verdicts."""

    LIVE = "live"
    SINKHOLED = "sinkholed"
    PARKED = "parked"
    NODATA = "nodata"
    NXDOMAIN = "nxdomain"
    BROKEN = "broken"
    UNKNOWN = "unknown"


class Observation(NamedTuple):
    """One question about one name: who was asked (an index), which type, and what came of it."""

    resolver: int
    qtype: int
    answer: Answer


Seen = tuple[int, int, Answer]
"""An Observation before it needs names: millions of them are made."""


class Verdict(NamedTuple):
    """`addresses` are distinct and sorted, 4 or 16 octets; `resolvers` are indices: whose word this is.

    `detail` says how a sinkhole or parking was known.
    """

    status: Status
    addresses: tuple[bytes, ...] = ()
    authority: str | None = None
    rcode: int | None = None
    resolvers: tuple[int, ...] = ()
    detail: str | None = None


class Question(NamedTuple):
    """A question still worth asking: the type, and the resolver to ask."""

    qtype: int
    resolver: int


_EXISTS = (Outcome.ADDRESS, Outcome.NODATA)
_SAYS_NOTHING = (Outcome.LOOP, Outcome.FAILED)


_NOTHING_KNOWN = Known()


def classify(seen: Sequence[Observation], quorum: int, known: Known = _NOTHING_KNOWN) -> Verdict:
    """The verdict on a name from everything seen of it; `quorum` resolvers must agree on bad news.

    - A resolver *denies* a name when it says NXDOMAIN and nothing else of substance; one that says NXDOMAIN
      to AAAA but has an A record has met the name-server fault of RFC 4074 §4.2, and does not deny.
    - Some deny and some don't: `unknown`. An address: `live`. A and AAAA both empty: `nodata`.
    - Only addresses of sinkholes or null routes: `sinkholed`; of parking besides or alone: `parked`. This is bad
      news as well: it takes a quorum, since a resolver that filters answers with just such addresses.
    - A resolver that says that it filters (RFC 8914) says nothing of the name.
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
        marks = [known.address(address) for address in addresses]
        if None in marks:
            return Verdict(Status.LIVE, tuple(sorted(addresses)), None, 0, tuple(exist))
        gave = _resolvers(seen, (Outcome.ADDRESS,))
        if len(gave) < quorum:
            return Verdict(Status.UNKNOWN, rcode=0, resolvers=tuple(exist))
        ordered = tuple(sorted(addresses))
        status, detail = _marked(ordered, known)
        return Verdict(status, ordered, None, 0, tuple(gave), detail)

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


def quick(first: Seen, second: Seen, quorum: int, known: Known) -> Verdict | None:
    """The verdict of `classify` where two answers of two types leave nothing to ask; None where they may.

    Nearly every name ends here.
    """
    resolver, _, one = first
    other, _, two = second
    a, b = one.outcome, two.outcome
    if a is Outcome.NXDOMAIN:
        if b is not Outcome.NXDOMAIN or resolver == other or quorum > 2:
            return None
        authority = one.authority
        if authority is None or two.authority is None:
            authority = None if quorum == 2 else authority or two.authority
        elif authority != two.authority:
            authority = max(authority, two.authority, key=_depth)
        pair = (resolver, other) if resolver < other else (other, resolver)
        return Verdict(Status.NXDOMAIN, (), authority, one.rcode, pair)
    if a not in _EXISTS or b not in _EXISTS:
        return None
    addresses = one.addresses + two.addresses
    for address in addresses:
        if known.address(address) is None:
            break
    else:
        return None
    if len(addresses) > 1:
        addresses = tuple(sorted(set(addresses)))
    if resolver == other:
        return Verdict(Status.LIVE, addresses, None, 0, (resolver,))
    return Verdict(Status.LIVE, addresses, None, 0, (resolver, other) if resolver < other else (other, resolver))


def _marked(addresses: Sequence[bytes], known: Known) -> tuple[Status, str]:
    """The verdict of addresses that all have a mark, and how the first of the decisive kind was known."""
    marks: list[tuple[bytes, Mark]] = [(a, mark) for a in addresses if (mark := known.address(a)) is not None]
    parked = any(mark.what == "parking" for _, mark in marks)
    what = "parking" if parked else "sinkhole"
    address, mark = min((pair for pair in marks if pair[1].what == what), key=lambda pair: (len(pair[0]), pair[0]))
    text = str(ipaddress.ip_address(address))
    return Status.PARKED if parked else Status.SINKHOLED, f"{text}: {mark.source}"


def next_question(
    seen: Sequence[Observation],
    quorum: int,
    usable: Sequence[int],
    attempts: int,
    known: Known = _NOTHING_KNOWN,
) -> Question | None:
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
    addresses = [(o, address) for o in seen for address in o.answer.addresses]
    if addresses:
        if any(known.address(address) is None for _, address in addresses):
            return None
        # Bad news: others are asked for the type that a sinkhole or parking answered.
        gave = _resolvers(seen, (Outcome.ADDRESS,))
        qtype = addresses[0][0].qtype
        others = [i for i in usable if i not in gave]
        if len(gave) >= quorum or _count(seen, qtype) >= attempts + len(gave):
            return None
        unasked = [i for i in others if not any(o.resolver == i and o.qtype == qtype for o in seen)]
        return _least_asked(seen, qtype, unasked or others)
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
