"""A record of another installation in a folder that is not its own: whoever writes refuses it, whoever reads warns."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

import pytest
from installation import World, digest, names

FOREIGN = "is of another installation than the files beside it"


def installation(base: Path, listed: list[str]) -> World:
    base.mkdir()
    world = World(base)
    world.feed("a", listed)
    world.export("list")
    assert world.update().code == 0
    return world


@pytest.fixture
def world(tmp_path: Path) -> World:
    return installation(tmp_path / "here", names(30))


@pytest.fixture
def other(tmp_path: Path) -> World:
    return installation(tmp_path / "there", names(30, 500))


def tree(world: World) -> dict[str, str]:
    return {str(p): digest(p) for p in sorted(world.base.rglob("*")) if p.is_file() and p.name != "lock"}


def backup(world: World, to: Path) -> Path:
    """As docs/operations.md says."""
    with contextlib.closing(sqlite3.connect(world.database)) as db:
        db.execute("VACUUM INTO ?", (str(to),))
    return to


def put(record: Path, world: World) -> None:
    for journal in ("-wal", "-shm"):
        world.database.with_name(world.database.name + journal).unlink(missing_ok=True)
    shutil.copyfile(record, world.database)


def test_what_writes_refuses_it_and_changes_nothing(world: World, other: World, tmp_path: Path) -> None:
    put(backup(other, tmp_path / "copy.db"), world)
    before = tree(world)
    for words in (
        ("update",),
        ("update", "--force"),
        ("export",),
        ("prune",),
        ("allow", "add", "x.example", "--reason", "r"),
        ("release", "rollback", "list", "--reason", "r"),
        ("doctor",),
        ("doctor", "--repair"),
    ):
        ran = world.run(*words)
        assert ran.code == 1 and FOREIGN in ran.text, (words, ran.text)
        assert f"identity, kept, snapshots out of {world.state}" in ran.text, (words, ran.text)
        assert tree(world) == before, words


def test_what_reads_warns_once(world: World, other: World, tmp_path: Path) -> None:
    put(backup(other, tmp_path / "copy.db"), world)
    for words in (("why", names(1)[0]), ("status",), ("feeds",), ("history", "x.example"), ("events",), ("release",)):
        ran = world.run(*words)
        assert ran.code == 0 and ran.err.count(FOREIGN) == 1 and "warning: " in ran.err, (words, ran.text)
    assert FOREIGN not in world.run("status", "--quiet").text


def test_the_ways_out_go_on(world: World, other: World, tmp_path: Path) -> None:
    own = backup(world, tmp_path / "own.db")
    put(backup(other, tmp_path / "copy.db"), world)
    put(own, world)
    assert world.update("--force").code == 0 and world.exported("list") == names(30)
    # With this record alone: feeds are asked again, and nothing of the old folder is taken for its own.
    put(tmp_path / "copy.db", world)
    aside = tmp_path / "aside"
    aside.mkdir()
    for path in world.state.iterdir():
        if path.name not in ("record.db", "lock"):
            path.rename(aside / path.name)
    ran = world.update("--force")
    assert ran.code == 0, ran.text
    assert world.exported("list") == names(30) and world.listed() == names(30)
    assert FOREIGN not in world.run("doctor").text


def test_backups_and_moved_folders_are_no_strangers(world: World, tmp_path: Path) -> None:
    own = backup(world, tmp_path / "own.db")
    world.lines("a", names(31))
    assert world.update().code == 0
    put(own, world)
    ran = world.update("--force")
    assert ran.code == 0 and FOREIGN not in ran.text and world.listed() == names(31)
    # The whole installation elsewhere.
    shutil.copytree(world.base, tmp_path / "moved")
    moved = World(tmp_path / "moved", world.feeds, world.exports)
    moved.write()
    assert moved.update().code == 0 and FOREIGN not in moved.run("status").text
    # A record that was lost, its folder put aside as the message says, and a new one begun.
    world.state.rename(tmp_path / "var.lost")
    assert world.update().code == 0
    put(own, world)
    ran = world.update()
    assert ran.code == 1 and FOREIGN in ran.err, "what lies there is of the record that was begun anew"


def test_a_record_from_before_there_were_such_numbers_is_of_the_folder_that_it_lies_in(
    world: World, tmp_path: Path
) -> None:
    world.change("DELETE FROM counter WHERE name = 'identity'")
    old = backup(world, tmp_path / "old.db")
    (world.state / "identity").unlink()
    assert world.run("status").err == "" and world.update().code == 0
    (number,) = world.rows("SELECT value FROM counter WHERE name = 'identity'")[0]
    assert int((world.state / "identity").read_text()) == number
    put(old, world)
    assert world.update("--force").code == 0
    assert world.rows("SELECT value FROM counter WHERE name = 'identity'") == [(number,)]


def test_a_repaired_record_stays_of_its_folder(world: World) -> None:
    number = (world.state / "identity").read_text()
    data = bytearray(world.database.read_bytes())
    with contextlib.closing(sqlite3.connect(world.database)) as db:
        size = db.execute("PRAGMA page_size").fetchone()[0]
        (root,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'listing'").fetchone()
    data[(root - 1) * size : (root - 1) * size + 100] = b"\xff" * 100
    world.database.write_bytes(bytes(data))
    ran = world.run("doctor", "--repair")
    assert "new" in ran.text and (world.state / "identity").read_text() == number, ran.text
    assert world.update("--force").code == 0 and world.listed() == names(30)
