"""Test the resolvers before they are believed: do they answer, deny what is not, and hide nothing?"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from blocklist.errors import BlocklistError
from blocklist.verify.classify import Status
from blocklist.verify.resolver import Resolver, resolve_all

INVENTED: Final = 3  # random names put to each resolver: some may be lost on the way
ATTEMPTS: Final = 5  # more than for a name: one resolver condemned by chance costs the whole run its quorum


@dataclass(frozen=True, slots=True)
class Control:
    """Names whose answer is known: `exists` have an address, a random name below `missing` does not exist.

    `canaries` are names that only a resolver which loads our own list answers otherwise than with an address:
    they must be live as well, and failing them is reported as what it is.
    """

    exists: tuple[str, ...] = ("example.com",)
    missing: str = "com"
    canaries: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Preflight:
    """`usable` resolvers in their order, and those `dropped` with the reason of each."""

    usable: tuple[Resolver, ...]
    dropped: tuple[tuple[Resolver, str], ...]


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
    reasons = await asyncio.gather(*(_fault(one, control, rate, timeout) for one in distinct))
    dropped = tuple((one, why) for one, why in zip(distinct, reasons, strict=True) if why is not None)
    if len(dropped) == len(distinct):
        told = "; ".join(f"{one} {why}" for one, why in dropped)
        raise BlocklistError(
            f"no resolver can be trusted, so nothing was verified: {told}",
            hint="choose other [verify] resolvers, or [verify] control names that suit your network",
        )
    return Preflight(tuple(one for one, why in zip(distinct, reasons, strict=True) if why is None), dropped)


async def _fault(resolver: Resolver, control: Control, rate: int, seconds: float) -> str | None:
    """Why a resolver can't be used, in words that follow its address; None when it can."""
    suffix = control.missing.strip(".").lower()
    invented = [f"{secrets.token_hex(10)}.{suffix}".rstrip(".") for _ in range(INVENTED)]
    exists = [name.rstrip(".").lower() for name in control.exists]
    canaries = [name.rstrip(".").lower() for name in control.canaries]
    asked = [*exists, *invented, *canaries]
    # Alone, so that its word is not outvoted: the quorum of one resolver is one.
    result = await resolve_all(asked, [resolver], rate=rate, timeout=seconds, attempts=ATTEMPTS)
    rows = result.frame.select("name", "status", "rcode").iter_rows()
    said = {name: (Status(status), rcode) for name, status, rcode in rows}
    return judge({name: said.get(name, (Status.UNKNOWN, None)) for name in asked}, exists, invented, canaries)


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
        if statuses[name] in (Status.LIVE, Status.NODATA):
            return f"says that {name} exists, which was made up: rewritten NXDOMAIN, or a captive portal"
    for name in exists:
        if statuses[name] is Status.NXDOMAIN:
            return f"denies {name}, which must exist: it filters"
    if exists and not any(statuses[name] is Status.LIVE for name in exists):
        return f"gave no address of {', '.join(exists)}, which must exist"
    if invented and not any(statuses[name] is Status.NXDOMAIN for name in invented):
        return f"does not deny {invented[0]}, which was made up (answers {said[invented[0]][1] or 'nothing'})"
    for name in canaries:
        if statuses[name] not in (Status.LIVE, Status.UNKNOWN):
            return f"blocks the canary {name}: it loads this very list"
    return None
