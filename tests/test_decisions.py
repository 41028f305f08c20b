"""What persons decide: allow, deny, let a hold pass; with whose word, why, and until when."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from installation import World

from blocklist import clock
from blocklist.publish.descriptor import builtin


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.feed("a", ["evil.example", "a.other.example", "b.other.example", "192.0.2.7", "//files.example/x"])
    world.export("list")
    world.export("dns", "rpz")
    world.export("nets", "cidr")
    assert world.update().code == 0
    return world


def test_the_author_is_the_person_behind_sudo(world: World) -> None:
    environment = {**os.environ, "LOGNAME": "blocklist", "USER": "blocklist"}
    assert world.call("deny", "add", "one.example", "--reason", "r", env=environment).code == 0
    assert world.call("deny", "add", "two.example", "--reason", "r", env={**environment, "SUDO_USER": "ann"}).code == 0
    assert world.rows("SELECT author FROM rule ORDER BY id") == [("blocklist",), ("ann",)]
    assert {who for (who,) in world.rows("SELECT who FROM event WHERE what = 'deny added'")} == {"blocklist", "ann"}


def test_an_allow_frees_the_name_and_all_below_it_from_the_next_export(world: World) -> None:
    ran = world.run("allow", "add", "Other.Example.", "--reason", "customer", "--ticket", "INC-7")
    assert ran.code == 0 and "allow other.example and all below it" in ran.out and "covers 2 listed" in ran.out
    assert "next" in ran.out and len(world.exported("list")) == 3
    assert world.run("export").code == 0
    assert world.exported("list") == ["evil.example"]
    answer = world.why("a.other.example")
    assert not answer["blocked"]
    rule = answer["rules"][0]
    assert (rule["action"], rule["what"], rule["reason"], rule["ticket"]) == (
        "allow",
        "other.example",
        "customer",
        "INC-7",
    )
    assert rule["author"] and rule["created"] and rule["until"] is None


def test_an_exact_allow_frees_the_name_alone(world: World) -> None:
    world.run("allow", "add", "evil.example", "--exact", "--reason", "landing page", "--now")
    dns = world.exported("dns")
    assert any(line.startswith("evil.example ") and "rpz-passthru" in line for line in dns)
    assert any(line.startswith("*.evil.example ") and line.endswith(" .") for line in dns)
    assert not world.why("evil.example")["blocked"]
    assert "exact" in world.run("allow", "list").out


@pytest.mark.parametrize("action", ["allow", "deny"])
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("192.0.2.0/28", "a network is all its addresses"),
        ("2001:db8::1", "a network is all its addresses"),
        ("http://shop.example/login", "a URL is that URL alone"),
    ],
)
def test_exact_is_for_names_and_nothing_else_takes_it(world: World, action: str, what: str, said: str) -> None:
    ran = world.run(action, "add", what, "--exact", "--reason", "r")
    assert ran.code == 2 and f"exact is for names, which else stand for all below them; {said}" in ran.err
    assert "hint: leave 'exact' out" in ran.err and world.rows("SELECT count(*) FROM rule") == [(0,)]
    assert world.run(action, "add", what, "--reason", "r").code == 0
    table = world.base / "rules.csv"
    table.write_text(f"what,reason,scope\n{what},r,exact\n")
    ran = world.run(action, "import", table)
    assert ran.code == 2 and f"rules.csv:2: {what}: exact is for names" in ran.err


def test_a_deny_blocks_what_no_feed_lists_and_now_publishes_at_once(world: World) -> None:
    ran = world.run("deny", "add", "mine.example", "--reason", "order 17", "--now")
    assert ran.code == 0 and "mine.example" in world.exported("list")
    assert "published" in ran.out
    answer = world.why("x.mine.example")
    assert answer["blocked"] and answer["rules"][0]["action"] == "deny"


def test_rules_on_networks_and_urls(world: World) -> None:
    ran = world.run("allow", "add", "192.0.2.0/28", "--reason", "own scanners", "--now", "--json")
    assert ran.code in (0, 4)
    world.exports["nets"]["allow_empty"] = True
    world.write()
    assert world.run("export").code == 0
    assert world.exported("nets") == []
    world.run("deny", "add", "198.51.100.0/24", "--reason", "order", "--now")
    assert world.exported("nets") == ["198.51.100.0/24"]
    assert world.why("198.51.100.9")["blocked"]


def test_denies_of_all_of_the_internet_in_parts_are_written_in_parts(world: World) -> None:
    """No target knows /0, and the checkers of those that are here read what is written."""
    made = []
    for fmt in ("cidr", "csv", "ipset", "iptables", "nftables", "pf", "rpz", "squid-dst"):
        options = {"addresses": True, "origin": "rpz.test"} if fmt == "rpz" else {}
        for name, more in ((fmt, {}), (f"{fmt}-split", {"split": "category"})):
            world.export(name, fmt, check="auto", options=options, **more)
            made.append(name)
    for half in ("0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"):
        assert world.run("deny", "add", half, "--reason", "an island").code == 0
    ran = world.run("export", "--json")
    assert [ran.export(name)["error"] for name in made] == [None] * len(made)
    assert world.exported("cidr")[:2] == ["0.0.0.0/1", "128.0.0.0/1"]
    for what, kind in (("192.0.2.77", "ipv4"), ("2001:db8::1", "ipv6")):
        passes = {e["name"] for e in world.why(what)["exports"] if not e["blocked"]}
        assert passes & {name for name in made if kind in builtin()[name.removesuffix("-split")].kinds} == set()


def test_a_rule_for_a_network_says_how_many_listed_ones_it_touches(world: World) -> None:
    ran = world.run("allow", "add", "192.0.2.0/28", "--reason", "own scanners", "--json")
    assert ran.json["covers"] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("0.0.0.0/0", "--reason", "r"), "whole Internet"),
        (("::/0", "--reason", "r"), "whole Internet"),
        (("no name!", "--reason", "r"), "no domain, address, network or URL"),
        (("x.example", "--reason", "  "), "--reason is empty"),
        (("x.example",), "--reason"),
        (("x.example", "--reason", "r", "--until", "2020-01-01"), "in the past"),
        (("x.example", "--reason", "r", "--until", "0"), "in the past"),
        (("x.example", "--reason", "r", "--until", "soon"), "no date and no span"),
        (("x.example", "--reason", "r", "--until", "2026-13-01"), "no date and no span"),
        (("x.example", "--reason", "r", "--until", "999999999y"), "no date and no span"),
        (("x.example", "--reason", "r", "--until", "9999-12-31T23:59:59-14:00"), ""),
    ],
)
def test_a_rule_that_can_not_be_meant_is_refused(world: World, words: tuple[str, ...], said: str) -> None:
    before = world.rows("SELECT count(*) FROM rule")
    for action in ("allow", "deny"):
        ran = world.run(action, "add", *words)
        assert "unexpected" not in ran.err and "Traceback" not in ran.err, ran.err
        if said:
            assert ran.code == 2 and said in ran.err, ran.err
            assert world.rows("SELECT count(*) FROM rule") == before


def test_the_same_rule_twice_is_refused_and_says_how_to_change_it(world: World) -> None:
    world.run("allow", "add", "x.example", "--reason", "r")
    ran = world.run("allow", "add", "X.example", "--reason", "again")
    assert ran.code == 2 and "rule 1 says 'allow x.example' already" in ran.err and "allow remove 1" in ran.err
    assert world.run("allow", "add", "x.example", "--exact", "--reason", "r").code == 0
    assert world.run("deny", "add", "x.example", "--reason", "r").code == 0


def test_until_takes_a_span_a_moment_and_a_day_to_its_end(world: World) -> None:
    now = clock.now()
    day = (datetime.now().astimezone() + timedelta(days=3)).date()
    for name, until in (("span", "30d"), ("day", day.isoformat()), ("moment", (now + timedelta(hours=5)).isoformat())):
        assert world.run("allow", "add", f"{name}.example", "--reason", "r", "--until", until).code == 0
    ends = {name: clock.parse(end) for name, end in world.rows("SELECT name, expires FROM rule")}
    assert abs(ends["span.example"] - now - timedelta(days=30)) < timedelta(minutes=1)
    assert ends["day.example"] == datetime(day.year, day.month, day.day, 23, 59, 59).astimezone(UTC)
    assert ends["moment.example"] == now + timedelta(hours=5)


def test_a_rule_that_ends_changes_the_next_export(world: World) -> None:
    world.run("allow", "add", "other.example", "--reason", "r", "--until", "1d", "--now")
    assert world.exported("list") == ["evil.example"]
    world.change("UPDATE rule SET expires = '2026-01-01T00:00:00Z'")
    assert world.update().export("list")["outcome"] == "published"
    assert len(world.exported("list")) == 3
    assert (
        "0 allow rules" in world.run("allow", "list").out and "1 allow rule" in world.run("allow", "list", "--all").out
    )
    assert world.run("allow", "add", "other.example", "--reason", "again").code == 0


def test_a_removed_rule_stays_in_the_record_with_who_and_why(world: World) -> None:
    world.run("allow", "add", "evil.example", "--reason", "r", "--now")
    assert "evil.example" not in world.exported("list")
    ran = world.run("allow", "remove", "1", "--reason", "no longer a customer", "--now")
    assert ran.code == 0 and "evil.example" in world.exported("list")
    assert world.rows("SELECT removed_reason, removed_by IS NOT NULL, until IS NOT NULL FROM rule") == [
        ("no longer a customer", 1, 1)
    ]
    assert "no longer a customer" in world.run("allow", "list", "--all").out
    events = [row[0] for row in world.rows("SELECT what FROM event ORDER BY id")]
    assert "allow added" in events and "allow removed" in events
    for words in (("allow", "remove", "1"), ("deny", "remove", "1"), ("allow", "remove", "99")):
        again = world.run(*words, "--reason", "r")
        assert again.code == 2 and "there is no" in again.err
    world.assert_sound()


def test_ending_something_needs_a_reason_too(world: World) -> None:
    world.run("allow", "add", "evil.example", "--reason", "r")
    for words in (("allow", "remove", "1"), ("held", "release", "x.example"), ("held", "revoke", "x.example")):
        assert world.run(*words).code == 2
        assert world.run(*words, "--reason", " ").code == 2
    assert world.rows("SELECT count(*) FROM rule WHERE until IS NULL") == [(1,)]


def test_a_rule_can_be_made_before_the_first_update(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("a", ["evil.example"])
    world.export("list")
    assert world.run("deny", "add", "mine.example", "--reason", "r").code == 0
    assert world.update().code == 0
    assert world.exported("list") == ["evil.example", "mine.example"]


def test_lists_are_json_on_request(world: World) -> None:
    world.run("deny", "add", "mine.example", "--reason", "r", "--ticket", "T1")
    listed = world.run("deny", "list", "--json").json
    assert (listed["id"], listed["what"], listed["ticket"], listed["until"]) == (1, "mine.example", "T1", None)


# Holds


@pytest.fixture
def held(world: World) -> World:
    world.set("protect", domains=["evil.example"])
    assert world.update().code == 0
    assert "evil.example" not in world.exported("list")
    return world


def test_a_hold_that_a_person_releases_stays_released_until_it_is_revoked(held: World) -> None:
    ran = held.run("held")
    assert ran.code == 0 and "evil.example" in ran.out and "protect" in ran.out
    ran = held.run("held", "release", "EVIL.example", "--reason", "confirmed", "--now")
    assert ran.code == 0 and "evil.example" in held.exported("list")
    held.lines("a", ["evil.example", "new.example", "192.0.2.7"])
    held.update()
    assert "evil.example" in held.exported("list")
    hold = held.why("evil.example")["holds"][0]
    assert hold["released"] is not None
    assert "evil.example" not in held.run("held", "list").out
    assert "confirmed" in held.run("held", "list", "--released").out
    ran = held.run("held", "revoke", "evil.example", "--reason", "mistaken", "--now")
    assert ran.code == 0 and "evil.example" not in held.exported("list")
    assert held.rows("SELECT reason, revoked_reason FROM hold_release") == [("confirmed", "mistaken")]
    held.assert_sound()


def test_only_what_is_held_can_be_released_and_only_once(held: World) -> None:
    ran = held.run("held", "release", "a.other.example", "--reason", "r")
    assert ran.code == 2 and "is not held" in ran.err
    ran = held.run("held", "revoke", "evil.example", "--reason", "r")
    assert ran.code == 2 and "nobody let" in ran.err
    assert held.run("held", "release", "evil.example", "--reason", "r").code == 0
    ran = held.run("held", "release", "evil.example", "--reason", "r")
    assert ran.code == 2 and "already" in ran.err


def test_the_way_out_that_a_hint_names_works(held: World) -> None:
    hint = held.run("held", "revoke", "evil.example", "--reason", "r").err
    assert "'blocklist held --released'" in hint
    assert held.run("held", "--released").code == 0


def test_a_rule_outranks_a_hold(held: World) -> None:
    held.run("deny", "add", "evil.example", "--reason", "order", "--now")
    assert "evil.example" in held.exported("list")
