"""What an export blocks: the one place where listings, rules, holds, verdicts and a policy become decisions.

`blocklist.select.single` decides the same for one name without columns; a property test holds the two together.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec
import polars as pl
from msgspec.structs import replace

from blocklist.catalog import KINDS, REACH, TLP, Feed
from blocklist.config import Policy
from blocklist.framepatch import together
from blocklist.rules import Rule
from blocklist.select import networks
from blocklist.select.current import CATEGORY, DOMAIN, Cells, Current
from blocklist.select.fold import group_of, nearest, roots_of

IPV4, IPV6, URL = range(2, 5)  # codes of the other kinds
_AREA = ["family", "first", "last"]


class Withheld(msgspec.Struct, frozen=True):
    """Holds in force (releases by a person taken out): `names` wholly, `subtrees` as subtrees only.

    Both: `name: String`. `addresses`: single reference addresses (`family`, `first`, `last`), cut out of wider
    listed networks. `by_category`: what is withheld of listings of these categories (code of `CATEGORY`) instead.
    """

    names: pl.DataFrame
    subtrees: pl.DataFrame
    addresses: pl.DataFrame
    by_category: Mapping[int, Withheld] = msgspec.field(default_factory=dict)


class Chosen(msgspec.Struct, frozen=True):
    """What a policy takes, before a format's capability is considered.

    `decisions`: `name`, `subtree`, `block`, `widenable` (see `blocklist.select.express`), `group: UInt32` (`group_of`).
    `networks`: the listed ones, each once: `name: String`, `family`, `first`, `last` (`blocklist.select.networks`),
    `inbound: Boolean`, `outbound: Boolean`; what a file holds of them says `areas`. `urls`: `url: String`.
    `yielded`, `yielded_urls`: the listed entries, as in `decisions` and `urls`, that gave way to a rule, so that other
    rules can be laid over the same listings (`unruled`, `ruled`). `kept_back`: `name: String`, `kind: UInt8` of what
    stands in no listing that the policy's audience may be told.
    """

    decisions: pl.DataFrame
    networks: pl.DataFrame
    urls: pl.DataFrame
    yielded: pl.DataFrame
    yielded_urls: pl.DataFrame
    kept_back: pl.DataFrame


class Selected(Chosen, frozen=True):
    """The same with `listed`: `gid`, `subtree: Boolean`, `confidence: UInt8`, `name`, `kind` of every listed name that
    was taken, by its number in the picture, for formats that people read. `gids: UInt32`, row by row of `decisions`,
    sorted by name; null for those of rules.
    """

    listed: pl.DataFrame
    gids: pl.Series


def select(
    current: Current,
    feeds: Mapping[int, Feed],
    policy: Policy,
    withheld: Withheld,
    rules: Sequence[Rule],
    verdicts: pl.DataFrame,
) -> Selected:
    """Decide for `policy`. `verdicts`: `name`, `verdict: String` of domains (`dead`, `sinkholed`, `parked`)."""
    cells, rows, taken_ = _taken_cells(current, feeds, policy, withheld)
    kept_back = _kept_back(current, feeds, policy, cells, taken_)
    listed = _named(current, cells, taken_)
    if policy.drops and verdicts.height:
        gone = verdicts.filter(pl.col("verdict").is_in(policy.drops))["name"]
        listed = listed.filter(~(pl.col("kind") == DOMAIN) | ~pl.col("name").is_in(gone.implode()))
    key = (id(cells), _said(cells, taken_), tuple(rules), tuple(policy.drops), id(verdicts) if policy.drops else None)
    # Audiences that differ in what concerns no name share what is decided: their exports then share all that follows.
    names, _ = current.kept(key, lambda: (_names(current, listed, rules), verdicts))
    urls, yielded_urls = _ruled_urls(listed.filter(pl.col("kind") == URL).select(pl.col("name").alias("url")), rules)
    return Selected(
        decisions=names.decisions,
        gids=names.gids,
        networks=_networks(current, cells, rows, listed, feeds),
        urls=urls,
        yielded=names.yielded,
        yielded_urls=yielded_urls,
        kept_back=kept_back,
        listed=listed.drop("widenable"),
    )


class _Names(msgspec.Struct, frozen=True):
    """Of `Selected`, what concerns domains."""

    decisions: pl.DataFrame
    gids: pl.Series
    yielded: pl.DataFrame


def _names(current: Current, listed: pl.DataFrame, rules: Sequence[Rule]) -> _Names:
    """What is decided for the domains among the `listed`, with `rules` over them."""
    domains = listed.filter(pl.col("kind") == DOMAIN)
    entries = _entries(domains, current)
    decisions, yielded = entries, entries.clear()
    if any(rule.kind == "domain" for rule in rules):
        decisions, yielded = current.kept(tuple(rules), lambda: _Ruled(current, rules)).over(entries)
    return _Names(decisions.drop("gid"), decisions["gid"], yielded.drop("gid"))


def _said(cells: Cells, taken_: pl.DataFrame) -> tuple[tuple[object, ...], ...]:
    """What is decided for the cells of domains, but for how sure it is: all that decisions of names come from."""
    domain = cells.picture.names["kind"].gather(taken_["gid"]) == DOMAIN
    return tuple(taken_.filter(domain).select("gid", "subtree", "widenable").sort("gid").rows())


def unruled(chosen: Chosen, rules: Sequence[Rule]) -> Chosen:
    """What would have been chosen without `rules`, which must be those that it was chosen with."""
    said = rule_entries(rules)
    denied = [rule.name for rule in rules if rule.kind == "url" and rule.blocks]
    none, no_urls = chosen.yielded.clear(), chosen.yielded_urls.clear()
    return replace(
        chosen,
        decisions=together(
            chosen.decisions.join(said, on=["name", "subtree"], how="anti", maintain_order="left"),
            chosen.yielded.sort("name", "subtree"),
        ),
        urls=pl.concat([chosen.urls.filter(~pl.col("url").is_in(denied)), chosen.yielded_urls]).sort("url"),
        yielded=none,
        yielded_urls=no_urls,
    )


def ruled(chosen: Chosen, rules: Sequence[Rule]) -> Chosen:
    """`rules` laid over what was chosen without any; networks meet them in `areas`."""
    decisions, yielded = _ruled_names(chosen.decisions, rules)
    urls, yielded_urls = _ruled_urls(chosen.urls, rules)
    return replace(chosen, decisions=decisions, urls=urls, yielded=yielded, yielded_urls=yielded_urls)


def taken_by(current: Current, feeds: Mapping[int, Feed], policy: Policy, withheld: Withheld) -> pl.DataFrame:
    """`name` (and more) of what `policy` takes by its listings and holds alone, before rules and verdicts."""
    cells, _, scored = _taken_cells(current, feeds, policy, withheld)
    return _named(current, cells, scored)


def _taken_cells(
    current: Current, feeds: Mapping[int, Feed], policy: Policy, withheld: Withheld
) -> tuple[Cells, pl.DataFrame, pl.DataFrame]:
    """Cells, their listings that count, and of those that stand `gid`, `subtree`, `confidence`, `widenable`."""
    own = withheld.by_category
    frames = [frame for w in (withheld, *own.values()) for frame in (w.names, w.subtrees)]
    cells = current.cells(frames)
    pairs = zip(cells.among[::2], cells.among[1::2], strict=True)
    (whole, no_subtree), *apart = [(whole, whole | subtree) for whole, subtree in pairs]
    rows = taken(cells.picture, feeds, policy)
    refused = no_subtree.gather(rows["gid"])
    if own:
        rows, refused, no_subtree = _by_category(rows, whole, refused, dict(zip(own, apart, strict=True)))
    scored = _scored(rows, cells.picture, feeds, policy, refused)
    if not own:
        scored = scored.filter(~whole.gather(scored["gid"]))
    return cells, rows, scored.with_columns((~no_subtree.gather(scored["gid"])).alias("widenable"))


def _named(current: Current, cells: Cells, scored: pl.DataFrame) -> pl.DataFrame:
    """What was decided for cells, for their names: `gid`, `subtree`, `confidence`, `widenable`, `name`, `kind`."""
    each = pl.DataFrame({"gid": pl.int_range(cells.picture.names.height, dtype=pl.UInt32, eager=True)})
    each = each.join(scored, on="gid", how="left", maintain_order="left")
    stands = each["confidence"].is_not_null().gather(cells.of).fill_null(False)
    gids = stands.arg_true().cast(pl.UInt32)
    mine = each.drop("gid")[cells.of.gather(gids)]
    return pl.concat(
        [gids.alias("gid").to_frame(), mine, current.names.select(pl.col("name", "kind").gather(gids))],
        how="horizontal",
    )


def _by_category(
    rows: pl.DataFrame, whole: pl.Series, refused: pl.Series, apart: Mapping[int, tuple[pl.Series, pl.Series]]
) -> tuple[pl.DataFrame, pl.Series, pl.Series]:
    """Rows that are not withheld wholly by the guards of their category, which are refused as subtrees, which cells."""
    rows = rows.with_columns(whole.gather(rows["gid"]).alias("whole"), refused.alias("refused"))
    for code, own in apart.items():
        mine = pl.col("category") == code
        rows = rows.with_columns(
            pl.when(mine).then(held.gather(rows["gid"])).otherwise(column).alias(column)
            for column, held in zip(("whole", "refused"), own, strict=True)
        )
    gids = pl.int_range(len(whole), dtype=pl.UInt32, eager=True)
    no_subtree = gids.is_in(rows.filter("refused")["gid"].implode())
    rows = rows.filter(~pl.col("whole"))
    return rows.drop("whole", "refused"), rows["refused"], no_subtree


def _kept_back(
    current: Current, feeds: Mapping[int, Feed], policy: Policy, cells: Cells, scored: pl.DataFrame
) -> pl.DataFrame:
    """`name`, `kind` of what would be taken for the house, is not held, and is told to no audience of `policy`."""
    names = current.names.select("name", "kind")
    if policy.audience == "house":
        return names.clear()
    rows = _rows(cells.picture, feeds, policy).filter(~_told(feeds, policy))
    mine = pl.int_range(cells.picture.names.height, dtype=pl.UInt32, eager=True)
    mine = mine.is_in(rows["gid"].implode()) & ~mine.is_in(scored["gid"].implode()) & ~cells.among[0]
    return names.filter(mine.gather(cells.of).fill_null(False))


def taken(current: Current, feeds: Mapping[int, Feed], policy: Policy) -> pl.DataFrame:
    """Listings that `policy` takes and may tell its audience."""
    rows = _rows(current, feeds, policy)
    return rows if policy.audience == "house" else rows.filter(_told(feeds, policy))


def _told(feeds: Mapping[int, Feed], policy: Policy) -> pl.Expr:
    """May the policy's audience be told of a listing?"""
    closed = [i for i, feed in feeds.items() if feed.redistribution == "forbidden"]
    return (pl.col("tlp") <= TLP.index(REACH[policy.audience])) & ~pl.col("feed").is_in(closed)


def _rows(current: Current, feeds: Mapping[int, Feed], policy: Policy) -> pl.DataFrame:
    """Listings of the feeds, categories and kinds that `policy` names; references, shadows and expired ones never."""
    taken = [
        i
        for i, feed in feeds.items()
        if not feed.is_reference and feed.mode == "live" and (policy.feeds is None or feed.id in policy.feeds)
    ]
    rows = current.listings.filter(
        pl.col("feed").is_in(taken)
        & ~pl.col("expired")
        & pl.col("category").is_in([CATEGORY[c] for c in policy.categories])
    )
    if set(policy.kinds) != set(KINDS):
        codes = [KINDS.index(kind) + 1 for kind in policy.kinds]
        rows = rows.filter(current.names["kind"].gather(rows["gid"]).is_in(codes))
    return rows


def _scored(
    rows: pl.DataFrame, current: Current, feeds: Mapping[int, Feed], policy: Policy, refused: pl.Series
) -> pl.DataFrame:
    """`gid`, `subtree`, `confidence` of the cells that reach the policy's confidence, in their effective scope.

    `refused`: whether a guard refuses the subtree, row by row.
    """
    wide = rows["subtree"]
    if policy.widen:
        wide = wide | (current.names["registrable"].gather(rows["gid"]) & ~refused)
    rows = rows.with_columns(wide.alias("wide"), _family(feeds).alias("family"))
    # A guard that refuses the subtree withholds the listings that claim it; those of the name alone stand.
    rows = rows.filter(~(wide & refused))
    scored = _combined(rows)
    subtrees, exacts = rows.filter("wide"), rows.filter(~pl.col("wide"))
    # Where listings differ in scope, those for the subtree must reach the policy's confidence by themselves.
    mixed = exacts["gid"].unique().filter(exacts["gid"].unique().is_in(subtrees["gid"].unique().implode()))
    enough = _combined(subtrees.filter(pl.col("gid").is_in(mixed.implode()))).filter(
        pl.col("confidence") >= policy.min_confidence
    )
    narrow = exacts["gid"].filter(~exacts["gid"].is_in(enough["gid"].implode()))
    return scored.filter(pl.col("confidence") >= policy.min_confidence).select(
        "gid", (~pl.col("gid").is_in(narrow.implode())).alias("subtree"), "confidence"
    )


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
    # A sum of logarithms is nine times as fast here as a product; certainty is −∞ and comes back as 0.
    doubt = (1 - pl.col("confidence").cast(pl.Float64) / 100).log()
    joined = (
        several.group_by("gid", "family")
        .agg(pl.col("confidence").max())
        .select("gid", doubt.alias("doubt"))
        .group_by("gid")
        .agg(pl.col("doubt").sum())
        .select(
            "gid",
            # The same rounding as `blocklist.confidence.combine`: binary fractions must not turn 99 into 98.
            (100 * (1 - pl.col("doubt").exp()) + 1e-9).floor().cast(pl.UInt8).alias("confidence"),
        )
    )
    return pl.concat([alone, joined])


def _entries(domains: pl.DataFrame, current: Current) -> pl.DataFrame:
    """Listed domains as decisions."""
    return domains.select(
        "name",
        "subtree",
        pl.lit(True).alias("block"),
        "widenable",
        current.groups.gather(domains["gid"]).alias("group"),
        "gid",
    )


def _ruled_names(entries: pl.DataFrame, rules: Sequence[Rule]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Entries such that the most specific one that covers a name decides for it, and those that gave way.

    A listing gives way to a rule for the very same name and scope, and to one that allows it. Below a deny it stays:
    it says the same, and targets that know only single names, or no exceptions, can't say all of the deny.
    """
    said = rule_entries(rules)
    if said.is_empty():
        return entries, entries.clear()
    way = _way(entries, said)
    return together(entries.filter(~way), said.sort("name", "subtree")), entries.filter(way)


def _way(entries: pl.DataFrame, said: pl.DataFrame) -> pl.Series:
    """Which entries give way to what rules `said`: Boolean, row by row."""
    near = pl.repeat(True, entries.height, dtype=pl.Boolean, eager=True)
    if said["name"].str.contains(".", literal=True).all():
        near = entries["group"].is_in(said["group"].implode())
    asked = entries.filter(near)
    gone = asked.select((_named_by(said) | _freed(asked, said)).alias("way"))["way"]
    return near.scatter(near.arg_true(), gone)


class _Ruled:
    """Rules over a whole picture: `give_way` says of its names, as exact and as subtree, whether they would."""

    def __init__(self, current: Current, rules: Sequence[Rule]) -> None:
        self.said = rule_entries(rules).sort("name", "subtree")
        names = current.names.select("name", "kind").with_columns(current.groups.alias("group"))
        gids = (names["kind"] == DOMAIN).arg_true()
        domains = names.select(pl.col("name", "group").gather(gids))
        none = pl.repeat(False, names.height, dtype=pl.Boolean, eager=True)
        self.give_way = tuple(
            none.clone().scatter(gids, _way(domains.with_columns(pl.lit(wide).alias("subtree")), self.said))
            for wide in (False, True)
        )
        # Where each belongs among the names: exact before a listed subtree of that name, subtree after an exact one.
        self._places = pl.Series(
            [
                names["name"].search_sorted(name, side="right" if subtree else "left")
                for name, subtree in self.said.select("name", "subtree").iter_rows()
            ],
            dtype=pl.UInt32,
        )

    def over(self, entries: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """As `_ruled_names`, for entries of the picture in the order of their `gid`; sorted."""
        exact, wide = (give.gather(entries["gid"]) for give in self.give_way)
        way = exact.zip_with(~entries["subtree"], wide)
        left, begin, parts = entries.filter(~way), 0, []
        said = self.said.with_columns(pl.lit(None, pl.UInt32).alias("gid")).select(entries.columns)
        for i, end in enumerate(left["gid"].search_sorted(self._places, side="left")):
            parts += [left.slice(begin, end - begin), said.slice(i, 1)]
            begin = end
        return pl.concat([*parts, left.slice(begin)], rechunk=True), entries.filter(way)


def _named_by(ruled: pl.DataFrame) -> pl.Expr:
    """Is an entry's name and scope that of a rule?"""
    by_scope = [
        pl.col("name").is_in(ruled.filter(pl.col("subtree") == scope)["name"].implode()) for scope in (True, False)
    ]
    return pl.when("subtree").then(by_scope[0]).otherwise(by_scope[1])


def _freed(entries: pl.DataFrame, ruled: pl.DataFrame) -> pl.Series:
    """Is each entry (`name`, `subtree`) allowed by the most specific rule that covers it? Boolean, row by row."""
    above = nearest(entries, roots_of(ruled)).filter(~pl.col("cover"))["row"]
    own = ruled.filter(~pl.col("subtree"))
    exact = ~pl.col("subtree")
    return entries.select(
        pl.when(exact & pl.col("name").is_in(own["name"].implode()))
        .then(pl.col("name").is_in(own.filter(~pl.col("block"))["name"].implode()))
        .otherwise(pl.int_range(pl.len(), dtype=pl.UInt32).is_in(above.implode()))
        .alias("freed")
    )["freed"]


def rule_entries(rules: Sequence[Rule]) -> pl.DataFrame:
    """Decisions, one a name and scope; `allow` wins where two rules say both."""
    chosen: dict[tuple[str, bool], bool] = {}
    for rule in rules:
        if rule.kind != "domain":
            continue
        key = (rule.name, rule.subtree)
        chosen[key] = chosen.get(key, True) and rule.blocks
    return pl.DataFrame(
        [(name, subtree, block, subtree) for (name, subtree), block in chosen.items()],
        schema={"name": pl.String, "subtree": pl.Boolean, "block": pl.Boolean, "widenable": pl.Boolean},
        orient="row",
    ).with_columns(group_of(pl.col("name")).alias("group"))


def _networks(
    current: Current, cells: Cells, rows: pl.DataFrame, listed: pl.DataFrame, feeds: Mapping[int, Feed]
) -> pl.DataFrame:
    """The listed networks that were taken, and in which directions the feeds that list them speak."""
    mine = current.networks.filter(current.networks["gid"].is_in(listed["gid"].implode()))
    cell = cells.of.gather(mine["gid"])
    number = pl.int_range(cells.picture.names.height, dtype=pl.UInt32, eager=True)
    for direction in ("inbound", "outbound"):
        speak = [i for i, feed in feeds.items() if feed.matches in (direction, "both")]
        told = number.is_in(rows.filter(pl.col("feed").is_in(speak))["gid"].implode())
        mine = mine.with_columns(told.gather(cell).alias(direction))
    return mine.drop("gid")


def areas(
    listed: pl.DataFrame, directions: Sequence[str], exceptions: pl.DataFrame, rules: Sequence[Rule]
) -> pl.DataFrame:
    """The networks of `Chosen`, united in each of `directions` (`inbound`, `outbound`, or `both` for all together).

    Reference addresses (`exceptions`) are cut out; of rules, the longest prefix wins.
    Out: `cidr: String`, `family: UInt8`, `direction: String`, sorted by direction as asked, family and number.
    """
    own = _of_networks(rules)
    out = []
    for direction in directions:
        part = listed if direction == "both" else listed.filter(direction)
        cidrs = networks.writable_cidrs(_ruled(part.select(_AREA), exceptions, own))
        out.append(
            cidrs.select(
                networks.text(cidrs).alias("cidr"),
                "family",
                pl.lit(direction).alias("direction"),
            )
        )
    return pl.concat(out)


def _of_networks(rules: Sequence[Rule]) -> list[Rule]:
    return [r for r in rules if r.kind in ("ipv4", "ipv6")]


def _ruled(area: pl.DataFrame, exceptions: pl.DataFrame, rules: Sequence[Rule]) -> pl.DataFrame:
    area = networks.subtract(area, exceptions.select(_AREA)) if exceptions.height else networks.union(area)
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
                networks.union(pl.concat([area, these])) if blocks else networks.subtract(area, networks.union(these))
            )
    return area


def _ruled_urls(urls: pl.DataFrame, rules: Sequence[Rule]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """URLs that no rule frees, and those that gave way: one for the URL itself decides, else the one for its host."""
    allowed = {r.name for r in rules if r.kind == "url" and not r.blocks}
    denied = {r.name for r in rules if r.kind == "url" and r.blocks} - allowed
    way = urls["url"].is_in(list(allowed | denied))
    if urls.height and any(not r.blocks for r in rules):
        host = urls["url"].str.extract(r"^//(\[[^\]/]*\]|[^/:]*)", 1).str.strip_chars("[]").fill_null("")
        probes = pl.DataFrame({"name": host, "subtree": pl.repeat(False, host.len(), dtype=pl.Boolean, eager=True)})
        way |= _freed(probes, rule_entries(rules)) | _freed_addresses(host, rules)
    own = pl.DataFrame({"url": sorted(denied)}, schema={"url": pl.String})
    return pl.concat([urls.filter(~way), own]).unique().sort("url"), urls.filter(way)


def _freed_addresses(hosts: pl.Series, rules: Sequence[Rule]) -> pl.Series:
    """Which hosts are addresses that a rule allows; false for names."""
    area = networks.parse(hosts).select(_AREA)
    left = _ruled(area.drop_nulls(), area.clear(), _of_networks(rules))
    return area["family"].is_not_null() & ~networks.contains(area, left)


def in_force(holds: pl.DataFrame, released: Collection[str], addresses: pl.DataFrame) -> Withheld:
    """Holds, and reference `addresses`, less those a person released, split by what they withhold."""
    passed = pl.Series(sorted(released), dtype=pl.String).implode()
    live = holds.filter(~pl.col("name").is_in(passed))
    return Withheld(
        names=live.filter(~pl.col("subtree_only")).select("name").unique(),
        subtrees=live.filter("subtree_only").select("name").unique(),
        addresses=addresses.select(_AREA).filter(~networks.text(addresses).is_in(passed)),
    )
