"""Maltrail trails: domains, addresses, `address:port`, `host/path` and bare paths, under comments that say whence.

Source: the sensor of stamparm/maltrail, which looks for a name and for each of its parents. A path without a host
names nothing that could be blocked and is unsupported. Comments that follow one another head the trails below them;
the first `# Reference: URL` among them is those trails' reference. `# Aliases:`, `# Note:` and the like say nothing of
a trail, and a head without a reference (`# Generic`) ends that of the trails above it.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from blocklist.catalog import InputFormat
from blocklist.ingest.formats import Rows
from blocklist.ingest.formats.lines import without_comment
from blocklist.ingest.formats.urls import with_scheme

# The lists are kept by hand: `Referecne:` and `Refeerence:` stand in them as well.
_REFERENCE = r"(?i)^#[ \t]*Ref[a-z]{4,8}:.*?(https?://\S+)"


@dataclass
class Reader:
    """One file: its last reference holds from one block of lines to the next."""

    reference: str | None = None
    # Whether the last line was a comment, whose head the next one may go on with.
    heading: bool = False

    def parse(self, lines: pl.DataFrame, spec: InputFormat) -> Rows:
        """One row a trail, with `reference`; the port of an address or name is dropped, a path makes it a URL."""
        comment = lines["line"].str.starts_with("#")
        trails = lines.filter(~comment)
        reference = self._references(lines.filter(comment), trails["number"])
        text = without_comment(trails["line"], pl.col("line"))
        rows = trails.select("number", text.alias("text"))
        if reference is not None:
            rows = rows.with_columns(reference)
        return Rows(with_scheme(rows), comments=lines.height - trails.height)

    def _references(self, comments: pl.DataFrame, trails: pl.Series) -> pl.Series | None:
        """The `reference` of each line in `trails` (numbers), under the comments above it; None where none has one."""
        heads = comments.select(
            pl.lit(trails.search_sorted(comments["number"])).alias("at"),
            pl.col("line").str.extract(_REFERENCE).alias("reference"),
        )
        if self.heading or heads.is_empty() or heads["at"][0] > 0:
            before = pl.DataFrame({"at": [0], "reference": [self.reference]}, schema=heads.schema)
            heads = pl.concat([before, heads])
        heads = heads.group_by("at", maintain_order=True).agg(pl.col("reference").drop_nulls().first())
        self.reference = heads["reference"][-1]
        self.heading = heads["at"][-1] == len(trails)
        if heads["reference"].null_count() == heads.height:
            return None
        # How many trails stand under each head.
        under = heads["at"].shift(-1, fill_value=len(trails)) - heads["at"]
        return heads.select(pl.col("reference").repeat_by(under).explode())["reference"]
