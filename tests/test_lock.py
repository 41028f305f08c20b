"""One writer at a time, who says so; readers are never in the way and never see half of anything."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from installation import World, names

from blocklist.errors import LockedError
from blocklist.store.lock import Lock


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.feed("a", names(30))
    world.export("list")
    return world


def wait_for(path: Path, seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"{path} did not appear"
        time.sleep(0.01)


def test_the_second_writer_hears_who_holds_the_record_and_since_when(tmp_path: Path) -> None:
    with Lock(tmp_path, "update"):
        began = time.monotonic()
        with pytest.raises(LockedError) as caught, Lock(tmp_path, "export", wait=0.3):
            pass
        assert 0.3 <= time.monotonic() - began < 3
        assert "'blocklist update'" in caught.value.message and str(os.getpid()) in caught.value.message
        assert "since 20" in caught.value.message and caught.value.exit_code == 1
    with Lock(tmp_path, "export"):
        pass


def test_a_second_update_waits_for_the_first(world: World) -> None:
    world.update()
    reload = world.script("slow", f"touch {world.base}/reloading; sleep 1.5")
    world.exports["list"]["reload"] = reload
    world.lines("a", names(31))
    world.write()
    first = world.start("update")
    wait_for(world.base / "reloading")
    began = time.monotonic()
    second = world.call("update")
    assert second.code == 0 and "unchanged" in second.out
    assert time.monotonic() - began > 0.5
    assert first.wait(20) == 0
    first.communicate()
    world.assert_sound()


def test_the_lock_of_a_process_that_was_killed_is_taken_over_and_said(world: World) -> None:
    world.update()
    code = (
        "import sys, time, pathlib; from blocklist.store.lock import Lock\n"
        "with Lock(pathlib.Path(sys.argv[1]), 'update'):\n    print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(world.state)], stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    since = json.loads((world.state / "lock").read_text())["since"]
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    ran = world.run("update")
    assert ran.code == 0
    assert "took over" in ran.err and str(holder.pid) in ran.err and since in ran.err
    assert "took over" not in world.run("update").err


def test_a_lock_file_that_holds_nonsense_is_no_obstacle(world: World) -> None:
    world.state.mkdir()
    (world.state / "lock").write_bytes(b"\x1b]0;\xff\x00 not json")
    ran = world.run("update")
    assert ran.code == 0 and "\x1b" not in ran.text and "another process" in ran.err


def test_readers_work_during_an_update_and_see_the_last_commit(world: World) -> None:
    world.update()
    world.lines("a", [*names(30), "new.example"])
    world.exporter(
        "slow",
        'title = "x"\nkinds = ["domain"]\nexact = "{name}"\ncheck = ["'
        + world.script("check", f"touch {world.base}/checking; while [ ! -e {world.base}/go ]; do sleep 0.05; done")[0]
        + '", "{file}"]\n',
    )
    world.export("slow", "slow", check=True)
    writer = world.start("update")
    wait_for(world.base / "checking")
    # The listings are committed, the release is not: the file in place is still the old one.
    assert world.why("new.example")["listings"] != []
    assert world.run("status").code == 0
    assert "new.example" not in world.exported("list")
    assert world.run("held").code == 0 and world.run("release").code == 0
    (world.base / "go").touch()
    assert writer.wait(20) == 0
    writer.communicate()
    assert "new.example" in world.exported("list") and "new.example" in world.exported("slow")


def test_a_lock_that_a_full_disk_keeps_from_saying_who_holds_it_is_no_bug(world: World) -> None:
    world.update()
    # As where no block is left: no file may grow, that of the lock neither.
    full = ("prlimit", "--fsize=0")
    ran = world.call("doctor", "--repair", under=full)
    assert ran.code == 1 and ran.err == "" and f"{world.state}: file too large" in ran.out, ran.text
    world.lines("a", names(40))
    ran = world.call("update", under=full)
    assert ran.code == 1 and "unexpected" not in ran.err and str(world.state) in ran.err, ran.text
    assert "nothing is half written" in ran.err or "make room" in ran.err, ran.text
    assert world.update().code == 0 and world.exported("list") == names(40)


@pytest.mark.parametrize("what", ["var", "var/record.db", "var/kept"])
def test_the_doctor_names_what_of_the_state_others_may_write(world: World, what: str) -> None:
    world.update()
    path = world.base / what
    before = path.stat().st_mode
    assert "may write it" not in world.run("doctor").out
    path.chmod(before | 0o022)
    ran = world.run("doctor")
    # SQLite gives what it makes beside the record that one's mode.
    assert ran.code == 1 and re.search(rf"{path}(, and \d more)?: everybody may write it", ran.out), ran.out
    assert f"chmod -R o-w {world.state}" in ran.out
    for beside in world.state.glob("record.db-*"):
        beside.chmod(0o644)
    # A group of more than one: it may be meant so.
    os.chown(path, -1, 4711) if os.geteuid() == 0 else None
    path.chmod(before | 0o020)
    ran = world.run("doctor")
    if os.geteuid() == 0:
        assert ran.code == 0, ran.out
        assert re.search(rf"warn  folders        {path}(, and \d more)?: group 4711 may write it", ran.out), ran.out
