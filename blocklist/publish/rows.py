"""What lists for people say of an entry beside its name: its feeds, category, confidence, and since when.

A *told* frame has `name: String`, unique, `category: String`, `confidence: Int64`, `feeds: String` (ids with commas
between) and `since: String`.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from blocklist.catalog import CATEGORIES, KINDS, Feed
from blocklist.config import Policy
from blocklist.select.current import Current
from blocklist.select.policy import taken

SCHEMA = {
    "name": pl.String,
    "category": pl.String,
    "confidence": pl.Int64,
    "feeds": pl.String,
    "since": pl.String,
}


def told(
    current: Current, feeds: Mapping[int, Feed], policy: Policy, listed: pl.DataFrame, since: pl.DataFrame
) -> pl.DataFrame:
    """The told frame of `listed` (`name`, `gid`, `confidence`): the feeds that list a name and the category of the
    surest, by the listings that `policy` takes and may tell its audience.

    `since`: `name`, `since: String`, unique by name.
    """
    names = {i: f.id for i, f in feeds.items()}
    words = dict(enumerate(CATEGORIES))
    listings = taken(current, feeds, policy).join(listed, on="gid", how="semi")
    by_name = (
        listings.sort("gid", "confidence", "feed")
        .group_by("gid")
        .agg(
            pl.col("feed").replace_strict(names, return_dtype=pl.String).sort().str.join(",").alias("feeds"),
            pl.col("category").last().replace_strict(words, return_dtype=pl.String),
        )
    )
    known = listed.select("name", "gid", pl.col("confidence").cast(pl.Int64))
    return known.join(by_name, on="gid", how="left").join(since, on="name", how="left").select(list(SCHEMA))


def rows(blocked: pl.DataFrame, told: pl.DataFrame, since: pl.DataFrame) -> pl.DataFrame:
    """`blocked` (`name`, `subtree`, `kind: UInt8`) as `Selection.rows`, with what is told of each.

    What nobody lists by itself stands there by a rule, or is what a rule left of a listed network.
    """
    found = blocked.join(told.rename({"since": "first"}), on="name", how="left").join(since, on="name", how="left")
    return found.select(
        pl.col("name").alias("indicator"),
        pl.col("kind").replace_strict(dict(enumerate(KINDS, start=1)), return_dtype=pl.String),
        pl.when("subtree").then(pl.lit("subtree")).otherwise(pl.lit("exact")).alias("scope"),
        pl.col("category").fill_null("rule"),
        pl.col("confidence").fill_null(100),
        pl.col("feeds").fill_null(""),
        pl.coalesce("first", "since").fill_null("").alias("since"),
    ).sort("kind", "indicator")
