"""Tables with a separator (RFC 4180 quoting, one record a line): columns by header or by number."""

from __future__ import annotations

import io

import polars as pl

from blocklist.catalog import InputFormat
from blocklist.errors import FeedError
from blocklist.ingest.formats import OVERRIDES, Rows
from blocklist.names import Reject


def parse(lines: pl.DataFrame, spec: InputFormat) -> Rows:
    """Rows of the table with `value` as text and the override columns that `spec` names.

    A record that spans lines is refused line by line (its quotes do not close), so that numbers stay true.
    Raises FeedError when a named column is not there: the publisher changed the table.
    """
    # Quotes that do not close would make the reader swallow the lines below.
    closed = lines["line"].str.count_matches('"', literal=True) % 2 == 0
    rejected = lines.height - int(closed.sum())
    lines = lines.filter(closed)
    if lines.is_empty():
        return Rows(pl.DataFrame(schema={"number": pl.UInt32, "text": pl.String}), _count(rejected))
    body = "\n".join(lines["line"].to_list())
    table = pl.read_csv(
        io.BytesIO(body.encode()),
        has_header=False,
        separator=spec.delimiter,
        infer_schema=False,
        truncate_ragged_lines=True,
    )
    if table.height != lines.height:
        raise FeedError(f"the table reads as {table.height:,} records in {lines.height:,} lines")
    names = [str(i + 1) for i in range(table.width)]
    header = 0
    if spec.header:
        names = _unique([str(v or "").strip().lower() for v in table.row(0)])
        header = 1
    table.columns = names
    table = table.with_columns(lines["number"].alias("\0number")).slice(header)
    for column, wanted in spec.where.items():
        table = table.filter(pl.col(_find(column, names)).str.strip_chars() == wanted)
    selected = [
        pl.col("\0number").alias("number"),
        pl.col(_find(spec.value, names)).str.strip_chars().alias("text"),
    ]
    for override in OVERRIDES:
        if (column_ref := getattr(spec, override)) is not None:
            value = pl.col(_find(column_ref, names)).str.strip_chars().replace("", None)
            if override == "confidence":
                value = value.cast(pl.Float64, strict=False).clip(0, 100).cast(pl.UInt8, strict=False)
            selected.append(value.alias(override))
    if spec.scope is not None:
        scope = pl.col(_find(spec.scope, names)).str.strip_chars().str.to_lowercase()
        selected.append((scope == "subtree").alias("subtree"))
    # Rows that `where` leaves out are the feed's own comments, so that every line is accounted for.
    left_out = lines.height - header - table.height
    return Rows(table.select(selected), _count(rejected), comments=header + left_out)


def _count(rejected: int) -> dict[Reject, int]:
    return {Reject.SYNTAX: rejected} if rejected else {}


def _unique(names: list[str]) -> list[str]:
    """Header cells as distinct column names; a repeated one is only reachable by number."""
    seen: set[str] = set()
    out = []
    for i, name in enumerate(names):
        unique = name if name and name not in seen else f"\0{i + 1}"
        seen.add(unique)
        out.append(unique)
    return out


def _find(column: str | int | None, names: list[str]) -> str:
    if isinstance(column, int):
        if 1 <= column <= len(names):
            return names[column - 1]
        raise FeedError(f"the table has {len(names)} columns and no column {column}")
    wanted = str(column).strip().lower()
    if wanted not in names:
        known = ", ".join(n for n in names[:12] if not n.startswith("\0"))
        raise FeedError(
            f"the table has no column {column!r} (its header: {known[:200]!r})",
            hint="the publisher may have changed the table; compare the feed's format options",
        )
    return wanted
