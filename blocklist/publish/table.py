"""Lists for people and spreadsheets: CSV (RFC 4180) and JSON lines, the rows as they are, unfolded."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import polars as pl

from blocklist.publish.parts import CHUNK, Block, Part, Stream
from blocklist.publish.selection import Selection

if TYPE_CHECKING:
    from blocklist.publish.descriptor import Format

COLUMNS = ("indicator", "kind", "scope", "category", "confidence", "feeds", "since")
_TEXT = [name for name in COLUMNS if name != "confidence"]
# A cell that starts so is run as a formula by spreadsheets; an apostrophe makes it text.
_FORMULA = r"^[=+\-@\t\r]"
# One line a row, and nothing that a terminal acts on: control characters and letters beyond ASCII become '?'.
_NOT_PLAIN = r"[^ -~]"


def parts(fmt: Format, selection: Selection, values: dict[str, Any], lost: Counter[str]) -> list[Part]:
    """The rows of `kinds`, after the header if it is CSV."""
    rows = selection.rows.select(COLUMNS).filter(pl.col("kind").is_in(list(fmt.kinds)))
    make = _json if fmt.code == "jsonl" else _csv
    body = Stream(partial(make, rows), records=rows.height, entries=rows.height)
    return [body] if fmt.code == "jsonl" else [Block(",".join(COLUMNS) + "\n"), body]


def _csv(rows: pl.DataFrame) -> Iterator[str]:
    cells = []
    for name in _TEXT:
        plain = pl.col(name).str.replace_all(_NOT_PLAIN, "?")
        formula = pl.col(name).str.contains(_FORMULA)
        cells.append(pl.when(formula).then(pl.lit("'") + plain).otherwise(plain).alias(name))
    for chunk in rows.iter_slices(CHUNK):
        if chunk.height:
            yield chunk.with_columns(cells).write_csv(include_header=False, quote_style="necessary")


def _json(rows: pl.DataFrame) -> Iterator[str]:
    """Sorted keys, ASCII, `feeds` as a list."""
    order = sorted(COLUMNS)
    for chunk in rows.iter_slices(CHUNK):
        if not chunk.height:
            continue
        split = chunk.with_columns(pl.col("feeds").str.split(",")).select(order)
        text = split.select(pl.struct(order).struct.json_encode().str.join("\n")).item()
        # Polars writes letters as they are; the rare chunk that has some goes the slow way.
        if not text.isascii():
            objects = split.iter_rows(named=True)
            text = "\n".join(json.dumps(row, sort_keys=True, separators=(",", ":")) for row in objects)
        # DEL is the one control character that JSON lets through.
        yield text.replace("\x7f", "\\u007f") + "\n"
