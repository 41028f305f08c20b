"""Only the lines that changed: a new snapshot read from the difference to the one before.

Feeds change a little at a time. The lines that both snapshots share need not be read again: what the others say
is taken out of and put into the indicators and the account of before. The result is what `blocklist.ingest.parse`
gives (a property test says so), but for `line`, which stays that of the snapshot that first said so, as it does
in the record.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from blocklist.catalog import KINDS, Feed
from blocklist.hunks import Hunk
from blocklist.ingest.formats import BY_HEAD, BY_LINE
from blocklist.ingest.heads import Parts, with_heads
from blocklist.ingest.normalize import OCCURRENCE, SCHEMA, unique
from blocklist.ingest.parse import Parsed, refuse_pages, text_of
from blocklist.ingest.plain import read
from blocklist.ingest.refused import Refused
from blocklist.names import Reject

# Below this many bytes reading everything is as quick.
_WORTH_IT = 8_192
# Lines of names are looked for in as many bytes (20 ms), and as many of them are read.
_MOST_SEARCHED = 64 * 2**20
_MOST_FOUND = 10_000
_SHARED = 2**32 - 1
_NEWLINE = 10


def parse_change(
    feed: Feed,
    old: bytes,
    new: bytes,
    changed: Sequence[Hunk],
    before: pl.DataFrame,
    repeated: pl.DataFrame | None,
    account: Mapping[str, Any],
) -> Parsed | None:
    """Indicators of `new`, given those of `old`; None when only reading it all will do.

    `changed`: hunks of the two (`blocklist.hunks`). `before`, `repeated` and `account`: what was read from `old`.
    Raises FeedGated for a page instead of a list, like `parse`.
    """
    started = time.perf_counter()
    known = before.height if repeated is None else before.height - repeated["name"].n_unique() + repeated["count"].sum()
    if (
        account["format"] not in BY_LINE | BY_HEAD
        or feed.input.name not in ("auto", account["format"])
        # The keys of a guess are not in the account; a rule that takes others back stands anywhere.
        or (feed.input.name == "auto" and account["format"] == "jsonl")
        or (account["format"] == "adblock" and (b"badfilter" in old or b"badfilter" in new))
        or feed.first is not None
        or len(new) < _WORTH_IT
        # Occurrences that are not known can't be counted down.
        or sum(account["indicators"].values()) != known
        # Bytes that are decoded as a whole.
        or any(text_of(data) is not data for data in (old, new))
    ):
        return None
    refuse_pages(new, feed)
    parts = _parts(account["format"], old, new, changed)
    if parts is None:
        return None
    texts = [_text(data, some) for data, some in zip((old, new), parts, strict=True)]
    (less, gone), (out, come) = read(feed, account["format"], texts, account["indicators"])
    gone, come = gone.sort("name"), _numbered(come, new, parts[1]).sort("name")
    at, to = (before["name"].search_sorted(rows["name"]) for rows in (gone, come))
    if _once(before, repeated, gone, come, at, to):
        out.difference, out.repeated = (come, before[at], 0), repeated
    else:
        touched = pl.concat([gone["name"], come["name"]]).unique().sort()
        had = _rows(before, touched)
        again = None if repeated is None else _rows(repeated, touched, several=True)
        counts = _counts(had, again, gone, come)
        if counts is None:
            return None
        out.difference = _joined(had, counts, feed)
        # What changed may be said by a line that both share, which stands where only the text can tell.
        shared = out.difference[0].filter(pl.col("line") == _SHARED)["name"]
        if len(unknown := pl.concat([_unordered(counts), shared]).unique()):
            counts = _ordered(counts, unknown, feed, account["format"], new)
            if counts is None:
                return None
            out.difference = _joined(had, counts, feed)
        out.repeated = _repeated(repeated, touched, counts)
        at, to = (before["name"].search_sorted(rows["name"]) for rows in (out.difference[1], out.difference[0]))
    out.frame = _replaced(before, at, out.difference[0], to)
    out.lines += account["lines"] - less.lines
    out.blank += account["blank"] - less.blank
    out.comments += account["comments"] - less.comments
    out.extra += account["extra"] - less.extra
    out.masked += account["masked"] - less.masked
    out.notes = _sum(account.get("notes", {}), out.notes, less.notes)
    out.kinds = _sum(account["indicators"], out.kinds, less.kinds)
    rejects = {Reject(reason): count for reason, count in account["rejects"].items()}
    out.rejects = Refused(_sum(rejects, out.rejects, less.rejects))
    out.why = account.get("why", "")
    out.seconds = time.perf_counter() - started
    return out


def difference(before: pl.DataFrame | None, now: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    """Rows that open and rows that close a listing, and how many of them only change one.

    The line is no part of it: a feed that inserts one line at its top must not rewrite every listing.
    """
    if before is None or before.is_empty():
        return now, now.clear(), 0
    still = now["name"].is_in(before["name"].implode())
    if not still.any():
        return now, before, 0
    stays = before["name"].is_in(now["name"].implode())
    # Both are sorted by name and unique in it, so what they share stands in the same order.
    new, old = now.filter(still), before.filter(stays)
    differs = new["subtree"] != old["subtree"]
    for column in ("confidence", "extra"):
        if new[column].null_count() < new.height or old[column].null_count() < old.height:
            differs = differs | new[column].ne_missing(old[column])
    added = pl.concat([now.filter(~still), new.filter(differs)]).sort("name")
    removed = pl.concat([before.filter(~stays), old.filter(differs)]).sort("name")
    return added, removed, int(differs.sum())


def _parts(format_name: str, old: bytes, new: bytes, changed: Sequence[Hunk]) -> tuple[Parts, Parts] | None:
    """Stretches of `old` and `new`, in whole lines, that tell all that differs; None when only reading all does."""
    if format_name in BY_LINE:
        return [(h.gone, h.gone_end) for h in changed], [(h.come, h.come_end) for h in changed]
    return with_heads(old, new, changed)


def _text(data: bytes, parts: Parts) -> bytes:
    return b"".join([data[begin:end] for begin, end in parts])


def _numbered(rows: pl.DataFrame, data: bytes, parts: Parts) -> pl.DataFrame:
    """`rows`, whose `line` is the number among the lines of `parts`, with the number in all of `data`."""
    if rows.is_empty():
        return rows
    numbers: list[int] = []
    number, at, count = 1, 0, data.count
    for begin, end in parts:
        if begin < end:
            first = number + count(b"\n", at, begin)
            number, at = first + count(b"\n", begin, end), end
            numbers += range(first, number)
    if at and data[at - 1] != _NEWLINE:
        numbers.append(number)
    return rows.with_columns(pl.Series("line", numbers, dtype=pl.UInt32).gather(rows["line"] - 1))


def _rows(table: pl.DataFrame, names: pl.Series, *, several: bool = False) -> pl.DataFrame:
    """The rows of `table`, sorted by name, that have one of `names`, sorted too; there may be `several` of each."""
    if table.is_empty() or names.is_empty():
        return table.clear()
    if several:
        return table.filter(table["name"].is_in(names.implode()))
    at = table["name"].search_sorted(names).clip(0, table.height - 1)
    return table[at.filter(table["name"].gather(at) == names)]


def _once(
    before: pl.DataFrame,
    repeated: pl.DataFrame | None,
    gone: pl.DataFrame,
    come: pl.DataFrame,
    at: pl.Series,
    to: pl.Series,
) -> bool:
    """Does each name of `gone` and `come` stand on one line of the two texts alone, as it does in most changes?

    All are sorted by name; `at` and `to` are where those names are in `before`, or would be.
    """
    if any(rows["name"].n_unique() < rows.height for rows in (gone, come)):
        return False
    if gone.height and (at[-1] == before.height or not _said(before[at]).equals(_said(gone))):
        return False
    inside = to < before.height
    if (before["name"].gather(to.filter(inside)) == come["name"].filter(inside)).any():
        return False
    return repeated is None or not repeated["name"].is_in(gone["name"].implode()).any()


def _said(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.drop("line")


def _replaced(before: pl.DataFrame, gone: pl.Series, added: pl.DataFrame, to: pl.Series) -> pl.DataFrame:
    """`before` without the rows `gone` (numbers) and with `added`, which belong before its rows `to`.

    All are sorted by name.
    """
    if gone.is_empty() and added.is_empty():
        return before
    stays = pl.repeat(True, before.height, eager=True, dtype=pl.Boolean).scatter(gone, False).arg_true()
    # Where each of `added` comes to stand: behind all that stays before it and those of them that come before it.
    place = to - gone.search_sorted(to) + pl.int_range(added.height, dtype=pl.UInt32, eager=True)
    height = len(stays) + added.height
    others = pl.repeat(True, height, eager=True, dtype=pl.Boolean).scatter(place, False).arg_true()
    order = pl.repeat(0, height, eager=True, dtype=pl.UInt32).scatter(others, stays)
    order = order.scatter(place, pl.int_range(before.height, before.height + added.height, dtype=pl.UInt32, eager=True))
    return pl.concat([before, added], rechunk=True)[order]


def _counts(
    had: pl.DataFrame, again: pl.DataFrame | None, gone: pl.DataFrame, come: pl.DataFrame
) -> pl.DataFrame | None:
    """Every occurrence of names that is left, with `count`, and the first `line` of those of them that came, `seen`.

    In: their rows before, and of those that stood more than once all occurrences; what is gone, and what came. None
    when the occurrences before don't fit the difference.
    """
    none = pl.lit(None, pl.UInt32).alias("line")
    parts = [
        gone.select(*OCCURRENCE, pl.lit(-1, pl.Int64).alias("count"), none),
        come.select(*OCCURRENCE, pl.lit(1, pl.Int64).alias("count"), "line"),
    ]
    if again is not None and again.height:
        parts.append(again.select(*OCCURRENCE, pl.col("count").cast(pl.Int64), none))
        had = had.filter(~had["name"].is_in(again["name"].unique().implode()))
    parts.append(had.select(*OCCURRENCE, pl.lit(1, pl.Int64).alias("count"), none))
    line = pl.col("line")
    counts = pl.concat(parts).group_by(OCCURRENCE).agg(pl.col("count").sum(), line.min(), line.count().alias("seen"))
    if (counts["count"] < 0).any():
        return None
    return counts.filter(pl.col("count") > 0)


def _joined(had: pl.DataFrame, counts: pl.DataFrame, feed: Feed) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    """The `difference` of the rows of names before and what `counts` makes of them."""
    rows = counts.select(pl.col("line").fill_null(_SHARED) if name == "line" else name for name in SCHEMA)
    return difference(had, unique(rows, feed.confidence)[0])


def _unordered(counts: pl.DataFrame) -> pl.Series:
    """Names of which the order of their lines decides what they say, and that order is not known."""
    if counts["extra"].null_count() == counts.height:
        return pl.Series("name", [], dtype=pl.String)
    some = counts.filter(counts["name"].is_duplicated())
    told = some.group_by("name").agg(
        pl.col("extra").drop_nulls().n_unique() > 1, (pl.col("seen") < pl.col("count")).any()
    )
    return told.filter(pl.col("extra") & pl.col("seen"))["name"]


def _ordered(counts: pl.DataFrame, names: pl.Series, feed: Feed, format_name: str, new: bytes) -> pl.DataFrame | None:
    """`counts` with the first line of every occurrence of `names`, which are looked for in all of `new`.

    None when not just those occurrences are found: a name may be written otherwise than it is read.
    """
    lines = _lines_with(new, names.to_list())
    parts = None if lines is None else _parts(format_name, new, new, lines)
    if parts is None:
        return None
    [(_, rows)] = read(feed, format_name, [_text(new, parts[1])], KINDS)
    rows = _numbered(rows, new, parts[1]).filter(pl.col("name").is_in(names.implode()))
    found = rows.group_by(OCCURRENCE).agg(
        pl.len().cast(pl.Int64).alias("count"), pl.col("line").min(), pl.len().alias("seen")
    )
    wanted = counts["name"].is_in(names.implode())
    key = [*OCCURRENCE, "count"]
    if not found.select(key).sort(key).equals(counts.filter(wanted).select(key).sort(key)):
        return None
    return pl.concat([counts.filter(~wanted), found.select(counts.columns)])


def _lines_with(data: bytes, names: Sequence[str]) -> list[Hunk] | None:
    """Lines in which one of `names` stands, each as a hunk that changes nothing; None when that is long to find."""
    if len(names) * len(data) > _MOST_SEARCHED:
        return None
    found: set[Hunk] = set()
    for name in names:
        text = name.removeprefix("//").encode()
        at = data.find(text)
        while at >= 0:
            begin, end = data.rfind(b"\n", 0, at) + 1, data.find(b"\n", at) + 1 or len(data)
            found.add(Hunk(begin, end, begin, end))
            if len(found) > _MOST_FOUND:
                return None
            at = data.find(text, end)
    return sorted(found)


def _repeated(repeated: pl.DataFrame | None, touched: pl.Series, counts: pl.DataFrame) -> pl.DataFrame | None:
    """Occurrences of all names that stand more than once now."""
    counts = counts.filter(pl.col("count").sum().over("name") > 1).select(*OCCURRENCE, pl.col("count").cast(pl.UInt32))
    if repeated is not None:
        counts = pl.concat([repeated.filter(~pl.col("name").is_in(touched.implode())), counts])
    return counts.sort("name") if counts.height else None


def _sum(account: Mapping[Any, int], more: Mapping[Any, int], less: Mapping[Any, int]) -> dict[Any, int]:
    keys = {**account, **more}
    counts = {key: account.get(key, 0) + more.get(key, 0) - less.get(key, 0) for key in keys}
    return {key: count for key, count in counts.items() if count}
