"""Small worlds of feeds, listings, holds, rules and policies: written into a real record, and judged by hand.

`World.blocks*` is the reference model: the rules of docs/semantics.md, one name or address at a time, with sets.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from ipaddress import ip_address, ip_network
from pathlib import Path

import polars as pl
from hypothesis import strategies as st
from msgspec import structs

from blocklist import clock
from blocklist.audit import Audit, recognise
from blocklist.catalog import KINDS, Feed
from blocklist.config import Config, Export, Fetch, Gates, Keep, Policy, Protect, Verify
from blocklist.decisions import add_rule, release_hold
from blocklist.errors import IndicatorError
from blocklist.picture import Picture
from blocklist.publish.descriptor import Format, builtin
from blocklist.publish.selection import Selection
from blocklist.publish.selector import Selector
from blocklist.rules import rules_in_force
from blocklist.store.record import Record, Snapshot
from blocklist.suffixes import builtin_rules

NAMES = [
    *("evil.example", "a.evil.example", "b.a.evil.example", "www.evil.example", "other.example"),
    *("co.uk", "evil.co.uk", "a.evil.co.uk"),
]
QUERIES = sorted({*NAMES, "example", "uk", "z.example", *(f"z.{name}" for name in NAMES)})
SUFFIXES = {"example", "uk", "co.uk"}
NETWORKS = [
    *("192.0.2.0/26", "192.0.2.0/28", "192.0.2.8/30", "192.0.2.16/29", "192.0.2.9", "192.0.2.10", "192.0.2.32"),
    *("2001:db8::/122", "2001:db8::/126", "2001:db8::8/125", "2001:db8::9", "2001:db8::3f"),
]
ADDRESSES = [str(a) for net in ("192.0.2.0/26", "2001:db8::/122") for a in ip_network(net)]
URLS = ["//a.evil.example/x", "//evil.co.uk/y", "//192.0.2.9/x", "//[2001:db8::9]/x"]
FORMATS = builtin() | {
    # A target that knows whole subtrees and no exceptions, as old versions of dnsmasq do.
    "blunt": Format(name="blunt", title="Blunt", kinds=["domain"], suffix="{name}", fold=True),
    "urls": Format(name="urls", title="URLs", kinds=["url"], url="{name}"),
}


@dataclass(frozen=True)
class Line:
    """Feed number `feed` lists `name`."""

    feed: int
    name: str
    subtree: bool = False
    confidence: int | None = None
    category: str | None = None
    expires: str | None = None
    dropped: bool = False
    tlp: str | None = None

    @property
    def over(self) -> bool:
        """Has its time ended? The feeds of these worlds keep what they drop for a day, and the run is of yesterday."""
        return self.dropped or (self.expires is not None and self.expires < "2026")


@dataclass(frozen=True)
class Word:
    """An operator's rule."""

    action: str
    name: str
    subtree: bool = True


@dataclass(frozen=True)
class World:
    feeds: Sequence[Feed]
    lines: Sequence[Line] = ()
    words: Sequence[Word] = ()
    holds: Sequence[tuple[str, bool]] = ()
    released: frozenset[str] = frozenset()
    dead: frozenset[str] = frozenset()
    policy: Policy = field(default_factory=Policy)
    protect: Sequence[str] = ()
    verdicts: frozenset[tuple[str, str]] = frozenset()  # name and status: `sinkholed`, `parked`

    def blocks(self, query: str) -> bool:
        """Does what the policy decides, told to a target that can say everything, block `query`?"""
        rules = [r for r in self.words if kind(r.name) == "domain" and covers(r.name, r.subtree, query)]
        if rules:
            return max(rules, key=lambda r: (r.name.count("."), not r.subtree, r.action == "allow")).action == "deny"
        above = [query.split(".", i)[-1] for i in range(query.count(".") + 1)]
        return any((scope := self.scope(name)) and covers(name, scope == "subtree", query) for name in above)

    def scope(self, name: str) -> str | None:
        """As what a listed name stands, if it does."""
        taken = [x for x in self.lines if x.name == name and self.takes(x)]
        # A listing that is held, or would be said wider than a guard lets it, does not count at all.
        taken = [x for x in taken if (held := self.held(x)) != "whole" and not (held and x.subtree)]
        said = "dead" if name in self.dead else dict(self.verdicts).get(name)
        if not taken or (said and getattr(self.policy, said) == "drop") or not self.reaches(taken):
            return None
        registrable = name.partition(".")[2] in SUFFIXES and name not in SUFFIXES
        wide = [x for x in taken if x.subtree or (self.policy.widen and registrable and not self.held(x))]
        return "subtree" if wide == taken or (wide and self.reaches(wide)) else "exact"

    def held(self, line: Line) -> str | None:
        """How a guard holds what this line lists, `whole` or `subtree`, if it does."""
        said = {only for name, only in self.holds if name == line.name and name not in self.released}
        category = line.category or self.feeds[line.feed].category
        if not said or category not in self.policy.guards or kind(line.name) != "domain":
            return None if not said else "whole" if False in said else "subtree"
        asked = [f.is_reference and f.action == "hold" and f.id in self.policy.guards[category] for f in self.feeds]
        named = {x.name for x in self.lines if asked[x.feed]} - SUFFIXES
        if {line.name, line.name.removeprefix("www.")} & named:
            return "whole"
        return "subtree" if any(name.endswith("." + line.name) for name in named) else None

    def kept_back(self) -> set[str]:
        """What is left out, since no source of it lets the audience of the policy know."""
        house = replace(self, policy=structs.replace(self.policy, audience="house"))
        taken = {x.name for x in self.lines if house.takes(x) and not self.takes(x)}
        held = {n for n, only in self.holds if not only and n not in self.released}
        undropped = replace(self, dead=frozenset(), verdicts=frozenset())
        stands = {n for n in taken if kind(n) == "domain" and undropped.scope(n)}
        return taken - held - stands

    def takes(self, line: Line) -> bool:
        feed, policy = self.feeds[line.feed], self.policy
        return (
            not feed.is_reference
            and not line.over
            and feed.mode == "live"
            and (policy.feeds is None or feed.id in policy.feeds)
            and (line.category or feed.category) in policy.categories
            and kind(line.name) in policy.kinds
            and (policy.audience == "house" or self.may_tell(line))
        )

    def may_tell(self, line: Line) -> bool:
        """May the audience of the policy know what this line lists? TLP 2.0, and what the publisher says."""
        feed = self.feeds[line.feed]
        reach = {"clients": 2, "partners": 1, "public": 0}[self.policy.audience]
        level = ["clear", "green", "amber", "amber+strict", "red"].index(line.tlp or feed.tlp or "clear")
        return level <= reach and feed.redistribution != "forbidden"

    def reaches(self, lines: Sequence[Line]) -> bool:
        best: dict[str, int] = {}
        for x in lines:
            feed = self.feeds[x.feed]
            key = f"family {feed.family}" if feed.family else feed.id
            best[key] = max(best.get(key, 0), feed.confidence if x.confidence is None else x.confidence)
        left = 100 ** len(best)  # whole numbers, so that nothing is rounded twice
        for confidence in best.values():
            left = left // 100 * (100 - confidence)
        return bool(best) and 100 * (100 ** len(best) - left) // 100 ** len(best) >= self.policy.min_confidence

    def blocks_address(self, query: str, directions: Sequence[str] = ("inbound", "outbound", "both")) -> bool:
        address = ip_address(query)
        rules = [r for r in self.words if kind(r.name) == kind(query) and address in ip_network(r.name)]
        if rules:
            return max(rules, key=lambda r: (ip_network(r.name).prefixlen, r.action == "allow")).action == "deny"
        references = {x.name for x in self.lines if (f := self.feeds[x.feed]).is_reference and f.action == "hold"}
        exempt = {ip_network(n) for n in {*references, *self.protect} if kind(n) != "domain" and n[:2] != "//"}
        if ip_network(query) in exempt and query not in self.released:
            return False
        for name in {x.name for x in self.lines if kind(x.name) == kind(query) and address in ip_network(x.name)}:
            taken = [x for x in self.lines if x.name == name and self.takes(x)]
            held = any(held == name and not only and name not in self.released for held, only in self.holds)
            if not held and self.reaches(taken) and any(self.feeds[x.feed].matches in directions for x in taken):
                return True
        return False

    def blocks_url(self, query: str) -> bool:
        own = {r.action for r in self.words if r.name == query}
        if own:
            return "allow" not in own
        host = query[2:].partition("/")[0].strip("[]")
        # A host that only an allow decides is one that a deny of everything, but for it, would block.
        everything = [Word("deny", n, True) for n in ("example", "uk", "0.0.0.0/0", "::/0")]
        only = World(self.feeds, words=[*everything, *self.words], policy=self.policy)
        if not (only.blocks(host) if kind(host) == "domain" else only.blocks_address(host)):
            return False
        taken = [x for x in self.lines if x.name == query and self.takes(x)]
        held = any(held == query and not only and query not in self.released for held, only in self.holds)
        return not held and self.reaches(taken)


def kind(name: str) -> str:
    if name.startswith("//"):
        return "url"
    return "ipv6" if ":" in name else "ipv4" if name[0].isdigit() else "domain"


def covers(name: str, subtree: bool, query: str) -> bool:
    return query == name or (subtree and query.endswith("." + name))


@dataclass
class Settled:
    """A world in a record on disk: `record` is open for writing, `selector` is what exports use."""

    config: Config
    record: Record

    @cached_property
    def selector(self) -> Selector:
        picture = Picture(self.config, self.record, builtin_rules())
        rules = rules_in_force(self.record.connection, clock.now())
        return Selector(picture, self.record, self.config.policies, rules)

    def selection(self, export: str) -> Selection:
        """What an export run would write into the file of `export`, as the record stood at the first call."""
        chosen = self.config.exports[export]
        return self.selector.selection(chosen, FORMATS[chosen.format])[0]

    def publish(self) -> None:
        """Say that every export was published as the record stands."""
        run = self.record.next_run() - 1
        with self.record.transaction() as db:
            db.execute("UPDATE release SET state = 'superseded' WHERE state = 'live'")
            db.executemany(
                "INSERT INTO release (export, format, policy, path, run, revision, state, created, published, serial, "
                "digest, body_digest, bytes, entries, added, removed, lost, inputs, checked) "
                "VALUES (?, ?, 'default', ?, ?, ?, 'live', ?, ?, 1, '', '', 0, 0, 0, 0, '{}', '', '')",
                [
                    (e.name, e.format, e.path, run, self.record.revision(), *[clock.text(clock.now())] * 2)
                    for e in self.config.exports.values()
                ],
            )

    @contextmanager
    def audit(self) -> Iterator[Audit]:
        audit = Audit(self.config, FORMATS)
        try:
            yield audit
        finally:
            audit.close()


def exports(**formats: str) -> dict[str, Export]:
    return {n: Export(name=n, format=f, path=f"{n}.out") for n, f in formats.items()}


@contextmanager
def settled(world: World, outputs: dict[str, Export], texts: dict[int, bytes] | None = None) -> Iterator[Settled]:
    """The world in a new record, every export published."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        config = Config(
            path=None,
            base=base,
            state=base / "var",
            feeds={f.id: f for f in world.feeds},
            catalog={f.id: f for f in world.feeds},
            protect=Protect(networks=list(world.protect)),
            verify=Verify(),
            policies={"default": world.policy},
            exports=outputs,
            gates=Gates(),
            keep=Keep(),
            fetch=Fetch(),
        )
        record = Record.open(config.state)
        try:
            _write(world, record, texts or {})
            here = Settled(config, record)
            here.publish()
            yield here
        finally:
            record.close()


def _write(world: World, record: Record, texts: dict[int, bytes]) -> None:
    now = clock.text(clock.now())
    with record.transaction() as db:
        # What a feed dropped, it dropped long ago.
        past = record.begin_run(db, "2026-01-01T00:00:00Z", "update", "tests")
        run = record.begin_run(db, now, "update", "tests")
        ids = record.add_feeds(db, [f.id for f in world.feeds])
        for i, feed in enumerate(world.feeds):
            what = {k: getattr(feed, k) for k in ("category", "confidence", "family", "mode", "title")}
            versioned = {**what, "direction": feed.matches, "url": feed.urls[0]}
            record.add_feed_version(db, ids[feed.id], run, versioned, "{}")
            record.add_snapshot(db, snapshot(i + 1, ids[feed.id], run, now))
        record.add_listings(db, run, indicators(world.lines, [ids[f.id] for f in world.feeds]))
        for x in world.lines:
            if x.dropped:
                record.mark_dropped(db, past, ids[world.feeds[x.feed].id], pl.Series([x.name]))
        holds = pl.DataFrame(
            [(n, KINDS.index(kind(n)) + 1, "reference", only, "named by tests") for n, only in world.holds],
            schema={"name": pl.String, "kind": pl.UInt8, "guard": pl.String, "subtree_only": pl.Boolean}
            | {"detail": pl.String},
            orient="row",
        )
        record.change_holds(db, run, record.hold_changes(holds, None))
        db.executemany(
            "INSERT INTO verdict (name, status, since, checked, dead, run) VALUES (?, 'nxdomain', ?, ?, 1, ?)",
            [(name, now, now, run) for name in world.dead],
        )
        db.executemany(
            "INSERT OR IGNORE INTO verdict (name, status, since, checked, run) VALUES (?, ?, ?, ?, ?)",
            [(name, status, now, now, run) for name, status in world.verdicts],
        )
    record.connection.execute("PRAGMA synchronous = OFF")
    for name in world.released:
        release_hold(record, name, reason="seen", author="ana")
    for word in world.words:
        try:
            exact = not word.subtree and recognise(word.name).kind == "domain"
            add_rule(record, word.action, word.name, reason="tests", author="ana", exact=exact)
        except IndicatorError:
            continue  # said twice


def snapshot(number: int, feed: int, run: int, at: str) -> Snapshot:
    state: dict[str, object] = dict.fromkeys(Snapshot.__struct_fields__)
    state |= {"id": number, "feed": feed, "run": run, "state": "current", "sha256": "0" * 64, "parse_key": ""}
    state |= {"url": "file:list", "fetched": at, "format": "lines", "account": "{}"}
    state |= dict.fromkeys(("bytes", "depth", "stored", "lines", "entries"), 0)
    return Snapshot(**state)  # type: ignore[arg-type]


def indicators(lines: Sequence[Line], ids: Sequence[int]) -> pl.DataFrame:
    rows = [
        (
            *(x.name, KINDS.index(kind(x.name)) + 1, x.subtree, i, x.confidence),
            _extra(x),
            ids[x.feed],
        )
        for i, x in enumerate(lines, start=1)
    ]
    schema = {"name": pl.String, "kind": pl.UInt8, "subtree": pl.Boolean, "line": pl.UInt32, "confidence": pl.UInt8}
    return pl.DataFrame(rows, schema=schema | {"extra": pl.String, "feed": pl.UInt16}, orient="row")


def _extra(line: Line) -> str | None:
    said = {"category": line.category, "expires": line.expires, "tlp": line.tlp}
    return (
        json.dumps({k: v for k, v in said.items() if v is not None}, separators=(",", ":"))
        if any(said.values())
        else None
    )


# Worlds for hypothesis

# Mostly what is taken: a world in which nothing stands proves nothing.
_CONFIDENCE = st.sampled_from([60, 60, 90, 90, 30, 0, 100])
_CATEGORY = st.sampled_from(["malware", "malware", "phishing", "advertising"])


@st.composite
def feeds(draw: st.DrawFn) -> list[Feed]:
    count = draw(st.integers(2, 4))
    return [
        Feed(
            id=f"feed-{i}",
            title="Tests",
            url="file:list",
            category="malware" if i == 0 else draw(st.one_of(_CATEGORY, st.just("reference"))),
            confidence=draw(_CONFIDENCE),
            family=draw(st.sampled_from([None, "kin"])),
            direction=draw(st.sampled_from([None, "inbound", "outbound", "both"])),
            mode=draw(st.sampled_from(["live", "live", "live", "live", "shadow"])),
            linger="1d",
            action=draw(st.sampled_from(["hold", "hold", "inform"])),
            tlp=draw(st.sampled_from([None, None, "clear", "amber", "red"])),
            redistribution=draw(st.sampled_from(["unknown", "allowed", "unknown", "forbidden"])),
        )
        for i in range(count)
    ]


@st.composite
def worlds(draw: st.DrawFn, names: Sequence[str], ruled: Sequence[str]) -> World:
    """Worlds whose lists hold `names` and whose rules speak of `ruled`."""
    listed = st.sampled_from(names)
    some = draw(feeds())
    line = st.builds(
        Line,
        st.integers(0, len(some) - 1),
        listed,
        st.booleans(),
        st.one_of(st.none(), _CONFIDENCE),
        st.sampled_from([None, None, None, None, "malware", "phishing", "reference"]),
        st.sampled_from([None, None, None, "2020-01-31", "2120-01-31", "2025-12-31T23:00:00Z"]),
        st.sampled_from([False, False, False, True]),
        st.sampled_from([None, None, "green", "amber", "amber+strict"]),
    )
    lines = draw(st.lists(line, min_size=4, max_size=12, unique_by=lambda x: (x.feed, x.name)))
    lines = [x if kind(x.name) == "domain" else replace(x, subtree=False) for x in lines]
    lines = [replace(x, dropped=False) if some[x.feed].is_reference else x for x in lines]
    few = draw(st.integers(0, 4))
    word = st.builds(Word, st.sampled_from(["allow", "deny"]), st.sampled_from(ruled), st.booleans())
    holds = draw(st.lists(st.tuples(listed, st.booleans()), max_size=2, unique_by=lambda h: h[0]))
    holds = [(n, only and kind(n) == "domain") for n, only in holds]
    held = [n for n, _ in holds]
    return World(
        some,
        lines,
        draw(st.lists(word, min_size=min(1, few), max_size=few)),
        holds,
        frozenset(draw(st.lists(st.sampled_from(held), max_size=1)) if held else ()),
        frozenset(draw(st.lists(listed, max_size=1))),
        Policy(
            categories=draw(
                st.sampled_from(
                    [["malware", "phishing", "advertising"], ["malware", "phishing"], ["malware", "reference"]]
                )
            ),
            feeds=draw(st.sampled_from([None, None, None, ["feed-0", "feed-1"]])),
            kinds=draw(st.sampled_from([list(KINDS)] * 5 + [["domain"], ["ipv4", "url"]])),
            min_confidence=draw(st.sampled_from([50, 50, 75, 95, 0])),
            dead=draw(st.sampled_from(["keep", "drop"])),
            sinkholed=draw(st.sampled_from(["keep", "drop"])),
            parked=draw(st.sampled_from(["keep", "drop"])),
            widen=draw(st.sampled_from([True, True, False])),
            audience=draw(st.sampled_from(["house", "house", "house", "clients", "partners", "public"])),
            guards=draw(
                st.dictionaries(
                    st.sampled_from(["malware", "phishing", "advertising"]),
                    st.lists(st.sampled_from([f.id for f in some]), max_size=2),
                    max_size=2,
                )
            )
            if draw(st.booleans())
            else {},
        ),
        draw(st.sampled_from([[], ["192.0.2.10"], ["192.0.2.32/32", "2001:db8::3f"]])),
        frozenset(draw(st.dictionaries(listed, st.sampled_from(["sinkholed", "parked"]), max_size=2)).items()),
    )
