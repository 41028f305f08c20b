"""A snapshot's bytes to indicators, every line accounted for.

Bytes are cut into blocks at line ends, so that memory follows the block and not the file. Decoding is UTF-8
with replacement: a line with foreign bytes keeps its number and is refused by name, and its raw bytes stay in
the snapshot as evidence.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import msgspec
import polars as pl

from blocklist.catalog import Feed, InputFormat
from blocklist.errors import FeedGated
from blocklist.ingest.content import looks_like_html
from blocklist.ingest.formats import COMMENTS, INDENTED, WHOLE, LineEnd, LineParser, Rows, line_parser, whole_parser
from blocklist.ingest.formats.ports import without_port
from blocklist.ingest.formats.sniff import Chosen, sniff, sniff_document
from blocklist.ingest.normalize import KIND, NONE, normalize, occurrences, unique
from blocklist.ingest.refused import Refused
from blocklist.names import DAMAGED, Reject

# Raised whenever the same bytes would give other indicators, so that feeds that did not change are read again.
PARSER_VERSION = 7

BLOCK = 16 * 2**20
# A column costs 16 bytes a line and more, however short: a file of line ends alone must not cost a gigabyte.
BLOCK_LINES = 500_000
# RFC 9110 §4.1 asks for URLs of 8,000 octets; a longer line is no indicator of any kind.
MAX_LINE = 8_000
BLANK = " \t\r\f\v"
# As many bytes are split quicker without the engine of columns.
_SMALL = 65_536
_NO_ROWS = pl.DataFrame(schema={"number": pl.UInt32, "text": pl.String})


class Parsed(msgspec.Struct):
    """Indicators of one snapshot (`frame`, see `blocklist.ingest.normalize`) and the account of its lines.

    `kinds` and `rejects` count occurrences, before duplicates; `extra` counts tokens beyond a line's first, so
    that `sum(kinds) + sum(rejects) − extra + comments + blank = lines`. `why`: a sentence about the choice of
    the format. `notes` counts what rows say beyond their feed and nobody can read. `repeated`: the occurrences of names
    that stand more than once (see `blocklist.ingest.normalize.occurrences`). `difference`: where only changed lines
    were read, what `blocklist.ingest.change.difference` says of the indicators before and now.
    """

    frame: pl.DataFrame
    format: str
    lines: int = 0
    blank: int = 0
    comments: int = 0
    extra: int = 0
    kinds: dict[str, int] = msgspec.field(default_factory=dict)
    rejects: Refused = msgspec.field(default_factory=Refused)
    masked: int = 0
    why: str = ""
    notes: dict[str, int] = msgspec.field(default_factory=dict)
    seconds: float = 0.0
    repeated: pl.DataFrame | None = None
    difference: tuple[pl.DataFrame, pl.DataFrame, int] | None = None

    @property
    def accepted(self) -> int:
        return sum(self.kinds.values())

    @property
    def unparseable(self) -> int:
        """Occurrences that should have been indicators; what no format can express yet does not count."""
        return sum(n for reason, n in self.rejects.items() if reason in _UNPARSEABLE)


_UNPARSEABLE = {
    Reject.SYNTAX,
    Reject.ENCODING,
    Reject.TOO_LONG,
    Reject.SINGLE_LABEL,
    Reject.IDN,
    Reject.LOOKALIKE,
    Reject.BAD_ADDRESS,
    Reject.BAD_URL,
}


def parse(data: bytes, feed: Feed) -> Parsed:
    """Indicators in `data` as `feed` describes them.

    Raises FeedGated for a page instead of a list (HTML, an error in JSON), FeedError when a table has lost a
    column.
    """
    started = time.perf_counter()
    data = text_of(data)
    refuse_pages(data, feed)
    spec = feed.input
    out = Parsed(NONE, spec.name, why="the feed says so")
    if spec.name == "auto":
        out.why = ""
        if (document := sniff_document(data)) is not None:
            spec = _choose(document, out)
    frames: list[pl.DataFrame] = []
    cancels: frozenset[str] = frozenset()
    if spec.name in WHOLE:
        read = whole_parser(spec.name)(data, spec)
        out.comments = read.comments
        out.rejects.add(read.rejects)
        frames.append(_normalize(_without_ports(read.frame, spec), feed, out))
        # A document has no lines of its own to account for: its items are its lines, and what one says twice is extra.
        out.lines = read.items
        out.extra += read.frame.height + read.comments + sum(read.rejects.values()) - read.items
    else:
        lines = LineReader(feed, out, spec)
        frames += (lines.read(block, first) for first, block in blocks(data))
        frames.append(lines.end())
        cancels = lines.cancels
        if out.format == "auto":
            out.format, out.why = "lines", "nothing in it tells, so each line is one indicator"
    rows = pl.concat(frames) if frames else out.frame
    if cancels:
        rows = _cancel(rows, cancels, out)
    out.frame, repeated = unique(rows, feed.confidence)
    if repeated.height and spec.name not in WHOLE:
        out.repeated = occurrences(repeated)
    if feed.first is not None:
        # Ranked lists (top sites): the first N lines are the N best known.
        out.frame = out.frame.sort("line", "name").head(feed.first).sort("name")
    out.seconds = time.perf_counter() - started
    return out


def _choose(chosen: Chosen, out: Parsed) -> InputFormat:
    out.format, out.why = chosen.spec.name, chosen.why
    return chosen.spec


def _without_ports(rows: pl.DataFrame, spec: InputFormat) -> pl.DataFrame:
    return rows.with_columns(without_port(pl.col("text"))) if spec.ports else rows


def _cancel(frame: pl.DataFrame, cancels: frozenset[str], out: Parsed) -> pl.DataFrame:
    """Leave out what the file itself takes back; counted as unsupported."""
    back = frame["name"].is_in(pl.Series(sorted(cancels), dtype=pl.String).implode())
    for kind, code in KIND.items():
        if count := int((back & (frame["kind"] == code)).sum()):
            out.kinds[kind] -= count
            if not out.kinds[kind]:
                del out.kinds[kind]
    out.rejects.refuse(Reject.UNSUPPORTED, frame["line"].filter(back))
    return frame.filter(~back)


def text_of(data: bytes) -> bytes:
    """The bytes that lines are counted in: UTF-16 with its mark is decoded; a UTF-8 mark is dropped."""
    for mark, codec in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if data.startswith(mark):
            return data[2:].decode(codec, errors="replace").encode()
    return data.removeprefix(b"\xef\xbb\xbf")


def refuse_pages(data: bytes, feed: Feed) -> None:
    """Raise FeedGated when the body is a web page or an error object, as feeds answer when they move or lapse."""
    head = data[:4096].lstrip().lower()
    if looks_like_html(data[:65_536]):
        raise FeedGated(
            f"{feed.id}: the answer is a web page, not a list",
            hint=f"open {feed.urls[0]} in a browser: it may have moved, or want a key",
        )
    if (
        feed.input.name not in ("jsonl", *WHOLE)
        and head.startswith(b"{")
        and len(data) < 65_536
        and (b'"error' in head or b'"message"' in head or b'"status"' in head)
    ):
        raise FeedGated(
            f"{feed.id}: the answer is an error in JSON, not a list: {data[:200].decode(errors='replace')!r}",
            hint=f"open {feed.urls[0]} in a browser: it may have moved, or want a key",
        )


def blocks(data: bytes) -> Iterator[tuple[int, bytes]]:
    """`(number of its first line, bytes)` of blocks that end at line ends."""
    start, number = 0, 1
    while start < len(data):
        size = BLOCK
        while size > BLOCK_LINES and data.count(b"\n", start, start + size) > BLOCK_LINES:
            size //= 2
        end = len(data)
        if end - start > size:
            cut = data.rfind(b"\n", start, start + size)
            if cut < 0:
                cut = data.find(b"\n", start + size)
            end = cut + 1 if cut >= 0 else end
        block = data[start:end]
        yield number, block
        start = end
        if start < len(data):
            number += block.count(b"\n")


class LineReader:
    """Reads the blocks of one file in order: what the first ones decide (format, header) holds for the rest."""

    def __init__(self, feed: Feed, out: Parsed, spec: InputFormat) -> None:
        self._feed, self._spec, self._out = feed, spec, out
        self._parser: LineParser | None = None
        self._end: LineEnd | None = None
        self._waiting = 0
        self.cancels: frozenset[str] = frozenset()

    def read(self, block: bytes, first: int) -> pl.DataFrame:
        """Indicators of `block`, whose first line has the number `first`; its lines go into the account."""
        return self.take(self._split(block, first))

    def take(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Indicators of lines (`number: UInt32`, `line: String`, stripped), which go into the account."""
        return self.take_rows(self._rows(frame))

    def rows(self, text: bytes) -> pl.DataFrame:
        """What the format makes of all lines of a file (see `blocklist.ingest.formats`), for `take_rows`."""
        return self._rows(self._split(text, 1)) if text else _NO_ROWS

    def take_rows(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Indicators of rows of the format, which go into the account."""
        return _normalize(rows, self._feed, self._out) if rows.height else NONE

    def _rows(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Rows of the format; what else the lines are goes into the account."""
        out = self._out
        line, marks = pl.col("line"), COMMENTS[out.format]
        look = frame.select(
            blank=line == "",
            comment=pl.any_horizontal(line.str.starts_with(mark) for mark in marks) if marks else False,
            long=line.str.len_bytes() > MAX_LINE,
        )
        drop = None
        out.lines += frame.height
        if count := int(look["blank"].sum()):
            out.blank += count
            drop = look["blank"]
        if count := int(look["comment"].sum()):
            out.comments += count
            drop = look["comment"] if drop is None else drop | look["comment"]
        if look["long"].any():
            long = look["long"] & ~look["comment"]
            out.rejects.refuse(Reject.TOO_LONG, frame["number"].filter(long))
            drop = long if drop is None else drop | long
        if drop is not None:
            frame = frame.filter(~drop)
        if frame.is_empty():
            return _NO_ROWS
        if self._parser is None:
            self._parser, self._end = line_parser(out.format)
        return self._taken(frame.height, self._parser(frame, self._spec))

    def end(self) -> pl.DataFrame:
        """Indicators of lines that waited for more; after the last block."""
        if not self._waiting or self._end is None:
            return NONE
        return self.take_rows(self._taken(0, self._end(self._spec)))

    def _taken(self, came: int, read: Rows) -> pl.DataFrame:
        """The rows of what was `read` after `came` more lines, which go into the account."""
        out = self._out
        out.comments += read.comments
        out.rejects.add(read.rejects)
        self.cancels |= read.cancels
        # Tokens beyond a line's first: what came out, less the lines that went in and are otherwise accounted for.
        lines = came + self._waiting - read.waiting
        self._waiting = read.waiting
        out.extra += read.frame.height - (lines - read.comments - sum(read.rejects.values()))
        return _without_ports(read.frame, self._spec)

    def _split(self, block: bytes, first: int) -> pl.DataFrame:
        """`number`, `line`: every line, without what is blank at its ends."""
        # Blocks end at line ends, so this one is a line.
        long = len(block) > BLOCK
        lines = lines_of(_cut(block, BLANK, start=True) if long else block)
        if self._out.format == "auto":
            self._guess(lines)
        # An empty first cell of a table with tabs must stay a cell.
        blank = BLANK.replace(self._spec.delimiter, "") if self._spec.name == "csv" else BLANK
        indented = self._spec.name in INDENTED
        if long:
            lines = lines_of(_cut(block, blank, start=not indented))
        line = pl.col("line").str
        return lines.to_frame().select(
            pl.int_range(first, first + len(lines), dtype=pl.UInt32).alias("number"),
            (line.strip_chars_end if indented else line.strip_chars)(blank),
        )

    def _guess(self, lines: pl.Series) -> None:
        """Choose the format by the first lines that are neither blank nor comments, if there are any."""
        lines = lines.str.strip_chars_end(BLANK)
        bare = lines.str.strip_chars_start(BLANK)
        comment = begins(bare, COMMENTS["auto"])
        # A line beyond any indicator's length would only tell what it begins with.
        body = lines.filter(~comment & (bare != "") & (bare.str.len_bytes() <= MAX_LINE))
        if len(body):
            self._spec = _choose(sniff(body, bare.filter(comment)), self._out)


def lines_of(block: bytes) -> pl.Series:
    """The lines of `block`, as they stand."""
    if b"\x00" in block:
        # NUL is no character of any format; the replacement keeps it out of names and in the counts.
        block = block.replace(b"\x00", DAMAGED.encode())
    text = block.decode("utf-8", errors="replace").removesuffix("\n")
    if len(text) < _SMALL:
        return pl.Series("line", text.split("\n"))
    return pl.Series("line", [text]).str.split("\n").explode(keep_nulls=False, empty_as_null=False)


def _cut(line: bytes, blank: str, *, start: bool) -> bytes:
    """`line` without what is `blank` at its end, and at its `start`; too long still, but not by much, where it is that.

    A column costs ten times its bytes. What a line begins with is left, for comments are told by it.
    """
    ends = blank.encode() + b"\n"
    first, last = 0, len(line)
    if start:
        found = re.search(b"[^" + re.escape(ends) + b"]", line)
        first = found.start() if found else last
    while first < last:
        # Piece by piece: `line` may be as large as the file.
        piece = line[max(first, last - MAX_LINE) : last]
        if left := piece.rstrip(ends):
            last -= len(piece) - len(left)
            break
        last -= len(piece)
    return line[first:last] if last - first <= MAX_LINE else line[first : first + MAX_LINE] + b"."


def begins(lines: pl.Series, marks: tuple[str, ...]) -> pl.Series:
    begins = lines.str.starts_with(marks[0])
    for mark in marks[1:]:
        begins = begins | lines.str.starts_with(mark)
    return begins


def _normalize(rows: pl.DataFrame, feed: Feed, out: Parsed) -> pl.DataFrame:
    done = normalize(rows, feed, out.format)
    out.rejects.add(done.rejects)
    for kind, count in done.kinds.items():
        out.kinds[kind] = out.kinds.get(kind, 0) + count
    out.masked += done.masked
    out.extra += done.extra
    for note, count in done.notes.items():
        out.notes[note] = out.notes.get(note, 0) + count
    return done.frame
