"""Logs against the lists: every verdict is that of `why`, every feed gets the credit that is its due."""

from __future__ import annotations

import csv
import gzip
import io
import ipaddress
import json
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from installation import PROGRAM, World, names
from msgspec.structs import replace

from blocklist import clock
from blocklist.match_forms import FORMS, Reader

# Lines as the programs write them (tests/test_match_engines.py has them write some), of one query by 192.0.2.1 each.
WRITTEN = {
    "bind": "24-Nov-2026 22:54:00.920 queries: info: client @0x7f4a5c6edc98 192.0.2.1#45707 (a.evil.example): "
    "query: a.evil.example IN A +E(0)K (192.0.2.53)",
    "bind-rpz": "24-Nov-2026 22:54:00.920 client @0x7f4a5c6edc98 192.0.2.1#45707 (a.evil.example): view inside: "
    "rpz QNAME NXDOMAIN rewrite a.evil.example/A/IN via a.evil.example.rpz.test",
    "unbound": "[1795560842] unbound[498:0] info: 192.0.2.1 A.evil.example. A IN",
    "unbound-reply": "Nov 24 22:54:02 ns unbound: [498:0] info: 192.0.2.1 a.evil.example. A IN NXDOMAIN 0.000000 1 32",
    "unbound-rpz": "[1795560842] unbound[498:0] info: rpz: applied [bl] *.evil.example. rpz-nxdomain "
    "192.0.2.1@52075 a.evil.example. A IN",
    "dnsmasq": "Nov 24 22:54:04 dnsmasq[504]: 3 192.0.2.1/35007 query[A] a.evil.example from 192.0.2.1",
    "powerdns": "Nov 24 22:54:03 pdns_recursor[7]: 3 [2/1] question for 'a.evil.example|A' from 192.0.2.1:44258",
    "powerdns-structured": 'Nov 24 22:54:03 msg="Question" subsystem="syncres" level="0" prio="Info" tid="1" ecs="" '
    'mtid="3" proto="udp" qname="a.evil.example" qtype="A" remote="192.0.2.1:44258"',
    "squid": "1795560842.120     45 192.0.2.1 TCP_TUNNEL/200 3904 CONNECT a.evil.example:443 - "
    "HIER_DIRECT/203.0.113.7 -",
    "squid-common": '192.0.2.1 - ana [24/Nov/2026:22:54:02 +0000] "GET http://a.evil.example/x HTTP/1.1" 200 145 '
    '"-" "curl/7" TCP_MISS:HIER_DIRECT',
    "dnstap-read": "24-Nov-2026 22:54:21.944 CQ 192.0.2.1:42150 -> 192.0.2.53:53 UDP 30b a.evil.example/IN/A",
    "dnstap-ldns": '2026-11-24 22:54:21.944431 CQ 192.0.2.1 UDP 30b "a.evil.example." IN A',
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Lists of all kinds, exports that can say more and less, rules, a hold, a feed in shadow."""
    world = World(tmp_path_factory.mktemp("match"))
    world.feed("malware", ["evil.example", "sub.exact.example", "192.0.2.0/24", "https://files.example/x/mal.exe"])
    world.feed("second", ["evil.example", "deep.evil.example", "2001:db8:7::/48"], category="phishing")
    world.feed("addresses", ["192.0.2.7", "198.51.100.9"], category="attack-source")
    world.feed("idle", names(50, zone="idle.example"))
    world.feed("weak", ["weak.example"], confidence=20)
    world.feed("later", ["good.example", "evil.example"], mode="shadow")
    world.feed("top", ["held.example"], category="reference")
    world.feed("careless", ["held.example"])
    world.policies["daring"] = {"min_confidence": 10}
    world.export("dns", "rpz", options={"origin": "rpz.test"})
    for name in ("hosts", "dnsmasq", "domains", "squid", "cidr", "urls", "csv"):
        world.export(name, name)
    assert world.update().code == 0
    for what in ("ok.evil.example", "192.0.2.8"):
        assert world.run("allow", "add", what, "--reason", "x").code == 0
    assert world.run("deny", "add", "worse.example", "--reason", "x").code == 0
    assert world.run("export").code == 0
    return world


def matched(world: World, lines: list[str] | bytes, *words: str, name: str = "log") -> dict[str, Any]:
    path = world.base / name
    path.write_bytes(lines if isinstance(lines, bytes) else "".join(f"{line}\n" for line in lines).encode())
    ran = world.run("match", path, "--json", *words)
    assert ran.code == 0, ran.text
    return ran.json


def test_every_form_in_the_tests_is_one_that_is_known() -> None:
    assert set(WRITTEN) == {form.name for form in FORMS}


@pytest.mark.parametrize("form", WRITTEN)
def test_a_line_is_recognised_by_itself(world: World, form: str) -> None:
    found = matched(world, ["something else altogether went wrong here", WRITTEN[form], ""])
    assert [(x["form"], x["lines"], x["queries"]) for x in found["logs"]] == [(form, 3, 1)]
    assert found["blocked"][0]["what"] in ("a.evil.example", "//a.evil.example/x")
    assert found["blocked"][0]["entry"] == "evil.example"
    assert found["top_clients"] == [{"client": "192.0.2.1", "queries": 1, "names": 1}]


_WORD = st.text("abz019.-_:;#%()/ \\é", max_size=12)


@given(
    st.lists(
        st.one_of(
            st.builds(
                "{} client {}{}#{} ({}): {}query: {} IN A +".format,
                _WORD,
                st.sampled_from(["", "@0x7f01 "]),
                st.sampled_from(["192.0.2.1", "2001:db8::1", "fe80::1%eth0", "name", ""]),
                st.integers(0, 70_000),
                _WORD,
                st.sampled_from(["", "view in: ", "response: "]),
                _WORD,
            ),
            _WORD,
        ),
        min_size=1,
    )
)
def test_quick_patterns_find_what_the_whole_pattern_finds(lines: list[str]) -> None:
    frame = pl.DataFrame({"line": lines})
    for form in FORMS:
        assert Reader(form).read(frame).equals(Reader(replace(form, quick=None)).read(frame)), form.name


@pytest.mark.parametrize("family", ["bind", "unbound"])
def test_what_is_told_twice_counts_once(world: World, family: str) -> None:
    lines = [WRITTEN[form.name] for form in reversed(FORMS) if form.family == family]
    assert matched(world, lines)["queries"] == 1


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"dns": {"type": "query", "rrname": "a.evil.example"}, "src_ip": "192.0.2.1"}', "a.evil.example"),
        ('{"query": "A.evil.example.", "id.orig_h": "192.0.2.1"}', "a.evil.example"),
        ('{"QH": "a.evil.example", "IP": "192.0.2.1"}', "a.evil.example"),
        ('{"url": {"full": "https://a.evil.example/x"}, "client": {"ip": "192.0.2.1"}}', "//a.evil.example/x"),
    ],
)
def test_json_lines_are_read_by_the_keys_that_are_there(world: World, line: str, what: str) -> None:
    found = matched(world, [line, "{", '{"dns": {"type": "answer", "rrname": "a.evil.example"}}', "no json"])
    assert found["logs"][0]["form"] == "json"
    assert [row["what"] for row in found["blocked"]][-1:] == [what] or what in {row["what"] for row in found["blocked"]}
    assert found["top_clients"][0]["client"] == "192.0.2.1"


ASKED = st.one_of(
    st.builds(
        lambda label, name: f"{label}{name}",
        st.sampled_from(["", "a.", "x.y.", "WWW.", "deep.", "ok."]),
        st.sampled_from(
            [
                *("evil.example", "deep.evil.example", "ok.evil.example", "sub.exact.example", "exact.example"),
                *("good.example", "weak.example", "held.example", "worse.example", "h00001.idle.example"),
                *("files.example", "example"),
            ]
        ),
    ),
    st.sampled_from(["192.0.2.7", "192.0.2.8", "192.0.2.200", "198.51.100.9", "198.51.100.8", "203.0.113.1"]),
    st.sampled_from(["2001:db8:7::1", "2001:DB8:7:0::1", "2001:db8:8::1", "::ffff:192.0.2.7"]),
    st.builds(
        lambda scheme, host, rest: f"{scheme}{host}{rest}",
        st.sampled_from(["http://", "HTTPS://", "https://user:secret@"]),
        st.sampled_from(["files.example", "files.example:443", "a.evil.example", "192.0.2.9", "[2001:db8:7::5]:8080"]),
        st.sampled_from(["/x/mal.exe", "/x/mal.exe#part", "/x/other", "/", ""]),
    ),
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=st.lists(ASKED, min_size=1, max_size=8))
def test_every_verdict_is_that_of_why(world: World, asked: list[str]) -> None:
    found = matched(world, asked, "--top", "1000", "--form", "lines")
    lists = {row["what"]: set(row["lists"]) for row in found["blocked"]}
    for text in asked:
        answer = world.why(text)
        wanted = {export["name"] for export in answer["exports"] if export["blocked"]}
        got = [at for what, at in lists.items() if what.removesuffix("/") == answer["query"].removesuffix("/")]
        assert (got[0] if got else set()) == wanted, (text, found["blocked"])


def test_a_feed_gets_credit_for_what_it_covers_and_for_what_it_alone_does(world: World) -> None:
    found = matched(world, ["evil.example"] * 3 + ["x.evil.example", "192.0.2.7", "192.0.2.9", "sub.exact.example"])
    feeds = {row["feed"]: (row["queries"], row["names"], row["alone_queries"]) for row in found["feeds"]}
    assert feeds["malware"] == (7, 5, 2)  # alone: 192.0.2.9 and sub.exact.example
    assert feeds["second"] == (4, 2, 0)
    assert feeds["addresses"] == (1, 1, 0)
    assert feeds["idle"] == feeds["weak"] == feeds["careless"] == (0, 0, 0)
    assert "top" not in feeds
    lists = {row["list"]: (row["queries"], row["names"], row["entries_hit"]) for row in found["lists"]}
    assert lists["dns"] == (5, 3, 2) and lists["hosts"] == (4, 2, 2) and lists["cidr"] == (2, 2, 2)


def test_a_feed_that_lists_a_name_alone_has_no_part_in_what_lies_below_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("wide", ["*.sub.wide.example"], format="wildcard")
    world.feed("narrow", ["sub.wide.example", "192.0.2.128/25"])
    world.export("dns", "rpz", options={"origin": "rpz.test"})
    world.export("fw", "cidr")
    world.update()
    found = matched(world, ["a.sub.wide.example", "sub.wide.example", "192.0.2.129", "192.0.2.127", "203.0.113.1"])
    assert {row["what"]: row["feeds"] for row in found["blocked"]} == {
        "a.sub.wide.example": ["wide"],
        "sub.wide.example": ["narrow", "wide"],
        "192.0.2.129": ["narrow"],
    }


def test_what_a_file_left_out_is_not_blocked_by_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    long = f"{'a' * 60}.{'b' * 60}.{'c' * 60}"
    world.feed("best", ["good.example", "192.0.2.7", "http://u.example/a,b"], confidence=95)
    urls = ["http://u.example/it's", "http://u.example/fine"]
    world.feed("rest", ["bad.example", f"x.{long}.example", "198.51.100.0/24", "198.51.100.7", *urls])
    world.export("few", "domains", max_entries=1, fit="rank")
    world.export("table", "csv", max_entries=3, fit="rank")
    world.export("nets", "cidr", max_entries=1, fit="rank")
    world.export("alone", "sophos-ip")
    world.export("zone", "rpz", options={"origin": f"{'o' * 60}.rpz.test"})
    world.export("links", "cloudflare-url")
    world.export("shared", "misp")
    assert world.update().code == 0
    asked = ["good.example", "bad.example", f"x.{long}.example", "192.0.2.7", "198.51.100.7", "198.51.100.8"]
    asked += ["http://u.example/a,b", *urls]
    found = matched(world, asked, "--form", "lines", "--top", "100")
    lists = {row["what"].removeprefix("//"): set(row["lists"]) for row in found["blocked"]}
    assert lists == {
        "good.example": {"few", "table", "zone", "shared"},
        "bad.example": {"zone", "shared"},
        f"x.{long}.example": {"shared"},
        "192.0.2.7": {"table", "nets", "alone", "shared"},
        "198.51.100.7": {"alone", "shared"},
        "198.51.100.8": {"shared"},
        "u.example/a,b": {"table", "shared"},
        "u.example/fine": {"links", "shared"},
    }
    for text in asked:
        wanted = {export["name"] for export in world.why(text)["exports"] if export["blocked"]}
        assert lists.get(text.removeprefix("http://"), set()) == wanted, text
    # With room for all of them nothing is left out any more.
    for name in ("few", "table", "nets"):
        world.exports[name]["max_entries"] = 100
    world.write()
    assert world.run("export").code == 0
    found = matched(world, asked, "--form", "lines", "--top", "100")
    lists = {row["what"].removeprefix("//"): set(row["lists"]) for row in found["blocked"]}
    assert lists["bad.example"] == {"few", "table", "zone", "shared"}
    assert lists["198.51.100.8"] == {"table", "nets", "shared"}
    assert {row["list"]: row["entries"] for row in found["lists"]}["links"] == 1


LISTS = {"plain": "domains", "dns": "rpz", "nets": "cidr", "people": "csv"}
THINGS = [*names(12), "bad.example", "news.example", "ours.example", "worse.example", "late.example", "192.0.2.7"]
THINGS += ["192.0.2.9", "198.51.100.7"]


def pinned_world(folder: Path, monkeypatch: pytest.MonkeyPatch, protect: Sequence[str] = ()) -> World:
    """Four exports, each pinned to its first release on the second day; the feeds go on, and a person's word."""
    world = World(folder)
    world.feed("a", [*names(9), "bad.example", "ours.example"])
    world.feed("b", names(2), category="phishing")
    world.feed("nets", ["192.0.2.0/24"])
    for name, fmt in LISTS.items():
        world.export(name, fmt, **({"options": {"origin": "rpz.test"}} if fmt == "rpz" else {}))
    day(monkeypatch, 1)
    assert world.update().code == 0
    world.lines("a", [*names(6, start=6), "news.example"])
    world.lines("nets", ["198.51.100.0/24"])
    day(monkeypatch, 2)
    assert world.update().code == 0
    world.set("protect", domains=list(protect))
    for name in LISTS:
        assert world.run("release", "rollback", name, "--reason", "the news are blocked").code == 0
    return world


def day(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(clock, "now", lambda: datetime(2026, 11, number, 6, tzinfo=UTC))


def held_by(fmt: str, text: str) -> set[str]:
    """Which of the things asked for a file blocks."""
    lines = text.splitlines()
    if fmt == "cidr":
        area = [ipaddress.ip_network(line) for line in lines]
        return {x for x in THINGS if x[0].isdigit() and any(ipaddress.ip_address(x) in net for net in area)}
    if fmt == "csv":
        rows = {row["indicator"] for row in csv.DictReader(lines)}
        return {x for x in THINGS if x in rows} | held_by(
            "cidr", "\n".join(r for r in rows if r[0].isdigit() and "/" in r)
        )
    return {line.split()[0] for line in lines if fmt == "domains" or line.endswith(" CNAME .")} & set(THINGS)


def said(found: dict[str, Any]) -> dict[str, set[str]]:
    return {name: {row["what"] for row in found["blocked"] if name in row["lists"]} for name in LISTS}


def test_a_pinned_export_answers_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = pinned_world(tmp_path, monkeypatch)
    assert world.run("allow", "add", "ours.example", "--reason", "x").code == 0
    assert world.run("allow", "add", "192.0.2.9", "--reason", "x").code == 0
    assert world.run("deny", "add", "worse.example", "--reason", "x", "--now").code == 0
    found = matched(world, THINGS, "--form", "lines", "--top", "100")
    files = {name: held_by(fmt, (world.base / "exports" / name).read_text()) for name, fmt in LISTS.items()}
    assert said(found) == files
    assert files["plain"] == {*names(9), "bad.example", "worse.example"} and files["nets"] == {"192.0.2.7"}
    assert files["people"] == files["plain"] | files["nets"]
    for what in THINGS:
        wanted = {export["name"] for export in world.why(what)["exports"] if export["blocked"]}
        assert wanted == {name for name, of in said(found).items() if what in of}, what
    # The merit is of the feeds that listed it then.
    feeds = {row["what"]: row["feeds"] for row in found["blocked"]}
    assert feeds["bad.example"] == ["a"] and feeds[names(1)[0]] == ["a", "b"] and feeds["192.0.2.7"] == ["nets"]
    assert feeds["worse.example"] == []
    lists = {row["list"]: row for row in found["lists"]}
    assert lists["plain"]["pinned"] == 1 and lists["plain"]["entries"] == len(world.exported("plain"))
    text = world.run("match", world.base / "log").out
    assert "plain: pinned to release 1 by " in text and ": the news are blocked\n" in text

    assert world.run("release", "unpin", "plain").code == 0
    found = matched(world, THINGS, "--form", "lines", "--top", "100")
    assert said(found)["plain"] == {*names(2), *names(6, start=6), "news.example", "worse.example"}
    assert said(found)["dns"] == files["dns"]
    assert {row["list"]: row["pinned"] for row in found["lists"]}["plain"] is None


def test_what_was_pinned_then_answers_by_the_file_of_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = pinned_world(tmp_path, monkeypatch)
    day(monkeypatch, 4)
    world.lines("a", [*names(12), "late.example"])
    assert world.run("deny", "add", "worse.example", "--reason", "x", "--now").code == 0
    assert world.update().code == 0
    day(monkeypatch, 6)
    for name in LISTS:
        assert world.run("release", "unpin", name).code == 0
    assert world.run("release", "rollback", "plain", "--reason", "again").code == 0
    for number in range(1, 7):
        at = f"2026-11-0{number}T12:00Z"
        day(monkeypatch, 7)
        found = matched(world, THINGS, "--form", "lines", "--top", "100", "--at", at)
        then = {}
        for name, fmt in LISTS.items():
            ran = world.run("export", name, "--at", at, "-o", tmp_path / "then")
            assert ran.code == 0, ran.text
            then[name] = held_by(fmt, (tmp_path / "then").read_text())
        assert said(found) == then, at
        pins = {row["list"]: row["pinned"] for row in found["lists"]}
        assert [name for name in LISTS if pins[name]] == (
            [] if number == 1 else list(LISTS) if number < 6 else ["plain"]
        )
        assert next((row["feeds"] for row in found["blocked"] if row["what"] == "bad.example"), ["a"]) == ["a"]


def test_a_pin_of_then_whose_release_is_forgotten_is_answered_by_what_it_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = pinned_world(tmp_path, monkeypatch, ["ours.example"])
    world.set("keep", releases="5d")
    day(monkeypatch, 6)
    for name in LISTS:
        assert world.run("release", "unpin", name).code == 0
    day(monkeypatch, 12)
    world.lines("a", ["late.example"])
    world.set("gates", max_change=10.0)
    assert world.update().code == 0
    chosen = dict(world.rows("SELECT id, chosen FROM release WHERE export = 'people'"))
    there = [
        number for number, digest in chosen.items() if (world.state / "kept" / digest[:2] / f"{digest}.zst").exists()
    ]
    assert min(chosen) not in there, "what the pinned release itself was chosen from is forgotten"
    found = matched(world, THINGS, "--form", "lines", "--top", "100", "--at", "2026-11-03T12:00Z")
    assert said(found)["people"] == {*names(9), "bad.example", "192.0.2.7", "192.0.2.9"}


def test_a_pin_whose_bytes_are_gone_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = pinned_world(tmp_path, monkeypatch)
    for path in (world.state / "kept").rglob("*.zst"):
        path.unlink()
    (log := tmp_path / "log").write_text("bad.example\n")
    ran = world.run("match", log)
    assert ran.code == 1 and "these bytes are not kept" in ran.err, ran.text


def test_what_a_rule_blocks_is_no_feed_s_merit(world: World) -> None:
    assert matched(world, ["worse.example"])["blocked"][0]["feeds"] == []
    assert "a rule" in world.run("match", world.base / "log").out


def test_shadows_and_unused_policies_are_replayed(world: World) -> None:
    found = matched(world, ["good.example", "good.example", "evil.example", "weak.example"])
    assert found["shadows"] == [
        {
            "feed": "later",
            "policy": "default",
            "queries": 2,
            "names": 1,
            "clients": 0,
            "examples": ["good.example"],
        }
    ]
    assert found["blocked_names"] == 1
    daring = next(row for row in found["lists"] if row["list"] == "daring")
    assert (daring["kind"], daring["queries"], daring["names"]) == ("policy", 2, 2)


def test_an_export_of_a_shadow_policy_blocks_nothing_yet(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("a", ["evil.example"])
    world.policies["trial"] = {"mode": "shadow"}
    world.export("dns", "rpz", options={"origin": "rpz.test"}, policy="trial")
    world.update()
    found = matched(world, ["evil.example", "x.evil.example"])
    assert (found["blocked_queries"], found["blocked"], found["entries"]) == (0, [], [])
    (dns,) = (row for row in found["lists"] if row["list"] == "dns")
    assert (dns["kind"], dns["queries"], dns["entries_hit"]) == ("shadow", 2, 1)
    assert "in shadow mode" in world.run("match", world.base / "log").out


def test_packed_logs_and_standard_input(world: World) -> None:
    lines = "".join(f"{WRITTEN['unbound']}\r\n" for _ in range(1000)).encode()
    for packed in (lines, gzip.compress(lines), zstandard.compress(lines)):
        assert matched(world, packed)["blocked_queries"] == 1000
    path = world.base / "log"
    words = [*PROGRAM, "--config", str(world.config), "match", "-", str(path), "--json"]
    done = subprocess.run(words, input=gzip.compress(lines), capture_output=True, check=True)
    found = json.loads(done.stdout)
    assert found["blocked_queries"] == 2000 and [x["file"] for x in found["logs"]] == ["-", str(path)]
    broken = world.base / "broken.gz"
    broken.write_bytes(gzip.compress(lines)[:-20])
    ran = world.run("match", broken)
    assert ran.code == 2 and "ends early" in ran.err


def test_a_log_of_many_blocks_is_read_whole(world: World) -> None:
    line = WRITTEN["bind"].encode() + b"\n"
    count = 40 * 2**20 // len(line)
    found = matched(world, gzip.compress(line * count, 1))
    assert found["queries"] == found["blocked_queries"] == count


def test_entries_that_hit_as_csv_that_a_spreadsheet_may_open(world: World) -> None:
    path = world.base / "names"
    path.write_text("x.evil.example\nevil.example\n192.0.2.200\n")
    ran = world.run("match", path, "--entries", "-")
    rows = list(csv.DictReader(io.StringIO(ran.out)))
    assert [(r["entry"], r["queries"], r["feeds"]) for r in rows] == [
        ("evil.example", "2", "malware second"),
        ("192.0.2.128/25", "1", "malware"),
    ]
    assert "3 lines" in ran.err


@pytest.mark.parametrize(
    "content",
    [
        b"\x00\xff\xfe\n\n\x1b[31mevil.example\n",
        b"a" * 40_000_000,
        b"." * 300 + b"\n..\n-\n//\n//x\nhttp://[::/\nhttp://\n",
        b"x" * 20_000 + b".evil.example\nevil.example\n",
        ("b\u00fccher.example\n\u202eevil.example\n" + "\u0130" * 300 + ".example\n").encode(),
        b'{"query": 5}\n{"query": {"a": 1}}\n{"query": "evil.example"}\n' + b"[" * 9_000 + b"\n",
    ],
    ids=["controls", "one line", "no names", "long name", "foreign", "json"],
)
def test_hostile_logs_end_in_an_answer_or_in_a_sentence(world: World, content: bytes) -> None:
    path = world.base / "hostile"
    path.write_bytes(content)
    ran = world.run("match", path)
    assert ran.code in (0, 2) and "unexpected" not in ran.err and "Traceback" not in ran.text
    assert "\x1b" not in ran.text and "\u202e" not in ran.text


def test_what_cannot_be_read_is_said_with_the_way_out(world: World) -> None:
    for name, content, says in (
        ("empty", "", "empty"),
        ("prose", "It was the best of times\nit was the worst of times\n", "no form"),
        ("keys", '{"colour": "red"}\n', "none of them has a key"),
    ):
        path = world.base / name
        path.write_text(content)
        ran = world.run("match", path)
        assert ran.code == 2 and says in ran.err and "hint" in ran.err, ran.text
    assert "No such file" in world.run("match", world.base / "nowhere").err
    assert "did you mean" in world.run("match", world.base / "empty", "--form", "unbond").err


def test_the_record_is_only_read(world: World) -> None:
    before = world.database.read_bytes(), world.rows("SELECT count(*) FROM run")
    matched(world, ["evil.example"])
    assert (world.database.read_bytes(), world.rows("SELECT count(*) FROM run")) == before
