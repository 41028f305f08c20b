"""JSON documents: lists of names, or of objects with a key that holds one, wherever in the document they stand.

`pointer` (RFC 6901) leads to a list, to an object of lists or of objects by their ids; several lead to several.
Only the keys that the feed asks for are made into values.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import polars as pl

from blocklist.catalog import InputFormat
from blocklist.errors import FeedError
from blocklist.ingest.formats import JUDGED, OVERRIDES, Rows, percent
from blocklist.ingest.refused import Refused
from blocklist.names import Reject

# Whether a value of JSON is a list or an object, by its first byte.
_LIST, _OBJECT = b"["[0], b"{"[0]
# An item that is searched for is not further away than this.
_NEAR = 65_536


def parse(data: bytes, spec: InputFormat) -> Rows:
    """One row an item; `number` is the line on which it stands, in a file of one line its position.

    Raises FeedError when the bytes are no JSON, or a pointer leads nowhere or to no list.
    """
    values = [str(value) for value in spec.values]
    roles = {
        role: str(key) for role in ("scope", *JUDGED, *OVERRIDES) if (key := getattr(spec, role, None)) is not None
    }
    keys = list(dict.fromkeys([*values, *roles.values(), *spec.where, *([spec.skip_if] if spec.skip_if else [])]))
    item = msgspec.defstruct(
        "Item", [(f"k{i}", Any, None) for i in range(len(keys))], rename={f"k{i}": key for i, key in enumerate(keys)}
    )
    try:
        found = [one for pointer in spec.pointers for one in _items(_at(data, pointer), item)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FeedError(f"not a JSON document of the form that the feed describes: {error}") from None
    frame = _frame(found, item, keys)
    if values == [] and frame["object"].any():
        raise FeedError(
            "the items are objects, and the feed does not say which key holds the indicator",
            hint='set format = { name = "json", value = "the key" }',
        )
    text = pl.coalesce("plain", *(pl.col(key).replace("", None) for key in map(_column, values)))
    frame = frame.with_columns(text.str.strip_chars().alias("text"))
    frame = frame.with_columns(pl.Series("number", _numbers(data, frame["text"]), dtype=pl.UInt32))
    keep = pl.lit(True)
    for key in spec.where:
        keep = keep & (pl.col(_column(key)).is_in(spec.accepted(key)).fill_null(False) | ~pl.col("object"))
    if spec.skip_if is not None:
        keep = keep & pl.col(_column(spec.skip_if)).is_null()
    left = frame.filter(keep)
    missing = left["text"].is_null()
    rejects = Refused()
    rejects.refuse(Reject.SYNTAX, left["number"].filter(missing))
    selected: list[pl.Expr | str] = ["number", "text"]
    for role, key in roles.items():
        cell = pl.col(_column(key)).replace("", None)
        if role == "confidence":
            selected.append(percent(cell).alias(role))
        elif role == "scope":
            selected.append((cell.str.to_lowercase() == "subtree").fill_null(False).alias("subtree"))
        else:
            selected.append(cell.alias(role))
    rows = left.filter(~missing).select(selected)
    return Rows(rows, rejects, comments=frame.height - left.height, items=len(found))


def _column(key: str) -> str:
    """A key of the document as a column beside those of this module."""
    return f"\0{key}"


def _at(data: bytes | msgspec.Raw, pointer: str) -> bytes | msgspec.Raw:
    """The part of a document that a pointer leads to (RFC 6901)."""
    here = data
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if _first(here) == _LIST:
            several = msgspec.json.decode(here, type=list[msgspec.Raw])
            if not name.isdecimal() or int(name) >= len(several):
                raise FeedError(f"the document has no {pointer!r}: there is no item {name[:80]!r} in its list")
            here = several[int(name)]
        else:
            inside = msgspec.json.decode(here, type=dict[str, msgspec.Raw])
            if name not in inside:
                known = ", ".join(list(inside)[:12])
                raise FeedError(f"the document has no {pointer!r}; where {name[:80]!r} should be: {known[:200]!r}")
            here = inside[name]
    return here


def _first(part: bytes | msgspec.Raw) -> int:
    """The first byte of a value."""
    return next((byte for byte in bytes(memoryview(part)[:4096]).lstrip()[:1]), 0)


def _items(part: bytes | msgspec.Raw, item: type) -> Iterator[Any]:
    """The items of a list, or of the lists and objects that an object holds by their ids."""
    one = item | list[Any] | str | int | float | bool | None
    if _first(part) == _LIST:
        yield from msgspec.json.decode(part, type=list[one])  # type: ignore[valid-type]
        return
    for inner in msgspec.json.decode(part, type=dict[str, msgspec.Raw]).values():
        if _first(inner) == _LIST:
            yield from msgspec.json.decode(inner, type=list[one])  # type: ignore[valid-type]
        else:
            yield msgspec.json.decode(inner, type=one)


def _frame(found: list[Any], item: type, keys: list[str]) -> pl.DataFrame:
    """`object: Boolean`, `plain: String` (of items that are text) and a String column a key."""
    objects = [type(one) is item for one in found]
    columns: dict[str, list[str | None]] = {"plain": [one if type(one) is str else None for one in found]}
    for i, key in enumerate(keys):
        name = f"k{i}"
        columns[_column(key)] = [
            _word(getattr(one, name)) if is_ else None for one, is_ in zip(found, objects, strict=True)
        ]
    frame = pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))
    return frame.with_columns(pl.Series("object", objects, dtype=pl.Boolean))


def _word(value: Any) -> str | None:
    """A value as text; a list of words (tags) as one text, other things as none."""
    if type(value) is str:
        return value
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return ", ".join(value)
    return None


def _numbers(data: bytes, texts: pl.Series) -> list[int]:
    """The line of each item: where its text is found next, from the one before on.

    In a file without lines, and for items whose text is written otherwise (escapes), the position or the line before.
    """
    if data.count(b"\n", 0, len(data.rstrip())) == 0:
        return list(range(1, len(texts) + 1))
    numbers, at, line = [], 0, 1
    find, count = data.find, data.count
    for text in texts:
        if text is not None:
            where = find(b'"' + text.encode(errors="replace") + b'"', at, at + _NEAR)
            if where < 0 and at == 0:
                where = find(b'"' + text.encode(errors="replace") + b'"')
            if where >= 0:
                line += count(b"\n", at, where)
                at = where + 1
        numbers.append(line)
    return numbers
