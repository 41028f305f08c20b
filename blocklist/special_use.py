"""Names and networks that no list may block: special-use registries, written down with their date.

Sources, as of 2026-11: IANA "Special-Use Domain Names" (RFC 6761, 6762, 8375, 9476), "IPv4 Special-Purpose
Address Registry" and "IPv6 Special-Purpose Address Registry" (RFC 6890, 8190), IPv6 global unicast 2000::/3
(RFC 4291). `ipaddress.is_global` is not used: it calls 3fff::/20, fec0::/10, 64:ff9b::/96 and 2002::/16 global.

The documentation names and networks (RFC 2606, 5737, 3849, 9637) are absent on purpose: blocking them
harms no one, and tests, documentation and the demo use them.
"""

from __future__ import annotations

# Blocking these (or anything below) breaks local service, never an attacker.
LOCAL_NAMES = frozenset({"localhost", "localdomain", "local", "internal", "lan", "home.arpa", "arpa"})

# A name ending in one of these is an instruction to an RPZ engine, not a name (formats of RPZ triggers,
# draft-vixie-dnsop-dns-rpz §4.1): `8.0.0.0.127.rpz-client-ip` blocked every query from 127/8.
ENGINE_LABELS = frozenset(
    {
        "rpz-ip",
        "rpz-nsip",
        "rpz-nsdname",
        "rpz-client-ip",
        "rpz-passthru",
        "rpz-drop",
        "rpz-tcp-only",
    }
)

# IPv4 networks that are not global unicast. 192.0.2.0/24, 198.51.100.0/24 and 203.0.113.0/24 are accepted.
NOT_GLOBAL_V4 = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.31.196.0/24",
    "192.52.193.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "192.175.48.0/24",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
)

# IPv6: everything outside 2000::/3, and these inside it. 2001:db8::/32 and 3fff::/20 are accepted.
NOT_GLOBAL_V6 = (
    "::/3",
    "2001::/23",
    "2002::/16",
    "2620:4f:8000::/48",
    "4000::/2",
    "8000::/1",
)

# Wider than these a network is held for a person: no feed lists a sixty-fourth of the Internet by mistake only.
WIDEST_V4 = 8
WIDEST_V6 = 19
