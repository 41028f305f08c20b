"""A system that grants too little memory, threads or open files: told in words, with the way out; nothing torn."""

from __future__ import annotations

import contextlib
import os
import resource
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from installation import Ran, World, names

from blocklist.shortage import shortage_of


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.feed("a", names(50))
    world.export("list")
    assert world.update().code == 0
    world.lines("a", names(60))
    return world


def limited(world: World, limit: int, most: int, *words: object, **environment: str) -> Ran:
    return world.call(
        *words,
        preexec_fn=lambda: resource.setrlimit(limit, (most, most)),
        env={**os.environ, "RUST_BACKTRACE": "0", **environment},
    )


def assert_told(world: World, ran: Ran, *words: str) -> None:
    assert ran.code == 1 and "Traceback" not in ran.err and "This is a bug" not in ran.err, ran.err
    assert all(word in ran.err for word in ("error: ", "hint: ", *words)), ran.err
    assert world.exported("list") == names(50)
    assert world.update().code == 0 and world.exported("list") == names(60)
    world.assert_sound()
    assert world.left_over() == []


def test_no_thread_of_ours_can_start(world: World) -> None:
    # A stack that has no room in any address space.
    ran = limited(world, resource.RLIMIT_STACK, 1 << 47, "update", "--force")
    assert_told(world, ran, "no more threads", "ulimit -u", "TasksMax=")


def test_no_thread_of_the_column_library_can_start(world: World) -> None:
    # 3,000 stacks of 2 MB have no room.
    ran = limited(world, resource.RLIMIT_AS, 3 << 30, "update", "--force", POLARS_MAX_THREADS="3000")
    assert_told(world, ran, "no more threads", "ulimit -u", "TasksMax=")


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        held.wait(5)
        # A run that has ended by now listens no more: that is no error of the next one's.
        with contextlib.suppress(ConnectionError):
            self.send_response(200)
            self.end_headers()
            self.wfile.write("".join(f"{name}\n" for name in names(50)).encode())

    def log_message(self, *_: object) -> None:
        pass


held = threading.Event()


@pytest.fixture
def web() -> Iterator[int]:
    """The port of a server at every address of loopback, that answers when `held` is set."""
    held.clear()
    with ThreadingHTTPServer(("", 0), _Page) as server:
        server.request_queue_size = 64
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1]
        held.set()
        server.shutdown()


def test_too_many_open_files_are_no_disk_without_room(world: World, web: int) -> None:
    for number in range(40):
        # Of one host few are asked at once.
        world.feed(f"w{number}", url=f"http://127.0.0.{number + 2}:{web}/", allow_private=True)
    # They are all asked before the first of them answers.
    threading.Timer(1.5, held.set).start()
    ran = limited(world, resource.RLIMIT_NOFILE, 24, "update", "--force")
    assert ran.code == 1 and "Traceback" not in ran.err, ran.err
    assert "too many open files" in ran.err and "ulimit -n" in ran.err and "LimitNOFILE=" in ran.err, ran.err
    assert "make room" not in ran.err and "MB" not in ran.err
    assert world.exported("list") == names(50) and world.left_over() == []
    assert world.update("--force").code == 0 and world.exported("list") == names(60)


def test_memory_that_ran_out_is_no_bug() -> None:
    told = shortage_of(MemoryError())
    assert told is not None and told.exit_code == 1 and "memory" in told.message and told.hint is not None


@pytest.mark.parametrize("error", [RuntimeError("dictionary changed size"), OSError(5, "I/O error"), BlockingIOError()])
def test_other_errors_are_not_of_the_system(error: Exception) -> None:
    assert shortage_of(error) is None


@pytest.mark.parametrize("limit", [resource.RLIMIT_AS, resource.RLIMIT_DATA])
def test_a_limit_in_which_the_column_library_may_abort_is_told_before_it_does(world: World, limit: int) -> None:
    # Whether it does is chance. A run that is aborted tears nothing.
    ran = limited(world, limit, 1000 << 20, "update", "--force")
    assert ran.err.startswith("it may have 1,000 MB of memory ('ulimit -") and "memory allocation failed" in ran.err
    assert ran.code in (0, 1, -6), ran.err
    assert "it may have" not in world.call("update").err
    assert world.exported("list") == names(60)
    world.assert_sound()


def test_a_column_library_that_can_not_be_loaded_is_told(world: World) -> None:
    ran = limited(world, resource.RLIMIT_AS, 150 << 20, "update", "--force")
    assert_told(world, ran, "the column library (Polars) can't be loaded", "ulimit -v")
