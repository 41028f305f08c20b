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
_LETTERS = r"^[^/:]*[a-z][^/:]*$"
_CLAUSE = r"^(?:server:|forward-zone:|local-data(?:-ptr)?:.*)$"


def parse(lines: pl.DataFrame, spec: InputFormat) -> Rows:
    """Names of zones that refuse; `local-data` beside them and section headers count as comments."""
    frame = lines.select("number", without_comment(lines["line"], pl.col("line")).alias("line"))
    line = pl.col("line")
    zone = frame["line"].str.contains(_ZONE)
    clause = frame["line"].str.contains(_CLAUSE)
    rows = frame.filter(zone).select("number", _name(line).alias("text"), pl.lit(True).alias("subtree"))
    return Rows(rows, refused(Reject.UNSUPPORTED, frame, ~(zone | clause)), comments=int((clause & ~zone).sum()))


def plain(line: pl.Expr, spec: InputFormat) -> list[pl.Expr]:
    """The name of a zone that refuses, without its last dot, which would be wrong in an address."""
    name = _name(line)
    named = line.str.contains(_ZONE) & name.str.contains(_LETTERS)
    return [pl.when(named).then(name.str.strip_suffix(".")).alias("text")]


def _name(line: pl.Expr) -> pl.Expr:
    name = line.str.strip_prefix("local-zone:").str.replace_all("\t", " ", literal=True).str.strip_chars_start(' "')
    return name.str.splitn(" ", 2).struct.field("field_0").str.strip_suffix('"')
