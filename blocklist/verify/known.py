"""What sinkholes and parking look like: addresses and name servers, each with the source that says so."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple


class Mark(NamedTuple):
    """`what` is "sinkhole" or "parking"; `source` says who knows: `misp-sinkholes, line 7`, or an RFC."""

    what: str
    source: str


# Null routes: what filters and owners answer instead of an address that could be reached.
NULL_ROUTES: Final = (
    ("0.0.0.0/8", Mark("sinkhole", "null route (RFC 1122 §3.2.1.3)")),
    ("127.0.0.0/8", Mark("sinkhole", "null route (RFC 1122 §3.2.1.3)")),
    ("::/128", Mark("sinkhole", "null route (RFC 4291 §2.5.2)")),
    ("::1/128", Mark("sinkhole", "null route (RFC 4291 §2.5.3)")),
)
REMEMBERED: Final = 1 << 16  # addresses looked up; hostile zones could answer without end


class Known:
    """Knowledge for verdicts; built from `networks` (CIDR) and `servers` (domains that hold name servers).

    Sinkholes go before parking, narrower networks before wider ones. Null routes are always known. What is no
    network or domain is passed over: the lists are other people's. Can be pickled.
    """

    def __init__(self, networks: Mapping[str, Mark] | None = None, servers: Mapping[str, Mark] | None = None) -> None:
        self._networks: dict[tuple[int, int], dict[int, Mark]] = {}
        for cidr, mark in (*NULL_ROUTES, *_in_order(networks or {})):
            try:
                network = ipaddress.ip_network(cidr, strict=False)
            except ValueError:
                continue
            octets, shift = network.max_prefixlen // 8, network.max_prefixlen - network.prefixlen
            at = int(network.network_address) >> shift
            self._networks.setdefault((octets, shift), {}).setdefault(at, mark)
        self._servers: dict[str, Mark] = {}
        for name, mark in _in_order(servers or {}):
            self._servers.setdefault(name.lower().rstrip("."), mark)
        self._seen: dict[bytes, Mark | None] = {}

    @property
    def knows_servers(self) -> bool:
        """Whether asking for name servers could tell anything."""
        return bool(self._servers)

    def address(self, packed: bytes) -> Mark | None:
        """The mark of an address of 4 or 16 octets; IPv4 mapped into IPv6 is taken for itself (RFC 4291 §2.5.5.2)."""
        try:
            return self._seen[packed]
        except KeyError:
            if len(self._seen) >= REMEMBERED:
                self._seen.clear()
            found = self._seen[packed] = self._look_up(packed)
            return found

    def _look_up(self, packed: bytes) -> Mark | None:
        if len(packed) == 16 and packed[:12] == bytes(10) + b"\xff\xff":
            packed = packed[12:]
        number = int.from_bytes(packed)
        found = None
        for (octets, shift), marks in sorted(self._networks.items()):
            if octets == len(packed) and (mark := marks.get(number >> shift)) is not None:
                if mark.what == "sinkhole":
                    return mark
                found = found or mark
        return found

    def server(self, name: str) -> Mark | None:
        """The mark of a name server: of its own name, or of a domain above it."""
        below = name.lower().rstrip(".")
        while below:
            if (mark := self._servers.get(below)) is not None:
                return mark
            below = below.partition(".")[2]
        return None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_seen": {}}


def _in_order(marks: Mapping[str, Mark]) -> Iterable[tuple[str, Mark]]:
    return sorted(marks.items(), key=lambda item: item[1].what != "sinkhole")
