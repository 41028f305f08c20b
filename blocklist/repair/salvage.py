"""A damaged database copied, row by row, into an empty one of the right schema.

Where SQLite can read a table to its end without indices, its rows come from there; else from its pages.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from blocklist.errors import RecordError
from blocklist.repair.pages import Pages, Row, Table
from blocklist.store.database import MIGRATIONS, applied, of_newer_version

# The second where the message itself names damaged bytes.
UNREADABLE = (sqlite3.DatabaseError, UnicodeDecodeError)
# So many tables of the record tell it from the database of another program.
_OURS = 4
# What no row of another table can be mistaken for is looked for on pages that no tree names; of these it could be.
_ALIKE = ("counter", "guard_input", "setting")


@dataclass(frozen=True)
class Copied:
    """What became of one table. `whole`: SQLite read it to its end; `lost`: pages of it that nobody can read."""

    table: str
    rows: int
    whole: bool
    lost: int = 0


def copy(path: Path, target: sqlite3.Connection) -> list[Copied]:
    """Copy every table of the database at `path`, whose journal is empty, into `target`, made by all migrations.

    Raises RecordError when it holds nothing of a record, or was written by another version.
    """
    names = tables_of(target)
    source = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)
    out: list[Copied] = []
    with closing(source), closing(Pages(path)) as pages:
        roots = pages.roots()
        if len(set(names) & roots.keys()) < _OURS:
            raise RecordError(
                f"{path}: nothing in it can be recognised as a record of blocklist",
                hint="restore it from a backup; without one, see what 'blocklist doctor' says of a missing record",
            )
        _refuse_other_versions(path, source, pages, roots)
        reached: set[int] | None = None
        for name in names:
            table = Table.of(target, name)
            target.execute(f"DELETE FROM {name}")
            whole, lost = _by_sqlite(source, target, table), 0
            if not whole:
                # Which pages no tree names is known once all trees were walked.
                reached = _reached(pages, roots) if reached is None else reached
                lost = _by_pages(pages, roots, reached, target, table)
            (rows,) = target.execute(f"SELECT count(*) FROM {name}").fetchone()
            out.append(Copied(name, rows, whole, lost))
    return out


def tables_of(connection: sqlite3.Connection) -> list[str]:
    """The tables of the record, in the order in which the migrations made them."""
    rows = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT GLOB '_sqlite_*' "
        "AND name NOT GLOB 'sqlite_*' ORDER BY rowid"
    )
    return [row[0] for row in rows]


def _refuse_other_versions(path: Path, source: sqlite3.Connection, pages: Pages, roots: dict[str, int]) -> None:
    with suppress(*UNREADABLE):
        names = applied(source)
        if unknown := sorted(names - set(MIGRATIONS)):
            raise of_newer_version(path, unknown)
        if set(MIGRATIONS) - names:
            raise RecordError(
                f"{path} is damaged, and was written by an earlier version of blocklist",
                hint="repair it with that version, or restore it from a backup",
            )
        return
    if "_sqlite_migrations" not in roots:
        return
    stored = pages.records(pages.tree(roots["_sqlite_migrations"], table=True).pages)
    said = {value for _, values in stored for value in values if isinstance(value, str) and value[:4].isdigit()}
    later = sorted(value for value in said if "_" in value[:5] and value not in MIGRATIONS)
    if later:
        raise of_newer_version(path, later)


def _by_sqlite(source: sqlite3.Connection, target: sqlite3.Connection, table: Table) -> bool:
    """Copy what SQLite reads of a table; did it come to its end?"""
    columns = ", ".join(table.columns)
    try:
        # An index may be what is damaged.
        rows = source.execute(f"SELECT {columns} FROM {table.name} NOT INDEXED")
        target.executemany(_insert(table), rows)
    except UNREADABLE:
        return False
    return True


def _by_pages(pages: Pages, roots: dict[str, int], reached: set[int], target: sqlite3.Connection, table: Table) -> int:
    """Copy what stands on the pages of a table, then on those that no tree names; how many of its pages are lost."""
    root = roots.get(table.name)
    tree = pages.tree(root, table=table.rowids) if root is not None else None
    numbers = tree.pages if tree is not None else []
    if table.name not in _ALIKE and (tree is None or tree.lost):
        numbers = [*numbers, *(n for n in pages.orphans(reached) if pages.is_table(n) == table.rowids)]
    target.executemany(_insert(table), _rows(pages, numbers, table))
    return tree.lost if tree is not None else 1


def _rows(pages: Pages, numbers: list[int], table: Table) -> Iterator[Row]:
    for rowid, values in pages.records(numbers):
        if (row := table.row(rowid, values)) is not None:
            yield row


def _insert(table: Table) -> str:
    return (
        f"INSERT OR IGNORE INTO {table.name} ({', '.join(table.columns)}) "
        f"VALUES ({', '.join('?' * len(table.columns))})"
    )


def _reached(pages: Pages, roots: dict[str, int]) -> set[int]:
    found = set(pages.tree(1, table=True).pages)
    for root in roots.values():
        found.update(pages.tree(root, table=pages.is_table(root)).pages)
    return found
