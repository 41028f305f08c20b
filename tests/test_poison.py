"""Bad references, bad rules, and a feed of everything: what becomes of each, from the command line to the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from installation import World, names


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.feed("bad", ["evil.example", "evil.test", "phish.co.uk"])
    world.export("list")
    return world


@pytest.mark.parametrize("poison", ["example", "co.uk", "test", "com"])
def test_a_suffix_in_a_reference_holds_nothing(world: World, poison: str) -> None:
    world.feed("top", [poison, "bank.test"], category="reference")
    assert world.update().code == 0
    assert sorted(world.exported("list")) == ["evil.example", "evil.test", "phish.co.uk"]
    assert world.rows("SELECT name FROM hold") == []


def test_a_bought_rank_holds_its_own_name_is_the_newest_in_the_list_and_a_deny_outranks_it(world: World) -> None:
    world.feed("top", ["bank.test"], category="reference")
    assert world.update().code == 0
    world.lines("top", ["evil.test", "bank.test"])
    assert world.update().code == 0
    assert "evil.test" not in world.exported("list") and "evil.example" in world.exported("list")
    newest = json.loads(world.run("held", "--json").out.splitlines()[0])
    assert (newest["indicator"], newest["feeds"], newest["reference"], newest["line"]) == (
        "evil.test",
        ["bad"],
        "top",
        1,
    )
    assert world.run("deny", "add", "evil.test", "--reason", "bought its rank", "--now").code == 0
    assert "evil.test" in world.exported("list")


def test_many_bought_ranks_wait_at_the_gate_of_the_reference(world: World) -> None:
    world.feed("bad", names(300))
    world.feed("top", ["bank.test"], category="reference", max_growth=1000)
    assert world.update().code == 0
    world.lines("top", ["bank.test", *names(150)])
    ran = world.update()
    assert ran.code == 3 and "would newly hold 150 entries that are exported" in ran.feed("top")["error"]
    assert len(world.exported("list")) == 300


def test_each_reference_has_its_own_gate(world: World) -> None:
    world.feed("bad", names(3000))
    for top in ("top", "other", "third"):
        world.feed(top, ["bank.test"], category="reference", max_growth=1000)
    assert world.update().code == 0
    for top, ranks in (("top", names(80)), ("other", names(80, 80)), ("third", names(140, 160))):
        world.lines(top, ["bank.test", *ranks])
    ran = world.update()
    assert [ran.feed(top)["outcome"] for top in ("top", "other", "third")] == ["updated", "updated", "gated"]
    assert "would newly hold 140 entries" in ran.feed("third")["error"]
    assert sorted(world.exported("list")) == names(2840, 160)


def test_ranks_of_what_no_export_takes_need_no_person(world: World) -> None:
    world.feed("bad", names(300))
    world.feed("unsure", names(150, zone="other.test"), confidence=10)
    world.feed("top", ["bank.test"], category="reference", max_growth=1000)
    world.set("policy.default", min_confidence=50)
    assert world.update().code == 0 and len(world.exported("list")) == 300
    world.lines("top", ["bank.test", *names(150, zone="other.test"), *names(100)])
    ran = world.update()
    assert ran.feed("top")["outcome"] == "updated", ran.text
    assert world.rows("SELECT count(DISTINCT name) FROM hold WHERE until IS NULL") == [(250,)]


def test_a_reference_at_its_gate_changes_nothing_in_the_same_run(world: World) -> None:
    world.feed("bad", names(300))
    world.feed("top", ["bank.test"], category="reference", max_growth=1000)
    assert world.update().code == 0
    world.lines("top", ["bank.test", *names(150)])
    world.lines("bad", names(301))
    ran = world.update()
    assert ran.feed("top")["outcome"] == "gated" and ran.feed("bad")["added"] == 1
    assert len(world.exported("list")) == 301 and world.rows("SELECT name FROM hold WHERE until IS NULL") == []


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"<!DOCTYPE html><html><body>Not found</body></html>"])
def test_a_reference_that_becomes_empty_keeps_its_last_good_list(world: World, content: bytes) -> None:
    world.feed("top", ["evil.test", *names(20, zone="fine.test")], category="reference")
    assert world.update().code == 0 and "evil.test" not in world.exported("list")
    world.lines("top", content)
    ran = world.update()
    assert ran.code == 3 and ran.feed("top")["outcome"] == "gated"
    assert "evil.test" not in world.exported("list")


@pytest.mark.parametrize("content", [b"", b"# nothing\n", None])
def test_a_reference_that_never_loaded_holds_the_exports_and_names_itself(world: World, content: bytes | None) -> None:
    path = world.feed("top", content or b"", category="reference")
    if content is None:
        path.unlink()
    ran = world.update()
    assert ran.code == 4 and "the reference top never loaded" in ran.export("list")["error"]
    assert not (world.base / "exports" / "list").exists()
    # Disabled, or mended, the exports go out.
    world.lines("top", ["bank.test"])
    assert world.update().code == 0 and len(world.exported("list")) == 3


def test_what_was_published_before_a_reference_that_never_loads_takes_a_persons_rules(world: World) -> None:
    assert world.update().code == 0
    world.feed("top", b"", category="reference")
    assert world.update().export("list")["outcome"] == "unchanged"
    # Nothing but a person's word: there is nothing to hold.
    assert world.run("allow", "add", "evil.example", "--reason", "customer", "--now").code == 0
    assert sorted(world.exported("list")) == ["evil.test", "phish.co.uk"]
    world.lines("bad", ["evil.example", "evil.test", "phish.co.uk", "new.test"])
    assert world.update().code == 4
    assert world.run("deny", "add", "worse.test", "--reason", "order", "--now").code == 4
    assert sorted(world.exported("list")) == ["evil.test", "phish.co.uk", "worse.test"]


@pytest.mark.parametrize(("action", "left"), [("allow", []), ("deny", ["co.uk"])])
def test_a_rule_for_a_suffix_is_taken_and_said(world: World, action: str, left: list[str]) -> None:
    world.update()
    ran = world.run(action, "add", "co.uk", "--reason", "order", "--now")
    said = {"allow": "co.uk is a public suffix", "deny": "guards would hold, and your rule outranks them: co.uk (is a "}
    assert ran.code == 0 and said[action] in ran.err and "covers 1 listed" in ran.out
    assert [name for name in world.exported("list") if name.endswith("co.uk")] == [
        *left,
        *(["phish.co.uk"] if left else []),
    ]
    assert "public suffix" not in world.run(action, "add", "one.co.uk", "--reason", "r").err
    # Guards hold the name itself too; to allow that much frees nobody's.
    assert ("public suffix" in world.run(action, "add", "uk", "--exact", "--reason", "r").err) == (action == "deny")


@pytest.mark.parametrize("action", ["allow", "deny"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["0.0.0.0/0"], "a rule for the whole Internet is not taken"),
        (["evil.test", "--until", "2020-01-01"], "lies in the past"),
    ],
)
def test_a_rule_for_everything_or_of_the_past_is_refused(
    world: World, action: str, words: list[str], said: str
) -> None:
    world.update()
    before = world.exported("list")
    ran = world.run(action, "add", *words, "--reason", "r", "--now")
    assert ran.code == 2 and said in ran.err and "hint:" in ran.err
    assert world.exported("list") == before and world.rows("SELECT * FROM rule") == []


def test_a_rule_given_twice_is_one(world: World) -> None:
    world.update()
    assert world.run("deny", "add", "worse.test", "--reason", "r").code == 0
    ran = world.run("deny", "add", "WORSE.test.", "--reason", "r")
    assert ran.code == 2 and "rule 1 says 'deny worse.test' already" in ran.err
    assert world.rows("SELECT count(*) FROM rule") == [(1,)]


def test_a_feed_that_lists_a_whole_top_list_blocks_none_of_it(world: World) -> None:
    top = [f"site{i}.test" for i in range(500)]
    world.feed("top", top, category="reference")
    world.feed("everything", [*top, *(f"www.{name}" for name in top), "truly.bad.test"])
    ran = world.update()
    assert ran.code == 0 and ran.feed("everything")["held"] == 1000
    assert sorted(world.exported("list")) == ["evil.example", "evil.test", "phish.co.uk", "truly.bad.test"]
    # As wildcards, and by what stands above them, as little.
    world.feed("everything", [*top, "test"], format="wildcard")
    assert world.update("--force").code in (0, 3)
    assert not set(world.exported("list")) & {*top, "test"}
