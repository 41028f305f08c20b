"""Lists of URLs, one a line; `host/path` without a scheme is one too, and a bare host stands for itself."""

from __future__ import annotations

import polars as pl

from blocklist.catalog import InputFormat
from blocklist.ingest.formats import Rows
from blocklist.ingest.formats.lines import bare, plain
from blocklist.ingest.formats.ports import without_port

__all__ = ["parse", "plain", "with_scheme"]

# A slash that begins a path, not the length of a network.
_PATH = r"^[^/\s]+/(?:[^0-9]|$|[0-9]+[^0-9])"


def parse(lines: pl.DataFrame, spec: InputFormat) -> Rows:
    """One row a line, with a scheme where it has a path and none."""
    return Rows(with_scheme(lines.select("number", bare(lines["line"], pl.col("line")).alias("text"))))


def with_scheme(rows: pl.DataFrame) -> pl.DataFrame:
    """`host/path` in `text` as `http://host/path`, `host:port` as the host; other rows as they are."""
    text = pl.col("text")
    # Most rows of most lists are plain names, which no pattern need look at.
    odd = rows["text"].str.contains_any(["/", ":"]) & ~rows["text"].str.contains("://", literal=True)
    if not odd.any():
        return rows
    rest = rows.filter(odd)
    path = rest["text"].str.contains(_PATH)
    named = rest.filter(path).with_columns(("http://" + text).alias("text"))
    alone = rest.filter(~path).with_columns(without_port(text))
    return pl.concat([rows.filter(~odd), named, alone], rechunk=True)
