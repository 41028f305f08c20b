"""The rows for people as one Parquet file, for DuckDB, Spark and the like."""

from __future__ import annotations

import io
from collections import Counter
from typing import TYPE_CHECKING, Any

import polars as pl

from blocklist.publish.parts import Bytes, Part
from blocklist.publish.selection import Selection
from blocklist.publish.table import COLUMNS

if TYPE_CHECKING:
    from blocklist.publish.descriptor import Format


def parts(fmt: Format, selection: Selection, values: dict[str, Any], lost: Counter[str]) -> list[Part]:
    """The rows of `kinds`: columns as in the CSV, `feeds` a list of String. Binary: nothing in it is syntax."""
    rows = selection.rows.select(COLUMNS).filter(pl.col("kind").is_in(list(fmt.kinds)))
    out = io.BytesIO()
    rows.with_columns(pl.col("feeds").str.split(",")).write_parquet(out, compression="zstd", statistics=True)
    return [Bytes(out.getvalue(), records=rows.height, entries=rows.height)]
