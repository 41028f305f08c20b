"""Tables with a separator (RFC 4180 quoting, one record a line): columns by header or by number.

The separator is any character, a blank for any run of white space; cells may stand in quotes of any kind or of none.
"""

from __future__ import annotations

import csv
import re

import polars as pl

from blocklist.catalog import InputFormat
from blocklist.errors import FeedError
from blocklist.ingest.formats import JUDGED, OVERRIDES, Rows, percent
from blocklist.ingest.refused import Refused
from blocklist.names import Reject

# ASCII's own separator of units stands between cells while quotes are taken off.
_CELL = "\x1f"
_HINT = 'set format = { name = "csv", value = "the column" }'


def parse(lines: pl.DataFrame, spec: InputFormat) -> Rows:
    """Rows of the table with `value` as text and the override columns that `spec` names.

    Each record is read alone, so that a quote that does not close costs its own line and numbers stay true. With
    several columns in `value` the first that is filled holds. Raises FeedError when a named column is not there: the
    publisher changed the table.
    """
    if spec.value is None:
        raise FeedError("the feed does not say which column holds the indicator", hint=_HINT)
    names: list[str] | None = None
    body = lines
    if spec.header:
        names = _unique(_cells(lines["line"][0], spec) or [])
        body = lines.slice(1)
    values = [_index(column, names) for column in spec.values]
    columns = {
        role: _index(column, names)
        for role in ("scope", *JUDGED, *OVERRIDES)
        if (column := getattr(spec, role)) is not None
    }
    where = {_index(column, names): spec.accepted(column) for column in spec.where}
    table = _read(body, spec, sorted({*values, *columns.values(), *where}))
    rejects = Refused()
    if table.height < body.height:
        rejects.refuse(Reject.SYNTAX, body["number"].filter(~body["number"].is_in(table["number"].implode())))
    if table.height and all(table[str(value)].null_count() == table.height for value in values):
        raise FeedError(f"the table has no column {values[0] + 1} in any of its rows")
    readable = table.height
    for index, wanted in where.items():
        table = table.filter(pl.col(str(index)).is_in(wanted).fill_null(False))
    text = pl.coalesce(*(pl.col(str(value)).replace("", None) for value in values), pl.lit(""))
    selected = [pl.col("number"), text.alias("text")]
    for role, index in columns.items():
        cell = pl.col(str(index)).replace("", None)
        if role == "confidence":
            selected.append(percent(cell).alias(role))
        elif role == "scope":
            selected.append((cell.str.to_lowercase() == "subtree").fill_null(False).alias("subtree"))
        else:
            selected.append(cell.alias(role))
    # Rows that `where` leaves out are the feed's own comments, so that every line is accounted for.
    comments = lines.height - body.height + readable - table.height
    return Rows(table.select(selected), rejects, comments=comments)


def _read(lines: pl.DataFrame, spec: InputFormat, wanted: list[int]) -> pl.DataFrame:
    """`number` and the `wanted` cells, stripped, each column named by its index; null where a record ends before.

    Records that can't be read are left out.
    """
    delimiter = spec.delimiter
    if delimiter == " ":
        # Columns that are set with blanks: any run of white space is one separator.
        lines = lines.with_columns(pl.col("line").str.replace_all(r"[ \t]+", " "))
    if not spec.quote or not lines["line"].str.contains(spec.quote, literal=True).any():
        table = _split(lines, delimiter, wanted)
    else:
        quoted = lines["line"].str.contains(spec.quote, literal=True)
        parts = [_split(lines.filter(~quoted), delimiter, wanted)]
        # Cells between quotes without quotes in them, in columns; what that leaves quotes in, record by record.
        q, d = re.escape(spec.quote), re.escape(delimiter)
        cells = rf"[ \t]*(?:{q}([^{q}{_CELL}]*){q}[ \t]*|([^{q}{d}{_CELL}]*))(?:{d}|$)"
        plain = lines.filter(quoted).with_columns(
            pl.col("line").str.replace_all(cells, f"${{1}}${{2}}{_CELL}").alias("cells")
        )
        odd = plain["cells"].str.contains(spec.quote, literal=True) | plain["line"].str.contains(_CELL, literal=True)
        usual = plain.filter(~odd).select("number", pl.col("cells").alias("line"))
        parts.append(_split(usual, _CELL, wanted))
        if odd.any():
            rows = []
            for number, line in plain.filter(odd).select("number", "line").iter_rows():
                if (record := _cells(line, spec)) is not None:
                    rows.append((number, *(record[i] if i < len(record) else None for i in wanted)))
            parts.append(pl.DataFrame(rows, schema=parts[0].schema, orient="row"))
        table = pl.concat(parts)
    return table.with_columns(pl.col(pl.String).str.strip_chars())


def _split(lines: pl.DataFrame, delimiter: str, wanted: list[int]) -> pl.DataFrame:
    """Lines without quotes as `number` and the `wanted` cells."""
    cells = pl.col("line").str.splitn(delimiter, max(wanted) + 2)
    return lines.select("number", *(cells.struct.field(f"field_{i}").alias(str(i)) for i in wanted))


def _cells(line: str, spec: InputFormat) -> list[str] | None:
    """The cells of one record; None where its quotes don't close or stand in the wrong place."""
    try:
        reader = csv.reader(
            [line],
            delimiter=spec.delimiter,
            quotechar=spec.quote or None,
            quoting=csv.QUOTE_MINIMAL if spec.quote else csv.QUOTE_NONE,
            strict=True,
            skipinitialspace=True,
        )
        return next(reader)
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
    """Where `column` stands, from 0. Without a heading, a key of `where` is a number in quotes."""
    if names is None and isinstance(column, str) and column.isdecimal():
        column = int(column)
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
