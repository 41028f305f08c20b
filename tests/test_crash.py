"""Killed at any moment: nothing is torn, nothing is lost, and the next run mends what is left without help (S1)."""

from __future__ import annotations

import contextlib
import os
import pty
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from installation import PROGRAM, World, digest, names, obeying_modes

from blocklist.store import snapshots

ZONES = ("a.example", "b.example", "c.example")


def a_world(folder: Path, size: int = 1500) -> World:
    world = World(folder)
    for zone in ZONES:
        world.feed(zone.partition(".")[0], names(size, zone=zone))
    world.feed("top", names(20, start=100, zone="a.example"), category="reference")
    world.export("list", kinds=["domain"])
    world.export("dns", "rpz", options={"origin": "rpz.example"})
    world.export("hosts", "hosts")
    world.set("gates", max_change=10.0)
    return world


def churn(world: World, chance: random.Random) -> None:
    """A day in the life of the feeds: some names leave, some come, one line is added at the top."""
    for zone in chance.sample(ZONES, chance.choice((1, 2, 3))):
        start, count = chance.randrange(40), 1500 + chance.randrange(40)
        world.lines(zone.partition(".")[0], [f"# {chance.random()}", *names(count, start, zone)])


def listed_by(data: bytes) -> list[str]:
    return sorted(line for line in data.decode().split("\n") if line and not line.startswith("#"))


def known_digests(world: World, export: str) -> set[str]:
    if not world.database.exists():
        return set()
    return {row[0] for row in world.rows("SELECT digest FROM release WHERE export = ?", export)}


def chain(world: World, number: int | None) -> list[int]:
    links: list[int] = []
    while number is not None:
        links.insert(0, number)
        number = world.rows("SELECT base FROM snapshot WHERE id = ?", number)[0][0]
    return links


def serial(world: World) -> int:
    path = world.base / "exports" / "dns"
    found = re.search(r" SOA \S+ \S+ (\d+) ", path.read_text()) if path.exists() else None
    return int(found[1]) if found else 0


def expected(world: World) -> list[str]:
    wanted = {n for z in ZONES for n in listed_by((world.base / "feeds" / f"{z.partition('.')[0]}.txt").read_bytes())}
    return sorted(wanted - set(names(20, start=100, zone="a.example")))


def assert_healed(world: World, chance: random.Random) -> None:
    """One plain run later everything agrees: feeds, record, files, `why`."""
    ran = world.update()
    assert ran.code == 0, ran.text
    sound_listings(world)
    world.assert_sound()
    assert world.left_over() == []
    assert world.exported("list") == expected(world)
    live = dict(world.rows("SELECT export, digest FROM release WHERE state = 'live'"))
    assert live == {name: digest(world.base / "exports" / name) for name in world.exports}
    assert world.rows("SELECT 1 FROM release WHERE state = 'pending'") == []
    for zone in ZONES:
        name = names(1, chance.randrange(1700), zone)[0]
        assert world.why(name)["blocked"] == (name in expected(world)), name


def wait_for_work(world: World, process: subprocess.Popen[bytes]) -> None:
    """Until the process holds the lock: the half second of imports before is not worth killing in."""
    while process.poll() is None:
        with contextlib.suppress(OSError):
            if str(process.pid) in (world.state / "lock").read_text():
                return
        time.sleep(0.005)


def kill_often(world: World, times: int, chance: random.Random) -> int:
    """Kill `times` updates at random moments; how many were still at work."""
    world.update()
    churn(world, chance)
    began = time.monotonic()
    world.update()
    length = 2 * (time.monotonic() - began) + 0.05
    killed = 0
    seen: dict[str, set[str]] = {name: set() for name in world.exports}
    last = serial(world)
    for turn in range(times):
        churn(world, chance)
        if turn % 7 == 5:
            # The record is lost, the published files are not: the first load is killed too.
            for name in world.exports:
                seen[name] |= known_digests(world, name)
            shutil.rmtree(world.state)
        process = world.start("update", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for_work(world, process)
        time.sleep(chance.uniform(0, length))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        check_files(world, seen)
        assert serial(world) >= last
        last = serial(world)
        if chance.random() < 0.7:
            assert_healed(world, chance)
            assert serial(world) >= last
            last = serial(world)
    assert_healed(world, chance)
    return killed


def check_files(world: World, seen: dict[str, set[str]]) -> None:
    if world.database.exists():
        world.assert_sound()
        sound_listings(world)
    for name in world.exports:
        path = world.base / "exports" / name
        assert path.read_bytes().endswith(b"\n")
        assert digest(path) in known_digests(world, name) | seen[name]


def sound_listings(world: World) -> None:
    current = "SELECT f.name, s.id, s.entries FROM snapshot s JOIN feed f ON f.id = s.feed WHERE s.state = 'current'"
    for feed, number, entries in world.rows(current):
        wanted = listed_by(snapshots.read(world.state, chain(world, number)))
        assert world.listed(feed) == wanted and entries == len(wanted)


@pytest.mark.alone
def test_twenty_kills_at_random_moments_tear_nothing(tmp_path: Path) -> None:
    assert kill_often(a_world(tmp_path), 20, random.Random(20261124)) >= 10


@pytest.mark.alone
@pytest.mark.slow
def test_two_hundred_kills_at_random_moments_tear_nothing(tmp_path: Path) -> None:
    assert kill_often(a_world(tmp_path), 200, random.Random(7)) >= 100


# At moments that chance would rarely hit


def killed_in(world: World, script: str) -> None:
    """Run an update that a stub of ours kills from within."""
    process = world.start("update")
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL, script


def test_killed_by_its_checker_it_published_nothing_and_heals(tmp_path: Path) -> None:
    world = a_world(tmp_path, 50)
    world.checker("deadly", "exit 0")
    world.export("checked", "deadly", check=True)
    world.update()
    before = {name: digest(world.base / "exports" / name) for name in world.exports}
    world.checker("deadly", 'kill -9 "$PPID"')
    world.lines("b", names(60, zone="b.example"))
    killed_in(world, "checker")
    assert {name: digest(world.base / "exports" / name) for name in world.exports} == before
    assert world.left_over() != []
    world.checker("deadly", "exit 0")
    assert_healed(world, random.Random(1))


def test_killed_by_its_reload_command_it_reloads_at_the_next_run(tmp_path: Path) -> None:
    world = a_world(tmp_path, 50)
    world.exports["dns"]["reload"] = world.script("reload", 'kill -9 "$PPID"')
    world.write()
    killed_in(world, "reload")
    world.script("reload", f"touch {tmp_path}/reloaded")
    ran = world.update()
    assert ran.code == 0 and ran.export("dns")["outcome"] == "unchanged"
    assert (tmp_path / "reloaded").exists()
    (tmp_path / "reloaded").unlink()
    world.update()
    assert not (tmp_path / "reloaded").exists()


@pytest.mark.parametrize("renamed", [True, False], ids=["after the rename", "before the rename"])
def test_killed_around_the_rename_the_next_run_knows_by_the_digest_which_it_was(tmp_path: Path, renamed: bool) -> None:
    world = a_world(tmp_path, 200)
    world.set("gates", max_change=0.3)
    world.update()
    old = {name: (world.base / "exports" / name).read_bytes() for name in world.exports}
    world.lines("b", names(210, zone="b.example"))
    world.update()
    # The record as it stands between "pending" and "live" (release.py records one, renames, records the other).
    for name in world.exports:
        world.change("UPDATE release SET state = 'pending', published = NULL WHERE export = ? AND state = 'live'", name)
        world.change(
            "UPDATE release SET state = 'live' WHERE id = "
            "(SELECT max(id) FROM release WHERE export = ? AND state = 'superseded')",
            name,
        )
        if not renamed:
            (world.base / "exports" / name).write_bytes(old[name])
    ran = world.update()
    assert ran.code == 0
    assert {e["outcome"] for e in ran.json["exports"]} == {"unchanged" if renamed else "published"}
    assert all(e["note"] == "" for e in ran.json["exports"]), "the file was not edited by hand"
    states = [row[0] for row in world.rows("SELECT state FROM release WHERE export = 'dns' ORDER BY id")]
    assert states == (["superseded", "live"] if renamed else ["superseded", "failed", "live"])
    world.lines("b", names(215, zone="b.example"))
    ran = world.update()
    assert (ran.export("list")["added"], ran.export("list")["removed"]) == (5, 0)


def killed_after_the_rename(folder: Path, **keys: object) -> World:
    """A run was killed when its files were in place, and the record did not call them live yet."""
    world = a_world(folder, 40)
    world.exports["list"].update(keys)
    world.write()
    for count in (40, 41, 42):
        world.lines("b", names(count, zone="b.example"))
        assert world.update().code == 0
    world.change("UPDATE release SET state = 'pending', published = NULL WHERE export = 'list' AND state = 'live'")
    world.change(
        "UPDATE release SET state = 'live' WHERE id = "
        "(SELECT max(id) FROM release WHERE export = 'list' AND state = 'superseded')"
    )
    return world


def test_after_a_kill_why_speaks_of_the_file_that_stands(tmp_path: Path) -> None:
    world = killed_after_the_rename(tmp_path)
    name = names(42, zone="b.example")[-1]
    number = world.rows("SELECT id FROM release WHERE state = 'pending'")[0][0]
    told = next(e for e in world.why(name)["exports"] if e["name"] == "list")
    assert name in world.exported("list")
    assert (told["blocked"], told["release"], told["pending"]) == (True, number, None)


@pytest.mark.parametrize("keys", [{}, {"split": "category"}], ids=["one file", "split"])
def test_after_a_kill_doctor_takes_nothing_for_edited(tmp_path: Path, keys: dict[str, str]) -> None:
    world = killed_after_the_rename(tmp_path, **keys)
    number = world.rows("SELECT id FROM release WHERE state = 'pending'")[0][0]
    ran = world.run("doctor")
    assert ran.code == 0 and "edited" not in ran.text, ran.text
    assert f"is of release {number}, which a run has begun to publish" in ran.text
    assert world.run("export").code == 0
    ran = world.run("doctor")
    assert ran.code == 0 and "begun to publish" not in ran.text


def test_after_a_kill_a_rollback_goes_back_from_the_file_that_stands(tmp_path: Path) -> None:
    world = killed_after_the_rename(tmp_path)
    before = world.rows("SELECT id FROM release WHERE export = 'list' AND state = 'live'")[0][0]
    assert world.run("release", "rollback", "list", "--reason", "x").code == 0
    assert world.rows("SELECT release FROM pin WHERE until IS NULL") == [(before,)]
    assert [n for n in world.exported("list") if n.endswith(".b.example")] == names(41, zone="b.example")


# Caches: whatever a crash or a disk made of them, they are made again or not believed

CACHES = ("columns/*.columns", "columns/*.bytes", "columns/*.times", "decided/*.frames", "exports/*.frames")


def lasting_world(folder: Path) -> World:
    """Every cache there is: listings that linger need times, policies are decided, exports kept."""
    folder.mkdir(exist_ok=True)
    world = a_world(folder, 60)
    world.feeds["a"]["linger"] = "30d"
    world.write()
    return world


class Lasting(NamedTuple):
    """A world after two updates, whose folder is kept at `saved`; the caches after the first of them; and what a third
    gives where all is sound: published files, open listings, and those that ended.
    """

    world: World
    saved: Path
    old: dict[str, dict[str, bytes]]
    sound: object

    def third(self) -> object:
        self.world.lines("a", names(72, start=5, zone="a.example"))
        self.world.lines("c", names(61, zone="c.example"))
        assert self.world.update().code == 0
        ended = [row[::3] for row in self.world.closed()]
        return {name: self.world.exported(name) for name in ("list", "hosts")}, self.world.listed(), ended

    def again(self) -> World:
        """In the same place, whose path is in the record."""
        shutil.rmtree(self.world.base)
        shutil.copytree(self.saved, self.world.base)
        return self.world


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Lasting:
    folder = tmp_path_factory.mktemp("lasting")
    world = lasting_world(folder / "world")
    world.update()
    old = {cache: {path.name: path.read_bytes() for path in world.state.glob(cache)} for cache in CACHES}
    world.lines("a", names(70, start=3, zone="a.example"))
    world.lines("b", names(55, zone="b.example"))
    world.update()
    shutil.copytree(world.base, folder / "saved")
    made = Lasting(world, folder / "saved", old, None)
    return made._replace(sound=made.third())


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("harm", ["lost", "half", "empty", "flipped", "longer", "stale"])
def test_a_cache_that_is_torn_or_stale_changes_nothing(lasting: Lasting, cache: str, harm: str) -> None:
    world, old = lasting.again(), lasting.old[cache]
    assert old, cache
    # Files of numbered snapshots never come back under their number: what is stale is another one's content.
    stale = dict(zip(sorted(p.name for p in world.state.glob(cache)), sorted(old.values()), strict=False))
    for path in list(world.state.glob(cache)):
        data = path.read_bytes()
        if harm == "lost":
            path.unlink()
        elif harm == "stale":
            path.write_bytes(old.get(path.name, stale.get(path.name, data)))
        else:
            flipped = bytearray(data)
            for at in range(len(data) // 2, len(data), 97):
                flipped[at] ^= 1
            half = data[: len(data) // 2]
            path.write_bytes({"half": half, "empty": b"", "flipped": flipped, "longer": data + b"x"}[harm])
    assert lasting.third() == lasting.sound
    world.assert_sound()
    assert world.left_over() == []


@pytest.mark.parametrize("harm", ["a link to a disk that is gone", "a file", "closed"])
def test_without_a_place_for_caches_what_is_listed_is_read_and_published(tmp_path: Path, harm: str) -> None:
    world = lasting_world(tmp_path)
    world.update()
    wanted = expected(world)
    folder = world.state / "columns"
    shutil.rmtree(folder)
    shutil.rmtree(world.state / "decided")
    if harm == "a file":
        folder.write_bytes(b"")
    elif harm == "closed":
        folder.mkdir(0o555)
    else:
        folder.symlink_to(tmp_path / "unmounted" / "columns")
    for words in (
        ("match", "feeds/a.txt"),
        ("report", "-o", "-"),
        ("feeds", "overlap"),
        ("export", "--format", "domains", "-o", "-"),
    ):
        ran = world.call(*words, under=obeying_modes(), cwd=tmp_path)
        assert ran.code == 0, ran.text
    ran = world.call("deny", "add", "denied.example", "--reason", "r", "--now", under=obeying_modes())
    assert ran.code == 0, ran.text
    assert world.exported("list") == sorted([*wanted, "denied.example"])
    world.lines("b", names(70, zone="b.example"))
    ran = world.call("update", under=obeying_modes())
    assert ran.code == 3 and str(folder) in ran.text and "unexpected" not in ran.text, ran.text
    assert harm == "closed" or "is no folder, or a link to one that is not there" in ran.text
    assert world.listed("b") == names(60, zone="b.example")


def test_a_download_that_could_not_be_taken_leaves_no_file_behind_the_others(tmp_path: Path) -> None:
    world = lasting_world(tmp_path)
    world.update()
    last = world.rows("SELECT max(id) FROM snapshot")[0][0]
    # Of the three feeds that changed, the one with the first number can't write its columns.
    (world.state / "columns" / f"{last + 1}.columns.new").mkdir()
    for zone in ZONES:
        world.lines(zone.partition(".")[0], names(70, start=2, zone=zone))
    ran = world.update()
    assert ran.code == 3 and [f["outcome"] for f in ran.json["feeds"]].count("failed") == 1
    assert f"{last + 1}.columns.new" in next(f["error"] for f in ran.json["feeds"] if f["outcome"] == "failed")
    assert world.update().code == 0
    (world.state / "columns" / f"{last + 1}.columns.new").rmdir()
    assert world.left_over() == []
    assert world.run("doctor", "--deep").code == 0


def test_bytes_of_another_snapshot_are_neither_shown_as_proof_nor_read_again(tmp_path: Path) -> None:
    world = lasting_world(tmp_path)
    world.update()
    name = names(5, zone="b.example")[-1]
    number = world.rows("SELECT s.id FROM snapshot s JOIN feed f ON f.id = s.feed WHERE f.name = 'b'")[0][0]
    before = world.exported("list")
    # Whole, and readable: as of a folder that was put back from another time, or another machine.
    snapshots.write(world.state, number, b"wrong.example\n" * 60, None, 0)
    assert world.why(name)["listings"][0]["text"] is None
    assert "wrong.example" not in world.run("why", name).text
    assert "wrong.example" not in world.run("case", "open", name, "--ticket", "T1").text
    for path in (world.state / "columns").glob("*.bytes"):
        path.unlink()
    world.feeds["b"]["scope"] = "subtree"  # the same bytes are read anew
    world.write()
    ran = world.update()
    assert ran.code == 3 and "was recorded with" in ran.feed("b")["error"]
    assert world.exported("list") == before and "wrong.example" not in world.listed()


@pytest.mark.parametrize("where", ["a full disk", "a reader that went away"])
def test_a_screen_that_can_not_be_written_to_stops_no_list(tmp_path: Path, where: str) -> None:
    world = lasting_world(tmp_path)
    assert world.update().code == 0

    def call(*words: str) -> tuple[int, str]:
        if where == "a full disk":
            with open("/dev/full", "wb") as out:
                process = world.start(*words, stdout=out)
                err = process.communicate(timeout=60)[1].decode()
        else:
            process = world.start(*words)
            assert process.stdout is not None and process.stderr is not None
            process.stdout.close()
            err = process.stderr.read().decode()
            process.wait(timeout=60)
        return process.returncode, err

    world.lines("b", names(70, zone="b.example"))
    code, err = call("update")
    assert code == 1 and "unexpected" not in err and "Traceback" not in err, err
    assert where == "a reader that went away" or "no space left on device" in err
    assert world.exported("list") == expected(world)
    assert call("deny", "add", "denied.example", "--reason", "r", "--now")[0] == 1
    assert "denied.example" in world.exported("list")
    world.assert_sound()
    assert world.run("status").code == 0


@pytest.mark.parametrize(
    ("folder", "left"),
    [
        ("columns", ["9.columns.new", "9.times.new"]),
        ("decided", ["0123.new"]),
        ("exports", ["9.new"]),
        ("snapshots/00000", ["9.new"]),
        ("incoming", [".fetch-a-x1"]),
    ],
)
def test_what_a_kill_leaves_half_written_is_removed(tmp_path: Path, folder: str, left: list[str]) -> None:
    world = lasting_world(tmp_path)
    world.update()
    for name in left:
        (world.state / folder / name).write_bytes(b"half")
    world.lines("b", names(70, zone="b.example"))
    assert world.update().code == 0
    assert world.left_over() == []


def test_what_a_kill_left_among_kept_bytes_goes_even_when_the_lists_went_back(tmp_path: Path) -> None:
    world = lasting_world(tmp_path)
    world.update()
    # As a run leaves it that is killed while it keeps what it was about to publish.
    half = world.state / "kept" / "00" / f"{'00' * 32}.new"
    half.parent.mkdir(exist_ok=True)
    half.write_bytes(b"half")
    columns = [row[1] for row in world.rows("PRAGMA table_info(release)") if row[1] not in ("id", "state", "digest")]
    told = ", ".join(columns)
    world.change(
        f"INSERT INTO release (state, digest, {told}) SELECT 'pending', '00', {told} FROM release WHERE export = 'list'"
    )
    ran = world.update()
    assert ran.code == 0 and {e["outcome"] for e in ran.json["exports"]} == {"unchanged"}
    assert world.left_over() == [] and not half.exists()


# Stops itself as by kill -9 before its n-th writing, renaming or removing of a file below a folder.
KILLER = """
import os, signal, sys
left, folder = int(sys.argv.pop(1)), sys.argv.pop(1)

def hook(event, given):
    global left
    touches = event in ("os.rename", "os.remove") or (event == "open" and isinstance(given[2], int) and given[2] & 3)
    if touches and str(given[0]).startswith(folder) and not str(given[0]).endswith("/lock"):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
from blocklist.cli import main
main()
"""


def kill_at_writes(world: World, step: int) -> int:
    """Update again and again, killed at every `step`th touch of a file, until one run ends; how many died."""
    world.update()
    killed = 0
    for number in range(1, 1_000, step):
        world.lines("a", names(60 + number % 7, start=number % 11, zone="a.example"))
        world.lines("b", names(60 + number % 5, start=number % 3, zone="b.example"))
        words = [sys.executable, "-c", KILLER, str(number), str(world.base), "--config", str(world.config), "update"]
        process = subprocess.run(words, capture_output=True, check=False)
        if process.returncode != -signal.SIGKILL:
            assert process.returncode == 0, process.stderr.decode()
            break
        killed += 1
        world.assert_sound()
        if killed % 3:
            ran = world.update()
            assert ran.code == 0, ran.text
            assert_as_from_nothing(world)
    assert world.update().code == 0
    assert_as_from_nothing(world)
    return killed


def assert_as_from_nothing(world: World) -> None:
    """What stands is what a record that never saw a crash, nor a cache, would publish of these listings."""
    world.assert_sound()
    assert world.left_over() == []
    before = {name: world.exported(name) for name in ("list", "hosts")}
    listed = {name for (name,) in world.rows("SELECT DISTINCT name FROM listing WHERE feed <> 5")}
    assert set(world.listed("b")) == set(listed_by((world.base / "feeds" / "b.txt").read_bytes()))
    assert set(world.listed("a")) >= set(listed_by((world.base / "feeds" / "a.txt").read_bytes()))
    for folder in ("columns", "decided", "exports"):
        shutil.rmtree(world.state / folder, ignore_errors=True)
    assert listed and world.run("export", "list", "hosts").code == 0
    assert {name: world.exported(name) for name in ("list", "hosts")} == before


def test_killed_at_some_touches_of_files_the_next_run_heals(tmp_path: Path) -> None:
    assert kill_at_writes(lasting_world(tmp_path), 9) >= 4


@pytest.mark.slow
def test_killed_at_every_touch_of_a_file_the_next_run_heals(tmp_path: Path) -> None:
    assert kill_at_writes(lasting_world(tmp_path), 1) >= 30


# Ctrl-C, and what systemd, `timeout` and a closed terminal send


def interrupted(
    world: World, ready: Callable[[], bool], *words: str, by: int = signal.SIGINT, again: Sequence[float] = ()
) -> str:
    """Interrupt the command when it is `ready`, and again after so many seconds; what it says."""
    process = world.start(*words)
    until = time.monotonic() + 20
    while not ready():
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.01)
    began = time.monotonic()
    process.send_signal(by)
    for pause in again:
        time.sleep(pause)
        process.send_signal(by)
    out, err = process.communicate(timeout=20)
    assert time.monotonic() - began < 5
    # The interpreter itself, which takes leave when all is done, ends by a signal that comes so late.
    assert process.returncode == 128 + by or (again and process.returncode == -by), (process.returncode, out, err)
    assert b"Traceback" not in out + err, err
    told = "interrupted" if by == signal.SIGINT else f"ended by {signal.Signals(by).name}"
    assert f"{told}; what was recorded is kept" in err.decode(), err
    return err.decode()


def says(path: Path) -> bool:
    """Has a script written its number there? The file is there before that."""
    return path.exists() and path.read_text().endswith("\n")


def is_gone(process: int) -> bool:
    """Has it ended, or does it within a moment? Whoever inherits it may take a while to hear of it."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


ENDINGS = pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda by: by.name)


@ENDINGS
@pytest.mark.parametrize("again", [(), (0.0, 0.0), (0.02, 0.02)], ids=["once", "thrice at once", "thrice"])
def test_ctrl_c_while_a_checker_runs_leaves_the_old_files_and_no_process(
    tmp_path: Path, by: signal.Signals, again: Sequence[float]
) -> None:
    world = a_world(tmp_path, 50)
    world.checker("slow", "exit 0")
    world.export("checked", "slow", check=True)
    world.update()
    before = {name: digest(world.base / "exports" / name) for name in world.exports}
    world.checker("slow", f"echo $$ > {tmp_path}/checking; sleep 30")
    world.lines("b", names(60, zone="b.example"))
    interrupted(world, partial(says, tmp_path / "checking"), "update", by=by, again=again)
    assert {name: digest(world.base / "exports" / name) for name in world.exports} == before
    assert world.left_over() == [] and world.listed("b") == names(60, zone="b.example")
    process = int((tmp_path / "checking").read_text())
    assert is_gone(process)
    world.checker("slow", "exit 0")
    assert_healed(world, random.Random(1))


@ENDINGS
@pytest.mark.parametrize("again", [(), (0.0, 0.0)], ids=["once", "thrice"])
def test_ctrl_c_while_a_reload_command_runs_ends_it_and_the_next_run_loads(
    tmp_path: Path, by: signal.Signals, again: Sequence[float]
) -> None:
    world = a_world(tmp_path, 50)
    world.export("loaded", reload=world.script("load", "exit 0"))
    world.update()
    world.lines("b", names(60, zone="b.example"))
    world.script("load", f"echo $$ > {tmp_path}/loading; sleep 30")
    interrupted(world, partial(says, tmp_path / "loading"), "update", by=by, again=again)
    assert is_gone(int((tmp_path / "loading").read_text()))
    assert "h00059.b.example" in world.exported("loaded")
    world.script("load", f"touch {tmp_path}/loaded")
    assert_healed(world, random.Random(1))
    assert (tmp_path / "loaded").exists()


@pytest.mark.parametrize("nohup", [False, True], ids=["", "nohup"])
def test_a_closed_terminal_ends_it_unless_nohup_says_otherwise(tmp_path: Path, nohup: bool) -> None:
    world = a_world(tmp_path, 50)
    world.checker("slow", "exit 0")
    world.export("checked", "slow", check=True)
    world.update()
    before = world.exported("checked")
    world.checker("slow", f"echo $$ > {tmp_path}/checking; sleep 2")
    world.lines("b", names(60, zone="b.example"))
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGHUP, signal.SIG_IGN if nohup else signal.SIG_DFL)
        os.execv(sys.executable, [*PROGRAM, "--config", str(world.config), "update"])
    until = time.monotonic() + 20
    while not says(tmp_path / "checking"):
        assert time.monotonic() < until
        time.sleep(0.01)
    os.close(terminal)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    # Lists are published all the same where the screen is gone; then the exit code is 1.
    assert status == (1 if nohup else 128 + signal.SIGHUP)
    assert (world.exported("checked") != before) == nohup
    assert is_gone(int((tmp_path / "checking").read_text())) and world.left_over() == []


@ENDINGS
@pytest.mark.parametrize("again", [(), (0.0, 0.0), (0.02, 0.02)], ids=["once", "thrice at once", "thrice"])
def test_ctrl_c_while_a_publisher_is_silent_records_nothing_of_the_run(
    tmp_path: Path, by: signal.Signals, again: Sequence[float]
) -> None:
    world = a_world(tmp_path, 50)
    world.update()
    runs = world.rows("SELECT count(*) FROM run")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        called: list[socket.socket] = []
        silent.settimeout(0.01)

        def ready() -> bool:
            try:
                called.append(silent.accept()[0])
            except TimeoutError:
                return False
            return True

        world.feed("web", url=f"http://127.0.0.1:{silent.getsockname()[1]}/", allow_private=True)
        interrupted(world, ready, "update", by=by, again=again)
        for connection in called:
            connection.close()
    assert world.rows("SELECT count(*) FROM run") == runs
    del world.feeds["web"]
    world.write()
    assert_healed(world, random.Random(1))


def test_times_that_a_killed_run_wrote_go_to_no_other_feed(tmp_path: Path) -> None:
    """It never recorded its snapshot, whose number the next run gives away anew."""
    world = lasting_world(tmp_path)
    world.update()
    last = max(int(path.stem) for path in (world.state / "columns").iterdir())
    shutil.copy(next((world.state / "columns").glob("*.times")), world.state / "columns" / f"{last + 1}.times")
    world.lines("b", names(70, zone="b.example"))
    assert world.update().code == 0
    assert (world.state / "columns" / f"{last + 1}.columns").exists()
    assert not (world.state / "columns" / f"{last + 1}.times").exists()
