"""Releases: what is published, when it is not, and that a person hears why."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dns.serial
import pytest
from installation import PROGRAM, World, digest, names, obeying_modes

from blocklist import clock


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.feed("a", names(150))
    return world


def serial(world: World, name: str = "dns") -> int:
    found = re.search(r" SOA \S+ \S+ (\d+) ", (world.base / "exports" / name).read_text())
    assert found is not None
    return int(found[1])


def states(world: World, export: str) -> list[str]:
    return [row[0] for row in world.rows("SELECT state FROM release WHERE export = ? ORDER BY id", export)]


# X1: where the file goes


def spoil(world: World, how: str) -> None:
    path = world.base / "exports" / "list"
    path.unlink(missing_ok=True)
    if how == "missing folder":
        world.exports["list"]["path"] = "nowhere/list"
        world.write()
    elif how == "link":
        path.symlink_to(world.base / "elsewhere")
        (world.base / "elsewhere").write_text("another's\n")
    elif how == "dangling link":
        path.symlink_to(world.base / "nothing")
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "folder":
        path.mkdir()
    elif how == "device":
        world.exports["list"]["path"] = "/dev/null"
        world.write()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("missing folder", "there is no folder"),
        ("link", "symbolic link"),
        ("dangling link", "symbolic link"),
        ("pipe", "named pipe"),
        ("folder", "folder"),
        ("device", "device"),
    ],
)
def test_a_target_that_is_no_plain_file_in_a_folder_is_refused_and_the_others_go_on(
    world: World, how: str, said: str
) -> None:
    world.export("list")
    world.export("other")
    world.update()
    world.lines("a", names(160))
    spoil(world, how)
    ran = world.update()
    assert ran.code == 4
    failed = ran.export("list")
    assert failed["outcome"] == "failed" and said in failed["error"] and failed["hint"]
    assert ran.export("other")["outcome"] == "published" and len(world.exported("other")) == 160
    if how == "link":
        assert (world.base / "elsewhere").read_text() == "another's\n"
    if how == "pipe":
        assert (world.base / "exports" / "list").is_fifo()
    assert states(world, "list") == ["live"]
    assert world.left_over() == []
    assert said in world.run("export").text


def test_a_folder_that_may_not_be_written_is_said(world: World) -> None:
    path = world.export("list")
    world.update()
    world.lines("a", names(160))
    path.parent.chmod(0o555)
    try:
        ran = world.call("update", "--json", under=obeying_modes())
    finally:
        path.parent.chmod(0o755)
    assert ran.code == 4 and "can't be written" in ran.export("list")["error"]
    assert len(world.exported("list")) == 150


def test_a_link_is_followed_where_that_is_configured(world: World) -> None:
    path = world.export("list", follow_link=True)
    (world.base / "real").write_text("")
    path.symlink_to(world.base / "real")
    assert world.update().code == 0
    assert path.is_symlink() and len((world.base / "real").read_text().splitlines()) == 150


def test_doctor_says_of_a_link_that_nothing_is_published_through_it(world: World) -> None:
    path = world.export("list")
    assert world.update().code == 0
    path.rename(world.base / "real")
    path.symlink_to(world.base / "real")
    ran = world.run("doctor")
    assert ran.code == 1 and f"{path}: is a symbolic link" in ran.out and "follow_link = true" in ran.out
    world.export("list", follow_link=True)
    assert world.run("doctor").code == 0


def test_a_full_disk_fails_one_export_and_says_so(world: World) -> None:
    world.feed("a", names(8000))
    world.update("--no-export")
    world.export("small", "cidr", allow_empty=True)
    world.export("large", "hosts")
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000)); "
    under = [PROGRAM[0], "-c", limit + "import os, sys; os.execv(sys.argv[1], sys.argv[1:])"]
    world.change("PRAGMA wal_checkpoint(TRUNCATE)")
    ran = world.call("export", "--json", under=under)
    assert ran.code == 4, ran.text
    assert ran.export("small")["outcome"] == "published"
    assert "File too large" in ran.export("large")["error"] and "free" in ran.export("large")["error"]
    assert not (world.base / "exports" / "large").exists() and world.left_over() == []
    assert world.run("export").code == 0


# X2: the checker


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("echo 'line 3: \x1b[31mbad name' >&2; exit 1", "line 3"),
        ("kill -SEGV $$", "signal 11"),
    ],
)
def test_what_its_checker_refuses_is_not_published_and_its_words_are_shown(world: World, body: str, said: str) -> None:
    world.checker("mine", "exit 0")
    path = world.export("list", "mine", check=True)
    world.update()
    before = digest(path)
    world.lines("a", names(160))
    world.checker("mine", body)
    for _ in range(2):
        ran = world.run("update")
        assert ran.code == 4 and said in ran.text and "\x1b" not in ran.text
        assert "Traceback" not in ran.text
        assert digest(path) == before and world.left_over() == []
    world.checker("mine", 'test "$(wc -l < "$1")" = 160')
    assert world.update().export("list")["outcome"] == "published"


def test_a_missing_checker_is_a_remark_unless_it_is_demanded(world: World) -> None:
    world.exporter("mine", 'title = "x"\nkinds = ["domain"]\nexact = "{name}"\ncheck = ["no-such-checker", "{file}"]\n')
    world.export("list", "mine", check="auto")
    world.export("strict", "mine", check=True)
    ran = world.update()
    assert ran.code == 4
    assert ran.export("list")["outcome"] == "published" and "not installed" in ran.export("list")["checked"]
    assert ran.export("strict")["outcome"] == "failed" and "not installed" in ran.export("strict")["error"]
    assert not (world.base / "exports" / "strict").exists()


def test_a_checker_that_hangs_is_ended(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from blocklist.publish import check

    # The limit is two minutes, as a large zone needs; only the number is made smaller here.
    monkeypatch.setattr(check.check, "__defaults__", ("auto", 0.5))
    world.checker("mine", "sleep 60")
    world.export("list", "mine", check=True)
    began = time.monotonic()
    ran = world.update()
    assert time.monotonic() - began < 10
    assert ran.code == 4 and "did not answer" in ran.export("list")["error"]
    assert not (world.base / "exports" / "list").exists()


# X3: the reload command


def test_a_failed_reload_keeps_the_file_and_is_tried_again_until_it_works(world: World) -> None:
    reload = world.script("reload", "echo 'no such zone' >&2; exit 3")
    world.export("list", reload=reload)
    ran = world.update()
    assert ran.code == 4 and len(world.exported("list")) == 150
    assert "no such zone" in ran.export("list")["error"] and "status 3" in ran.export("list")["error"]
    assert states(world, "list") == ["live"]
    assert world.update().code == 4, "said at every run until it works"
    status = world.run("status")
    assert status.code == 4 and "not loaded" in status.out
    assert "was not loaded: the engine may still serve an earlier one" in world.run("why", "x.example").out
    world.script("reload", f"echo reloaded >> {world.base}/log")
    ran = world.update()
    assert ran.code == 0 and ran.export("list")["outcome"] == "unchanged" and "reloaded" in ran.export("list")["note"]
    world.update()
    assert "was not loaded" not in world.run("why", "x.example").out
    assert (world.base / "log").read_text() == "reloaded\n"
    assert world.run("status").code == 0


def test_an_engine_that_lost_its_list_is_told_to_load_it_again(world: World) -> None:
    world.export("list", reload=world.script("reload", f"echo reloaded >> {world.base}/log"))
    world.export("other")
    world.update()
    ran = world.run("export", "list", "--reload", "--json")
    assert ran.code == 0 and ran.export("list")["outcome"] == "unchanged" and ran.export("list")["note"] == "reloaded"
    assert (world.base / "log").read_text() == "reloaded\n" * 2
    assert world.run("export", "list").code == 0 and (world.base / "log").read_text() == "reloaded\n" * 2
    assert "other has no reload command" in world.run("export", "--reload").err
    world.script("reload", "exit 3")
    assert world.run("export", "list", "--reload").code == 4
    assert world.run("export", "list", "--reload", "--dry-run").code == 2


def test_a_reload_that_hangs_is_ended_at_its_limit(world: World) -> None:
    world.export("list", reload=world.script("reload", "sleep 60"), reload_timeout="1s")
    began = time.monotonic()
    ran = world.update()
    assert time.monotonic() - began < 10
    assert ran.code == 4 and "did not end within 1 s" in ran.export("list")["error"]
    assert len(world.exported("list")) == 150


def test_a_reload_command_that_is_not_there_is_said(world: World) -> None:
    world.export("list", reload=["/no/such/rndc", "reload"])
    ran = world.update()
    assert ran.code == 4 and "could not be started" in ran.export("list")["error"]


# X4: nothing left, and other gates


def test_an_empty_list_is_held_unless_it_may_be_empty(world: World) -> None:
    path = world.export("list")
    world.update()
    world.set("protect", domains=["evil.example"])
    ran = world.update()
    assert ran.code == 4 and ran.export("list")["outcome"] == "held" and "allow_empty" in ran.export("list")["error"]
    assert len(world.exported("list")) == 150
    world.exports["list"]["allow_empty"] = True
    world.set("gates", max_change=1.0)
    assert world.update().code == 0
    assert path.read_bytes() in (b"", b"\n")


def test_fewer_than_min_entries_are_held(world: World) -> None:
    world.export("list", min_entries=151)
    ran = world.update()
    assert ran.code == 4 and "min_entries" in ran.export("list")["error"]
    assert not (world.base / "exports" / "list").exists()


def test_a_change_of_more_than_30_percent_waits_for_approval(world: World) -> None:
    world.export("list")
    world.update()
    world.lines("a", [*names(104), *names(3, 500)])
    for _ in range(2):
        ran = world.run("update", "--json")
        assert ran.code == 4 and ran.export("list")["outcome"] == "held"
        assert "31%" in ran.export("list")["error"] or "31 %" in ran.export("list")["error"]
        assert len(world.exported("list")) == 150
    assert states(world, "list") == ["live", "held"]
    status = world.run("status")
    assert status.code == 4 and "held" in status.out
    assert "release approve list" in world.run("export").text
    approved = world.run("release", "approve", "list")
    assert approved.code == 0, approved.text
    assert len(world.exported("list")) == 107
    assert world.run("status").code == 0
    assert world.update().export("list")["outcome"] == "unchanged"
    assert states(world, "list").count("live") == 1 and "held" not in states(world, "list")
    shown = world.run("release", "list")
    assert "approved by" in shown.out


def test_a_change_within_30_percent_or_of_a_small_list_is_published(world: World) -> None:
    world.export("list")
    world.update()
    world.lines("a", names(106))
    assert world.update().code == 0
    world.lines("a", names(90))
    assert world.update().code == 0
    world.lines("a", names(20))
    assert world.update("--force").code in (0, 3)
    world.update("--accept", "a")
    assert len(world.exported("list")) in (20, 90)


def test_an_approval_is_for_what_was_seen_and_for_nothing_later(world: World) -> None:
    world.export("list")
    world.update()
    world.lines("a", names(100))
    assert world.update().code == 4
    world.lines("a", names(99))
    assert world.update("--no-export").code == 0
    ran = world.run("release", "approve", "list", "--json")
    assert ran.code == 4 and len(world.exported("list")) == 150
    assert world.run("release", "approve", "list").code == 0
    assert len(world.exported("list")) == 99


def test_approve_says_when_nothing_is_held_and_names_the_nearest_export(world: World) -> None:
    world.export("list")
    world.update()
    ran = world.run("release", "approve", "list")
    assert ran.code == 2 and "no release of list is held" in ran.err
    ran = world.run("release", "approve", "lisst")
    assert ran.code == 2 and "did you mean 'list'" in ran.err


def test_a_lost_cache_of_entries_does_not_hold_the_next_release(world: World) -> None:
    world.export("list")
    world.update()
    shutil.rmtree(world.state / "exports")
    world.lines("a", names(155))
    ran = world.update()
    assert ran.code == 0 and ran.export("list")["outcome"] == "published"
    assert (ran.export("list")["added"], ran.export("list")["removed"]) == (5, 0)


# X5: what the target can't say


def test_names_too_long_for_the_zone_are_left_out_and_counted(world: World) -> None:
    long = ".".join(["x" * 60] * 4)[: 253 - 8] + ".example"
    world.feed("b", [long])
    world.export("dns", "rpz", options={"origin": "rpz.a-rather-long-name-for-a-zone.example"})
    ran = world.update()
    assert ran.code == 0 and ran.export("dns")["lost"] == {"too_long": 1}
    assert "1 too long" in world.run("release", "show", "1").out or "too_long" in world.run("release", "show", "1").out
    world.lines("a", names(151))
    assert "too long for the target" in world.run("update").out
    answer = world.why(long)
    assert not answer["blocked"] and "too long" in answer["exports"][0]["because"]


# X7: hands of others


@pytest.mark.parametrize("how", ["removed", "edited"])
def test_a_published_file_that_was_removed_or_edited_is_written_again_and_said(world: World, how: str) -> None:
    path = world.export("list")
    world.update()
    before = path.read_bytes()
    if how == "removed":
        path.unlink()
    else:
        path.write_bytes(before + b"mine.example\n")
    ran = world.update()
    assert ran.code == 0 and ran.export("list")["outcome"] == "published"
    assert ("missing" if how == "removed" else "edited by hand") in ran.export("list")["note"]
    assert path.read_bytes() == before
    assert world.update().export("list")["outcome"] == "unchanged"


# Serials, bytes, revisions


def test_serials_only_rise_even_above_a_file_from_the_future_and_without_a_record(world: World) -> None:
    path = world.export("dns", "rpz")
    world.update()
    first = serial(world)
    future = int(time.time()) + 100_000
    path.write_text(path.read_text().replace(str(first), str(future)))
    world.lines("a", names(151))
    world.update()
    assert serial(world) == future + 1
    world.lines("a", names(152))
    world.update()
    assert serial(world) == future + 2
    shutil.rmtree(world.state)
    world.lines("a", names(153))
    world.update()
    assert serial(world) == future + 3
    path.unlink()
    world.update()
    assert serial(world) == future + 4


def test_no_clock_makes_a_serial_that_a_secondary_would_take_for_an_earlier_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 1982: half of the circle of 32 bits is ahead, and the epoch fills it in 2106."""
    world.export("dns", "rpz")
    told: list[int] = []
    for lines, year in enumerate((2026, 2095, 2120, 2026, 2027), start=150):
        moment = datetime(year, 3, 1, tzinfo=UTC)
        monkeypatch.setattr(clock, "now", lambda moment=moment: moment)
        world.lines("a", names(lines))
        assert world.update("--no-verify").export("dns")["outcome"] == "published"
        told.append(serial(world))
        assert not told[1:] or dns.serial.Serial(told[-1]) > dns.serial.Serial(told[-2])
        out = world.base / "once"
        assert world.run("export", "--format", "rpz", "-o", out).code == 0
    then = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp())
    assert told == [then, then + 1, then + 2, then + 3, int(datetime(2027, 3, 1, tzinfo=UTC).timestamp())]


def test_a_record_that_begins_after_2106_publishes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now", lambda: datetime(2120, 1, 1, tzinfo=UTC))
    world.export("dns", "rpz")
    assert world.update("--no-verify").export("dns")["outcome"] == "published"
    assert serial(world) == 1


def test_the_same_inputs_give_the_same_bytes_and_no_new_release(world: World, tmp_path: Path) -> None:
    world.feed("nets", ["192.0.2.1", "2001:db8::/48"])
    for fmt in ("domains", "hosts", "squid", "unbound", "dnsmasq", "cidr", "nftables", "csv", "jsonl"):
        world.export(fmt, fmt)
    world.update()
    other = World(tmp_path / "other", world.feeds, world.exports)
    other.base.mkdir()
    (other.base / "exports").mkdir()
    shutil.copytree(world.base / "feeds", other.base / "feeds")
    other.write()
    time.sleep(1.01)
    other.update()
    for name in world.exports:
        if name not in ("csv", "jsonl"):  # they say since when
            assert digest(world.base / "exports" / name) == digest(other.base / "exports" / name), name
    world.change("UPDATE counter SET value = value + 1 WHERE name = 'revision'")
    assert {e["outcome"] for e in world.run("export", "--json").json["exports"]} == {"unchanged"}
    assert world.rows("SELECT count(*) FROM release") == [(9,)]


def test_all_exports_of_a_run_come_from_one_revision_of_the_record(world: World) -> None:
    world.export("list")
    world.export("hosts", "hosts")
    world.update()
    world.lines("a", names(151))
    world.update()
    assert world.rows("SELECT run, count(DISTINCT revision), count(*) FROM release GROUP BY run ORDER BY run") == [
        (1, 1, 2),
        (2, 1, 2),
    ]


def test_a_dry_run_shows_the_plan_and_changes_nothing(world: World) -> None:
    path = world.export("list")
    world.update()
    world.lines("a", names(160))
    world.update("--no-export")
    before, rows = digest(path), world.rows("SELECT * FROM release")
    ran = world.run("export", "--dry-run", "--json")
    assert ran.code == 0 and ran.export("list")["added"] == 10 and ran.json["dry_run"] is True
    shown = world.run("export", "--dry-run").out
    assert "nothing was published" in shown and "to publish" in shown and "None" not in shown
    assert digest(path) == before and world.rows("SELECT * FROM release") == rows and world.left_over() == []
    assert world.run("export").code == 0 and len(world.exported("list")) == 160
    assert world.rows("SELECT command, finished IS NULL FROM run WHERE command = 'export'") == [("export", 0)]


def test_a_dry_run_names_the_rules_that_came_and_went(world: World) -> None:
    world.export("list")
    world.update()
    assert world.run("deny", "add", "one.example", "--reason", "order").code == 0
    assert world.run("export", "--dry-run", "--json").export("list")["plan"]["ruled"] == ["rule 1: deny one.example"]
    assert "by rule 1: deny one.example" in world.run("export", "--dry-run").out
    assert world.run("export").code == 0
    assert world.run("deny", "add", "two.example", "--reason", "order").code == 0
    assert world.run("deny", "remove", "2", "--reason", "gone").code == 0  # came and went, and was never published
    assert world.run("deny", "remove", "1", "--reason", "gone").code == 0
    ran = world.run("export", "--dry-run", "--json").export("list")
    assert (ran["removed"], ran["plan"]["ruled"]) == (1, ["rule 1 has ended: deny one.example"])


def test_only_the_named_exports_are_published(world: World) -> None:
    world.export("list")
    world.export("hosts", "hosts")
    world.update("--no-export")
    ran = world.run("export", "hosts", "--json")
    assert [e["name"] for e in ran.json["exports"]] == ["hosts"]
    assert not (world.base / "exports" / "list").exists()


def test_a_moved_export_is_written_to_its_new_place(world: World) -> None:
    world.export("list")
    world.update()
    world.exports["list"]["path"] = "exports/moved"
    world.write()
    assert world.update().export("list")["outcome"] == "published"
    assert len(world.exported("list")) == 150


# One list to the screen or a file


def test_one_list_to_the_screen_or_to_a_file_keeps_no_release(world: World) -> None:
    world.update("--no-export")
    ran = world.run("export", "--format", "domains", "-o", "-")
    assert ran.code == 0 and ran.out.splitlines() == names(150) and "150 entries" in ran.err
    target = world.base / "list.rpz"
    ran = world.run("export", "--format", "rpz", "--option", "origin=rpz.example", "-o", target)
    assert ran.code == 0 and " SOA " in target.read_text() and ran.out == ""
    assert world.rows("SELECT count(*) FROM release") == [(0,)]
    target.write_text("kept\n")
    ran = world.run("export", "--format", "rpz", "--option", "origin=UPPER case", "-o", target)
    assert ran.code in (1, 2) and "origin" in ran.err and target.read_text() == "kept\n"


def test_one_list_with_a_policy_of_ones_own(world: World) -> None:
    world.feed("ads", ["ads.example"], category="advertising")
    world.policies["ads"] = {"categories": ["advertising"]}
    world.write()
    world.update()
    assert world.run("export", "--format", "domains", "-o", "-", "--policy", "ads").out == "ads.example\n"


def test_the_reader_of_a_long_list_may_leave_early(world: World) -> None:
    world.feed("a", names(30_000))
    world.update()
    process = world.start("export", "--format", "domains", "-o", "-")
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == b"h00000.evil.example\n"
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert process.wait(20) in (0, 1, 141) and b"Traceback" not in error and b"error" not in error, error


@pytest.fixture(autouse=True)
def open_again(tmp_path: Path) -> Iterator[None]:
    yield
    for path in tmp_path.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)


def test_an_address_that_is_protected_now_leaves_the_file_without_any_news(world: World) -> None:
    """It is cut out of a wider network, which no hold says."""
    world.feed("nets", ["192.0.2.0/29"])
    world.export("fw", "cidr")
    assert world.update().code == 0 and world.exported("fw") == ["192.0.2.0/29"]
    world.set("protect", networks=["192.0.2.1"])
    assert world.update().export("fw")["outcome"] == "published"
    assert world.exported("fw") == ["192.0.2.0", "192.0.2.2/31", "192.0.2.4/30"]
    world.set("verify", resolvers=["192.0.2.2:53"])
    assert world.run("export").code == 0
    assert world.exported("fw") == ["192.0.2.0", "192.0.2.3", "192.0.2.4/30"]
    assert world.run("export", "--json").export("fw")["outcome"] == "unchanged"


def test_an_export_run_alone_follows_feeds_as_they_are_configured_now(world: World) -> None:
    world.feed("b", ["weak.example"], confidence=60)
    world.export("list")
    world.update()
    world.feeds["b"]["confidence"] = 10
    world.write()
    assert world.why("weak.example")["exports"][0]["pending"] is False
    assert world.run("export").code == 0
    assert "weak.example" not in world.exported("list") and not world.why("weak.example")["blocked"]


def test_nothing_is_published_while_a_reference_never_loaded(world: World) -> None:
    world.export("list", "domains", check=False)
    world.feed("top", ["n0.example"], category="reference")
    (world.base / "feeds" / "top.txt").rename(world.base / "away")
    ran = world.update()
    held = ran.export("list")
    assert ran.code == 4 and held["outcome"] == "held" and "the reference top never loaded" in held["error"]
    assert not (world.base / "exports" / "list").exists()
    ways = held["plan"]["ways"]
    assert "'blocklist update top'" in ways[0] and "'blocklist feeds disable top'" in ways[1]
    assert ways[2].endswith("'blocklist release approve list'") and len(ways) == 3, "no list stands in between"
    assert held["hint"] == "; ".join(ways)
    (world.base / "away").rename(world.base / "feeds" / "top.txt")
    assert world.update().export("list")["outcome"] == "published"


def test_a_list_for_people_names_no_scope_or_network_with_an_allowed_one_inside(world: World) -> None:
    world.export("people", "jsonl", check=False)
    world.feed("more", ["evil.example", "own.example", "192.0.2.0/24", "203.0.113.9"])
    for what, exact in (("good.evil.example", ()), ("own.example", ("--exact",)), ("192.0.2.5", ())):
        world.run("allow", "add", what, "--reason", "customer", *exact)
    world.run("deny", "add", "unlisted.example", "--reason", "order")
    world.update()
    rows = {row["indicator"]: row for row in map(json.loads, world.exported("people"))}
    assert rows["evil.example"]["scope"] == "exact"
    assert "own.example" not in rows and "good.evil.example" not in rows
    assert rows["unlisted.example"]["category"] == "rule" and rows["unlisted.example"]["scope"] == "subtree"
    assert rows["203.0.113.9"]["feeds"] == ["more"]
    networks = [ipaddress.ip_network(name) for name, row in rows.items() if row["kind"] == "ipv4"]
    free = ipaddress.ip_address("192.0.2.5")
    assert not any(free in network for network in networks)
    assert sum(n.num_addresses for n in networks if n.subnet_of(ipaddress.ip_network("192.0.2.0/24"))) == 255
    for name in ("own.example", "good.evil.example", "a.evil.example", "192.0.2.5"):
        assert not world.why(name)["blocked"], name
    assert world.why("x.unlisted.example")["blocked"]
