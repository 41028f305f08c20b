"""Feeds that copy each other are found from the data; rules are announced before they end."""

from __future__ import annotations

import json
from pathlib import Path

from installation import World, names


def lines(out: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.splitlines()]


def test_copies_are_proposed_for_one_family_and_contributions_counted(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("origin", names(100))
    world.feed("copy", [*names(97), *names(3, zone="other.example")])
    world.feed("loose", [*names(50), *names(50, zone="third.example")])
    world.feed("twin", names(100))
    world.feed("kin", names(100), family="origin")
    world.feed("tiny", names(5))
    assert world.update().code == 0
    found = lines(world.run("feeds", "overlap", "--json").out)
    by_feed = {str(c["feed"]): c for c in found[:-1]}
    assert (by_feed["copy"]["entries"], by_feed["copy"]["alone"], by_feed["copy"]["share"]) == (100, 3, 0.97)
    assert by_feed["loose"]["alone"] == 50 and by_feed["origin"]["alone"] == 0
    proposals = {(p["feed"], p["family"]) for p in found[-1]["proposals"]}  # type: ignore[attr-defined]
    assert {feed for feed, _ in proposals} == {"copy", "twin"}
    assert ("twin", "origin") in proposals
    screen = world.run("feeds", "overlap").out
    assert "copy lies in" in screen and '[feed.twin] family = "origin"' in screen


def test_one_feed_alone_is_nobody_s_copy(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("a", names(30))
    world.update()
    ran = world.run("feeds", "overlap")
    assert ran.code == 0 and "no feed is a copy" in ran.out


def test_a_rule_is_announced_in_the_week_before_it_ends(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("a", ["evil.example"])
    world.update()
    for name, until in (("soon.example", "2d"), ("later.example", "30d"), ("never.example", None)):
        world.run("allow", "add", name, "--reason", "customer", *(("--until", until) if until else ()))
    for command in ("update", "status"):
        out = world.run(command).out
        assert "allow soon.example (customer)" in out and "later.example" not in out and "never.example" not in out
    ending = json.loads(world.run("status", "--json").out.splitlines()[-1])["ending"]
    assert [rule["what"] for rule in ending] == ["soon.example"]
