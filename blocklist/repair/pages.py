"""Rows of a damaged SQLite file, read page by page without SQLite, which gives up at the first bad page.

The format: https://www.sqlite.org/fileformat2.html (b-tree pages §1.6, records §2.1, WITHOUT ROWID tables §2.4). A row
is believed only where its lengths add up and its values have the types that the table declares. The `.recover` of the
program sqlite3 would do the same, but Debian 12 builds it without what it needs (SQLITE_ENABLE_DBPAGE_VTAB).
"""

from __future__ import annotations

import ast
import mmap
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from blocklist.errors import RecordError

MAGIC = b"SQLite format 3\0"
_INTERIOR_INDEX, _INTERIOR_TABLE, _LEAF_INDEX, _LEAF_TABLE = 2, 5, 10, 13
_INTERIOR = (_INTERIOR_INDEX, _INTERIOR_TABLE)
_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
_TYPES: dict[str, type] = {"TEXT": str, "INTEGER": int}

Value = str | int | bytes | float | None
Row = tuple[Value, ...]


class Table(msgspec.Struct, frozen=True):
    """What a row of a table looks like. `order`: where each stored value goes; `alias`: the column of the rowid."""

    name: str
    columns: tuple[str, ...]
    types: tuple[type, ...]
    required: tuple[bool, ...]
    defaults: Row
    order: tuple[int, ...]
    alias: int | None
    rowids: bool

    @classmethod
    def of(cls, connection: sqlite3.Connection, name: str) -> Table:
        """The table `name` as `connection` has it."""
        info = connection.execute('SELECT name, type, "notnull", pk, dflt_value FROM pragma_table_info(?)', (name,))
        rows = info.fetchall()
        (without,) = connection.execute("SELECT wr FROM pragma_table_list WHERE name = ?", (name,)).fetchone()
        key = sorted((row[3], i) for i, row in enumerate(rows) if row[3])
        first = [i for _, i in key] if without else []
        alias = key[0][1] if not without and len(key) == 1 and rows[key[0][1]][1] == "INTEGER" else None
        return cls(
            name=name,
            columns=tuple(row[0] for row in rows),
            types=tuple(_TYPES[row[1]] for row in rows),
            required=tuple(bool(row[2] or row[3]) for row in rows),
            defaults=tuple(None if row[4] is None else ast.literal_eval(row[4]) for row in rows),
            order=(*first, *(i for i in range(len(rows)) if i not in first)),
            alias=alias,
            rowids=not without,
        )

    def row(self, rowid: int | None, values: Sequence[Value]) -> Row | None:
        """The row of stored `values`, columns that were added later by their defaults; None when it can't be one."""
        if not values or len(values) > len(self.order):
            return None
        out = list(self.defaults)
        for at, value in zip(self.order, values, strict=False):
            out[at] = value
        if self.alias is not None:
            out[self.alias] = rowid
        for value, kind, required in zip(out, self.types, self.required, strict=True):
            if required if value is None else type(value) is not kind:
                return None
        return tuple(out)


class Tree(msgspec.Struct):
    """Pages of one b-tree that can be read, in the order of its keys, and how many that it names can't."""

    pages: list[int] = msgspec.field(default_factory=list)
    lost: int = 0


class Pages:
    """The pages of a database file. Raises RecordError when not even its page size is known."""

    def __init__(self, path: Path) -> None:
        if path.stat().st_size < 512:
            raise RecordError(f"{path}: holds less than a page", hint="restore it from a backup")
        with path.open("rb") as file:
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        size = int.from_bytes(self._data[16:18], "big")
        size = 65536 if size == 1 else size
        if self._data[:16] != MAGIC or size < 512 or size & (size - 1):
            raise RecordError(f"{path}: its header can't be read", hint="restore it from a backup")
        self._size = size
        self._usable = size - self._data[20]
        self.count = len(self._data) // size
        self.free = self._freelist()

    def close(self) -> None:
        self._data.close()

    def roots(self) -> dict[str, int]:
        """Name and root page of each table and index, as far as the schema can be read."""
        found = {}
        for _, values in self.records(self.tree(1, table=True).pages):
            if len(values) == 5 and isinstance(values[1], str) and isinstance(values[3], int) and values[3] > 0:
                found[values[1]] = values[3]
        return found

    def tree(self, root: int, *, table: bool) -> Tree:
        """The b-tree at `root`: of a table with rowids, or of an index or a table without."""
        kinds = (_LEAF_TABLE, _INTERIOR_TABLE) if table else (_LEAF_INDEX, _INTERIOR_INDEX)
        out, seen, todo = Tree(), set[int](), [root]
        while todo:
            number = todo.pop()
            kind = self._kind(number)
            if number in seen or kind not in kinds:
                out.lost += 1
                continue
            seen.add(number)
            out.pages.append(number)
            if kind in _INTERIOR:
                todo += reversed(self._children(number))
        return out

    def orphans(self, reached: set[int]) -> list[int]:
        """Pages with rows that no tree names any more, since the page that named them is lost."""
        known = reached | self.free
        return [n for n in range(2, self.count + 1) if n not in known and self._kind(n) is not None]

    def is_table(self, number: int) -> bool:
        return self._kind(number) in (_LEAF_TABLE, _INTERIOR_TABLE)

    def records(self, pages: Sequence[int]) -> Iterator[tuple[int | None, list[Value]]]:
        """Rowid (None in an index) and values of what can be read on `pages`."""
        for number in pages:
            kind = self._kind(number)
            if kind is None or kind == _INTERIOR_TABLE:
                continue
            page = self._page(number)
            for at in self._cells(number):
                try:
                    found = self._cell(page, at, kind)
                except (IndexError, ValueError):
                    continue
                if found is not None:
                    yield found

    def _page(self, number: int) -> bytes:
        return self._data[(number - 1) * self._size : number * self._size]

    def _kind(self, number: int) -> int | None:
        """The kind of a b-tree page; None of any other, and of one whose head is not sound."""
        if not 1 <= number <= self.count:
            return None
        base = (number - 1) * self._size
        head = 100 if number == 1 else 0
        kind = self._data[base + head]
        if kind not in (_INTERIOR_INDEX, _INTERIOR_TABLE, _LEAF_INDEX, _LEAF_TABLE):
            return None
        begin = head + (12 if kind in _INTERIOR else 8)
        cells = int.from_bytes(self._data[base + head + 3 : base + head + 5], "big")
        end = begin + 2 * cells
        if end > self._usable or (kind in _INTERIOR and not cells and number != 1):
            return None
        offsets = self._cells(number)
        return kind if not offsets or (min(offsets) >= end and max(offsets) < self._usable) else None

    def _cells(self, number: int) -> list[int]:
        base, head = (number - 1) * self._size, 100 if number == 1 else 0
        begin = base + head + (12 if self._data[base + head] in _INTERIOR else 8)
        cells = int.from_bytes(self._data[base + head + 3 : base + head + 5], "big")
        raw = self._data[begin : begin + 2 * cells]
        return [raw[i] << 8 | raw[i + 1] for i in range(0, len(raw) - 1, 2)]

    def _children(self, number: int) -> list[int]:
        page, head = self._page(number), 100 if number == 1 else 0
        numbers = [int.from_bytes(page[at : at + 4], "big") for at in self._cells(number)]
        return [*numbers, int.from_bytes(page[head + 8 : head + 12], "big")]

    def _freelist(self) -> set[int]:
        """Pages that hold nothing, whatever can be read on them."""
        free: set[int] = set()
        trunk = int.from_bytes(self._data[32:36], "big")
        while 1 < trunk <= self.count and trunk not in free:
            free.add(trunk)
            page = self._page(trunk)
            leaves = min(int.from_bytes(page[4:8], "big"), self._size // 4 - 2)
            free.update(int.from_bytes(page[8 + 4 * i : 12 + 4 * i], "big") for i in range(leaves))
            trunk = int.from_bytes(page[:4], "big")
        return free

    def _cell(self, page: bytes, at: int, kind: int) -> tuple[int | None, list[Value]] | None:
        if kind == _INTERIOR_INDEX:
            at += 4
        size, at = _varint(page, at)
        rowid = None
        if kind == _LEAF_TABLE:
            rowid, at = _varint(page, at)
            rowid -= rowid >> 63 << 64
        payload = self._payload(page, at, size, table=kind == _LEAF_TABLE)
        return None if payload is None else (rowid, _values(payload))

    def _payload(self, page: bytes, at: int, size: int, *, table: bool) -> bytes | None:
        """`size` bytes from `at`, and where they don't fit from the overflow pages (§1.6)."""
        usable = self._usable
        most = usable - 35 if table else (usable - 12) * 64 // 255 - 23
        if size <= most:
            return page[at : at + size] if at + size <= usable else None
        least = (usable - 12) * 32 // 255 - 23
        local = least + (size - least) % (usable - 4)
        local = local if local <= most else least
        if at + local + 4 > usable or size > len(self._data):
            return None
        parts, left = [page[at : at + local]], size - local
        following = int.from_bytes(page[at + local : at + local + 4], "big")
        while left > 0:
            if not 1 < following <= self.count or following in self.free:
                return None
            more = self._page(following)
            parts.append(more[4 : min(usable, 4 + left)])
            left -= usable - 4
            following = int.from_bytes(more[:4], "big")
        return b"".join(parts)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for i in range(8):
        byte = data[at + i]
        value = value << 7 | byte & 127
        if byte < 128:
            return value, at + i + 1
    return value << 8 | data[at + 8], at + 9


def _values(payload: bytes) -> list[Value]:
    """The values of a record (§2.1). Raises ValueError when its lengths don't add up or a text is no UTF-8."""
    head, at = _varint(payload, 0)
    body, out = head, list[Value]()
    while at < head:
        kind, at = _varint(payload, at)
        if kind in _INTEGERS:
            size = _INTEGERS[kind]
            out.append(int.from_bytes(payload[body : body + size], "big", signed=True))
        elif kind >= 12:
            size = (kind - 12) // 2
            part = payload[body : body + size]
            out.append(part.decode() if kind % 2 else part)
        elif kind in (0, 8, 9):
            size = 0
            out.append(None if kind == 0 else kind - 8)
        else:
            raise ValueError("a value of a kind that the record does not use")
        body += size
    if at != head or body != len(payload):
        raise ValueError("the lengths of a record don't add up")
    return out
