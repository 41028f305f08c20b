"""Differences by dynamic update (RFC 2136): for BIND, which takes 40,000 records in under two seconds.

One message holds 64 KB, so a change takes several, a serial each; every one requires the SOA of the one before, so
that nobody else's change and no message that was sent twice comes in between.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator, Sequence

import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.update

from blocklist.errors import ReleaseError
from blocklist.publish.delivery.primary import Primary
from blocklist.publish.delivery.zone import OwnerChange, with_serial

# Serials that a release must leave free above the one served: for as many messages, some 500,000 records.
ROOM = 256
# Octets of a message, less what SOA, prerequisite and TSIG need.
_SIZE = 60_000
# Octets of a record beside its owner and data: type, class, TTL, length, pointer to the zone.
_FRAME = 12


class Drifted(Exception):
    """The primary does not hold what was delivered last."""


def send(primary: Primary, changes: Sequence[OwnerChange], served: str, soa: str, deadline: float) -> int:
    """Bring the primary from the SOA `served` to `soa` with `changes`; the number of messages.

    Raises Drifted when its SOA is another one, ReleaseError for everything else.
    """
    messages = list(_messages(changes)) or [[]]
    first, last = int(served.split()[2]), int(soa.split()[2])
    if (last - first) % 2**32 < len(messages):
        raise ReleaseError(
            f"{primary}: {len(messages)} messages need as many serials, and from {first} to {last} there are fewer",
            hint="set 'reload' to a command that loads the whole file, for changes as large as this",
        )
    expected = served
    server = (primary.server.address, primary.server.port)
    try:
        with socket.create_connection(server, timeout=max(deadline - time.monotonic(), 1)) as connection:
            for number, message in enumerate(messages, start=1):
                following = soa if number == len(messages) else with_serial(soa, (first + number) % 2**32)
                _send(primary, connection, _update(primary, message, expected, following), deadline)
                expected = following
    except OSError as error:
        raise ReleaseError(f"{primary}: {(error.strerror or str(error)).lower()}") from None
    return len(messages)


def _messages(changes: Iterable[OwnerChange]) -> Iterator[list[OwnerChange]]:
    """Changes in pieces that fit into a message; those of one owner stay together."""
    piece: list[OwnerChange] = []
    size = 0
    for change in changes:
        needed = sum(len(r.owner) + len(r.data) + _FRAME for r in (*change.removed, *change.added))
        if piece and size + needed > _SIZE:
            yield piece
            piece, size = [], 0
        piece.append(change)
        size += needed
    if piece:
        yield piece


def _update(primary: Primary, changes: list[OwnerChange], expected: str, soa: str) -> dns.update.UpdateMessage:
    update = dns.update.UpdateMessage(primary.zone)
    if primary.key is not None:
        update.use_tsig(primary.key)
    update.present("@", _rdata("SOA", expected))
    for change in changes:
        # The apex must never be without name server (RFC 2136 §3.4.2.4 keeps the last one).
        if change.owner == "@":
            for item in change.added:
                update.add(item.owner, item.ttl, _rdata(item.kind, item.data))
        for item in change.removed:
            update.delete(item.owner, _rdata(item.kind, item.data))
        if change.owner != "@":
            for item in change.added:
                update.add(item.owner, item.ttl, _rdata(item.kind, item.data))
    update.add("@", 300, _rdata("SOA", soa))
    return update


_KNOWN: dict[tuple[str, str], dns.rdata.Rdata] = {}


def _rdata(kind: str, data: str) -> dns.rdata.Rdata:
    """Targets are few: parsing each once halves the time."""
    if (found := _KNOWN.get((kind, data))) is None:
        found = dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.from_text(kind), data)
        if kind == "CNAME" and len(_KNOWN) < 1000:
            _KNOWN[kind, data] = found
    return found


def _send(primary: Primary, connection: socket.socket, update: dns.update.UpdateMessage, deadline: float) -> None:
    left = max(deadline - time.monotonic(), 0.1)
    reply = primary.asked(
        lambda: dns.query.tcp(update, primary.server.address, left, primary.server.port, sock=connection)
    )
    rcode = reply.rcode()
    if rcode == dns.rcode.NOERROR:
        return
    if rcode in (dns.rcode.NXRRSET, dns.rcode.YXRRSET):
        raise Drifted
    hint = {
        dns.rcode.REFUSED: "it lets its own keys update: allow-update { key NAME; }, and 'tsig' of the export",
        dns.rcode.NOTAUTH: "it is not primary for that zone, or does not know the key",
    }.get(rcode, "see its log")
    raise ReleaseError(f"{primary} answered {dns.rcode.to_text(rcode)} to the update", hint=hint)
