"""Back to an earlier release: it stays, and the word of a person and of a guard counts in it."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from installation import World, names

from blocklist import clock

GOOD = [*names(120), "bad.example", "evil-cdn.example", "deep.wrong.example"]


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Two releases: one of 123 names, and one in which a feed went wrong within the gate."""
    world = World(tmp_path)
    world.feed("a", GOOD)
    world.feed("nets", ["192.0.2.0/24", "203.0.113.7"])
    world.export("list")
    world.export("dns", "rpz")
    world.export("fw", "nftables")
    world.export("people", "csv")
    world.update()
    world.lines("a", [*names(100), "news.example", "deep.wrong.example"])
    world.lines("nets", ["198.51.100.0/24"])
    world.set("gates", max_change=2.0)
    world.update()
    assert "news.example" in world.exported("list")
    return world


def serial(world: World) -> int:
    found = re.search(r" SOA \S+ \S+ (\d+) ", (world.base / "exports" / "dns").read_text())
    assert found is not None
    return int(found[1])


def state(world: World, export: str) -> list[tuple[int, str]]:
    return world.rows("SELECT id, state FROM release WHERE export = ? ORDER BY id", export)


def test_a_rollback_publishes_what_was_live_before_and_stays_whatever_timers_do(world: World) -> None:
    before = serial(world)
    first = state(world, "dns")[0][0]
    world.set("gates", max_change=0.01)  # a person chose this one: no gate
    ran = world.run("release", "rollback", "dns", "--reason", "the news are blocked", "--json")
    assert ran.code == 0 and ran.export("dns")["outcome"] == "published", ran.text
    text = "\n".join(world.exported("dns"))
    assert "\nbad.example CNAME" in text and "\nnews.example CNAME" not in text
    assert serial(world) > before
    assert "news.example" in world.exported("list"), "the other exports go on"
    assert f"pinned to release {first}" in ran.export("dns")["note"] and "the news" in ran.export("dns")["note"]

    world.set("gates", max_change=2.0)
    world.lines("a", [*names(100), "more.example"])
    for _ in range(2):
        ran = world.update()
        assert ran.code == 0 and ran.export("dns")["outcome"] == "unchanged"
        assert f"pinned to release {first}" in ran.export("dns")["note"]
    assert "more.example" in world.exported("list")
    assert "\n".join(world.exported("dns")) == text
    status = world.run("status")
    assert f"pinned to release {first}" in status.out and "the news are blocked" in status.out

    world.set("gates", max_change=0.01)
    assert world.run("release", "unpin", "dns").code == 4, "what feeds say now goes through the gate"
    assert "bad.example" in "\n".join(world.exported("dns")) and "pinned" not in world.run("status").out
    world.set("gates", max_change=2.0)
    assert world.run("release", "rollback", "dns", first, "--reason", "again").code == 0
    back = serial(world)
    ran = world.run("release", "unpin", "dns", "--json")
    assert ran.code == 0, ran.text
    text = "\n".join(world.exported("dns"))
    assert "\nmore.example CNAME" in text and "\nbad.example CNAME" not in text and serial(world) > back
    assert "pinned" not in world.run("status").out
    world.assert_sound()


def test_the_plan_after_an_unpin_says_why_entries_go_that_the_pinned_release_held(world: World) -> None:
    world.run("release", "rollback", "list", "--reason", "the news are blocked")
    world.set("gates", max_change=0.01)
    ran = world.run("release", "unpin", "list", "--json")
    assert ran.code == 4
    plan = ran.export("list")["plan"]
    # They left the feeds before the pin was set.
    assert plan["removed"] == 22 and plan["removed_because"] == {"no longer listed": 22}
    assert [(p["feed"], p["added"], p["removed"]) for p in plan["parts"]] == [("a", 1, 22)]


def test_the_word_of_now_counts_in_a_release_of_then(world: World) -> None:
    world.run("allow", "add", "bad.example", "--reason", "a customer")
    world.run("allow", "add", "good.wrong.example", "--reason", "below a listed one")
    world.run("deny", "add", "worse.example", "--reason", "an order")
    world.run("allow", "add", "192.0.2.5", "--reason", "our own")
    world.set("protect", domains=["evil-cdn.example"])
    for export in ("list", "fw"):
        ran = world.run("release", "rollback", export, "--reason", "x")
        assert ran.code == 0, ran.text
    listed = world.exported("list")
    assert "h00110.evil.example" in listed and "worse.example" in listed
    assert not {"bad.example", "evil-cdn.example", "news.example"} & set(listed)
    fw = "\n".join(world.exported("fw"))
    assert "203.0.113.7" in fw and "198.51.100" not in fw
    assert "192.0.2.0/24" not in fw and "192.0.2.6" in fw and not re.search(r"192\.0\.2\.5\b", fw)

    # And what is said while it is pinned.
    world.run("allow", "add", "h00110.evil.example", "--reason", "y", "--now")
    assert "h00110.evil.example" not in world.exported("list") and "h00111.evil.example" in world.exported("list")
    world.run("deny", "add", "another.example", "--reason", "z", "--now")
    assert "another.example" in world.exported("list")


def test_what_the_normaliser_of_now_refuses_does_not_come_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from blocklist.ingest import normalize

    refused = pl.col("text").str.contains(r"(?:^|\.)bad\.example$")
    monkeypatch.setattr(normalize, "_GOOD", normalize._GOOD & ~refused)
    assert world.run("release", "rollback", "list", "--reason", "x").code == 0
    assert "bad.example" not in world.exported("list") and "h00110.evil.example" in world.exported("list")


def test_why_tells_of_the_pin(world: World) -> None:
    world.set("protect", domains=["evil-cdn.example"])
    world.run("release", "rollback", "list", "--reason", "the news are blocked")
    bad = next(e for e in world.why("bad.example")["exports"] if e["name"] == "list")
    assert bad["blocked"] and "pinned to release" in bad["because"]
    news = next(e for e in world.why("news.example")["exports"] if e["name"] == "list")
    assert not news["blocked"] and "pinned to release" in news["because"]
    held = next(e for e in world.why("evil-cdn.example")["exports"] if e["name"] == "list")
    assert not held["blocked"] and "protect" in held["because"]
    assert world.why("news.example")["exports"][1]["blocked"]


def test_a_rollback_from_a_rollback_goes_further_and_a_number_says_which(world: World) -> None:
    world.lines("a", [*names(100), "third.example"])
    world.update()
    ids = [i for i, _ in state(world, "list")]
    world.run("release", "rollback", "list", "--reason", "x")
    assert "news.example" in world.exported("list")
    world.run("release", "rollback", "list", "--reason", "x")
    assert "bad.example" in world.exported("list")
    ran = world.run("release", "rollback", "list", "--reason", "x")
    assert ran.code == 2 and "no release of list was live before" in ran.err
    assert world.run("release", "rollback", "list", ids[2], "--reason", "x").code == 0
    assert "third.example" in world.exported("list")
    assert world.rows("SELECT count(*) FROM pin WHERE until IS NULL") == [(1,)]


ROWS = ("csv", "jsonl", "stix", "misp", "parquet")


@pytest.mark.parametrize("fmt", ROWS)
def test_lists_for_people_go_back_with_what_they_said_then(tmp_path: Path, fmt: str) -> None:
    world = World(tmp_path)
    world.feed("a", GOOD, confidence=80)
    world.feed("b", [*names(20), "//evil.example/x", "http://evil.example/y"], category="phishing", confidence=95)
    world.feed("nets", ["192.0.2.0/24", "203.0.113.7", "2001:db8::/48"])
    path = world.export("people", fmt)
    world.update()
    first = _said(path, fmt)
    world.set("gates", max_change=2.0)
    world.feed("b", ["news.example", *names(3)], category="c2", confidence=60)
    world.lines("a", [*names(100), "other.example"])
    world.lines("nets", ["198.51.100.0/24"])
    world.update()
    assert _said(path, fmt) != first and "news.example" in str(_said(path, fmt))
    ran = world.run("release", "rollback", "people", "--reason", "x", "--json")
    assert ran.code == 0 and ran.export("people")["outcome"] == "published", ran.text
    assert _said(path, fmt) == first
    assert world.update().export("people")["outcome"] == "unchanged"

    # The word of now counts here too.
    world.run("allow", "add", "bad.example", "--reason", "a customer")
    world.run("allow", "add", "203.0.113.7", "--reason", "our own", "--now")
    world.run("deny", "add", "worse.example", "--reason", "an order", "--now")
    text = str(_said(path, fmt))
    assert "worse.example" in text and "evil-cdn.example" in text
    assert "bad.example" not in text and "203.0.113.7" not in text
    again = world.run("release", "rollback", "people", "--reason", "further back")
    assert again.code == 2 and "no release of people was live before" in again.err
    assert world.run("release", "unpin", "people").code == 0
    assert "news.example" in str(_said(path, fmt)) and "evil-cdn" not in str(_said(path, fmt))
    world.assert_sound()


def _said(path: Path, fmt: str) -> object:
    """What the file says, without the times and numbers of the file itself."""
    if fmt == "parquet":
        return pl.read_parquet(path).rows()
    text = path.read_text()
    if fmt == "misp":
        text = re.sub(r'"(?:date|timestamp|publish_timestamp)":"[^"]*"', "", text)
    return text.splitlines()


def test_rows_of_a_release_are_kept_as_what_changed(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("a", names(20_000))
    world.export("people", "csv")
    world.update()
    world.lines("a", names(20_000, 100))
    world.update()
    chosen = [row[0] for row in world.rows("SELECT chosen FROM release ORDER BY id")]
    sizes = {path.stem: path.stat().st_size for path in (world.state / "kept").rglob("*.zst")}
    whole, change = (sizes[digest] for digest in chosen)
    assert change < whole / 10


def test_every_export_goes_back_to_what_was_live_at_a_time_and_on_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.lines("a", [*names(90), "news.example", "worse.example"])
    later = clock.now() + timedelta(hours=3)
    monkeypatch.setattr(clock, "now", lambda: later)
    world.export("young")
    world.update()
    # Two releases of that time: its last one is meant, and 'young' had none.
    ran = world.run("release", "rollback", "--all", "--at", "1h", "--reason", "taken over")
    assert ran.code == 4 and "nothing of young was published by" in ran.err, ran.text
    assert "news.example" in world.exported("list") and "worse.example" not in world.exported("list")
    assert len(world.exported("people")) == len(world.exported("list")) + 1 + 1  # its header, and a network
    assert "worse.example" in world.exported("young")
    ran = world.run("release", "unpin", "--all")
    assert ran.code == 0 and ran.out.count("no longer pinned") == 4
    assert "worse.example" in world.exported("list")
    assert "no export is pinned" in world.run("release", "unpin", "--all").out


@pytest.mark.parametrize("words", [(), ("list", "--all"), ("list", "1", "--at", "1h"), ("1", "--all")])
def test_a_way_back_is_one_export_or_all(world: World, words: tuple[str, ...]) -> None:
    assert world.run("release", "rollback", *words, "--reason", "r").code == 2
    assert world.rows("SELECT count(*) FROM pin") == [(0,)]


def test_what_can_not_be_gone_back_to_is_said(world: World) -> None:
    run = world.run
    assert "has no release 999" in run("release", "rollback", "dns", "999", "--reason", "x").err
    assert "did you mean 'dns'" in run("release", "rollback", "dnss", "--reason", "x").err
    assert "not pinned" in run("release", "unpin", "dns").err
    world.set("gates", max_change=0.1)
    world.lines("a", names(70))
    world.update()
    held = world.rows("SELECT id FROM release WHERE export = 'dns' AND state = 'held'")[0][0]
    assert "never published" in run("release", "rollback", "dns", held, "--reason", "x").err
    for path in (world.state / "kept").rglob("*.zst"):
        path.unlink()
    ran = run("release", "rollback", "dns", "--reason", "x")
    assert ran.code == 2 and "not kept any more" in ran.err


def test_damaged_bytes_leave_what_is_published_and_the_others_go_on(world: World) -> None:
    assert world.run("release", "rollback", "list", "--reason", "x").code == 0
    before = world.exported("list")
    for path in (world.state / "kept").rglob("*.zst"):
        path.write_bytes(path.read_bytes()[:-9])
    world.lines("a", [*names(100), "fourth.example"])
    ran = world.update()
    assert ran.code == 4 and "can't be read" in ran.export("list")["error"]
    assert world.exported("list") == before and "\nfourth.example " in "\n".join(world.exported("dns"))


def test_the_bytes_of_a_pinned_release_are_kept_for_as_long_as_it_is_pinned(world: World) -> None:
    world.set("keep", releases="1d")
    assert world.run("release", "rollback", "list", "--reason", "x").code == 0
    world.change("UPDATE release SET published = '2020-01-01T00:00:00Z' WHERE published IS NOT NULL")
    world.lines("a", [*names(100), "fourth.example"])
    world.update()
    world.run("deny", "add", "worse.example", "--reason", "an order", "--now")
    assert {"bad.example", "worse.example"} <= set(world.exported("list"))


def blocked(world: World, what: str, export: str = "list") -> bool:
    said = next(e for e in world.why(what)["exports"] if e["name"] == export)
    assert isinstance(said["blocked"], bool)
    return said["blocked"]


def test_a_policy_that_changes_under_a_pin_changes_nothing_and_why_says_so(tmp_path: Path) -> None:
    """What it asked was settled when the release was chosen."""
    world = World(tmp_path)
    world.feed("a", ["weak.example", "z.example"], confidence=60)
    world.export("list")
    world.update()
    world.lines("a", ["weak.example", "y.example"])
    world.update()
    assert world.run("release", "rollback", "list", "--reason", "r").code == 0
    world.policies["default"] = {"min_confidence": 80, "categories": ["phishing"]}
    world.write()
    assert world.update().export("list")["outcome"] == "unchanged"
    assert world.exported("list") == ["weak.example", "z.example"]
    said = world.why("weak.example")["exports"][0]
    assert said["blocked"] and said["pending"] is None, said


def test_why_reads_the_file_while_the_release_after_an_unpin_waits(world: World) -> None:
    assert world.run("release", "rollback", "list", "--reason", "r").code == 0
    world.lines("a", ["another.example"])
    world.update()
    world.set("gates", max_change=0.1)
    ran = world.run("release", "unpin", "list", "--json")
    assert ran.export("list")["outcome"] == "held"
    assert "bad.example" in world.exported("list") and "another.example" not in world.exported("list")
    assert blocked(world, "bad.example") and not blocked(world, "another.example")
    # Under newer rules as well.
    assert world.run("deny", "add", "worse.example", "--reason", "r", "--now").code == 4
    assert {"bad.example", "worse.example"} < set(world.exported("list"))
    assert blocked(world, "bad.example") and blocked(world, "worse.example") and not blocked(world, "another.example")
    history = [h for h in world.run("history", "bad.example").out.splitlines() if "from release" in h and "list" in h]
    assert "blocked" in history[-1], history


def test_a_pin_to_the_last_approved_list_under_newer_rules_holds_that_list(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("a", names(200), max_shrink=1.0)
    world.export("list")
    world.update()
    world.lines("a", names(20))
    world.update()
    assert world.run("deny", "add", "worse.example", "--reason", "r", "--now").code == 4
    (shown,) = world.rows("SELECT id FROM release WHERE state = 'live' AND amends IS NOT NULL")
    assert world.run("release", "approve", "list").code == 0 and len(world.exported("list")) == 21
    assert world.run("release", "rollback", "list", shown[0], "--reason", "r").code == 0
    assert len(world.exported("list")) == 201 and blocked(world, "h00150.evil.example")


def test_a_subtree_that_a_guard_refuses_now_stands_alone_in_a_release_of_then(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("top", ["famous.example"], category="reference")
    world.feed("a", ["*.evil.example", "z.test"], format="wildcard")
    world.export("dns", "rpz")
    world.update()
    world.lines("a", ["*.evil.example", "y.test"])
    world.update()
    world.lines("top", ["famous.example", "good.evil.example"])
    assert world.run("release", "rollback", "dns", "--reason", "r").code == 0
    world.update()
    assert [line.split()[0] for line in world.exported("dns") if "evil" in line] == ["evil.example"]
    assert blocked(world, "evil.example", "dns") and not blocked(world, "z.evil.example", "dns")
    # Until a person lets it pass.
    assert world.run("held", "release", "evil.example", "--reason", "r").code == 0
    world.run("export")
    owners = [line.split()[0] for line in world.exported("dns") if "evil" in line]
    assert owners == ["evil.example", "*.evil.example"] and blocked(world, "z.evil.example", "dns")


@pytest.mark.parametrize("by", ["reference", "protect"])
def test_a_guard_that_newly_holds_what_no_feed_lists_any_more_is_known_of_a_pinned_export(
    tmp_path: Path, by: str
) -> None:
    """The record has no hold of such a name: the release keeps what guards withheld from it."""
    world = World(tmp_path)
    world.feed("top", ["famous.example", "203.0.113.1"], category="reference")
    stays = ["z.test", "198.51.100.7"]
    world.feed("a", ["host.evil.example", "shop.example", "whole.test", "192.0.2.0/24", *stays])
    for name, fmt in (("masq", "dnsmasq"), ("dns", "rpz"), ("list", "domains"), ("fw", "cidr"), ("people", "csv")):
        world.export(name, fmt)
    world.update()
    world.lines("a", stays)
    world.set("gates", max_change=2.0)
    world.update()
    for export in world.exports:
        assert world.run("release", "rollback", export, "--reason", "r").code == 0
    for what in ("z.host.evil.example", "z.shop.example", "z.whole.test"):
        assert blocked(world, what, "masq"), what
    assert blocked(world, "192.0.2.16", "fw")
    newly = ["www.host.evil.example", "cdn.shop.example", "whole.test"]
    if by == "protect":
        world.set("protect", domains=newly, networks=["192.0.2.0/28"])
    else:
        world.lines("top", ["famous.example", "203.0.113.1", *newly, "192.0.2.0/28"])
    world.update()
    masq = [line.split("/")[1] for line in world.exported("masq") if line.startswith("server=")]
    assert masq == ["z.test"], masq
    owners = {line.split()[0] for line in world.exported("dns") if " CNAME " in line}
    assert {"host.evil.example", "shop.example"} < owners and not owners & {"*.shop.example", "whole.test"}
    for what, exports in (
        ("host.evil.example", {"dns", "list", "people"}),
        ("z.host.evil.example", set()),
        ("shop.example", {"dns", "list", "people"}),
        ("z.shop.example", set()),
        ("whole.test", set()),
        ("192.0.2.1", set()),
        ("192.0.2.16", set()),
        ("z.test", {"masq", "dns", "list", "people"}),
    ):
        said = {e["name"]: e for e in world.why(what)["exports"]}
        assert {name for name, e in said.items() if e["blocked"]} == exports, (what, said)
        assert all(e["pending"] is None for e in said.values()), (what, said)
    # Until a person lets it pass.
    for what in ("host.evil.example", "whole.test"):
        assert world.run("held", "release", what, "--reason", "r").code == 0, what
    assert world.run("export").code == 0
    assert blocked(world, "z.host.evil.example", "masq") and blocked(world, "whole.test", "dns")
    masq = [line.split("/")[1] for line in world.exported("masq") if line.startswith("server=")]
    assert masq == ["host.evil.example", "whole.test", "z.test"]


def test_a_list_for_people_goes_back_to_a_release_of_another_format(tmp_path: Path) -> None:
    """What that release said of its names was not kept: what is said of them now stands there."""
    world = World(tmp_path)
    world.feed("a", ["a.example", "m.example", "z.example"])
    world.feed("b", ["b.example", "n.example"], category="phishing")
    world.export("list", "domains")
    world.update()
    world.feeds["b"]["mode"] = "shadow"
    world.exports["list"]["format"] = "csv"
    world.write()
    world.update()
    world.lines("a", ["m.example", "z.example"])
    world.feeds["b"]["mode"] = "live"
    world.write()
    world.update()
    assert world.run("release", "rollback", "list", 1, "--reason", "r").code == 0
    told = {row.split(",")[0]: row.split(",")[3:6] for row in world.exported("list")[1:]}
    assert told["m.example"] == ["malware", "100", "a"] and told["n.example"] == ["phishing", "100", "b"]
