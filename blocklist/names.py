"""One domain name: how text becomes an A-label name, or the reason why it does not.

This is the definition; `blocklist.ingest.normalize` does the same in columns and a property test holds the
two together. No Polars here: `why`, rules and configuration start in milliseconds.
"""

from __future__ import annotations

import re
from enum import StrEnum

from blocklist.special_use import ENGINE_LABELS, LOCAL_NAMES

MAX_NAME = 253  # RFC 1035 §2.3.4: 255 octets on the wire
MAX_LABEL = 63

# What undecodable bytes became (U+FFFD); no character of a name.
DAMAGED = "\ufffd"

_ALPHABET = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)+")
_SINGLE = re.compile(r"[a-z0-9_-]+")
_LONG_LABEL = re.compile(rf"[^.]{{{MAX_LABEL + 1}}}")
_LOCAL_ENDS = frozenset(name.rpartition(".")[2] for name in LOCAL_NAMES)
# Four numbers in octal or hex and the like: inet_aton(3) and the URL standard read them as addresses. `192.0.2.1-9` is
# a range to people, and no top-level domain is two numbers.
_NUMERIC_END = re.compile(r"(?:.*\.)?(?:[0-9]*-?[0-9]*|0x[0-9a-f]*)")


class Reject(StrEnum):
    """Why text is not an indicator. Every value is counted for its feed and shown in `feeds show`."""

    SYNTAX = "syntax"
    ENCODING = "encoding"
    TOO_LONG = "too-long"
    SINGLE_LABEL = "single-label"
    IDN = "idn"
    LOOKALIKE = "address-lookalike"
    LOCAL_NAME = "local-name"
    ENGINE_SYNTAX = "engine-syntax"
    BAD_ADDRESS = "bad-address"
    NOT_GLOBAL = "not-global"
    WHOLE_INTERNET = "whole-internet"
    BAD_URL = "bad-url"
    UNWANTED_KIND = "unwanted-kind"
    OTHER_KIND = "other-kind-than-stated"
    UNSUPPORTED = "unsupported"


class RejectedError(ValueError):
    """Text that is no indicator; `reason` is a `Reject`."""

    def __init__(self, reason: Reject) -> None:
        super().__init__(reason.value)
        self.reason = reason


def to_ascii(text: str) -> str:
    """A-labels of a name in Unicode, UTS 46 non-transitional with mapping. Raises RejectedError(IDN)."""
    import idna

    try:
        return idna.encode(text, uts46=True, std3_rules=False, transitional=False).decode("ascii")
    except (idna.IDNAError, UnicodeError, ValueError, IndexError):
        raise RejectedError(Reject.IDN) from None


def normalize_name(text: str, *, allow_single: bool = False) -> str:
    """`text` as an indicator name: lower case, no trailing dot, A-labels, checked.

    `allow_single` admits one label (`com`), which only an operator's rule may name.
    Raises RejectedError with the first reason that holds, in the order of the checks here.
    """
    name = text
    if not name.isascii():
        if DAMAGED in name:
            raise RejectedError(Reject.ENCODING)
        name = to_ascii(name.removesuffix("."))
    name = name.lower().removesuffix(".")
    if len(name) > MAX_NAME:
        raise RejectedError(Reject.TOO_LONG)
    if _ALPHABET.fullmatch(name) is None:
        if _SINGLE.fullmatch(name) is None:
            raise RejectedError(Reject.SYNTAX)
        if not allow_single:
            raise RejectedError(Reject.SINGLE_LABEL)
    if _LONG_LABEL.search(name) is not None:
        raise RejectedError(Reject.TOO_LONG)
    if _NUMERIC_END.fullmatch(name) is not None:
        raise RejectedError(Reject.LOOKALIKE)
    if name.rpartition(".")[2] in ENGINE_LABELS:
        raise RejectedError(Reject.ENGINE_SYNTAX)
    if is_local(name):
        raise RejectedError(Reject.LOCAL_NAME)
    return name


def is_local(name: str) -> bool:
    """Is `name` one that only means something inside a network (RFC 6761, 6762, 8375, 9476)?"""
    if name.rpartition(".")[2] not in _LOCAL_ENDS:
        return False
    return name in LOCAL_NAMES or any(parent in LOCAL_NAMES for parent in parents(name))


def parents(name: str) -> list[str]:
    """The names above `name`, nearest first, its top-level domain last: `a.b.c` → `b.c`, `c`."""
    labels = name.split(".")
    return [".".join(labels[i:]) for i in range(1, len(labels))]
