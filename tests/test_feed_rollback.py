"""One feed back to an earlier snapshot: it stands there, the others go on, and nothing else is different."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from feedserver import FeedServer, Script, Talk
from installation import KILLER, PROGRAM, Ran, World, names

from blocklist import clock
from blocklist.repair import decided
from blocklist.store import snapshots

GOOD = [*names(300), "gone.example"]
BAD = [*names(295), "news.example", "bank.example"]
BECAUSE = ("--reason", "taken over", "--ticket", "INC-7")


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A feed that was taken over within its gate, and one that goes on."""
    world = World(tmp_path)
    world.feed("bad", GOOD)
    world.feed("other", names(50, zone="other.example"))
    world.export("list")
    world.export("dns", "rpz")
    world.set("gates", max_change=2.0)
    assert world.update().code == 0
    world.lines("bad", BAD)
    assert world.update().code == 0
    assert "news.example" in world.exported("list")
    return world


def rolled_back(world: World, *words: object, code: int = 0) -> Ran:
    ran = world.run("feeds", "rollback", "bad", *BECAUSE, *words, "--json")
    assert ran.code == code, ran.text
    return ran


def first(world: World, feed: str = "bad") -> int:
    """The first snapshot of a feed."""
    number: int = world.rows("SELECT min(s.id) FROM snapshot s JOIN feed f ON f.id = s.feed WHERE f.name = ?", feed)[0][
        0
    ]
    return number


def last(world: World, feed: str = "bad") -> tuple[int, str]:
    """The newest snapshot of a feed, and its state."""
    row: tuple[int, str] = world.rows(
        "SELECT s.id, s.state FROM snapshot s JOIN feed f ON f.id = s.feed WHERE f.name = ? ORDER BY s.id DESC LIMIT 1",
        feed,
    )[0]
    return row


def everything(world: World) -> tuple[list[str], dict[str, str]]:
    """The record as SQL, and the digest of every other file but what SQLite and the lock leave."""
    with contextlib.closing(sqlite3.connect(f"{world.database.as_uri()}?mode=ro", uri=True)) as db:
        dump = list(db.iterdump())
    files = {
        str(path.relative_to(world.base)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(world.base.rglob("*"))
        if path.is_file() and not path.name.startswith(("record.db", "lock"))
    }
    return dump, files


# There, and staying there


def test_it_goes_back_and_stays_while_the_others_go_on(world: World) -> None:
    ran = rolled_back(world)
    assert ran.json["feed"]["outcome"] == "pinned"
    assert (ran.json["feed"]["added"], ran.json["feed"]["removed"]) == (6, 2)
    assert world.listed("bad") == sorted(GOOD)
    assert "news.example" in world.exported("list"), "published by the next run"
    world.lines("bad", [*BAD, "more.example"])
    world.lines("other", names(60, zone="other.example"))
    for _ in range(2):
        ran = world.update()
        assert ran.code == 0 and ran.feed("bad")["outcome"] == "pinned"
        assert world.listed("bad") == sorted(GOOD) and len(world.listed("other")) == 60
        assert world.exported("list") == sorted([*GOOD, *names(60, zone="other.example")])
    # The last that came is kept, once.
    number, state = last(world)
    assert state == "gated" and f"waits as snapshot {number}" in ran.feed("bad")["note"]
    assert world.run("feeds", "show", "bad", "--gated", "-o", world.base / "came").code == 0
    assert (world.base / "came").read_text().endswith("more.example\n")
    world.lines("bad", GOOD)
    assert world.update().feed("bad")["outcome"] == "pinned"
    assert world.rows("SELECT 1 FROM snapshot WHERE state = 'gated'") == [], "the publisher went back by itself"
    world.assert_sound()
    assert world.left_over() == []


def test_every_screen_says_so(world: World) -> None:
    rolled_back(world, "--now")
    world.update()
    said = f" to snapshot {first(world)} of "
    pin = world.update().feed("bad")["pinned"]
    assert (pin["snapshot"], pin["reason"], pin["ticket"]) == (first(world), "taken over", "INC-7")
    assert set(pin) == {"snapshot", "taken", "since", "author", "reason", "ticket"}
    for words in (
        ("update",),
        ("status",),
        ("feeds", "show", "bad"),
        ("why", "gone.example"),
        ("doctor",),
        ("report", "--format", "md", "-o", "-"),
    ):
        ran = world.run(*words)
        assert ran.code == 0, ran.text
        assert said in ran.out and "taken over (INC-7)" in ran.out, (words, ran.out)
    assert "* bad" in world.run("feeds", "list").out
    assert any("pinned 301" in line for line in world.run("feeds", "list").out.splitlines())
    state, *_ = (json.loads(line) for line in world.run("status", "--json").out.splitlines())
    assert (state["state"], state["pinned"], state["error"]) == ("pinned", pin, None)
    listed = [json.loads(line) for line in world.run("feeds", "list", "--json").out.splitlines()]
    assert [x["pinned"] for x in listed if x["enabled"]] == [pin, None]
    shown = world.run("feeds", "show", "bad", "--json").json
    assert (shown["pinned"], shown["outcome"]) == (pin, "pinned")
    assert "the feed stands at it" in world.run("feeds", "show", "bad", "--all").out
    note = "what these feeds list now is not known: bad (pinned)"
    assert any(text.startswith(note) for text in world.why("news.example")["notes"])
    ran = world.run("update", "--accept", "bad")
    assert ran.code == 2 and "nothing was run" in ran.err and "feeds unpin bad" in ran.err
    assert "feed rolled back to snapshot" in world.run("history", "news.example").out
    events = [json.loads(line) for line in world.run("events", "list", "--json").out.splitlines()]
    told = next(e for e in events if e["what"] == "feed rolled back")["detail"]
    assert (told["feed"], told["snapshot"], told["reason"], told["ticket"]) == (
        "bad", first(world), "taken over", "INC-7",
    )  # fmt: skip


def test_unpinned_it_takes_in_what_waits_at_once(world: World) -> None:
    rolled_back(world)
    world.lines("bad", [*BAD, "more.example"])
    world.update()
    ran = world.run("feeds", "unpin", "bad", "--reason", "well again", "--now")
    assert ran.code == 0 and "+3 listed: bank.example, more.example, news.example" in ran.out
    assert world.listed("bad") == sorted([*BAD, "more.example"]) and "more.example" in world.exported("list")
    state, *_ = (json.loads(line) for line in world.run("status", "--json").out.splitlines())
    assert (state["state"], state["pinned"]) == ("updated", None)
    ran = world.update()
    assert ran.feed("bad")["outcome"] == "unchanged" and ran.feed("bad")["pinned"] is None
    assert world.run("feeds", "unpin", "bad", "--reason", "r").code == 2
    assert world.run("events", "verify").code == 0
    world.assert_sound()


def test_unpinned_what_waits_comes_to_its_gate_like_any_other(world: World) -> None:
    rolled_back(world)
    world.lines("bad", names(20))
    ran = world.update()
    assert ran.code == 0 and "its gate would hold" in ran.feed("bad")["note"]
    before = everything(world)
    ran = world.run("feeds", "unpin", "bad", "--reason", "well", "--dry-run")
    assert ran.code == 3 and "waits at its gate: 20 entries" in ran.err
    assert everything(world) == before
    ran = world.run("feeds", "unpin", "bad", "--reason", "well")
    assert ran.code == 3 and world.listed("bad") == sorted(GOOD)
    ran = world.update()
    assert ran.code == 3 and ran.feed("bad")["outcome"] == "gated" and ran.feed("bad")["pinned"] is None
    assert world.update("--accept", "bad").code == 0 and world.listed("bad") == names(20)


def test_bytes_that_waited_and_are_lost_do_not_keep_it_pinned(world: World) -> None:
    rolled_back(world)
    world.update()
    number, state = last(world)
    assert state == "gated"
    snapshots.file_of(world.state, number).unlink()
    assert world.run("feeds", "unpin", "bad", "--reason", "well").code == 0
    assert world.update().code == 0 and world.listed("bad") == sorted(BAD)


def test_a_dry_run_tells_of_the_lists_and_changes_nothing(world: World) -> None:
    before = everything(world)
    ran = world.run("feeds", "rollback", "bad", *BECAUSE, "--dry-run")
    assert ran.code == 0 and "dry run: nothing was changed" in ran.out
    assert "−2 no longer listed: bank.example, news.example" in ran.out
    assert "list: 347 entries → 351 (+6 −2 entries)" in ran.out and "publish it with" not in ran.out
    assert everything(world) == before
    told = rolled_back(world, "--dry-run").json
    assert told["dry_run"] and {e["name"]: (e["added"], e["removed"]) for e in told["exports"]} == {
        "list": (6, 2), "dns": (6, 2),
    }  # fmt: skip
    assert everything(world) == before
    # The next run gives the same numbers away, to another feed.
    world.lines("other", names(55, zone="other.example"))
    assert world.update().code == 0
    assert world.exported("list") == sorted([*BAD, *names(55, zone="other.example")])


# Where to


def test_to_a_number_to_a_date_and_further_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    world.set("gates", max_change=5.0)
    world.export("list")
    start = datetime(2026, 3, 1, 6, tzinfo=UTC)
    world.feed("bad", [])
    for day in range(6):
        monkeypatch.setattr(clock, "now", lambda day=day: start + timedelta(days=day))
        world.lines("bad", [*names(10), f"day{day}.example"])
        world.update()
    ids = [row[0] for row in world.rows("SELECT id FROM snapshot ORDER BY id")]

    def stands_at() -> tuple[int, str]:
        (pin,) = world.rows("SELECT snapshot FROM feed_pin WHERE until IS NULL")
        (day,) = (name for name in world.listed() if name.startswith("day"))
        return pin[0], day

    rolled_back(world)
    assert stands_at() == (ids[4], "day4.example")
    rolled_back(world)
    assert stands_at() == (ids[3], "day3.example"), "from where it stands"
    rolled_back(world, "--to", ids[1])
    assert stands_at() == (ids[1], "day1.example")
    rolled_back(world, "--at", "2026-03-03T06:00Z")
    assert stands_at() == (ids[2], "day2.example")
    rolled_back(world, "--at", "2026-03-03T05:59Z")
    assert stands_at() == (ids[1], "day1.example")
    assert world.rows("SELECT count(*) FROM feed_pin WHERE until IS NOT NULL") == [(4,)]
    assert world.run("events", "verify").code == 0
    # As of then, pins of then.
    monkeypatch.setattr(clock, "now", lambda: start + timedelta(days=7))
    assert world.run("feeds", "unpin", "bad", "--reason", "well").code == 0
    then = world.run("why", "day1.example", "--at", "2026-03-06T06:00Z", "--json").json
    assert any("pinned to snapshot" in note for note in then["notes"]) and then["listings"]
    assert not world.run("why", "h00001.evil.example", "--at", "2026-03-05T06:00Z", "--json").json["notes"]
    assert world.run("feeds", "rollback", "bad", "--at", "2026-02-01", "--reason", "r").code == 1
    world.assert_sound()


def test_lists_that_were_put_back_themselves_are_named(world: World) -> None:
    assert world.run("release", "rollback", "dns", "--reason", "at once").code == 0
    ran = world.run("feeds", "rollback", "bad", *BECAUSE, "--now")
    assert ran.code == 0 and "news.example" not in world.exported("list")
    assert "dns is pinned to release" in ran.err and "'blocklist release unpin dns'" in ran.err
    assert "list is pinned" not in ran.err


def test_to_what_it_has_it_is_only_held(world: World) -> None:
    now = last(world)[0]
    ran = rolled_back(world, "--to", now)
    assert ran.json["feed"]["note"] == "it is what it lists already" and last(world)[0] == now
    world.lines("bad", GOOD)
    world.update()
    assert world.listed("bad") == sorted(BAD)


def test_what_waited_at_the_gate_goes_and_what_comes_next_waits(world: World) -> None:
    world.lines("bad", names(10))
    assert world.update().code == 3
    waiting = last(world)[0]
    ran = rolled_back(world, "--to", waiting, code=2)
    assert "was never taken in: 10 entries" in ran.err
    rolled_back(world)
    assert world.rows("SELECT state FROM snapshot WHERE id = ?", waiting) == [("superseded",)]
    assert world.update().code == 0 and last(world)[1] == "gated" and world.listed("bad") == sorted(GOOD)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("nobody",), 2, "no feed 'nobody'"),
        (("cert-pl",), 2, "'blocklist feeds enable cert-pl' enables it"),
        (("never",), 2, "nothing was ever taken in from never"),
        (("bad", "--to", "999"), 2, "bad has no snapshot 999"),
        (("bad", "--to", "9" * 30), 2, "bad has no snapshot 999"),
        (("bad", "--to", "1", "--at", "now"), 2, "not both"),
        (("bad", "--dry-run", "--now"), 2, "leave out --now"),
        (("bad", "--at", "2999-01-01"), 2, "lies in the future"),
        (("bad", "--at", "last week"), 2, "is no date"),
        (("still",), 2, "has no snapshot before the one of"),
    ],
    ids=lambda x: "-".join(x) if isinstance(x, tuple) else "",
)
def test_mistakes_are_told_with_a_way_out_and_record_nothing(
    world: World, words: tuple[str, ...], code: int, says: str
) -> None:
    world.feed("still", ["still.example"])
    world.update()
    world.feed("never", ["never.example"])
    before = everything(world)
    ran = world.run("feeds", "rollback", *words, "--reason", "r")
    assert ran.code == code and says in ran.err and "Traceback" not in ran.text, ran.text
    assert everything(world) == before


def test_of_another_feed_of_no_record_and_without_a_reason(world: World, tmp_path: Path) -> None:
    ran = rolled_back(world, "--to", first(world, "other"), code=2)
    assert f"bad has no snapshot {first(world, 'other')}" in ran.err
    assert world.run("feeds", "rollback", "bad", "--reason", " ").code == 2
    assert world.run("feeds", "rollback", "bad").code == 2
    empty = World(tmp_path / "empty")
    empty.base.mkdir()
    empty.feed("bad", GOOD)
    for words in (("rollback",), ("unpin",)):
        ran = empty.run("feeds", *words, "bad", "--reason", "r")
        assert ran.code == 2 and "there is no record yet" in ran.err
    assert not empty.database.exists()


def test_damaged_and_lost_bytes_are_named_and_nothing_is_recorded(world: World) -> None:
    before = everything(world)
    path = snapshots.file_of(world.state, first(world))
    data = path.read_bytes()
    for harm in (data[: len(data) // 2], b"", None):
        if harm is None:
            path.unlink()
        else:
            path.write_bytes(harm)
        ran = rolled_back(world, code=3)
        assert str(path) in ran.err and "can't be read" in ran.err
        assert everything(world)[0] == before[0]
    path.write_bytes(data)
    rolled_back(world)


def test_of_pruned_ones_the_nearest_that_is_kept_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    world.set("keep", snapshots="14d", history="90d")
    start = datetime(2026, 3, 1, 6, tzinfo=UTC)
    world.feed("bad", [])
    world.export("list")
    for day in range(30):
        monkeypatch.setattr(clock, "now", lambda day=day: start + timedelta(days=day))
        world.lines("bad", [f"# day {day}", *names(10)])
        world.update()
    ids = [row[0] for row in world.rows("SELECT id FROM snapshot ORDER BY id")]
    rolled_back(world, "--to", ids[3])
    for day in (60, 61, 62):  # what stands is kept, however old it is
        monkeypatch.setattr(clock, "now", lambda day=day: start + timedelta(days=day))
        world.update()
    assert world.run("prune", "--trust-clock").code == 0
    kept = [row[0] for row in world.rows("SELECT id FROM snapshot WHERE stored > 0 ORDER BY id")]
    assert ids[3] in kept and ids[5] not in kept
    ran = rolled_back(world, "--to", ids[5], code=2)
    assert "are pruned" in ran.err and f"the nearest that is kept: --to {ids[3]}" in ran.err
    rolled_back(world, "--to", ids[3])
    assert world.run("doctor", "--deep").code == 0


# What else was changed meanwhile


def test_it_is_read_as_the_configuration_says_now(world: World) -> None:
    world.feeds["bad"]["scope"] = "subtree"
    world.write()
    ran = rolled_back(world)
    assert "changed in the configuration since then, and read as it says now: scope" in ran.err
    scopes = "SELECT DISTINCT subtree FROM listing l JOIN feed f ON f.id = l.feed WHERE f.name = 'bad'"
    assert world.rows(scopes) == [(1,)]
    # Also while it stands, whatever its publisher sends.
    world.feeds["bad"]["scope"] = "exact"
    world.write()
    world.lines("bad", names(200))
    world.update()
    assert world.rows(scopes) == [(0,)] and world.listed("bad") == sorted(GOOD)
    assert world.update().feed("bad")["outcome"] == "pinned" and world.listed("bad") == sorted(GOOD)


def test_what_can_not_be_read_any_more_as_it_was_is_refused(world: World) -> None:
    world.feeds["bad"]["format"] = "json"
    world.write()
    before = everything(world)
    ran = rolled_back(world, code=3)
    assert f"snapshot {first(world)} held 301 entries then" in ran.err and "set them as they were" in ran.err
    assert everything(world) == before


def test_of_a_reference_what_it_began_to_hold_is_held_no_more(world: World) -> None:
    world.feed("top", names(2, zone="top.example"), category="reference")
    world.update()
    world.lines("top", [*names(2, zone="top.example"), "h00001.evil.example"])
    world.update()
    assert "h00001.evil.example" not in world.exported("list")
    ran = world.run("feeds", "rollback", "top", "--reason", "a rank was bought", "--now")
    assert ran.code == 0 and "h00001.evil.example" in world.exported("list")
    assert world.update().code == 0 and "h00001.evil.example" in world.exported("list")
    ran = world.run("feeds", "unpin", "top", "--reason", "it was not", "--now")
    assert "1 name newly held" in ran.out and "h00001.evil.example" not in world.exported("list")


def test_enabled_again_it_stands_where_it_stood(world: World) -> None:
    rolled_back(world)
    kept = world.feeds.pop("bad")
    world.write()
    assert world.update().code == 0 and world.listed("bad") == []
    world.feeds["bad"] = kept
    world.write()
    ran = world.update()
    assert ran.code == 0 and world.listed("bad") == sorted(GOOD) and ran.feed("bad")["outcome"] == "pinned"
    assert world.update().code == 0 and world.listed("bad") == sorted(GOOD)
    # Its pin can be ended while it is disabled, and then what comes is taken.
    del world.feeds["bad"]
    world.write()
    world.update()
    ran = world.run("feeds", "unpin", "bad", "--reason", "well")
    assert ran.code == 0 and "it is not enabled" in ran.out
    world.feeds["bad"] = kept
    world.write()
    world.update()
    assert world.listed("bad") == sorted(BAD)


def test_what_only_the_bad_list_brought_does_not_linger(world: World) -> None:
    world.feeds["bad"]["linger"] = "30d"
    world.write()
    world.lines("bad", [*names(290), "news.example", "bank.example", "hospital.example"])
    world.update()
    world.lines("bad", [*names(290), "news.example"])
    world.update()
    assert {"hospital.example", "bank.example", "h00294.evil.example"} <= set(world.listed("bad")), "they linger"
    rolled_back(world, "--to", first(world))
    assert world.listed("bad") == sorted(GOOD)
    world.update()
    assert world.listed("bad") == sorted(GOOD)
    world.assert_sound()


def test_a_case_about_it_does_not_close_by_our_own_rollback(world: World) -> None:
    assert world.run("case", "open", "news.example", "--ticket", "T1").code == 0
    rolled_back(world)
    ran = world.update()
    assert ran.json["cases"] == [] and world.rows("SELECT closed FROM case_file") == [(None,)]
    world.lines("bad", GOOD)
    world.run("feeds", "unpin", "bad", "--reason", "well")
    assert [c["name"] for c in world.update().json["cases"]] == ["news.example"]


@pytest.fixture
def server() -> Iterator[FeedServer]:
    server = FeedServer()
    yield server
    server.close()


def test_a_publisher_is_asked_as_ever_and_a_failure_is_told(tmp_path: Path, server: FeedServer) -> None:
    served = {"tag": '"1"', "lines": GOOD}

    def answer(talk: Talk) -> None:
        if talk.headers.get("if-none-match") == served["tag"]:
            return talk.reply(304)
        if not served["lines"]:
            return talk.reply(500)
        body = "".join(f"{name}\n" for name in served["lines"]).encode()
        talk.reply(200, body, {"ETag": str(served["tag"])})

    server.routes["/list"] = answer
    world = World(tmp_path)
    world.feed("bad", url=server.url("/list"), allow_private=True)
    world.export("list")
    world.set("gates", max_change=2.0)
    world.update()
    served.update(tag='"2"', lines=BAD)
    world.update("--force")
    rolled_back(world)
    ran = world.update()
    assert ran.feed("bad")["outcome"] == "pinned" and server.asked("/list") == 3
    waits = last(world)
    assert waits[1] == "gated" and world.update().feed("bad")["outcome"] in ("pinned", "skipped")
    assert last(world) == waits, "the same bytes are not kept twice"
    served.update(lines=[])
    ran = world.update("--force")
    assert ran.code == 3 and ran.feed("bad")["outcome"] == "failed" and ran.feed("bad")["pinned"]
    state = json.loads(world.run("status", "--json").out.splitlines()[0])
    assert state["state"] == "failed" and state["pinned"] and "500" in state["error"]
    served.update(tag='"1"', lines=GOOD)
    ran = world.update("--force")
    assert ran.feed("bad")["outcome"] == "pinned" and last(world)[1] == "refused"
    assert world.run("feeds", "unpin", "bad", "--reason", "well").code == 0
    assert world.update("--force").feed("bad")["outcome"] == "unchanged"
    assert world.exported("list") == sorted(GOOD)


def test_validators_of_another_url_are_not_sent(tmp_path: Path, server: FeedServer) -> None:
    def serving(lines: list[str]) -> Script:
        def answer(talk: Talk) -> None:
            if talk.headers.get("if-none-match") == '"same"':
                return talk.reply(304)
            talk.reply(200, "".join(f"{name}\n" for name in lines).encode(), {"ETag": '"same"'})

        return answer

    server.routes["/old"], server.routes["/new"] = serving(GOOD), serving(BAD)
    world = World(tmp_path)
    world.feed("bad", url=server.url("/old"), allow_private=True)
    world.update()
    world.feeds["bad"]["url"] = server.url("/new")
    world.write()
    world.update()
    assert world.listed("bad") == sorted(BAD)
    rolled_back(world)
    assert world.update().feed("bad")["note"].startswith("what came waits"), "not taken for what it stands at"
    assert world.run("feeds", "unpin", "bad", "--reason", "well").code == 0
    assert world.update().feed("bad")["outcome"] == "unchanged" and world.listed("bad") == sorted(BAD)


# Over and under it


def lived(folder: Path, seed: int, which: str, *, back: bool, **manner: Any) -> World:
    """Feeds that change day by day; on the fourth `which` goes back by two, and on again."""
    chance = random.Random(seed)
    world = World(folder)
    world.base.mkdir()
    world.feed("a", [], **manner)
    world.feed("b", [])
    world.feed("top", [], category="reference")
    world.export("list")
    world.export("dns", "rpz")
    world.set("gates", max_change=9.0)
    for turn in range(6):
        for feed in ("a", "b", "top"):
            some = chance.sample(names(60), 45 if feed != "top" else 4)
            world.lines(feed, [f"# {chance.random()}", *some])
        assert world.update().code == 0
        if back and turn == 3:
            sql = "SELECT s.id FROM snapshot s JOIN feed f ON f.id = s.feed WHERE f.name = ? ORDER BY 1"
            number = world.rows(sql, which)[1][0]
            assert world.run("feeds", "rollback", which, "--to", number, "--reason", "r").code == 0
            assert world.update().code == 0
            assert world.run("feeds", "unpin", which, "--reason", "r").code == 0
    assert world.update().code == 0
    assert world.rows("SELECT count(*) FROM feed_pin") == [(int(back),)]
    world.assert_sound()
    assert world.left_over() == [] and world.run("events", "verify").code == 0
    return world


_LISTED = (
    "SELECT l.name, f.name, l.kind, l.subtree, l.confidence, l.extra FROM listing l JOIN feed f ON f.id = l.feed "
    "WHERE {} ORDER BY 1, 2"
)


@pytest.mark.parametrize("seed", [0, 1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("manner", [{}, {"scope": "subtree"}, {"max_age": "300d"}], ids=str)
def test_back_and_on_again_is_as_if_nothing_had_been(tmp_path: Path, seed: int, manner: dict[str, Any]) -> None:
    plain, back = (lived(tmp_path / str(side), seed, "a", back=side, **manner) for side in (False, True))
    assert plain.rows(_LISTED.format(1)) == back.rows(_LISTED.format(1))
    held = "SELECT name, guard, subtree_only FROM hold WHERE until IS NULL ORDER BY 1, 2"
    assert plain.rows(held) == back.rows(held) != []
    assert plain.exported("list") == back.exported("list")
    zones = [[line for line in world.exported("dns") if "CNAME" in line] for world in (plain, back)]
    assert zones[0] == zones[1] != []


@pytest.mark.parametrize("seed", [0, 1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("which", ["a", "top"])
def test_where_names_linger_it_is_so_but_for_those(tmp_path: Path, seed: int, which: str) -> None:
    """What it had begun to list after the snapshot, and dropped again, was taken back and does not linger on."""
    plain, back = (lived(tmp_path / str(side), seed, which, back=side, linger="30d") for side in (False, True))
    sql = _LISTED.format("l.dropped IS NULL")
    assert plain.rows(sql) == back.rows(sql)
    assert set(back.rows(_LISTED.format(1))) <= set(plain.rows(_LISTED.format(1)))


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_touches_of_files_it_is_done_or_not_at_all(tmp_path: Path, step: int) -> None:
    world = World(tmp_path)
    world.feed("bad", GOOD, linger="30d")
    world.feed("other", names(50, zone="other.example"))
    world.export("list")
    world.set("gates", max_change=2.0)
    world.update()
    world.lines("bad", BAD)
    world.update()
    killed, done = 0, False
    for number in range(1, 500, step):
        before = world.rows("SELECT count(*) FROM feed_pin")
        words = [sys.executable, "-c", KILLER, str(number), str(world.base), "--config", str(world.config)]
        process = subprocess.run(
            [*words, "feeds", "rollback", "bad", "--to", str(first(world)), "--reason", "r", "--now"],
            capture_output=True,
            check=False,
        )
        world.assert_sound()
        pins = world.rows("SELECT count(*) FROM feed_pin")
        assert set(world.listed("bad")) == (set(GOOD) if pins != before else {*GOOD, *BAD})
        if process.returncode != -signal.SIGKILL:
            assert process.returncode == 0, process.stderr.decode()
            done = True
            break
        killed += 1
        world.lines("other", names(50 + number % 7, zone="other.example"))
        ran = world.update()
        assert ran.code == 0, ran.text
        assert world.left_over() == [] and ran.feed("bad")["outcome"] == ("pinned" if pins != before else "unchanged")
        assert world.exported("list") == sorted({*world.listed("bad"), *world.listed("other")})
        if pins != before:
            assert world.run("feeds", "unpin", "bad", "--reason", "r").code == 0
            world.lines("bad", BAD)
            world.update()
        assert set(world.listed("bad")) == {*GOOD, *BAD}
    assert done and killed >= 3
    assert world.run("events", "verify").code == 0


def test_edited_past_the_log_it_is_told(world: World) -> None:
    rolled_back(world)
    assert world.run("events", "verify").code == 0
    world.change("UPDATE feed_pin SET reason = 'nothing'")
    ran = world.run("events", "verify")
    assert ran.code == 1 and "bad was taken back by it, but the record does not say so any more" in ran.out


def test_lost_it_is_given_back_from_the_log(world: World) -> None:
    rolled_back(world)
    world.run("feeds", "unpin", "bad", "--reason", "well")
    rolled_back(world)
    before = world.rows("SELECT feed, snapshot, reason, ticket, author, created, since, ended, until, ended_by, "
                        "ended_reason FROM feed_pin ORDER BY id")  # fmt: skip
    assert len(before) == 2 and before[1][8] is None
    for lost, count in (("DELETE FROM feed_pin", 2), ("DELETE FROM feed_pin WHERE until IS NOT NULL", 1)):
        world.change(lost)
        with contextlib.closing(sqlite3.connect(world.database, isolation_level=None)) as db:
            assert decided.give_back(db).pins == count
        after = world.rows("SELECT feed, snapshot, reason, ticket, author, created, since, ended, until, ended_by, "
                           "ended_reason FROM feed_pin ORDER BY since")  # fmt: skip
        assert after == before
    assert world.run("events", "verify").code == 0


INCIDENTS = Path(__file__).parent.parent / "docs" / "incidents.md"


def test_the_story_of_a_feed_that_was_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command of the page, in its order, on the morning after."""
    world = World(tmp_path)
    world.export("list")
    world.export("dns", "rpz")
    world.set("gates", max_change=2.0)
    start = datetime(2026, 3, 1, 6, tzinfo=UTC)
    world.feed("phish", GOOD)
    for day in range(2):
        monkeypatch.setattr(clock, "now", lambda day=day: start + timedelta(days=day))
        world.lines("phish", [GOOD, BAD][day])
        assert world.update().code == 0
    # No feed of the catalogue, which would have to be enabled.
    ours = {"15": first(world, "phish"), "16": last(world, "phish")[0], "openphish": "phish"}
    section = re.split(r"^## ", INCIDENTS.read_text("utf-8"), flags=re.M)
    (story,) = (part for part in section if part.startswith("A feed was taken over"))
    commands = [shlex.split(line, comments=True)[1:] for line in re.findall(r"^    (blocklist .+)", story, re.M)]
    assert len(commands) >= 13
    for at, words in enumerate(commands, 1):
        if words[0] == "update":
            world.lines("phish", [*GOOD, "new.example"])
        monkeypatch.setattr(clock, "now", lambda at=at: start + timedelta(days=1, minutes=at))
        ran = world.run(*(ours.get(word, word) for word in words))
        assert ran.code == 0, (words, ran.text)
        if words[:2] == ["feeds", "rollback"] and "--now" in words:
            assert world.exported("list") == sorted(GOOD)
        if words[:2] == ["feeds", "unpin"] and "--now" in words:
            assert world.exported("list") == sorted([*GOOD, "new.example"])
    assert world.exported("list") == sorted(GOOD)
    assert world.rows("SELECT count(*) FROM pin WHERE until IS NULL") == [(0,)]


# What one feed changed


def test_what_one_feed_changed_between_its_snapshots(world: World) -> None:
    one, two = first(world), last(world)[0]
    world.lines("other", names(60, zone="other.example"))
    world.update()
    ran = world.run("diff", "--feed", "bad", one, two, "--names")
    gone = sorted(set(GOOD) - set(BAD))
    assert ran.code == 0
    assert [x for x in ran.out.splitlines() if x[0] in "+−~"] == [
        *(f"+ {name}  bad  malware" for name in ("bank.example", "news.example")),
        *(f"− {name}  bad  malware" for name in gone),
    ]
    told = world.run("diff", "--feed", "bad", one, two, "--json").json
    assert (told["feed"], told["added"], told["removed"], told["changed"]) == ("bad", 2, 6, 0)
    assert (told["from"]["snapshot"], told["to"]["snapshot"]) == (one, two)
    assert world.run("diff", "--feed", "other", first(world, "other"), "--json").json["added"] == 10
    assert world.run("diff", "--feed", "bad", one, two, "--csv").out.splitlines()[1] == "bad,malware,2,6,0"
    rolled_back(world)
    back = world.rows("SELECT id FROM snapshot WHERE state = 'current' ORDER BY id DESC LIMIT 1")[0][0]
    told = world.run("diff", "--feed", "bad", one, back, "--json").json
    assert (told["added"], told["removed"], told["changed"]) == (0, 0, 0), "went and came as they were"
    world.update()
    for words, says in (
        ((one, last(world)[0]), "was never taken in"),
        ((one, 999), "bad has no snapshot 999"),
        ((two, one), "give the earlier one first"),
    ):
        ran = world.run("diff", "--feed", "bad", *words)
        assert ran.code == 2 and says in ran.err
    ran = world.run("diff", "--feed", "bod")
    assert ran.code == 2 and "did you mean 'bad'" in ran.err


def test_tab_offers_what_it_was_read_from_and_what_is_pinned(world: World) -> None:
    rolled_back(world)
    world.update()
    taken = world.rows(
        "SELECT s.id FROM snapshot s JOIN feed f ON f.id = s.feed WHERE f.name = 'bad' AND gate IS NULL ORDER BY 1 DESC"
    )
    assert tab(world.config, "feeds", "rollback", "bad", "--to", "") == [str(number) for (number,) in taken]
    assert str(last(world)[0]) in tab(world.config, "feeds", "show", "bad", "--snapshot", "")
    assert tab(world.config, "feeds", "unpin", "") == ["bad"]
    assert tab(world.config, "diff", "--feed", "oth") == ["other"]


def tab(config: Path, *words: str) -> list[str]:
    """What the shell's completion offers after `words`, of which the last is incomplete."""
    asked = {"COMP_WORDS": shlex.join(("blocklist", *words)), "COMP_CWORD": str(len(words))}
    environment = {**os.environ, **asked, "_BLOCKLIST_COMPLETE": "bash_complete", "BLOCKLIST_CONFIG": str(config)}
    done = subprocess.run(PROGRAM, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]
