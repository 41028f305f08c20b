"""Guards over everything that is listed: what may be right but needs a person is held.

A *holds* frame: `name: String`, `kind: UInt8`, `guard: String`, `subtree_only: Boolean` (withheld only as name
and everything below; the name alone passes), `detail: String` (for a person).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

import msgspec
import polars as pl

from blocklist.catalog import Feed
from blocklist.ingest.normalize import DOMAIN, IPV4, IPV6
from blocklist.select import networks
from blocklist.select.current import Current
from blocklist.special_use import WIDEST_V4, WIDEST_V6
from blocklist.suffixes import SuffixRules

# Raised when a guard says something else of the same input: the holds of an older record are then all computed anew.
RULES = 3

# What names a network that is the operator's own, or a resolver's of `[verify]`.
_OWN = "[protect] of the configuration"

SCHEMA = pl.Schema(
    {
        "name": pl.String,
        "kind": pl.UInt8,
        "guard": pl.String,
        "subtree_only": pl.Boolean,
        "detail": pl.String,
    }
)


class References(msgspec.Struct, frozen=True):
    """What must never be blocked, from reference feeds with `action = "hold"` and from `[protect]`.

    `domains`: `name: String`, `why: String`. `networks`: `cidr: String`, `why: String`, `family`, `first`, `last`
    (see `blocklist.select.networks`). `protected`: the operator's own names; everything below them is theirs too.
    `over_suffixes`: `name: String`, `below: String` of every name of two labels or more above a public suffix.
    """

    domains: pl.DataFrame
    networks: pl.DataFrame
    protected: tuple[str, ...]
    over_suffixes: pl.DataFrame

    @property
    def addresses(self) -> pl.DataFrame:
        """Single addresses: subtracted from a wider listed network instead of holding it whole."""
        return self.networks.filter(pl.col("first") == pl.col("last"))

    @property
    def ranges(self) -> pl.DataFrame:
        return self.networks.filter(pl.col("first") != pl.col("last"))


def references(
    frames: Mapping[int, pl.DataFrame],
    feeds: Mapping[int, Feed],
    suffixes: SuffixRules,
    protected_domains: Iterable[str],
    protected_networks: Iterable[str],
    near: pl.DataFrame | None = None,
) -> References:
    """Collect what guards compare with. Public suffixes inside a reference are ignored: `com` must not hold all.

    Not those that only a wildcard rule makes suffixes: of these no guard but the reference withholds the name itself.

    With `near` (`name: String`, `kind: UInt8`) only what can hold one of these whole: enough for `well_known`.
    """
    domains, nets = [], []
    for feed_id, frame in frames.items():
        feed = feeds[feed_id]
        if not feed.is_reference or feed.action != "hold":
            continue
        why = pl.format(f"{feed.id}, line {{}}", pl.col("line")).alias("why")
        domains.append(frame.filter(pl.col("kind") == DOMAIN).select("name", why))
        nets.append(frame.filter(pl.col("kind").is_in([IPV4, IPV6])).select(pl.col("name").alias("cidr"), why))
    own = list(protected_networks)
    nets.append(
        pl.DataFrame(
            {"cidr": own, "why": [_OWN] * len(own)},
            schema={"cidr": pl.String, "why": pl.String},
        )
    )
    names = pl.concat(domains) if domains else pl.DataFrame(schema={"name": pl.String, "why": pl.String})
    cidrs = pl.concat(nets)
    if near is not None:
        names, cidrs = _near(names, cidrs, near)
    names = names.unique("name", keep="first", maintain_order=True)
    if names.height:
        names = names.filter(
            suffixes.columns(names["name"]).select(~pl.col("suffix") | pl.col("wildcard_suffix")).to_series()
        )
    parsed = networks.parse(cidrs["cidr"]).select("family", "first", "last")
    cidrs = pl.concat([cidrs, parsed], how="horizontal").filter(pl.col("family").is_not_null())
    return References(names, cidrs, tuple(protected_domains), _above(suffixes))


def _near(names: pl.DataFrame, cidrs: pl.DataFrame, near: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What of `names` (`name`) and `cidrs` (`cidr`) can hold one of `near` (see `references`) whole."""
    name, slash = pl.col("name"), pl.col("name").str.contains("/", literal=True)
    www = near.filter(name.str.starts_with("www.")).select(name.str.slice(4))
    alike = pl.concat([near.select("name"), www])
    # A wider network is held by a range, or where single addresses make up all of it: those begin as it does.
    begin = name.str.head(name.str.find(r"[.:]")).alias("begin")
    begins = near.filter(pl.col("kind").is_in([IPV4, IPV6]) & slash).select(begin).to_series().unique().implode()
    nets = cidrs.select(pl.col("cidr").alias("name"))
    kept = nets.select(slash | begin.is_in(begins)).to_series() | nets["name"].is_in(alike["name"].implode())
    return names.join(alike, on="name", how="semi", maintain_order="left"), cidrs.filter(kept)


@lru_cache(2)
def _above(suffixes: SuffixRules) -> pl.DataFrame:
    """`name`, `below: String` of every name of two labels or more above a public suffix."""
    rules = pl.DataFrame({"name": sorted(suffixes.exact | suffixes.wildcard)}, schema={"name": pl.String})
    return ancestors(rules.with_columns(pl.lit("").alias("why"))).select("name", "below")


def concerned(changed: pl.DataFrame) -> pl.Series:
    """Names that reference names could hold, or hold no more, once those of `changed` (indicators) come or go.

    The same name, its `www.`, all above it, and a single address itself; what overlaps a range is not among them.
    """
    domains = changed.filter(pl.col("kind") == DOMAIN).select("name", pl.lit("").alias("why"))
    return pl.concat(
        [changed["name"], domains.select(pl.format("www.{}", "name").alias("name"))["name"], ancestors(domains)["name"]]
    ).unique()


def overlapping(listed: Iterable[pl.DataFrame], changed: pl.DataFrame) -> pl.Series:
    """Which of the networks in any of `listed` (indicators, sorted by name) overlap a range among `changed` (too)."""
    area = ["family", "first", "last"]
    nets = changed.filter(pl.col("kind").is_in([IPV4, IPV6]))["name"]
    ranges = networks.parse(nets).select(area).filter(pl.col("first") != pl.col("last"))
    if ranges.is_empty():
        return nets.clear()
    # No IPv4 network is listed whose first octet says less than all of where it lies: /8 is the widest that may pass.
    octet = pl.col("first") // 2**24
    near = ranges.filter(pl.col("family") == 4).select(pl.int_ranges(octet, pl.col("last") // 2**24 + 1))
    octets = near.to_series().explode().unique().cast(pl.String)
    # What begins with an octet and its dot stands together; "/" is the character behind the dot.
    begins, ends = octets + ".", octets + "/"
    found = [nets.clear()]
    for frame in listed:
        if not frame["kind"].is_between(IPV4, IPV6).any():
            continue
        places = pl.DataFrame(
            [frame["name"].search_sorted(x).cast(pl.Int64).alias(n) for n, x in (("at", begins), ("end", ends))]
        )
        rows = places.filter(pl.col("at") < pl.col("end")).select(pl.int_ranges("at", "end").explode()).to_series()
        found += [
            part["name"].filter(part["kind"] == kind)
            for part, kind in ((frame.select("name", "kind")[rows], IPV4), (frame, IPV6))
        ]
    together = pl.concat(found)
    return together.filter(networks.overlaps(networks.parse(together).select(area), ranges))


def guard(current: Current, known: References) -> pl.DataFrame:
    """Holds over everything current, sorted by name and guard; unique in both."""
    return _guard(current.names, known)


def over(names: pl.DataFrame, suffixes: SuffixRules, known: References) -> pl.DataFrame:
    """What guards would say of `names` (`name: String`, `kind: UInt8`, unique), were they listed; as `guard`."""
    flags = suffixes.columns(names["name"]).select("suffix", "wildcard_suffix")
    return _guard(pl.concat([names.select("name", "kind"), flags], how="horizontal"), known)


def well_known(names: pl.DataFrame, known: References) -> pl.Series:
    """The names that references or `[protect]` would hold whole, were `names` listed (as for `over`).

    What `over` says of the guards "reference" and "protect", but for who named them: one that both hold comes twice.
    """
    domains = names.filter(pl.col("kind") == DOMAIN)
    name, reference = pl.col("name"), known.domains["name"].implode()
    named = name.is_in(reference) | (name.str.starts_with("www.") & name.str.slice(4).is_in(reference))
    rows = _parsed(names.filter(pl.col("kind").is_in([IPV4, IPV6])))
    return pl.concat(
        [
            domains.filter(named)["name"],
            _protected(domains, known.protected).filter(~pl.col("subtree_only"))["name"],
            *(touched["name"] for _, touched, _ in _met(rows, known)),
        ]
    )


def _guard(names: pl.DataFrame, known: References) -> pl.DataFrame:
    domains = names.filter(pl.col("kind") == DOMAIN)
    parts = [
        _suffixes(domains, known.over_suffixes),
        _reference_names(domains, known.domains),
        _protected(domains, known.protected),
        _networks(names.filter(pl.col("kind").is_in([IPV4, IPV6])), known),
    ]
    return pl.concat(parts).unique(["name", "guard"], keep="first").sort("name", "guard")


def _suffixes(domains: pl.DataFrame, over: pl.DataFrame) -> pl.DataFrame:
    """Suffixes themselves, and as subtrees the names above one: all that others registered there is not theirs."""
    columns = ("name", "kind", pl.lit("public-suffix").alias("guard"))
    itself = domains.filter("suffix").select(
        *columns,
        pl.col("wildcard_suffix").alias("subtree_only"),
        pl.lit("is a public suffix: anyone may register below it").alias("detail"),
    )
    above = domains.filter(~pl.col("suffix")).join(over, on="name", how="inner")
    return pl.concat(
        [
            itself,
            above.select(
                *columns,
                pl.lit(True).alias("subtree_only"),
                pl.format("would cover the public suffix {}", "below").alias("detail"),
            ),
        ]
    )


def ancestors(names: pl.DataFrame) -> pl.DataFrame:
    """`name`, `below: String` (an example), `why` for every proper ancestor of two labels or more."""
    above = []
    step = names.select(pl.col("name").alias("below"), "why", pl.col("name"))
    while step.height:
        step = step.with_columns(pl.col("name").str.splitn(".", 2).struct.field("field_1").alias("name"))
        step = step.filter(pl.col("name").str.contains(".", literal=True).fill_null(False))
        above.append(step)
    if not above:
        return pl.DataFrame(schema={"name": pl.String, "below": pl.String, "why": pl.String})
    return pl.concat(above).select("name", "below", "why").unique("name", keep="first", maintain_order=True)


def again(holds: pl.DataFrame, reference: pl.DataFrame) -> pl.DataFrame:
    """Of `holds`, what would be held if only the names of `reference` (`name`, `why`) were named by references."""
    by_name = (pl.col("guard") == "reference") & (pl.col("kind") == DOMAIN)
    named = _reference_names(holds.filter(by_name).select("name", "kind").unique(), reference)
    return pl.concat([holds.filter(~by_name).select(SCHEMA.names()), named.select(SCHEMA.names())])


def _reference_names(domains: pl.DataFrame, reference: pl.DataFrame) -> pl.DataFrame:
    if reference.is_empty() or domains.is_empty():
        return pl.DataFrame(schema=SCHEMA)
    # A reference name protects its `www.` too: 1,133 listed `www.X` had X, but not itself, in a top list.
    named = pl.concat([reference, reference.select(pl.format("www.{}", "name").alias("name"), "why")]).unique(
        "name", keep="first", maintain_order=True
    )
    itself = domains.select("name", "kind").join(named, on="name", how="inner")
    below = (
        domains.select("name", "kind")
        .join(ancestors(reference), on="name", how="inner")
        .join(itself.select("name"), on="name", how="anti")
    )
    return pl.concat(
        [
            itself.select(
                "name",
                "kind",
                pl.lit("reference").alias("guard"),
                pl.lit(False).alias("subtree_only"),
                pl.format("named by {}", "why").alias("detail"),
            ),
            below.select(
                "name",
                "kind",
                pl.lit("reference").alias("guard"),
                pl.lit(True).alias("subtree_only"),
                pl.format("would cover {}, named by {}", "below", "why").alias("detail"),
            ),
        ]
    )


def _protected(domains: pl.DataFrame, protected: tuple[str, ...]) -> pl.DataFrame:
    if not protected:
        return pl.DataFrame(schema=SCHEMA)
    parts = []
    own = pl.DataFrame({"name": list(protected), "why": ["[protect]"] * len(protected)})
    above = ancestors(own)
    parts.append(
        domains.join(above, on="name", how="inner").select(
            "name",
            "kind",
            pl.lit("protect").alias("guard"),
            pl.lit(True).alias("subtree_only"),
            pl.format("would cover {} of [protect]", "below").alias("detail"),
        )
    )
    # One search for all of them first: the names of every feed's host are among them.
    near = domains.filter(pl.col("name").str.contains_any(list(protected)))
    for name in protected:
        below = near.filter((pl.col("name") == name) | pl.col("name").str.ends_with("." + name))
        parts.append(
            below.select(
                "name",
                "kind",
                pl.lit("protect").alias("guard"),
                pl.lit(False).alias("subtree_only"),
                pl.lit(f"is {name} of [protect], or below it").alias("detail"),
            )
        )
    # A name at or below one protected name may be above another: withheld as exact wins.
    return pl.concat(parts).sort("subtree_only", maintain_order=True).unique("name", keep="first", maintain_order=True)


def _networks(listed: pl.DataFrame, known: References) -> pl.DataFrame:
    if listed.is_empty():
        return pl.DataFrame(schema=SCHEMA)
    rows = _parsed(listed)
    parts = [
        rows.filter(_wider()).select(
            "name",
            "kind",
            pl.lit("too-wide").alias("guard"),
            pl.lit(False).alias("subtree_only"),
            pl.lit(f"is wider than /{WIDEST_V4} (IPv4) or /{WIDEST_V6} (IPv6)").alias("detail"),
        )
    ]
    for guard_, touched, reference in _met(rows, known):
        parts.append(
            touched.select(
                "name",
                "kind",
                pl.lit(guard_).alias("guard"),
                pl.lit(False).alias("subtree_only"),
                _which(touched, reference).alias("detail"),
            )
        )
    return pl.concat(parts)


def _parsed(listed: pl.DataFrame) -> pl.DataFrame:
    """`name`, `kind` of networks, with their `family`, `first` and `last`."""
    area = networks.parse(listed["name"]).select("family", "first", "last")
    return pl.concat([listed.select("name", "kind"), area], how="horizontal")


def _met(rows: pl.DataFrame, known: References) -> Iterator[tuple[str, pl.DataFrame, pl.DataFrame]]:
    """A guard, the `rows` (of `_parsed`) that it holds, and the references that they meet."""
    if rows.is_empty():
        return
    area = ["family", "first", "last"]
    for guard_, own in (("reference", False), ("protect", True)):
        mine = (pl.col("why") == _OWN) == own
        ranges, addresses = known.ranges.filter(mine), known.addresses.filter(mine)
        # Either direction for ranges; a single reference address only holds the very same address.
        over = networks.overlaps(rows.select(area), ranges.select(area))
        same = networks.contains(rows.select(area), addresses.select(area))
        for touched, reference in ((rows.filter(over), ranges), (rows.filter(same & ~over), addresses)):
            if touched.height:
                yield guard_, touched, reference


def _wider() -> pl.Expr:
    span = pl.col("last") - pl.col("first")
    return pl.when(pl.col("family") == 4).then(span >= 2 ** (32 - WIDEST_V4)).otherwise(span >= 2 ** (128 - WIDEST_V6))


def _which(touched: pl.DataFrame, reference: pl.DataFrame) -> pl.Series:
    """For each held network, one reference that it touches, in words.

    Of those that begin at or before its end the last, which is the narrowest where references lie in one another;
    where that one ends too early, the one that reaches furthest.
    """
    furthest = pl.when(pl.col("last") == pl.col("last").cum_max().over("family"))
    ordered = reference.sort("family", "first").select(
        "family",
        pl.col("first").alias("begin"),
        pl.col("last").alias("reach"),
        "cidr",
        "why",
        furthest.then("cidr").forward_fill().alias("furthest_cidr"),
        furthest.then("why").forward_fill().alias("furthest_why"),
    )
    found = (
        touched.select("family", "first", "last")
        .with_row_index("row")
        .sort("last")
        .join_asof(ordered, left_on="last", right_on="begin", by="family", check_sortedness=False)
        .sort("row")
    )
    near = pl.when(pl.col("reach") >= pl.col("first"))
    return found.select(
        pl.format(
            "overlaps {}, named by {}",
            near.then("cidr").otherwise("furthest_cidr"),
            near.then("why").otherwise("furthest_why"),
        )
    ).to_series()
