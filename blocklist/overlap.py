"""How far feeds copy each other: what counts as one voice in the confidence, and what a feed alone contributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from blocklist.catalog import Feed
from blocklist.select.current import Current

# From so large a share on, one feed is taken for a copy of the other.
COPY = 0.95
# Smaller feeds lie in a large one by chance.
SMALLEST = 20


@dataclass(frozen=True)
class Contribution:
    """One feed: its entries, how many no other feed lists, and the feed that holds most of them (`share` 0–1)."""

    feed: str
    family: str
    entries: int
    alone: int
    nearest: str | None
    share: float


@dataclass(frozen=True)
class Proposal:
    """`feed` lies with `share` of its entries in `within`, and they are not one family yet."""

    feed: str
    within: str
    share: float
    family: str


@dataclass(frozen=True)
class Overlap:
    """`contributions` by feed id; `proposals` with the largest share first."""

    contributions: Sequence[Contribution]
    proposals: Sequence[Proposal]


def overlap(current: Current, feeds: Mapping[int, Feed]) -> Overlap:
    """Compare every two feeds by the indicators that both list; scope and confidence do not matter here.

    An indicator in k feeds makes k² pairs, so the cost grows with how much feeds share, not with their number.
    """
    rows = current.listings.select("gid", "feed")
    size = {int(feed): int(n) for feed, n in rows["feed"].value_counts().iter_rows()}
    # Listings are sorted by gid: a neighbour of the same one means another feed.
    gid = rows["gid"]
    shared = ((gid == gid.shift(1)) | (gid == gid.shift(-1))).fill_null(False)
    several = rows.filter(shared)
    alone = {int(feed): int(n) for feed, n in rows.filter(~shared)["feed"].value_counts().iter_rows()}
    # Few sets of feeds share many names: count the sets, then the pairs within each.
    sets = (
        several.group_by("gid")
        .agg(pl.col("feed").sort())
        .group_by("feed")
        .agg(pl.len().alias("names"))
        .with_row_index("set")
    )
    members = sets.explode("feed")
    pairs = (
        members.join(members.select("set", pl.col("feed").alias("other")), on="set")
        .filter(pl.col("feed") != pl.col("other"))
        .group_by("feed", "other")
        .agg(pl.col("names").sum())
    )
    both = {(int(a), int(b)): int(n) for a, b, n in pairs.select("feed", "other", "names").iter_rows()}
    contributions, proposals = [], []
    family = {i: feed.family or feed.id for i, feed in feeds.items()}
    # Of two that copy each other the one without a family is proposed, else the one that came later.
    order = {i: n for n, i in enumerate(sorted(size, key=lambda i: (feeds[i].family is None, i)))}
    for i in order:
        shares = sorted(((n / size[i], -size[b], b) for (a, b), n in both.items() if a == i), reverse=True)
        near, share = (feeds[shares[0][2]].id, shares[0][0]) if shares else (None, 0.0)
        contributions.append(Contribution(feeds[i].id, family[i], size[i], alone.get(i, 0), near, share))
        for part, _, b in shares:
            mutual = both[b, i] / size[b] >= COPY and order[b] > order[i]
            if part >= COPY and size[i] >= SMALLEST and family[i] != family[b] and not mutual:
                proposals.append(Proposal(feeds[i].id, feeds[b].id, part, family[b]))
                family[i] = family[b]
                break
    return Overlap(sorted(contributions, key=lambda c: c.feed), sorted(proposals, key=lambda p: (-p.share, p.feed)))
