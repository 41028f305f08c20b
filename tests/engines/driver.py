"""Starts one real engine with one exported list, asks it, and ends it by its own process id.

Nothing leaves loopback: the Internet behind every engine is `Upstream`, which answers every name, so that a
block is visible. Without an engine its tests are skipped; with BLOCKLIST_REQUIRE_ENGINES=1 they fail.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from string import Template

import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from blocklist.publish.descriptor import builtin

CONF = Path(__file__).parent / "conf"
PASSES = {"A": "203.0.113.7", "AAAA": "2001:db8::7"}


def missing(what: str) -> None:
    """Skip this test, or fail it where the engines are required."""
    if os.environ.get("BLOCKLIST_REQUIRE_ENGINES") == "1":
        pytest.fail(f"{what}, and BLOCKLIST_REQUIRE_ENGINES=1", pytrace=False)
    pytest.skip(what)


def program(name: str) -> str:
    """The path of an engine's program; its test ends here when there is none."""
    found = shutil.which(name) or shutil.which(name, path="/usr/local/sbin:/usr/sbin:/sbin")
    if found is None:
        missing(f"{name} is not installed")
    assert found is not None
    return found


def may_make_namespaces() -> None:
    """Packet filters are tested in a network namespace of their own, which root may make."""
    done = subprocess.run([program("unshare"), "-n", "true"], capture_output=True, check=False)
    if done.returncode:
        missing("network namespaces can't be made here")


def _candidates() -> Iterator[int]:
    """Ports below those that Linux gives to connections; each process that runs tests has a thousand of its own."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 20
    ports = range(11_000 + 1_000 * worker, 12_000 + 1_000 * worker)
    while True:
        yield from random.sample(ports, len(ports))


_CANDIDATES = _candidates()


def free_port() -> int:
    """A port that was free for TCP and UDP on loopback a moment ago, and that no other test is given soon."""
    for port in _CANDIDATES:
        with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagram, contextlib.suppress(OSError):
            stream.bind(("127.0.0.1", port))
            datagram.bind(("127.0.0.1", port))
            return port
    raise AssertionError


class Upstream:
    """The Internet: a DNS server in a thread with an address for every name. `special`: name to (A, AAAA)."""

    def __init__(self, special: dict[str, tuple[str, str]] | None = None) -> None:
        self.special = special or {}
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                packet, client = self._socket.recvfrom(4096)
                self._socket.sendto(self._answer(packet), client)
            except dns.exception.DNSException:
                continue
            except OSError:
                return

    def _answer(self, packet: bytes) -> bytes:
        query = dns.message.from_wire(packet)
        reply = dns.message.make_response(query, recursion_available=True)
        question = query.question[0]
        kind = dns.rdatatype.to_text(question.rdtype)
        name = question.name.to_text(omit_final_dot=True).lower()
        if name == "" and kind == "NS":
            reply.answer.append(dns.rrset.from_text(".", 60, "IN", "NS", "ns.root."))
        elif kind in PASSES:
            address = dict(zip(("A", "AAAA"), self.special.get(name, tuple(PASSES.values())), strict=True))[kind]
            reply.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, address))
        return reply.to_wire()


@dataclass
class Engine:
    """A running resolver on `port`."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def ask(self, name: str, kind: str = "A") -> dns.message.Message:
        """The reply, after a second attempt if the first one got none."""
        query = dns.message.make_query(name, kind)
        for attempt in (0, 1):
            with contextlib.suppress(dns.exception.Timeout):
                return dns.query.udp(query, "127.0.0.1", port=self.port, timeout=3)
            assert attempt == 0, f"{self.name} does not answer for {name}: {self.log.read_text()[-800:]}"
        raise AssertionError

    def blocks(self, name: str, kind: str = "A") -> bool:
        """NXDOMAIN is a block, an address from upstream is none, anything else is a fault of the test."""
        reply = self.ask(name, kind)
        if reply.rcode() == dns.rcode.NXDOMAIN:
            return True
        text = " ".join(record.to_text() for record in reply.answer)
        if self.name == "smartdns" and not text and kind in PASSES:
            return True  # 'address /name/#' answers without data
        if self.name == "dnsmasq-hosts" and reply.answer[0][0].to_text() in ("0.0.0.0", "::"):
            return True
        assert reply.rcode() == dns.rcode.NOERROR, f"{self.name}, {name}: {dns.rcode.to_text(reply.rcode())}"
        assert text or kind not in PASSES, f"{self.name}, {name} {kind}: an empty answer"
        return False


@dataclass
class Lab:
    """A folder for one engine, and the processes started in it."""

    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def configure(self, name: str, template: str | None = None, /, **values: object) -> Path:
        """A configuration from its template, with `values` and the folder as `run`."""
        text = Template(template or (CONF / name).read_text()).substitute(run=self.folder, **values)
        path = self.folder / name
        path.write_text(text)
        return path

    def start(self, argv: list[str], port: int) -> tuple[subprocess.Popen[bytes], Path]:
        """Start an engine in its own session and wait until its port takes a connection."""
        log = self.folder / f"{Path(argv[0]).name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                start_new_session=True,
            )
        self.processes.append(process)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            assert process.poll() is None, f"{argv[0]} ended: {log.read_text(errors='replace')[-1500:]}"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.5):
                return process, log
            time.sleep(0.05)
        raise AssertionError(f"{argv[0]} does not listen: {log.read_text(errors='replace')[-1500:]}")

    def end(self) -> None:
        """End the process groups that were started here, and no other."""
        for process in self.processes:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)
                try:
                    process.wait(3)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()


@contextlib.contextmanager
def lab() -> Iterator[Lab]:
    """A folder that an engine's own user can read: pytest's is for its owner only."""
    folder = Path(tempfile.mkdtemp(prefix="blocklist-engine-"))
    folder.chmod(0o755)
    place = Lab(folder)
    try:
        yield place
    finally:
        place.end()
        shutil.rmtree(folder, ignore_errors=True)


def _named(place: Lab, zone: Path, origin: str, upstream: int, port: int) -> list[str]:
    conf = place.configure("named.conf", zone=zone, origin=origin, upstream=upstream, port=port)
    return [program("named"), "-g", "-n", "1", "-c", str(conf)]


def _unbound(place: Lab, zone: Path, origin: str, upstream: int, port: int) -> list[str]:
    conf = place.configure("unbound-rpz.conf", zone=zone, origin=origin, upstream=upstream, port=port)
    return [program("unbound"), "-d", "-p", "-c", str(conf)]


@cache
def version(engine: str, option: str) -> tuple[int, ...]:
    """Major and minor, the first numbers with a point between them that `engine` prints for `option`."""
    said = subprocess.run([program(engine), option], capture_output=True, text=True, timeout=10)
    found = re.search(r"\b([0-9]+)\.([0-9]+)", said.stdout + said.stderr)
    assert found is not None, said
    return int(found[1]), int(found[2])


def recursor_version() -> tuple[int, ...]:
    """Before 5.1 its settings in YAML know no RPZ, from 5.2 on they are all that it reads unasked."""
    return version("pdns_recursor", "--version")


def recursor(place: Lab, rpz: str, upstream: int, port: int) -> list[str]:
    """The Recursor with `rpz` as what its version reads: a Lua configuration, or settings in YAML."""
    if recursor_version() < (5, 1):
        (place.folder / "recursor.lua").write_text(rpz)
        place.configure("recursor.conf", upstream=upstream, port=port)
    else:
        (place.folder / "recursor.d").mkdir(exist_ok=True)
        (place.folder / "recursor.d" / "rpz.yml").write_text(rpz)
        place.configure("recursor.yml", upstream=upstream, port=port)
    return [program("pdns_recursor"), f"--config-dir={place.folder}"]


def _recursor(place: Lab, zone: Path, origin: str, upstream: int, port: int) -> list[str]:
    name = "recursor.lua" if recursor_version() < (5, 1) else "recursor-rpz.yml"
    return recursor(place, Template((CONF / name).read_text()).substitute(zone=zone), upstream, port)


def _kresd(place: Lab, zone: Path, origin: str, upstream: int, port: int) -> list[str]:
    conf = place.configure("kresd.conf", zone=zone, upstream=upstream, port=port)
    return [program("kresd"), "-n", "-q", "-c", str(conf), str(place.folder)]


def _unbound_local(place: Lab, zone: Path, origin: str, upstream: int, port: int) -> list[str]:
    conf = place.configure("unbound-local.conf", zones=zone, upstream=upstream, port=port)
    return [program("unbound"), "-d", "-p", "-c", str(conf)]


def _dnsmasq(place: Lab, zone: Path, origin: str, upstream: int, port: int) -> list[str]:
    conf = place.configure("dnsmasq.conf", servers=zone, upstream=upstream, port=port)
    return [program("dnsmasq"), "-C", str(conf)]


def _dnsmasq_conf(place: Lab, zone: Path, origin: str, upstream: int, port: int) -> list[str]:
    conf = place.configure("dnsmasq-conf.conf", names=zone, upstream=upstream, port=port)
    return [program("dnsmasq"), "-C", str(conf)]


def _dnsdist(place: Lab, zone: Path, origin: str, upstream: int, port: int) -> list[str]:
    example = builtin()["dnsdist"].load.replace("/etc/dnsdist/blocklist.txt", str(zone))
    conf = place.configure("dnsdist.conf", example=example, upstream=upstream, port=port)
    return [program("dnsdist"), "--supervised", "--disable-syslog", "-C", str(conf)]


def _smartdns(place: Lab, zone: Path, origin: str, upstream: int, port: int) -> list[str]:
    conf = place.configure("smartdns.conf", names=zone, upstream=upstream, port=port)
    return [program("smartdns"), "-f", "-x", "-c", str(conf), "-p", str(place.folder / "smartdns.pid")]


def _dnsmasq_hosts(place: Lab, zone: Path, origin: str, upstream: int, port: int) -> list[str]:
    conf = place.configure("dnsmasq-hosts.conf", hosts=zone, upstream=upstream, port=port)
    return [program("dnsmasq"), "-C", str(conf)]


_ARGV: dict[str, Callable[[Lab, Path, str, int, int], list[str]]] = {
    "named": _named,
    "unbound": _unbound,
    "pdns_recursor": _recursor,
    "kresd": _kresd,
    "unbound-local": _unbound_local,
    "dnsmasq": _dnsmasq,
    "dnsmasq-conf": _dnsmasq_conf,
    "dnsmasq-hosts": _dnsmasq_hosts,
    "dnsdist": _dnsdist,
    "smartdns": _smartdns,
}
RPZ_ENGINES = ("named", "unbound", "pdns_recursor", "kresd")


@contextlib.contextmanager
def resolver(
    name: str,
    text: bytes,
    *,
    canary: str,
    origin: str = "",
    special: dict[str, tuple[str, str]] | None = None,
) -> Iterator[Engine]:
    """The resolver `name` with the list `text`, once it acts on `canary` (named answers before it blocks)."""
    upstream = Upstream(special)
    try:
        with lab() as place:
            exported = place.folder / "exported.list"
            exported.write_bytes(text)
            port = free_port()
            argv = _ARGV[name](place, exported, origin, upstream.port, port)
            process, log = place.start(argv, port)
            engine = Engine(name, port, process, log)
            deadline = time.monotonic() + 15
            while not _acts(engine, canary):
                assert time.monotonic() < deadline, f"{name} does not block: {log.read_text()[-2000:]}"
                time.sleep(0.1)
            yield engine
    finally:
        upstream.close()


def _acts(engine: Engine, canary: str) -> bool:
    # Not `blocks`: an engine that is still starting may say SERVFAIL.
    reply = engine.ask(canary)
    return not any(PASSES["A"] in record.to_text() for record in reply.answer) and reply.rcode() != dns.rcode.SERVFAIL


class _Origin(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"reached the origin\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@dataclass
class Proxy:
    """A running proxy on `port`, and behind it an origin that has every host."""

    port: int
    origin: int
    reverse: bool = False  # it stands before servers, so that a request names the path alone

    def blocks(self, host: str) -> bool:
        """Does a plain request for `host` get 403 instead of the origin's page?"""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            where = "/" if self.reverse else f"http://{host}:{self.origin}/"
            connection.putrequest("GET", where, skip_host=True)
            connection.putheader("Host", f"{host}:{self.origin}")
            connection.endheaders()
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        assert response.status in (200, 403), f"{host}: status {response.status}: {body[:300]!r}"
        return response.status == 403


@contextlib.contextmanager
def squid(text: bytes, hosts: list[str]) -> Iterator[Proxy]:
    """Squid with the list `text`; every one of `hosts` leads to the origin."""
    command = program("squid")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Origin)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with lab() as place:
            place.folder.chmod(0o777)  # Squid gives up root before it opens its log
            exported = place.folder / "exported.list"
            exported.write_bytes(text)
            names = place.folder / "hosts"
            names.write_text("".join(f"127.0.0.1 {host}\n" for host in hosts))
            port = free_port()
            conf = place.configure("squid.conf", domains=exported, hosts=names, port=port)
            place.start([command, "-N", "-f", str(conf)], port)
            yield Proxy(port, server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
