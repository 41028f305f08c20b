"""A few lines of one or two texts, of which most are plain: one name, address or URL that nobody need look at twice.

Those are told apart by a few looks at all of them together. What is left goes the way of whole files, which costs a
hundred small steps however few lines it is. Both give the same (a property test says so).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec
import polars as pl

from blocklist.catalog import Feed
from blocklist.ingest.formats import BY_HEAD, COMMENTS, plain_columns
from blocklist.ingest.meaning import judge
from blocklist.ingest.normalize import KIND, NONE, SCHEMA, host_alone, plain_kind, plain_name, scope_of
from blocklist.ingest.parse import BLANK, MAX_LINE, LineReader, Parsed, blocks, lines_of

# More bytes are read in blocks.
_FEW = 4 * 2**20


def read(
    feed: Feed, format_name: str, texts: Sequence[bytes], kinds: Collection[str]
) -> list[tuple[Parsed, pl.DataFrame]]:
    """Each of `texts` read like a whole file: its account, and its indicators, not yet unique, in any order.

    `kinds`: of what most of them are.
    """
    spec = msgspec.structs.replace(feed.input, name=format_name)
    outs = [Parsed(NONE, format_name) for _ in texts]
    readers = [LineReader(feed, out, spec) for out in outs]
    kinds = {kind for kind in kinds if not feed.kinds or kind in feed.kinds}
    if feed.url_hosts:
        kinds.discard("url")
    columns = plain_columns(format_name, pl.col("line"), spec)
    if 0 < sum(map(len, texts)) < _FEW:
        if columns:
            look, sizes = _lines(texts, format_name, columns, kinds, outs)
            return _read(feed, format_name, look, sizes, kinds, outs, readers)
        if format_name in BY_HEAD:
            look, sizes = _rows(texts, kinds, readers)
            return _read(feed, format_name, look, sizes, kinds, outs, readers)
    return [
        (out, _joined([reader.read(block, first) for first, block in blocks(text)]))
        for out, reader, text in zip(outs, readers, texts, strict=True)
    ]


def _lines(
    texts: Sequence[bytes],
    format_name: str,
    columns: Sequence[pl.Expr],
    kinds: Collection[str],
    outs: Sequence[Parsed],
) -> tuple[pl.DataFrame, list[int]]:
    """`number` in its text, `line`, `columns` and `code` of all lines but blank ones and comments, and how many of each
    text. Those others go into the accounts.
    """
    ended = [text if text.endswith(b"\n") or not text else text + b"\n" for text in texts]
    sizes = [text.count(b"\n") for text in ended]
    line, marks = pl.col("line"), COMMENTS[format_name]
    numbers = pl.concat([pl.int_range(1, size + 1, dtype=pl.UInt32, eager=True) for size in sizes])
    look = lines_of(b"".join(ended)).to_frame().select(line.str.strip_chars(BLANK), numbers.alias("number"))
    look = look.with_columns(
        *columns,
        blank=line == "",
        comment=pl.any_horizontal(line.str.starts_with(mark) for mark in marks),
    )
    begin = 0
    for i, (out, size) in enumerate(zip(outs, sizes, strict=True)):
        out.blank, out.comments = (int(look[name][begin : begin + size].sum()) for name in ("blank", "comment"))
        out.lines, begin = out.blank + out.comments, begin + size
        sizes[i] -= out.lines
    if sum(sizes) < look.height:
        look = look.filter(~(pl.col("blank") | pl.col("comment")))
    if max(map(len, texts)) > MAX_LINE:
        look = look.with_columns(pl.when(line.str.len_bytes() <= MAX_LINE).then("text").alias("text"))
    return _told(look, kinds), sizes


def _rows(
    texts: Sequence[bytes], kinds: Collection[str], readers: Sequence[LineReader]
) -> tuple[pl.DataFrame, list[int]]:
    """The rows of a format whose lines don't stand alone, with `code`, and how many of each text."""
    parts = [reader.rows(text) for reader, text in zip(readers, texts, strict=True)]
    look = pl.concat(parts, how="diagonal") if len(parts) > 1 else parts[0]
    return _told(look, kinds), [part.height for part in parts]


def _told(look: pl.DataFrame, kinds: Collection[str]) -> pl.DataFrame:
    if "url" in kinds:
        look = look.with_columns(host_alone())
    return look.with_columns(plain_kind(kinds))


def _read(
    feed: Feed,
    format_name: str,
    look: pl.DataFrame,
    sizes: Sequence[int],
    kinds: Collection[str],
    outs: Sequence[Parsed],
    readers: Sequence[LineReader],
) -> list[tuple[Parsed, pl.DataFrame]]:
    told = look["code"].is_not_null()
    odd = None
    if not told.all():
        odd, look = look.filter(~told).drop("code"), look.filter(told)
    known = judge(look).rows
    plain = known.select(
        plain_name(kinds),
        kind="code",
        subtree=(pl.col("code") == KIND["domain"]) & scope_of(feed, format_name, stated="subtree" in known.columns),
        line="number",
        confidence=pl.lit(None, SCHEMA["confidence"]),
        extra="extra" if "extra" in known.columns else pl.lit(None, SCHEMA["extra"]),
    )
    begin, found = 0, []
    for out, reader, size in zip(outs, readers, sizes, strict=True):
        count = int(told[begin : begin + size].sum())
        ours, plain, begin = plain.head(count), plain.slice(count), begin + size
        for kind in kinds:
            if here := int((ours["kind"] == KIND[kind]).sum()):
                out.kinds[kind] = here
        frames = [ours]
        if "line" in look.columns:
            out.lines += count
        if odd is not None and size > count:
            some, odd = odd.head(size - count), odd.slice(size - count)
            frames.append(
                reader.take(some.select("number", "line")) if "line" in some.columns else reader.take_rows(some)
            )
        found.append((out, _joined(frames)))
    return found


def _joined(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    frames = [frame for frame in frames if frame.height]
    return pl.concat(frames) if len(frames) > 1 else frames[0] if frames else NONE
