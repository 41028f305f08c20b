"""dnsmasq lines that block: `address=/name/#`, `server=/name/`, `local=/name/` (dnsmasq(8)); several names a line."""

from __future__ import annotations

import polars as pl

from blocklist.catalog import InputFormat
from blocklist.ingest.formats import Rows
from blocklist.ingest.formats.lines import without_comment
from blocklist.ingest.formats.wildcard import below
from blocklist.ingest.refused import refused
from blocklist.names import Reject

# The target after the last slash must be one that blocks; any other address redirects the names.
_BLOCKS = r"^(?:address|server|local)=/.+/(?:#|0\.0\.0\.0|127\.0\.0\.1|::1?)?$"
_ONE = r"^[a-z]+=/|/[^/]*$"


def parse(lines: pl.DataFrame, spec: InputFormat) -> Rows:
    """One row a name, each with everything below it. `server=/name/#` (use the usual servers) is unsupported."""
    line = pl.col("line")
    frame = lines.select("number", without_comment(lines["line"], line).alias("line"))
    blocks = frame.select(_blocks(line)).to_series()
    names = frame.filter(blocks).select("number", line.str.replace_all(_ONE, "").alias("text"))
    if names["text"].str.contains("/", literal=True).any():
        names = names.with_columns(pl.col("text").str.split("/")).explode("text")
    rows = names.with_columns(below(pl.col("text")), subtree=pl.lit(True))
    return Rows(rows, refused(Reject.UNSUPPORTED, frame, ~blocks))


def plain(line: pl.Expr, spec: InputFormat) -> list[pl.Expr]:
    """The one name of a line."""
    name = line.str.replace_all(_ONE, "")
    one = _blocks(line) & ~name.str.contains("/", literal=True)
    return [pl.when(one).then(below(name)).alias("text")]


def _blocks(line: pl.Expr) -> pl.Expr:
    return line.str.contains(_BLOCKS) & ~(line.str.ends_with("/#") & line.str.starts_with("server="))
