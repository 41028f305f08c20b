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
_LINES = pl.Schema({"number": pl.UInt32, "line": pl.String})
_HINT = 'set format = { name = "csv", value = "the column" }'


class Reader:
    """Reads one table block by block. A record that is open at the end of a block waits for the next one."""

    def __init__(self) -> None:
        self._names: list[str] | None = None
        self._headed = False
        self._waiting: pl.DataFrame | None = None

    def parse(self, lines: pl.DataFrame, spec: InputFormat) -> Rows:
        """Rows of the table with `value` as text and the override columns that `spec` names.

        Each line is read alone, so that numbers stay true, and those after it are only asked where its last quote is
        open. Lines that a record goes on over are counted among the comments. With several columns in `value` the
        first that is filled holds. Raises FeedError when a named column is not there: the publisher changed the table.
        """
        if spec.value is None:
            raise FeedError("the feed does not say which column holds the indicator", hint=_HINT)
        comments = 0
        if spec.header and not self._headed:
            self._names = _unique(_cells(lines["line"][0], spec) or [])
            self._headed, comments = True, 1
            lines = lines.slice(1)
        if self._waiting is not None:
            lines = pl.concat([self._waiting, lines])
        return self._read(lines, spec, comments, at_end=False)

    def end(self, spec: InputFormat) -> Rows:
        """Rows of the lines that still wait when the table has no more."""
        lines = self._waiting if self._waiting is not None else pl.DataFrame(schema=_LINES)
        return self._read(lines, spec, 0, at_end=True)

    def _read(self, body: pl.DataFrame, spec: InputFormat, comments: int, *, at_end: bool) -> Rows:
        values = [_index(column, self._names) for column in spec.values]
        columns = {
            role: _index(column, self._names)
            for role in ("scope", *JUDGED, *OVERRIDES)
            if (column := getattr(spec, role)) is not None
        }
        where = {_index(column, self._names): spec.accepted(column) for column in spec.where}
        wanted = sorted({*values, *columns.values(), *where})
        table, more, waits = _read(body, spec, wanted, at_end=at_end)
        self._waiting = body.slice(waits) if waits < body.height else None
        body = body.head(waits)
        rejects = Refused()
        if table.height + len(more) < body.height:
            known = pl.concat([table["number"], more])
            rejects.refuse(Reject.SYNTAX, body["number"].filter(~body["number"].is_in(known.implode())))
        if table.height and all(table[str(value)].null_count() == table.height for value in values):
            raise FeedError(f"the table has no column {values[0] + 1} in any of its rows")
        readable = table.height
        for index, accepted in where.items():
            table = table.filter(pl.col(str(index)).is_in(accepted).fill_null(False))
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
        comments += len(more) + readable - table.height
        waiting = 0 if self._waiting is None else self._waiting.height
        return Rows(table.select(selected), rejects, comments=comments, waiting=waiting)


def _read(
    lines: pl.DataFrame, spec: InputFormat, wanted: list[int], *, at_end: bool
) -> tuple[pl.DataFrame, pl.Series, int]:
    """`number` and the `wanted` cells, stripped, each column named by its index; null where a record ends before.

    Records that can't be read are left out. With them the numbers of lines that belong to a record above, and from
    which of `lines` on the end of a record is not among them (their height when none waits).
    """
    more: list[int] = []
    waits = lines.height
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
            records, more, waits = _records(plain.filter(odd), lines, spec, at_end=at_end)
            for number, record in records:
                rows.append((number, *(record[i] if i < len(record) else None for i in wanted)))
            parts.append(pl.DataFrame(rows, schema=parts[0].schema, orient="row"))
        table = pl.concat(parts)
    inside = pl.Series("number", more, dtype=pl.UInt32)
    if waits < lines.height:
        table = table.filter(pl.col("number") < lines["number"][waits])
    if more:
        table = table.filter(~pl.col("number").is_in(inside.implode()))
    return table.with_columns(pl.col(pl.String).str.strip_chars()), inside, waits


def _records(
    odd: pl.DataFrame, lines: pl.DataFrame, spec: InputFormat, *, at_end: bool
) -> tuple[list[tuple[int, list[str]]], list[int], int]:
    """Records that begin in the lines of `odd`, some of `lines`, by their numbers; lines that others go on over; and
    which of `lines` begins a record that may end below them, else their height.
    """
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
            if end - place <= _MOST_LINES:
                if end < len(texts):
                    # A blank for each line end: a cell is shown in one line.
                    record = _cells(" ".join(texts[place : end + 1]), spec)
                    more += numbers[place + 1 : end + 1].to_list() if record is not None else []
                elif not at_end:
                    return records, more, place
        if record is not None:
            records.append((numbers[place], record))
    return records, more, len(texts)


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
