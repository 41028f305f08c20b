"""Feeds that brought nothing new, and of which listings end all the same."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import msgspec
import polars as pl

from blocklist import clock
from blocklist.catalog import Feed
from blocklist.ingest.intake import Intake
from blocklist.select import lifetime
from blocklist.select.lifetime import seconds
from blocklist.store.columns import Columns

if TYPE_CHECKING:
    from blocklist.gathering import Work


class Lapse(msgspec.Struct):
    """A feed that brought nothing new and has listings that end: what is left, and the rows that linger no more."""

    feed: Feed
    snapshot: int
    columns: Columns
    times: pl.DataFrame | None
    over: pl.DataFrame
    next_end: int | None


def lapses_of(work: Work, taken: Mapping[str, Intake], versions: Collection[str]) -> list[Lapse]:
    """Feeds whose listings ended since the last run, or whose lifetimes the configuration changed.

    Where the clock went back, all whose listings end: what was over may count again.
    """
    out = []
    back = work.record.last_started() > clock.text(work.at)
    for feed in work.config.feeds.values():
        number = work.ids[feed.id]
        now, end = work.snapshots.get(number), work.next_ends.get(number)
        if now is None or feed.id in taken:
            continue
        changed = feed.id in versions and (end is not None or feed.max_age is not None or feed.linger is not None)
        if not (back or changed or (end is not None and end <= clock.text(work.at))):
            continue
        at, times = seconds(work.at), work.times_of(feed, now)
        frame, repeated = work.record.columns(number, now.id)
        if back and not changed and lifetime.ends(frame, times, feed) is None:
            continue
        gone = lifetime.over(times, feed, at) if times is not None else pl.Series("name", [], dtype=pl.String)
        left = frame.filter(~pl.col("name").is_in(gone.implode()))
        times = times.filter(~pl.col("name").is_in(gone.implode())) if times is not None else None
        over = frame.filter(pl.col("name").is_in(gone.implode()))
        # What lingers stands in no line, so what is said of repeated names stays.
        kept = Columns(left, repeated)
        out.append(Lapse(feed, now.id, kept, times, over, lifetime.next_end(left, times, feed, at)))
    return out
