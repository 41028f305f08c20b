"""Verification through the command line, against DNS servers on loopback: verdicts, death and return."""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.message
import dns.rcode
import dns.rrset
import pytest
from installation import World

from blocklist.verify.loopback import LoopbackServer, serving

LIVE = {"control.example": ["192.0.2.53"], "live.example": ["192.0.2.1"], "nodata.example": []}


class Lying(LoopbackServer):
    """Rewrites NXDOMAIN into the address of an advertiser."""

    def respond(self, query: dns.message.Message) -> dns.message.Message:
        response = super().respond(query)
        if response.rcode() == dns.rcode.NXDOMAIN:
            response.set_rcode(dns.rcode.NOERROR)
            response.authority = []
            question = query.question[0]
            if question.rdtype == 1:
                response.answer.append(dns.rrset.from_text(question.name, 60, "IN", "A", "192.0.2.66"))
        return response


class Broken(LoopbackServer):
    """Answers SERVFAIL for names below broken.example."""

    def respond(self, query: dns.message.Message) -> dns.message.Message:
        response = super().respond(query)
        if "broken" in query.question[0].name.to_text().lower():
            response.answer, response.authority = [], []
            response.set_rcode(dns.rcode.SERVFAIL)
        return response


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    server = Broken(LIVE)
    with serving(server):
        yield server


@pytest.fixture
def world(tmp_path: Path, server: LoopbackServer) -> World:
    world = World(tmp_path)
    world.feed("a", ["live.example", "gone.example", "nodata.example", "broken.example", "192.0.2.1"])
    world.policies["default"] = {"dead": "drop"}
    world.export("list")
    ask(world, server)
    return world


def ask(world: World, *servers: LoopbackServer, **keys: Any) -> None:
    control = {"exists": ["control.example"], "missing": "example"}
    resolvers = [f"127.0.0.1:{s.port}" for s in servers]
    world.set("verify", resolvers=resolvers, control=control, timeout=0.5, attempts=2, **keys)


def verdicts(world: World) -> dict[str, str]:
    return dict(world.rows("SELECT name, status FROM verdict ORDER BY name"))


def shift(world: World, days: int) -> None:
    """Let `days` go by for what was learned."""
    for column in ("since", "checked", "first_nxdomain"):
        world.change(
            f"UPDATE verdict SET {column} = strftime('%Y-%m-%dT%H:%M:%SZ', {column}, '-{days} days') "
            f"WHERE {column} IS NOT NULL"
        )


def test_an_update_verifies_what_it_has_just_listed(world: World) -> None:
    ran = world.run("update")
    assert ran.code == 0 and "verified 4 names" in ran.out
    assert verdicts(world) == {
        "broken.example": "broken",
        "gone.example": "nxdomain",
        "live.example": "live",
        "nodata.example": "nodata",
    }
    assert world.why("gone.example")["verdict"]["status"] == "nxdomain"
    assert not world.why("gone.example")["verdict"]["dead"]
    assert world.rows("SELECT dead FROM verdict WHERE dead") == []
    again = world.run("update")
    assert "none was due" in again.out or "verified 0" in again.out
    world.assert_sound()


def test_verify_says_what_it_learned_as_the_contract_says(world: World, server: LoopbackServer) -> None:
    world.update("--no-verify")
    assert verdicts(world) == {}
    summary = world.run("verify", "--json").json
    assert summary["checked"] == 4 and summary["verdicts"] == {"broken": 1, "live": 1, "nodata": 1, "nxdomain": 1}
    assert summary["queries"] > 4 and summary["seconds"] > 0 and summary["rate"] > 0
    assert summary["resolvers"][0]["address"] == f"127.0.0.1:{server.port}"
    assert set(summary["resolvers"][0]) == {"address", "sent", "lost", "dropped", "keeps_case", "miscased"}


def test_a_name_denied_three_times_over_a_week_is_dropped_and_comes_back_when_it_answers(
    world: World, server: LoopbackServer
) -> None:
    world.update()
    for days, dead in ((2, False), (3, False), (6, True)):
        shift(world, days)
        ran = world.update()
        assert ran.code == 0
        assert ("gone.example" not in world.exported("list")) == dead, days
    assert world.rows("SELECT name, strikes FROM verdict WHERE dead") == [("gone.example", 4)]
    answer = world.why("gone.example")
    assert not answer["blocked"] and answer["verdict"]["dead"] and "dead" in answer["exports"][0]["because"]
    assert {"nodata.example", "broken.example", "live.example"} <= set(world.exported("list"))
    server.table = {**LIVE, "gone.example": ["192.0.2.9"]}
    ran = world.run("verify", "gone.example")
    assert ran.code == 0 and "1 came back" in ran.out
    assert world.run("export").code == 0
    assert "gone.example" in world.exported("list")
    closed = world.rows("SELECT name, status, dead FROM verdict_closed")
    assert closed == [("gone.example", "nxdomain", 1)]
    assert world.rows("SELECT 1 FROM verdict_closed WHERE since >= until") == []


def test_three_denials_within_a_day_are_no_death(world: World) -> None:
    world.update()
    for _ in range(3):
        assert world.run("verify", "--all").code == 0
    assert world.rows("SELECT strikes, dead FROM verdict WHERE name = 'gone.example'") == [(4, 0)]


def test_the_word_of_the_names_own_server_is_no_death(world: World, server: LoopbackServer) -> None:
    import dns.name

    server.zones = [dns.name.from_text("gone.example")]
    world.lines("a", ["live.example", "host.gone.example"])
    world.update()
    for days in (4, 4, 4, 9):
        shift(world, days)
        world.update()
    assert verdicts(world)["host.gone.example"] == "nxdomain"
    assert "host.gone.example" in world.exported("list")


def test_silence_is_no_news(world: World, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    world.update()
    ask(world, server, limit=10)
    before = verdicts(world)
    monkeypatch.setattr(server, "reply", lambda data, tcp: None)  # a server that has fallen silent
    ran = world.run("verify", "--all")
    assert ran.code == 1 and "does not answer" in ran.err and "nothing was verified" in ran.err
    assert verdicts(world) == before


def test_without_resolvers_an_update_says_so_and_goes_on(world: World) -> None:
    world.tables.clear()
    world.write()
    ran = world.run("update")
    assert ran.code == 0 and "no resolvers are configured" in ran.out
    ran = world.run("verify")
    assert ran.code == 1 and "no resolvers" in ran.err and "verify.resolvers" in ran.err


def test_a_lying_resolver_is_dropped_and_the_honest_one_is_asked(world: World, server: LoopbackServer) -> None:
    liar = Lying(LIVE)
    with serving(liar):
        ask(world, liar, server)
        ran = world.run("update")
        assert ran.code == 0 and "was dropped" in ran.err and "rewritten NXDOMAIN" in ran.err
        assert f"127.0.0.1:{liar.port}" in ran.err
        assert verdicts(world)["gone.example"] == "nxdomain"
        ask(world, liar)
        world.lines("a", ["live.example", "gone.example", f"{secrets.token_hex(4)}.example"])
        ran = world.run("update")
        assert ran.code == 0 and "not verified" in ran.err and "can be trusted" in ran.err
        assert len(world.exported("list")) == 3


def test_a_dead_resolver_is_dropped_with_the_reason(world: World, server: LoopbackServer) -> None:
    world.update("--no-verify")
    ran = world.run("verify", "--resolver", "127.0.0.1:1", "--resolver", f"127.0.0.1:{server.port}")
    assert ran.code == 0 and "127.0.0.1:1 was dropped" in ran.err
    assert len(verdicts(world)) == 4


class Fading(LoopbackServer):
    """Falls silent after so many questions."""

    faith = 60

    def reply(self, data: bytes, *, tcp: bool) -> bytes | None:
        return super().reply(data, tcp=tcp) if self.queries <= self.faith else None


def test_a_quorum_that_is_lost_on_the_way_kills_no_name(world: World, server: LoopbackServer) -> None:
    gone = [f"g{number}.example" for number in range(400)]
    world.lines("a", gone)
    world.update("--no-verify")
    for days in (0, 4, 4):
        shift(world, days)
        fading = Fading(LIVE)
        with serving(fading):
            control = {"exists": ["control.example"], "missing": "example"}
            resolvers = [f"127.0.0.1:{s.port}" for s in (fading, server)]
            world.set("verify", resolvers=resolvers, control=control, timeout=0.2, attempts=2, rate=4000)
            ran = world.run("verify", "--all")
        assert ran.code == 0 and "quorum can't be reached: it takes 2 resolvers" in ran.err
        assert f"127.0.0.1:{server.port} alone is left" in ran.err and "none of them died" in ran.err
    unknown = world.rows("SELECT count(*) FROM verdict WHERE status = 'unknown'")[0][0]
    assert unknown > 300
    # Three denials over eight days, but only by the words of two.
    dead = world.rows("SELECT resolver FROM verdict WHERE dead")
    assert all(" " in resolver for (resolver,) in dead) and len(dead) < 100


def test_a_single_resolver_left_by_the_test_decides_alone_and_that_is_said(
    world: World, server: LoopbackServer
) -> None:
    world.update("--no-verify")
    liar = Lying(LIVE)
    with serving(liar):
        ask(world, liar, server)
        ran = world.run("verify")
        assert ran.code == 0 and "one resolver could be asked: its word alone decided" in ran.err
        summary = world.run("verify", "--all", "--json").json
    assert summary["quorum"] == 1 and summary["short"] is None


def test_a_limit_leaves_the_rest_due(world: World) -> None:
    world.update("--no-verify")
    assert world.run("verify", "--limit", "2", "--json").json["checked"] == 2
    assert len(verdicts(world)) == 2
    assert world.run("verify", "--json").json["checked"] == 2
    assert world.run("verify", "--json").json["checked"] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--budget", "soon"), "duration"),
        (("--limit", "0"), "0"),
        (("--due", "--all"), "--due"),
        (("--vantages", "2"), "--scheduler"),
        (("--scheduler", "192.0.2.7:8786"), "is no scheduler"),
        (("not a name",), "not a domain name"),
        (("--resolver", "resolver.example"), "not an IP address"),
        (("--resolver", "192.0.2.1:99999"), "not a port"),
    ],
)
def test_a_mistake_is_a_message(world: World, words: tuple[str, ...], said: str) -> None:
    world.update("--no-verify")
    ran = world.run("verify", *words)
    assert ran.code in (1, 2) and said in ran.err and "Traceback" not in ran.err and "unexpected" not in ran.err


def test_a_resolver_that_is_none_is_a_mistake_in_the_configuration(world: World) -> None:
    world.set("verify", resolvers=["dns.example"])
    ran = world.run("update")
    assert ran.code == 1 and "verify.resolvers" in ran.err and "not an IP address" in ran.err


def test_names_that_more_feeds_list_are_asked_first(world: World) -> None:
    world.feed("b", ["nodata.example", "live.example"])
    world.feed("c", ["nodata.example"])
    world.update("--no-verify")
    assert world.run("verify", "--limit", "1").code == 0
    assert list(verdicts(world)) == ["nodata.example"]


def test_what_a_list_costs_a_day_is_said(world: World) -> None:
    world.update("--no-verify")
    ran = world.run("verify")
    assert "queries a day" in ran.out
    summary = world.run("verify", "--all", "--json").json
    assert 0 < summary["daily"] <= 2 * summary["queries"]


def test_a_killed_run_keeps_what_it_learned_and_the_next_asks_only_the_rest(
    world: World, server: LoopbackServer
) -> None:
    names = [f"h{number}.example" for number in range(6000)]
    server.table = {"control.example": ["192.0.2.53"], **{name: ["192.0.2.1"] for name in names}}
    world.lines("a", names)
    ask(world, server, rate=3000)
    world.update("--no-verify")
    command = [sys.executable, "-m", "blocklist", "--config", str(world.config), "verify"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        for _ in range(600):
            learned = len(verdicts(world))
            if learned or process.poll() is not None:
                break
            time.sleep(0.05)
        process.kill()
    assert 0 < learned < 6000
    learned = len(verdicts(world))
    server.queries = 0
    ran = world.run("verify", "--json").json
    assert ran["checked"] == 6000 - learned
    assert 2 * (6000 - learned) <= server.queries < 2.2 * (6000 - learned) + 200
    assert len(verdicts(world)) == 6000
    world.assert_sound()


def test_sinkholed_and_parked_names_are_told_by_reference_feeds(world: World, server: LoopbackServer) -> None:
    server.table = {**LIVE, "sunk.example": ["198.51.100.66"], "parked.example": ["198.51.100.99"]}
    world.lines("a", ["live.example", "sunk.example", "parked.example"])
    world.feed("sinks", ["198.51.100.64/28"], category="reference", action="sinkhole")
    world.feed("parks", ["198.51.100.99"], category="reference", action="parking")
    world.update()
    assert verdicts(world) == {"live.example": "live", "parked.example": "parked", "sunk.example": "sinkholed"}
    answer = world.why("sunk.example")
    assert answer["verdict"]["detail"] == "198.51.100.66: sinks, line 1" and answer["blocked"]
    assert "sinkholed (198.51.100.66: sinks, line 1)" in world.run("why", "sunk.example").out
    # It lives again: the interval before keeps how it was known.
    server.table = {**LIVE, "sunk.example": ["192.0.2.1"]}
    assert world.run("verify", "sunk.example").code == 0
    closed = world.rows("SELECT name, status, detail FROM verdict_closed")
    assert closed == [("sunk.example", "sinkholed", "198.51.100.66: sinks, line 1")]


def test_a_resolver_that_loads_this_very_list_answers_its_canary(world: World, server: LoopbackServer) -> None:
    world.set(
        "verify",
        resolvers=[f"127.0.0.1:{server.port}"],
        control={"exists": ["control.example"], "missing": "example", "canaries": ["canary.example"]},
        timeout=0.5,
        attempts=2,
    )
    ran = world.run("verify", "live.example")
    assert ran.code == 1 and "blocks the canary canary.example: it loads this very list" in ran.err
    server.table = {**LIVE, "canary.example": ["192.0.2.8"]}
    assert world.run("verify", "live.example").code == 0
