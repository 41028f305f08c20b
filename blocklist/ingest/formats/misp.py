"""MISP warninglists: one JSON object with `list` (and `type`: hostname, cidr, string) — the form of reference feeds."""

from __future__ import annotations

import re

import msgspec
import polars as pl

from blocklist.catalog import InputFormat
from blocklist.errors import FeedError
from blocklist.ingest.formats import Rows


class _Warninglist(msgspec.Struct):
    items: list[str] = msgspec.field(name="list")


def parse(data: bytes, spec: InputFormat) -> Rows:
    """One row an item of `list`; `number` is the line of the file on which the item stands.

    Publishers print one item a line; where they do not, the number is the item's position. A leading dot
    (`.dyndns.example`) is dropped. Raises FeedError when the document is something else.
    """
    try:
        items = msgspec.json.decode(data, type=_Warninglist).items
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FeedError(f"not a MISP warninglist: {error}") from None
    raw = pl.Series("text", items, dtype=pl.String)
    start = _first_line(data, raw)
    number = pl.int_range(start, start + len(items), dtype=pl.UInt32, eager=True).alias("number")
    rows = pl.DataFrame([number, raw.str.strip_chars().str.strip_prefix(".")])
    return Rows(rows.filter(pl.col("text") != ""))


def _first_line(data: bytes, items: pl.Series) -> int:
    """The line of the first item where every item has a line of its own, else 1."""
    key = re.search(rb'"list"\s*:\s*\[\s*', data)
    if key is None:
        return 1
    first = data.count(b"\n", 0, key.end()) + 1
    lines = data[key.end() :].decode().split("\n", items.len())[: items.len()]
    if len(lines) < items.len():
        return 1
    shown = pl.Series(lines, dtype=pl.String).str.strip_chars(" \t\r]},").str.strip_prefix('"').str.strip_suffix('"')
    escaped = shown.str.contains("\\", literal=True)
    return first if ((shown == items) | escaped).all() else 1
