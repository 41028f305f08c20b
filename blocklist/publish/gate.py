"""The last gate before a file: nothing but names, networks and URLs in safe letters becomes a line.

Names were normalised long before. This is the second lock on the door: every format here is written without
escaping, so one stray newline would be a command to a firewall.
"""

from __future__ import annotations

from typing import Literal

import polars as pl

from blocklist.errors import ReleaseError
from blocklist.publish.patterns import URL
from blocklist.special_use import ENGINE_LABELS

Gate = Literal["name", "network", "url", "trigger"]

_MAX_NAME = 253
_ENGINE_MARK = "rpz-"
assert all(_ENGINE_MARK in label for label in ENGINE_LABELS)
_NAME = r"^(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}$"
_OCTET = r"(?:0|[1-9][0-9]{0,2})"  # nft reads a leading zero as octal
_NETWORK = rf"^(?:{_OCTET}(?:\.{_OCTET}){{3}}(?:/[1-9][0-9]?)?|[0-9a-f:]*:[0-9a-f:]*(?:/[1-9][0-9]{{0,2}})?)$"
_TRIGGER = r"^[1-9][0-9]{0,2}(?:\.zz|(?:\.(?:zz|[0-9a-f]{1,4})){2,8})\.rpz-ip$"
_PATTERNS: dict[Gate, tuple[str, str]] = {
    "name": (_NAME, "a domain name"),
    "network": (_NETWORK, "a canonical address or network"),
    "url": (URL, "a URL that can be written"),
    "trigger": (_TRIGGER, "an address trigger"),
}


def require_safe(values: pl.Series, gate: Gate, place: str, first: int = 0) -> None:
    """Raise ReleaseError unless every one of `values` (String) passes `gate`.

    `place` and the row number from `first` name the offender.
    """
    pattern, what = _PATTERNS[gate]
    bad = values.is_null() | ~values.str.contains(pattern)
    if gate == "name":
        bad |= values.str.len_bytes() > _MAX_NAME
        if values.str.contains(_ENGINE_MARK, literal=True).any():  # hardly ever: then look at the last label
            bad |= values.str.split(".").list.last().is_in(list(ENGINE_LABELS))
    row = bad.fill_null(True).arg_max() if len(values) else None
    if row is not None and bad.fill_null(True)[row]:
        raise ReleaseError(
            f"{place}, row {first + row + 1:,}: {shown(values[row])} is not {what}; nothing was written",
            hint="this is a fault in the tool or in its record; please report it",
        )


def writable_urls(urls: pl.Series) -> pl.Series:
    """Boolean: which of `urls` (String) pass the gate. Some that feeds list hold an apostrophe, legal but a quote."""
    return urls.str.contains(URL).fill_null(False)


def shown(text: object) -> str:
    """`text` for a message: ASCII, quoted, at most 80 characters, nothing that a terminal would act on."""
    quoted = ascii(text)
    return quoted if len(quoted) <= 80 else f"{quoted[:77]}..."
