"""What a release leaves out that was chosen for it, or says narrower, with the reason of each: kept with it, a line an
entry.

Read without columns: `why` asks for one name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from blocklist.select.address import parse_one
from blocklist.store import kept

if TYPE_CHECKING:
    import polars as pl

CUT = "cut by capacity"
# Of a pinned release: what guards hold of it, of which the record has no hold where no feed lists it any more.
HELD = "held by the guard "
HELD_BELOW = "held as a subtree by the guard "
# Of a listed network in a list for people that was cut: it has no row, other than what is left of it.
IN_PIECES = "in pieces: part of it is not blocked"
# Not left out, but narrower than it was chosen.
NARROWED = (HELD_BELOW, IN_PIECES)
# How the reason of an entry ends that stood for its name and nothing below it.
ALONE = ", the name alone"
# Of a network, where the target has a list for each direction: those from which it is left out.
WAYS = {", inbound": ("inbound",), ", outbound": ("outbound",), ", both ways": ("inbound", "outbound")}


class Network(msgspec.Struct, frozen=True):
    """A network that is left out, why, and of which directions: of both where the target makes no difference."""

    name: str
    why: str
    ways: Sequence[str]

    @property
    def in_pieces(self) -> bool:
        return self.why == IN_PIECES


def text(entries: pl.DataFrame) -> bytes:
    """`entries` (`name`, `why: String`) as sorted lines `name<TAB>why`, each once; what it may hold is ASCII."""
    plain = entries.with_columns(entries["why"].str.replace_all(r"[^\x20-\x7e]", "?"))
    lines = plain.select("name", "why").unique().sort("name", "why")
    return lines.write_csv(separator="\t", quote_style="never", include_header=False).encode("ascii")


def also(data: bytes, more: pl.DataFrame) -> bytes:
    """The text `data` of a release with what a later run, which made the same file, left out too.

    What guards held then is that of now.
    """
    import polars as pl

    before = [(name, why) for name, why in _lines(data) if not why.startswith((HELD, HELD_BELOW))]
    known = pl.DataFrame(before, schema={"name": pl.String, "why": pl.String}, orient="row")
    return text(pl.concat([more, known]))


def entries(state: Path, digest: str) -> Iterator[tuple[str, str]]:
    """Names that are left out, each with one reason, of a kept text. Raises RecordError when it can't be read."""
    left = (line for line in _lines(kept.read(state, digest)) if not line[1].startswith(NARROWED))
    return (next(lines) for _, lines in groupby(left, key=lambda line: line[0]))


def _lines(data: bytes) -> Iterator[tuple[str, str]]:
    for line in data.decode("ascii").splitlines():
        name, _, why = line.partition("\t")
        yield name, why


def said(data: bytes, name: str) -> list[str]:
    """All that the `data` of a text says of `name`."""
    key = name.encode("ascii") + b"\t"
    at = 0 if data.startswith(key) else data.find(b"\n" + key) + 1
    found = []
    while data.startswith(key, at):
        end = data.find(b"\n", at)
        found.append(data[at + len(key) : end if end >= 0 else None].decode("ascii"))
        at = end + 1 if end >= 0 else len(data)
    return found


def cut(data: bytes, name: str) -> str | None:
    """Why `name` was cut, of the `data` of a text; None when it was not. Wider before for the name alone."""
    found = [why for why in said(data, name) if why.startswith(CUT)]
    return min(found, key=lambda why: why.endswith(ALONE), default=None)


def held(data: bytes, name: str) -> list[tuple[str, str, bool]]:
    """The guards that hold `name` in a pinned release: guard, detail, and is it held as a subtree only?"""
    found = []
    for why in said(data, name):
        how = next((how for how in (HELD, HELD_BELOW) if why.startswith(how)), None)
        if how is not None:
            guard, _, detail = why.removeprefix(how).partition(": ")
            found.append((guard, detail, how == HELD_BELOW))
    return found


def around(data: bytes, name: str) -> list[Network]:
    """The networks around `name`, an address or a network, that were cut, or are in pieces where some were."""
    asked = parse_one(name)
    found = []
    for text, why in _lines(data):
        parsed = parse_one(text) if why.startswith((CUT, IN_PIECES)) else None
        if asked and parsed and parsed[0] == asked[0] and parsed[1] <= asked[1] and asked[2] <= parsed[2]:
            end = next((end for end in WAYS if why.endswith(end)), "")
            found.append(Network(text, why, WAYS.get(end, ("inbound", "outbound"))))
    return found
