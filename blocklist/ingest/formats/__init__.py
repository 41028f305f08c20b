"""One module a wire format: lines in, rows out.

Each line format is a function `parse(lines, spec) -> Rows`. In: `number: UInt32` (line in the file, from 1),
`line: String` (stripped, neither blank nor a comment). Out: a frame with `number` and `text: String`, one row an
indicator, and where the format has them `subtree: Boolean`, the columns of `OVERRIDES` and `kind`; with it the lines
refused, by reason. What text becomes is not decided here but in `blocklist.ingest.normalize`. A module whose lines
depend on those above them has a class `Reader` with such a `parse`, made once a file; where lines may wait for those
below them, its `end` gives what still waits after the last. A module with a function `plain(line, spec)` can tell from
a line (String, stripped) what `parse` makes of it where that is one row of text without white space: columns as above,
`text` being null or no indicator where it can't.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import cast

import msgspec
import polars as pl

from blocklist.catalog import InputFormat
from blocklist.ingest.refused import Refused

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


class Rows(msgspec.Struct, frozen=True):
    """What a format read: `frame` (see the module), lines refused by reason, lines that are its comments.

    `cancels`: names that the file takes back, wherever it lists them. `items`: how many a document holds, each of which
    is a row or more, refused, or a comment. `waiting`: how many lines the reader keeps for the next ones.
    """

    frame: pl.DataFrame
    rejects: Refused = msgspec.field(default_factory=Refused)
    comments: int = 0
    cancels: frozenset[str] = frozenset()
    items: int = 0
    waiting: int = 0


LineParser = Callable[[pl.DataFrame, InputFormat], Rows]
LineEnd = Callable[[InputFormat], Rows]
WholeParser = Callable[[bytes, InputFormat], Rows]

# What begins a comment line, format by format.
COMMENTS: dict[str, tuple[str, ...]] = {
    "hosts": ("#",),
    "lines": ("#", ";", "//"),
    "wildcard": ("#",),
    # `##.banner` is a rule: what begins with `#` is told apart in the parser.
    "adblock": ("!", "["),
    "dnsmasq": ("#",),
    "unbound": ("#",),
    "csv": ("#",),
    "jsonl": (),
    "scored": ("#",),
    "urls": ("#", ";"),
    # They name the source of the lines below: told apart in the parser.
    "maltrail": (),
    "dshield": ("#",),
    "rpz": (";",),
    "suricata": ("#",),
    # Before the format is known: of a file that begins with these, the format is chosen by what follows.
    "auto": ("#", "!", ";", "[", "//"),
}

# Formats whose document is one value and not lines.
WHOLE = frozenset({"misp", "json", "stix"})

# Formats whose lines mean what the comments that head them say.
BY_HEAD = frozenset({"maltrail"})

# Formats whose lines mean the same wherever they stand; a table's depend on its header, a zone's on those above.
BY_LINE = frozenset(COMMENTS) - BY_HEAD - {"auto", "csv", "rpz"}

# Formats in which the white space before a line means something.
INDENTED = frozenset({"rpz"})

# What the lines of a format mean when neither the row nor the feed says so. Maltrail looks for a name and its parents.
SUBTREE = frozenset({"wildcard", "adblock", "dnsmasq", "unbound", "maltrail"})


def percent(text: pl.Expr) -> pl.Expr:
    """A row's own confidence: a number cut to 0–100, null where the text is none."""
    return text.cast(pl.Float64, strict=False).clip(0, 100).cast(pl.UInt8, strict=False)


def line_parser(name: str) -> tuple[LineParser, LineEnd | None]:
    """The `parse` of a line format, for the lines of one file in order, and the `end` where it has one."""
    module = import_module(f"blocklist.ingest.formats.{name}")
    reader = module.Reader() if hasattr(module, "Reader") else module
    return cast(LineParser, reader.parse), cast("LineEnd | None", getattr(reader, "end", None))


def plain_columns(name: str, line: pl.Expr, spec: InputFormat) -> Sequence[pl.Expr]:
    """`text`, and `subtree` where the format has it, of plain lines (see the module); none where it knows of none."""
    module = import_module(f"blocklist.ingest.formats.{name}")
    return cast("Sequence[pl.Expr]", module.plain(line, spec)) if hasattr(module, "plain") else ()


def whole_parser(name: str) -> WholeParser:
    """The `parse` of a format that is read whole."""
    return cast(WholeParser, import_module(f"blocklist.ingest.formats.{name}").parse)
