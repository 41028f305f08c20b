"""Cases: evidence frozen, the publisher written to, an allow that ends, and the feed that lets go."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from installation import World, call_main

HOSTILE = "evil.example # \x1b[31m\u202e<script>\r"


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.feed(
        "a", ["one.example", HOSTILE, "x.evil.example"], title="List A", publisher="Pub", contact="abuse@a.example"
    )
    world.feed("b", ["evil.example", "two.example"], title="List B", homepage="https://b.example/")
    world.export("list")
    assert world.update().code == 0
    return world


def opened(world: World, *words: object, what: str = "evil.example") -> dict[str, object]:
    ran = world.run("case", "open", what, "--ticket", "INC-7", "--json", *words)
    assert ran.code == 0, ran.text
    return next(o for o in map(json.loads, ran.out.splitlines()) if "ticket" in o)


def test_a_case_keeps_the_evidence_and_says_so_in_the_log(world: World, tmp_path: Path) -> None:
    case = opened(world)
    path = world.state / str(case["bundle"])
    assert hashlib.sha256(path.read_bytes()).hexdigest() == case["sha256"]
    assert call_main("evidence", "check", path, "--sha256", case["sha256"]).code == 0
    log = [json.loads(line) for line in world.run("events", "list", "--json").out.splitlines()]
    told = next(e for e in log if e["what"] == "case opened")["detail"]
    assert (told["case"], told["name"], told["ticket"], told["sha256"]) == (1, "evil.example", "INC-7", case["sha256"])
    assert told["feeds"] == ["a", "b"] and told["allow"] is None
    assert world.run("events", "verify").code == 0 and "evidence of 1" in world.run("doctor").out
    assert "evil.example" in world.exported("list")


def test_the_message_names_list_line_and_copy(world: World) -> None:
    case = opened(world, "--reason", "the shop was cleaned")
    files = {Path(m["file"]).name: m["text"] for m in case["messages"]}  # type: ignore[attr-defined]
    a, b = files["to-a.txt"], files["to-b.txt"]
    assert a.startswith("To: abuse@a.example\nSubject: evil.example in List A (INC-7)\n\nPub,\n")
    assert "line 2 of file:feeds/a.txt" in a and "the shop was cleaned" in a and "line 1 of" in b
    assert hashlib.sha256((world.base / "feeds" / "a.txt").read_bytes()).hexdigest() in a
    assert "no address is known; see https://b.example/" in b and "line 2" not in b
    shown = world.run("case", "show", "1")
    assert a.splitlines()[1] in shown.out and "to-a.txt" in shown.out


def test_hostile_text_reaches_neither_message_nor_terminal(world: World) -> None:
    ran = world.run(
        "case", "open", "evil.example", "--ticket", "T\nBcc: all@victim.example", "--reason", "\x1b]0;x\x07"
    )
    text = (world.state / "cases" / "1" / "to-a.txt").read_text("utf-8")
    for said in (ran.out, text, world.run("case").out, world.run("case", "show", "1").out):
        assert "\x1b" not in said and "\u202e" not in said and "\r" not in said
        assert not any(line.strip().startswith("Bcc:") for line in said.splitlines())
    assert "<script>" in text  # as text, in a text


def test_an_allow_comes_with_it_until_its_end(world: World) -> None:
    case = opened(world, "--allow", "14d", "--now")
    assert case["rule"] == 1 and "evil.example" not in world.exported("list")
    rule = world.why("evil.example")["rules"][0]
    assert (rule["ticket"], rule["reason"]) == ("INC-7", "case 1") and rule["until"] == case["allowed_until"]
    assert "allow added" in world.run("events", "list").out and world.run("events", "verify").code == 0


def test_it_closes_itself_only_when_every_feed_let_go(world: World) -> None:
    opened(world, "--allow", "14d")
    world.lines("a", ["one.example", "x.evil.example"])
    assert world.update("--force").json["cases"] == []
    assert "b" in world.run("case", "list").out
    world.lines("b", ["two.example"])
    ran = world.update("--force")
    assert ran.json["cases"] == [
        {"id": 1, "name": "evil.example", "ticket": "INC-7", "closed": "no longer listed by a, b"}
    ]
    assert world.run("case", "list", "--json").out == ""
    (row,) = [json.loads(line) for line in world.run("case", "list", "--all", "--json").out.splitlines()]
    assert row["closed_reason"] == "no longer listed by a, b" and not any(c["listed"] for c in row["cited"])
    assert world.rows("SELECT removed FROM rule") == [(None,)]
    assert world.rows("SELECT count(*) FROM event WHERE what = 'case closed'") == [(1,)]
    assert world.update("--force").json["cases"] == [] and world.run("events", "verify").code == 0


def test_the_screen_of_the_update_says_which_case_closed(world: World) -> None:
    opened(world, what="two.example")
    world.lines("b", ["evil.example"])
    assert "case 1 (two.example, INC-7) closed: no longer listed by b" in world.run("update", "--force").out


def test_a_feed_that_is_disabled_lets_go_and_is_named_so(world: World) -> None:
    opened(world, what="two.example")
    del world.feeds["b"]
    world.write()
    assert world.update().json["cases"][0]["closed"] == "no longer listed by b (no longer in use)"


def test_a_feed_that_fails_lets_nothing_go(world: World) -> None:
    opened(world, what="two.example")
    (world.base / "feeds" / "b.txt").unlink()
    assert world.update("--force").json["cases"] == []


def test_what_covers_the_name_is_what_the_case_waits_for(world: World) -> None:
    case = opened(world, what="shop.www.evil.example")
    assert {c["indicator"] for c in case["cited"]} == {"evil.example"}  # type: ignore[attr-defined]
    assert "or what covers it" in case["messages"][0]["text"]  # type: ignore[index]


def test_a_person_closes_it_and_may_end_the_allow(world: World) -> None:
    opened(world, "--allow", "14d", "--now")
    ran = world.run("case", "close", "1", "--reason", "the publisher is right", "--end-allow", "--now")
    assert ran.code == 0 and "evil.example" in world.exported("list")
    assert world.rows("SELECT removed_reason FROM rule") == [("case 1 closed: the publisher is right",)]
    again = world.run("case", "close", "1", "--reason", "x")
    assert again.code == 2 and "was closed" in again.err
    assert world.run("events", "verify").code == 0


def test_without_end_allow_the_allow_stays_and_it_is_said(world: World) -> None:
    opened(world, "--allow", "14d")
    assert "allows it until" in world.run("case", "close", "1", "--reason", "solved").out
    assert world.rows("SELECT removed FROM rule") == [(None,)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("open", "nowhere.example", "--ticket", "T"), "no feed lists nowhere.example"),
        (("open", "evil.example", "--ticket", " "), "--ticket is empty"),
        (("open", "evil.example"), "ticket"),
        (("open", "evil.example", "--ticket", "T", "--now"), "--allow"),
        (("open", "evil.example", "--ticket", "T", "--allow", "soon"), "--allow 'soon' is no date"),
        (("open", "evil.example", "--ticket", "T", "--allow", "2020-01-01"), "--allow '2020-01-01' lies in the past"),
        (("open", "no name", "--ticket", "T"), "no domain"),
        (("close", "9", "--reason", "x"), "no case 9"),
        (("show", "9"), "no case 9"),
    ],
)
def test_what_can_not_be_a_case_is_refused_in_words(world: World, words: tuple[str, ...], said: str) -> None:
    before = world.rows("SELECT count(*) FROM event")
    ran = world.run("case", *words)
    assert ran.code == 2 and said in ran.err, ran.text
    assert world.rows("SELECT count(*) FROM event") == before and not (world.state / "cases").exists()


def test_one_s_own_deny_is_no_case_but_has_a_way_out(world: World) -> None:
    world.run("deny", "add", "mine.example", "--reason", "order")
    ran = world.run("case", "open", "mine.example", "--ticket", "T")
    assert ran.code == 2 and "deny remove 1" in ran.err


def test_the_same_ticket_is_not_opened_twice_nor_allowed_twice(world: World) -> None:
    opened(world, "--allow", "14d")
    assert "case 1 is open" in world.run("case", "open", "evil.example", "--ticket", "INC-7").err
    ran = world.run("case", "open", "evil.example", "--ticket", "INC-8", "--allow", "1d")
    assert ran.code == 2 and "allows evil.example already" in ran.err
    assert world.rows("SELECT count(*) FROM case_file") == [(1,)] and world.rows("SELECT count(*) FROM rule") == [(1,)]
    assert world.run("case", "open", "evil.example", "--ticket", "INC-8").code == 0


def test_altered_evidence_of_a_case_is_caught_by_doctor(world: World) -> None:
    case = opened(world)
    path = world.state / str(case["bundle"])
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    ran = world.run("doctor")
    assert ran.code == 1 and "case 1: its evidence is not what was kept" in ran.out
    assert "altered" in world.run("case", "show", "1").err
    path.unlink()
    assert "can't be read" in world.run("doctor").out


def test_a_pipe_in_the_place_of_evidence_keeps_nobody_waiting(world: World) -> None:
    path = world.state / str(opened(world)["bundle"])
    for one in (path, *path.parent.glob("to-*.txt")):
        one.unlink()
        os.mkfifo(one)
    ran = world.run("doctor")
    assert ran.code == 1 and "its evidence can't be read: it is a pipe, not a file" in ran.out
    ran = world.run("case", "show", "1")
    assert ran.code == 1 and "is a pipe, not a file" in ran.err


def test_a_case_after_a_restore_leaves_the_evidence_of_later_ones_alone(world: World) -> None:
    opened(world)
    backup = world.database.read_bytes()
    later = world.run("case", "open", "two.example", "--ticket", "INC-8", "--json").json
    kept = (world.state / str(later["bundle"])).read_bytes()
    world.database.write_bytes(backup)
    case = world.run("case", "open", "evil.example", "--ticket", "INC-9", "--json").json
    assert case["id"] == 3 and (world.state / str(later["bundle"])).read_bytes() == kept
    assert world.run("case", "show", "3").code == 0
