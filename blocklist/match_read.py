"""Logs to what was asked for, by whom, how often: a block at a time, so that memory follows what differs."""

from __future__ import annotations

import io
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import msgspec
import polars as pl

from blocklist.ingest.decompress import DecodeError, Decompressor
from blocklist.match_forms import Form, LogError, Reader, reader
from blocklist.names import RejectedError, to_ascii
from blocklist.select import networks

_BLOCK = 16 * 2**20
_PIECE = 2**20
_AT_ONCE = 2
# A line of a log that is longer says nothing that a list could hold (RFC 9110 §4.1: URLs of 8,000 octets).
_MAX_LINE = 16_000
# Counts of blocks are joined when there are so many of them.
_JOINED = 2_000_000
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
# Logs are packed with what `zstd --long` allows by default.
_WINDOW = 128 * 2**20
_URL = (
    r"^(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):)?//(?:[^/?#@\\]*@)?"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^/:?#\[\]]*)(?::(?P<port>[0-9]{0,5}))?(?P<rest>[/?#].*)?$"
)
_WITH_PORT = r"^(\[[0-9A-Fa-f:.]+\]|[^:/\[\]]+):[0-9]{1,5}$"
_PORTS = {"http": "80", "https": "443", "ftp": "21"}


class Log(msgspec.Struct, frozen=True):
    """One file as it was read: `lines` of which `queries` asked for something."""

    place: str
    form: Form
    lines: int
    queries: int


class Asked(msgspec.Struct, frozen=True):
    """`things`, row number = thing: `host: String` (a name in lower case or an address), `address: Boolean`,
    `url: String` (as in the record, else null). `pairs`: `thing: UInt32`, `client: String`, `count: UInt32`.
    """

    logs: list[Log]
    things: pl.DataFrame
    pairs: pl.DataFrame


def read(places: list[str], form: str | None = None) -> Asked:
    """All of `places` (files, or `-` for standard input) together. Raises LogError."""
    logs, parts = [], []
    for place in places:
        log, counts = _read(place, form)
        logs.append(log)
        parts.append(_understood(counts, log.form))
    keys = ["host", "address", "url"]
    things = pl.concat([known.select(keys) for known, _ in parts]).unique(maintain_order=True).with_row_index("thing")
    pairs = []
    for known, counts in parts:
        # By the number of its text each, so that nothing is joined by text but what differs.
        number = known.join(things, on=keys, how="left", nulls_equal=True, maintain_order="left")["thing"]
        pairs.append(counts.select(number.gather(counts["text"]).alias("thing"), "client", "count"))
    together = pl.concat(pairs).group_by("thing", "client").agg(pl.col("count").sum())
    return Asked(logs, things.select(keys), together)


def _read(place: str, asked: str | None) -> tuple[Log, pl.DataFrame]:
    """The log, and `what`, `client`, `count`."""
    how: Reader | None = None
    lines = queries = waiting = 0
    parts: list[pl.DataFrame] = []
    work: deque[Future[tuple[int, pl.DataFrame]]] = deque()

    def take(done: Future[tuple[int, pl.DataFrame]]) -> None:
        nonlocal lines, queries, waiting, parts
        count, found = done.result()
        lines += count
        queries += found.height
        waiting += found.height
        parts.append(found.with_columns(count=pl.lit(1, pl.UInt32)))
        if waiting > _JOINED:
            parts = [_joined(parts)]
            waiting = 0

    # Patterns run on one core each; a few blocks at a time are in memory.
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for block in _blocks(place):
            if how is None:
                how = reader(_readable(_lines(block)), place, asked)
            work.append(pool.submit(_asked_in, block, how))
            if len(work) > _AT_ONCE:
                take(work.popleft())
        for done in work:
            take(done)
    if how is None:
        raise LogError(f"{place}: it is empty", hint="a log of queries was expected")
    return Log(place, how.form, lines, queries), _joined(parts)


def _asked_in(block: bytes, how: Reader) -> tuple[int, pl.DataFrame]:
    """How many lines a block has, and `what`, `client` of those that ask."""
    frame = _lines(block)
    return frame.height, how.read(_readable(frame))


def _readable(lines: pl.DataFrame) -> pl.DataFrame:
    return lines.filter(pl.col("line").str.len_bytes().is_between(1, _MAX_LINE))


def _joined(parts: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(parts).group_by("what", "client").agg(pl.col("count").sum())


def _lines(block: bytes) -> pl.DataFrame:
    try:
        return pl.read_lines(io.BytesIO(block), name="line")
    except pl.exceptions.ComputeError:  # not UTF-8
        return pl.read_lines(io.BytesIO(block.decode("utf-8", errors="replace").encode()), name="line")


# Files


def _blocks(place: str) -> Iterator[bytes]:
    """Blocks that end at line ends; a line that is longer than a block falls apart."""
    waiting: list[bytes] = []
    size = 0
    for piece in _pieces(place):
        waiting.append(piece)
        size += len(piece)
        if size < _BLOCK:
            continue
        whole = b"".join(waiting)
        cut = whole.rfind(b"\n") + 1 or len(whole)
        yield whole[:cut]
        waiting, size = [whole[cut:]], len(whole) - cut
    if size:
        yield b"".join(waiting)


def _pieces(place: str) -> Iterator[bytes]:
    """The bytes of a file, unpacked where its first bytes say that it is packed."""
    try:
        with ExitStack() as stack:
            file: BinaryIO = sys.stdin.buffer if place == "-" else stack.enter_context(Path(place).open("rb"))
            first = file.read(_PIECE)
            coding = next((name for magic, name in _MAGIC.items() if first.startswith(magic)), "identity")
            unpack = Decompressor(coding, limit=sys.maxsize, window=_WINDOW)
            piece = first
            while piece:
                yield from unpack.feed(piece)
                piece = file.read(_PIECE)
            if first:
                unpack.finish()
    except DecodeError as error:
        raise LogError(f"{place}: {error}", hint="the file is damaged, or still being written") from None
    except OSError as error:
        raise LogError(
            f"{place}: {error.strerror}", hint="name a file that can be read, or - for standard input"
        ) from None


# Meaning


def _understood(counts: pl.DataFrame, form: Form) -> tuple[pl.DataFrame, pl.DataFrame]:
    """`host`, `address`, `url` of each text that means something, and `counts` with the row of its `text` in that."""
    texts = counts.select(pl.col("what").unique())
    if form.names:
        known = texts.with_columns(_plain(pl.col("what")).alias("host"), address=pl.lit(False), url=_NO_URL)
    else:
        known = _targets(texts)
    counted = counts.join(known.select("what").with_row_index("text"), on="what")
    return known.select("host", "address", "url"), counted.select("text", "client", "count")


_NO_URL = pl.lit(None, pl.String)


def _plain(name: pl.Expr) -> pl.Expr:
    return name.str.to_lowercase().str.strip_suffix(".")


def _targets(texts: pl.DataFrame) -> pl.DataFrame:
    """Names, addresses, URLs and `host:port`, each as what it is."""
    is_url = pl.col("what").str.contains("//", literal=True)
    urls = texts.filter(is_url).select("what", pl.col("what").str.extract_groups(_URL).struct.unnest())
    # With a scheme of its own a port may go without saying, and is then left out as in the record.
    default = pl.col("scheme").str.to_lowercase().replace_strict(_PORTS, default="")
    port = pl.col("port").fill_null("")
    host = _plain(pl.col("host"))
    rest = pl.col("rest").fill_null("").str.replace("#.*$", "")
    slash = pl.when(rest.str.starts_with("/")).then(pl.lit("")).otherwise(pl.lit("/"))
    shown = pl.when((port == "") | (port == default)).then(pl.lit("")).otherwise(pl.lit(":") + port)
    urls = urls.drop_nulls("host").select(
        "what",
        host.str.strip_chars("[]").alias("host"),
        # What names a host alone stands for it, as in `blocklist.audit.thing.recognise`.
        pl.when(~rest.str.contains(r"^/?\??$"))
        .then(pl.concat_str(pl.lit("//"), host, shown, slash, rest))
        .alias("url"),
    )
    bare = pl.col("what").str.extract(_WITH_PORT, 1).fill_null(pl.col("what")).str.strip_chars("[]")
    others = texts.filter(~is_url).select("what", _plain(bare).alias("host"), _NO_URL.alias("url"))
    known = pl.concat([urls, others]).filter(pl.col("host") != "")
    known = known.with_columns(_ascii(known["host"]))
    area = networks.parse(known["host"])
    known = known.with_columns(area["family"].is_not_null().alias("address"))
    # An address has many spellings, a network none in a log.
    spelt = networks.text(area.select("family", "first", "last")).alias("host")
    return known.with_columns(pl.when("address").then(spelt).otherwise("host").alias("host")).select(
        "what", "host", "address", "url"
    )


def _ascii(names: pl.Series) -> pl.Series:
    """A-labels of the few names beyond ASCII; what is none stays as it is, and matches nothing."""
    foreign = names.filter(names.str.len_bytes() != names.str.len_chars()).unique()
    table: dict[str, str] = {}
    for name in foreign:
        try:
            table[name] = to_ascii(name)
        except RejectedError:
            continue
    return names.replace(table) if table else names


__all__ = ["Asked", "Log", "read"]
