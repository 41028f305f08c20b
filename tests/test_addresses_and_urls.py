"""Lists of addresses and URLs in the engines that are here: what is listed is stopped, its neighbours are not."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from http.server import ThreadingHTTPServer
from pathlib import Path

import polars as pl
import pytest
from engines import driver, mail
from engines.lists import rendered, select
from installation import World
from test_engines import ADDRESSES, NETWORKS, PROBES

from blocklist.publish import descriptor
from blocklist.publish.selection import Selection

pytestmark = pytest.mark.engine
FORMATS = descriptor.builtin()


@pytest.mark.parametrize("target", ["DROP", "REJECT"])
def test_iptables_stops_what_is_listed_in_its_direction_after_every_restore(tmp_path: Path, target: str) -> None:
    driver.may_make_namespaces()
    load: list[list[str]] = []
    for name in ("iptables", "ip6tables"):
        restore, tool = driver.program(f"{name}-restore"), driver.program(name)
        old, new = tmp_path / f"{name}.old", tmp_path / f"{name}.new"
        old.write_bytes(rendered(name, select({}, [("127.0.0.2", "outbound"), ("2001:db8:600d::1", "outbound")]))[0])
        new.write_bytes(rendered(name, select({}, NETWORKS), target=target)[0])
        connections = ["-m", "conntrack", "--ctstate", "NEW"]
        load += [
            [restore, "--noflush", str(old)],
            [tool, "-I", "INPUT", *connections, "-j", "BLOCKLIST-IN"],
            [tool, "-I", "OUTPUT", "-j", "BLOCKLIST-OUT"],
            [restore, "--noflush", str(new)],
            [restore, "--noflush", str(new)],
        ]
    plan = {"addresses": ADDRESSES, "load": load, "probes": [probe for probe, _ in PROBES]}
    script = Path(driver.__file__).with_name("packets.py")
    argv = [driver.program("unshare"), "-n", sys.executable, str(script), json.dumps(plan)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    reached = dict(zip([tuple(probe) for probe, _ in PROBES], json.loads(done.stdout), strict=True))
    assert [probe for probe, passes in PROBES if reached[probe] != passes] == []


LISTED = [("127.0.66.0/24", "both"), ("127.0.7.7", "both"), ("2001:db8:bad::/48", "both")]
SOURCES = {"127.0.66.9": True, "127.0.7.7": True, "127.0.7.8": False, "127.0.0.1": False}


@contextlib.contextmanager
def _origin() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), driver._Origin)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def _status(port: int, where: str, host: str = "ok.example", source: str = "127.0.0.1") -> int:
    connection = HTTPConnection("127.0.0.1", port, timeout=5, source_address=(source, 0))
    try:
        connection.putrequest("GET", where, skip_host=True)
        connection.putheader("Host", host)
        connection.endheaders()
        return connection.getresponse().status
    finally:
        connection.close()


@contextlib.contextmanager
def _reverse_proxy(name: str, text: bytes) -> Iterator[int]:
    """The port of HAProxy or nginx that denies the clients in `text`, as the example of the format says."""
    with _origin() as origin, driver.lab() as place:
        place.folder.chmod(0o777)
        exported = place.folder / "exported.list"
        exported.write_bytes(text)
        port = driver.free_port()
        conf = place.folder / "proxy.conf"
        if name == "haproxy-ip":
            rule = FORMATS[name].load.replace("/etc/haproxy/blocklist.ips", str(exported))
            conf.write_text(
                "defaults\n  mode http\n  timeout connect 2s\n  timeout client 5s\n  timeout server 5s\n"
                f"frontend f\n  bind 127.0.0.1:{port}\n{rule}\n  default_backend b\n"
                f"backend b\n  server s 127.0.0.1:{origin}\n"
            )
            argv = [driver.program("haproxy"), "-db", "-f", str(conf)]
        else:
            rule = FORMATS[name].load.replace("/etc/nginx/blocklist.geo", str(exported))
            rule = rule.replace(
                "server {",
                f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{origin}; }}",
            )
            conf.write_text(
                f"daemon off; master_process off; pid {place.folder}/pid; error_log stderr;\nevents {{ }}\n"
                f"http {{ access_log off; proxy_temp_path {place.folder}/p; client_body_temp_path {place.folder}/b;\n"
                f"{rule} }}\n"
            )
            argv = [driver.program("nginx"), "-c", str(conf)]
        place.start(argv, port)
        yield port


@pytest.mark.parametrize("name", ["haproxy-ip", "nginx-geo"])
def test_a_reverse_proxy_denies_listed_clients(name: str) -> None:
    text, account = rendered(name, select({}, LISTED))
    assert account.lost == {}
    with _reverse_proxy(name, text) as port:
        for _ in range(2):
            denied = {source: _status(port, "/", source=source) == 403 for source in SOURCES}
            assert denied == SOURCES


def test_a_deny_of_low_ipv6_addresses_denies_no_ipv4_client(tmp_path: Path) -> None:
    """HAProxy and rspamd look an IPv4 address up among the IPv6 networks too, as ::ffff:a.b.c.d."""
    world = World(tmp_path)
    world.feed("a", ["192.0.2.1"])
    names = ("haproxy-ip", "nginx-geo", "rspamd-ip")
    for name in names:
        world.export(name, name)
    assert world.update().code == 0
    for what in ("127.0.7.7", "::/8"):
        assert world.run("deny", "add", what, "--reason", "x", "--now").code == 0
    texts = {name: (tmp_path / "exports" / name).read_bytes() for name in names}
    for name in names[:2]:
        with _reverse_proxy(name, texts[name]) as port:
            assert {source: _status(port, "/", source=source) for source in ("127.0.7.7", "127.0.7.8")} == {
                "127.0.7.7": 403,
                "127.0.7.8": 200,
            }
    with mail.rspamd("rspamd-ip", texts["rspamd-ip"]) as rejects:
        asked = ("127.0.7.7", "127.0.7.8", "::7", "::fffe:c000:209", "2001:db8::7")
        assert [x for x in asked if rejects({"IP": x, "From": "<a@ok.example>"})] == [
            "127.0.7.7",
            "::7",
            "::fffe:c000:209",
        ]


URLS = ["//evil.example/a/b.php?c=1&d=2", "//exact.example/x(1)+y.exe", "//evil.example/deep/"]
URLS += ["//evil.example/a%20b%2fc%25%41", "//evil.example/%5E%5B%5c%5D%00"]
ASKED = {
    "http://evil.example/a/b.php?c=1&d=2": True,
    "http://EVIL.example/a/b.php?c=1&d=2": True,
    "http://evil.example/a/b.php?c=1&d=23": False,
    "http://evil.example/a/b.php": False,
    "http://evil.example/a/bxphp?c=1&d=2": False,
    "http://evil.example/": False,
    "http://evil.example/deep/": True,
    "http://evil.example/deep/er": False,
    "http://exact.example/x(1)+y.exe": True,
    "http://ok.example/http://evil.example/deep/": False,
    # Squid compares what escapes stand for, decoded once.
    "http://evil.example/a%20b%2fc%25%41": True,
    "http://evil.example/a%20b%2Fc%25A": True,
    "http://evil.example/a%20b%2fc%2525%41": False,
    "http://evil.example/a%20b%2fc%25%42": False,
    "http://evil.example/a%21b%2fc%25%41": False,
    "http://evil.example/%5E%5B%5c%5D%00": True,
    "http://evil.example/%5B%5E%5c%5D%00": False,
}


@pytest.mark.parametrize("name", ["squid-url", "squid-dst"])
def test_squid_denies_listed_urls_and_destinations_and_no_others(name: str) -> None:
    if name == "squid-url":
        selection, place_in_load, asked = (
            Selection(urls=pl.DataFrame({"url": URLS})),
            "/etc/squid/blocklist.urls",
            ASKED,
        )
    else:
        selection, place_in_load = select({}, LISTED), "/etc/squid/blocklist.dst"
        asked = {f"http://{address}/": listed for address, listed in SOURCES.items() if address != "127.0.0.1"}
        asked |= {"http://evil.example/": True, "http://ok.example/": False, "http://[2001:db8:bad::7]/": True}
    text, account = rendered(name, selection)
    assert account.lost == {}
    with _squid(name, place_in_load, text) as status:
        for _ in range(2):
            # What is let through finds no server on port 80 here, which is 503.
            assert {url: status(url) == 403 for url in asked} == asked


def test_squid_denies_low_ipv6_destinations_beside_listed_ipv4_ones(tmp_path: Path) -> None:
    """To Squid IPv4 is ::ffff:0:0/96: it drops a network after one of its own addresses, and all of `::/1` passes."""
    world = World(tmp_path)
    world.feed("a", ["192.0.2.1"])
    path = world.export("dst", "squid-dst")
    assert world.run("deny", "add", "::/1", "--reason", "x").code == 0 and world.update().code == 0
    denied = ["::", "::1", "::fffe:c000:209", "2001:db8::7", "7fff::1", "192.0.2.1"]
    passes = ["8000::1", "192.0.2.2", "127.0.0.1"]
    with _squid("squid-dst", "/etc/squid/blocklist.dst", path.read_bytes()) as status:
        for _ in range(2):
            asked = {x: f"http://[{x}]/" if ":" in x else f"http://{x}/" for x in (*denied, *passes)}
            assert [x for x, url in asked.items() if status(url) == 403] == denied


@contextlib.contextmanager
def _squid(name: str, place_in_load: str, text: bytes) -> Iterator[Callable[[str], int]]:
    """A Squid with `text` as the file of the format `name`, loaded as that says; it answers with a status."""
    with driver.lab() as place:
        place.folder.chmod(0o777)
        exported = place.folder / "exported.list"
        exported.write_bytes(text)
        names = place.folder / "hosts"
        names.write_text("127.0.66.9 evil.example\n127.0.0.1 ok.example exact.example\n")
        port = driver.free_port()
        conf = place.folder / "squid.conf"
        conf.write_text(
            f"http_port 127.0.0.1:{port}\npid_filename {place.folder}/pid\ncache_log {place.folder}/log\n"
            "access_log none\ncache deny all\nnetdb_filename none\npinger_enable off\nshutdown_lifetime 0 seconds\n"
            f"coredump_dir {place.folder}\nhosts_file {names}\ndns_nameservers 127.0.0.1\nvisible_hostname t\n"
            "connect_timeout 2 seconds\nforward_max_tries 1\n"
            + FORMATS[name].load.replace(place_in_load, str(exported))
            + "http_access allow all\n"
        )
        place.start([driver.program("squid"), "-N", "-f", str(conf)], port)
        yield lambda url: _status(port, url, url.split("/")[2])


def test_postmap_finds_listed_clients_in_the_cidr_table() -> None:
    postmap = driver.program("postmap")
    text, _ = rendered("postfix-cidr", select({}, LISTED))
    with driver.lab() as place:
        table = place.folder / "blocklist.cidr"
        table.write_bytes(text)
        (place.folder / "main.cf").write_text("compatibility_level = 3.6\n")
        for address, listed in {**SOURCES, "2001:db8:bad::7": True, "2001:db8:600d::1": False}.items():
            argv = [postmap, "-c", str(place.folder), "-q", address, f"cidr:{table}"]
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            assert (done.stdout.strip() == "REJECT", done.stderr) == (listed, ""), address


def test_rspamd_rejects_what_listed_addresses_send() -> None:
    text, account = rendered("rspamd-ip", select({}, LISTED))
    assert account.lost == {}
    with mail.rspamd("rspamd-ip", text) as rejects:
        asked = {**SOURCES, "2001:db8:bad::7": True, "2001:db8:600d::1": False}
        for _ in range(2):
            assert {address: rejects({"IP": address, "From": "<a@ok.example>"}) for address in asked} == asked
