"""Tables with a separator (RFC 4180 quoting): columns by header or by number.

The separator is any character, a blank for any run of white space; cells may stand in quotes of any kind or of none.
A record may go on over line ends in a quoted cell; it has the number of its first line.
"""

from __future__ import annotations

import csv
import re
from bisect import bisect_right

import polars as pl

from blocklist.catalog import InputFormat
from blocklist.errors import FeedError
from blocklist.ingest.formats import JUDGED, OVERRIDES, Rows, percent
from blocklist.ingest.refused import Refused
from blocklist.names import Reject

# ASCII's own separator of units stands between cells while quotes are taken off.
_CELL = "\x1f"
# Prose in a cell is shorter; a quote that does not close within these costs its own line alone.
_MOST_LINES = 100
_HINT = 'set format = { name = "csv", value = "the column" }'


def parse(lines: pl.DataFrame, spec: InputFormat) -> Rows:
    """Rows of the table with `value` as text and the override columns that `spec` names.

    Each line is read alone, so that numbers stay true, and those after it are only asked where its last quote is open.
    Lines that a record goes on over are counted among the comments. With several columns in `value` the first that is
    filled holds. Raises FeedError when a named column is not there: the publisher changed the table.
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
    table, more = _read(body, spec, sorted({*values, *columns.values(), *where}))
    rejects = Refused()
    if table.height + len(more) < body.height:
        known = pl.concat([table["number"], more])
        rejects.refuse(Reject.SYNTAX, body["number"].filter(~body["number"].is_in(known.implode())))
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
    comments = lines.height - body.height + len(more) + readable - table.height
    return Rows(table.select(selected), rejects, comments=comments)


def _read(lines: pl.DataFrame, spec: InputFormat, wanted: list[int]) -> tuple[pl.DataFrame, pl.Series]:
    """`number` and the `wanted` cells, stripped, each column named by its index; null where a record ends before.

    Records that can't be read are left out. With them the numbers of lines that belong to a record above.
    """
    more: list[int] = []
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
            records, more = _records(plain.filter(odd), lines, spec)
            for number, record in records:
                rows.append((number, *(record[i] if i < len(record) else None for i in wanted)))
            parts.append(pl.DataFrame(rows, schema=parts[0].schema, orient="row"))
        table = pl.concat(parts)
    inside = pl.Series("number", more, dtype=pl.UInt32)
    if more:
        table = table.filter(~pl.col("number").is_in(inside.implode()))
    return table.with_columns(pl.col(pl.String).str.strip_chars()), inside


def _records(
    odd: pl.DataFrame, lines: pl.DataFrame, spec: InputFormat
) -> tuple[list[tuple[int, list[str]]], list[int]]:
    """Records that begin in the lines of `odd`, some of `lines`, by their numbers; and lines that others go on over."""
    records: list[tuple[int, list[str]]] = []
    more: list[int] = []
    numbers, texts = lines["number"], lines["line"]
    # A quote that is open is closed in the next line that has an odd number of them.
    half = (texts.str.count_matches(spec.quote, literal=True) % 2 == 1).arg_true().to_list()
    places = numbers.search_sorted(odd["number"]).to_list()
    for place, line in zip(places, odd["line"], strict=True):
        if more and numbers[place] <= more[-1]:
            continue
        record = _cells(line, spec)
        if record is None and line.count(spec.quote) % 2:
            end = half[after] if (after := bisect_right(half, place)) < len(half) else len(texts)
            if end < len(texts) and end - place <= _MOST_LINES:
                # A blank for each line end: a cell is shown in one line.
                record = _cells(" ".join(texts[place : end + 1]), spec)
                more += numbers[place + 1 : end + 1].to_list() if record is not None else []
        if record is not None:
            records.append((numbers[place], record))
    return records, more


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
