"""How well known a listed thing is: the place of its name, or of the nearest name above it, in the reference feeds."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from blocklist.select.fold import parents

_NAMED = {"name": pl.String, "feed": pl.String, "line": pl.UInt32, "rank": pl.UInt32}


def named_by(references: Iterable[tuple[str, bool, pl.DataFrame]]) -> pl.DataFrame:
    """What references name, each name once: `name`, `feed: String`, `line: UInt32`, `rank: UInt32`, the best first.

    In: id, whether its order is a ranking, and indicators frame of each feed. The rank counts lines from the first
    entry; of a list that is sorted otherwise, such as the warning lists of MISP by alphabet, it is null.
    """
    parts = [pl.DataFrame(schema=_NAMED)]
    for feed, ranked, frame in references:
        rank = pl.col("line") - pl.col("line").min() + 1 if ranked else pl.lit(None)
        parts.append(frame.select("name", pl.lit(feed).alias("feed"), "line", rank.cast(pl.UInt32).alias("rank")))
    every = pl.concat(parts).sort("rank", "feed", "line", nulls_last=True)
    return every.unique("name", keep="first", maintain_order=True)


def best_known(names: pl.Series, named: pl.DataFrame) -> pl.DataFrame:
    """Those of `names` that a reference names, or whose nearest ancestor one does, the best known first.

    `named`: as `named_by` gives it. Out: `entry`, `under`: the name in the reference, `feed`, `line`, `rank`; those
    without a rank come last.
    """
    host = pl.coalesce(pl.col("entry").str.extract(r"^//([^/:]*)"), pl.col("entry"))
    step = names.unique().alias("entry").to_frame().with_columns(host.alias("name"))
    found = []
    while step.height:
        hit = step.join(named, on="name", how="inner")
        found.append(hit.select("entry", pl.col("name").alias("under"), "feed", "line", "rank"))
        step = step.join(hit, on="entry", how="anti")
        step = step.with_columns(parents(pl.col("name")).alias("name"))
        step = step.filter(pl.col("name").str.contains(".", literal=True).fill_null(False))
    if not found:
        return named.clear().select(
            pl.col("name").alias("entry"), pl.col("name").alias("under"), "feed", "line", "rank"
        )
    return pl.concat(found).sort("rank", "entry", nulls_last=True)
