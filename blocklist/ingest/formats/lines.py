"""Plain lists: one name, address, network or URL a line, text after white space and `#` or `;` is a comment."""

from __future__ import annotations

import polars as pl

from blocklist.catalog import InputFormat
from blocklist.ingest.formats import Rows


def parse(lines: pl.DataFrame, spec: InputFormat) -> Rows:
    """The first token of each line; a second one that is no comment is left for the normaliser to refuse."""
    line = pl.col("line")
    return Rows(lines.select("number", without_comment(lines["line"], line).alias("text")))


def without_comment(series: pl.Series, line: pl.Expr) -> pl.Expr:
    """`line` up to white space followed by `#` or `;`.

    Most feeds have none: one cheap literal search decides whether the costly replacement runs at all.
    """
    if not series.str.contains_any([" #", "\t#", " ;", "\t;"]).any():
        return line
    return line.str.replace(r"[ \t]+[#;].*$", "")
