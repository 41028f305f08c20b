"""What several policies share: names that are listed alike, and which name stands above which."""

from __future__ import annotations

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from blocklist.catalog import Feed
from blocklist.config import Policy
from blocklist.ingest.normalize import SCHEMA
from blocklist.rules import Rule
from blocklist.select.alike import alike
from blocklist.select.current import Current, current
from blocklist.select.express import Capability, express
from blocklist.select.fold import nearest, roots_of
from blocklist.select.lineage import Lineage
from blocklist.select.policy import Chosen, Withheld, select
from blocklist.suffixes import builtin_rules

LABELS = st.lists(st.sampled_from("ab"), min_size=1, max_size=4).map(".".join)
TOLD = {
    "feed": pl.UInt16,
    "confidence": pl.UInt8,
    "category": pl.UInt8,
    "tlp": pl.UInt8,
    "subtree": pl.Boolean,
    "expired": pl.Boolean,
}
ROW = st.tuples(*[st.sampled_from((0, 1, 255))] * 4, st.booleans(), st.booleans())


@given(st.lists(st.lists(ROW, max_size=3, unique_by=lambda row: row[0]).map(sorted), max_size=12))
def test_names_are_alike_when_the_same_feeds_list_them_in_the_same_way(ways: list[list[tuple[int, ...]]]) -> None:
    rows = [(gid, *row) for gid, listings in enumerate(ways) for row in listings]
    listings = pl.DataFrame(rows, schema={"gid": pl.UInt32, **TOLD}, orient="row")
    found = alike(listings, len(ways))
    assert len(found.way) == len(ways)
    for gid, way in enumerate(found.way):
        told = found.listings.filter(pl.col("way") == way).select(*TOLD).rows() if way is not None else []
        assert told == ways[gid]
    assert found.way.n_unique() == len({tuple(way) for way in ways})


@given(
    st.dictionaries(LABELS, st.tuples(st.booleans(), st.booleans()), max_size=20),
    st.dictionaries(st.tuples(LABELS, st.booleans()), st.booleans(), max_size=8),
)
def test_numbers_say_what_names_say(listed: dict[str, tuple[bool, bool]], rules: dict[tuple[str, bool], bool]) -> None:
    """Of the listed names some are taken, as exact or subtree, and rules stand beside them or in their place."""
    names = pl.Series("name", sorted({*listed, "192.0.2.1"}), dtype=pl.String)
    lineage = Lineage.of(names, names != "192.0.2.1", [name for name, _ in rules])
    rows = [
        (name, wide, True, gid)
        for gid, name in enumerate(names)
        if name in listed and (taken := listed[name])[0] and (name, wide := taken[1]) not in rules
    ]
    rows += [(name, wide, block, None) for (name, wide), block in rules.items()]
    schema = {"name": pl.String, "subtree": pl.Boolean, "block": pl.Boolean, "gid": pl.UInt32}
    decisions = pl.DataFrame(rows, schema=schema, orient="row").with_columns(widenable=pl.lit(True))
    covers = lineage.nearest(decisions, lineage.numbers(decisions, decisions["gid"]))
    known = nearest(decisions, roots_of(decisions)).select("row", "cover")
    assert covers.sort("row").equals(known.sort("row"))
    everything = Capability(subtree=True, exact=True, allow=True)
    assert express(decisions, everything, lambda: covers).entries.equals(express(decisions, everything).entries)


FEEDS = {
    1: Feed(id="a", title="a", url="file:a", category="malware", confidence=90),
    2: Feed(id="b", title="b", url="file:b", category="phishing", confidence=60, tlp="amber"),
}
KINDS_OF = {"x.evil.example": 1, "evil.example": 1, "bad.test": 1, "192.0.2.0/24": 2, "//evil.example/a": 4}
POLICIES = st.builds(
    Policy,
    min_confidence=st.sampled_from((10, 50, 70, 95)),
    categories=st.sampled_from((["malware", "phishing"], ["malware"], ["phishing"])),
    kinds=st.sampled_from((["domain"], ["domain", "ipv4"], ["domain", "ipv4", "url"])),
    widen=st.booleans(),
    dead=st.sampled_from(("keep", "drop")),
    sinkholed=st.sampled_from(("keep", "drop")),
    audience=st.sampled_from(("house", "partners")),
)
LISTED = st.dictionaries(st.sampled_from(sorted(KINDS_OF)), st.booleans(), max_size=5)


def _picture(listed: dict[int, dict[str, bool]]) -> Current:
    frames = {}
    for feed, names in listed.items():
        rows = [(n, KINDS_OF[n], wide and KINDS_OF[n] == 1, i, None, None) for i, (n, wide) in enumerate(names.items())]
        frames[feed] = pl.DataFrame(rows, schema=SCHEMA, orient="row").sort("name")
    return current(frames, FEEDS, builtin_rules())


@settings(deadline=None)
@given(
    st.fixed_dictionaries({1: LISTED, 2: LISTED}),
    st.lists(POLICIES, min_size=2, max_size=5),
    st.lists(st.sampled_from(sorted(KINDS_OF)), max_size=2),
    st.sampled_from(("", "allow", "deny")),
)
def test_policies_that_share_a_picture_decide_as_each_would_alone(
    listed: dict[int, dict[str, bool]], policies: list[Policy], held: list[str], word: str
) -> None:
    one = Rule(1, word, "x.evil.example", "domain", True, "r", "me", "2026-01-01T00:00:00Z")
    rules = [one] if word else []
    none = pl.DataFrame(schema={"name": pl.String})
    names = pl.DataFrame({"name": held[:1]}, schema={"name": pl.String})
    subtrees = pl.DataFrame({"name": held[1:]}, schema={"name": pl.String})
    area = pl.DataFrame(schema={"family": pl.UInt8, "first": pl.UInt128, "last": pl.UInt128})
    withheld = Withheld(names, subtrees if held[1:] else none, area)
    verdicts = pl.DataFrame({"name": ["bad.test", "evil.example"], "verdict": ["dead", "sinkholed"]})
    shared = _picture(listed)
    for policy in policies:
        together = select(shared, FEEDS, policy, withheld, rules, verdicts)
        alone = select(_picture(listed), FEEDS, policy, withheld, rules, verdicts)
        for part in (*Chosen.__struct_fields__, "listed"):
            assert getattr(together, part).equals(getattr(alone, part)), part
        assert together.gids.equals(alone.gids)
