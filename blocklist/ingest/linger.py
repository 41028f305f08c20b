"""Listings that outlive their line: what a feed drops stays for its `linger`, and comes back without a gap."""

from __future__ import annotations

import msgspec
import polars as pl

from blocklist.catalog import Feed
from blocklist.select import lifetime
from blocklist.select.lifetime import TIMES


class Kept(msgspec.Struct, frozen=True):
    """`frame` and `times`: what counts now, lingering rows among it. `added` and `removed` open and close listings.

    `dropped`: names that the feed ceased to list; `back`: names it lists again as before; `over`: rows whose time to
    linger is over.
    """

    frame: pl.DataFrame
    times: pl.DataFrame
    added: pl.DataFrame
    removed: pl.DataFrame
    dropped: pl.Series
    back: pl.Series
    over: pl.DataFrame


def listed(before: pl.DataFrame, times: pl.DataFrame | None) -> pl.DataFrame:
    """The rows that the feed itself lists, without those that linger."""
    if times is None or times["dropped"].null_count() == times.height:
        return before
    return before.filter(~pl.col("name").is_in(_dropped(times)["name"].implode()))


def keep(
    feed: Feed,
    before: pl.DataFrame | None,
    times: pl.DataFrame | None,
    frame: pl.DataFrame,
    added: pl.DataFrame,
    removed: pl.DataFrame,
    at: int,
    undone: pl.Series,
) -> Kept:
    """`frame` with what lingers of `before` (all that counted), given the difference of what the feed lists.

    `undone`: names (String) that a person took back, which linger no more once the feed lists them no more.
    """
    before = frame.clear() if before is None else before
    times = pl.DataFrame(schema=TIMES) if times is None else times
    lingering = before.join(_dropped(times), on="name", how="inner")
    again = lingering.filter(pl.col("name").is_in(frame["name"].implode()))
    came = again.select("name", was=pl.struct("subtree", "confidence", "extra")).join(
        added.select("name", now=pl.struct("subtree", "confidence", "extra")), on="name", how="inner"
    )
    back = came.filter(pl.col("was").eq_missing(pl.col("now")))["name"]
    other = again.filter(~pl.col("name").is_in(back.implode())).select(before.columns)
    gone = removed.filter(~pl.col("name").is_in(added["name"].implode()))
    added = added.filter(~pl.col("name").is_in(back.implode()))
    ended = lifetime.over(times, feed, at)
    silent = lingering.filter(~pl.col("name").is_in(frame["name"].implode()))
    taken_back = pl.col("name").is_in(undone.implode())
    removed = pl.concat([removed, other, silent.filter(taken_back).select(before.columns)])
    silent, gone = silent.filter(~taken_back), gone.filter(~taken_back)
    out = silent.filter(pl.col("name").is_in(ended.implode()))
    still = silent.filter(~pl.col("name").is_in(ended.implode()))
    if feed.keeps_for is None:
        dropped = gone.clear()
    else:
        dropped = gone
        removed = removed.filter(~pl.col("name").is_in(gone["name"].implode()))
    lines = pl.concat([frame, dropped, still.select(frame.columns)]).sort("name")
    marked = pl.concat([dropped.select("name", pl.lit(at, pl.Int64).alias("dropped")), still.select("name", "dropped")])
    began = times.filter(~pl.col("name").is_in(added["name"].implode())).select("name", "since")
    now = (
        lines.select("name")
        .join(began, on="name", how="left", maintain_order="left")
        .join(marked, on="name", how="left", maintain_order="left")
        .select("name", pl.col("since").fill_null(at), "dropped")
    )
    return Kept(lines, now, added, removed, dropped["name"], back, out.select(frame.columns))


def _dropped(times: pl.DataFrame) -> pl.DataFrame:
    return times.filter(pl.col("dropped").is_not_null()).select("name", "dropped")
