"""The engine in several processes: each name once, nothing lost to a kill or Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from installation import World

from blocklist.verify.control import Control
from blocklist.verify.endpoint import Resolver
from blocklist.verify.known import Known
from blocklist.verify.loopback import LoopbackServer, serving
from blocklist.verify.processes import resolve_in
from blocklist.verify.results import Resolution, frame_schema
from blocklist.verify.task import Task

NAMES = [f"h{number:04}.example" for number in range(3000)]
TABLE = {"control.example": ["192.0.2.53"], **{name: ["192.0.2.1"] for name in NAMES[::2]}}
TRUTH = {name: "live" if name in TABLE else "nxdomain" for name in NAMES}


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    server = LoopbackServer(TABLE)
    with serving(server):
        yield server


def task(server: LoopbackServer, **changed: Any) -> Task:
    control = Control(("control.example",), "example")
    given: dict[str, Any] = {"rate": 0, "timeout": 2.0, "attempts": 3, "window": 64, **changed}
    return Task((Resolver("127.0.0.1", server.port),), known=Known(), control=control, zones=False, **given)


def told(result: Resolution) -> dict[str, str]:
    return dict(result.frame.select("name", "status").iter_rows())


def children(of: int) -> list[int]:
    """Processes whose parent is `of`, but for those that only watch shared resources."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat, command = (entry / "stat").read_text(), (entry / "cmdline").read_bytes()
            except OSError:
                continue
            fields = stat.rpartition(")")[2].split()
            if int(fields[1]) == of and fields[0] != "Z" and b"spawn_main" in command:
                found.append(int(entry.name))
    return found


def test_two_processes_settle_every_name_once(server: LoopbackServer) -> None:
    batches: list[pl.DataFrame] = []
    result = resolve_in(2, NAMES, task(server), on_batch=batches.append)
    assert told(result) == TRUTH and result.frame.height == len(NAMES)
    assert dict(result.frame.schema) == frame_schema() and pl.concat(batches).equals(result.frame)
    summary = result.summary
    assert summary.verdicts == {"live": 1500, "nxdomain": 1500} and summary.unfinished == 0
    [report] = summary.resolvers
    assert report.address == f"127.0.0.1:{server.port}" and report.sent == summary.queries >= 6000
    assert not children(os.getpid())


def test_more_processes_than_names_and_no_names_at_all(server: LoopbackServer) -> None:
    assert told(resolve_in(4, NAMES[:2], task(server))) == {name: TRUTH[name] for name in NAMES[:2]}
    assert resolve_in(2, [], task(server)).frame.height == 0


def test_the_rate_holds_over_all_of_them(server: LoopbackServer) -> None:
    result = resolve_in(2, NAMES[:300], task(server, rate=200))
    assert result.summary.queries / 200 * 0.8 < result.summary.seconds


def test_a_killed_process_is_replaced_and_what_it_handed_over_is_not_asked_again(server: LoopbackServer) -> None:
    killed = threading.Event()

    def kill() -> None:
        while server.queries < 1500:
            time.sleep(0.01)
        os.kill(children(os.getpid())[0], signal.SIGKILL)
        killed.set()

    thread = threading.Thread(target=kill)
    thread.start()
    result = resolve_in(2, NAMES, task(server, rate=3000))
    thread.join()
    assert killed.is_set()
    assert told(result) == TRUTH and result.frame.height == len(NAMES)
    notes = [report.dropped for report in result.summary.resolvers if report.address == "process"]
    assert notes == ["lost 1 times, its names were asked again by another"]


def test_an_error_in_the_callback_reaches_the_caller_and_ends_them_all(server: LoopbackServer) -> None:
    def full(frame: pl.DataFrame) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        resolve_in(2, NAMES, task(server), on_batch=full)
    assert not children(os.getpid())


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=["Ctrl-C", "kill", "kill -9"])
def test_an_interrupted_run_keeps_what_it_learned_and_leaves_no_process(
    tmp_path: Path, server: LoopbackServer, ending: signal.Signals
) -> None:
    world = World(tmp_path)
    names = [f"x{number}.example" for number in range(8000)]
    server.table = {"control.example": ["192.0.2.53"], **{name: ["192.0.2.1"] for name in names}}
    world.feed("a", names)
    world.export("list")
    control = {"exists": ["control.example"], "missing": "example"}
    world.set("verify", resolvers=[f"127.0.0.1:{server.port}"], control=control, rate=2000, processes=2)
    world.update("--no-verify")
    command = [sys.executable, "-m", "blocklist", "--config", str(world.config), "verify"]
    # A group of its own: at a terminal Ctrl-C reaches the processes too.
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as process:
        deadline = time.monotonic() + 60
        while not world.rows("SELECT count(*) FROM verdict")[0][0] and time.monotonic() < deadline:
            time.sleep(0.05)
        workers = children(process.pid)
        assert len(workers) == 2
        if ending is signal.SIGINT:
            os.killpg(process.pid, ending)
        else:
            process.send_signal(ending)
        _, err = process.communicate(timeout=60)
        assert b"Traceback" not in err, err
        assert process.returncode == (-ending if ending is signal.SIGKILL else 128 + ending)
    for _ in range(200):
        if not any(Path(f"/proc/{pid}").exists() for pid in workers):
            break
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    learned = world.rows("SELECT count(*) FROM verdict")[0][0]
    assert 0 < learned < 8000
    assert world.rows("SELECT DISTINCT status FROM verdict") == [("live",)]
    world.set("verify", resolvers=[f"127.0.0.1:{server.port}"], control=control, rate=20000)
    ran = world.run("verify", "--processes", "2", "--json")
    assert ran.code == 0 and ran.json["checked"] == 8000 - learned
    world.assert_sound()


def test_processes_are_of_this_machine(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("a", NAMES[:2])
    world.export("list")
    world.update("--no-verify")
    ran = world.run("verify", "--processes", "2", "--scheduler", "tcp://192.0.2.7:8786")
    assert ran.code == 2 and "--scheduler" in ran.err
