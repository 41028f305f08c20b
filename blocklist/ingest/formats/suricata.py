"""Suricata and Snort rules that name a host: addresses of their heading, names that they look for in DNS, TLS and HTTP.

A rule lists an address only when nothing else narrows it, and a name only when its match ends where the name ends
(`endswith`, `bsize`, `depth` of its length, `isdataat:!1`): what merely contains a text names no host. `pass` rules
and negated parts never list. `msg` and `sid` become the reason, `reference:url` the reference. Rules are few and long,
so they are read one by one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import polars as pl

from blocklist.catalog import InputFormat
from blocklist.ingest.formats import Rows
from blocklist.ingest.refused import Refused
from blocklist.names import Reject

_RULE = re.compile(
    r"(alert|drop|reject\w*|block|sdrop)\s+\S+\s+(\[[^\]]*\]|\S+)\s+(?:\[[^\]]*\]|\S+)\s+(?:->|<>|=>)\s+"
    r"(\[[^\]]*\]|\S+)\s+(?:\[[^\]]*\]|\S+)\s*\((.*)\)\s*"
)
_OPTION = re.compile(r'\s*([\w.-]+)\s*(?::\s*((?:"(?:[^"\\]|\\.)*"|\\.|[^;"\\])*))?;')
# Python's `int` and `isdecimal` strip and take more than a rule may hold.
_NUMBER = re.compile(r" *[0-9]{1,9} *")
_ADDRESS = re.compile(r"[0-9.]+(?:/[0-9]+)?|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*(?:/[0-9]+)?")
_NAMES = frozenset(
    {"dns.query", "dns_query", "tls.sni", "tls_sni", "http.host", "http_host", "http.host.raw", "quic.sni"}
)
# Modifiers of Snort 2 stand behind the content that they send to a buffer.
_BEHIND = frozenset({"http_host", "tls_sni", "dns_query"})
_BUFFER = re.compile(
    r"(?:[a-z0-9]+\.[a-z0-9_.]+|file_data|pkt_data|[a-z]+_(?:query|sni|uri|header|body|host|cookie|method))"
)


@dataclass
class _Content:
    """One `content` of a rule: where it looks, and whether it ends where the buffer ends."""

    text: str
    buffer: str
    negated: bool
    begins: bool = False
    ends: bool = False
    dotted: bool = False
    numbers: dict[str, int] = field(default_factory=dict)


def parse(lines: pl.DataFrame, spec: InputFormat) -> Rows:
    """One row an address or name, with `reason` and `reference`; rules that name no host are unsupported."""
    rows: list[tuple[int, str, bool, str | None, str | None]] = []
    unread: list[int] = []
    unsupported: list[int] = []
    for number, line in lines.select("number", "line").iter_rows():
        rule = _RULE.fullmatch(line)
        if rule is None:
            (unsupported if line.startswith("pass ") else unread).append(number)
            continue
        options = _OPTION.findall(rule[4])
        found = _names(options)
        if not any(name in ("content", "pcre", "uricontent") for name, _ in options):
            found += [(address, False) for part in (rule[2], rule[3]) for address in _addresses(part)]
        if not found:
            unsupported.append(number)
        reason, reference = _reason(options)
        rows += [(number, text, subtree, reason, reference) for text, subtree in dict.fromkeys(found)]
    rejects = Refused()
    rejects.refuse(Reject.SYNTAX, pl.Series(unread, dtype=pl.UInt32))
    rejects.refuse(Reject.UNSUPPORTED, pl.Series(unsupported, dtype=pl.UInt32))
    schema = {
        "number": pl.UInt32,
        "text": pl.String,
        "subtree": pl.Boolean,
        "reason": pl.String,
        "reference": pl.String,
    }
    return Rows(pl.DataFrame(rows, schema=schema, orient="row"), rejects)


def _addresses(part: str) -> list[str]:
    """The addresses of one side of the heading; none when any of it is negated."""
    if "!" in part:
        return []
    return [item for item in re.split(r"[\[\],\s]+", part) if _ADDRESS.fullmatch(item)]


def _names(options: list[tuple[str, str]]) -> list[tuple[str, bool]]:
    """`(name, and everything below it?)` where all that the rule looks for is names."""
    contents: list[_Content] = []
    buffer, dotted = "", False
    for name, value in options:
        if name == "content":
            text = value.strip()
            negated = text.startswith("!")
            contents.append(_Content(_plain(text.lstrip("! ")), buffer, negated, dotted=dotted))
        elif name == "dotprefix":
            dotted = True
        elif name in _BEHIND and contents and contents[-1].buffer == "":
            contents[-1].buffer = name
        elif _BUFFER.fullmatch(name):
            buffer, dotted = name, False
        elif contents:
            last = contents[-1]
            last.begins |= name == "startswith"
            last.ends |= name == "endswith" or (name == "isdataat" and value.replace(" ", "").startswith("!1"))
            if name in ("depth", "bsize", "offset") and _NUMBER.fullmatch(value):
                last.numbers[name] = int(value)
        if name in ("pcre", "uricontent"):
            return []
    names = []
    for one in contents:
        if one.negated or one.buffer not in _NAMES:
            return []
        whole = one.numbers.get("bsize") == len(one.text)
        starts = whole or one.begins or (one.numbers.get("depth") == len(one.text) and not one.numbers.get("offset"))
        if not (one.ends or whole):
            return []
        # `.evil.example` at the end: everything below; with the dot put before the buffer, the name as well.
        below = one.text.startswith(".") or not starts
        names.append((one.text.removeprefix("."), below))
    return names


def _plain(text: str) -> str:
    """The text of a content: `|2e|` is a byte in hexadecimal, a backslash lets the next character stand for itself."""
    inside = text.removeprefix('"').removesuffix('"')
    inside = re.sub(
        r"\|([0-9A-Fa-f\s]+)\|",
        lambda m: bytes.fromhex(m[1]).decode("latin-1") if len(re.sub(r"\s", "", m[1])) % 2 == 0 else m[0],
        inside,
    )
    return re.sub(r"\\(.)", r"\1", inside)


def _reason(options: list[tuple[str, str]]) -> tuple[str | None, str | None]:
    """What the rule says of itself, with its number; and the first page that it refers to."""
    said = {name: value.strip() for name, value in reversed(options) if name in ("msg", "sid")}
    message = re.sub(r"\\(.)", r"\1", said.get("msg", "").removeprefix('"').removesuffix('"'))
    number = f"sid {said['sid']}" if "sid" in said else ""
    reason = f"{message} ({number})" if message and number else message or number
    page = next(
        (v.partition(",")[2].strip() for n, v in options if n == "reference" and v.strip().startswith("url,")), ""
    )
    # Suricata's reference.config: `url` stands for http://.
    return reason or None, (page if "://" in page else f"http://{page}") if page else None
