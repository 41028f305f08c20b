"""Rows of SQLite as a frame, without a Python object for each cell.

SQLite puts every column together into one text (`group_concat`, sqlite.org/lang_aggfunc.html), and Polars takes it
apart: half of the time of fetching rows, a quarter of it where columns are many.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import polars as pl


class Column(NamedTuple):
    """An SQL expression and the dtype of its values; an empty text of a column that may be null reads as null."""

    sql: str
    dtype: type[pl.DataType]
    nullable: bool = False


def read(
    connection: sqlite3.Connection, columns: Mapping[str, Column], source: str, parameters: Sequence[object] = ()
) -> pl.DataFrame:
    """The frame of `columns` of `source`, the SQL after FROM without GROUP BY; in no order.

    A column that is not nullable must have no NULL. Raises sqlite3.Error.
    """
    # A separator of bytes (x'0a') would be made a text again for each row.
    texts = ", ".join(f"group_concat({_or_empty(column)}, '\n')" for column in columns.values())
    try:
        count, *joined = connection.execute(f"SELECT count(*), {texts} FROM {source}", parameters).fetchone()
    except sqlite3.DataError:
        return _by_rows(connection, columns, source, parameters)  # longer than SQLITE_LIMIT_LENGTH
    if not count:
        return pl.DataFrame(schema={name: column.dtype for name, column in columns.items()})
    parts = [
        pl.Series(name, [text], dtype=pl.String).str.split("\n").explode()
        for name, text in zip(columns, joined, strict=True)
    ]
    # Names have no line ends; in a record that was damaged or edited one may.
    if any(len(part) != count for part in parts):
        return _by_rows(connection, columns, source, parameters)
    return pl.DataFrame([_cast(part, column) for part, column in zip(parts, columns.values(), strict=True)])


def _or_empty(column: Column) -> str:
    return f"coalesce({column.sql}, '')" if column.nullable else column.sql


def _cast(texts: pl.Series, column: Column) -> pl.Series:
    if column.nullable:
        texts = texts.replace("", None)
    if column.dtype is pl.Boolean:
        return texts.cast(pl.Int64).cast(pl.Boolean)
    return texts.cast(column.dtype)


def _by_rows(
    connection: sqlite3.Connection, columns: Mapping[str, Column], source: str, parameters: Sequence[object]
) -> pl.DataFrame:
    asked = ", ".join(f"nullif({column.sql}, '')" if column.nullable else column.sql for column in columns.values())
    schema = {name: pl.Int64 if column.dtype is pl.Boolean else column.dtype for name, column in columns.items()}
    cursor = connection.execute(f"SELECT {asked} FROM {source}", parameters)
    parts = [pl.DataFrame(schema=schema)]
    while rows := cursor.fetchmany(200_000):
        parts.append(pl.DataFrame(rows, schema=schema, orient="row"))
    return pl.concat(parts).cast({name: column.dtype for name, column in columns.items()})
