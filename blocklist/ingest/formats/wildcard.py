"""Wildcard lists: `*.name` or `.name` is the name and all below it, a bare name likewise (dnscrypt, YogaDNS)."""

from __future__ import annotations

import polars as pl

from blocklist.catalog import InputFormat
from blocklist.ingest.formats import Rows
from blocklist.ingest.formats.lines import without_comment


def below(text: pl.Expr) -> pl.Expr:
    """`text` without one leading `*.` or dot; `*name` is a pattern and left for the normaliser to refuse."""
    return pl.when(text.str.starts_with("*")).then(text.str.strip_prefix("*.")).otherwise(text.str.strip_prefix("."))


def parse(lines: pl.DataFrame, spec: InputFormat) -> Rows:
    """The name without its leading `*.` or dot."""
    text = below(without_comment(lines["line"], pl.col("line")))
    return Rows(lines.select("number", text.alias("text"), pl.lit(True).alias("subtree")))


def plain(line: pl.Expr, spec: InputFormat) -> list[pl.Expr]:
    return [below(line).alias("text")]
