"""What `why` adds to its answer: ways to another one, names alike, and what blocks behind a name in the DNS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from dnsserver import HostileServer, Manner
from engines import driver
from installation import World, names

from blocklist.verify.loopback import serving


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.feed("a", ["evil.example", "cdn.example", "192.0.2.0/24", "//files.example/malware.exe"])
    world.feed("ads", ["banner.example"], category="advertising")
    world.feed("trial", ["trial.example"], mode="shadow")
    world.feed("faint", ["faint.example"], confidence=30)
    world.feed("top", ["known.example"], category="reference")
    world.lines("a", ["evil.example", "cdn.example", "192.0.2.0/24", "known.example"])
    world.export("list")
    world.export("nets", "cidr")
    assert world.update("--no-verify").code in (0, 4)
    return world


def ways(world: World, what: str) -> list[str]:
    return [way["command"] or way["key"] for way in world.why(what)["ways"]]


def test_each_reason_has_its_way_and_the_way_works(world: World) -> None:
    asked = {
        "evil.example": ["blocklist allow add evil.example --reason '…' --now"],
        "banner.example": [
            "[policy.default] categories: add advertising",
            "blocklist deny add banner.example --reason '…' --now",
        ],
        "trial.example": ['[feed.trial] mode = "live"', "blocklist deny add trial.example --reason '…' --now"],
        "faint.example": [
            "[policy.default] min_confidence = 30",
            "blocklist deny add faint.example --reason '…' --now",
        ],
        "known.example": [
            "blocklist held release known.example --reason '…' --now",
            "blocklist deny add known.example --reason '…' --now",
        ],
        "other.example": ["blocklist deny add other.example --reason '…' --now"],
        "192.0.2.7": ["blocklist allow add 192.0.2.7 --reason '…' --now"],
    }
    assert {what: ways(world, what) for what in asked} == asked
    for what, commands in asked.items():
        before = world.why(what)["blocked"]
        words = commands[-1].replace("'…'", "tests").split()[1:]
        assert world.run(*words).code in (0, 4)
        assert world.why(what)["blocked"] is not before, what
        assert any("remove" in way for way in ways(world, what))


def test_a_url_whose_host_is_blocked_is_freed_by_the_host(world: World) -> None:
    [way] = ways(world, "https://evil.example/page")
    assert way == "blocklist allow add evil.example --reason '…' --now"
    assert "to let its whole host through: " in world.run("why", "https://evil.example/page").out
    assert world.run(*way.replace("'…'", "tests").split()[1:]).code in (0, 4)
    assert not world.why("https://evil.example/page")["blocked"]


def test_the_keys_that_are_named_are_those_that_decide(world: World) -> None:
    world.policies["default"] = {"categories": ["malware", "advertising"], "min_confidence": 30}
    world.feeds["trial"]["mode"] = "live"
    world.write()
    # Edited, and not yet published.
    said = world.why("faint.example")
    assert not said["blocked"] and said["exports"][0]["pending"] is True
    assert "not yet published" in said["exports"][0]["because"]
    assert world.run("export").code == 0
    assert all(world.why(name)["blocked"] for name in ("faint.example", "banner.example", "trial.example"))


def test_names_alike_are_offered(world: World) -> None:
    assert world.why("evi1.example")["near"] == []
    assert world.why("evil.exampel")["near"] == ["evil.example"]
    assert world.why("www.cdn.example")["near"] == []  # below a listed name, it is covered
    assert world.why("192.0.3.1")["near"] == []
    ran = world.run("why", "cdn.exampl")
    assert "listed names like it: cdn.example" in ran.out


def test_a_url_keeps_its_bytes_and_the_same_in_another_spelling_is_offered(world: World) -> None:
    """RFC 3986 6.2.2 calls them equal; clients send the bytes of a link, and most targets compare those."""
    world.feed(
        "links", ["http://deep.example/a%2fb/%7Eu", "http://deep.example/a%2Fb/%7Eu", "http://deep.example/x%2fy"]
    )
    path = world.export("links", "urls")
    world.update()
    lines = path.read_text("ascii").splitlines()
    assert {"http://deep.example/a%2fb/%7Eu", "http://deep.example/a%2Fb/%7Eu"} < set(lines)
    assert "http://deep.example/x%2Fy" not in lines and "http://deep.example/a%2fb/~u" not in lines
    assert world.why("http://deep.example/x%2Fy")["near"][0] == "//deep.example/x%2fy"
    assert "//deep.example/a%2fb/%7Eu" in world.why("http://deep.example/a%2fb/~u")["near"]


def test_feeds_that_are_not_well_are_told(world: World) -> None:
    (world.base / "feeds" / "ads.txt").unlink()
    world.feeds["a"]["stale_after"] = "1s"
    world.write()
    world.run("update", "--no-verify")
    world.change("UPDATE feed SET changed = '2020-01-01T00:00:00Z' WHERE name = 'a'")
    assert "these feeds list now is not known: ads (failed)" in " ".join(world.why("other.example")["notes"])
    assert world.why("evil.example")["notes"] == [
        "feed a is stale: its list has not changed since 2020-01-01 00:00 UTC"
    ]


def test_what_no_line_of_the_target_can_say_is_told(tmp_path: Path) -> None:
    world = World(tmp_path)
    long = ".".join([*["x" * 60] * 3, "y" * 52, "example"])
    world.feed("a", [long, *names(3)])
    world.export("dns", "rpz", options={"origin": "rpz.example.net"})
    assert world.update("--no-verify").code == 0
    assert world.why(long)["exports"][0]["because"] == f"{long} is too long for the zone"


@pytest.fixture
def server() -> Iterator[HostileServer]:
    table = {"portal.example": ["192.0.2.9", "2001:db8::9"], "alone.example": ["198.51.100.1"]}
    server = HostileServer(table, {"shop.example": Manner("alias"), "old.example": Manner("dangling")})
    with serving(server):
        yield server


def test_what_would_block_on_the_way_of_a_name(world: World, server: HostileServer) -> None:
    world.set("verify", resolvers=[f"127.0.0.1:{server.port}"])
    # shop.example is an alias of cdn.example, whose address 192.0.2.7 lies in a listed network.
    told = world.run("why", "shop.example", "--resolve", "--json").json
    assert not told["blocked"]
    assert [(s["name"], s["exports"]) for s in told["resolved"]] == [("cdn.example", ["list"]), ("192.0.2.7", ["nets"])]
    screen = world.run("why", "shop.example", "--resolve").out
    assert "alias of cdn.example: blocked in list (domains) because it is listed [a]" in screen
    assert "address 192.0.2.7: blocked in nets (cidr) because 192.0.2.0/24 is listed [a]" in screen
    screen = world.run("why", "alone.example", "--resolve").out
    assert "address 198.51.100.1: not blocked (not listed)" in screen
    assert world.run("why", "//shop.example/x", "--resolve", "--json").json["resolved"][0]["name"] == "cdn.example"


def test_a_name_that_can_not_be_resolved_is_still_answered(world: World) -> None:
    ran = world.run("why", "evil.example", "--resolve")
    assert ran.code == 0 and "is blocked in list" in ran.out and "no resolvers are configured" in ran.err
    world.set("verify", resolvers=[f"127.0.0.1:{driver.free_port()}"])
    ran = world.run("why", "evil.example", "--resolve", "--json")
    assert ran.json["resolved"] == [] and "no resolver answered" in ran.err
    assert world.run("why", "192.0.2.1", "--resolve").code == 2
    assert world.run("why", "evil.example", "--resolve", "--at", "1d").code == 2
