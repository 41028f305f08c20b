"""The picture of all that is listed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from installation import World

from blocklist import clock, picture
from blocklist import stretches as module
from blocklist.catalog import Feed
from blocklist.ingest.normalize import SCHEMA
from blocklist.select.current import current
from blocklist.suffixes import builtin_rules

FEEDS = {number: Feed(title="t", url="file:t", category="malware", confidence=10 * number) for number in (1, 2, 3)}
listed = st.lists(st.lists(st.integers(0, 60), unique=True), min_size=3, max_size=3)


def frame(numbers: list[int]) -> pl.DataFrame:
    names = sorted(f"n{number}.evil.example" if number else "co.uk" for number in numbers)
    return pl.DataFrame([(n, 1, True, i, None, None) for i, n in enumerate(names, 1)], schema=SCHEMA, orient="row")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(lists=listed, some=st.integers(1, 50), ended=st.booleans())
def test_it_is_the_same_however_few_rows_are_sorted_at_once(
    monkeypatch: pytest.MonkeyPatch, lists: list[list[int]], some: int, ended: bool
) -> None:
    frames = {number: frame(numbers) for number, numbers in enumerate(lists, 1)}
    expired = {1: frames[1]["line"] % 2 == 0} if ended else {}
    monkeypatch.setattr(module, "STRETCH", 1_000_000)
    whole = current(frames, FEEDS, builtin_rules(), expired)
    monkeypatch.setattr(module, "STRETCH", some)
    cut = current(frames, FEEDS, builtin_rules(), expired)
    assert cut.listings.equals(whole.listings) and cut.names.equals(whole.names)
    assert cut.listings.schema == whole.listings.schema
    assert whole.names["name"].to_list() == sorted({name for f in frames.values() for name in f["name"]})
    pairs = cut.listings.select(cut.names["name"].gather(cut.listings["gid"]), "feed").rows()
    assert pairs == sorted((name, number) for number, f in frames.items() for name in f["name"])


def test_exports_are_the_same_where_lists_are_too_large_to_stay_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # At one and the same second: the rows say since when.
    moment = clock.now()
    monkeypatch.setattr(clock, "now", lambda: moment)
    made = []
    for many in (picture._MANY, 0):
        monkeypatch.setattr(picture, "_MANY", many)
        (base := tmp_path / str(many)).mkdir()
        world = World(base)
        world.feed("a", ["a.example", "b.example", "d.example"], max_age="30d")
        by_court = {"indicator": "court.example", "legal_basis": "order 7/26", "category": "malware"}
        world.feed(
            "court",
            [json.dumps(by_court)],
            format={"name": "jsonl", "value": "indicator", "legal_basis": "legal_basis"},
        )
        world.feed("top", ["b.example"], category="reference")
        world.feed("b", ["b.example", "x.c.example", "c.example"], category="phishing")
        world.export("rows", "csv")
        world.export("split", "rpz", split="category")
        world.update()
        shown = [path.read_text().splitlines() for path in sorted((world.base / "exports").glob("*"))]
        made.append([[line for line in lines if not re.search("SOA|version|serial", line)] for lines in shown])
    assert made[0] == made[1] and "order 7/26" in str(made[0])
