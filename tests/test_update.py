"""Updates: what is listed since when and until when, and that a bad day of a feed changes nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engines import driver
from installation import World, digest, names

from blocklist.ingest.loopback import LoopbackServer, Page

HTML = "<!DOCTYPE html>\n<html><head><title>Log in</title></head><body><p>Please log in.</p></body></html>\n"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer() as server:
        yield server


def web_feed(world: World, server: LoopbackServer, name: str, lines: list[str], **keys: Any) -> None:
    server.pages[f"/{name}"] = "".join(f"{line}\n" for line in lines).encode()
    world.feed(name, url=server.url(f"/{name}"), allow_private=True, **keys)


def identity(path: Path) -> tuple[int, int, str]:
    status = path.stat()
    return status.st_mtime_ns, status.st_ino, digest(path)


# What an update does


def test_the_first_load_lists_every_indicator_and_publishes(world: World) -> None:
    world.feed("first", ["evil.example", "192.0.2.1", "not a name!"])
    world.feed("second", ["evil.example", "# comment"], category="phishing")
    world.export("list")
    ran = world.update()
    assert ran.code == 0
    assert world.listed("first") == ["192.0.2.1", "evil.example"]
    assert world.listed("second") == ["evil.example"]
    assert world.exported("list") == ["evil.example"]
    assert ran.feed("first")["added"] == 2 and sum(ran.feed("first")["rejected"].values()) == 1
    world.assert_sound()
    assert world.left_over() == []


def test_the_summary_is_what_the_contract_says(world: World) -> None:
    world.feed("a", ["evil.example"])
    world.export("list")
    summary = world.update().json
    assert set(summary) >= {"feeds", "exports", "seconds"}
    assert set(summary["feeds"][0]) >= {
        "id", "outcome", "entries", "added", "removed", "rejected", "held", "seconds", "error",
    }  # fmt: skip
    assert set(summary["exports"][0]) >= {"name", "outcome", "release", "entries", "added", "removed"}
    assert summary["feeds"][0] | {"seconds": 0} == summary["feeds"][0] | {
        "seconds": 0,
        "outcome": "updated",
        "added": 1,
    }


def test_a_second_run_with_nothing_new_touches_neither_listings_nor_files(world: World) -> None:
    world.feed("a", names(50))
    published = [world.export("list"), world.export("dns", "rpz"), world.export("hosts", "hosts")]
    world.update()
    before, rows = [identity(p) for p in published], world.rows("SELECT * FROM listing")
    files = sorted(p for p in world.state.rglob("*") if p.parent.name not in ("var",))
    ran = world.update()
    assert ran.code == 0 and ran.feed("a")["outcome"] == "unchanged"
    assert {e["outcome"] for e in ran.json["exports"]} == {"unchanged"}
    assert [identity(p) for p in published] == before
    assert world.rows("SELECT * FROM listing") == rows and world.closed() == []
    assert world.rows("SELECT count(*) FROM release") == [(3,)]
    assert sorted(p for p in world.state.rglob("*") if p.parent.name not in ("var",)) == files


def test_a_line_inserted_at_the_top_rewrites_no_listing_and_why_keeps_the_first_evidence(world: World) -> None:
    world.feed("a", names(20))
    published = world.export("list")
    world.update()
    rows, file = world.rows("SELECT * FROM listing"), identity(published)
    world.lines("a", ["# a new header", *names(20)])
    ran = world.update()
    assert ran.feed("a")["outcome"] == "updated"
    assert (ran.feed("a")["added"], ran.feed("a")["removed"]) == (0, 0)
    assert world.rows("SELECT * FROM listing") == rows and world.closed() == []
    assert identity(published) == file
    listing = world.why("h00005.evil.example")["listings"][0]
    assert (listing["line"], listing["text"]) == (6, "h00005.evil.example")


def test_what_comes_and_goes_opens_and_closes_intervals(world: World) -> None:
    world.feed("a", ["stays.example", "goes.example"])
    world.update()
    world.lines("a", ["stays.example", "comes.example"])
    ran = world.update()
    assert (ran.feed("a")["added"], ran.feed("a")["removed"]) == (1, 1)
    assert world.closed() == [("goes.example", 1, 2, "no longer listed")]
    assert world.rows("SELECT name, since FROM listing ORDER BY name") == [("comes.example", 2), ("stays.example", 1)]
    world.lines("a", ["stays.example", "goes.example"])
    world.update()
    assert world.rows("SELECT name, since FROM listing ORDER BY name") == [("goes.example", 3), ("stays.example", 1)]
    assert [(n, s, u) for n, s, u, _ in world.closed()] == [("comes.example", 2, 3), ("goes.example", 1, 2)]
    world.assert_sound()


def test_a_change_of_scope_or_of_a_rows_own_confidence_closes_one_interval_and_opens_another(world: World) -> None:
    keys = {"name": "csv", "value": "domain", "confidence": "score", "reason": "why"}
    world.feed("scope", ["a.evil.example", "b.evil.example"], format="adblock")
    world.feed("score", ["domain,score,why", "c.evil.example,70,spotted", "d.evil.example,70,spotted"], format=keys)
    world.update()
    world.lines("scope", ["||a.evil.example^", "b.evil.example"])
    world.lines("score", ["domain,score,why", "c.evil.example,80,spotted", "d.evil.example,70,confirmed"])
    ran = world.update()
    assert (ran.feed("scope")["changed"], ran.feed("scope")["added"], ran.feed("scope")["removed"]) == (1, 0, 0)
    assert ran.feed("score")["changed"] == 2
    assert [row[:3] for row in world.closed()] == [(f"{x}.evil.example", 1, 2) for x in "acd"]
    assert world.rows("SELECT subtree, since FROM listing WHERE name = 'a.evil.example'") == [(1, 2)]
    assert world.rows("SELECT confidence, since FROM listing WHERE name = 'c.evil.example'") == [(80, 2)]
    assert world.why("d.evil.example")["listings"][0]["row"]["reason"] == "confirmed"
    world.assert_sound()


def test_what_nobody_thought_of_costs_one_feed_alone(world: World) -> None:
    world.feed("a", ["a.example"])
    world.feed("b", ["b.example"])
    assert world.update().code == 0
    world.change("UPDATE snapshot SET account = 'no JSON' WHERE feed = (SELECT id FROM feed WHERE name = 'a')")
    world.lines("a", ["a.example", "new.example"])
    world.lines("b", ["b.example", "c.example"])
    ran = world.run("--debug", "update", "--json")
    assert ran.code == 3 and ran.feed("a")["error"].startswith("unexpected JSONDecodeError")
    assert "Traceback" in ran.err, "for whoever reports it"
    assert ran.feed("b")["added"] == 1 and world.listed() == ["a.example", "b.example", "c.example"]


def test_only_the_named_feeds_are_asked(world: World) -> None:
    world.feed("a", ["a.example"])
    world.feed("b", ["b.example"])
    ran = world.update("b")
    assert [f["id"] for f in ran.json["feeds"]] == ["b"]
    assert world.listed() == ["b.example"]


# Feeds that come, go and change


def test_a_disabled_feed_closes_its_listings_with_that_cause_and_an_enabled_one_opens_them_again(world: World) -> None:
    world.feed("a", names(3))
    world.feed("b", ["b.example"])
    world.export("list")
    world.update()
    kept = world.feeds.pop("a")
    world.write()
    ran = world.update()
    assert world.listed() == ["b.example"] and world.exported("list") == ["b.example"]
    assert {cause for *_, cause in world.closed()} == {"feed disabled"}
    assert world.rows("SELECT enabled FROM feed WHERE name = 'a'") == [(0,)]
    assert ran.code == 0
    world.assert_sound()
    world.feeds["a"] = kept
    world.write()
    assert world.update().feed("a")["outcome"] == "updated"
    assert len(world.exported("list")) == 4 and world.rows("SELECT enabled FROM feed WHERE name = 'a'") == [(1,)]
    assert world.left_over() == []
    world.assert_sound()


def test_a_feed_disabled_while_it_waits_at_its_gate_starts_afresh_when_it_is_enabled_again(world: World) -> None:
    world.feed("a", names(200))
    world.update()
    world.lines("a", names(3))
    assert world.update().feed("a")["outcome"] == "gated"
    kept = world.feeds.pop("a")
    world.write()
    world.update()
    world.feeds["a"] = kept
    world.write()
    assert world.update().feed("a")["outcome"] == "updated"
    assert len(world.listed()) == 3


def test_a_feeds_new_confidence_is_a_dated_version_and_a_new_release_where_it_matters(world: World) -> None:
    world.feed("a", ["a.example"])
    world.feed("b", ["b.example"])
    world.export("list")
    world.update()
    world.feeds["a"]["confidence"] = 40
    world.write()
    ran = world.update()
    assert ran.feed("a")["outcome"] == "unchanged"
    assert ran.export("list")["outcome"] == "published" and world.exported("list") == ["b.example"]
    assert world.closed() == []
    versions = "SELECT v.confidence, v.since FROM feed_version v JOIN feed f ON f.id = v.feed WHERE f.name = 'a'"
    assert world.rows(versions + " ORDER BY v.since") == [(90, 1), (40, 2)]
    world.feeds["a"]["title"] = "another title"
    world.write()
    assert world.update().export("list")["outcome"] == "unchanged"
    assert len(world.rows(versions)) == 3


def test_a_feeds_new_category_takes_it_out_of_the_policy(world: World) -> None:
    world.feed("a", ["a.example"])
    world.feed("b", ["b.example"])
    world.export("list")
    world.update()
    world.feeds["a"]["category"] = "advertising"
    world.write()
    world.update()
    assert world.exported("list") == ["b.example"]
    assert not world.why("a.example")["blocked"]


def test_other_options_read_the_same_bytes_again(world: World) -> None:
    table = ["first,second", "a.example,b.example"]
    world.feed("a", table, format={"name": "csv", "value": "first"})
    world.update()
    world.feeds["a"]["format"] = {"name": "csv", "value": "second"}
    world.write()
    ran = world.update()
    assert ran.feed("a")["outcome"] == "updated" and world.listed() == ["b.example"]
    assert world.update().feed("a")["outcome"] == "unchanged"
    assert world.why("b.example")["listings"][0]["text"] == table[1]


def test_options_under_which_nothing_can_be_read_wait_at_the_gate_and_are_not_recorded_twice(world: World) -> None:
    world.feed("a", names(200))
    world.update()
    world.feeds["a"]["format"] = {"name": "jsonl", "value": "x"}
    world.write()
    for _ in range(3):
        ran = world.update()
        assert ran.code == 3 and ran.feed("a")["outcome"] == "gated"
    assert len(world.listed()) == 200
    assert world.rows("SELECT count(*) FROM snapshot") == [(2,)]
    world.feeds["a"]["format"] = "lines"
    world.write()
    assert world.update().feed("a")["outcome"] == "unchanged"
    assert world.rows("SELECT count(*) FROM snapshot WHERE state = 'gated'") == [(0,)]


# Bad days


def failing(world: World, server: LoopbackServer, how: str) -> None:
    """Make the feed `web` fail in the way named."""
    if how == "status 500":
        server.pages["/web"] = Page(b"sorry", 500)
    elif how == "status 404":
        del server.pages["/web"]
    elif how == "closed port":
        world.feeds["web"]["url"] = f"http://127.0.0.1:{driver.free_port()}/web"
    else:
        world.feeds["web"]["url"] = "file:feeds/missing.txt"
    world.write()


@pytest.mark.parametrize("how", ["status 500", "status 404", "closed port", "missing file"])
def test_a_failed_feed_keeps_its_last_good_list_and_the_others_go_on(
    world: World, server: LoopbackServer, how: str
) -> None:
    web_feed(world, server, "web", ["a.example"])
    world.feed("other", ["b.example"])
    world.export("list")
    world.update()
    failing(world, server, how)
    world.lines("other", ["b.example", "c.example"])
    ran = world.update()
    assert ran.code == 3
    assert ran.feed("web")["outcome"] == "failed" and "keeping" in ran.feed("web")["error"]
    assert ran.feed("web")["entries"] == 1
    assert ran.feed("other")["outcome"] == "updated"
    assert world.exported("list") == ["a.example", "b.example", "c.example"]
    assert world.why("a.example")["blocked"]
    status = world.run("status")
    assert status.code == 3 and "failed" in status.out
    assert "failed" in world.run("update").out
    world.assert_sound()


def test_a_feed_that_fails_at_first_lists_nothing_and_is_said_by_name(world: World) -> None:
    world.feed("a", ["a.example"], url="file:nowhere.txt")
    world.feed("b", ["b.example"])
    ran = world.update()
    assert ran.code == 3 and "nowhere.txt" in ran.feed("a")["error"]
    assert world.listed() == ["b.example"]


BAD = {
    "shrinks by 95 %": "\n".join(names(10)),
    "grows twentyfold": "\n".join(names(4000)),
    "is empty": "",
    "has only comments": "# nothing\n# here\n",
    "is a web page": HTML,
    "can't be read": "\n".join(f"{i} != {i}" for i in range(200)),
}


@pytest.mark.parametrize("how", BAD)
def test_a_list_that_does_not_look_like_the_one_before_waits_for_a_person(world: World, how: str) -> None:
    world.feed("a", names(200))
    published = world.export("list")
    world.update()
    before = identity(published)
    world.lines("a", BAD[how])
    for _ in range(3):
        ran = world.update()
        assert ran.code == 3 and ran.feed("a")["outcome"] in ("gated", "failed")
        assert ran.feed("a")["error"] and ran.feed("a")["entries"] == 200
        assert len(world.listed()) == 200 and identity(published) == before
    assert len(world.rows("SELECT 1 FROM snapshot WHERE state = 'gated'")) <= 1
    assert world.rows("SELECT count(*) FROM snapshot")[0][0] <= 2
    assert world.run("status").code == 3
    world.lines("a", names(200))
    ran = world.update()
    assert ran.code == 0 and ran.feed("a")["outcome"] == "unchanged"
    assert world.rows("SELECT state FROM snapshot WHERE state = 'gated'") == []
    assert world.run("status").code == 0
    world.assert_sound()


def test_accept_takes_what_waits_without_asking_again(world: World, server: LoopbackServer) -> None:
    web_feed(world, server, "web", names(200))
    world.export("list", kinds=["domain"])
    world.set("gates", max_change=10.0)
    world.update()
    server.pages["/web"] = "\n".join(names(5)).encode()
    ran = world.update()
    assert ran.feed("web")["outcome"] == "gated" and "--accept web" in ran.feed("web")["hint"]
    assert "--accept web" in world.run("feeds", "show", "web").out
    asked = len(server.requests)
    server.pages["/web"] = Page(b"", 500)
    ran = world.update("--accept", "web")
    assert ran.code == 0 and ran.feed("web")["outcome"] == "updated"
    assert len(server.requests) == asked
    assert world.listed() == names(5) and len(world.exported("list")) == 5
    assert world.why(names(5)[4])["listings"] != []
    assert world.rows("SELECT state, count(*) FROM snapshot GROUP BY 1 ORDER BY 1") == [
        ("current", 1),
        ("superseded", 2),
    ]
    server.pages["/web"] = "\n".join(names(5)).encode()
    assert world.update().feed("web")["outcome"] == "unchanged"
    world.assert_sound()


def test_accept_with_nothing_at_the_gate_says_so(world: World) -> None:
    world.feed("a", ["a.example"])
    world.update()
    runs = world.rows("SELECT count(*) FROM run")
    ran = world.run("update", "--accept", "a")
    assert ran.code == 2 and "a: no snapshot waits at its gate, and nothing was run" in ran.err
    assert world.rows("SELECT count(*) FROM run") == runs and world.run("status").code == 0
    assert world.listed() == ["a.example"]


def test_a_small_list_changes_as_it_likes(world: World) -> None:
    world.feed("a", names(20))
    world.update()
    world.lines("a", names(1))
    assert world.update().code == 0 and world.listed() == names(1)


# Manners towards publishers


def test_an_unchanged_page_costs_one_conditional_request(world: World, server: LoopbackServer) -> None:
    web_feed(world, server, "web", names(5))
    world.update()
    ran = world.update()
    assert ran.feed("web")["outcome"] == "unchanged" and "304" in ran.feed("web")["note"]
    assert server.requests == [("/web", 200), ("/web", 304)]
    assert world.update("--force").feed("web")["outcome"] == "unchanged"
    assert server.requests[-1] == ("/web", 200)


def test_a_feed_is_not_asked_again_before_its_interval_unless_forced(world: World, server: LoopbackServer) -> None:
    web_feed(world, server, "web", names(5), min_interval="1h")
    world.update()
    ran = world.update()
    assert ran.code == 0 and ran.feed("web")["outcome"] == "skipped" and "min_interval" in ran.feed("web")["note"]
    assert ran.feed("web")["entries"] == 5
    assert len(server.requests) == 1
    world.update("--force")
    assert len(server.requests) == 2
    world.change("UPDATE feed SET checked = '2026-01-01T00:00:00Z'")
    assert world.update().feed("web")["outcome"] == "unchanged"


def test_other_options_are_obeyed_within_the_interval(world: World, server: LoopbackServer) -> None:
    web_feed(world, server, "web", ["*.a.example"], min_interval="1h", format="wildcard")
    world.update()
    world.feeds["web"]["scope"] = "exact"
    world.write()
    assert world.update().feed("web")["outcome"] == "updated"
    assert world.rows("SELECT subtree FROM listing") == [(0,)]


def test_retry_after_is_obeyed_by_later_runs(world: World, server: LoopbackServer) -> None:
    web_feed(world, server, "web", names(5))
    world.update()
    server.pages["/web"] = Page(b"later", 429, {"Retry-After": "7200"})
    assert world.update().code == 3
    asked = len(server.requests)
    ran = world.update()
    assert ran.code == 3 and "wait" in ran.feed("web")["error"] and len(server.requests) == asked
    assert world.listed() == names(5)
    world.update("--force")
    assert len(server.requests) > asked


def test_the_same_bytes_under_200_are_unchanged(world: World, server: LoopbackServer) -> None:
    web_feed(world, server, "web", names(5))
    world.update()
    server.pages["/web"] = Page("".join(f"{n}\n" for n in names(5)).encode(), headers={"ETag": '"another"'})
    ran = world.update()
    assert ran.feed("web")["outcome"] == "unchanged" and server.requests[-1] == ("/web", 200)
    assert world.rows("SELECT count(*) FROM snapshot") == [(1,)]


# Guards over everything current


def test_a_reference_that_comes_later_holds_old_listings_and_lets_go_when_it_leaves(world: World) -> None:
    world.feed("a", ["portal.example", "evil.example", "192.0.2.9"])
    world.export("list")
    world.export("nets", "cidr", kinds=["ipv4"], allow_empty=True)
    world.update()
    assert world.exported("nets") == ["192.0.2.9"]
    world.feed("top", ["portal.example", "192.0.2.0/24"], category="reference")
    ran = world.update()
    assert ran.feed("a")["outcome"] == "unchanged"
    assert world.exported("list") == ["evil.example"] and world.exported("nets") == []
    held = world.run("held", "list", "--json")
    assert "portal.example" in held.out and "192.0.2.9" in held.out and "top, line 1" in held.out
    answer = world.why("portal.example")
    assert not answer["blocked"] and answer["holds"][0]["guard"] == "reference"
    del world.feeds["top"]
    world.write()
    world.update()
    assert world.exported("list") == ["evil.example", "portal.example"] and world.exported("nets") == ["192.0.2.9"]
    assert world.rows("SELECT name, since, until FROM hold ORDER BY name") == [
        ("192.0.2.9", 2, 3),
        ("portal.example", 2, 3),
    ]
    world.assert_sound()


def test_a_change_of_protect_acts_on_old_listings(world: World) -> None:
    world.feed("a", ["www.ministry.example", "evil.example"])
    world.export("list")
    world.update()
    world.set("protect", domains=["ministry.example"])
    ran = world.update()
    assert ran.feed("a")["outcome"] == "unchanged" and world.exported("list") == ["evil.example"]
    world.tables.clear()
    world.write()
    world.update()
    assert len(world.exported("list")) == 2


def test_holds_stay_one_interval_while_they_last(world: World) -> None:
    world.feed("a", ["portal.example"])
    world.feed("top", ["portal.example"], category="reference")
    world.update()
    world.lines("top", ["# moved down", "portal.example"])
    world.lines("a", ["portal.example", "b.example"])
    world.update()
    assert world.rows("SELECT name, since, until FROM hold") == [("portal.example", 1, None)]


# The cache


def test_deleted_or_torn_column_files_are_built_again(world: World) -> None:
    csv = {"name": "csv", "value": "d", "confidence": "c"}
    world.feed("a", ["*.a.example", "b.example", "192.0.2.1"], format="wildcard")
    world.feed("b", ["d,c", "x.example,60", "y.example,70"], format=csv)
    world.export("list")
    world.export("nets", "cidr")
    world.update()
    shutil.rmtree(world.state / "columns")
    world.lines("a", ["*.a.example", "c.example", "192.0.2.1"])
    world.lines("b", ["d,c", "x.example,60", "y.example,71"])
    ran = world.update()
    assert (ran.feed("a")["added"], ran.feed("a")["removed"]) == (1, 1)
    assert (ran.feed("b")["changed"], ran.feed("b")["added"]) == (1, 0)
    assert world.exported("list") == ["a.example", "c.example", "x.example", "y.example"]
    for file in (world.state / "columns").iterdir():
        file.write_bytes(b"PAR1 torn")
    world.feeds["a"]["confidence"] = 91
    world.write()
    ran = world.update()
    assert ran.code == 0 and ran.feed("a")["outcome"] == "unchanged"
    assert world.exported("nets") == ["192.0.2.1"]
    world.assert_sound()


def test_a_feed_whose_kept_bytes_are_lost_can_still_be_updated(world: World) -> None:
    world.feed("a", names(5))
    world.update()
    for file in (world.state / "snapshots").rglob("*.zst"):
        file.unlink()
    world.lines("a", names(6))
    ran = world.update()
    assert ran.code == 0 and ran.feed("a")["outcome"] == "updated" and world.listed() == names(6)
    assert world.why(names(6)[5])["listings"][0]["text"] == names(6)[5]
    answer = world.run("why", names(6)[0])
    assert answer.code == 0 and "can't be read" in answer.out


def test_the_columns_of_superseded_snapshots_are_removed(world: World) -> None:
    world.feed("a", names(5))
    for i in range(4):
        world.lines("a", names(5 + i))
        world.update()
    assert sorted(p.name for p in (world.state / "columns").iterdir()) == ["4.bytes", "4.columns"]


def test_a_column_file_with_one_wrong_byte_is_not_believed(world: World) -> None:
    world.feed("a", names(50))
    world.update()
    (file,) = (world.state / "columns").glob("*.columns")
    data = bytearray(file.read_bytes())
    at = data.index(names(50)[7].encode())
    data[at] = ord("x")
    file.write_bytes(bytes(data))
    world.lines("a", names(51))
    ran = world.update()
    assert (ran.feed("a")["added"], ran.feed("a")["removed"]) == (1, 0) and world.listed() == names(51)
    world.assert_sound()


def test_a_feed_that_moved_for_good_is_read_and_says_where_it_is(world: World, server: LoopbackServer) -> None:
    web_feed(world, server, "new", names(3))
    web_feed(world, server, "old", names(3))
    server.pages["/old"] = Page(status=301, headers={"Location": "/new"})
    for _ in range(2):
        ran = world.update("--force")
        assert ran.code == 0 and ran.feed("old")["entries"] == 3
        assert f"moved for good to {server.url('/new')}" in ran.feed("old")["note"]
    assert "moved" not in ran.feed("new")["note"]
