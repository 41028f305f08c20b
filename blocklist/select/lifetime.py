"""How long listings count, in columns: the same ends as `blocklist.lifetime`, a whole feed at a time.

A *times* frame, sorted by `name`, goes with the indicators frame of a feed whose listings may end: `name: String`,
`since: Int64` and `dropped: Int64` (seconds since 1970, UTC; `dropped` null while the feed lists it).
"""

from __future__ import annotations

from datetime import datetime
from typing import cast

import polars as pl

from blocklist.catalog import Feed
from blocklist.quantities import parse_duration

TIMES = pl.Schema({"name": pl.String, "since": pl.Int64, "dropped": pl.Int64})
_DAY = 86_400


def lasts(feed: Feed) -> bool:
    """Does a listing of `feed` have an end, or may it outlive its line, so that its times matter?"""
    return feed.max_age is not None or feed.keeps_for is not None


def ends(frame: pl.DataFrame, times: pl.DataFrame | None, feed: Feed) -> pl.Series | None:
    """When each row of `frame` ceases to count, Int64, null where never; None when no row has an end.

    `times` is needed where `lasts(feed)`.
    """
    found: list[pl.Expr] = []
    extra = frame["extra"]
    told = extra.null_count() < frame.height
    if times is None and not told:
        return None
    rows = frame.select("name", "extra")
    if told and extra.str.contains('"expires":"', literal=True).any():
        text = pl.col("extra").str.json_path_match("$.expires")
        found.append(_epoch(text) + pl.when(text.str.len_bytes() == 10).then(_DAY).otherwise(0))
    if times is not None:
        rows = rows.join(times, on="name", how="left", maintain_order="left")
        if feed.max_age is not None:
            begun = pl.col("since")
            if told and extra.str.contains('"date":"', literal=True).any():
                begun = pl.min_horizontal(begun, _epoch(pl.col("extra").str.json_path_match("$.date")))
            found.append(begun + parse_duration(feed.max_age))
        if rows["dropped"].null_count() < rows.height:
            found.append(pl.col("dropped") + (feed.keeps_for or 0))
    if not found:
        return None
    return rows.select(pl.min_horizontal(found).alias("ends"))["ends"]


def over(times: pl.DataFrame, feed: Feed, at: int) -> pl.Series:
    """Names that the feed dropped and whose `linger` has run out."""
    return times.filter(pl.col("dropped") + (feed.keeps_for or 0) <= at)["name"]


def next_end(frame: pl.DataFrame, times: pl.DataFrame | None, feed: Feed, at: int) -> int | None:
    """The first moment after `at` at which a listing ends: until then a run without changes need not look."""
    moments: list[int] = []
    for series in (
        ends(frame, times, feed),
        None if times is None else times["dropped"].drop_nulls() + (feed.keeps_for or 0),
    ):
        if series is not None and (first := series.filter(series > at).min()) is not None:
            moments.append(cast(int, first))
    return min(moments, default=None)


def seconds(moment: datetime) -> int:
    return int(moment.timestamp())


def _epoch(text: pl.Expr) -> pl.Expr:
    """A day or a time as text to seconds since 1970, null for any other."""
    day = text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us"))
    at = text.str.to_datetime("%Y-%m-%dT%H:%M:%SZ", strict=False, time_unit="us")
    return pl.coalesce(day, at).dt.epoch("s")
