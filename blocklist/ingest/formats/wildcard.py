"""Wildcard lists: `*.name` or `.name` is the name and all below it, a bare name likewise (dnscrypt, YogaDNS)."""

from __future__ import annotations

import polars as pl

from blocklist.catalog import InputFormat
from blocklist.ingest.formats import Rows
from blocklist.ingest.formats.lines import without_comment


def parse(lines: pl.DataFrame, spec: InputFormat) -> Rows:
    """The name without its leading `*.` or dot."""
    text = without_comment(lines["line"], pl.col("line")).str.strip_prefix("*").str.strip_prefix(".")
    return Rows(lines.select("number", text.alias("text"), pl.lit(True).alias("subtree")))
