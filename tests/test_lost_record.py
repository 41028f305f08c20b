"""A record that is gone where one was: every command says so, and none begins another that knows no rule."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from installation import KILLER, World, digest, names

ALLOWED = names(1)[0]


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Published twice, with an allow rule that both lists obey."""
    world = World(tmp_path)
    world.feed("a", names(30))
    world.export("list", kinds=["domain"])
    world.export("dns", "rpz", options={"origin": "rpz.example"})
    assert world.update().code == 0
    ran = world.run("allow", "add", ALLOWED, "--reason", "ours", "--now")
    assert ran.code == 0, ran.text
    assert ALLOWED not in world.exported("list")
    return world


def tree(world: World) -> dict[str, str]:
    return {str(p): digest(p) for p in sorted(world.base.rglob("*")) if p.is_file() and p.name != "lock"}


def test_every_command_says_that_it_is_lost_and_none_changes_a_byte(world: World) -> None:
    world.database.unlink()
    before = tree(world)
    for words in (
        ("update",),
        ("update", "--force", "a"),
        ("export",),
        ("verify",),
        ("prune",),
        ("allow", "add", "x.example", "--reason", "r"),
        ("held", "release", ALLOWED, "--reason", "r"),
        ("release", "rollback", "list", "--reason", "r"),
        ("why", ALLOWED),
        ("history", ALLOWED),
        ("status",),
        ("report",),
        ("diff",),
        ("match", str(world.base / "feeds" / "a.txt")),
        ("feeds",),
        ("feeds", "show", "a"),
        ("held",),
        ("release",),
        ("events",),
        ("case",),
        ("doctor",),
        ("doctor", "--repair"),
    ):
        ran = world.run(*words)
        assert ran.code == 1, (words, ran.text)
        assert f"{world.database}" in ran.text and "is missing, but one was there and has left kept" in ran.text, words
        assert "restore it from a backup. " in ran.text and f"out of {world.state}" in ran.text
        assert "update' first" not in ran.text and "never published" not in ran.text
        assert tree(world) == before, words
    assert world.run("feeds", "test", "a").code == 0
    assert tree(world) == before


def test_a_timer_that_goes_on_calling_update_leaves_the_lists_alone(world: World) -> None:
    world.database.unlink()
    before = tree(world)
    for _ in range(2):
        ran = world.call("update")
        assert ran.code == 1 and ran.out == "" and ran.err.startswith(f"error: {world.database} is missing"), ran.text
    assert tree(world) == before


def test_the_backup_put_back_goes_on_with_its_rules(world: World) -> None:
    backup = world.base / "backup.db"
    with contextlib.closing(sqlite3.connect(world.database)) as db:
        db.execute("VACUUM INTO ?", (str(backup),))
    world.database.unlink()
    world.lines("a", names(31))
    assert world.update().code == 1
    shutil.copy(backup, world.database)
    assert world.update("--force").code == 0
    assert world.exported("list") == names(30, start=1)
    world.assert_sound()
    assert world.left_over() == []


def test_the_backup_put_back_is_not_mixed_with_what_was_decided_after_it(world: World) -> None:
    backup = world.base / "backup.db"
    with contextlib.closing(sqlite3.connect(world.database)) as db:
        db.execute("VACUUM INTO ?", (str(backup),))
    world.lines("a", names(34))
    assert world.update().code == 0
    for path in world.state.glob("record.db*"):
        path.unlink()
    shutil.copy(backup, world.database)
    told = [line for line in world.run("doctor").out.splitlines() if "exports/list" in line or "decided since" in line]
    assert "was a backup put back" in told[0] and "allows first" in told[1]
    # Another list under the number of the snapshot that the backup does not know.
    world.lines("a", [*names(25), "fresh.example"])
    assert world.update("--force").code == 0
    assert world.exported("list") == sorted({*names(25), "fresh.example"} - {ALLOWED})
    assert world.left_over() == []


def test_after_its_traces_were_moved_away_as_it_says_a_new_one_begins(world: World) -> None:
    world.database.unlink()
    hint = world.update().err
    away = world.base / "away"
    away.mkdir()
    left = hint.partition("has left ")[2].partition(" (1 downloads)")[0].split(", ")
    assert left == ["kept", "decided", "exports/*.frames", "approved", "snapshots"]
    subprocess.run(f"mv {' '.join(left)} {away}", shell=True, cwd=world.state, check=True)
    assert world.update().code == 0
    assert world.exported("list") == names(30)
    world.assert_sound()


def test_a_copy_beside_it_is_named_and_a_journal_of_the_lost_one_too(world: World) -> None:
    world.database.rename(world.state / "record-0007_verdict_detail.db")
    (world.state / "record.db-wal").write_bytes(b"of the lost one")
    err = world.update().err
    assert "beside it lie record-0007_verdict_detail.db; remove record.db-wal first" in err


@pytest.mark.parametrize(
    "left",
    [
        "record.db-wal",
        "record-0001_record.db",
        "record.db.damaged-20261124T060000Z",
        "kept/ab/abcd.zst",
        "decided/default.frames",
        "exports/3.frames",
        "approved/3.frames",
        "cases/1/evidence.zip",
        "delivery/abcd.zone",
    ],
)
def test_each_thing_that_only_a_record_leaves_is_enough(tmp_path: Path, left: str) -> None:
    world = World(tmp_path)
    world.feed("a", names(3))
    path = world.state / left
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    ran = world.update()
    assert ran.code == 1 and "is missing, but one was there" in ran.err
    assert not world.database.exists()


def test_one_that_held_rules_alone_or_published_nothing_is_missed_too(tmp_path: Path) -> None:
    for number, words in enumerate((("allow", "add", ALLOWED, "--reason", "ours"), ("update",))):
        folder = tmp_path / str(number)
        folder.mkdir()
        world = World(folder)
        world.feed("a", names(3))
        assert world.run(*words).code == 0
        world.database.unlink()
        assert "is missing, but one was there" in world.update().err, words


def test_a_record_that_a_version_before_this_one_began_is_missed_after_the_next_command_that_writes(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    world.feed("a", names(3))
    assert world.update().code == 0
    (world.state / "kept").rmdir()
    assert world.update().code == 0
    world.database.unlink()
    assert "is missing, but one was there" in world.update().err


def test_published_files_in_the_state_folder_itself_are_no_trace(tmp_path: Path) -> None:
    world = World(tmp_path)
    (tmp_path / "exports").mkdir()
    world.feed("a", names(3))
    world.export("list", kinds=["domain"])
    world.config.write_text('state = "."\n' + world.config.read_text())
    (tmp_path / "exports" / "list").write_text("old.example\n")
    assert world.update().code == 0
    assert world.exported("list") == names(3)
    (tmp_path / "record.db").unlink()
    assert "has left kept, decided, exports/*.frames" in world.update().err


def test_a_link_to_a_disk_that_is_not_there_is_not_replaced(world: World) -> None:
    elsewhere = world.base / "disk"
    elsewhere.mkdir()
    world.database.rename(elsewhere / "record.db")
    world.database.symlink_to(elsewhere / "record.db")
    assert world.run("status").code == 0
    elsewhere.rename(world.base / "unmounted")
    assert world.update().code == 1 and world.database.is_symlink()


# The first run


def first_runs(folder: Path, step: int) -> int:
    """First runs killed at every `step`th touch of a file, each followed by a plain one; how many had no record yet."""
    without = 0
    for number in range(1, 1_000, step):
        base = folder / str(number)
        base.mkdir()
        world = World(base)
        world.feed("a", names(30))
        world.feed("b", names(30, zone="b.example"))
        world.export("list", kinds=["domain"])
        words = [sys.executable, "-c", KILLER, str(number), str(world.state), "--config", str(world.config)]
        process = subprocess.run([*words, "update"], capture_output=True, check=False)
        if not world.database.exists():
            without += 1
            ran = world.run("why", ALLOWED)
            assert ran.code == 1 and "run 'blocklist update' first" in ran.err, ran.text
            ran = world.run("doctor")
            assert ran.code == 0 and "there is none yet" in ran.out, ran.text
        ran = world.update()
        assert ran.code == 0, ran.text
        assert world.exported("list") == sorted([*names(30), *names(30, zone="b.example")])
        world.assert_sound()
        assert world.left_over() == []
        if process.returncode != -signal.SIGKILL:
            assert process.returncode == 0, process.stderr.decode()
            break
    return without


def test_a_first_run_killed_at_some_touches_of_files_is_no_lost_record(tmp_path: Path) -> None:
    assert first_runs(tmp_path, 6) >= 3


@pytest.mark.slow
def test_a_first_run_killed_at_every_touch_of_a_file_is_no_lost_record(tmp_path: Path) -> None:
    assert first_runs(tmp_path, 1) >= 15
