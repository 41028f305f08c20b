"""Guards look again only at what changed, and what they hold is what they would hold if they looked at everything."""

from __future__ import annotations

import random
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from installation import World

from blocklist import clock, holding
from blocklist.config import load
from blocklist.ingest import guard
from blocklist.picture import Picture
from blocklist.store.lock import Lock
from blocklist.store.record import Record
from blocklist.suffixes import builtin_rules

NAMES = [
    *(f"{host}evil{i}.example" for i in range(8) for host in ("", "www.", "a.", "b.a.")),
    "evil.co.uk",
    "co.uk",
    "192.0.2.1",
    "192.0.2.0/24",
    "192.0.2.128/25",
    "198.51.100.0/30",
    "198.51.100.2",
    "2001:db8::/48",
    "2001:db8::1",
]


def held(world: World) -> list[tuple[str, str, bool]]:
    return sorted(world.rows("SELECT name, guard, subtree_only <> 0 FROM hold WHERE until IS NULL"))


def held_by_looking_at_everything(world: World) -> list[tuple[str, str, bool]]:
    config = load(world.config)
    with Lock(config.state, "test"), closing(Record.open(config.state)) as record:
        picture = Picture(config, record, builtin_rules())
        found = guard.guard(picture.current(), picture.references())
    return sorted((n, g, bool(s)) for n, g, s in found.select("name", "guard", "subtree_only").iter_rows())


@pytest.mark.parametrize("few", [0, 20_000])
@pytest.mark.parametrize("seed", range(6))
def test_holds_follow_listings_and_references_step_by_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, few: int
) -> None:
    # Names are looked for in the record, or among everything that is listed.
    monkeypatch.setattr(holding, "_FEW", few)
    chance = random.Random(seed)
    world = World(tmp_path)

    def some(most: int) -> list[str]:
        return sorted(chance.sample(NAMES, chance.randint(1, most)))

    for name in ("malware", "phishing"):
        world.feed(name, some(30), max_shrink=1.0)
    # A reference that forgets at once, and one that keeps names for a while.
    world.feed("top", some(8), category="reference", linger="0", max_shrink=1.0)
    world.feed("cdn", some(8), category="reference", max_shrink=1.0)
    assert world.update().code == 0
    looked: list[int] = []
    for _ in range(8):
        before = held(world)
        assert before == held_by_looking_at_everything(world)
        for name in chance.sample(["malware", "phishing", "top", "cdn"], chance.randint(1, 3)):
            world.lines(name, some(30 if name in ("malware", "phishing") else 8))
        assert world.update().code == 0
        looked.append(held(world) != before)
    assert held(world) == held_by_looking_at_everything(world)
    assert any(looked)
    world.assert_sound()


def test_a_hold_ends_with_the_last_listing_that_lingered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime(2026, 3, 1, 6, tzinfo=UTC)
    monkeypatch.setattr(clock, "now", lambda: now)
    world = World(tmp_path)
    world.feed("top", ["famous.example"], category="reference")
    world.feed("a", ["famous.example", "evil.example"], linger="2d")
    world.update()
    world.lines("a", ["evil.example"])
    world.update()
    assert held(world) == [("famous.example", "reference", False)]
    now += timedelta(days=3)
    world.update()
    assert world.listed("a") == ["evil.example"] and held(world) == []
