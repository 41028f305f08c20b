"""Real engines are asked through loopback, and `match` reads what they themselves write about it."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from engines import driver
from installation import World

pytestmark = pytest.mark.engine

# Asked in this order; the odd ones are names that logs have to escape.
ASKED = ["evil.example", "A.evil.example", "good.example", "a.evil.example", "we ird.evil.example", "x(y).evil.example"]
BLOCKED_NAMES = 4  # what is asked in capitals is the same name
RPZ = b"$TTL 60\n@ SOA localhost. root.localhost. 1 60 60 60 60\n NS localhost.\n"
RPZ += b"".join(b"%s CNAME .\n*.%s CNAME .\n" % (name, name) for name in (b"evil.example", b"canary.test"))


def logging_templates(folder: Path, name: str, *changes: tuple[str, str]) -> Path:
    """The folder of the engines' configurations, with that of one of them made to log."""
    for path in driver.CONF.iterdir():
        text = path.read_text()
        if path.name == name:
            for old, new in changes:
                assert old in text
                text = text.replace(old, new)
        (folder / path.name).write_text(text)
    return folder


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path / "world")
    world.base.mkdir()
    world.feed("malware", ["evil.example", "https://files.example/mal.exe"])
    world.export("dns", "rpz", options={"origin": "rpz.test"})
    world.export("proxy", "squid")
    world.export("urls", "urls")
    assert world.update().code == 0
    return world


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., driver.Engine]]:
    """Start a resolver with these changes to its configuration, and ask it for everything."""
    folder = tmp_path / "conf"
    folder.mkdir()
    running: list[Any] = []

    def start(name: str, conf: str, *changes: tuple[str, str], text: bytes = RPZ) -> driver.Engine:
        monkeypatch.setattr(driver, "CONF", logging_templates(folder, conf, *changes))
        running.append(driver.resolver(name, text, canary="canary.test", origin="rpz.test"))
        engine: driver.Engine = running[0].__enter__()
        for query in ASKED:
            engine.ask(query)
        time.sleep(0.5)
        return engine

    yield start
    for context in running:
        context.__exit__(None, None, None)


def matched(world: World, log: Path, form: str) -> dict[str, Any]:
    ran = world.run("match", log, "--json")
    assert ran.code == 0, ran.text
    found = ran.json
    assert found["logs"][0]["form"] == form, log.read_text()
    return found


def assert_all_seen(found: dict[str, Any], canary: int = 1) -> None:
    """All queries, by the client that made them; the canary was asked for before them."""
    assert found["queries"] >= len(ASKED) + canary
    assert found["blocked_queries"] == 5 and found["blocked_names"] == BLOCKED_NAMES
    assert {row["entry"] for row in found["blocked"]} == {"evil.example"}
    assert [row["client"] for row in found["top_clients"]] == ["127.0.0.1"]


def test_bind_s_query_log_and_rpz_log(world: World, asked: Callable[..., driver.Engine]) -> None:
    engine = asked(
        "named",
        "named.conf",
        ("options {", "logging { category rpz { default_stderr; }; };\noptions { querylog yes;"),
    )
    assert_all_seen(matched(world, engine.log, "bind"))
    rewrites = world.base / "rpz.log"
    rewrites.write_text("".join(x for x in engine.log.read_text().splitlines(True) if ": rpz " in x))
    found = matched(world, rewrites, "bind-rpz")
    assert found["blocked_queries"] == 5 and found["queries"] >= 6


def test_dnstap_of_bind_as_both_tools_print_it(world: World, asked: Callable[..., driver.Engine]) -> None:
    tools = {"dnstap-read": [driver.program("dnstap-read")], "dnstap-ldns": [driver.program("dnstap-ldns"), "-q", "-r"]}
    engine = asked("named", "named.conf", ("options {", 'options { dnstap { client; }; dnstap-output file "$run/tap";'))
    tap = engine.log.parent / "tap"
    # It writes the end of the file when it ends.
    os.killpg(engine.process.pid, signal.SIGTERM)
    engine.process.wait(10)
    for form, words in tools.items():
        text = world.base / form
        text.write_bytes(subprocess.run([*words, str(tap)], capture_output=True, check=True).stdout)
        assert_all_seen(matched(world, text, form))


def test_unbound_s_query_reply_and_rpz_log(world: World, asked: Callable[..., driver.Engine]) -> None:
    engine = asked(
        "unbound",
        "unbound-rpz.conf",
        ('logfile: ""', 'logfile: ""\n  log-queries: yes\n  log-replies: yes'),
        ("rpz:\n", "rpz:\n  rpz-log: yes\n"),
    )
    assert_all_seen(matched(world, engine.log, "unbound"))
    lines = engine.log.read_text().splitlines(True)
    for form, kept in (
        ("unbound-reply", [x for x in lines if " NXDOMAIN " in x or " NOERROR " in x]),
        ("unbound-rpz", [x for x in lines if "rpz: applied" in x]),
    ):
        part = world.base / form
        part.write_text("".join(kept))
        assert matched(world, part, form)["blocked_queries"] == 5


def test_unbound_s_query_log_with_tags(world: World, asked: Callable[..., driver.Engine]) -> None:
    engine = asked(
        "unbound",
        "unbound-rpz.conf",
        ('logfile: ""', 'logfile: ""\n  log-queries: yes\n  log-replies: yes\n  log-tag-queryreply: yes'),
    )
    assert_all_seen(matched(world, engine.log, "unbound"))


@pytest.mark.parametrize("extra", ["log-queries", "log-queries=extra"])
def test_dnsmasq_s_query_log(world: World, asked: Callable[..., driver.Engine], extra: str) -> None:
    engine = asked(
        "dnsmasq",
        "dnsmasq.conf",
        ("no-daemon\n", f"no-daemon\n{extra}\nlog-facility=$run/queries.log\n"),
        text=b"server=/evil.example/\nserver=/canary.test/\n",
    )
    assert_all_seen(matched(world, engine.log.parent / "queries.log", "dnsmasq"))


@pytest.mark.parametrize("structured", ["yes", "no"])
def test_powerdns_recursor_s_query_log(world: World, asked: Callable[..., driver.Engine], structured: str) -> None:
    changes = {
        "recursor.conf": (
            "loglevel=5",
            f"loglevel=9\nquiet=no\ndisable-packetcache=yes\nstructured-logging={structured}",
        ),
        # All of its log is structured, whatever `structured_logging` says.
        "recursor.yml": ("loglevel: 5", "loglevel: 9\n  quiet: false\npacketcache:\n  disable: true"),
    }
    settings = "recursor.conf" if driver.recursor_version() < (5, 1) else "recursor.yml"
    engine = asked("pdns_recursor", settings, changes[settings])
    form = "powerdns-structured" if structured == "yes" or settings == "recursor.yml" else "powerdns"
    assert_all_seen(matched(world, engine.log, form))


@pytest.mark.parametrize(("log_format", "form"), [("squid", "squid"), ("combined", "squid-common")])
def test_squid_s_access_log(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, log_format: str, form: str
) -> None:
    with tempfile.TemporaryDirectory(prefix="blocklist-log-") as folder:
        Path(folder).chmod(0o777)  # Squid gives up root before it opens its log
        log = Path(folder) / "access.log"
        conf = tmp_path / "conf"
        conf.mkdir()
        change = ("access_log none", f"access_log stdio:{log} logformat={log_format}")
        monkeypatch.setattr(driver, "CONF", logging_templates(conf, "squid.conf", change))
        hosts = ["a.evil.example", "files.example", "good.example"]
        with driver.squid(b".evil.example\n", hosts) as proxy:
            proxy.blocks("a.evil.example")
            proxy.blocks("good.example")
            connection = HTTPConnection("127.0.0.1", proxy.port, timeout=5)
            connection.request("GET", "http://files.example/mal.exe")
            connection.getresponse().read()
            connection.close()
            tunnel = HTTPConnection("127.0.0.1", proxy.port, timeout=5)
            tunnel.set_tunnel("x.evil.example", 443)
            with pytest.raises(OSError, match="403"):
                tunnel.connect()
            time.sleep(0.5)
        found = matched(world, log, form)
    assert found["queries"] >= 4
    rows = {row["what"]: (row["entry"], row["lists"]) for row in found["blocked"]}
    assert rows["x.evil.example"] == ("evil.example", ["dns", "proxy"])
    assert rows["//files.example/mal.exe"] == ("//files.example/mal.exe", ["urls"])
    assert any(what.removeprefix("//").startswith("a.evil.example") for what in rows)
    assert not any("good" in what for what in rows)
    assert [row["client"] for row in found["top_clients"]] == ["127.0.0.1"]
