"""Maltrail trails: domains, addresses, `address:port`, `host/path` and bare paths, with `#` comments.

Source: the sensor of stamparm/maltrail, which looks for a name and for each of its parents. A path without a host
names nothing that could be blocked and is unsupported.
"""

from __future__ import annotations

import polars as pl

from blocklist.catalog import InputFormat
from blocklist.ingest.formats import Rows
from blocklist.ingest.formats.lines import without_comment
from blocklist.ingest.formats.urls import with_scheme


def parse(lines: pl.DataFrame, spec: InputFormat) -> Rows:
    """One row a trail; the port of an address or name is dropped, a path makes it a URL."""
    text = without_comment(lines["line"], pl.col("line"))
    return Rows(with_scheme(lines.select("number", text.alias("text"))))
