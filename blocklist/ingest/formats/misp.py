"""MISP warninglists: one JSON object with `list` (and `type`: hostname, cidr, string) — the form of reference feeds."""

from __future__ import annotations

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
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FeedError(f"not a MISP warninglist: {error}") from None
    text = pl.Series("text", items, dtype=pl.String).str.strip_chars().str.strip_prefix(".")
    first = data.find(b'"list"')
    offset = data.count(b"\n", 0, first) + 2 if first >= 0 else 1
    one_a_line = data.count(b"\n") >= len(items)
    start = offset if one_a_line else 1
    number = pl.int_range(start, start + len(items), dtype=pl.UInt32, eager=True).alias("number")
    return Rows(pl.DataFrame([number, text]).filter(pl.col("text") != ""))
