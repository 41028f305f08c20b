"""What several policies share: names that are listed alike, and which name stands above which."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from blocklist.select.alike import alike
from blocklist.select.express import Capability, express
from blocklist.select.fold import nearest, roots_of
from blocklist.select.lineage import Lineage

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
