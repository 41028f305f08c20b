"""Decisions and entries of the last time, brought up to date: only what something touched is decided anew.

A name's own decision depends on its listings, its holds, its verdict and the rules; what a target makes of it also
on the names above and below. So new decisions are needed for *touched* names alone, and new entries for their
*groups*, the names that end in the same two labels (`blocklist.select.policy.group_of`).
Where rules, feeds or the policy changed, nothing of this holds and all is decided again.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from blocklist.select.express import Capability, Expressed, express
from blocklist.select.policy import Chosen


@dataclass(frozen=True)
class Touched:
    """Names by their hashes: a name that shares a hash is decided anew for nothing, which changes nothing."""

    hashes: pl.Series

    @classmethod
    def of(cls, *names: pl.Series) -> Touched:
        """The names in any of `names` (String)."""
        return cls(pl.concat([series.alias("name").hash() for series in names]).unique())

    def among(self, names: pl.Series) -> pl.Series:
        """Which of `names` are touched: Boolean, as long as `names`."""
        return names.hash().is_in(self.hashes.implode())


def renewed(before: Chosen, anew: Chosen, touched: Touched) -> Chosen:
    """`before`, where what stood for the names that are `touched` gives way to `anew`, which speaks of no others."""

    def merged(old: pl.DataFrame, new: pl.DataFrame, name: str = "name") -> pl.DataFrame:
        return pl.concat([old.filter(~touched.among(old[name])), new])

    return Chosen(
        decisions=merged(before.decisions, anew.decisions),
        networks=merged(before.networks, anew.networks),
        urls=merged(before.urls, anew.urls, "url").sort("url"),
    )


def groups_of(before: Chosen, anew: Chosen, touched: Touched) -> pl.Series:
    """The groups of all that was or is decided for names that are `touched`: UInt32, unique."""
    old = before.decisions["group"].filter(touched.among(before.decisions["name"]))
    return pl.concat([old, anew.decisions["group"]]).unique()


def refitted(
    before: Expressed, old: pl.DataFrame, new: pl.DataFrame, groups: pl.Series, capability: Capability
) -> Expressed:
    """What `express(new, capability)` gives, from `before`, which it gave for `old`.

    `old` and `new` are decisions that differ in `groups` only. All rules must be in these: a rule for a single
    label is above names of any group, and an allow anywhere narrows what is above it.
    """
    part = [frame.filter(frame["group"].is_in(groups.implode())) for frame in (old, new)]
    was, now = (express(frame, capability) for frame in part)
    kept = before.entries.join(part[0].select("name"), on="name", how="anti", maintain_order="left")
    # All entries of a name come from one side, so that exact stays before subtree.
    entries = kept.merge_sorted(now.entries, key="name")
    reasons = sorted({*before.lost, *now.lost, *was.lost})
    lost = {r: before.lost.get(r, 0) + now.lost.get(r, 0) - was.lost.get(r, 0) for r in reasons}
    return Expressed(entries, {reason: count for reason, count in lost.items() if count})
