"""Resolver addresses as people write them: `192.0.2.53`, `192.0.2.53:5353`, `[2001:db8::53]:53`."""

from __future__ import annotations

import ipaddress
import re

import msgspec

from blocklist.errors import ConfigError


class Resolver(msgspec.Struct, frozen=True):
    """A recursive resolver to ask: a literal address and a port. `str()` gives `address:port`."""

    address: str
    port: int = 53

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def parse_resolver(text: str) -> Resolver:
    """`IP`, `IPv4:PORT` or `[IPv6]:PORT` to a Resolver; the port is 53 unless given.

    Raises ConfigError: a host name (it would need a resolver to find the resolver), a bad address or port.
    """
    stripped = text.strip()
    match = re.fullmatch(r"\[([^\]]*)\](?::(.*))?", stripped) or re.fullmatch(r"([^:]*)(?::([^:]*))?", stripped)
    host, port = (match[1], match[2]) if match else (stripped, None)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise ConfigError(
            f"resolver {text!r}: {host!r} is not an IP address",
            hint="write an address and perhaps a port: '192.0.2.53', '192.0.2.53:5353', '[2001:db8::53]:53'",
        ) from None
    if port is None:
        return Resolver(str(address))
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        raise ConfigError(f"resolver {text!r}: {port!r} is not a port", hint="a port is a number from 1 to 65535")
    return Resolver(str(address), int(port))
