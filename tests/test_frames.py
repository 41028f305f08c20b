"""Rows of SQLite as frames: the same by columns as row by row, whatever stands in them."""

from __future__ import annotations

import sqlite3

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocklist.store import frames
from blocklist.store.frames import Column

COLUMNS = {
    "name": Column("name", pl.String),
    "count": Column("count", pl.UInt32),
    "flag": Column("flag", pl.Boolean),
    "level": Column("level", pl.UInt8, nullable=True),
    "extra": Column("extra", pl.String, nullable=True),
}
SCHEMA = {name: column.dtype for name, column in COLUMNS.items()}
Row = tuple[str, int, bool, int | None, str | None]
ROWS = st.lists(
    st.tuples(
        st.text(max_size=8),
        st.integers(0, 2**32 - 1),
        st.booleans(),
        st.none() | st.integers(0, 255),
        st.none() | st.text(min_size=1, max_size=8),
    ),
    max_size=20,
)


def _table(rows: list[Row]) -> sqlite3.Connection:
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE t (name TEXT, count INTEGER, flag INTEGER, level INTEGER, extra TEXT)")
    db.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?)", rows)
    return db


@given(ROWS)
def test_a_frame_is_the_rows(rows: list[Row]) -> None:
    assert frames.read(_table(rows), COLUMNS, "t").rows() == rows


def test_a_line_end_in_a_damaged_name_does_not_move_the_others() -> None:
    rows: list[Row] = [("a.example", 1, True, None, None), ("b\n.example", 2, False, 70, '{"a":"\n"}')]
    assert frames.read(_table(rows), COLUMNS, "t").rows() == rows


def test_no_rows_are_a_frame_of_the_same_schema() -> None:
    db = _table([("a.example", 1, True, None, None)])
    found = frames.read(db, COLUMNS, "t WHERE count = ?", (2,))
    assert found.schema == pl.Schema(SCHEMA)
    assert found.is_empty()


def test_more_text_than_one_value_of_sqlite_holds_is_fetched_by_rows() -> None:
    rows: list[Row] = [(f"{number}.example", number, True, None, None) for number in range(1000)]
    db = _table(rows)
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 2000)
    with pytest.raises(sqlite3.DataError):
        db.execute("SELECT group_concat(name) FROM t").fetchone()
    assert frames.read(db, COLUMNS, "t").rows() == rows


def test_numbers_that_do_not_fit_are_an_error_and_not_another_number() -> None:
    with pytest.raises(pl.exceptions.PolarsError):
        frames.read(_table([("a.example", 2**33, True, None, None)]), COLUMNS, "t")
