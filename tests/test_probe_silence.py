"""`probe` of engines that fall silent, drip, cut answers short or are forged: bounded in time, and no false word."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from dnsserver import HostileServer
from installation import World, names

from blocklist.verify.loopback import serving

# How long a server takes to answer decides here what becomes of it.
pytestmark = pytest.mark.alone
LISTED = names(2000)


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.set("verify", control={"exists": ["ok.example"]})
    world.feed("a", LISTED)
    world.export("dns", "hosts")
    world.update()
    return world


def blocking(**keys: Any) -> HostileServer:
    """A resolver that loads the list: it denies what is listed."""
    return HostileServer({"ok.example": ["192.0.2.1"]}, **keys)


def probe(world: World, port: int, *words: object) -> dict[str, Any]:
    world.export("dns", "hosts", probe=[f"127.0.0.1:{port}"])
    ran = world.run("probe", "--json", "--grace", "0s", *words)
    assert ran.out, ran.err
    report: dict[str, Any] = json.loads(ran.out.splitlines()[0])
    assert ran.code == (0 if report["state"] == "ok" else 4)
    return report


class Dying(HostileServer):
    """Answers `last` questions."""

    last = 100

    def reply(self, data: bytes, *, tcp: bool) -> bytes | None:
        return super().reply(data, tcp=tcp) if self.queries <= self.last else None


def test_a_resolver_that_dies_on_the_way_is_silent_and_not_waited_for_at_each_name(world: World) -> None:
    server = Dying({"ok.example": ["192.0.2.1"]})
    began = time.monotonic()
    with serving(server):
        report = probe(world, server.port, "--sample", 2000)
    # 32 at once, two attempts of two seconds for each: all of them would be four minutes.
    assert time.monotonic() - began < 60
    assert report["state"] == "silent" and report["missed"] == 0 and report["canaries_wrong"] == []
    assert report["sampled"] < 100 and report["unanswered"] > 1900
    assert "no answer to 1,9" in report["note"]


def test_an_answer_that_is_lost_is_no_name_that_gets_through(world: World) -> None:
    lost = LISTED[::40]
    server = blocking(manners=dict.fromkeys(lost, "silent"))
    with serving(server):
        report = probe(world, server.port, "--sample", 2000)
    assert (report["state"], report["missed"], report["sampled"]) == ("ok", 0, 1950)
    assert report["unanswered"] >= 50 and "no answer to 5" in report["note"]


def test_an_answer_that_is_cut_short_shows_nothing_until_tcp_does(world: World) -> None:
    """Without a record it looks like one that leads nowhere."""
    through = HostileServer({name: ["192.0.2.1"] for name in ["ok.example", *LISTED]}, default="truncated")
    with serving(through):
        report = probe(world, through.port, "--sample", 50)
    assert (report["state"], report["missed"]) == ("not enforcing", 50)
    closed = HostileServer({}, default="truncated, tcp closes")
    with serving(closed):
        report = probe(world, closed.port, "--sample", 50)
    assert (report["state"], report["sampled"], report["canaries"]) == ("silent", 0, 0)


class Forged(HostileServer):
    """Before each answer come two of a stranger, who has guessed the port but not the id, or not the name."""

    def deliver(self, data: bytes, address: tuple[str, int]) -> None:
        super().deliver(bytes([data[0] ^ 1, *data[1:3], data[3] & 0xF0]) + data[4:], address)
        super().deliver(data[:12] + b"\x01x" + data[14:], address)
        super().deliver(data, address)


def test_forged_answers_are_not_heard(world: World) -> None:
    server = Forged({"ok.example": ["192.0.2.1"]})
    with serving(server):
        report = probe(world, server.port, "--sample", 50)
    assert (report["state"], report["sampled"], report["unanswered"]) == ("ok", 50, 0)


def test_ctrl_c_ends_it_though_much_is_still_to_be_asked(world: World) -> None:
    # One name in two is silent: it is not given up.
    server = blocking(manners=dict.fromkeys(LISTED[::2], "silent"))
    with serving(server):
        world.export("dns", "hosts", probe=[f"127.0.0.1:{server.port}"])
        process = world.start("probe", "--sample", "2000")
        until = time.monotonic() + 30
        while server.queries < 50 and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        out, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 20, "two attempts of two seconds, and the end of Python"
    assert process.returncode == 130 and b"interrupted" in err and b"Traceback" not in out + err


@contextmanager
def dripping() -> Iterator[int]:
    """A proxy that sends an octet a second, and never a line."""
    listener = socket.create_server(("127.0.0.1", 0))

    def drip(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            while True:
                connection.sendall(b"H")
                time.sleep(1)

    def serve() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=drip, args=listener.accept()[:1], daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    with listener:
        yield listener.getsockname()[1]


def test_a_proxy_that_drips_is_silent_after_a_while(world: World) -> None:
    world.export("dns", "squid")
    world.update()
    with dripping() as port:
        world.export("dns", "squid", probe=[f"http://127.0.0.1:{port}"])
        began = time.monotonic()
        ran = world.run("probe", "--json", "--grace", "0s", "--sample", "10")
    report = json.loads(ran.out.splitlines()[0])
    assert ran.code == 4 and report["state"] == "silent" and report["missed"] == 0
    assert time.monotonic() - began < 45
