"""What a file says about itself, in comments at its top or a last line of JSON: its count, and when it was made."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from blocklist.ingest.dates import read_date

_HEAD = 65_536
_LINES = 200
_TAIL = 4_096
_COMMENT = re.compile(r"^\s*(?:#|!|;|//)+\s*(.*?)\s*$")
_COUNTED = (
    r"(?:entries|domains|hosts|hostnames|names|rules|filters|records|lines|indicators|ips|ip addresses|urls|blocked)"
)
# `Entries: 1,234`, `Total entries: 1234`, `Number of unique domains: 1.234`, `Total number of rules = 12`.
_COUNT = re.compile(
    rf"^(?:(?:total|number|count|amount)\s+(?:of\s+)?|total\s+number\s+of\s+)?(?:unique\s+|blocked\s+)?{_COUNTED}"
    r"(?:\s+count)?\s*[:=]\s*([0-9][0-9,.' ]*)$",
    re.IGNORECASE,
)
_DATED = re.compile(
    r"^(?:last[ _-]?(?:modified|updated?|changed?|generated)|(?:updated?|generated)(?:\s+(?:on|at))?|modified"
    r"|date|release[ _-]?date|time\s?stamp)\s*[:=]\s*(.+)$",
    re.IGNORECASE,
)
# Versions made of a date: `2022.0724.123256`, `202607180135`. Others may start anew and are not compared.
_VERSION = re.compile(r"^version\s*[:=]\s*((?:19|20)[0-9]{2}[0-9._-]{4,20})$", re.IGNORECASE)


class Header(msgspec.Struct, frozen=True):
    """`count`: entries, `count_text`: the line that says so. `made`: ISO 8601, as `blocklist.ingest.dates` writes it.

    `version`: one that is made of a date, its numbers in order.
    """

    count: int | None = None
    count_text: str = ""
    made: str | None = None
    version: tuple[int, ...] | None = None

    def as_json(self) -> dict[str, Any]:
        """What is kept with the snapshot, only what the file says."""
        said = {"count": self.count, "made": self.made, "version": self.version and list(self.version)}
        return {key: value for key, value in said.items() if value is not None}


class _Metadata(msgspec.Struct):
    """The last line of JSON lines as Spamhaus ends its lists: `{"type":"metadata","timestamp":…,"records":…}`."""

    type: Literal["metadata"]
    records: int | None = None
    timestamp: int | None = None


def _read_trailer(data: bytes) -> Header:
    line = data[-_TAIL:].rstrip().rpartition(b"\n")[2]
    if not line.startswith(b"{"):
        return Header()
    try:
        said = msgspec.json.decode(line, type=_Metadata)
        made = None if said.timestamp is None else datetime.fromtimestamp(said.timestamp, UTC).isoformat()
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, OverflowError, OSError):
        return Header()
    count = said.records if said.records is not None and said.records >= 0 else None
    return Header(count, "" if count is None else f"records: {count:,}", made and made.replace("+00:00", "Z"))


def read_header(data: bytes) -> Header:
    """The statements among the comments before the first entry, or those of a last line of JSON.

    A count that is stated twice with other numbers (one of each part, of each source) is none of the whole.
    """
    if data[:1] == b"{":
        return _read_trailer(data)
    counts: dict[int, str] = {}
    made = version = None
    for raw in data[:_HEAD].removeprefix(b"\xef\xbb\xbf").split(b"\n")[:_LINES]:
        line = raw.decode("utf-8", "replace").strip()
        comment = _COMMENT.match(line)
        if comment is None:
            if line and not line.startswith("["):  # `[Adblock Plus]`
                break
            continue
        text = comment[1]
        if match := _COUNT.match(text):
            digits = re.sub(r"[,.' ]", "", match[1])
            # Only thousands are separated: 1,5 is a number of another kind.
            if re.fullmatch(r"[0-9]+|[0-9]{1,3}(?:[,.' ][0-9]{3})+", match[1].strip()) and len(digits) < 12:
                counts[int(digits)] = text
        elif made is None and (match := _DATED.match(text)):
            made = read_date(match[1][:64])
        elif version is None and (match := _VERSION.match(text)):
            version = tuple(int(n) for n in re.findall(r"[0-9]+", match[1]))
    count, text = next(iter(counts.items())) if len(counts) == 1 else (None, "")
    return Header(count, text[:120], made, version)
