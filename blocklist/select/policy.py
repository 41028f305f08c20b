"""What an export blocks: the one place where listings, rules, holds, verdicts and a policy become decisions.

`blocklist.audit` answers the same question for one name without columns; a property test holds the two together.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from blocklist.catalog import KINDS, Feed
from blocklist.config import Policy
from blocklist.rules import Rule
from blocklist.select import networks
from blocklist.select.current import CATEGORY, Current

DOMAIN, IPV4, IPV6, URL = range(1, 5)
_AREA = ["family", "first", "last"]


@dataclass(frozen=True)
class Withheld:
    """Holds in force (releases by a person taken out): `names` wholly, `subtrees` as subtrees only.

    Both: `name: String`. `addresses`: single reference addresses (`family`, `first`, `last`), cut out of wider
    listed networks.
    """

    names: pl.DataFrame
    subtrees: pl.DataFrame
    addresses: pl.DataFrame


@dataclass(frozen=True)
class Chosen:
    """What a policy takes, before a format's capability is considered.

    `decisions`: `name`, `subtree`, `block`, `widenable` (see `blocklist.select.express`).
    `networks`: `cidr: String`, `family: UInt8`, `direction: String` of `inbound`, `outbound` and (all together)
    `both`; `urls`: `url: String`. `listed`: `gid`, `subtree: Boolean`, `confidence: UInt8` of every listing's name that
    was taken, for formats that people read.
    """

    decisions: pl.DataFrame
    networks: pl.DataFrame
    urls: pl.DataFrame
    listed: pl.DataFrame


def select(
    current: Current,
    feeds: Mapping[int, Feed],
    policy: Policy,
    withheld: Withheld,
    rules: Sequence[Rule],
    dead: pl.DataFrame,
) -> Chosen:
    """Decide for `policy`. `dead` holds `name: String` of the domains that count as dead."""
    rows = _taken(current, feeds, policy)
    held = current.names.select("name").with_columns(
        pl.col("name").is_in(withheld.names["name"].implode()).alias("whole"),
        pl.col("name").is_in(withheld.subtrees["name"].implode()).alias("subtree"),
    )
    no_subtree = held["whole"] | held["subtree"]
    scored = _scored(rows, current, feeds, policy, no_subtree)
    scored = scored.filter(~held["whole"].gather(scored["gid"]))
    listed = scored.select("gid", "subtree", "confidence").with_columns(
        current.names["name"].gather(scored["gid"]).alias("name"),
        current.names["kind"].gather(scored["gid"]).alias("kind"),
    )
    if policy.dead == "drop" and dead.height:
        listed = listed.filter(~(pl.col("kind") == DOMAIN) | ~pl.col("name").is_in(dead["name"].implode()))
    domains = listed.filter(pl.col("kind") == DOMAIN)
    return Chosen(
        decisions=_decisions(domains, no_subtree, rules),
        networks=_networks(listed, rows, feeds, withheld, rules),
        urls=_urls(listed, rules),
        listed=listed,
    )


def _taken(current: Current, feeds: Mapping[int, Feed], policy: Policy) -> pl.DataFrame:
    """Listings of the feeds, categories and kinds that `policy` names; references and shadows never."""
    taken = [
        i
        for i, feed in feeds.items()
        if not feed.is_reference and feed.mode == "live" and (policy.feeds is None or feed.id in policy.feeds)
    ]
    rows = current.listings.filter(
        pl.col("feed").is_in(taken) & pl.col("category").is_in([CATEGORY[c] for c in policy.categories])
    )
    if set(policy.kinds) != set(KINDS):
        codes = [KINDS.index(kind) + 1 for kind in policy.kinds]
        rows = rows.filter(current.names["kind"].gather(rows["gid"]).is_in(codes))
    return rows


def _scored(
    rows: pl.DataFrame, current: Current, feeds: Mapping[int, Feed], policy: Policy, no_subtree: pl.Series
) -> pl.DataFrame:
    """`gid`, `subtree`, `confidence` of the names that reach the policy's confidence, in their effective scope."""
    registrable = current.names["registrable"].gather(rows["gid"])
    refused = no_subtree.gather(rows["gid"])
    widened = (
        registrable & ~refused
        if policy.widen
        else pl.repeat(False, rows.height, dtype=pl.Boolean, eager=True)
    )
    rows = rows.with_columns((pl.col("subtree") | widened).alias("wide"), refused.alias("refused"))
    rows = rows.with_columns(_family(feeds).alias("family"))
    every = _combined(rows)
    # Only names whose listings differ in scope, or whose subtree a guard refuses, need a second account.
    scopes = rows.group_by("gid").agg(
        pl.col("wide").any().alias("any"), pl.col("wide").all().alias("all"), pl.col("refused").first()
    )
    scored = every.join(scopes, on="gid", how="left")
    mixed = scored.filter((pl.col("any") & ~pl.col("all")) | (pl.col("any") & pl.col("refused"))).select(
        "gid"
    )
    scored = scored.with_columns(pl.col("all").alias("subtree"))
    if mixed.height:
        part = rows.join(mixed, on="gid", how="semi")
        by_subtree = _combined(part.filter("wide")).rename({"confidence": "by_subtree"})
        by_exact = _combined(part.filter(~pl.col("wide"))).rename({"confidence": "by_exact"})
        scored = scored.join(by_subtree, on="gid", how="left").join(by_exact, on="gid", how="left")
        enough = pl.col("by_subtree").fill_null(0) >= policy.min_confidence
        is_mixed = pl.col("gid").is_in(mixed["gid"].implode())
        scored = scored.with_columns(
            pl.when(is_mixed).then(enough & ~pl.col("refused")).otherwise(pl.col("subtree")).alias("subtree"),
            # A guard that refuses the subtree withholds the listings that claim it; those that name only the
            # name stand by themselves.
            pl.when(is_mixed & pl.col("refused") & pl.col("any"))
            .then(pl.col("by_exact").fill_null(0))
            .otherwise(pl.col("confidence"))
            .alias("confidence"),
        )
    return scored.filter(pl.col("confidence") >= policy.min_confidence).select("gid", "subtree", "confidence")


def _family(feeds: Mapping[int, Feed]) -> pl.Expr:
    """Feeds of one family count once; a feed without one is its own."""
    codes: dict[str, int] = {}
    number = {i: codes.setdefault(f.family or f"\0{f.id}", len(codes)) for i, f in feeds.items()}
    return pl.col("feed").replace_strict(number, default=0, return_dtype=pl.UInt16)


def _combined(rows: pl.DataFrame) -> pl.DataFrame:
    """`gid`, `confidence: UInt8` = ⌊100·(1 − Π(1 − cᵢ/100))⌋ over families, each by its maximum."""
    gid = rows["gid"]
    single = (gid != gid.shift(1)).fill_null(True) & (gid != gid.shift(-1)).fill_null(True)
    alone = rows.filter(single).select("gid", "confidence")
    several = rows.filter(~single)
    if several.is_empty():
        return alone
    left_over = (1 - pl.col("confidence").cast(pl.Float64) / 100).product()
    joined = (
        several.group_by("gid", "family")
        .agg(pl.col("confidence").max())
        .group_by("gid")
        .agg(
            # The same rounding as `blocklist.audit.combine`: binary fractions must not turn 99 into 98.
            (100 * (1 - left_over) + 1e-9).floor().cast(pl.UInt8).alias("confidence")
        )
    )
    return pl.concat([alone, joined])


def _decisions(domains: pl.DataFrame, no_subtree: pl.Series, rules: Sequence[Rule]) -> pl.DataFrame:
    """Entries such that the most specific one that covers a name decides for it."""
    entries = domains.select(
        "name",
        "subtree",
        pl.lit(True).alias("block"),
        (~no_subtree.gather(domains["gid"])).alias("widenable"),
    )
    own = [r for r in rules if r.kind == "domain"]
    if not own:
        return entries
    entries = _outranked(entries, own)
    deciding = _rule_entries(own)
    return pl.concat([entries, deciding])


def _outranked(entries: pl.DataFrame, rules: Sequence[Rule]) -> pl.DataFrame:
    """Entries that no rule covers: a rule outranks every listing at or below its name."""
    subtree = pl.Series([r.name for r in rules if r.subtree], dtype=pl.String).implode()
    exact = pl.Series([r.name for r in rules if not r.subtree], dtype=pl.String).implode()
    name = pl.col("name")
    covered = entries.select(
        (name.is_in(subtree) | (name.is_in(exact) & ~pl.col("subtree"))).alias("covered")
    )["covered"]
    step = entries.select("name").with_row_index("row")
    rows: list[pl.Series] = []
    while step.height:
        step = step.with_columns(name.str.splitn(".", 2).struct.field("field_1").alias("name")).drop_nulls(
            "name"
        )
        rows.append(step.filter(name.is_in(subtree))["row"])
    below = pl.concat(rows).unique() if rows else pl.Series(dtype=pl.UInt32)
    return entries.filter(
        ~covered & ~pl.int_range(entries.height, dtype=pl.UInt32, eager=True).is_in(below.implode())
    )


def _rule_entries(rules: Sequence[Rule]) -> pl.DataFrame:
    """One entry a name and scope; `allow` wins where two rules say both."""
    chosen: dict[tuple[str, bool], bool] = {}
    for rule in rules:
        key = (rule.name, rule.subtree)
        chosen[key] = chosen.get(key, True) and rule.blocks
    return pl.DataFrame(
        [(name, subtree, block, subtree) for (name, subtree), block in chosen.items()],
        schema={"name": pl.String, "subtree": pl.Boolean, "block": pl.Boolean, "widenable": pl.Boolean},
        orient="row",
    )


def _networks(
    listed: pl.DataFrame,
    rows: pl.DataFrame,
    feeds: Mapping[int, Feed],
    withheld: Withheld,
    rules: Sequence[Rule],
) -> pl.DataFrame:
    """CIDR rows of each direction, listed networks united, exceptions cut out; the longest prefix of a rule wins."""
    mine = listed.filter(pl.col("kind").is_in([IPV4, IPV6])).select("gid", "name")
    parsed = networks.parse(mine["name"]).select(_AREA)
    mine = pl.concat([mine, parsed], how="horizontal")
    directions = rows.select("gid", "feed").join(mine.select("gid"), on="gid", how="semi")
    matches = {i: feed.matches for i, feed in feeds.items()}
    directions = directions.with_columns(
        pl.col("feed").replace_strict(matches, default="both", return_dtype=pl.String).alias("direction")
    )
    own = [r for r in rules if r.kind in ("ipv4", "ipv6")]
    out = []
    for direction in ("inbound", "outbound", "both"):
        part = mine
        if direction != "both":
            these = directions.filter(pl.col("direction").is_in([direction, "both"]))
            part = mine.join(these.select("gid"), on="gid", how="semi")
        area = _ruled(part.select(_AREA), withheld.addresses, own)
        cidrs = networks.to_cidrs(area).sort("family", "first")
        out.append(
            cidrs.select(
                networks.text(cidrs).alias("cidr"),
                "family",
                pl.lit(direction).alias("direction"),
            )
        )
    return pl.concat(out)


def _ruled(area: pl.DataFrame, exceptions: pl.DataFrame, rules: Sequence[Rule]) -> pl.DataFrame:
    area = networks.union(area)
    if area.height and exceptions.height:
        area = networks.subtract(area, exceptions.select(_AREA))
    by_length: dict[int, list[Rule]] = {}
    for rule in rules:
        _, _, length = rule.name.partition("/")
        size = (128 if rule.kind == "ipv6" else 32) - int(length or (128 if rule.kind == "ipv6" else 32))
        by_length.setdefault(size, []).append(rule)
    # From the widest to the narrowest, so that the longest prefix has the last word; `allow` wins a tie.
    for size in sorted(by_length, reverse=True):
        for blocks in (True, False):
            names = [r.name for r in by_length[size] if r.blocks == blocks]
            if not names:
                continue
            these = networks.parse(pl.Series(names)).select(_AREA)
            area = (
                networks.union(pl.concat([area, these]))
                if blocks
                else networks.subtract(area, networks.union(these))
            )
    return area


def _urls(listed: pl.DataFrame, rules: Sequence[Rule]) -> pl.DataFrame:
    """URLs; an allow for the URL, or for its host or a name above it, frees it."""
    urls = listed.filter(pl.col("kind") == URL).select(pl.col("name").alias("url"))
    denied = [r.name for r in rules if r.kind == "url" and r.blocks]
    allowed = [r.name for r in rules if r.kind == "url" and not r.blocks]
    hosts = [r for r in rules if r.kind == "domain"]
    if hosts and urls.height:
        host = pl.col("url").str.extract(r"^//([^/:]+)", 1).alias("name")
        probes = urls.with_row_index("row").select("row", host, pl.lit(False).alias("subtree"))
        allows = [r for r in hosts if not r.blocks]
        free = _outranked(probes, allows)["row"] if allows else probes["row"]
        urls = urls.filter(pl.int_range(urls.height, dtype=pl.UInt32, eager=True).is_in(free.implode()))
    urls = urls.filter(~pl.col("url").is_in(allowed))
    if denied:
        urls = pl.concat(
            [urls, pl.DataFrame({"url": [d for d in denied if d not in allowed]}, schema={"url": pl.String})]
        )
    return urls.unique().sort("url")


def no_names() -> pl.DataFrame:
    return pl.DataFrame(schema={"name": pl.String})


def in_force(holds: pl.DataFrame, released: Collection[str], addresses: pl.DataFrame) -> Withheld:
    """Holds less those a person released, split by what they withhold."""
    live = holds.filter(~pl.col("name").is_in(list(released)))
    return Withheld(
        names=live.filter(~pl.col("subtree_only")).select("name").unique(),
        subtrees=live.filter("subtree_only").select("name").unique(),
        addresses=addresses.select(_AREA),
    )
