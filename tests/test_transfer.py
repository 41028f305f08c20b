"""Zone transfers from a real BIND: whole and by difference, signed; and from servers that do it badly."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from engines import driver
from installation import World

from blocklist.ingest.reasons import Failure
from blocklist.ingest.tsig import load_key
from blocklist.person import running_as

ZONE = "rpz.example"
SECRET = "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0"
CONF = """
options {{
  directory "{run}"; pid-file "{run}/named.pid"; session-keyfile "{run}/session.key";
  managed-keys-directory "{run}"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
  recursion no; notify no; allow-transfer {{ key "feed-key"; }}; ixfr-from-differences yes; empty-zones-enable no;
}};
key "feed-key" {{ algorithm hmac-sha256; secret "{secret}"; }};
key "control" {{ algorithm hmac-sha256; secret "{secret}"; }};
controls {{ inet 127.0.0.1 port {control} allow {{ 127.0.0.1; }} keys {{ "control"; }}; }};
zone "{zone}" {{ type primary; file "{run}/zone"; max-ixfr-ratio unlimited; }};
"""


class Bind:
    """A primary of one zone; `publish` gives the zone new names."""

    def __init__(self, lab: driver.Lab) -> None:
        self.lab, self.port, self.control = lab, driver.free_port(), driver.free_port()
        self.serial = 0
        self.key = lab.folder / "feed.key"
        self.key.write_text(f'key "feed-key" {{\n\talgorithm hmac-sha256;\n\tsecret "{SECRET}";\n}};\n')
        self.key.chmod(0o600)
        conf = CONF.format(run=lab.folder, port=self.port, control=self.control, secret=SECRET, zone=ZONE)
        (lab.folder / "named.conf").write_text(conf)

    @property
    def url(self) -> str:
        return f"axfr://127.0.0.1:{self.port}/{ZONE}"

    def publish(self, *names: str, serial: int | None = None) -> None:
        self.serial = serial if serial is not None else self.serial + 1
        lines = [f"$ORIGIN {ZONE}.", "$TTL 300", f"@ SOA ns.invalid. h.invalid. {self.serial} 3600 600 86400 60"]
        lines += ["@ NS ns.invalid.", *(f"{name} CNAME ." for name in names)]
        (self.lab.folder / "zone").write_text("\n".join(lines) + "\n")
        if not self.lab.processes:
            self.lab.start(
                [driver.program("named"), "-g", "-n", "1", "-c", str(self.lab.folder / "named.conf")], self.port
            )
            return
        rndc = (driver.program("rndc"), "-s", "127.0.0.1", "-p", str(self.control), "-c", self._rndc())
        subprocess.run((*rndc, "reload", ZONE), check=True, capture_output=True)
        for _ in range(100):
            reply = dns.query.udp(dns.message.make_query(ZONE, "SOA"), "127.0.0.1", 2, self.port)
            if f" {self.serial} " in str(reply.answer[0]):
                return
            time.sleep(0.05)
        raise AssertionError("BIND did not load the new zone")

    def _rndc(self) -> str:
        path = self.lab.folder / "rndc.conf"
        path.write_text(
            f'key "control" {{ algorithm hmac-sha256; secret "{SECRET}"; }};\noptions {{ default-key "control"; }};\n'
        )
        return str(path)

    @property
    def log(self) -> str:
        return (self.lab.folder / "named.log").read_text()


@pytest.fixture
def bind() -> Iterator[Bind]:
    with driver.lab() as lab:
        yield Bind(lab)


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.export("list", allow_empty=True)
    return made


@pytest.mark.engine
def test_a_zone_comes_whole_then_by_difference_then_not_at_all(world: World, bind: Bind) -> None:
    many = [f"h{i}.evil.example" for i in range(3_000)]
    bind.publish("evil.example", "*.evil.example", "32.1.2.0.192.rpz-ip", *many)
    world.feed("zone", url=bind.url, format="rpz", allow_private=True, tsig=f"file:{bind.key}")
    assert world.update().feed("zone")["outcome"] == "updated"
    assert "AXFR started: TSIG feed-key" in bind.log
    assert {"evil.example", "192.0.2.1", "h2999.evil.example"} <= set(world.listed("zone"))
    assert f"h7.evil.example.{ZONE}. 300 IN CNAME ." in world.why("h7.evil.example")["listings"][0]["text"]
    bind.publish("evil.example", "*.evil.example", "32.1.2.0.192.rpz-ip", "new.example", *many[1:])
    ran = world.update().feed("zone")
    assert (ran["outcome"], ran["added"], ran["removed"]) == ("updated", 1, 1)
    assert "IXFR started: TSIG feed-key" in bind.log and bind.log.count("AXFR started") == 1
    # What was put together from a difference is what a whole transfer gives.
    digest = world.rows("SELECT sha256 FROM snapshot WHERE state = 'current'")
    assert world.update("--force").feed("zone")["outcome"] == "unchanged"
    assert bind.log.count("AXFR started") == 2
    assert world.rows("SELECT sha256 FROM snapshot WHERE state = 'current'") == digest
    started = bind.log.count("started")
    assert world.update().feed("zone")["outcome"] == "unchanged"
    assert bind.log.count("started") == started
    assert SECRET.encode() not in b"".join(p.read_bytes() for p in world.state.rglob("*") if p.is_file())


@pytest.mark.engine
def test_a_refused_transfer_keeps_what_we_have(world: World, bind: Bind, monkeypatch: pytest.MonkeyPatch) -> None:
    bind.publish("evil.example")
    monkeypatch.setenv("RPZ_KEY", f"hmac-sha256:feed-key:{SECRET}")
    world.feed("zone", url=bind.url, format="rpz", allow_private=True, tsig="env:RPZ_KEY")
    assert world.update().code == 0
    other = "b3RoZXIgb3RoZXIgb3RoZXIgb3RoZXIgb3RoZXI="
    for value, words in (
        (f"hmac-sha256:feed-key:{other}", "TSIG signatures do not match"),
        (f"hmac-sha256:other-key:{SECRET}", "does not know the TSIG key"),
        ("hmac-sha256:feed-key:***", "its secret is not in base64"),
        ("", "the environment has no variable RPZ_KEY"),
    ):
        monkeypatch.setenv("RPZ_KEY", value)
        ran = world.update("--force")
        assert ran.code == 3 and words in ran.feed("zone")["error"], ran.text
        assert SECRET not in ran.text and other not in ran.text
    world.feed("zone", url=bind.url, format="rpz", allow_private=True)
    ran = world.update("--force")
    assert ran.code == 3 and "REFUSED" in ran.feed("zone")["error"] and "allow-transfer" in ran.feed("zone")["hint"]
    assert world.listed("zone") == ["evil.example"]
    assert SECRET.encode() not in b"".join(p.read_bytes() for p in world.state.rglob("*") if p.is_file())


@pytest.mark.engine
def test_a_zone_may_not_grow_over_the_limit_nor_go_back(world: World, bind: Bind) -> None:
    bind.publish("evil.example", serial=10)
    keys = {"format": "rpz", "allow_private": True, "tsig": f"file:{bind.key}", "max_size": "100kB"}
    world.feed("zone", url=bind.url, **keys)
    assert world.update().code == 0
    bind.publish("evil.example", *(f"h{i}.example" for i in range(5_000)), serial=11)
    assert "larger than max_size" in world.update().feed("zone")["error"]
    bind.lab.end()
    bind.lab.processes.clear()
    bind.publish("other.example", serial=9)
    ran = world.update().feed("zone")
    assert "serial 9 is older than 10" in ran["error"] and "--force" in ran["hint"]
    assert world.listed("zone") == ["evil.example"]
    assert world.update("--force").feed("zone")["outcome"] == "updated"
    assert world.listed("zone") == ["other.example"]


def soa(serial: int = 5) -> dns.rrset.RRset:
    return dns.rrset.from_text(f"{ZONE}.", 60, "IN", "SOA", f"a. b. {serial} 1 1 1 1")


def cname(name: str) -> dns.rrset.RRset:
    return dns.rrset.from_text(f"{name}.{ZONE}.", 60, "IN", "CNAME", ".")


Script = Callable[[socket.socket, dns.message.Message], None]


def send(connection: socket.socket, query: dns.message.Message, *records: dns.rrset.RRset, rcode: int = 0) -> None:
    reply = dns.message.make_response(query)
    reply.flags |= dns.flags.AA
    reply.set_rcode(dns.rcode.Rcode(rcode))
    reply.answer += records
    wire = reply.to_wire(max_size=65535)
    connection.sendall(struct.pack("!H", len(wire)) + wire)


def cut(connection: socket.socket, query: dns.message.Message) -> None:
    send(connection, query, soa(), cname("evil.example"))


def cut_in_a_message(connection: socket.socket, query: dns.message.Message) -> None:
    connection.sendall(struct.pack("!H", 500) + b"x" * 100)


def garbage(connection: socket.socket, query: dns.message.Message) -> None:
    connection.sendall(struct.pack("!H", 40) + b"\xff" * 40)


def stall(connection: socket.socket, query: dns.message.Message) -> None:
    send(connection, query, soa(), cname("evil.example"))
    time.sleep(4)


def without_soa(connection: socket.socket, query: dns.message.Message) -> None:
    send(connection, query, cname("evil.example"))


def endless(connection: socket.socket, query: dns.message.Message) -> None:
    send(connection, query, soa())
    for i in range(100_000):
        send(connection, query, *(cname(f"h{i}-{j}.example") for j in range(200)))


def serve(script: Script) -> tuple[socket.socket, str]:
    """A server that answers for the SOA, and does with a transfer what `script` does."""
    listener = socket.create_server(("127.0.0.1", 0))

    def talk(connection: socket.socket) -> None:
        with connection:
            try:
                while head := connection.recv(2, socket.MSG_WAITALL):
                    query = dns.message.from_wire(connection.recv(struct.unpack("!H", head)[0], socket.MSG_WAITALL))
                    if query.question[0].rdtype == dns.rdatatype.SOA:
                        send(connection, query, soa())
                    else:
                        script(connection, query)
                        return
            except OSError:
                pass

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener, f"axfr://127.0.0.1:{listener.getsockname()[1]}/{ZONE}"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (cut, "cut off before its end"),
        (cut_in_a_message, "cut off before its end"),
        (garbage, "not a proper transfer"),
        (without_soa, "not a proper transfer"),
        (stall, "stalled: nothing came for 1 s"),
        (endless, "larger than max_size"),
        (lambda connection, query: send(connection, query, rcode=5), "answered REFUSED"),
        (lambda connection, query: send(connection, query, soa(), rcode=0) or send(connection, query, soa()), None),
    ],
)
def test_a_transfer_that_goes_wrong_keeps_what_we_have(world: World, script: Script, words: str | None) -> None:
    listener, url = serve(script)
    with listener:
        world.set("fetch", idle="1s")
        world.feed("zone", url=url, format="rpz", allow_private=True, max_size="1MB")
        ran = world.update()
        assert ran.code == 3, ran.text
        assert (words or "it holds comments only") in ran.feed("zone")["error"], ran.text
        assert world.listed("zone") == [] and world.left_over() == []


def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(f'# comment\nkey "a" {{ algorithm hmac-sha512; secret "{SECRET}"; }};\n')
    key.chmod(0o600)
    assert load_key("file:key", tmp_path).name.to_text() == "a."
    key.chmod(0o640)
    with pytest.raises(Failure, match="others can read this secret") as caught:
        load_key("file:key", tmp_path)
    assert SECRET not in str(caught.value) and caught.value.hint.startswith(f"'chmod 600 {key}'")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_key_file_of_a_stranger_is_refused(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(f'key "a" {{ algorithm hmac-sha512; secret "{SECRET}"; }};\n')
    key.chmod(0o600)
    os.chown(key, 12_345, -1)
    with pytest.raises(Failure, match=r"tsig = 'file:key': .* belongs to user 12345") as caught:
        load_key("file:key", tmp_path)
    assert SECRET not in str(caught.value) and f"chown {running_as()} {key}" in caught.value.hint


def test_a_key_that_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key", 0o600)
    with pytest.raises(Failure, match="not a file"):
        load_key("file:key", tmp_path)
