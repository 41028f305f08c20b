"""The configurations that docs/distribution.md shows, started: primaries, resolvers behind them, and the web server."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import ssl
import subprocess
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from engines import driver
from engines.primaries import SECRET, TSIG, ZONE
from installation import PROGRAM, World, names

from blocklist import clock

pytestmark = pytest.mark.engine
PAGE = (Path(__file__).parent.parent / "docs" / "distribution.md").read_text("utf-8")


def _blocks() -> dict[str, str]:
    """The configurations of the page by their name."""
    found = re.findall(r"<!-- (\S+) -->\n((?:    .*\n|\n(?=    ))+)", PAGE)
    return {name: textwrap.dedent(body) for name, body in found}


BLOCKS = _blocks()
VERSION = "version.lists.example.net"
OPTIONS = """
  directory "{run}"; pid-file "{run}/named.pid"; session-keyfile "{run}/session.key"; managed-keys-directory "{run}";
  listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; dnssec-validation no;
"""


@dataclass
class Net:
    """Ports of one primary and two resolvers, and the folder of each."""

    labs: dict[str, driver.Lab]
    ports: dict[str, int]
    upstream: driver.Upstream
    zone: Path

    def shown(self, block: str, lab: str, port: str = "{address} port {port}") -> str:
        """A block of the page with this machine's ports and paths in it."""
        run = str(self.labs[lab].folder)
        text = (
            BLOCKS[block].replace("BASE64", SECRET).replace("/var/lib/blocklist/rpz.example.net.zone", str(self.zone))
        )
        text = re.sub(r"/var/(?:lib|cache)/(?:bind|unbound|powerdns)", run, text)
        # What the page says for large zones: here nobody waits for it.
        text = text.replace("min-update-interval 5", "min-update-interval 1")
        # With a port where one is asked or told, without where one is let in.
        told = (
            r"(primaries \{ |also-notify \{ (?:\S+ port \d+; )?|(?<!-)notify: |primary: |Primary\(\{\"|addresses: \[)"
        )
        for address, who in (("192.0.2.1", "primary"), ("192.0.2.53", "named"), ("192.0.2.54", "unbound")):
            literal = rf"{re.escape(address)}(?![0-9])"
            there = port.format(address="127.0.0.1", port=self.ports[who])
            if block == "knot-primary":
                text = re.sub(rf"(id: (?:bind|unbound)\n\s+address: ){literal}", rf"\g<1>{there}", text)
            else:
                text = re.sub(told + literal, rf"\g<1>{there}", text)
            text = re.sub(literal, "127.0.0.1", text)
        return text


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    tmp_path.chmod(0o755)
    who = ("primary", "named", "unbound", "recursor")
    with contextlib.ExitStack() as stack:
        labs = {name: stack.enter_context(driver.lab()) for name in who}
        upstream = driver.Upstream()
        stack.callback(upstream.close)
        zone = tmp_path / "exports" / "dns"
        zone.parent.mkdir()
        zone.write_text(BLOCKS["bind-empty"])
        yield Net(labs, {name: driver.free_port() for name in who}, upstream, zone)


def _bind(net: Net, block: str) -> dict[str, object]:
    lab, control = net.labs["primary"], driver.free_port()
    (lab.folder / "rpz.example.net").write_text(BLOCKS["bind-empty"])
    options = OPTIONS.format(run=lab.folder, port=net.ports["primary"])
    rndc = lab.folder / "rndc.conf"
    rndc.write_text(f'key "rpz-key" {{ algorithm hmac-sha256; secret "{SECRET}"; }};\n')
    (lab.folder / "named.conf").write_text(
        f"options {{ {options} recursion no; }};\n{net.shown(block, 'primary')}\n"
        f'controls {{ inet 127.0.0.1 port {control} allow {{ 127.0.0.1; }} keys {{ "rpz-key"; }}; }};\n'
    )
    lab.start([driver.program("named"), "-g", "-n", "1", "-c", str(lab.folder / "named.conf")], net.ports["primary"])
    if block != "bind-primary-file":
        notify = [f"127.0.0.1:{net.ports[name]}" for name in ("named", "unbound")]
        return {"delivery": "rfc2136", "tsig": "rpz-key", "notify": notify}
    return {"reload": [driver.program("rndc"), "-k", str(rndc), "-p", str(control), "reload", ZONE]}


def _knot(net: Net) -> dict[str, object]:
    lab = net.labs["primary"]
    own = (
        f'server:\n  rundir: "{lab.folder}"\n  listen: 127.0.0.1@{net.ports["primary"]}\n  tcp-io-timeout: 5000\n'
        f'database:\n  storage: "{lab.folder}"\nlog:\n  - target: stderr\n    any: info\n'
    )
    (lab.folder / "knot.conf").write_text(own + net.shown("knot-primary", "primary", "{address}@{port}"))
    lab.start([driver.program("knotd"), "-c", str(lab.folder / "knot.conf")], net.ports["primary"])
    return {"delivery": "knot", "socket": str(lab.folder / "knot.sock")}


def _nsd(net: Net) -> dict[str, object]:
    lab = net.labs["primary"]
    own = (
        f'server:\n  ip-address: 127.0.0.1@{net.ports["primary"]}\n  username: ""\n  chroot: ""\n  zonesdir: ""\n'
        f'  pidfile: "{lab.folder}/nsd.pid"\n  database: ""\n  zonelistfile: "{lab.folder}/zone.list"\n'
        f'  xfrdfile: "{lab.folder}/xfrd.state"\n  xfrdir: "{lab.folder}"\n  server-count: 1\n'
        f'remote-control:\n  control-enable: yes\n  control-interface: "{lab.folder}/nsd.sock"\n'
    )
    (lab.folder / "nsd.conf").write_text(own + net.shown("nsd-primary", "primary", "{address}@{port}"))
    lab.start([driver.program("nsd"), "-d", "-c", str(lab.folder / "nsd.conf")], net.ports["primary"])
    return {"reload": [driver.program("nsd-control"), "-c", str(lab.folder / "nsd.conf"), "reload", ZONE]}


PRIMARIES: dict[str, Callable[[Net], dict[str, object]]] = {
    "bind-rfc2136": lambda net: _bind(net, "bind-primary"),
    "bind-file": lambda net: _bind(net, "bind-primary-file"),
    "knot": _knot,
    "nsd": _nsd,
}


def resolvers(net: Net) -> None:
    lab = net.labs["named"]
    options = OPTIONS.format(run=lab.folder, port=net.ports["named"])
    (lab.folder / "named.conf").write_text(
        f"options {{ {options} forwarders {{ 127.0.0.1 port {net.upstream.port}; }}; forward only; recursion yes; "
        f"notify no; empty-zones-enable no; {net.shown('bind-resolver-options', 'named')} }};\ncontrols {{ }};\n"
        f"{net.shown('bind-resolver', 'named')}"
    )
    lab.start([driver.program("named"), "-g", "-n", "1", "-c", str(lab.folder / "named.conf")], net.ports["named"])
    lab = net.labs["unbound"]
    own = (
        f'server:\n  directory: "{lab.folder}"\n  chroot: ""\n  username: ""\n  pidfile: "{lab.folder}/unbound.pid"\n'
        f'  interface: 127.0.0.1@{net.ports["unbound"]}\n  do-ip6: no\n  use-syslog: no\n  logfile: ""\n'
        f'  do-not-query-localhost: no\nforward-zone:\n  name: "."\n  forward-addr: 127.0.0.1@{net.upstream.port}\n'
    )
    (lab.folder / "unbound.conf").write_text(own + net.shown("unbound-resolver", "unbound", "{address}@{port}"))
    argv = [driver.program("unbound"), "-d", "-p", "-c", str(lab.folder / "unbound.conf")]
    lab.start(argv, net.ports["unbound"])


def installed(tmp_path: Path, net: Net, **keys: object) -> World:
    world = World(tmp_path)
    (tmp_path / "secrets").mkdir(exist_ok=True)
    (tmp_path / "secrets" / "rpz-key").write_text(TSIG)
    (tmp_path / "secrets" / "rpz-key").chmod(0o600)
    world.set("verify", control={"exists": ["ok.example"]})
    world.feed("a", names(2_000))
    made = {
        "options": {"origin": ZONE, "version": VERSION},
        "primary": f"127.0.0.1:{net.ports['primary']}",
        "delivery_timeout": "20s",
    }
    engines = [f"127.0.0.1:{net.ports[name]}" for name in ("named", "unbound")]
    world.export("dns", "rpz", **made, **keys, probe=engines)
    return world


def until_ok(world: World, seconds: float = 20) -> list[dict[str, object]]:
    deadline = time.monotonic() + seconds
    while True:
        ran = world.run("probe", "--json", "--sample", "200")
        reports = [json.loads(line) for line in ran.out.splitlines()][:-1]
        if all(report["state"] == "ok" for report in reports):
            assert ran.code == 0
            return reports
        assert time.monotonic() < deadline, ran.text
        time.sleep(0.3)


@pytest.mark.parametrize("primary", PRIMARIES)
def test_two_resolvers_follow_the_primary_of_the_page(tmp_path: Path, net: Net, primary: str) -> None:
    world = installed(tmp_path, net, **PRIMARIES[primary](net))
    resolvers(net)
    assert world.update().code == 0, world.update().text
    reports = until_ok(world)
    told = doctor(world)
    assert (told["primaries"]["word"], told["primaries"]["text"].split()[0]) == ("ok", "serves")
    assert [f["text"].split()[0] for f in told.values() if f["check"] == "resolvers"] == ["BIND", "Unbound"]
    assert all(f["word"] == "ok" and "keep a copy" in f["hint"] for f in told.values() if f["check"] == "resolvers")
    assert [report["role"] for report in reports] == ["primary", "resolver", "resolver"]
    assert all(report["sampled"] == 200 and not report["missed"] for report in reports[1:])
    assert reports[1]["proved"] == 200  # BIND names the zone in its answers
    world.lines("a", [*names(1_990, start=10), "new.example"])
    world.run("allow", "add", "good.new.example", "--reason", "customer")
    ran = world.update()
    assert ran.code == 0 and "not acknowledged" not in str(ran.export("dns")["note"]), ran.text
    serial = ran.export("dns")["serial"]
    for report in until_ok(world):
        assert report["served"] == serial
    for name in ("named", "unbound"):
        engine = driver.Engine(
            name, net.ports[name], net.labs[name].processes[0], net.labs[name].folder / f"{name}.log"
        )
        # BIND has the new version record at once, and acts on new names after its min-update-interval.
        deadline = time.monotonic() + 10
        while not engine.blocks("new.example") and time.monotonic() < deadline:
            time.sleep(0.3)
        assert engine.blocks("new.example") and engine.blocks("x.new.example")
        assert not engine.blocks("good.new.example") and not engine.blocks("h00003.evil.example")


def test_the_recursor_of_the_page_takes_the_zone(tmp_path: Path, net: Net) -> None:
    world = installed(tmp_path, net, **_knot(net))
    assert world.update().code == 0
    net.labs["primary"].end()
    lab, port = net.labs["recursor"], net.ports["recursor"]
    block = "recursor-resolver-lua" if driver.recursor_version() < (5, 1) else "recursor-resolver"
    argv = driver.recursor(lab, net.shown(block, "recursor", "{address}:{port}"), net.upstream.port, port)
    engine = driver.Engine("recursor", port, *lab.start(argv, port))

    def control(*words: str) -> None:
        command = [driver.program("rec_control"), f"--socket-dir={lab.folder}", *words]
        subprocess.run(command, check=True, capture_output=True, timeout=30)

    # At its first start there is neither a copy nor, here, a primary.
    early, *others = names(40)
    assert not engine.blocks(early)
    _knot(net)
    control("reload-lua-config")
    # It keeps for a minute what it answers before it has the zone: so each time another is asked.
    deadline, tries = time.monotonic() + 15, iter(others)
    while not engine.blocks(next(tries)):
        assert time.monotonic() < deadline, engine.log.read_text()[-800:]
        time.sleep(0.5)
    assert not engine.blocks(early)
    control("wipe-cache", ".$")
    assert engine.blocks(early)
    world.export("dns", "rpz", **{**world.exports["dns"], "probe": [f"127.0.0.1:{port}"]})
    assert [report["state"] for report in until_ok(world)] == ["ok", "ok"]
    world.export("dns", "rpz", **{**world.exports["dns"], "notify": [f"127.0.0.1:{port}"]})
    (warned,) = [f for f in doctor(world).values() if f["word"] == "warn" and f["check"] == "resolvers"]
    assert "takes no NOTIFY" in warned["text"] and "refresh" in warned["hint"]
    # From then on its copy has it filter from its first answer on, whatever the primary does.
    lab.end()
    net.labs["primary"].end()
    engine = driver.Engine("recursor", port, *lab.start(argv, port))
    assert all(engine.blocks(name) for name in names(50))


def doctor(world: World) -> dict[str, dict[str, str]]:
    """What `doctor` says of primaries and resolvers: the first of each place, and every warning, by its own key."""
    lines = [json.loads(line) for line in world.run("doctor", "--json").out.splitlines()][:-1]
    found: dict[str, dict[str, str]] = {}
    for line in lines:
        if line["check"] in ("primaries", "resolvers", "verify"):
            key = line["check"] if line["check"] not in found else f"{line['place']}: {line['text']}"
            found[key] = line
    return found


def test_doctor_tells_why_an_engine_has_no_version_record(tmp_path: Path, net: Net) -> None:
    # Signed transfers alone: BIND gets the zone, Unbound does not, and says nothing.
    signed = BLOCKS["bind-primary"].replace("key rpz-key; 192.0.2.54;", "key rpz-key;")
    assert signed != BLOCKS["bind-primary"]
    BLOCKS["signed-primary"] = signed
    world = installed(tmp_path, net, **_bind(net, "signed-primary"))
    resolvers(net)
    assert world.update().code == 0
    deadline = time.monotonic() + 15
    while (told := doctor(world))["resolvers"]["word"] != "ok" and time.monotonic() < deadline:
        time.sleep(0.3)
    assert told["resolvers"]["word"] == "ok", "BIND"
    (unbound,) = [f for f in told.values() if f["text"].startswith("Unbound")]
    assert unbound["word"] == "warn" and "signs no transfer" in unbound["hint"]
    # A name in the zone itself, which BIND does not answer for.
    options = {"origin": ZONE, "version": f"version.{ZONE}"}
    world.export("dns", "rpz", **{**world.exports["dns"], "options": options})
    assert world.update().code == 0
    # While it takes the zone in it may not answer at all.
    deadline = time.monotonic() + 15
    while "has no version record" not in (bind := doctor(world)["resolvers"])["text"] and time.monotonic() < deadline:
        time.sleep(0.3)
    assert bind["word"] == "warn" and "outside of it" in bind["hint"], bind
    # And when nobody is there.
    net.labs["primary"].end()
    net.labs["named"].end()
    told = doctor(world)
    assert (told["primaries"]["word"], told["resolvers"]["word"]) == ("fail", "warn")
    assert "does not answer" in told["primaries"]["text"] and "does not answer" in told["resolvers"]["text"]


def test_doctor_reads_what_knot_is_configured_to_do(tmp_path: Path, net: Net) -> None:
    for line in ("    zonefile-sync: -1\n", "    zonefile-load: difference\n"):
        assert line in BLOCKS["knot-primary"]
        BLOCKS["knot-primary"] = BLOCKS["knot-primary"].replace(line, "")
    try:
        world = installed(tmp_path, net, **_knot(net))
    finally:
        BLOCKS.update(_blocks())
    assert world.update().code == 0
    texts = [f["text"] for f in doctor(world).values() if f["check"] == "primaries" and f["word"] == "warn"]
    assert len(texts) == 2 and "over the published file" in texts[0] and "loads whole" in texts[1]
    world.export("dns", "rpz", **{**world.exports["dns"], "socket": str(tmp_path / "nowhere.sock")})
    (failed,) = [f for f in doctor(world).values() if f["word"] == "fail"]
    assert "nowhere.sock" in failed["text"] and "is knotd running" in failed["hint"]


def test_doctor_tests_the_resolvers_of_verify(tmp_path: Path, net: Net) -> None:
    world = World(tmp_path)
    world.feed("a", names(3))
    world.set("verify", control={"exists": ["ok.example"]}, resolvers=[f"127.0.0.1:{net.upstream.port}"])
    told = doctor(world)["verify"]
    # It has an address for every name, also for those that were made up.
    assert told["word"] == "fail" and "made up" in told["text"]


def test_probe_tells_who_lags_who_is_silent_and_who_does_not_block(
    tmp_path: Path, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = _knot(net)
    world = installed(tmp_path, net, **keys)
    world.run("deny", "add", "denied.example", "--reason", "order")
    assert world.update().code == 0
    # Nobody behind the primary yet.
    ran = world.run("probe")
    assert ran.code == 4 and ran.out.count("silent") == 2, ran.text
    resolvers(net)
    canaries = until_ok(world)[1]["canaries"]
    assert canaries == 2 * (1 + 2 + 1)  # the rule, two fixed names, one that exists; twice
    # Resolvers that can't reach the primary any more: the file goes on without it.
    net.labs["primary"].end()
    world.lines("a", names(2_050, start=100))
    assert world.update().code == 4
    ran = world.run("probe", "--json", "--grace", "0s")
    primary, *others = [json.loads(line) for line in ran.out.splitlines()][:-1]
    assert ran.code == 4 and primary["state"] == "silent"
    assert [(r["state"], r["behind"]) for r in others] == [("stale", 1)] * 2 and others[0]["lag"] >= 0
    ran = world.run("probe", "--grace", "0s")
    assert "have it take the zone again" in ran.err and "does it run" in ran.err, ran.text
    with monkeypatch.context() as later:
        soon = clock.now() + timedelta(minutes=10)
        later.setattr(clock, "now", lambda: soon)
        lines = map(json.loads, world.run("doctor", "--json").out.splitlines())
        words = [(line["word"], "has serial" in line["text"]) for line in lines if line.get("check") == "resolvers"]
    assert words == [("warn", True)] * 2
    ran = world.run("probe", "--json", "--grace", "1h")
    assert [json.loads(line)["state"] for line in ran.out.splitlines()[1:3]] == ["catching up"] * 2
    ran = world.run("probe", "--metrics", "--grace", "0s")
    assert ran.code == 4
    line = f'blocklist_probe_releases_behind{{export="dns",engine="127.0.0.1:{net.ports["named"]}",role="resolver"}} 1'
    assert line in ran.out and "# TYPE blocklist_probe_up gauge" in ran.out
    # A resolver that passes all: no version record, and every block is missed.
    open_resolver = f"127.0.0.1:{net.upstream.port}"
    world.export("dns", "rpz", **{**world.exports["dns"], "probe": [open_resolver]})
    ran = world.run("probe", "--json", "--grace", "0s")
    report = json.loads(ran.out.splitlines()[1])
    assert report["state"] == "not enforcing" and report["missed"] == report["sampled"] == 100
    assert "denied.example" in report["canaries_wrong"] and "ok.example" not in report["canaries_wrong"]


@pytest.mark.parametrize("fmt", ["nftables", "ipset"])
def test_probe_counts_the_sets_of_this_machine(tmp_path: Path, fmt: str) -> None:
    driver.may_make_namespaces()
    driver.program("nft" if fmt == "nftables" else "ipset")
    world = World(tmp_path)
    world.feed(
        "ips",
        ["192.0.2.7", "198.51.100.0/24", "203.0.113.4/31", "203.0.113.6", "2001:db8::/48"],
        kinds=["ipv4", "ipv6"],
        category="attack-source",
    )
    path = world.export("fw", fmt, probe=[fmt])
    assert world.update().code == 0
    load = f"nft -f {path}" if fmt == "nftables" else f"ipset -exist restore -file {path}"
    less = (
        "nft delete element inet blocklist inbound4 { 192.0.2.7 }"
        if fmt == "nftables"
        else ("ipset del blocklist-inbound4 192.0.2.7")
    )
    script = tmp_path / "in.sh"
    program = shlex.join([*PROGRAM, "--config", str(world.config)])
    script.write_text(f"set -e\n{load}\n{program} probe --json\n{less}\n{program} probe --json --grace 0s\n")
    done = subprocess.run(["unshare", "-n", "sh", str(script)], capture_output=True, text=True, check=False)
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 4, done.stderr
    assert reports[0]["state"] == "ok" and reports[2]["state"] == "not enforcing"
    key = "inbound4" if fmt == "nftables" else "blocklist-inbound4"
    (have, want), (left, _) = reports[0]["sets"][key], reports[2]["sets"][key]
    assert have == want >= 3 and left == have - 1
    # Outside of it there is no such table.
    ran = world.run("probe")
    assert ran.code == 4 and "silent" in ran.out


def test_the_web_server_of_the_page_gives_files_to_who_has_a_token(tmp_path: Path) -> None:
    command, openssl = driver.program("nginx"), driver.program("openssl")
    with driver.lab() as lab:
        exports = lab.folder / "exports"
        exports.mkdir()
        (exports / "fw").write_text("192.0.2.7\n")
        (exports / ".fw.1234.blocklist-new").write_text("half\n")
        port, run = driver.free_port(), lab.folder
        subprocess.run(
            [
                openssl,
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-subj",
                "/CN=lists.example.net",
                "-days",
                "2",
                "-keyout",
                str(run / "lists.key"),
                "-out",
                str(run / "lists.crt"),
            ],
            check=True,
            capture_output=True,
        )
        server = BLOCKS["nginx-server"].replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
        for old, new in (("/var/lib/blocklist/exports", exports), ("/etc/nginx", run), ("/var/log/nginx", run)):
            server = server.replace(old, str(new))
        temporary = "".join(
            f"{kind}_temp_path {run}/{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (run / "nginx.conf").write_text(
            f"daemon off; pid {run}/nginx.pid; error_log {run}/error.log;\nevents {{ }}\n"
            f"http {{ {temporary}\n{BLOCKS['nginx-map']}\n{server} }}\n"
        )
        lab.start([command, "-p", str(run), "-c", str(run / "nginx.conf")], port)

        def get(path: str, **headers: str) -> tuple[int, str | None, bytes]:
            context = ssl.create_default_context(cafile=str(run / "lists.crt"))
            context.check_hostname = False
            request = urllib.request.Request(f"https://127.0.0.1:{port}{path}", headers=headers)
            try:
                with urllib.request.urlopen(request, context=context, timeout=5) as answer:
                    return answer.status, answer.headers["ETag"], answer.read()
            except urllib.error.HTTPError as error:
                return error.code, None, b""

        token = {"Authorization": "Bearer TOKEN-FW1"}
        status, etag, body = get("/fw", **token)
        assert (status, body) == (200, b"192.0.2.7\n") and etag
        assert get("/fw", **token, **{"If-None-Match": etag})[0] == 304
        assert get("/fw")[0] == 401 and get("/fw", Authorization="Bearer TOKEN-OTHER")[0] == 401
        assert get("/.fw.1234.blocklist-new", **token)[0] == 404 and get("/", **token)[0] in (403, 404)
        # A renamed file has another tag.
        (exports / "new").write_text("192.0.2.7\n198.51.100.1\n")
        (exports / "new").rename(exports / "fw")
        assert get("/fw", **token, **{"If-None-Match": etag})[0] == 200
