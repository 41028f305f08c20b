"""What a release leaves out that was chosen for it, with the reason of each: kept with it, a line an entry.

Read without columns: `why` asks for one name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from blocklist.select.address import parse_one
from blocklist.store import kept

if TYPE_CHECKING:
    import polars as pl

CUT = "cut by capacity"
# How the reason of an entry ends that stood for its name and nothing below it.
ALONE = ", the name alone"
# Of a network, where the target has a list for each direction: those from which it is left out.
WAYS = {", inbound": ("inbound",), ", outbound": ("outbound",), ", both ways": ("inbound", "outbound")}


@dataclass(frozen=True)
class Network:
    """A network that is left out, why, and of which directions: of both where the target makes no difference."""

    name: str
    why: str
    ways: Sequence[str]


def text(entries: pl.DataFrame) -> bytes:
    """`entries` (`name`, `why: String`, unique by name) as sorted lines `name<TAB>why`; what it may hold is ASCII."""
    plain = entries.with_columns(entries["why"].str.replace_all(r"[^\x20-\x7e]", "?"))
    lines = plain.sort("name").select("name", "why")
    return lines.write_csv(separator="\t", quote_style="never", include_header=False).encode("ascii")


def entries(state: Path, digest: str) -> Iterator[tuple[str, str]]:
    """Names and reasons of a kept text. Raises RecordError when it can't be read."""
    for line in kept.read(state, digest).decode("ascii").splitlines():
        name, _, why = line.partition("\t")
        yield name, why


def reason(data: bytes, name: str) -> str | None:
    """Why `name` is left out, of the `data` of a text; None when it is not."""
    key = name.encode("ascii") + b"\t"
    at = 0 if data.startswith(key) else data.find(b"\n" + key) + 1
    if at == 0 and not data.startswith(key):
        return None
    end = data.find(b"\n", at)
    return data[at + len(key) : end if end >= 0 else None].decode("ascii")


def around(data: bytes, name: str) -> list[Network]:
    """The networks around `name`, an address or a network, that are left out."""
    asked = parse_one(name)
    found = []
    for line in data.decode("ascii").splitlines():
        text, _, why = line.partition("\t")
        parsed = parse_one(text)
        if asked and parsed and parsed[0] == asked[0] and parsed[1] <= asked[1] and asked[2] <= parsed[2]:
            end = next((end for end in WAYS if why.endswith(end)), "")
            found.append(Network(text, why, WAYS.get(end, ("inbound", "outbound"))))
    return found
