"""DShield's block list: a table with tabs of first address, last address, prefix length and facts for people."""

from __future__ import annotations

import polars as pl

from blocklist.catalog import InputFormat
from blocklist.ingest.formats import Rows
from blocklist.ingest.refused import refused
from blocklist.names import Reject

_LENGTH = r"^[0-9]{1,3}$"


def parse(lines: pl.DataFrame, spec: InputFormat) -> Rows:
    """The network of each row; where the prefix length is missing, the range. The row of headings is a comment."""
    cells = pl.col("line").str.splitn("\t", 4)
    start, end, length = (cells.struct.field(f"field_{i}").str.strip_chars().fill_null("") for i in range(3))
    frame = lines.select("number", start.alias("start"), end.alias("end"), length.alias("length"))
    heading = frame["start"].str.to_lowercase() == "start"
    lone = ~heading & (frame["end"] == "")
    rows = frame.filter(~heading & ~lone).select(
        "number",
        pl.when(pl.col("length").str.contains(_LENGTH))
        .then(pl.col("start") + "/" + pl.col("length"))
        .otherwise(pl.col("start") + "-" + pl.col("end"))
        .alias("text"),
    )
    return Rows(rows, refused(Reject.SYNTAX, frame, lone), comments=int(heading.sum()))
