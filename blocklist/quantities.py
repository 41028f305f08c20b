"""Durations and sizes as people type them: `90d`, `5m`, `64MB`."""

from __future__ import annotations

import re

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}
_BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def parse_duration(text: str) -> int:
    """Seconds in `text`: a whole number and one of s, m, h, d, w, y (`0` alone is allowed).

    Raises ValueError with a sentence for the user.
    """
    match = re.fullmatch(r"\s*([0-9]{1,9})\s*([smhdwy]?)\s*", text)
    if match is None or (not match[2] and match[1] != "0"):
        raise ValueError(f"{text!r} is not a duration; write a number and s, m, h, d, w or y, such as '90d'")
    return int(match[1]) * _SECONDS.get(match[2], 1)


def parse_size(text: str) -> int:
    """Bytes in `text`: a whole number and nothing, kB, MB, GB, KiB, MiB or GiB.

    Raises ValueError with a sentence for the user.
    """
    match = re.fullmatch(r"\s*([0-9]{1,12})\s*([a-zA-Z]*)\s*", text)
    if match is None or match[2].lower() not in _BYTES:
        raise ValueError(f"{text!r} is not a size; write a number and kB, MB or GB, such as '64MB'")
    return int(match[1]) * _BYTES[match[2].lower()]
