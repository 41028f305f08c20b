"""Decisions and entries of the last time, brought up to date: only what something touched is decided anew.

A name's own decision depends on its listings, its holds, its verdict and the rules; what a target makes of it also
on the names above and below. So new decisions are needed for *touched* names alone, and new entries for these
and what is above and below them.
Where feeds or the policy changed, nothing of this holds and all is decided again; other rules are laid over it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import polars as pl

from blocklist.framepatch import FramePatch, together
from blocklist.rules import Rule
from blocklist.select.express import Capability, Expressed, express
from blocklist.select.fold import group_of, parents
from blocklist.select.policy import Chosen

_NAME = pl.col("name")
_DOTS = _NAME.str.count_matches(".", literal=True)


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
    """What is decided now; `patches`: how each field differs from that of before; `gone`: the rows that these take out;
    `names`: those for which something else is decided (String).
    """

    chosen: Chosen
    patches: dict[str, FramePatch]
    gone: Chosen
    names: pl.Series


def renewed(before: Chosen, anew: Chosen, touched: Touched) -> Renewed:
    """`before`, where what stood for the names that are `touched` gives way to `anew`, which speaks of no others."""
    frames: dict[str, pl.DataFrame] = {}
    gone: dict[str, pl.DataFrame] = {}
    patches: dict[str, FramePatch] = {}
    for field in Chosen.__struct_fields__:
        old, new = getattr(before, field), getattr(anew, field)
        name = old.columns[0]
        at = touched.among(old[name]).arg_true()
        # Most of what is decided anew is what it was.
        differs = _differing(old[at], new).implode()
        at = at.filter(old[name].gather(at).is_in(differs))
        gone[field] = old[at]
        patches[field] = FramePatch.between(gone[field][name], new.filter(pl.col(name).is_in(differs)))
        stays = pl.repeat(True, old.height, dtype=pl.Boolean, eager=True).scatter(at, False)
        frames[field] = together(old.filter(stays), patches[field].come)
    names = pl.concat([patches["decisions"].come["name"], gone["decisions"]["name"]]).unique()
    return Renewed(Chosen(**frames), patches, Chosen(**gone), names)


def _differing(old: pl.DataFrame, new: pl.DataFrame) -> pl.Series:
    """The names (the first column) of rows that are not as often in the one as in the other."""
    sides = (rows.with_columns(pl.lit(way, pl.Int32).alias("times")) for rows, way in ((old, 1), (new, -1)))
    counted = pl.concat(sides).group_by(old.columns).agg(pl.col("times").sum())
    return counted.filter(pl.col("times") != 0).to_series(0).unique()


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
    before: Expressed,
    old: pl.DataFrame,
    new: pl.DataFrame,
    names: pl.Series,
    rules: pl.Series,
    capability: Capability,
) -> tuple[Expressed, FramePatch, pl.DataFrame]:
    """What `express(new, capability)` gives, from `before`, which it gave for `old`; how its entries differ, and which
    of `before` go.

    `old` and `new` are decisions that differ for `names` (String) only. `rules` (String): the names of all rules, as
    only these can allow a name or be a single label.
    """
    near = _near(old, names, rules).select(old.columns)
    among = _NAME.is_in(names.implode())
    # Hashes rule out most of them for a quarter of the time.
    likely = new.filter(new["name"].hash().is_in(names.hash().implode()))
    parts = [near, pl.concat([near.filter(~among), likely.filter(among).select(old.columns)]).sort("name", "subtree")]
    was, now = (express(part, capability) for part in parts)
    # All entries of a name come from one side, so that exact stays before subtree.
    patch, gone = _difference(was.entries, now.entries)
    entries = patch.of(before.entries)
    reasons = {*before.lost, *now.lost, *was.lost}
    lost = {r: before.lost.get(r, 0) + now.lost.get(r, 0) - was.lost.get(r, 0) for r in reasons}
    return Expressed(entries, {reason: count for reason, count in lost.items() if count}), patch, gone


def _difference(old: pl.DataFrame, new: pl.DataFrame) -> tuple[FramePatch, pl.DataFrame]:
    """From the entries `old` to `new`, without the names of which all rows stay as they are; which of `old` go."""
    differs = _differing(old, new).implode()
    gone = old.filter(_NAME.is_in(differs))
    return FramePatch.between(gone["name"], new.filter(_NAME.is_in(differs))), gone


def _near(decisions: pl.DataFrame, names: pl.Series, rules: pl.Series) -> pl.DataFrame:
    """The decisions for `names`, for all that is above or below any of them, and for `rules`; some more do no harm.

    What is above a row is there with it: that is above or below the same name. What is below one need not be, but for
    allows, which narrow the row; and a rule for a single label is above names of any group.
    """
    of = names.alias("name").to_frame().select("name", group_of(_NAME).alias("group"), _DOTS.alias("dots"))
    ruled = rules.alias("name").to_frame().select(group_of(_NAME)).to_series()
    at = decisions["group"].is_in(pl.concat([of["group"], ruled.alias("group")]).implode()).arg_true()
    rows = pl.DataFrame({"at": at}).with_columns(decisions["name"].gather(at), decisions["group"].gather(at))
    # What changes at the top of a group concerns all of it; those of hosting services have tens of thousands.
    whole = pl.col("group").is_in(of.filter(pl.col("dots") < 2)["group"].unique().implode())
    found = [rows.filter(whole | _NAME.is_in(rules.implode()))["at"]]
    rest = rows.filter(~whole).select("at", "name", _DOTS.alias("dots"))
    # By hashes: one that lets more through takes in a name of the same group for nothing.
    own, above = names.hash().implode(), pl.concat([names.hash(), *(up["name"].hash() for up in _upwards(of, 1))])
    found.append(rest.filter(_NAME.hash().is_in(above.implode()))["at"])
    if levels := list(_upwards(rest, 2)):
        ups = pl.concat(levels)
        found.append(ups.filter(_NAME.hash().is_in(own))["at"])
    return decisions[pl.concat(found).unique().sort()]


def _upwards(rows: pl.DataFrame, least: int) -> Iterator[pl.DataFrame]:
    """`rows` (`name`, `dots`: how many it has) with what is above their names, a label at a time, as long as that has
    the `least` number of dots.
    """
    while (rows := rows.filter(pl.col("dots") > least)).height:
        rows = rows.with_columns(parents(_NAME), pl.col("dots") - 1)
        yield rows
