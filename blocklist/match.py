"""Logs against the lists: what would be blocked now, by which entry of which export, thanks to which feed.

An export is judged by what its format can say, as its file would be if it were published now: without what its live
release left out for want of room, and one that is pinned with what the release of its pin held. What blocks nothing yet
is replayed beside it: feeds and policies in shadow mode, and policies that no export uses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property

import msgspec
import polars as pl
from msgspec.structs import replace

from blocklist import clock
from blocklist.catalog import KINDS, Feed
from blocklist.config import Config, Policy
from blocklist.errors import RecordError
from blocklist.match_read import Asked
from blocklist.picture import Picture
from blocklist.publish import settings
from blocklist.publish.descriptor import Format
from blocklist.publish.left_out import CUT
from blocklist.publish.past import PastRecord
from blocklist.publish.rollback import Pin, shown_by
from blocklist.publish.selection import Selection
from blocklist.publish.selector import Selector, capability_of
from blocklist.publish.written import of_rows, without, written
from blocklist.rules import Rule, rules_at, rules_in_force
from blocklist.select import networks
from blocklist.select.current import DOMAIN, Current
from blocklist.select.fold import nearest, parents, roots_of
from blocklist.select.policy import URL, Chosen, Withheld, areas, select, taken
from blocklist.store import kept
from blocklist.store.moment import run_at
from blocklist.store.record import Record
from blocklist.suffixes import SuffixRules

_ADDRESS_NAME = r"^(?:[0-9.]+|[0-9a-f]*:[0-9a-f:.]*)(?:/[0-9]+)?$"
_AREA = ["family", "first", "last"]


class Hits(msgspec.Struct, frozen=True):
    """What one list does with the things asked for. `name` is that of an export, else of a policy; `format` is empty
    for a policy; `pin` what holds an export at an earlier release.

    `frame`: `thing: UInt32`, `entry: String`, `scope: String` (`subtree`, `exact`, `network`, `url`) of what it blocks.
    """

    name: str
    format: str
    policy: str
    entries: int
    frame: pl.DataFrame
    pin: Pin | None = None


class Shadow(msgspec.Struct, frozen=True):
    """What a feed in shadow mode would do to `policy`, beyond what is blocked anyway."""

    feed: str
    policy: str
    frame: pl.DataFrame


class Matched(msgspec.Struct, frozen=True):
    """`exports` block; `shadowed` exports would, if their policy were live; `policies` would, if an export used them;
    feeds of `shadows` would, if they were live.

    `feeds`: `thing: UInt32`, `feed: String`: by which feeds a thing is blocked that any export blocks (none: by a
    rule). `sizes`: entries of every feed that lists something.
    """

    asked: Asked
    exports: Sequence[Hits]
    shadowed: Sequence[Hits]
    policies: Sequence[Hits]
    shadows: Sequence[Shadow]
    feeds: pl.DataFrame
    sizes: Mapping[str, int]
    modes: Mapping[str, str] = msgspec.field(default_factory=dict)


def match(
    config: Config,
    record: Record,
    formats: Mapping[str, Format],
    suffixes: SuffixRules,
    asked: Asked,
    at: datetime | None = None,
) -> Matched:
    """Judge `asked` by the record as it is now, or as it was `at` a time: listings, holds, verdicts, rules, pins and
    feeds of then, under the exports and policies of now.

    `record` may be open for reading only. Raises RecordError when nothing was recorded by then, or when what the
    release of a pin held can't be read.
    """
    if at is None:
        return _Match(config, record, formats, suffixes, asked, rules_in_force(record.connection, clock.now())).all()
    run = run_at(record.connection, at)
    then = replace(config, feeds=settings.feeds_at(record.connection, run) or config.feeds)
    past = PastRecord(record.state, record.connection, run)
    return _Match(then, past, formats, suffixes, asked, rules_at(record.connection, run, at), at).all()


class _Match:
    def __init__(
        self,
        config: Config,
        record: Record,
        formats: Mapping[str, Format],
        suffixes: SuffixRules,
        asked: Asked,
        rules: Sequence[Rule],
        at: datetime | None = None,
    ) -> None:
        self._config, self._record, self._formats, self._asked, self._at = config, record, formats, asked, at
        self._picture = Picture(config, record, suffixes, at)
        self._rules = rules
        self._selector = Selector(self._picture, record, config.policies, self._rules, config=config)
        self._verdicts = record.verdict_names()
        things = asked.things.with_row_index("thing")
        self._urls = things.drop_nulls("url").select("thing", "url")
        self._names = things.filter(~pl.col("address")).select("thing", name="host")
        addresses = things.filter("address")
        self._addresses = pl.concat(
            [addresses.select("thing"), networks.parse(addresses["host"]).select(_AREA)], how="horizontal"
        )

    def all(self) -> Matched:
        policies = self._config.policies
        every = [self._of_export(name) for name in self._config.exports]
        exports = [hits for hits in every if policies[hits.policy].mode == "live"]
        used = list(dict.fromkeys(hits.policy for hits in every))
        unused = [self._of_policy(name) for name in policies if name not in used and (name != "default" or not used)]
        blocked: dict[str, list[pl.Series]] = {}
        for hits in exports:
            if hits.pin is None:
                blocked.setdefault(hits.policy, []).append(hits.frame["thing"])
        feeds = [
            self._attributed(policies[name], self._picture.feeds, pl.concat(things).unique())
            for name, things in blocked.items()
        ]
        feeds += [self._attributed_then(hits, hits.pin) for hits in exports if hits.pin is not None]
        shadows = [shadow for name in used or list(policies) for shadow in self._shadows(name)]
        snapshots = self._record.current_snapshots()
        listing = {i: f for i, f in self._picture.feeds.items() if not f.is_reference}
        return Matched(
            asked=self._asked,
            exports=exports,
            shadowed=[hits for hits in every if policies[hits.policy].mode != "live"],
            policies=unused,
            shadows=shadows,
            feeds=pl.concat([_no_feeds(), *feeds]).unique(),
            sizes={f.id: snapshots[i].entries for i, f in listing.items() if i in snapshots},
            modes={f.id: f.mode for f in listing.values()},
        )

    # Lists

    def _of_export(self, name: str) -> Hits:
        export = self._config.exports[name]
        fmt = self._formats[export.format]
        cut = self._cut(name)
        if fmt.of_rows and cut is None:
            # Lists for people name what is blocked, unfolded; what stands above decides the same.
            kinds = set(export.kinds if export.kinds is not None else KINDS)
            decided = self._selector.decides(export)
            chosen = decided.chosen(export.policy)
            fitted = decided.fitted(export.policy, capability_of(fmt, chosen))
            selection = self._as_decided(replace(chosen, decisions=fitted.entries), kinds, decided.withheld)
        else:
            selection, _ = self._selector.selection(export, fmt)
        if cut is not None:
            selection = without(selection, cut)
        if fmt.of_rows and cut is not None:
            selection = of_rows(selection)
        selection = written(export, fmt, selection)
        return replace(
            self._hits(name, export.format, export.policy, selection), pin=self._selector.pins.get(export.name)
        )

    def _cut(self, export: str) -> pl.Series | None:
        """The entries that the release that is live, or was, left out for its target's capacity; None where none."""
        where, values = "state = 'live'", [export]
        if self._at is not None:
            where, values = "published <= ? ORDER BY published DESC, id DESC LIMIT 1", [export, clock.text(self._at)]
        row = self._record.connection.execute(f"SELECT left_out FROM release WHERE export = ? AND {where}", values)
        digest = (row.fetchone() or (None,))[0]
        if digest is None:
            return None
        try:
            lines = kept.read(self._config.state, digest).decode("ascii").splitlines()
        except RecordError:
            return None
        said = pl.Series(lines, dtype=pl.String).str.splitn("\t", 2).struct
        return said.field("field_0").filter(said.field("field_1").str.starts_with(CUT))

    def _of_policy(self, name: str) -> Hits:
        return self._hits(name, "", name, self._as_decided(self._selector.decided.chosen(name), set(KINDS)))

    def _as_decided(self, chosen: Chosen, kinds: set[str], withheld: Withheld | None = None) -> Selection:
        """What a target would hold that can say everything."""
        withheld = withheld or self._selector.decided.withheld
        area = areas(chosen.networks, ["both"], withheld.addresses, self._rules)
        families = [family for kind, family in (("ipv4", 4), ("ipv6", 6)) if kind in kinds]
        return Selection(
            domains=chosen.decisions if "domain" in kinds else chosen.decisions.clear(),
            networks=area.filter(pl.col("family").is_in(families)),
            urls=chosen.urls if "url" in kinds else chosen.urls.clear(),
        )

    def _hits(self, name: str, fmt: str, policy: str, selection: Selection) -> Hits:
        cidrs = selection.networks["cidr"].n_unique()
        entries = int(selection.domains["block"].sum()) + cidrs + selection.urls.height
        return Hits(name, fmt, policy, entries, self._blocked(selection))

    def _blocked(self, selection: Selection) -> pl.DataFrame:
        """`thing`, `entry`, `scope`; of a URL its own entry before that of its host."""
        urls = self._urls.join(selection.urls, on="url", how="semi").select(
            "thing", entry="url", scope=pl.lit("url"), rank=pl.lit(0)
        )
        hosts = [self._blocked_names(selection.domains), self._blocked_addresses(selection.networks)]
        frame = pl.concat([urls, *(h.with_columns(rank=pl.lit(1)) for h in hosts)])
        return frame.sort("thing", "rank").unique("thing", keep="first", maintain_order=True).drop("rank")

    def _blocked_names(self, domains: pl.DataFrame) -> pl.DataFrame:
        """The most specific entry that covers a name decides (see `blocklist.select.fold`)."""
        names = self._names
        if names.is_empty() or domains.is_empty():
            return _no_hits()
        exact = domains.filter(~pl.col("subtree")).select("name", "block")
        own = names.join(exact, on="name").select("thing", "block", entry="name", scope=pl.lit("exact"))
        probes = names.select("name", pl.lit(False).alias("subtree"))
        covers = nearest(probes, roots_of(domains))
        covered = covers.select(
            names["thing"].gather(covers["row"]), block="cover", entry="above", scope=pl.lit("subtree")
        ).join(own, on="thing", how="anti")
        return pl.concat([own, covered]).filter("block").select("thing", "entry", "scope")

    def _blocked_addresses(self, cidrs: pl.DataFrame) -> pl.DataFrame:
        """The network of an export that holds each address. Those of one direction are disjoint."""
        if self._addresses.is_empty() or cidrs.is_empty():
            return _no_hits()
        found = []
        for (_, _), part in cidrs.group_by("family", "direction"):
            area = networks.parse(part["cidr"]).select(_AREA).with_columns(part["cidr"]).sort("first")
            mine = self._addresses.filter(pl.col("family") == area["family"][0])
            at = area["first"].search_sorted(mine["first"], side="right").cast(pl.Int64) - 1
            last, cidr = (area[column].gather(at.clip(lower_bound=0)) for column in ("last", "cidr"))
            inside = (at >= 0) & (last >= mine["first"])
            found.append(mine.select("thing", cidr.alias("entry"), pl.lit("network").alias("scope")).filter(inside))
        return pl.concat(found).unique("thing", keep="first")

    # Feeds

    @cached_property
    def _current(self) -> Current:
        """The picture of what has to do with the things asked for alone."""
        return self._picture.about(self._near)

    @cached_property
    def _near(self) -> Callable[[pl.Series], pl.Series]:
        """Which names have to do with the things asked for (String to Boolean)."""
        hashes = pl.concat([self._chain["at"].unique(), self._urls["url"]]).hash().unique().implode()
        addresses = self._addresses.height > 0

        def asked(names: pl.Series) -> pl.Series:
            near = names.hash().is_in(hashes)
            return near | names.str.contains(_ADDRESS_NAME) if addresses else near

        return asked

    @cached_property
    def _chain(self) -> pl.DataFrame:
        """`thing`, `at: String`, `own: Boolean`: every name asked for, and all names above it."""
        level = self._names.select("thing", at="name", own=pl.lit(True))
        levels = [level]
        while level.height:
            level = level.select("thing", parents(pl.col("at")), own=pl.lit(False)).drop_nulls("at")
            levels.append(level)
        return pl.concat(levels)

    def _decide(self, policy: Policy, feeds: Mapping[int, Feed]) -> Chosen:
        withheld = self._selector.decided.withheld_by(policy)
        return select(self._current, feeds, policy, withheld, self._rules, self._verdicts)

    def _attributed(
        self,
        policy: Policy,
        feeds: Mapping[int, Feed],
        things: pl.Series,
        chosen: Chosen | None = None,
        near: Current | None = None,
    ) -> pl.DataFrame:
        """`thing`, `feed`: the feeds whose listings (`near`) make or join an entry that covers the `things`."""
        if things.is_empty():
            return _no_feeds()
        near = near or self._current
        chosen = chosen or self._decide(policy, feeds)
        names = near.names.select(pl.int_range(pl.len(), dtype=pl.UInt32).alias("gid"), "name", "kind", "registrable")
        rows = taken(near, feeds, policy).select("gid", "feed", "subtree").join(names, on="gid")
        covers = (
            self._chain.filter(pl.col("thing").is_in(things.implode()))
            .join(chosen.decisions.filter("block").select("name", "subtree"), left_on="at", right_on="name")
            .filter(pl.col("subtree") | pl.col("own"))
            .select("thing", "at", "own")
        )
        wide = pl.col("subtree") | (pl.col("registrable") & pl.lit(policy.widen))
        by_name = (
            covers.join(rows.filter(pl.col("kind") == DOMAIN), left_on="at", right_on="name")
            .filter(wide | pl.col("own"))
            .select("thing", "feed")
        )
        urls = self._urls.filter(pl.col("thing").is_in(things.implode())).join(chosen.urls, on="url", how="semi")
        by_url = urls.join(rows.filter(pl.col("kind") == URL), left_on="url", right_on="name").select("thing", "feed")
        by_network = self._by_network(rows.filter(~pl.col("kind").is_in([DOMAIN, URL])), chosen.networks, things)
        ids = {i: feed.id for i, feed in feeds.items()}
        return (
            pl.concat([by_name, by_url, by_network])
            .unique()
            .select("thing", pl.col("feed").replace_strict(ids, return_dtype=pl.String))
        )

    def _attributed_then(self, hits: Hits, pin: Pin) -> pl.DataFrame:
        """The same of a pinned export, by what was listed in its release and the policy that chose it."""
        if hits.frame.is_empty():
            return _no_feeds()
        export, db = self._config.exports[hits.name], self._record.connection
        release = shown_by(self._record, pin.release)
        run, judged = db.execute(
            "SELECT run, coalesce(judged, created) FROM release WHERE id = ?", (release,)
        ).fetchone()
        made_by = settings.of_release(db, release)
        then = replace(self._config, feeds=settings.feeds_at(db, run) or self._config.feeds)
        past = PastRecord(self._config.state, db, run)
        picture = Picture(then, past, self._picture.suffixes, clock.parse(judged))
        policy = made_by.own.policy if made_by is not None else self._config.policies[hits.policy]
        chosen = self._selector.decides(export).chosen(hits.policy)
        return self._attributed(policy, picture.feeds, hits.frame["thing"], chosen, picture.about(self._near))

    def _by_network(self, rows: pl.DataFrame, standing: pl.DataFrame, things: pl.Series) -> pl.DataFrame:
        """`thing`, `feed` of addresses: one look-up for each length of prefix that is listed."""
        mine = self._addresses.filter(pl.col("thing").is_in(things.implode()))
        listed = standing.join(rows.select("name", "feed"), on="name")
        found = [pl.DataFrame(schema={"thing": pl.UInt32, "feed": pl.UInt16})]
        sizes = listed.select("family", (pl.col("last") - pl.col("first")).alias("hosts"))
        for family, hosts in sizes.unique().rows() if mine.height else ():
            bits = pl.Series([hosts], dtype=pl.UInt128)
            part = listed.filter((listed["family"] == family) & (listed["last"] - listed["first"] == bits))
            probes = mine.filter(pl.col("family") == family)
            probes = probes.select("thing", (probes["first"] - (probes["first"] & bits)).alias("first"))
            found.append(probes.join(part.select("first", "feed"), on="first").select("thing", "feed"))
        return pl.concat(found)

    # Shadows

    def _shadows(self, name: str) -> list[Shadow]:
        policy, feeds = self._config.policies[name], self._picture.feeds
        ids = [f.id for f in feeds.values() if f.mode == "shadow" and not f.is_reference]
        if not ids:
            return []
        awake = {i: msgspec.structs.replace(f, mode="live") if f.mode == "shadow" else f for i, f in feeds.items()}
        chosen = self._decide(policy, awake)
        with_them = self._blocked(self._as_decided(chosen, set(KINDS)))
        without = self._blocked(self._as_decided(self._decide(policy, feeds), set(KINDS)))
        more = with_them.join(without, on="thing", how="anti")
        by_feed = self._attributed(policy, awake, more["thing"], chosen).filter(pl.col("feed").is_in(ids))
        return [Shadow(i, name, more.join(by_feed.filter(pl.col("feed") == i), on="thing", how="semi")) for i in ids]


def _no_hits() -> pl.DataFrame:
    return pl.DataFrame(schema={"thing": pl.UInt32, "entry": pl.String, "scope": pl.String})


def _no_feeds() -> pl.DataFrame:
    return pl.DataFrame(schema={"thing": pl.UInt32, "feed": pl.String})


__all__ = ["Hits", "Matched", "Shadow", "match"]
