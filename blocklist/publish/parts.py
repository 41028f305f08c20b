"""The pieces of a file: columns with a line template, or text that a format has made itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
import polars as pl

from blocklist.publish.gate import Gate, require_safe
from blocklist.publish.line import expression

# 64 Ki rows a chunk: 5 MB of text, so that memory stays flat and the columns stay in the cache.
CHUNK = 1 << 16


class Lines(msgspec.Struct, frozen=True):
    """One entry a value: `template` with what `blocklist.publish.line` makes of the value.

    `values` String; `records` and `entries` say what one value counts for; `place` names the column in an
    error.
    """

    values: pl.Series
    template: str
    gate: Gate
    place: str
    records: int = 1
    entries: int = 1

    def texts(self) -> Iterator[bytes]:
        """The lines in chunks, the last newline of each by itself. Raises ReleaseError at the first unsafe value."""
        line = expression(self.template, self.values.name, url=self.gate == "url")
        for first in range(0, len(self.values), CHUNK):
            chunk = self.values.slice(first, CHUNK)
            require_safe(chunk, self.gate, self.place, first)
            # As bytes: to make a text of them and bytes again would cost as much as writing them.
            yield chunk.to_frame().select(line.str.join("\n").cast(pl.Binary)).item()
            yield b"\n"


class Block(msgspec.Struct, frozen=True):
    """Text of whole lines with a final newline, and what it counts for."""

    text: str
    records: int = 0
    entries: int = 0

    def texts(self) -> Iterator[str]:
        """The text itself."""
        yield self.text


class Bytes(msgspec.Struct, frozen=True):
    """A file that is no text, and what it counts for."""

    data: bytes
    records: int = 0
    entries: int = 0


class Stream(msgspec.Struct, frozen=True):
    """Text that is made while it is written: `make` gives pieces of whole lines."""

    make: Callable[[], Iterator[str]]
    records: int
    entries: int

    def texts(self) -> Iterator[str]:
        """The pieces."""
        return self.make()


Part = Lines | Block | Stream | Bytes


def totals(parts: list[Part]) -> tuple[int, int]:
    """Entries and records that `parts` will write."""
    entries = records = 0
    for part in parts:
        times = len(part.values) if isinstance(part, Lines) else 1
        entries += part.entries * times
        records += part.records * times
    return entries, records
