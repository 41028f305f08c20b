"""Which addresses a feed may be fetched from: the public Internet, the operator's own network if allowed.

Sources, as of 2026-11: IANA "IPv4 Special-Purpose Address Registry" and "IPv6 Special-Purpose Address
Registry" (RFC 6890, 8190), multicast (RFC 5771, 4291), global unicast 2000::/3 (RFC 4291 §2.4). The table
says more than `special_use`, which judges what may be *listed*: documentation networks may be listed, but
nobody serves a feed there. `ipaddress.is_global` is not used: it calls 3fff::/20, fec0::/10 and
2002::/16 global.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

# (network, what it is, may `allow_private` open it)
_SPECIAL = (
    ("0.0.0.0/8", "an address of 'this network'", False),
    ("10.0.0.0/8", "a private address", True),
    ("100.64.0.0/10", "a shared (carrier-grade NAT) address", True),
    ("127.0.0.0/8", "a loopback address", True),
    ("169.254.0.0/16", "a link-local address", True),
    ("172.16.0.0/12", "a private address", True),
    ("192.0.0.0/24", "a protocol-assignment address", True),
    ("192.0.2.0/24", "a documentation address", True),
    ("192.31.196.0/24", "an AS112 address", False),
    ("192.52.193.0/24", "an AMT relay address", False),
    ("192.88.99.0/24", "a deprecated 6to4 relay address", False),
    ("192.168.0.0/16", "a private address", True),
    ("192.175.48.0/24", "an AS112 address", False),
    ("198.18.0.0/15", "a benchmarking address", True),
    ("198.51.100.0/24", "a documentation address", True),
    ("203.0.113.0/24", "a documentation address", True),
    ("224.0.0.0/4", "a multicast address", False),
    ("240.0.0.0/4", "a reserved address", False),
    ("::/128", "the unspecified address", False),
    ("::1/128", "a loopback address", True),
    ("100::/64", "a discard-only address", False),
    ("2001::/23", "a protocol-assignment address", False),
    ("2001:db8::/32", "a documentation address", True),
    ("2002::/16", "a 6to4 address", False),
    ("2620:4f:8000::/48", "an AS112 address", False),
    ("3fff::/20", "a documentation address", True),
    ("64:ff9b:1::/48", "a local-use translation address", True),
    ("fc00::/7", "a unique local (private) address", True),
    ("fe80::/10", "a link-local address", True),
    ("fec0::/10", "a site-local address", True),
    ("ff00::/8", "a multicast address", False),
)


class AddressRefused(Exception):
    """Every address of the host is one that this feed may not be fetched from."""


def allowed(host: str, addresses: Iterable[str], *, allow_private: bool) -> list[str]:
    """Those of `addresses`, which `host` has, that may be connected to. Raises AddressRefused when none may."""
    fit = []
    refused = ""
    for address in addresses:
        words = refusal(address, allow_private=allow_private)
        if words is None:
            fit.append(address)
        else:
            refused = refused or (words if address == host else f"{address}, {words}")
    if not fit:
        raise AddressRefused(f"{host} is {refused}" if refused else f"{host} has no address")
    return fit


@lru_cache(maxsize=1)
def _tables() -> tuple[
    list[tuple[IPv4Network, str, bool]],
    list[tuple[IPv6Network, str, bool]],
    IPv6Network,
    tuple[IPv6Network, ...],
]:
    parsed = [(ip_network(text), words, openable) for text, words, openable in _SPECIAL]
    v4 = [(net, words, openable) for net, words, openable in parsed if isinstance(net, IPv4Network)]
    v6 = [(net, words, openable) for net, words, openable in parsed if isinstance(net, IPv6Network)]
    # Addresses that stand for an IPv4 address: mapped (the kernel connects by IPv4), and the well-known
    # NAT64 prefix (RFC 6052), which every name resolves to in a network without IPv4.
    return v4, v6, IPv6Network("2000::/3"), (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))


def refusal(address: str, *, allow_private: bool) -> str | None:
    """Why a feed may not be fetched from `address` ("a loopback address"), or None if it may.

    `allow_private` opens the addresses of one's own network: private, loopback, link-local, documentation.
    Raises ValueError when `address` is not an address.
    """
    parsed = ip_address(address.partition("%")[0])
    v4, v6, global_unicast, embedding = _tables()
    if isinstance(parsed, IPv6Address):
        if any(parsed in net for net in embedding):
            parsed = IPv4Address(int(parsed) & 0xFFFF_FFFF)
        else:
            for net6, words, openable in v6:
                if parsed in net6:
                    return None if allow_private and openable else words
            return None if parsed in global_unicast else "a reserved address"
    for net4, words, openable in v4:
        if parsed in net4:
            return None if allow_private and openable else words
    return None
