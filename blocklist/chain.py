"""What a name stands for in the DNS: the names its CNAMEs lead through and the addresses at their end.

An allow for `portal.example` helps nobody while the name it is an alias of, or the address behind it, stays
blocked: resolvers apply an RPZ to every name of the chain, and packet filters see only the address.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import dns.exception
import dns.message
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver

from blocklist.errors import IndicatorError
from blocklist.verify.endpoint import parse_resolver

# Longer chains are a loop or a mistake; BIND follows 16.
MAX_LINKS = 16
_PATIENCE = 5.0  # seconds for all resolvers together


@dataclass(frozen=True)
class Chain:
    """`names`: the targets of the CNAMEs in order, without the name asked; `addresses`: of the last one."""

    names: tuple[str, ...]
    addresses: tuple[str, ...]


def follow(name: str, resolvers: Sequence[str]) -> Chain:
    """Ask for A and AAAA of `name` and follow the answers; resolvers are tried in turn.

    Raises IndicatorError when there is no resolver to ask or none gives an answer in time.
    """
    if not resolvers:
        raise IndicatorError(
            "no resolvers are configured, so the CNAME chain can't be followed",
            hint='name one that does not load this list: [verify] resolvers = ["192.0.2.53"]',
        )
    asking = dns.resolver.Resolver(configure=False)
    asking.nameservers = [
        dns.nameserver.Do53Nameserver(r.address, r.port) for r in (parse_resolver(text) for text in resolvers)
    ]
    asking.lifetime = _PATIENCE
    names: dict[str, None] = {}
    addresses: dict[str, None] = {}
    for kind in (dns.rdatatype.A, dns.rdatatype.AAAA):
        for owner, found in _answers(asking, name, kind):
            if owner is not None:
                names[owner] = None
            addresses.update(dict.fromkeys(found))
    return Chain(tuple(names), tuple(addresses))


def _answers(
    asking: dns.resolver.Resolver, name: str, kind: dns.rdatatype.RdataType
) -> list[tuple[str | None, list[str]]]:
    """Each link as `(name, [])`, and the addresses of `kind` as `(None, addresses)`."""
    try:
        message = asking.resolve(name, kind, search=False, raise_on_no_answer=False).response
    except dns.resolver.NXDOMAIN as denied:
        # An alias of a name that is gone: its links still count.
        message = next(iter(denied.kwargs["responses"].values()))
    except (dns.exception.DNSException, OSError) as error:
        raise IndicatorError(
            f"{name}: no resolver answered ({str(error).splitlines()[0][:200]})",
            hint="see [verify] resolvers; without --chain or --resolve only the name itself is looked at",
        ) from None
    links: list[tuple[str | None, list[str]]] = []
    at = dns.name.from_text(name)
    for _ in range(MAX_LINKS):
        alias = next(
            (r for r in message.answer if r.rdtype == dns.rdatatype.CNAME and r.name == at and len(r)),
            None,
        )
        if alias is None:
            break
        at = alias[0].target
        links.append((at.to_text(omit_final_dot=True).lower(), []))
    found = [x.address for r in message.answer if r.rdtype == kind and r.name == at for x in r]
    return [*links, (None, found)]
