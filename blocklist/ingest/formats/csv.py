"""Tables with a separator (RFC 4180 quoting, one record a line): columns by header or by number."""

from __future__ import annotations

import csv

import polars as pl

from blocklist.catalog import InputFormat
from blocklist.errors import FeedError
from blocklist.ingest.formats import JUDGED, OVERRIDES, Rows, percent
from blocklist.names import Reject

_HINT = 'set format = { name = "csv", value = "the column" }'


def parse(lines: pl.DataFrame, spec: InputFormat) -> Rows:
    """Rows of the table with `value` as text and the override columns that `spec` names.

    Each record is read alone, so that a quote that does not close costs its own line and numbers stay true.
    Raises FeedError when a named column is not there: the publisher changed the table.
    """
    if spec.value is None:
        raise FeedError("the feed does not say which column holds the indicator", hint=_HINT)
    names: list[str] | None = None
    body = lines
    if spec.header:
        names = _unique(_cells(lines["line"][0], spec.delimiter) or [])
        body = lines.slice(1)
    columns = {
        role: _index(column, names)
        for role in ("value", "scope", *JUDGED, *OVERRIDES)
        if (column := getattr(spec, role)) is not None
    }
    where = {_index(column, names): wanted for column, wanted in spec.where.items()}
    table = _read(body, spec.delimiter, sorted({*columns.values(), *where}))
    rejected = body.height - table.height
    value = str(columns["value"])
    if table.height and table[value].null_count() == table.height:
        raise FeedError(f"the table has no column {columns['value'] + 1} in any of its rows")
    readable = table.height
    for index, wanted in where.items():
        table = table.filter((pl.col(str(index)) == wanted).fill_null(False))
    selected = [pl.col("number"), pl.col(value).fill_null("").alias("text")]
    for role, index in columns.items():
        cell = pl.col(str(index)).replace("", None)
        if role == "confidence":
            selected.append(percent(cell).alias(role))
        elif role == "scope":
            selected.append((cell.str.to_lowercase() == "subtree").fill_null(False).alias("subtree"))
        elif role != "value":
            selected.append(cell.alias(role))
    # Rows that `where` leaves out are the feed's own comments, so that every line is accounted for.
    comments = lines.height - body.height + readable - table.height
    return Rows(table.select(selected), {Reject.SYNTAX: rejected} if rejected else {}, comments=comments)


def _read(lines: pl.DataFrame, delimiter: str, wanted: list[int]) -> pl.DataFrame:
    """`number` and the `wanted` cells, stripped, each column named by its index; null where a record ends before.

    Records that can't be read are left out.
    """
    quoted = lines["line"].str.contains('"', literal=True)
    cells = pl.col("line").str.splitn(delimiter, max(wanted) + 2)
    table = lines.filter(~quoted).select("number", *(cells.struct.field(f"field_{i}").alias(str(i)) for i in wanted))
    if quoted.any():
        rows = []
        for number, line in lines.filter(quoted).select("number", "line").iter_rows():
            if (record := _cells(line, delimiter)) is not None:
                rows.append((number, *(record[i] if i < len(record) else None for i in wanted)))
        table = pl.concat([table, pl.DataFrame(rows, schema=table.schema, orient="row")])
    return table.with_columns(pl.col(pl.String).str.strip_chars())


def _cells(line: str, delimiter: str) -> list[str] | None:
    """The cells of one record; None where its quotes don't close or stand in the wrong place."""
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True, skipinitialspace=True))
    except csv.Error:
        return None


def _unique(header: list[str]) -> list[str]:
    """Header cells as distinct column names; a repeated one is only reachable by number."""
    seen: set[str] = set()
    out = []
    for i, cell in enumerate(header):
        name = cell.strip().lower()
        unique = name if name and name not in seen else f"\0{i + 1}"
        seen.add(unique)
        out.append(unique)
    return out


def _index(column: str | int, names: list[str] | None) -> int:
    """Where `column` stands, from 0."""
    if isinstance(column, int):
        if column >= 1 and (names is None or column <= len(names)):
            return column - 1
        raise FeedError(f"the table has {len(names or ())} columns and no column {column}")
    wanted = column.strip().lower()
    if names is None or wanted not in names:
        known = ", ".join(n for n in (names or ())[:12] if not n.startswith("\0"))
        raise FeedError(
            f"the table has no column {column!r} (its header: {known[:200]!r})",
            hint="the publisher may have changed the table; compare the feed's format options",
        )
    return names.index(wanted)
