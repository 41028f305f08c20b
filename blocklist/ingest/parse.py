"""A snapshot's bytes to indicators, every line accounted for.

Bytes are cut into blocks at line ends, so that memory follows the block and not the file. Decoding is UTF-8
with replacement: a line with foreign bytes keeps its number and is refused by name, and its raw bytes stay in
the snapshot as evidence.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import polars as pl

from blocklist.catalog import Feed
from blocklist.errors import FeedGated
from blocklist.ingest.content import looks_like_html
from blocklist.ingest.formats import COMMENTS, WHOLE, line_parser, whole_parser
from blocklist.ingest.formats.sniff import sniff
from blocklist.ingest.normalize import SCHEMA, normalize, occurrences, unique
from blocklist.names import DAMAGED, Reject

# Raised whenever the same bytes would give other indicators, so that feeds that did not change are read again.
PARSER_VERSION = 2

BLOCK = 16 * 2**20
# A column costs 16 bytes a line and more, however short: a file of line ends alone must not cost a gigabyte.
BLOCK_LINES = 500_000
# RFC 9110 §4.1 asks for URLs of 8,000 octets; a longer line is no indicator of any kind.
MAX_LINE = 8_000


@dataclass
class Parsed:
    """Indicators of one snapshot (`frame`, see `blocklist.ingest.normalize`) and the account of its lines.

    `kinds` and `rejects` count occurrences, before duplicates; `extra` counts tokens beyond a line's first, so
    that `sum(kinds) + sum(rejects) − extra + comments + blank = lines`. `repeated`: the occurrences of names that
    stand more than once (see `blocklist.ingest.normalize.occurrences`). `difference`: where only changed lines were
    read, what `blocklist.ingest.change.difference` says of the indicators before and now.
    """

    frame: pl.DataFrame
    format: str
    lines: int = 0
    blank: int = 0
    comments: int = 0
    extra: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    rejects: dict[Reject, int] = field(default_factory=dict)
    masked: int = 0
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
    data = as_utf8(data)
    refuse_pages(data, feed)
    spec = feed.input
    out = Parsed(pl.DataFrame(schema=SCHEMA), spec.name)
    frames: list[pl.DataFrame] = []
    if spec.name in WHOLE:
        read = whole_parser(spec.name)(data, spec)
        frames.append(_normalize(read.frame, feed, out))
        # A document has no lines of its own to account for: its items are its lines.
        out.lines = out.accepted + sum(out.rejects.values())
    else:
        lines = LineReader(feed, out)
        frames += (lines.read(block, first) for first, block in blocks(data))
        if out.format == "auto":
            out.format = "lines"
    if frames:
        rows = pl.concat(frames)
        out.frame = unique(rows, feed.confidence)
        if out.frame.height < rows.height and spec.name not in WHOLE:
            out.repeated = occurrences(rows)
    if feed.first is not None:
        # Ranked lists (top sites): the first N lines are the N best known.
        out.frame = out.frame.sort("line", "name").head(feed.first).sort("name")
    out.seconds = time.perf_counter() - started
    return out


def as_utf8(data: bytes) -> bytes:
    """UTF-16 with its mark is decoded; a UTF-8 mark is dropped."""
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
        feed.input.name not in ("jsonl", "misp")
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

    def __init__(self, feed: Feed, out: Parsed) -> None:
        self._feed, self._spec, self._out = feed, feed.input, out
        self._header: pl.DataFrame | None = None
        blank = " \t\r\f\v"
        # An empty first cell of a table with tabs must stay a cell.
        self._blank = blank.replace(self._spec.delimiter, "") if self._spec.name == "csv" else blank

    def read(self, block: bytes, first: int) -> pl.DataFrame:
        """Indicators of `block`, whose first line has the number `first`; its lines go into the account."""
        return self.rows(self._marks(self._split(block, first)))

    def rows(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Indicators of lines that are neither blank nor comments (`number`, `line`)."""
        out = self._out
        too_long = frame["line"].str.len_bytes() > MAX_LINE
        if too_long.any():
            _add(out.rejects, {Reject.TOO_LONG: int(too_long.sum())})
            frame = frame.filter(~too_long)
        if frame.is_empty():
            return pl.DataFrame(schema=SCHEMA)
        repeated = 0
        if out.format == "csv" and self._spec.header:
            if self._header is None:
                self._header = frame.head(1)
            else:
                frame, repeated = pl.concat([self._header, frame]), 1
        read = line_parser(out.format)(frame, self._spec)
        out.comments += read.comments - repeated
        _add(out.rejects, read.rejects)
        # Tokens beyond a line's first: what came out, less the lines that went in and are otherwise accounted for.
        out.extra += read.frame.height - (frame.height - read.comments - sum(read.rejects.values()))
        return _normalize(read.frame, self._feed, out)

    def _split(self, block: bytes, first: int) -> pl.DataFrame:
        """`number`, `line`: what is not blank."""
        if b"\x00" in block:
            # NUL is no character of any format; the replacement keeps it out of names and in the counts.
            block = block.replace(b"\x00", DAMAGED.encode())
        text = block.decode("utf-8", errors="replace").removesuffix("\n")
        lines = pl.Series("line", [text]).str.split("\n").explode(keep_nulls=False, empty_as_null=False)
        frame = pl.DataFrame({"line": lines.str.strip_chars(self._blank)}).with_row_index("number", offset=first)
        out = self._out
        out.lines += frame.height
        keep = frame["line"] != ""
        if blank := frame.height - int(keep.sum()):
            out.blank += blank
            frame = frame.filter(keep)
        return frame

    def _marks(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Lines that are no comments; the first of them choose the format where the feed names none."""
        out = self._out
        if out.format == "auto":
            body = frame.filter(~begins(frame["line"], COMMENTS["auto"]))
            if body.height:
                # A line beyond any indicator's length would only tell what it begins with.
                out.format = sniff(body["line"].filter(body["line"].str.len_bytes() <= MAX_LINE))
        if marks := COMMENTS[out.format]:
            comment = begins(frame["line"], marks)
            if comment.any():
                out.comments += int(comment.sum())
                frame = frame.filter(~comment)
        return frame


def begins(lines: pl.Series, marks: tuple[str, ...]) -> pl.Series:
    begins = lines.str.starts_with(marks[0])
    for mark in marks[1:]:
        begins = begins | lines.str.starts_with(mark)
    return begins


def _add(rejects: dict[Reject, int], more: Mapping[Reject, int]) -> None:
    for reason, count in more.items():
        rejects[reason] = rejects.get(reason, 0) + count


def _normalize(rows: pl.DataFrame, feed: Feed, out: Parsed) -> pl.DataFrame:
    done = normalize(rows, feed, out.format)
    _add(out.rejects, done.rejects)
    for kind, count in done.kinds.items():
        out.kinds[kind] = out.kinds.get(kind, 0) + count
    out.masked += done.masked
    return done.frame
