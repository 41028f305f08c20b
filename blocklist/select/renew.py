"""Decisions and entries of the last time, brought up to date: only what something touched is decided anew.

A name's own decision depends on its listings, its holds, its verdict and the rules; what a target makes of it also
on the names above and below. So new decisions are needed for *touched* names alone, and new entries for these
and what is above and below them.
Where feeds or the policy changed, nothing of this holds and all is decided again; other rules are laid over it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import polars as pl

from blocklist.framepatch import FramePatch, together
from blocklist.rules import Rule
from blocklist.select.express import Capability, Expressed, express
from blocklist.select.fold import group_of
from blocklist.select.policy import Chosen

_NAME = pl.col("name")
# The last three labels, by their hash; null where there are fewer. A search alone is quicker than one with a group.
_LABELS = _NAME.str.slice(_NAME.str.find(r"[^.]+\.[^.]+\.[^.]+$"))
_THREE = pl.when(_LABELS.is_not_null()).then(_LABELS.hash())


class Touched(msgspec.Struct, frozen=True):
    """Names by their hashes: a name that shares a hash is decided anew for nothing, which changes nothing."""

    hashes: pl.Series

    @classmethod
    def of(cls, *names: pl.Series) -> Touched:
        """The names in any of `names` (String)."""
        return cls(pl.concat([series.alias("name").hash() for series in names]).unique())

    def among(self, names: pl.Series) -> pl.Series:
        """Which of `names` are touched: Boolean, as long as `names`."""
        return names.hash().is_in(self.hashes.implode())


class Renewed(msgspec.Struct, frozen=True):
    """What is decided now; `patches`: how each field differs from that of before; `names`: those for which something
    was or is decided anew (String).
    """

    chosen: Chosen
    patches: dict[str, FramePatch]
    names: pl.Series


def renewed(before: Chosen, anew: Chosen, touched: Touched) -> Renewed:
    """`before`, where what stood for the names that are `touched` gives way to `anew`, which speaks of no others."""
    frames: dict[str, pl.DataFrame] = {}
    patches: dict[str, FramePatch] = {}
    names = [anew.decisions["name"]]
    for field in Chosen.__struct_fields__:
        old, new = getattr(before, field), getattr(anew, field)
        of = old[old.columns[0]]
        among = touched.among(of)
        patches[field] = FramePatch.between(of.filter(among), new)
        frames[field] = together(old.filter(~among), new)
        if field == "decisions":
            names.append(of.filter(among))
    return Renewed(Chosen(**frames), patches, pl.concat(names))


def spoken_of(before: Chosen, laid: Chosen, rules: Sequence[Rule]) -> pl.Series | None:
    """The names (String) for which `before` and `laid`, the same under others of these `rules`, may differ, and those
    that cover what may then come back; None where that may be any.
    """
    spoken = pl.Series("name", [rule.name for rule in rules if rule.kind == "domain"], dtype=pl.String)
    if not no_single_label(spoken):
        return None
    # Where a target knows only subtrees, an allow decides whether the name of two labels above it covers its group.
    top = spoken.str.extract(r"([^.]+\.[^.]+)$")
    return pl.concat([spoken, top, before.yielded["name"], laid.yielded["name"]]).unique()


def no_single_label(names: pl.Series) -> bool:
    """Is none of `names` a single label? It stands above names of all groups; no feed can list one, a rule may.

    Networks and URLs are none, and an IPv6 network has no dot.
    """
    return bool(names.str.contains("[.:/]").all())


def refitted(
    before: Expressed, old: pl.DataFrame, new: pl.DataFrame, names: pl.Series, capability: Capability
) -> tuple[Expressed, FramePatch]:
    """What `express(new, capability)` gives, from `before`, which it gave for `old`, and how its entries differ.

    `old` and `new` are decisions that differ for `names` only. All rules must be among these: a rule for a single
    label is above names of any group, and an allow anywhere narrows what is above it.
    """
    near = _near(old, names).select(old.columns)
    among = _NAME.is_in(names.implode())
    # Hashes rule out most of them for a quarter of the time.
    likely = new.filter(new["name"].hash().is_in(names.hash().implode()))
    parts = [near, pl.concat([near.filter(~among), likely.filter(among).select(old.columns)]).sort("name", "subtree")]
    was, now = (express(part, capability) for part in parts)
    # All entries of a name come from one side, so that exact stays before subtree.
    patch = _difference(was.entries, now.entries)
    entries = patch.of(before.entries)
    reasons = {*before.lost, *now.lost, *was.lost}
    lost = {r: before.lost.get(r, 0) + now.lost.get(r, 0) - was.lost.get(r, 0) for r in reasons}
    return Expressed(entries, {reason: count for reason, count in lost.items() if count}), patch


def _difference(old: pl.DataFrame, new: pl.DataFrame) -> FramePatch:
    """From the entries `old` to `new`, without the names of which all rows stay as they are."""
    apart = (rows.join(others, on=rows.columns, how="anti") for rows, others in ((old, new), (new, old)))
    names = pl.concat([rows["name"] for rows in apart])
    differs = names.unique().implode()
    return FramePatch.between(old["name"].filter(old["name"].is_in(differs)), new.filter(_NAME.is_in(differs)))


def _near(decisions: pl.DataFrame, names: pl.Series) -> pl.DataFrame:
    """The decisions for `names`, and for all that is above or below any of them; some more do no harm.

    With each row, all rows above it are there.
    """
    of = names.alias("name").to_frame().select(group_of(_NAME).alias("group"), _THREE.alias("three"))
    near = decisions.filter(decisions["group"].is_in(of["group"].implode()))
    # Tens of thousands share the two labels of a hosting service, and are not above or below each other.
    whole = of.filter(pl.col("three").is_null())["group"].unique().implode()
    three = of["three"].drop_nulls().unique().implode()
    return near.with_columns(_THREE.alias("three")).filter(
        pl.col("three").is_null() | pl.col("three").is_in(three) | pl.col("group").is_in(whole)
    )
