"""Held releases: what a person reads of them, and that a person's own word does not wait with them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import polars as pl
import pytest
from installation import World, names


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A published list of 200 names, and a feed that has just brought 150 more."""
    world = World(tmp_path)
    world.feed("a", [*names(200), "192.0.2.0/28"])
    world.feed("top", ["portal.test", "bank.test"], category="reference", action="inform")
    world.export("list")
    world.export("nets", "cidr")
    world.export("zone", "rpz")
    assert world.update().code == 0
    world.feed("b", [*names(150, 300), "login.portal.test"], category="phishing")
    return world


def states(world: World, export: str) -> list[str]:
    return [row[0] for row in world.rows("SELECT state FROM release WHERE export = ? ORDER BY id", export)]


def test_a_held_release_says_what_it_would_change_and_how_to_go_on(world: World) -> None:
    ran = world.update()
    assert ran.code == 4
    held = ran.export("list")
    plan = held["plan"]
    assert (plan["before"], plan["after"], plan["added"], plan["removed"]) == (200, 351, 151, 0)
    assert plan["parts"] == [{"feed": "b", "category": "phishing", "added": 151, "removed": 0}]
    assert plan["known"] == [
        {
            "entry": "login.portal.test",
            "change": "added",
            "under": "portal.test",
            "reference": "top",
            "line": 1,
            "rank": None,
        }
    ]
    assert "75 %" in plan["gate"] or "76 %" in plan["gate"]
    shown = world.run("release", "show", held["release"])
    for words in ("200 entries → 351", "login.portal.test (below portal.test, line 1 of top)", "release approve list"):
        assert words in shown.out, shown.text
    assert world.run("release", "show", held["release"], "--json").json["plan"] == plan
    assert "b     phishing   +151        0" in world.run("export", "list", "--dry-run").out


def test_a_plan_says_what_goes_and_why(world: World) -> None:
    assert world.run("export", "list", "--dry-run").code == 0
    world.lines("a", names(110))
    del world.feeds["b"]
    world.write()
    world.set("protect", domains=["h00001.evil.example"])
    plan = world.update().export("list")["plan"]
    assert plan["removed"] == 91 and plan["parts"] == [{"feed": "a", "category": "malware", "added": 0, "removed": 91}]
    assert plan["removed_because"] == {"held by a guard": 1, "no longer listed": 90}


def test_a_dry_run_shows_the_plan_of_the_first_release_too(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("a", names(20))
    world.update("--no-export")
    world.export("list")
    ran = world.run("export", "--dry-run", "--json")
    assert ran.export("list")["plan"]["parts"] == [{"feed": "a", "category": "malware", "added": 20, "removed": 0}]
    assert "nothing → 20 (+20 −0 entries)" in world.run("export", "--dry-run").out


def test_rules_are_published_at_once_with_the_last_approved_list(world: World) -> None:
    assert world.update().code == 4
    before = world.exported("list")
    assert world.run("allow", "add", "h00007.evil.example", "--reason", "customer").code == 0
    assert world.run("deny", "add", "worse.example", "--reason", "order").code == 0
    ran = world.run("deny", "add", "h00301.evil.example", "--reason", "seen", "--now")
    assert ran.code == 4 and "your rules are published with the last approved list" in ran.text
    wanted = {*before, "worse.example", "h00301.evil.example"} - {"h00007.evil.example"}
    assert set(world.exported("list")) == wanted
    assert states(world, "list") == ["superseded", "superseded", "live", "held"]
    assert "held" in world.run("status").out
    # Nothing more to say: the same again publishes nothing.
    assert world.run("export").code == 4
    assert states(world, "list") == ["superseded", "superseded", "live", "held"]
    # A rule taken back counts as much.
    (rule,) = world.rows("SELECT id FROM rule WHERE name = 'worse.example'")[0]
    world.run("deny", "remove", rule, "--reason", "lifted", "--now")
    assert set(world.exported("list")) == wanted - {"worse.example"}
    (rule,) = world.rows("SELECT id FROM rule WHERE name = 'h00007.evil.example'")[0]
    world.run("allow", "remove", rule, "--reason", "no customer any more", "--now")
    assert set(world.exported("list")) == {*before, "h00301.evil.example"}
    # And the held one still waits, until a person lets it go.
    assert world.run("release", "approve", "list").code == 4, "the zone is still held"
    assert len(world.exported("list")) == 351


def test_why_knows_what_stands_in_the_file_of_a_held_release(world: World) -> None:
    assert world.update().code == 4
    world.run("allow", "add", "h00007.evil.example", "--reason", "customer", "--now")
    told = {e["name"]: e for e in world.why("h00007.evil.example")["exports"]}
    assert not told["list"]["blocked"] and not told["list"]["pending"]
    told = {e["name"]: e for e in world.why("h00008.evil.example")["exports"]}
    assert told["list"]["blocked"] and told["zone"]["blocked"]
    told = {e["name"]: e for e in world.why("h00310.evil.example")["exports"]}
    assert not told["list"]["blocked"] and told["list"]["pending"] and "release is held" in told["list"]["because"]
    # What the feed dropped since stands in the file until somebody approves.
    world.lines("a", names(120))
    assert world.update().code == 4
    told = {e["name"]: e for e in world.why("h00150.evil.example")["exports"]}
    assert told["list"]["blocked"] and told["list"]["pending"] is False


def rows_of(path: Path) -> dict[str, tuple[str, str, int, str, str]]:
    """`scope`, `category`, `confidence`, `feeds`, `since` of each entry of a list for people."""
    with path.open(newline="") as file:
        return {
            r["indicator"]: (r["scope"], r["category"], int(r["confidence"]), r["feeds"], r["since"])
            for r in csv.DictReader(file)
        }


def test_rules_are_published_at_once_in_lists_for_people_too(world: World) -> None:
    paths = {name: world.export(name, name) for name in ("csv", "jsonl", "misp", "stix", "parquet")}
    del world.feeds["b"]
    world.write()
    assert world.run("allow", "add", "h00099.evil.example", "--reason", "customer").code == 0
    assert world.update().code == 0
    before = rows_of(paths["csv"])
    world.feed("b", [*names(150, 300), "h00007.evil.example"], category="phishing", confidence=99)
    world.lines("a", [*names(190), "192.0.2.0/28"])
    assert world.update().code == 4
    assert rows_of(paths["csv"]) == before
    assert world.run("allow", "add", "h00007.evil.example", "--reason", "customer").code == 0
    assert world.run("allow", "add", "192.0.2.4", "--reason", "own").code == 0
    assert world.run("deny", "add", "worse.example", "--reason", "order").code == 0
    ran = world.run("export", "--json")
    assert ran.code == 4
    assert all("published with the last approved list" in ran.export(name)["note"] for name in paths)
    after = rows_of(paths["csv"])
    gone = {"h00007.evil.example", "192.0.2.0/28"}
    come = {"worse.example", "192.0.2.0/30", "192.0.2.5", "192.0.2.6/31", "192.0.2.8/29"}
    assert set(after) == {*before, *come} - gone
    # What the last approved list said of each entry, which the new lines of the feeds change as little as its names.
    assert all(after[name] == told for name, told in before.items() if name not in gone)
    assert after["worse.example"][1:4] == ("rule", 100, "")
    for name, path in paths.items():
        data = path.read_bytes()
        if name == "parquet":
            assert set(pl.read_parquet(path)["indicator"]) == set(after)
        else:
            assert b"h00007.evil" not in data and b"h00008.evil" in data and b"h00199.evil" in data
            assert b"worse.example" in data and b"h00301.evil" not in data and b"192.0.2.0/28" not in data
        told = {e["name"]: e for e in world.why("h00007.evil.example")["exports"]}
        assert not told[name]["blocked"] and not told[name]["pending"]
    # The same again publishes nothing, and a rule taken back gives the entry its row again.
    digests = {path: path.read_bytes() for path in paths.values()}
    assert world.run("export").code == 4
    assert digests == {path: path.read_bytes() for path in paths.values()}
    for name in ("h00007.evil.example", "h00099.evil.example"):
        (rule,) = world.rows(f"SELECT id FROM rule WHERE name = '{name}'")[0]
        assert world.run("allow", "remove", rule, "--reason", "no customer any more").code == 0
    assert world.run("export").code == 4
    again = rows_of(paths["csv"])
    assert again["h00007.evil.example"] == before["h00007.evil.example"]
    # It was never in the file: what is said of it is of now.
    assert again["h00099.evil.example"][1:4] == ("malware", 90, "a")
    assert set(again) == {*after, "h00007.evil.example", "h00099.evil.example"}
    for name in ("csv", "list"):
        assert world.run("release", "approve", name).code in (0, 4)
    assert rows_of(paths["csv"])["h00007.evil.example"][1:4] == ("phishing", 99, "a,b")
    world.assert_sound()


def test_networks_and_allows_in_zones_follow_too(world: World) -> None:
    world.feed("b", [*names(150, 300), *(f"198.51.100.{i}" for i in range(100))])
    world.set("gates", min_size=1)
    assert world.update().code == 4
    world.run("allow", "add", "192.0.2.4", "--reason", "own")
    ran = world.run("allow", "add", "h00007.evil.example", "--reason", "customer", "--now")
    assert ran.code == 4
    assert "192.0.2.0/30" in world.exported("nets") and "192.0.2.0/28" not in world.exported("nets")
    assert not any("198.51.100" in line for line in world.exported("nets"))
    assert not any(line.startswith("h00007.evil.example ") for line in world.exported("zone"))
    assert any(line.startswith("h00008.evil.example ") for line in world.exported("zone"))


def test_a_persons_word_never_counts_towards_the_gate(world: World) -> None:
    world.lines("b", names(10, 300))
    world.run("allow", "add", "evil.example", "--reason", "test zone")
    ran = world.update()
    assert ran.code == 0, ran.text
    assert ran.export("list")["outcome"] == "published" and world.exported("list") == []
    world.run("deny", "add", "evil.example", "--exact", "--reason", "test", "--now")
    (rule,) = world.rows("SELECT id FROM rule WHERE action = 'allow'")[0]
    assert world.run("allow", "remove", rule, "--reason", "over", "--now").code == 0
    assert len(world.exported("list")) == 211


def test_without_a_copy_of_the_live_release_the_rules_wait_and_that_is_said(world: World) -> None:
    assert world.update().code == 4
    for kept in (world.state / "approved").iterdir():
        kept.write_bytes(b"torn")
    before = world.exported("list")
    ran = world.run("allow", "add", "h00007.evil.example", "--reason", "customer", "--now")
    assert ran.code == 4 and "new rules wait with this one" in ran.text and world.exported("list") == before
    assert "which entries come and go is not known" in world.run("export", "list", "--dry-run").out
    # The cache of what is decided is not what was approved: it is never taken in its place.
    assert world.run("release", "approve", "list").code == 4
    assert "h00007.evil.example" not in world.exported("list")


def _days_ago(world: World, days: int) -> None:
    """As if all that is recorded happened `days` earlier."""
    for column in ("created", "published"):
        world.change(f"UPDATE release SET {column} = strftime('%Y-%m-%dT%H:%M:%SZ', {column}, '-{days} days')")


def test_a_little_every_day_is_compared_with_the_week_before(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("a", names(200))
    world.export("list")
    count, held = 200, None
    assert world.update().code == 0
    for day in range(1, 12):
        _days_ago(world, 1)
        count += 10
        world.lines("a", names(count))
        ran = world.update()
        if ran.code == 4:
            held = day, ran.export("list")
            break
    assert held is not None and held[0] == 7
    assert held[1]["error"].startswith("since ") and "70 of 200 entries would be added, 35 %" in held[1]["error"]
    assert held[1]["plan"]["added"] == 10, "the plan is of what is published now"
    # A person's word is where the counting begins anew.
    assert world.run("release", "approve", "list").code == 0
    _days_ago(world, 1)
    world.lines("a", names(count + 10))
    assert world.update().code == 0
    assert len(list((world.state / "exports").iterdir())) <= 5


def test_rules_of_a_week_do_not_count_against_the_week_before(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("a", [*names(150), *names(100, zone="other.example")])
    world.export("list")
    assert world.update().code == 0
    _days_ago(world, 8)
    assert world.run("allow", "add", "other.example", "--reason", "ours", "--now").code == 0
    _days_ago(world, 1)
    world.lines("a", [*names(160), *names(100, zone="other.example")])
    assert world.update().code == 0
    assert len(world.exported("list")) == 160


def test_a_plan_is_json_for_scripts_and_safe_on_a_terminal(world: World) -> None:
    ran = world.run("export", "list", "--dry-run", "--json")
    assert json.loads(ran.out.splitlines()[-1])["dry_run"] is True
    assert "\x1b" not in world.run("export", "list", "--dry-run").out


@pytest.mark.parametrize("beside", [False, True])
def test_rules_reach_a_list_for_people_that_stands_alone(tmp_path: Path, beside: bool) -> None:
    """What it was last, not what another export of its policy was long ago."""
    world = World(tmp_path)
    world.feed("a", names(200), max_shrink=1.0)
    world.export("people", "csv")
    if beside:
        world.export("list", "domains")
    world.update()
    world.lines("a", names(200, 20))
    world.update("--no-export")
    assert world.run("export", "people").code == 0
    world.lines("a", names(20, 20))
    world.update("--no-export")
    assert world.run("export", "people").code == 4
    assert world.run("deny", "add", "worse.example", "--reason", "r").code == 0
    assert world.run("export", "people").code == 4
    shown = {row.split(",")[0] for row in world.exported("people")[1:]}
    assert shown == {*names(200, 20), "worse.example"}


def test_the_last_approved_list_was_decided_by_the_policy_of_then(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("a", names(200))
    world.feed("b", names(150, 1000, "weak.example"), confidence=60)
    world.export("list")
    world.update()
    world.policies["default"] = {"min_confidence": 80}
    world.write()
    assert world.update().export("list")["outcome"] == "held"
    assert world.run("deny", "add", "worse.example", "--reason", "r", "--now").code == 4
    assert {"h01000.weak.example", "worse.example"} < set(world.exported("list"))
    said = world.why("h01000.weak.example")["exports"][0]
    assert said["blocked"] and said["pending"] is False, said


@pytest.mark.parametrize("action", ["allow", "deny"])
def test_rules_do_not_move_the_gate_of_what_waits_beside_them(tmp_path: Path, action: str) -> None:
    """Less than min_size would be left to compare with, or so much that the change is a small share of it."""
    world = World(tmp_path)
    world.feed("a", [*names(90), *names(20, zone="some.test")], max_shrink=1.0)
    world.export("list")
    world.update()
    if action == "allow":
        world.lines("a", [*names(90), *names(20, zone="some.test"), *names(60, 500)])
        words = [["some.test"]]
    else:
        world.lines("a", [*names(60), *names(10, zone="some.test")])
        words = [[f"worse{i}.example"] for i in range(30)]
    assert world.update().export("list")["outcome"] == "held"
    for word in words:
        assert world.run(action, "add", *word, "--reason", "r").code == 0
    for _ in range(2):
        assert world.update().export("list")["outcome"] == "held"


@pytest.mark.parametrize("fmt", ["csv", "cidr"])
def test_kinds_that_a_policy_takes_no_more_are_kept_with_the_last_approved_list(tmp_path: Path, fmt: str) -> None:
    """What is kept of a release is what was published, so that a way back finds it."""
    world = World(tmp_path)
    world.feed("a", names(100))
    world.feed("nets", [f"192.0.2.{i}" for i in range(0, 240, 2)])
    world.export("list", fmt, allow_empty=True)
    world.update()
    world.policies["default"] = {"kinds": ["domain"]}
    world.write()
    assert world.update().export("list")["outcome"] == "held"
    assert world.run("deny", "add", "203.0.113.7", "--reason", "r", "--now").code == 4
    text = "\n".join(world.exported("list"))
    assert "192.0.2.2" in text and "203.0.113.7" in text
    assert world.why("192.0.2.2")["exports"][0]["blocked"]
    (shown,) = world.rows("SELECT id FROM release WHERE state = 'live'")
    assert world.run("release", "approve", "list").code == 0
    world.policies.clear()
    world.write()
    assert world.run("release", "rollback", "list", shown[0], "--reason", "r").code == 0
    assert "192.0.2.2" in "\n".join(world.exported("list"))


def test_a_held_list_under_newer_rules_keeps_what_guards_let_it_say(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("top", ["famous.example"], category="reference", max_new_holds=1000)
    world.feed("a", ["deep.evil.example", *names(20, zone="other.test")], max_shrink=1.0)
    world.export("list", "squidguard")
    assert world.update().code == 0
    world.set("gates", max_change=0.1, min_size=3)
    world.lines("a", ["deep.evil.example", *names(20, 50, zone="third.test")])
    world.lines("top", ["famous.example", "x.deep.evil.example"])
    assert world.run("deny", "add", "worse.test", "--reason", "r").code == 0
    assert world.update().code == 4
    assert {"deep.evil.example", "worse.test"} < set(world.exported("list"))
    for what in ("deep.evil.example", "z.deep.evil.example", "worse.test"):
        assert world.why(what)["exports"][0]["blocked"], what
