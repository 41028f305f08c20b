"""What a release leaves out that was chosen for it, with the reason of each: kept with it, a line an entry.

Read without columns: `why` asks for one name.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from blocklist.store import kept

if TYPE_CHECKING:
    import polars as pl

CUT = "cut by capacity"
# How the reason of an entry ends that stood for its name and nothing below it.
ALONE = ", the name alone"


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
