"""Test the resolvers before they are believed: do they answer, deny what is not, and hide nothing?"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from blocklist.errors import BlocklistError
from blocklist.verify.classify import Status
from blocklist.verify.control import Control
from blocklist.verify.endpoint import Resolver
from blocklist.verify.resolver import resolve_all

INVENTED: Final = 3  # random names put to each resolver: some may be lost on the way
ATTEMPTS: Final = 5  # more than for a name: one resolver condemned by chance costs the whole run its quorum
HIDES: Final = 5  # listed names that one resolver hides from what another sees, and their share, before it is dropped
HIDES_SHARE: Final = 0.25
VANISHED: Final = 10  # the same where no resolver sees them: names may die in a week, but not so many
VANISHED_SHARE: Final = 0.75


@dataclass(frozen=True, slots=True)
class Preflight:
    """`usable` resolvers in their order, those `dropped` with the reason of each, and who keeps the case of a question.

    That is 0x20 (draft-vixie-dnsext-dns0x20): letters in random case, which a forger has to guess.
    """

    usable: tuple[Resolver, ...]
    dropped: tuple[tuple[Resolver, str], ...]
    keep_case: frozenset[Resolver] = frozenset()


class _Said(NamedTuple):
    """Why a resolver can't be used, in words that follow its address (None when it can), and all that it said."""

    fault: str | None
    statuses: dict[str, Status]
    keeps_case: bool


async def preflight(
    resolvers: Sequence[Resolver],
    control: Control,
    *,
    rate: int = 2000,
    timeout: float = 2.0,  # noqa: ASYNC109 - of one query
) -> Preflight:
    """Ask each resolver, alone, for the control names and for random names that can't exist.

    Raises BlocklistError when there is none to test, or none passes: verdicts would then be guesses.
    """
    if not resolvers:
        raise BlocklistError(
            "no resolver is configured, so nothing was verified",
            hint='name recursive resolvers that don\'t load this list: [verify] resolvers = ["192.0.2.53"]',
        )
    distinct = tuple(dict.fromkeys(resolvers))
    asked = await asyncio.gather(*(_fault(one, control, rate, timeout) for one in distinct))
    reasons = _who_hides(asked, control)
    dropped = tuple((one, why) for one, why in zip(distinct, reasons, strict=True) if why is not None)
    if len(dropped) == len(distinct):
        told = "; ".join(f"{one} {why}" for one, why in dropped)
        raise BlocklistError(
            f"no resolver can be trusted, so nothing was verified: {told}",
            hint="choose other [verify] resolvers, or [verify] control names that suit your network",
        )
    usable = tuple(one for one, why in zip(distinct, reasons, strict=True) if why is None)
    kept = frozenset(one for one, said in zip(distinct, asked, strict=True) if said.keeps_case)
    return Preflight(usable, dropped, kept.intersection(usable))


def _who_hides(asked: Sequence[_Said], control: Control) -> list[str | None]:
    """The reasons, and those of resolvers that don't see listed names which were live when last asked.

    One that misses many that others see filters. If none sees most of them, all filter, or load this very list.
    """
    seen = [{name for name, status in said.items() if status in (Status.LIVE, Status.PARKED)} for _, said, _ in asked]
    gone = (Status.NXDOMAIN, Status.SINKHOLED)
    lived = {name.rstrip(".").lower() for name in control.lived}
    reasons: list[str | None] = []
    for index, (why, said, _) in enumerate(asked):
        missed = {name for name in lived if said.get(name) in gone}
        elsewhere = {n for i, names in enumerate(seen) if i != index and asked[i].fault is None for n in names & lived}
        hidden = missed & elsewhere
        if why is None and len(hidden) >= HIDES and len(hidden) > HIDES_SHARE * len(elsewhere):
            why = f"hides {len(hidden)} of {len(elsewhere)} listed names that another resolver sees: it filters"
        elif why is None and len(missed) >= VANISHED and len(missed) > VANISHED_SHARE * len(lived):
            what = f"{len(missed)} of {len(lived)} listed names that were live when last asked"
            why = f"does not see {what}: it filters, or loads this very list"
        reasons.append(why)
    return reasons


async def _fault(resolver: Resolver, control: Control, rate: int, seconds: float) -> _Said:
    invented = [control.invented() for _ in range(INVENTED)]
    exists = [name.rstrip(".").lower() for name in control.exists]
    canaries = [name.rstrip(".").lower() for name in control.canaries]
    lived = [name.rstrip(".").lower() for name in control.lived]
    asked = [*exists, *invented, *canaries]
    names = list(dict.fromkeys([*asked, *lived]))
    # Alone, so that its word is not outvoted: the quorum of one resolver is one.
    result = await resolve_all(names, [resolver], rate=rate, timeout=seconds, attempts=ATTEMPTS, learn_case=True)
    rows = result.frame.select("name", "status", "rcode").iter_rows()
    said = {name: (Status(status), rcode) for name, status, rcode in rows}
    report = result.summary.resolvers[0]
    if report.filtered:
        return _Said(f"says of {report.filtered} of {len(names)} names that it filters them (RFC 8914)", {}, False)
    why = judge({name: said.get(name, (Status.UNKNOWN, None)) for name in asked}, exists, invented, canaries)
    return _Said(why, {name: status for name, (status, _) in said.items()}, bool(report.keeps_case))


def judge(
    said: dict[str, tuple[Status, str | None]],
    exists: Sequence[str],
    invented: Sequence[str],
    canaries: Sequence[str] = (),
) -> str | None:
    """The reason to drop a resolver that `said` this (name → status and rcode), or None.

    What is `unknown` may be a lost packet: forgiven while another name of its kind gave the right answer.
    """
    statuses = {name: status for name, (status, _) in said.items()}
    if all(status is Status.UNKNOWN for status in statuses.values()):
        return f"does not answer ({len(said)} names asked)"
    if all(status in (Status.BROKEN, Status.UNKNOWN) for status in statuses.values()):
        codes = sorted({rcode for _, rcode in said.values() if rcode is not None})
        return f"answers only errors ({', '.join(codes) or 'unreadable replies'})"
    for name in invented:
        if statuses[name] in (Status.LIVE, Status.NODATA, Status.SINKHOLED, Status.PARKED):
            return f"says that {name} exists, which was made up: rewritten NXDOMAIN, or a captive portal"
    for name in exists:
        if statuses[name] in (Status.NXDOMAIN, Status.SINKHOLED):
            return f"denies {name}, which must exist: it filters"
    if exists and not any(statuses[name] is Status.LIVE for name in exists):
        return f"gave no address of {', '.join(exists)}, which must exist"
    if invented and not any(statuses[name] is Status.NXDOMAIN for name in invented):
        return f"does not deny {invented[0]}, which was made up (answers {said[invented[0]][1] or 'nothing'})"
    for name in canaries:
        if statuses[name] not in (Status.LIVE, Status.UNKNOWN):
            return f"blocks the canary {name}: it loads this very list"
    return None
