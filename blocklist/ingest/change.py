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

import msgspec
import polars as pl

from blocklist.catalog import Feed
from blocklist.hunks import Hunk
from blocklist.ingest.formats import BY_LINE
from blocklist.ingest.normalize import OCCURRENCE, SCHEMA, unique
from blocklist.ingest.parse import LineReader, Parsed, blocks, refuse_pages, text_of
from blocklist.ingest.refused import Refused
from blocklist.names import Reject

# Below this many bytes reading everything is as quick.
_WORTH_IT = 65_536
# By what two occurrences of one name may differ; of what else they say, the order of their lines decides.
_ORDERLESS = ("name", "kind", "subtree", "confidence")
_SHARED = 2**32 - 1


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
        account["format"] not in BY_LINE
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
    less, gone = _read(feed, account["format"], old, [(h.gone, h.gone_end) for h in changed])
    out, come = _read(feed, account["format"], new, [(h.come, h.come_end) for h in changed])
    touched = pl.concat([gone["name"], come["name"]]).unique().sort()
    had = _rows(before, touched)
    counts = _counts(had, repeated, touched, gone, come)
    if counts is None:
        return None
    now, _ = unique(
        counts.with_columns(pl.col("line").fill_null(_SHARED)).select(SCHEMA.names()),
        feed.confidence,
    )
    out.difference = added, removed, _ = difference(had, now)
    if (added["line"] == _SHARED).any():
        # What changed is said by a line that both share: where it stands now, only reading all will tell.
        return None
    out.frame = _without(before, removed["name"]).merge_sorted(added, key="name")
    out.repeated = _repeated(repeated, touched, counts)
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


def _read(feed: Feed, format_name: str, data: bytes, parts: Sequence[tuple[int, int]]) -> tuple[Parsed, pl.DataFrame]:
    """Some lines, read like a whole file of them: their account, and their indicators, not yet unique."""
    out = Parsed(pl.DataFrame(schema=SCHEMA), format_name)
    parts = [part for part in parts if part[0] < part[1]]
    reader = LineReader(feed, out, msgspec.structs.replace(feed.input, name=format_name))
    text = b"".join(data[begin:end] for begin, end in parts)
    frames = [reader.read(block, first) for first, block in blocks(text)]
    if not frames:
        return out, out.frame
    # From the number among these lines to the number in the file.
    numbers: list[int] = []
    number, at = 1, 0
    for begin, end in parts:
        number += data.count(b"\n", at, begin)
        lines = data.count(b"\n", begin, end)
        numbers += range(number, number + lines + (data[end - 1 : end] != b"\n"))
        number, at = number + lines, end
    rows = pl.concat(frames)
    return out, rows.with_columns(pl.Series(numbers, dtype=pl.UInt32).gather(rows["line"] - 1).alias("line"))


def _rows(before: pl.DataFrame, names: pl.Series) -> pl.DataFrame:
    """The rows of `before`, sorted by name, that have one of `names`, sorted too."""
    if before.is_empty():
        return before
    at = before["name"].search_sorted(names).clip(0, before.height - 1)
    return before[at.filter(before["name"].gather(at) == names)]


def _without(before: pl.DataFrame, names: pl.Series) -> pl.DataFrame:
    """`before` without the rows of `names`, which are all in it."""
    if names.is_empty():
        return before
    keep = pl.repeat(True, before.height, eager=True, dtype=pl.Boolean)
    return before.filter(keep.scatter(before["name"].search_sorted(names), False))


def _counts(
    had: pl.DataFrame, repeated: pl.DataFrame | None, touched: pl.Series, gone: pl.DataFrame, come: pl.DataFrame
) -> pl.DataFrame | None:
    """Every occurrence of the names of `touched` that is left, with `count`, and `line` where its line is new.

    None when the occurrences before don't fit the difference, or the order of lines would decide.
    """
    key, none = list(OCCURRENCE), pl.lit(None, pl.UInt32).alias("line")
    parts = [
        gone.select(*key, pl.lit(-1, pl.Int64).alias("count"), none),
        come.select(*key, pl.lit(1, pl.Int64).alias("count"), "line"),
    ]
    if repeated is not None:
        again = repeated.filter(pl.col("name").is_in(touched.implode()))
        parts.append(again.select(*key, pl.col("count").cast(pl.Int64), none))
        had = had.filter(~pl.col("name").is_in(again["name"].unique().implode()))
    parts.append(had.select(*key, pl.lit(1, pl.Int64).alias("count"), none))
    counts = pl.concat(parts).group_by(key).agg(pl.col("count").sum(), pl.col("line").min())
    if (counts["count"] < 0).any():
        return None
    counts = counts.filter(pl.col("count") > 0)
    told = [name for name in key if name not in _ORDERLESS and counts[name].null_count() < counts.height]
    if told and counts.select("name", *told).unique()["name"].is_duplicated().any():
        return None
    return counts


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
