"""Response policy zones that BIND, Unbound, PowerDNS Recursor and Knot Resolver read alike.

DNS wildcards and RPZ implementations disagree (measured, all four): in BIND and Unbound any name that
exists in the zone, even one without a record, ends the wildcard above it; Recursor and Knot go on to the
longest match. So at every name that exists below a subtree entry this writer says again what holds there:
one record for the name and one for `*.` below it. The folded selection keeps such names few.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import polars as pl
from msgspec.structs import replace

from blocklist.names import parents
from blocklist.publish import networks
from blocklist.publish.parts import Lines, Part
from blocklist.publish.selection import Selection
from blocklist.publish.zone_options import budget
from blocklist.select.fold import names_between
from blocklist.select.networks import contains, parse

if TYPE_CHECKING:
    from blocklist.publish.descriptor import Format

# The target of the CNAME that is the action (draft-vixie-dnsop-dns-rpz §3).
_ACTIONS = {
    "nxdomain": ".",
    "nodata": "*.",
    "drop": "rpz-drop.",
    "tcp-only": "rpz-tcp-only.",
    "passthru": "rpz-passthru.",
}
_ALLOW = _ACTIONS["passthru"]


def parts(fmt: Format, selection: Selection, values: dict[str, Any], lost: Counter[str]) -> list[Part]:
    """The policy records. Counts `too_long` entries (beyond the budget of the origin) and `inbound` networks.

    A subtree entry whose apex fits and whose wildcard does not is left out whole: half of it would be judged
    differently by the engines, which is the one thing that this zone promises not to do.
    """
    target = f"{values['target']}." if values["action"] == "cname" else _ACTIONS[values["action"]]
    answer = {True: target, False: _ALLOW}
    selection, fitted = _fitted(selection, budget(values["origin"]), lost)
    version = str(values["version"])
    around = _among(fitted.entries, [version, *parents(version)] if version else [])
    is_entry = bool((around["name"] == version).any())
    restated = _restated_pairs(selection, fitted, around, version), _restated_wildcards(fitted, around, version)
    made: list[Part] = []
    for block in (True, False):
        record = f"{{name}} CNAME {answer[block]}"
        below = f"*.{record}"
        pair = f"{record}\n{below}"
        for frame, template, records, entries in (
            (fitted.pairs, pair, 2, 1),
            (fitted.names, record, 1, 1),
            (fitted.wildcards, below, 1, 1),
            (restated[0], pair, 2, 0),
            (restated[1], below, 1, 0),
        ):
            names = _of(frame, frame["block"] if block else ~frame["block"])["name"]
            if template != below and is_entry:  # its wildcard alone is said
                names = names.filter(names != version)
            made.append(Lines(names, template, "name", "domains", records, entries))
    if values["addresses"]:
        made.append(_address_lines(selection.networks, fmt, target, lost))
    return made


def written(selection: Selection, values: dict[str, Any]) -> Selection:
    """`selection` without the entries that `parts` leaves out."""
    outbound = selection.networks.filter(pl.col("direction") != "inbound")
    selection = replace(selection, networks=outbound if values["addresses"] else outbound.clear())
    room = budget(values["origin"])
    if selection.domains.select(pl.col("name").str.len_bytes().max().fill_null(0) + 2 <= room).item():
        return selection
    selection, fitted = _fitted(selection, room, Counter())
    return replace(selection, domains=fitted.entries)


def within(selection: Selection, origin: str, lost: Counter[str]) -> Selection:
    """`selection` without the entries that have no room in front of `origin`, which `lost` counts as `parts` does."""
    selection, fitted = _fitted(selection, budget(origin), lost)
    return replace(selection, domains=fitted.entries)


def _fitted(selection: Selection, room: int, lost: Counter[str]) -> tuple[Selection, _Fitted]:
    """What fits into `room`, and the selection without what would block an allow that does not."""
    fitted = _fit(selection.domains, room, lost)
    if fitted.entries.height == selection.domains.height:
        return selection, fitted
    unsaid = _of(selection.domains, ~selection.domains["block"])
    if unsaid.height:
        unsaid = unsaid.join(fitted.entries, on=["name", "subtree"], how="anti")
    if unsaid.height:
        selection = _without_blocks_around(selection, unsaid["name"], lost)
        fitted = _fit(selection.domains, room, Counter())
    return selection, fitted


class _Fitted:
    """Entries that fit, by what each needs: a pair, a record for the name, a wildcard. All: name, block."""

    def __init__(
        self, entries: pl.DataFrame, subtree: pl.DataFrame, exact: pl.DataFrame, covered: pl.DataFrame
    ) -> None:
        self.entries = entries
        self.subtree = subtree
        self.covered = covered  # name, block (of the subtree above): exact entries that end a wildcard
        # Two records of one owner with different targets refuse the zone: the exact entry has the name.
        twice = _repeats(entries["name"])
        both = subtree.join(exact, on="name", how="semi") if twice else subtree.clear()
        self.pairs = subtree.join(exact, on="name", how="anti") if twice else subtree
        self.names = exact
        self.wildcards = both


def _repeats(names: pl.Series) -> bool:
    """Does a name stand there twice? Selections are sorted, and then a look at the next one tells."""
    return bool(((names == names.shift(1)) if names.is_sorted() else names.is_duplicated()).any())


def _without_blocks_around(selection: Selection, allowed: pl.Series, lost: Counter[str]) -> Selection:
    """The selection without what would block `allowed`, names that the zone has no room to let through.

    What can't be said wholly is left out, never said wider: an allowed name must not be blocked (counts `narrowed`).
    """
    above = pl.Series(sorted({at for name in allowed for at in (name, *parents(name))}), dtype=pl.String).implode()
    blocks = selection.domains.select(pl.col("block") & pl.col("subtree") & pl.col("name").is_in(above)).to_series()
    lost["narrowed"] += int(blocks.sum())
    left = selection.domains.filter(~blocks)
    # What stood between such a block and other entries is not blocked any more either.
    return replace(selection, domains=left, between=names_between(left))


def _fit(domains: pl.DataFrame, room: int, lost: Counter[str]) -> _Fitted:
    entries = domains
    length = entries["name"].str.len_bytes()
    if (length + 2 > room).any():
        entries = entries.filter(length + pl.when("subtree").then(2).otherwise(0) <= room)
    subtree, exact = _of(entries, entries["subtree"]), _of(entries, ~entries["subtree"])
    covered = _covered(subtree, exact)
    # An exact entry below a subtree needs its wildcard too.
    over = covered.filter(pl.col("name").str.len_bytes() + 2 > room)
    if over.height:
        entries = entries.filter(pl.col("subtree") | ~pl.col("name").is_in(over["name"].to_list()))
        covered = covered.join(over, on="name", how="anti")
        exact = entries.filter(~pl.col("subtree"))
    lost["too_long"] += domains.height - entries.height
    return _Fitted(entries, subtree, exact, covered)


def _of(rows: pl.DataFrame, these: pl.Series) -> pl.DataFrame:
    """`these` (Boolean) of `rows`: hardly ever a part of them, and all or none need no copy."""
    if these.all():
        return rows
    return rows.filter(these) if these.any() else rows.clear()


def _covered(subtree: pl.DataFrame, exact: pl.DataFrame) -> pl.DataFrame:
    """Exact entries with a subtree entry above: name, and `block` of the nearest one.

    Folding leaves none below a subtree of their own action, so with one action only there is nothing to
    look for, and a blocked name needs looking at only if it is below an allowed subtree.
    """
    allows = _of(subtree, ~subtree["block"])["name"]
    suspects = [_of(exact, ~exact["block"])["name"]]
    if len(allows):
        suspects.append(_below(_of(exact, exact["block"])["name"], allows))
    own = subtree["name"]
    candidates = pl.concat(suspects)
    if not len(candidates):
        return pl.DataFrame(schema={"name": pl.String, "block": pl.Boolean})
    # An exact entry with a subtree entry of its own name has that one's wildcard.
    candidates = candidates.to_frame().join(own.to_frame(), on="name", how="anti")["name"]
    return _nearest(candidates, subtree)


def _parent(column: str) -> pl.Expr:
    return pl.col(column).str.splitn(".", 2).struct.field("field_1")


def _below(names: pl.Series, tops: pl.Series) -> pl.Series:
    """Those of `names` that lie strictly below one of `tops`."""
    rest = names.alias("name").to_frame().with_columns(up=_parent("name"))
    found = [names.clear()]
    while (rest := rest.filter(pl.col("up").is_not_null())).height:
        hit = pl.col("up").is_in(tops.to_list())
        found.append(rest.filter(hit)["name"])
        rest = rest.filter(~hit).with_columns(up=_parent("up"))
    return pl.concat(found)


def _nearest(names: pl.Series, subtree: pl.DataFrame) -> pl.DataFrame:
    """`names` (strictly) below an entry of `subtree`, with the `block` of the nearest one."""
    rest = names.alias("name").to_frame().with_columns(up=_parent("name"))
    tops = subtree.select(pl.col("name").alias("up"), "block")
    found = [pl.DataFrame(schema={"name": pl.String, "block": pl.Boolean})]
    while (rest := rest.filter(pl.col("up").is_not_null())).height:
        joined = rest.join(tops, on="up", how="left")
        found.append(joined.filter(pl.col("block").is_not_null()).select("name", "block"))
        rest = joined.filter(pl.col("block").is_null()).select("name", up=_parent("up"))
    return pl.concat(found).sort("name")


def _restated_pairs(selection: Selection, fitted: _Fitted, around: pl.DataFrame, version: str) -> pl.DataFrame:
    """Names between entries, less those that are entries, and the version record's own: name, block."""
    names = pl.concat([selection.between.select("name", "block"), _above_version(around, version)])
    if names.is_empty():
        return names
    names = names.unique("name", keep="first")
    entries = fitted.entries
    taken = entries["name"].filter(entries["name"].is_in(names["name"].implode()))
    return names.filter(~pl.col("name").is_in(taken.implode()) & (pl.col("name") != version)).sort("name")


def _restated_wildcards(fitted: _Fitted, around: pl.DataFrame, version: str) -> pl.DataFrame:
    """What holds below exact entries and the version record that stand under a subtree: name, block."""
    found = fitted.covered
    tops = around.filter("subtree").select("name", "block")
    if version and tops.height:
        at = tops.filter(pl.col("name") == version)
        found = pl.concat([found, at if at.height else _nearest(pl.Series("name", [version]), tops)])
    if found.is_empty():
        return found
    return found.unique("name").join(fitted.wildcards, on="name", how="anti").sort("name")


def _above_version(around: pl.DataFrame, version: str) -> pl.DataFrame:
    """The version record exists in the zone too, and so do the names above it, up to the nearest subtree.

    `around`: the entries for it and for names above it.
    """
    none = pl.DataFrame(schema={"name": pl.String, "block": pl.Boolean})
    above = parents(version) if version else []
    tops = dict(around.filter("subtree").select("name", "block").iter_rows())
    for depth, name in enumerate(above):
        if name in tops:
            return pl.concat(
                [
                    none,
                    pl.DataFrame({"name": above[:depth], "block": [tops[name]] * depth}, schema=none.schema),
                ]
            )
    return none


def _among(entries: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    """The entries for a few `names`."""
    return entries.filter(pl.col("name").is_in(names)) if names else entries.clear()


def _address_lines(all_networks: pl.DataFrame, fmt: Format, target: str, lost: Counter[str]) -> Lines:
    # An answer is a destination: whoever only attacks from an address does not serve names from it.
    rows = networks.wanted(all_networks, fmt.kinds, "outbound")
    cidrs = networks.disjoint(rows)
    networks.require(cidrs)
    # What is listed in both directions is written, and nothing of it lost.
    inbound = networks.wanted(all_networks, fmt.kinds).filter(direction="inbound")["cidr"]
    lost["inbound"] += len(inbound) - int(contains(parse(inbound), parse(cidrs)).sum())
    return Lines(networks.triggers(cidrs), f"{{name}} CNAME {target}", "trigger", "networks")
