"""Everything that is listed now, as two frames that guards, policies and exports share.

Names are sorted and numbered once; what follows works on the numbers (`gid`), not on text.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

import msgspec
import polars as pl

from blocklist.catalog import CATEGORIES, TLP, Feed
from blocklist.select import networks
from blocklist.select.alike import Alike, alike
from blocklist.select.fold import group_of
from blocklist.stretches import stretches
from blocklist.suffixes import SuffixRules

Kept = TypeVar("Kept")

NETWORKS = (2, 3)
DOMAIN = 1  # code of the kind, as in `blocklist.ingest.normalize.KIND`
CATEGORY = {category: code for code, category in enumerate(CATEGORIES)}
_TLP = {level: code for code, level in enumerate(TLP)}


class Current(msgspec.Struct, frozen=True, dict=True):
    """What every enabled feed lists now.

    `listings`, sorted by `gid` and `feed`: `gid: UInt32`, `feed: UInt16` (id in the record), `subtree: Boolean`,
    `line: UInt32`, `confidence: UInt8` (the row's or its feed's), `category: UInt8` (code of `CATEGORY`),
    `tlp: UInt8` (position in `TLP`, the row's or its feed's; what is not marked may be told to all),
    `expired: Boolean` (its time is over: guards still see it, exports don't).
    `names`, row number = gid, sorted by `name`: `name: String`, `kind: UInt8`, `suffix`, `wildcard_suffix`,
    `registrable: Boolean` (false for what is no domain).
    """

    listings: pl.DataFrame
    names: pl.DataFrame

    # What every policy asks for, computed when the first one does.

    @cached_property
    def alike(self) -> Alike:
        """Names by the way in which they are listed."""
        return alike(self.listings, self.names.height)

    @cached_property
    def groups(self) -> pl.Series:
        """`blocklist.select.fold.group_of` each name: UInt32."""
        return self.names.select(group_of(pl.col("name")))["name"]

    @cached_property
    def networks(self) -> pl.DataFrame:
        """`gid`, `name`, `family`, `first`, `last` of what is no domain and no URL (`blocklist.select.networks`)."""
        mine = self.names.select(pl.int_range(pl.len(), dtype=pl.UInt32).alias("gid"), "name", "kind")
        mine = mine.filter(pl.col("kind").is_in(NETWORKS)).drop("kind")
        area = networks.parse(mine["name"]).select("family", "first", "last")
        return pl.concat([mine, area], how="horizontal")

    @cached_property
    def _kept(self) -> dict[Hashable, Any]:
        return {}

    def kept(self, key: Hashable, make: Callable[[], Kept]) -> Kept:
        """What `make` gives, made once for each `key`."""
        if key not in self._kept:
            self._kept[key] = make()
        made: Kept = self._kept[key]
        return made

    def among(self, frame: pl.DataFrame) -> pl.Series:
        """Which names stand in `frame` (`name: String`): Boolean."""
        # The frame is kept with it, so that no other gets its identity.
        return self.kept(id(frame), lambda: (frame, self.names["name"].is_in(frame["name"].implode())))[1]

    def cells(self, frames: Sequence[pl.DataFrame]) -> Cells:
        """Names that are listed alike, are of one kind and stand in the same of `frames` (`name: String`)."""
        return self.kept(tuple(map(id, frames)), lambda: (frames, _cells(self, frames)))[1]


class Cells(msgspec.Struct, frozen=True):
    """Names that must get the same decision: `of: UInt32` by `gid` (null: not listed), and each cell as one name.

    `picture`: cells as names, without names. `among`: which cells stand in which frame, Boolean.
    """

    of: pl.Series
    picture: Current
    among: Sequence[pl.Series]


def _cells(current: Current, frames: Sequence[pl.DataFrame]) -> Cells:
    names = current.names
    flags = [current.among(frame).alias(f"in {i}") for i, frame in enumerate(frames)]
    facts = names.select("kind", "registrable").with_columns(*flags)
    # Three bits and one, and two for the guards and for each category apart: 36 at most, which leaves 28 for the way.
    code = pl.col("way").cast(pl.UInt64)
    for fact in facts.columns:
        code = code * 2**3 + pl.col(fact).cast(pl.UInt64) if fact == "kind" else code * 2 + pl.col(fact).cast(pl.UInt64)
    facts = facts.with_columns(current.alike.way.alias("way"))
    codes = facts.select(code.alias("code"))
    numbers = codes.with_row_index("gid").drop_nulls().unique("code", keep="first", maintain_order=True)
    numbers = numbers.with_row_index("cell")
    of = codes.join(numbers.select("code", "cell"), on="code", how="left", maintain_order="left")["cell"]
    mine = facts[numbers["gid"]]
    listings = (
        mine.select("way", pl.int_range(pl.len(), dtype=pl.UInt32).alias("gid"))
        .join(current.alike.listings, on="way", how="inner", maintain_order="left_right")
        .drop("way")
    )
    return Cells(of, Current(listings, mine.select("kind", "registrable")), [mine[flag.name] for flag in flags])


def current(
    frames: Mapping[int, pl.DataFrame],
    feeds: Mapping[int, Feed],
    suffixes: SuffixRules,
    expired: Mapping[int, pl.Series] | None = None,
) -> Current:
    """Join indicators frames (`blocklist.ingest.normalize`), by feed id, into one picture.

    `expired`: Boolean, row by row of the frames of those feeds that have listings whose time is over.
    """
    expired = expired or {}
    parts = [
        _part(i, frame, feeds[i], expired.get(i) if expired else None, bool(expired))
        for i, frame in sorted(frames.items())
    ]
    if not parts:
        parts = [_part(0, _EMPTY, Feed(title="", url="file:", category="other"), None, bool(expired))]
    listings, names, count = [], [], 0
    for some in stretches(parts):
        drawn = _drawn(some, suffixes, count)
        listings.append(drawn.listings)
        names.append(drawn.names)
        count += drawn.names.height
    return Current(pl.concat(listings, rechunk=True), pl.concat(names, rechunk=True))


def _drawn(parts: list[pl.DataFrame], suffixes: SuffixRules, begin: int) -> Current:
    """The picture of some parts, whose names have the numbers from `begin` on."""
    # Two columns tie every row, and are sorted in a third of the time that a stable sort by one takes.
    together = pl.concat(parts).sort("name", "feed")
    first = (together["name"] != together["name"].shift(1)).fill_null(True)
    together = together.with_columns((first.cast(pl.UInt32).cum_sum() + begin - 1).cast(pl.UInt32).alias("gid"))
    names = together.filter(first).select("name", "kind")
    domain = names["kind"] == DOMAIN
    if "expired" not in together.columns:
        # A literal behind the sort: feeds whose listings have no end pay nothing for it.
        together = together.with_columns(pl.lit(False).alias("expired"))
    flags = suffixes.columns(names["name"]).with_columns(pl.all() & domain)
    return Current(
        together.select("gid", "feed", "subtree", "line", "confidence", "category", "tlp", "expired"),
        pl.concat([names, flags], how="horizontal"),
    )


_EMPTY = pl.DataFrame(
    schema={
        "name": pl.String,
        "kind": pl.UInt8,
        "subtree": pl.Boolean,
        "line": pl.UInt32,
        "confidence": pl.UInt8,
        "extra": pl.String,
    }
)


def _part(feed_id: int, frame: pl.DataFrame, feed: Feed, expired: pl.Series | None, told: bool) -> pl.DataFrame:
    category = pl.lit(CATEGORY[feed.category], pl.UInt8)
    tlp = pl.lit(_TLP[feed.tlp or "clear"], pl.UInt8)
    if frame["extra"].null_count() < frame.height:
        word = pl.col("extra").str.json_path_match("$.category")
        category = word.replace_strict(CATEGORY, default=CATEGORY[feed.category], return_dtype=pl.UInt8)
        if frame["extra"].str.contains('"tlp":', literal=True).any():
            level = pl.col("extra").str.json_path_match("$.tlp")
            tlp = level.replace_strict(_TLP, default=_TLP[feed.tlp or "clear"], return_dtype=pl.UInt8)
    return frame.select(
        "name",
        "kind",
        pl.lit(feed_id, pl.UInt16).alias("feed"),
        "subtree",
        "line",
        pl.col("confidence").fill_null(pl.lit(feed.confidence, pl.UInt8)),
        category.alias("category"),
        tlp.alias("tlp"),
        *([pl.lit(False).alias("expired") if expired is None else expired.alias("expired")] if told else []),
    )
