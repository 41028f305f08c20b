"""One module a wire format: lines in, rows out.

Each line format is a function `parse(lines, spec) -> Rows`. In: `number: UInt32` (line in the file, from 1),
`line: String` (stripped, neither blank nor a comment). Out: a frame with `number` and `text: String`, one row an
indicator, and where the format has them `subtree: Boolean`, the columns of `OVERRIDES` and `kind`; with it a count of
lines refused, by reason. What text becomes is not decided here but in `blocklist.ingest.normalize`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import cast

import polars as pl

from blocklist.catalog import InputFormat
from blocklist.names import Reject

# Columns by which a row may say more than its feed does; all String but `confidence` (see `percent`). `tags` is text
# with commas or List(String). What they say is validated in `blocklist.ingest.meaning`.
OVERRIDES = (
    "confidence",
    "category",
    "reason",
    "reference",
    "date",
    "expires",
    "tlp",
    "tags",
    "legal_basis",
    "authority",
)
# Columns that are judged and not kept: what kind of indicator the row says it has.
JUDGED = ("kind",)


@dataclass(frozen=True)
class Rows:
    """What a format read: `frame` (see the module), lines refused by reason, lines that are its comments."""

    frame: pl.DataFrame
    rejects: dict[Reject, int] = field(default_factory=dict)
    comments: int = 0


LineParser = Callable[[pl.DataFrame, InputFormat], Rows]
WholeParser = Callable[[bytes, InputFormat], Rows]

# What begins a comment line, format by format.
COMMENTS: dict[str, tuple[str, ...]] = {
    "hosts": ("#",),
    "lines": ("#", ";", "//"),
    "wildcard": ("#",),
    "adblock": ("!", "#", "["),
    "dnsmasq": ("#",),
    "unbound": ("#",),
    "csv": ("#",),
    "jsonl": (),
    "scored": ("#",),
    # Before the format is known: of a file that begins with these, the format is chosen by what follows.
    "auto": ("#", "!", ";", "["),
}

# Formats whose document is one value and not lines.
WHOLE = frozenset({"misp"})

# What the lines of a format mean when neither the row nor the feed says so.
SUBTREE = frozenset({"wildcard", "adblock", "dnsmasq", "unbound"})


def percent(text: pl.Expr) -> pl.Expr:
    """A row's own confidence: a number cut to 0–100, null where the text is none."""
    return text.cast(pl.Float64, strict=False).clip(0, 100).cast(pl.UInt8, strict=False)


def line_parser(name: str) -> LineParser:
    """The `parse` of a line format."""
    return cast(LineParser, import_module(f"blocklist.ingest.formats.{name}").parse)


def whole_parser(name: str) -> WholeParser:
    """The `parse` of a format that is read whole."""
    return cast(WholeParser, import_module(f"blocklist.ingest.formats.{name}").parse)
