"""`format = "auto"`: which format do these bytes look like, and why?"""

from __future__ import annotations

import csv
import re
from typing import Any

import msgspec
import polars as pl

from blocklist.catalog import InputFormat

_INDICATOR = r"(?:[\w-]+\.)+[\w-]+|[0-9a-fA-F:.]*:[0-9a-fA-F:.]+"
# In the order of trial: the more particular syntax first. With each, how a person would write such a line.
_SHAPES = (
    ("unbound", r"^(?:local-zone|local-data):\s", "local-zone: …"),
    ("dnsmasq", r"^(?:address|server|local)=/", "address=/name/"),
    ("rpz", r"^\S*[ \t]+(?:[0-9]+[ \t]+)?(?:IN[ \t]+)?CNAME[ \t]+\S+$", "name CNAME ."),
    ("suricata", r"^(?:alert|drop|reject\w*|block|pass)[ \t].*\(.*\)$", "alert dns … (content:…)"),
    ("adblock", r"^(?:\|\||@@)", "||name^"),
    ("hosts", r"^(?:0\.0\.0\.0|127\.0\.0\.1|::1?)[ \t]+\S", "0.0.0.0 name"),
    ("jsonl", r"^\{.*\}$", "{…}"),
    ("dshield", r"^[0-9.]+[ \t]+[0-9.]+\t[0-9]+(?:\t|$)", "first address, last address, length"),
    ("urls", r"^[a-zA-Z]+://", "https://host/path"),
    ("wildcard", r"^\*?\.[^\s/]+$", "*.name"),
    ("scored", r"^[0-9a-zA-Z.:/_-]+[ \t]+[0-9]+$", "indicator, number"),
)
_MALTRAIL = rf"^(?:(?:{_INDICATOR})?/|[\w.-]+:[0-9]{{1,5}}$)"
# Keys and columns by which publishers call an indicator, the surest first.
_USUAL = (
    "indicator",
    "ioc",
    "ioc_value",
    "domain",
    "domain_name",
    "hostname",
    "fqdn",
    "url",
    "cidr",
    "ip",
    "ip_address",
    "ipaddress",
    "ipaddr",
    "ip_prefix",
    "ipv6_prefix",
    "ipv4prefix",
    "ipv6prefix",
    "dst_ip",
    "network",
    "host",
    "address",
    "value",
)
_SAMPLE = 2_000
_ROWS = 50
_CELL = re.compile(
    r"(?:[a-z][a-z0-9+.-]*://)?(?:[\w-]+\.)+(?:[a-z][\w-]+|[0-9]{1,3})(?::[0-9]+)?(?:/\S*)?|[0-9a-f]*:[0-9a-f:]+(?:/[0-9]+)?",
    re.I,
)


class Chosen(msgspec.Struct, frozen=True):
    """A format with the options it needs, and the reason in a sentence for a person."""

    spec: InputFormat
    why: str


def sniff(lines: pl.Series, comments: pl.Series) -> Chosen:
    """The line format whose shape more than half of a sample has; else a table, else plain lines.

    In: String, the first lines that are neither blank nor comments, with the white space before them; and those that
    are comments by some format.
    """
    sample = lines.head(_SAMPLE)
    bare = sample.str.strip_chars_start()
    count = len(sample)
    head = comments.head(200).str.to_lowercase()
    if head.str.contains("maltrail", literal=True).any():
        return Chosen(InputFormat(name="maltrail"), "its comments speak of Maltrail")
    for name, shape, example in _SHAPES:
        looks = int((sample if name == "rpz" else bare).str.contains(shape).sum())
        if looks * 2 > count:
            why = f"{looks:,} of the first {count:,} lines look like '{example}'"
            if name == "jsonl":
                return _keyed(bare, why)
            return Chosen(InputFormat(name=name), why)  # type: ignore[arg-type]
    if head.str.starts_with("[adblock").any():
        return Chosen(InputFormat(name="adblock"), "it begins with [Adblock …]")
    records = int(sample.str.contains(r"(?i)^\S*[ \t]+(?:[0-9]+[ \t]+)?(?:IN[ \t]+)?(?:SOA|NS|CNAME)[ \t]").sum())
    if sample.str.contains(r"^(?:\$TTL|\$ORIGIN)[ \t]").any() and records:
        return Chosen(InputFormat(name="rpz"), "it has $TTL or $ORIGIN and records like a zone file")
    if (table := _table(bare.head(_ROWS).to_list())) is not None:
        return table
    trails = int(bare.str.contains(_MALTRAIL).sum())
    if trails * 20 > count and not bare.str.contains(r"/[0-9]{1,3}$").any():
        return Chosen(
            InputFormat(name="maltrail"), f"{trails:,} of the first {count:,} lines look like 'address:port' or '/path'"
        )
    return Chosen(InputFormat(name="lines"), "no other format looks like its lines, so each is one indicator")


def _keyed(lines: pl.Series, why: str) -> Chosen:
    """JSON Lines with the keys that the first objects have."""
    found: list[str] = []
    for line in lines.head(_ROWS):
        try:
            found += msgspec.json.decode(line, type=dict[str, msgspec.Raw])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
    keys = _usual(found)
    if not keys:
        return Chosen(InputFormat(name="jsonl"), why)
    return Chosen(InputFormat(name="jsonl", value=list(keys)), f"{why}, with the key {_words(keys)}")


def _usual(names: list[str]) -> list[str]:
    """Those of `names` that publishers use for an indicator, of one kind: the surest, or the pair of two families."""
    known = [name for usual in _USUAL for name in dict.fromkeys(names) if name.strip().lower() == usual]
    pair = [name for name in known if "prefix" in name.lower()]
    return pair if pair and pair[0] == known[0] else known[:1]


def _words(keys: list[str]) -> str:
    return " or ".join(repr(key) for key in keys)


def _table(lines: list[str]) -> Chosen | None:
    """A table with one of the usual separators whose heading, or whose cells, tell the column of indicators."""
    for delimiter, word in ((",", "commas"), (";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        rows = [row for line in lines if delimiter in line and (row := _cells(line, delimiter))]
        if len(rows) * 10 < len(lines) * 9 or not rows:
            continue
        if keys := _usual(rows[0]):
            value = keys[0].strip()
            spec = InputFormat(name="csv", value=value, delimiter=delimiter)
            return Chosen(spec, f"its lines are cells between {word} and the heading has {value!r}")
        for column in range(max(map(len, rows))):
            cells = [row[column].strip() for row in rows if column < len(row)]
            if sum(_CELL.fullmatch(cell) is not None for cell in cells) * 10 > len(lines) * 8:
                spec = InputFormat(name="csv", value=column + 1, header=False, delimiter=delimiter)
                return Chosen(
                    spec, f"its lines are cells between {word}, of which the {column + 1}. look like indicators"
                )
    return None


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True, skipinitialspace=True), [])
    except csv.Error:
        return []


def sniff_document(data: bytes) -> Chosen | None:
    """The format of a document that is one value of JSON; None for anything else."""
    head = data[:65_536].lstrip()
    if head[:1] not in (b"{", b"["):
        return None
    try:
        if head[:1] == b"[":
            return _listed(msgspec.json.decode(data, type=list[msgspec.Raw]), [], "it is a JSON list")
        inside = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    kinds = {key: bytes(memoryview(value)[:1]) for key, value in inside.items()}
    if b"\n" not in data.strip() and not {b"[", b"{"} & set(kinds.values()):
        return None  # one object of plain values is one line of JSON Lines
    if "list" in inside:
        return Chosen(InputFormat(name="misp"), "it is a JSON object with a 'list', as MISP's warninglists are")
    if "objects" in inside and bytes(inside.get("type", msgspec.Raw())) == b'"bundle"':
        return Chosen(InputFormat(name="stix"), "it is a STIX bundle")
    if "Event" in inside or "Attribute" in inside:
        return Chosen(InputFormat(name="misp"), "it is a JSON object with MISP's attributes")
    lists = [key for key, kind in kinds.items() if kind == b"["]
    objects = [key for key, kind in kinds.items() if kind == b"{"]
    if inside and len(lists) == len(inside):
        return _listed(_some(inside[lists[0]]), [], "it is a JSON object of lists")
    if inside and len(objects) == len(inside):
        return _listed(list(inside.values())[:_ROWS], [], "it is a JSON object of objects")
    for key in lists:
        pointer = "/" + key.replace("~", "~0").replace("/", "~1")
        found = _listed(_some(inside[key]), [pointer], f"it is a JSON object with the list {key!r}")
        if found is not None:
            return found
    return None


def _some(value: msgspec.Raw) -> list[msgspec.Raw]:
    return msgspec.json.decode(value, type=list[msgspec.Raw])[:_ROWS]


def _listed(items: list[msgspec.Raw], pointer: list[str], why: str) -> Chosen | None:
    """The format `json` for these items; None where they are neither texts nor objects with a usual key."""
    keys: list[str] = []
    texts = 0
    for item in items[:_ROWS]:
        value: Any = msgspec.json.decode(item)
        texts += isinstance(value, str)
        keys += value if isinstance(value, dict) else []
    usual = _usual(keys)
    if not usual and not texts:
        return None
    options: dict[str, Any] = {"value": usual} if usual else {}
    if pointer:
        options["pointer"] = pointer[0]
    return Chosen(InputFormat(name="json", **options), f"{why}{f' of objects with {_words(usual)}' if usual else ''}")
