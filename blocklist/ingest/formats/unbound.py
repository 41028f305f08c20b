"""Unbound configuration that blocks: `local-zone: "name." type` (unbound.conf(5)), name and all below."""

from __future__ import annotations

import polars as pl

from blocklist.catalog import InputFormat
from blocklist.ingest.formats import Rows
from blocklist.ingest.formats.lines import without_comment
from blocklist.ingest.refused import refused
from blocklist.names import Reject

_ZONE = (
    r'^local-zone:[ \t]*"?[^"\s]+"?[ \t]+"?'
    r"(?:always_null|always_nxdomain|always_nodata|always_refuse|always_deny|static|refuse|deny|redirect|inform_deny)"
    r'"?$'
)
_CLAUSE = r"^(?:server:|forward-zone:|local-data(?:-ptr)?:.*)$"


def parse(lines: pl.DataFrame, spec: InputFormat) -> Rows:
    """Names of zones that refuse; `local-data` beside them and section headers count as comments."""
    frame = lines.select("number", without_comment(lines["line"], pl.col("line")).alias("line"))
    line = pl.col("line")
    zone = frame["line"].str.contains(_ZONE)
    clause = frame["line"].str.contains(_CLAUSE)
    name = line.str.strip_prefix("local-zone:").str.replace_all("\t", " ", literal=True).str.strip_chars_start(' "')
    text = name.str.splitn(" ", 2).struct.field("field_0").str.strip_suffix('"')
    rows = frame.filter(zone).select("number", text.alias("text"), pl.lit(True).alias("subtree"))
    return Rows(rows, refused(Reject.UNSUPPORTED, frame, ~(zone | clause)), comments=int((clause & ~zone).sum()))
