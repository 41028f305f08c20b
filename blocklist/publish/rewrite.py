"""The file of a release made of the one in place: where few entries differ, only the lines of these are made.

It is what `blocklist.publish.render` would write, byte for byte; where that is not certain, nothing is written. Every
entry must speak for itself alone: allows, and names between entries, make the lines of others depend on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import BinaryIO

import msgspec
import polars as pl

from blocklist.framepatch import FramePatch
from blocklist.names import parents
from blocklist.publish import parts as parts_
from blocklist.publish.descriptor import Format
from blocklist.publish.line import size
from blocklist.publish.parts import Part, totals
from blocklist.publish.render import Rendered, Sink, composed, framed
from blocklist.publish.selection import Selection
from blocklist.splice import Lines, Splice, Splicing
from blocklist.store import derived

# Of what a module writes, only zones are lines of one name each.
_CODES = (None, "rpz")
# Where more of the entries differ, writing all is as quick.
_MOST = 0.2


class Step(msgspec.Struct, frozen=True):
    """How fitted entries came from those of before: `patch` makes `entries` of `before`, and takes the rows `gone` out.

    All as `blocklist.select.express.Expressed` has them. `token`, `before_token`: of the decisions that each fits.
    """

    entries: pl.DataFrame
    token: str
    before: pl.DataFrame
    before_token: str
    patch: FramePatch
    gone: pl.DataFrame

    def change(self) -> tuple[int, int]:
        """How many entries came, and how many went."""
        come, gone = self.patch.come, self.gone
        same = come.join(gone, on=come.columns, how="semi").height
        return come.height - same, gone.height - same


class Origin(msgspec.Struct, frozen=True):
    """Where the entries of an export come from: the decisions with this `token`, fitted and written `how` (as JSON),
    and by which `step` from those of before, where that is known.
    """

    how: list[object]
    token: str
    step: Step | None

    def under(self, token: str) -> str:
        """What tells the list that is made so of the decisions with `token` from all others."""
        return derived.digest([token, self.how])


def rewritten(
    fmt: Format, selection: Selection, options: Mapping[str, object], step: Step, old: bytes, serial: int, out: BinaryIO
) -> tuple[Rendered, Splice] | None:
    """Write `selection` as `render` does, given that `old` is what it made of `step.before` with `serial` and otherwise
    the same options. None, and nothing written, where that takes more than lines for the entries that differ.

    Raises ReleaseError when a value that comes is unsafe.
    """
    values = fmt.settle(options)
    if not _apart(fmt, selection, step, str(values.get("version", ""))):
        return None
    then = {**values, "serial": serial}
    lost, lost_gone, lost_come = Counter[str](), Counter[str](), Counter[str]()
    before = composed(fmt, Selection(domains=step.before), then, lost)
    gone = composed(fmt, Selection(domains=step.gone), then, lost_gone)
    come = composed(fmt, Selection(domains=step.patch.come), values, lost_come)
    if not len(before) == len(gone) == len(come):
        return None
    counted = [totals(some) for some in (before, gone, come)]
    entries, records = (was - less + more for was, less, more in zip(*counted, strict=True))
    splicing = Splicing(old)
    header, unserialled = framed(fmt, "header", values, entries, records)
    footer, final = framed(fmt, "footer", values, entries, records)
    known = splicing.replace(framed(fmt, "header", then, *counted[0])[0].encode(), header.encode())
    for parts in zip(before, gone, come, strict=True):
        known = known and _spliced(splicing, *parts)
    known = known and splicing.replace(framed(fmt, "footer", then, *counted[0])[0].encode(), footer.encode())
    if not known or footer != final or (splice := splicing.end()) is None:
        return None
    heights = [sum(map(_lines, some)) for some in (before, gone, come)]
    with Sink(out, lines=(header + footer).count("\n") + heights[0] - heights[1] + heights[2]) as sink:
        first = len(header.encode())
        for number, piece in enumerate(splice.pieces()):
            sink.write_bytes(piece, unserialled.encode() + piece[first:] if number == 0 else None)
        sink.finish()
    lost.subtract(lost_gone)
    lost.update(lost_come)
    return sink.rendered(entries, records, lost), splice


def _apart(fmt: Format, selection: Selection, step: Step, version: str) -> bool:
    """Is every line that of one entry, whatever the others are?"""
    others = (selection.between, selection.networks, selection.urls, selection.rows)
    few = step.patch.height + step.gone.height <= _MOST * step.before.height
    if fmt.code not in _CODES or selection.domains is not step.entries or not few or any(o.height for o in others):
        return False
    # The version record of a zone has what is above it said again.
    above = pl.Series([version, *parents(version)] if version else [], dtype=pl.String)
    touched = (step.gone["name"], step.patch.come["name"])
    if any(names.is_in(above.implode()).any() for names in touched):
        return False
    return bool(step.before["block"].all() and step.entries["block"].all())


def _spliced(splicing: Splicing, before: Part, gone: Part, come: Part) -> bool:
    parts = (before, gone, come)
    if not all(isinstance(part, parts_.Lines) for part in parts):
        return False
    lines = [part for part in parts if isinstance(part, parts_.Lines)]
    if len({(part.template, part.gate, part.place, part.records, part.entries) for part in lines}) > 1:
        return False
    if (of := size(lines[0].template, lines[0].values.name)) is None:
        return False
    sizes = [part.values.to_frame().select(of).to_series() for part in lines]
    made = [Lines(part.values, s, _text(part.texts())) for part, s in zip(lines[1:], sizes[1:], strict=True)]
    return splicing.lines(lines[0].values, sizes[0], *made)


def _lines(part: Part) -> int:
    return len(part.values) * (part.template.count("\n") + 1) if isinstance(part, parts_.Lines) else 0


def _text(pieces: Iterable[bytes]) -> bytes:
    return b"".join(pieces)
