"""Sinkholed and parked names, kept or dropped as the policy says, and what is told of it."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from installation import World

from blocklist.publish.past import PastRecord
from blocklist.verify.loopback import LoopbackServer, serving

LIVE, SUNK, PARKED = ["192.0.2.1"], ["198.51.100.66"], ["198.51.100.99"]
NAMES = ["live.example", "sunk.example", "parked.example", "turning.example"]
TABLE = {"control.example": ["192.0.2.53"], **dict(zip(NAMES, (LIVE, SUNK, PARKED, LIVE), strict=True))}


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    server = LoopbackServer(TABLE)
    with serving(server):
        yield server


@pytest.fixture
def world(tmp_path: Path, server: LoopbackServer) -> World:
    world = World(tmp_path)
    world.feed("a", NAMES)
    world.feed("sinks", ["198.51.100.64/28"], category="reference", action="sinkhole")
    world.feed("parks", ["198.51.100.99"], category="reference", action="parking")
    world.policies["no-sinks"] = {"sinkholed": "drop"}
    world.policies["neither"] = {"sinkholed": "drop", "parked": "drop"}
    for name, policy in (("all", "default"), ("awake", "no-sinks"), ("few", "neither")):
        world.export(name, policy=policy)
    world.set(
        "verify",
        resolvers=[f"127.0.0.1:{server.port}"],
        control={"exists": ["control.example"], "missing": "example"},
        timeout=0.5,
    )
    return world


def turn(server: LoopbackServer, addresses: list[str]) -> None:
    time.sleep(1.1)  # the record counts in seconds
    server.table = {**server.table, "turning.example": addresses}


def test_each_policy_keeps_or_drops_them(world: World) -> None:
    world.update()
    assert sorted(world.exported("all")) == sorted(NAMES)
    assert sorted(world.exported("awake")) == ["live.example", "parked.example", "turning.example"]
    assert sorted(world.exported("few")) == ["live.example", "turning.example"]
    said = {e["name"]: e for e in world.why("sunk.example")["exports"]}
    assert said["all"]["blocked"] and not said["awake"]["blocked"] and not said["few"]["blocked"]
    assert said["few"]["because"].startswith("sunk.example is sinkholed since ")
    assert said["few"]["because"].endswith("(198.51.100.66: sinks, line 1), and the policy drops the sinkholed")
    told = world.run("why", "parked.example").out
    assert "parked.example is parked since" in told and "the policy drops the parked" in told
    del world.exports["all"], world.exports["awake"]
    world.write()
    assert '[policy.neither] parked = "keep"' in [way["key"] for way in world.why("parked.example")["ways"]]
    world.assert_sound()


def test_a_name_that_turns_leaves_and_comes_back_as_if_all_had_been_decided_anew(
    world: World, server: LoopbackServer
) -> None:
    world.update()
    for addresses, exports in (
        (SUNK, {"all"}),
        (PARKED, {"all", "awake"}),
        (LIVE, {"all", "awake", "few"}),
        (SUNK, {"all"}),
        ([], {"all", "awake", "few"}),
    ):
        turn(server, addresses)
        ran = world.run("verify", "turning.example", "--json")
        assert ran.code == 0 and ran.json["turned"] == 1
        assert world.run("export").code == 0
        assert {name for name in world.exports if "turning.example" in world.exported(name)} == exports, addresses
        # Without what was kept of earlier decisions the files are the same.
        before = {name: world.exported(name) for name in world.exports}
        shutil.rmtree(world.state / "decided")
        again = world.run("export")
        assert again.code == 0 and {name: world.exported(name) for name in world.exports} == before
        assert again.out.count("unchanged") == 3
    world.assert_sound()


def test_an_update_that_only_learns_of_a_sinkhole_publishes_without_the_name(
    world: World, server: LoopbackServer
) -> None:
    world.update()
    turn(server, SUNK)
    for column in ("since", "checked"):
        world.change(f"UPDATE verdict SET {column} = strftime('%Y-%m-%dT%H:%M:%SZ', {column}, '-8 days')")
    ran = world.run("update")
    assert "1 turned to or from a sinkhole or parking" in ran.out
    assert "turning.example" not in world.exported("awake") and "turning.example" in world.exported("all")


def test_the_record_of_then_knows_the_verdicts_of_then(world: World, server: LoopbackServer) -> None:
    world.update()
    for addresses in (SUNK, SUNK, PARKED, LIVE, SUNK):
        turn(server, addresses)
        assert world.run("verify", "--all").code == 0
    expected = {1: None, 2: "sinkholed", 3: "sinkholed", 4: "parked", 5: None, 6: "sinkholed"}
    with closing(sqlite3.connect(world.database)) as db:
        for run, verdict in expected.items():
            then = PastRecord(world.state, db, run).verdict_names()
            told = dict(then.iter_rows())
            assert told.pop("turning.example", None) == verdict, run
            assert told == {"sunk.example": "sinkholed", "parked.example": "parked"}, run


def test_history_tells_when_the_file_lost_it_and_had_it_again(world: World, server: LoopbackServer) -> None:
    world.update()
    for addresses in (SUNK, LIVE):
        turn(server, addresses)
        assert world.run("verify", "turning.example").code == 0
        assert world.run("export").code == 0
    out = world.run("history", "turning.example", "--json").out
    rows = [row for row in map(json.loads, out.splitlines()) if "how" in row]
    assert [row["how"] for row in rows if row["by"] == "awake"] == ["blocked", "free", "blocked"]
    assert [row["how"] for row in rows if row["what"] == "verdict"] == ["live", "sinkholed", "live"]
