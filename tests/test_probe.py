"""`probe` asks engines that are no primaries: a resolver with a list of its own format, and a Squid through itself."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from engines import driver
from installation import World, names

from blocklist.probe.listed import entries
from blocklist.publish.descriptor import builtin

pytestmark = pytest.mark.engine
FORMATS = builtin()


@pytest.fixture
def world(tmp_path: Path) -> World:
    tmp_path.chmod(0o755)
    world = World(tmp_path)
    world.set("verify", control={"exists": ["ok.example"]})
    world.feed("a", [*names(60), "wide.example"])
    world.feed("nets", ["192.0.2.0/28", "198.51.100.7", "2001:db8:1::/64"], category="attack-source")
    world.feed("urls", ["http://evil.test/a?b=c+d", "https://evil.test/(x)/y.z"])
    return world


def probe(world: World, *words: str) -> tuple[int, list[dict[str, object]]]:
    ran = world.run("probe", "--json", "--grace", "0s", *words)
    assert ran.out, ran.err
    return ran.code, [json.loads(line) for line in ran.out.splitlines()][:-1]


@pytest.mark.parametrize(
    ("fmt", "engine"),
    [("unbound", "unbound-local"), ("dnsmasq", "dnsmasq"), ("hosts", "dnsmasq-hosts"), ("dnsdist", "dnsdist")],
)
def test_a_resolver_with_a_list_of_its_own_is_asked_for_canaries_and_a_sample(
    world: World, fmt: str, engine: str
) -> None:
    path = world.export("dns", fmt)
    world.run("deny", "add", "denied.example", "--reason", "order")
    assert world.update().code == 0
    with driver.resolver(engine, path.read_bytes(), canary="h00001.evil.example") as running:
        world.export("dns", fmt, probe=[f"127.0.0.1:{running.port}"])
        code, (report,) = probe(world, "--sample", "40")
        assert (code, report["state"], report["role"]) == (0, "ok", "resolver"), report
        assert report["sampled"] == 40 and report["missed"] == 0 and report["served"] is None
        assert report["canaries"] == 2 * (1 + 2 + 1), "the rule, two fixed ones, one that exists; twice"
        # The list goes on, the engine is not told.
        world.lines("a", [*names(20, 500), "other.example"])
        world.set("gates", max_change=5.0)
        world.run("deny", "add", "new.example", "--reason", "order")
        assert world.update().code == 0
        code, (report,) = probe(world)
        assert (code, report["state"]) == (4, "not enforcing")
        assert "new.example" in str(report["canaries_wrong"]) and int(str(report["missed"])) >= 20


class _Host(driver._Origin):
    """A host that a proxy must never reach by being asked."""

    reached: list[str] = []  # noqa: RUF012

    def _note(self) -> None:
        self.reached.append(self.path)
        self.do_GET()

    do_TRACE = do_HEAD = do_OPTIONS = _note


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    server = ThreadingHTTPServer(("127.0.0.1", 80), _Host)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    _Host.reached.clear()
    yield _Host.reached
    server.shutdown()
    server.server_close()


def _squid(place: driver.Lab, rule: str, hosts: list[str]) -> int:
    """A Squid that denies what `rule` matches; its port."""
    place.folder.chmod(0o777)
    there = place.folder / "hosts"
    there.write_text("".join(f"127.0.0.1 {host}\n" for host in hosts))
    port = driver.free_port()
    text = (driver.CONF / "squid.conf").read_text()
    line = next(line for line in text.splitlines() if line.startswith("acl") and "$domains" in line)
    name = line.split()[1]
    conf = place.configure("squid.conf", text.replace(line, f"acl {name} {rule}"), domains="", hosts=there, port=port)
    place.start([driver.program("squid"), "-N", "-f", str(conf)], port)
    return port


@pytest.mark.parametrize(("fmt", "acl"), [("squid", "dstdomain"), ("squid-dst", "dst"), ("squid-url", "url_regex")])
def test_a_squid_is_asked_through_itself_and_fetches_nothing(
    world: World, hosts: list[str], fmt: str, acl: str
) -> None:
    path = world.export("proxy", fmt)
    assert world.update().code == 0
    listed = [*names(60), "ok.example", "evil.test"]
    with driver.lab() as place, driver.lab() as other:
        copy = place.folder / "list"
        copy.write_bytes(path.read_bytes())
        port = _squid(place, f'{acl} "{copy}"', listed)
        world.export("proxy", fmt, probe=[f"http://127.0.0.1:{port}"])
        code, (report,) = probe(world)
        assert (code, report["state"], report["role"]) == (0, "ok", "proxy"), report
        assert report["sampled"] == len(entries(FORMATS[fmt], {}, path)) > 0 and report["canaries"] == 2 * 3
        # One that lets everything pass: said, and still nothing was fetched from the hosts of the list.
        open_port = _squid(other, "url_regex nothing-of-this", listed)
        world.export("proxy", fmt, probe=[f"http://127.0.0.1:{open_port}"])
        code, (report,) = probe(world)
        assert (code, report["state"]) == (4, "not enforcing") and report["missed"] == report["sampled"]
        assert hosts == []
    code, (report,) = probe(world)
    assert (code, report["state"]) == (4, "silent")


def test_a_squid_that_refuses_everything_is_told_by_the_canary_that_must_pass(world: World) -> None:
    path = world.export("proxy", "squid")
    assert world.update().code == 0
    with driver.lab() as place:
        port = _squid(place, "src all", ["ok.example"])
        world.export("proxy", "squid", probe=[f"http://127.0.0.1:{port}"])
        code, (report,) = probe(world)
    assert path.exists() and code == 4 and set(report["canaries_wrong"]) == {"ok.example"}  # type: ignore[call-overload]


@pytest.mark.parametrize("fmt", ["unbound", "dnsmasq", "dnsmasq-conf", "hosts", "dnsdist", "smartdns", "adblock"])
def test_the_entries_of_a_list_are_found_in_its_lines_again(world: World, fmt: str) -> None:
    path = world.export("dns", fmt)
    world.run("allow", "add", "good.wide.example", "--reason", "customer")
    world.update()
    found = set(entries(FORMATS[fmt], FORMATS[fmt].settle({}), path)["text"])
    assert set(names(60)) <= found and "good.wide.example" not in found
    assert ("wide.example" in found) == any("wide.example" in line for line in world.exported("dns"))


def test_an_escape_of_a_url_is_asked_for_as_an_escape(tmp_path: Path) -> None:
    world = World(tmp_path)
    urls = ["//evil.test/a%20b%5B%5E.exe?x=%25%41", "//[2001:db8::7]/(%5C)"]
    world.feed("u", [f"http:{url}" for url in urls], format="urls")
    path = world.export("urls", "squid-url")
    assert world.update().code == 0
    assert set(entries(FORMATS["squid-url"], {}, path)["text"]) == {
        "evil.test/a%20b%5B%5E.exe?x=%25%41",
        "[2001:db8::7]/(%5C)",
    }


def test_urls_and_networks_are_found_again(world: World) -> None:
    urls, nets = world.export("urls", "squid-url"), world.export("nets", "squid-dst")
    world.update()
    assert set(entries(FORMATS["squid-url"], {}, urls)["text"]) == {"evil.test/a?b=c+d", "evil.test/(x)/y.z"}
    assert set(entries(FORMATS["squid-dst"], {}, nets)["text"]) == {"192.0.2.0/28", "198.51.100.7", "2001:db8:1::/64"}


@pytest.mark.parametrize(
    ("fmt", "engine", "words"),
    [
        ("hosts", "http://127.0.0.1:3128", "can be asked about the lists of Squid"),
        ("squid", "192.0.2.53", 'can be asked about format = "rpz"'),
        ("squid", "http://127.0.0.1:3128/x", "is no proxy"),
        ("csv", "192.0.2.53", 'can be asked about format = "rpz"'),
        ("hosts", "nftables", 'can be asked about format = "nftables"'),
    ],
)
def test_an_engine_that_can_not_be_asked_about_a_format_is_told(
    world: World, fmt: str, engine: str, words: str
) -> None:
    world.export("x", fmt, probe=[engine])
    ran = world.run("probe")
    assert ran.code == 1 and words in ran.err, ran.text
