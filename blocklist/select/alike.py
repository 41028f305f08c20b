"""Names that the same feeds list in the same way: what a policy makes of one of them, it makes of all.

Millions of names are listed in some thousand ways, so that every further policy decides for these alone.
"""

from __future__ import annotations

import msgspec
import polars as pl

_TOLD = ("feed", "confidence", "category", "tlp", "subtree", "expired")


class Alike(msgspec.Struct, frozen=True):
    """`way: UInt32`, for each name by its `gid`, the number of the way in which it is listed; null if it is not.

    `listings`: of one name of each way, as in `Current.listings`, sorted by `way` and `feed`: `way: UInt32`,
    `feed: UInt16`, `confidence`, `category`, `tlp: UInt8`, `subtree`, `expired: Boolean`.
    """

    way: pl.Series
    listings: pl.DataFrame


def alike(listings: pl.DataFrame, count: int) -> Alike:
    """Number the ways of `count` names. `listings` as in `Current`: sorted by `gid`."""
    gid = listings["gid"]
    last = (gid != gid.shift(-1)).fill_null(True)
    # Two sums of hashes of a name's listings: 128 bits that no two ways share by chance. Sums wrap, differences too.
    sums = listings.select(_packed().hash(1).cum_sum().alias("a"), _packed().hash(2).cum_sum().alias("b")).filter(last)
    keys = sums.select(
        pl.col("a") - pl.col("a").shift(1, fill_value=0), pl.col("b") - pl.col("b").shift(1, fill_value=0)
    )
    ways = keys.with_row_index("gid").unique(["a", "b"], keep="first", maintain_order=True).with_row_index("way")
    way = keys.join(ways, on=["a", "b"], how="left", maintain_order="left")["way"]
    listed = gid.filter(last)
    if len(listed) < count:
        some = pl.DataFrame({"gid": listed, "way": way})
        every = pl.DataFrame({"gid": pl.int_range(count, dtype=pl.UInt32, eager=True)})
        way = every.join(some, on="gid", how="left", maintain_order="left")["way"]
    first = ways.select(listed.gather(ways["gid"]).alias("gid"), "way")
    some = listings.filter(gid.is_in(first["gid"].implode())).join(first, on="gid", how="inner", maintain_order="left")
    return Alike(way, some.select("way", *_TOLD))


def _packed() -> pl.Expr:
    """All that is told of a listing, in one number."""
    number = pl.lit(0, pl.UInt64)
    for name in _TOLD:
        number = number * 2**8 + pl.col(name).cast(pl.UInt64) if name != "feed" else pl.col(name).cast(pl.UInt64)
    return number
