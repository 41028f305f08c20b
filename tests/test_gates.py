"""The gates of feeds: what contradicts itself, is older, is a page; kept, shown, said until resolved."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from installation import World, names

from blocklist.catalog import Feed, InputFormat
from blocklist.ingest.header import read_header
from blocklist.ingest.loopback import LoopbackServer, Page
from blocklist.ingest.parse import parse


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("# Entries: 1,904", 1904),
        ("! Domains: 147753", 147753),
        ("# Total entries: 1234", 1234),
        ("! Number of unique domains: 85,291", 85291),
        ("# Total number of rules = 12", 12),
        ("# Entries: 1,5", None),
        ("#    3 |   40872 | domains | http", None),
        ("# Domains: see below", None),
        ("# Expires: 4 days", None),
        ("# Blocks 300 domains of 20 vendors", None),
    ],
)
def test_only_a_plain_statement_is_a_count(line: str, count: int | None) -> None:
    assert read_header(f"{line}\nevil.example\n".encode()).count == count


def test_two_counts_are_none_and_those_after_the_first_entry_do_not_count() -> None:
    assert read_header(b"# Entries: 10\n# Entries: 20\nx.example\n").count is None
    assert read_header(b"x.example\n# Entries: 20\n").count is None


@pytest.mark.parametrize(
    ("line", "made"),
    [
        ("# Last modified: 2026-07-18 01:35:22 UTC", "2026-07-18T01:35:22Z"),
        ("! Last modified: So 24. Jul 12:25:34 UTC 2022", "2022-07-24T12:25:34Z"),
        ("# Last update: Sat, 22 Aug 2026 03:00:29 +0200", "2026-08-22T01:00:29Z"),
        ("# Updated: 2026-11-24", "2026-11-24"),
        ("# Updated regularly", None),
    ],
)
def test_headers_say_when_a_file_was_made(line: str, made: str | None) -> None:
    assert read_header(line.encode() + b"\n").made == made


def stated(count: int, *, says: int, made: str = "2026-11-01") -> list[str]:
    return [f"# Last modified: {made}", f"# Entries: {says:,}", *names(count)]


def test_a_copy_cut_short_is_gated_shown_and_said_until_it_is_whole_again(world: World) -> None:
    world.feed("list", stated(1200, says=1200))
    world.export("dns")
    assert world.update().code == 0
    world.lines("list", stated(1100, says=1200))
    ran = world.update()
    assert ran.code == 3 and ran.feed("list")["outcome"] == "gated"
    assert ran.feed("list")["error"] == "it holds 1,100 entries, but says 'Entries: 1,200'"
    assert len(world.exported("dns")) == 1200
    shown = world.run("feeds", "show", "list", "--gated", "-o", world.base / "suspect.txt").out
    assert "1,100 entries; the current one" in shown and "| # Entries: 1,200" in shown
    assert (world.base / "suspect.txt").read_text().startswith("# Last modified")
    assert world.update().feed("list")["outcome"] == "gated" and world.run("status").code == 3
    world.lines("list", stated(1200, says=1200))
    assert world.update().code == 0 and world.run("status").code == 0


def test_a_publisher_who_counts_something_else_is_accepted_once(world: World) -> None:
    world.feed("list", stated(200, says=999))
    assert world.update().feed("list")["outcome"] == "gated"
    assert world.update("--accept", "list").feed("list")["outcome"] == "updated"
    world.lines("list", stated(210, says=1001))
    assert world.update().feed("list")["outcome"] == "updated"


def test_a_count_is_not_asked_of_small_lists_of_parts_or_where_the_feed_says_so(world: World) -> None:
    world.feed("small", stated(20, says=30))
    world.feed("odd", stated(200, says=999), check_count=False)
    world.feed("parts", stated(200, says=200))
    second = world.lines("second", stated(100, says=100))
    world.feeds["parts"]["url"] = [world.feeds["parts"]["url"], f"file:{second}"]
    world.write()
    assert world.update().code == 0


def test_an_older_copy_is_refused_with_both_dates(world: World) -> None:
    world.feed("list", stated(150, says=150, made="2026-11-20 10:00:00 UTC"))
    world.update()
    world.lines("list", stated(140, says=140, made="2026-11-18 10:00:00 UTC"))
    ran = world.update()
    assert ran.code == 3 and ran.feed("list")["outcome"] == "gated"
    assert "older copy, made 2026-11-18T10:00:00Z; the current one: 2026-11-20T10:00:00Z" in ran.feed("list")["error"]
    world.lines("list", stated(160, says=160, made="2026-11-21 10:00:00 UTC"))
    assert world.update().feed("list")["entries"] == 160


def test_json_lines_state_their_count_and_time_in_their_last_line(world: World) -> None:
    def lines(count: int, says: int, at: int) -> list[str]:
        rows = [f'{{"cidr":"192.0.2.{n}"}}' for n in range(count)]
        return [*rows, f'{{"type":"metadata","timestamp":{at},"size":9,"records":{says},"terms":"https://x.example/"}}']

    form = {"name": "jsonl", "value": "cidr", "skip_if": "type"}
    world.feed("drop", lines(150, 150, 1_795_000_000), format=form)
    assert world.update().code == 0
    world.lines("drop", lines(120, 150, 1_795_100_000))
    assert "holds 120 entries, but says 'records: 150'" in world.update().feed("drop")["error"]
    world.lines("drop", lines(140, 140, 1_794_000_000))
    assert "an older copy, made 2026-11-06T21:20:00Z" in world.update().feed("drop")["error"]
    world.lines("drop", lines(160, 160, 1_795_200_000))
    assert world.update().feed("drop")["entries"] == 160


@pytest.mark.parametrize(
    "line",
    [
        '{"type":"metadata","records":-1,"timestamp":99999999999999999}',
        '{"type":"metadata","records":"150","timestamp":1}',
        '{"type":"data","records":150}',
        '{"records":150}',
        '{"type":"metadata","records":1e9999}',
        '{"type":"metadata"',
        "{\udcff}",
        "",
    ],
)
def test_a_last_line_that_says_nothing_plain_says_nothing(line: str) -> None:
    assert read_header(b'{"cidr":"192.0.2.1"}\n' + line.encode("utf-8", "surrogateescape") + b"\n").count is None


def test_an_older_version_is_refused_and_one_of_another_kind_is_not_compared(world: World) -> None:
    def version(text: str, count: int) -> list[str]:
        return [f"! Version: {text}", *names(count)]

    world.feed("list", version("2026.1120.10", 150))
    world.update()
    world.lines("list", version("2026.1119.23", 140))
    assert "an older copy, version 2026.1119.23; the current one: 2026.1120.10" in world.update().feed("list")["error"]
    assert world.listed() == names(150)
    world.lines("list", version("2026.1121.1", 141))
    assert world.update().feed("list")["entries"] == 141
    world.lines("list", version("202611180000", 142))
    assert world.update().feed("list")["entries"] == 142


def test_an_older_copy_by_its_server_is_refused_but_a_date_in_the_file_outranks_it(world: World) -> None:
    with LoopbackServer() as server:

        def serve(lines: list[str], day: int) -> None:
            body = "".join(f"{line}\n" for line in lines).encode()
            server.pages["/l"] = Page(body, headers={"Last-Modified": f"{day:02} Nov 2026 10:00:00 GMT"})

        world.feed("list", url=server.url("/l"), allow_private=True)
        serve(names(150), 20)
        assert world.update().code == 0
        serve(names(140), 18)
        ran = world.update()
        assert "an older copy, of 18 Nov 2026 10:00:00 GMT by its server" in ran.feed("list")["error"]
        assert world.listed() == names(150)
        serve(stated(145, says=145, made="2026-11-21"), 21)
        assert world.update().feed("list")["entries"] == 145
        serve(stated(146, says=146, made="2026-11-22"), 19)
        assert world.update().feed("list")["entries"] == 146


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"<!DOCTYPE html><title>Login</title>", "web page"),
        (b'{"error": "quota exceeded"}', "error in JSON"),
        (b"", "empty"),
        (b"# only\n# comments\n", "comments only"),
    ],
)
def test_pages_errors_and_nothing_are_gated_and_the_list_is_kept(world: World, body: bytes, word: str) -> None:
    world.feed("list", names(3))
    world.export("dns")
    world.update()
    world.lines("list", body)
    ran = world.update()
    assert ran.code == 3 and ran.feed("list")["outcome"] == "gated" and word in ran.feed("list")["error"]
    assert len(world.exported("dns")) == 3


def test_a_feed_that_may_have_nothing_to_report_is_emptied_and_filled_again(world: World) -> None:
    keys = {"format": {"name": "csv", "value": "domain"}}
    world.feed("orders", b"domain,order\nevil.example,1\n", **keys)
    world.export("list", allow_empty=True)
    assert world.update().code == 0
    world.lines("orders", b"domain,order\n")
    told = world.update().feed("orders")
    assert (told["outcome"], world.listed("orders")) == ("gated", ["evil.example"])
    assert "allow_empty = true" in told["hint"]
    world.feed("orders", b"domain,order\n", allow_empty=True, **keys)
    ran = world.update()
    assert (ran.code, ran.feed("orders")["outcome"], world.listed("orders")) == (0, "updated", [])
    assert world.exported("list") == []
    world.lines("orders", b"domain,order\nother.example,2\n")
    assert world.update().code == 0
    assert world.listed("orders") == world.exported("list") == ["other.example"]
    world.assert_sound()


@pytest.mark.parametrize("interval", ["0s", "1h"])
def test_a_list_that_waits_is_judged_again_by_limits_that_were_edited_since(world: World, interval: str) -> None:
    world.feed("orders", names(200), min_interval=interval)
    world.export("list")
    world.update()
    fewer = names(90)
    world.lines("orders", fewer)
    assert world.update("--force").feed("orders")["outcome"] == "gated"
    world.feed("orders", fewer, min_interval=interval, max_shrink=0.54)
    assert world.update().feed("orders")["outcome"] == "gated"
    assert world.update().feed("orders")["outcome"] == "gated"
    world.feed("orders", fewer, min_interval=interval, max_shrink=0.55)
    assert world.update().feed("orders")["outcome"] == "updated"
    assert len(world.listed("orders")) == 90
    assert world.rows("SELECT count(*) FROM snapshot WHERE state = 'gated'") == [(0,)]
    world.assert_sound()


def test_a_row_of_another_kind_than_it_says_is_refused_and_counted() -> None:
    rows = ["v,t", "evil.example,domain", "192.0.2.1,domain", "192.0.2.2,ip", "2001:db8::1,ipv4", "abcdef,sha256"]
    rows += ["http://evil.example/x,url", "other.example,url", "third.example,"]
    feed = Feed(id="f", title="", url="file:x", category="other", format=InputFormat(name="csv", value="v", kind="t"))
    parsed = parse("\n".join(rows).encode(), feed)
    assert parsed.frame["name"].to_list() == ["//evil.example/x", "192.0.2.2", "evil.example", "third.example"]
    assert {r.value: n for r, n in parsed.rejects.items()} == {"other-kind-than-stated": 3, "unsupported": 1}
    assert sum(parsed.kinds.values()) + sum(parsed.rejects.values()) + parsed.comments == parsed.lines


def test_what_a_row_says_is_judged_and_what_can_not_be_read_is_counted() -> None:
    line = '{"d":"evil.example","on":"24.11.2026","end":"soon","tlp":"TLP:WHITE","t":"a; b,a","c":"Phishing"}'
    keys = {"date": "on", "expires": "end", "tlp": "tlp", "tags": "t", "category": "c"}
    feed = Feed(id="f", title="", url="file:x", category="other", format=InputFormat(name="jsonl", value="d", **keys))
    parsed = parse(line.encode(), feed)
    said = parsed.frame.select(
        pl.col("extra").str.json_decode(pl.Struct(dict.fromkeys(("date", "tlp", "category"), pl.String)))
    )
    assert said["extra"][0] == {"date": "2026-11-24", "tlp": "clear", "category": "phishing"}
    assert '"tags":["a","b"]' in parsed.frame["extra"][0] and parsed.notes == {"unreadable expires": 1}


@pytest.mark.parametrize(
    ("said", "level"),
    [
        ("white", "clear"),
        ("TLP:WHITE", "clear"),
        ("tlp: Clear", "clear"),
        ("TLP:AMBER+STRICT", "amber+strict"),
        ("whiteish", None),
        ("", None),
    ],
)
def test_a_marking_of_tlp_1_is_told_in_the_words_of_tlp_2(said: str, level: str | None, world: World) -> None:
    world.feed("rows", f"evil.example,{said}\n", format={"name": "csv", "value": 1, "tlp": 2, "header": False})
    assert world.update().code == 0
    assert world.why("evil.example")["listings"][0]["tlp"] == level
    told = world.run("why", "evil.example").out
    assert (f"TLP {level.upper()}" in told) if level else ("TLP" not in told)


def test_a_feed_marked_white_is_clear(world: World) -> None:
    world.feed("white", ["evil.example"], tlp="white")
    world.feed("loud", ["bad.example"], tlp="TLP:CLEAR")
    assert world.update().code == 0
    assert [world.why(name)["listings"][0]["tlp"] for name in ("evil.example", "bad.example")] == ["clear", "clear"]
    world.feed("grey", ["x.example"], tlp="grey")
    ran = world.update()
    assert ran.code == 1 and "feed.grey.tlp: unknown value 'grey'" in ran.err


def test_held_list_says_who_lists_it_how_well_known_it_is_and_what_it_would_block(world: World) -> None:
    world.feed("bad", ["bank.test", "hosting.test", "co.uk", "192.0.2.0/24"], format="wildcard")
    world.feed("worse", ["bank.test"])
    top = ["name", "shop.test", "bank.test", *(f"site{i}.hosting.test" for i in range(5))]
    world.feed("top", top, category="reference", format={"name": "csv", "value": "name"})
    world.feed("shared", ["192.0.2.128/25"], category="reference")
    world.update()
    held = {h["indicator"]: h for h in map(json.loads, world.run("held", "--json").out.splitlines())}
    assert (held["bank.test"]["reference"], held["bank.test"]["line"]) == ("top", 3)
    assert held["bank.test"]["feeds"] == ["bad", "worse"] and held["bank.test"]["below"] == 0
    assert held["hosting.test"]["below"] == 5 and held["hosting.test"]["examples"][0] == "site0.hosting.test"
    assert held["co.uk"]["reference"] is None
    shown = world.run("held", "list").out
    assert "line 3 of top" in shown and "256 addresses" in shown
    assert "5 known below: site0.hosting.test, site1.hosting.test, site2.hosting.test, …" in shown
    assert held["bank.test"]["rank"] is None, "the order of a list is no ranking unless its feed says so"
    # Newest first.
    world.change("UPDATE run SET started = '2026-01-01T00:00:00Z'")
    world.lines("bad", ["bank.test", "hosting.test", "shop.test"])
    world.update()
    assert world.run("held", "list").out.splitlines()[1].startswith("shop.test")


def test_only_the_order_of_a_ranked_list_is_a_rank(world: World) -> None:
    world.feed("bad", ["a.test", "m.test", "z.test", "hosting.test"], format="wildcard")
    world.feed("alphabet", ["a.test", "a.hosting.test", "z.hosting.test", "z.test"], category="reference")
    ranking = ["# the first two", "z.hosting.test", "z.test", "m.test"]
    world.feed("ranking", ranking, category="reference", ranked=True)
    world.update()
    held = {h["indicator"]: h for h in map(json.loads, world.run("held", "--json").out.splitlines())}
    places = {name: (h["reference"], h["line"], h["rank"]) for name, h in held.items()}
    assert places["a.test"] == ("alphabet", 1, None)
    assert places["z.test"] == ("ranking", 3, 2) and places["m.test"] == ("ranking", 4, 3)
    assert held["hosting.test"]["examples"] == ["z.hosting.test", "a.hosting.test"]
    shown = world.run("held", "list").out
    assert "rank 2 of ranking" in shown and "line 1 of alphabet" in shown
    # A plan names the best known first: by rank, then those that have none.
    world.feed("none", ["x.a.test", "x.m.test", "x.z.test"])
    world.update()
    world.export("list", format="domains")
    plan = world.run("export", "list", "--dry-run").out
    order = [line.split()[1] for line in plan.splitlines() if " of ranking)" in line or " of alphabet)" in line]
    assert order == ["x.z.test", "x.m.test", "x.a.test"], plan
    assert "+ x.z.test (below z.test, rank 2 of ranking)" in plan


def test_references_that_only_inform_are_told(world: World) -> None:
    world.feed("malware", ["evil.example", "www.top.example"])
    world.feed("top", ["top.example"], category="reference", action="inform")
    world.export("dns")
    world.update()
    assert world.exported("dns") == ["evil.example", "www.top.example"]
    told = world.run("held", "list", "--inform").out
    assert "www.top.example" in told and "top, line 1" in told and "1 named by references that only inform" in told


def test_a_list_that_was_taken_over_waits_for_a_person(world: World) -> None:
    """As large as before, and half of it well-known: no count tells."""
    famous = [f"famous{i}.example" for i in range(100)]
    world.feed("top", famous, category="reference", confidence=100)
    world.set("protect", domains=["ministry.example"])
    world.set("gates", max_change=1.0)
    world.feed("a", names(300))
    world.export("list")
    assert world.update().code == 0
    taken_over = [*names(150), "portal.ministry.example", *famous, *names(49, start=1000)]
    world.lines("a", taken_over)
    ran = world.update()
    assert ran.code == 3 and ran.feed("a")["outcome"] == "gated", ran.text
    assert ran.feed("a")["error"].startswith("101 of the 150 entries that it would add are what guards hold, ")
    assert "taken the list over" in ran.feed("a")["hint"] and "--accept a" in ran.feed("a")["hint"]
    assert world.exported("list") == names(300) and world.run("held").out == "0 held\n"
    assert world.update().code == 3, "said until it is resolved"
    # Once a person has looked, guards hold them one by one.
    ran = world.update("--accept", "a")
    assert ran.code == 0 and ran.feed("a")["held"] == 101
    assert not set(famous) & set(world.exported("list"))
    world.assert_sound()


@pytest.mark.parametrize(
    ("famous", "others", "keys", "gated"),
    [(49, 51, {}, False), (60, 300, {}, False), (60, 200, {}, True), (60, 200, {"max_held": 1.0}, False)],
)
def test_some_well_known_names_come_with_any_large_addition(
    world: World, famous: int, others: int, keys: dict[str, object], gated: bool
) -> None:
    known = [f"famous{i}.example" for i in range(100)]
    world.feed("top", known, category="reference", confidence=100)
    world.feed("a", names(100), **keys)
    world.export("list")
    world.update()
    world.lines("a", [*names(100), *known[:famous], *names(others, start=1000)])
    assert (world.update().feed("a")["outcome"] == "gated") is gated


def test_what_a_person_let_pass_takes_no_list_over(world: World) -> None:
    known = [f"famous{i}.example" for i in range(60)]
    world.feed("top", known, category="reference", confidence=100)
    world.feed("a", [*names(100), *known])
    world.export("list")
    world.update()
    for name in known[:20]:
        assert world.run("held", "release", name, "--reason", "seen").code == 0
    world.lines("a", names(100))
    assert world.update().code in (0, 4)
    world.lines("a", [*names(100), *known, *names(40, start=1000)])
    assert world.update().feed("a")["outcome"] == "updated"


def test_a_feed_is_read_from_its_last_good_download_for_a_while(world: World) -> None:
    world.feed("a", names(120))
    world.export("list")
    world.update()
    world.lines("a", [*names(70), *names(50, start=1000)])
    assert world.update().code in (0, 4)
    ran = world.run("feeds", "show", "a", "--snapshot", "1", "-o", world.base / "good.txt")
    assert ran.code == 0 and (world.base / "good.txt").read_text() == "".join(f"{n}\n" for n in names(120)), ran.text
    world.feeds["a"]["url"] = "file:good.txt"
    world.write()
    assert world.update().code == 0 and world.exported("list") == names(120)
    assert world.run("feeds", "show", "a", "--snapshot", "99", "-o", world.base / "x").code != 0
    assert world.run("feeds", "show", "a", "--snapshot", "1").code == 2
    nowhere = world.run("feeds", "show", "a", "--snapshot", "1", "-o", world.base / "no" / "good.txt")
    assert nowhere.code == 1 and "no/good.txt" in nowhere.err and "bug" not in nowhere.err, nowhere.text


def test_what_came_to_the_gate_once_is_not_offered_for_ever(world: World) -> None:
    world.feed("a", names(120))
    world.update()
    world.lines("a", names(10))
    assert world.update().code == 3 and "accept it with" in world.run("feeds", "show", "a").out
    world.lines("a", names(121))
    assert world.update().code == 0
    shown = world.run("feeds", "show", "a").out
    assert "accept it with" not in shown and "came to the gate: 10 entries" in shown


def test_a_feed_that_is_known_but_not_enabled_says_how(world: World) -> None:
    world.feed("a", names(3))
    world.update()
    ran = world.run("update", "openphish")
    assert ran.code == 2 and "'blocklist feeds enable openphish' does it" in ran.err
