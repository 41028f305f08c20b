"""What a person asked for, as the record names it, and what stands around it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import ip_address

import msgspec

from blocklist.errors import IndicatorError
from blocklist.names import Reject, RejectedError, normalize_name, parents
from blocklist.select.address import parse_one


class Thing(msgspec.Struct, frozen=True):
    """What was asked: `name` is canonical; a network has `first` and `last`; a URL has its `host`."""

    name: str
    kind: str
    first: int = 0
    last: int = 0
    host: str | None = None


_URL = re.compile(
    r"(?:([A-Za-z][A-Za-z0-9+.-]*):)?//(?:[^/?#@\\]*@)?(\[[0-9A-Fa-f:.]+\]|[^/:?#\[\]]*)(?::([0-9]{0,5}))?([/?#].*)?"
)
# RFC 3986 §3.3, §3.4: path and query.
_URL_REST = re.compile(r"(?:[A-Za-z0-9._~:/?@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*")
_HOST_ALONE = re.compile(r"/?\??#?")
_PORTS = {"http": 80, "https": 443, "ftp": 21}


def recognise(text: str) -> Thing:
    """A domain, address, network or URL as the record names it. Raises IndicatorError with the reason."""
    text = text.strip()
    try:
        match = _URL.fullmatch(text)
        if match:
            return _url(match[1], match[2], match[3], match[4] or "")
        return _host(text)
    except RejectedError as error:
        raise IndicatorError(
            f"{text!r} is no domain, address, network or URL ({error.reason})",
            hint="examples: evil.example, 192.0.2.1, 192.0.2.0/24, https://evil.example/path",
        ) from None


def _host(text: str) -> Thing:
    parsed = parse_one(text)
    if parsed is not None:
        family, first, last = parsed
        return Thing(network_text(family, first, last), "ipv4" if family == 4 else "ipv6", first, last)
    return Thing(normalize_name(text, allow_single=True), "domain")


def _url(scheme: str | None, host: str, port: str | None, rest: str) -> Thing:
    """A URL's parts as a URL indicator, or as its host where it stands for that.

    This is the definition; `blocklist.ingest.normalize` does the same in columns. Raises RejectedError.
    """
    scheme = scheme and re.sub("^hxxp", "http", scheme.lower())
    number = int(port) if port else None
    if (scheme is not None and scheme not in _PORTS) or (number or 0) > 65_535:
        raise RejectedError(Reject.BAD_URL)
    thing = _host(host.strip("[]"))
    if _HOST_ALONE.fullmatch(rest):
        return thing
    # A fragment never reaches a server or proxy.
    rest = rest.partition("#")[0]
    if not _URL_REST.fullmatch(rest) or (thing.kind == "domain" and "." not in thing.name):
        raise RejectedError(Reject.BAD_URL)
    shown = f"[{thing.name}]" if thing.kind == "ipv6" else thing.name
    at = "" if number is None or number == _PORTS.get(scheme or "") else f":{number}"
    return Thing(f"//{shown}{at}{'' if rest.startswith('/') else '/'}{rest}", "url", host=thing.name)


def network_text(family: int, first: int, last: int) -> str:
    """Canonical text: a single address bare, else with its prefix length."""
    length = (32 if family == 4 else 128) - (last - first).bit_length()
    address = ip_address(first.to_bytes(4 if family == 4 else 16, "big"))
    return str(address) if first == last else f"{address}/{length}"


def around(thing: Thing) -> Sequence[str]:
    """The names whose listings and rules may decide for `thing`, its own first."""
    if thing.kind == "domain":
        return [thing.name, *parents(thing.name)]
    return [thing.name] if thing.kind == "url" else around_network(thing)


@lru_cache(maxsize=64)  # an answer needs it twice, of an IPv6 address 129 texts
def around_network(thing: Thing) -> tuple[str, ...]:
    """The canonical texts of an address or network and of all networks around it, the narrowest first."""
    family, size = (4, 32) if thing.kind == "ipv4" else (6, 128)
    chain = []
    for hosts in range((thing.last - thing.first).bit_length(), size + 1):
        first = thing.first >> hosts << hosts
        chain.append(network_text(family, first, first + (1 << hosts) - 1))
    return tuple(chain)


def host_of(thing: Thing) -> Thing | None:
    """What a URL's host is; None for `localhost` and the like, which no list may name."""
    try:
        return recognise(thing.host or "")
    except IndicatorError:
        return None
