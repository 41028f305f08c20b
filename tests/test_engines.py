"""Real engines read what is exported, and must agree with the rule: the most specific entry decides."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines import driver, proxies
from engines.lists import entries, rendered, select, verdict

pytestmark = pytest.mark.engine

SBIN = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
ORIGIN = "rpz.example.net"
LISTED = entries(
    block=["evil.example", "back.good.evil.example", "pass.example", "under_score.example", "zz-top-level"],
    exact=["exact.example", "-dash.example", "-i.example", "_dmarc.exact.example", "shut.good.evil.example"],
    allow=["good.evil.example", "ok.deep.er.evil.example"],
    exact_allow=["ok.pass.example", "x.mid.pass.example"],
) | {("dual.example", True): False, ("dual.example", False): True}
ASKED = [
    *("ok.example", "notevil.example", "example", "evil.example.ok.example"),
    *("evil.example", "www.evil.example", "a.b.www.evil.example", "EVIL.Example", "wWw.eViL.eXample"),
    *("good.evil.example", "sub.good.evil.example", "GOOD.evil.example"),
    *(
        "back.good.evil.example",
        "a.back.good.evil.example",
        "shut.good.evil.example",
        "a.shut.good.evil.example",
    ),
    *("er.evil.example", "a.er.evil.example", "deep.er.evil.example", "x.deep.er.evil.example"),
    *("ok.deep.er.evil.example", "sub.ok.deep.er.evil.example"),
    *(
        "exact.example",
        "www.exact.example",
        "a.b.exact.example",
        "_dmarc.exact.example",
        "a._dmarc.exact.example",
    ),
    *("pass.example", "a.pass.example", "ok.pass.example", "a.ok.pass.example", "b.a.ok.pass.example"),
    *("mid.pass.example", "a.mid.pass.example", "x.mid.pass.example", "a.x.mid.pass.example"),
    *("dual.example", "a.dual.example", "-dash.example", "a.-dash.example", "-i.example", "dash.example"),
    *("under_score.example", "a_b.under_score.example", "zz-top-level", "x.zz-top-level"),
    *("x.version.example.net", "www.example.net", "example.net"),
]


@pytest.fixture(scope="module", params=driver.RPZ_ENGINES)
def zone_engine(request: pytest.FixtureRequest) -> Iterator[driver.Engine]:
    text, _ = rendered("rpz", select(LISTED), origin=ORIGIN, version="version.example.net", serial=4711)
    with driver.resolver(request.param, text, canary="evil.example", origin=ORIGIN) as engine:
        yield engine


def _differences(engine: driver.Engine, listed: dict[tuple[str, bool], bool], kind: str = "A") -> list[str]:
    return [
        f"{name} {kind}: blocked={got}"
        for name in ASKED
        if (got := engine.blocks(name, kind)) != (verdict(listed, name) is True)
    ]


def test_every_rpz_engine_gives_the_verdict_of_the_most_specific_entry(zone_engine: driver.Engine) -> None:
    assert _differences(zone_engine, LISTED) == []
    # Asked again: the answer from the cache must be the same.
    assert _differences(zone_engine, LISTED) == []
    assert _differences(zone_engine, LISTED, "AAAA") == []
    assert zone_engine.blocks("evil.example", "MX") and not zone_engine.blocks("good.evil.example", "MX")


def test_any_client_can_ask_which_serial_is_enforced(zone_engine: driver.Engine) -> None:
    reply = zone_engine.ask("version.example.net", "TXT")
    assert '"4711"' in " ".join(record.to_text() for record in reply.answer)


SPECIAL = {
    "one.example": ("192.0.2.66", "2001:db8:bad::66"),
    "net.example": ("198.51.100.77", "2001:db8:0:1:1:1:1:1"),
    "end.example": ("198.51.101.1", "2001:db9::"),
    "attacker.example": ("192.0.2.200", "2001:db8:a77a::1"),
    "zero.example": ("203.0.113.7", "::9"),
}


@pytest.mark.parametrize("name", ["named", "unbound", "pdns_recursor"])
def test_answers_with_a_listed_address_are_blocked(name: str) -> None:
    networks = [
        ("192.0.2.66", "outbound"),
        ("192.0.2.200", "inbound"),
        ("198.51.100.0/24", "both"),
        ("2001:db8:0:1:1:1:1:1", "outbound"),
        ("2001:db8:bad::/48", "outbound"),
        ("2001:db9::", "outbound"),
        ("::/120", "outbound"),
    ]
    selection = select(entries(block=["evil.example"]), networks)
    text, account = rendered("rpz", selection, origin=ORIGIN, addresses=True)
    assert account.lost == {"inbound": 1}
    with driver.resolver(name, text, canary="evil.example", origin=ORIGIN, special=SPECIAL) as engine:
        blocked = {(host, kind) for host in SPECIAL for kind in ("A", "AAAA") if engine.blocks(host, kind)}
        assert not engine.blocks("ok.example")
        # named logs an owner that is not canonical and drops the record.
        assert "invalid rpz" not in engine.log.read_text()
    every = {("one.example", "A"), ("one.example", "AAAA"), ("net.example", "A"), ("net.example", "AAAA")}
    assert blocked == every | {("end.example", "AAAA"), ("zero.example", "AAAA")}


SUBTREES = {entry: block for entry, block in LISTED.items() if entry[1] and entry[0] != "dual.example"}


@pytest.mark.parametrize(("engine_name", "format_name"), [("unbound-local", "unbound"), ("dnsmasq", "dnsmasq")])
def test_engines_that_know_subtrees_only_take_the_narrower_allow(engine_name: str, format_name: str) -> None:
    text, _ = rendered(format_name, select(SUBTREES))
    with driver.resolver(engine_name, text, canary="evil.example") as engine:
        assert _differences(engine, SUBTREES) == []
        assert _differences(engine, SUBTREES, "AAAA") == []


def test_a_hosts_file_blocks_both_families_of_the_name_alone() -> None:
    text, _ = rendered("hosts", select(entries(exact=["evil.example", "-dash.example"])))
    with driver.resolver("dnsmasq-hosts", text, canary="evil.example") as engine:
        for name in ("evil.example", "EVIL.example", "-dash.example"):
            assert engine.ask(name, "A").answer[0][0].to_text() == "0.0.0.0"
            assert engine.ask(name, "AAAA").answer[0][0].to_text() == "::"
        assert engine.ask("www.evil.example").answer[0][0].to_text() == driver.PASSES["A"]


def test_squid_takes_a_name_that_begins_like_an_option_for_a_name() -> None:
    listed = entries(exact=["-i.example", "-n.example", "exact.example"])
    text, _ = rendered("squid", select(listed))
    hosts = ["-i.example", "-n.example", "exact.example", "EXACT.example", "ok.example"]
    with driver.squid(text, hosts) as proxy:
        assert [host for host in hosts if proxy.blocks(host)] == hosts[:4]


def test_squid_denies_listed_hosts_and_no_others() -> None:
    listed = entries(
        block=["evil.example", "-wild.example"],
        exact=["exact.example", "-dash.example", "-i.example", "-n.example"],
    )
    hosts = ["ok.example", "notevil.example", "evil.example.ok.example", "evil.example", "www.evil.example"]
    hosts += ["EVIL.Example", "exact.example", "www.exact.example", "-wild.example", "a.-wild.example"]
    hosts += ["-dash.example", "a.-dash.example", "-i.example", "dash.example", "-n.example", "i.example"]
    text, account = rendered("squid", select(listed))
    assert account.lost == {}
    with driver.squid(text, hosts) as proxy:
        wrong = [host for host in hosts if proxy.blocks(host) != (verdict(listed, host) is True)]
        assert wrong == []
        assert proxy.blocks("evil.example.")


def test_squidguard_is_not_given_a_name_that_it_would_read_as_another() -> None:
    text, account = rendered("squidguard", select(entries(block=["-dash.example", "evil.example", "a.-in.example"])))
    assert account.lost == {"unwritable": 1}
    hosts = ["dash.example", "a.dash.example", "evil.example", "in.example", "a.-in.example", "b.a.-in.example"]
    with proxies.engine("squidguard", text, hosts) as blocks:
        assert [host for host in hosts if blocks(host)] == ["evil.example", "a.-in.example", "b.a.-in.example"]


NETWORKS = [
    ("127.0.66.0/24", "inbound"),
    ("127.0.7.7", "outbound"),
    ("127.0.8.0/29", "both"),
    ("2001:db8:bad::/48", "outbound"),
    ("2001:db8:a77a::66", "inbound"),
]
ADDRESSES = ["2001:db8:bad::66/128", "2001:db8:a77a::66/128", "2001:db8:600d::1/128"]
# (source, destination), and whether the connection must get through.
PROBES = [
    (("127.0.0.1", "127.0.0.2"), True),
    (("127.0.66.9", "127.0.0.1"), False),  # an attacker comes in
    (("127.0.0.1", "127.0.66.9"), True),  # and we may still go there: the reply lives
    (("127.0.0.1", "127.0.7.7"), False),
    (("127.0.0.1", "127.0.7.8"), True),
    (("127.0.8.1", "127.0.0.1"), False),
    (("127.0.0.1", "127.0.8.7"), False),
    (("127.0.0.1", "127.0.8.8"), True),
    (("::1", "2001:db8:600d::1"), True),
    (("2001:db8:600d::1", "2001:db8:bad::66"), False),
    (("2001:db8:a77a::66", "2001:db8:600d::1"), False),
    (("2001:db8:600d::1", "2001:db8:a77a::66"), True),
]


def _reached(load: list[list[str]]) -> list[bool]:
    driver.may_make_namespaces()
    driver.program("ip")
    plan = {"addresses": ADDRESSES, "load": load, "probes": [probe for probe, _ in PROBES]}
    script = Path(driver.__file__).with_name("packets.py")
    argv = [driver.program("unshare"), "-n", sys.executable, str(script), json.dumps(plan)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert isinstance(answer, list)
    return answer


@pytest.mark.parametrize("action", ["drop", "reject"])
def test_nftables_stops_what_is_listed_in_its_direction(tmp_path: Path, action: str) -> None:
    nft = driver.program("nft")
    assert all(_reached([])), "without a filter everything gets through"
    file = tmp_path / "blocklist.nft"
    file.write_bytes(rendered("nftables", select({}, NETWORKS), action=action)[0])
    # Twice: the second load replaces the first.
    assert _reached([[nft, "-f", str(file)]] * 2) == [passes for _, passes in PROBES]


def test_an_empty_list_unblocks_in_nftables_and_ipset(tmp_path: Path) -> None:
    nft, ipset = driver.program("nft"), driver.program("ipset")
    full, empty, sets = (tmp_path / name for name in ("full.nft", "empty.nft", "empty.ipset"))
    full.write_bytes(rendered("nftables", select({}, NETWORKS))[0])
    empty.write_bytes(rendered("nftables", select({}))[0])
    sets.write_bytes(rendered("ipset", select({}))[0])
    load = [[nft, "-f", str(full)], [nft, "-f", str(empty)], [ipset, "-exist", "restore", "-file", str(sets)]]
    assert all(_reached(load))


def test_sets_without_chains_leave_the_rules_of_the_operator_alone(tmp_path: Path) -> None:
    nft = driver.program("nft")
    old, new, own = (tmp_path / name for name in ("old.nft", "new.nft", "own.nft"))
    old.write_bytes(rendered("nftables", select({}, [("127.0.7.8", "outbound")]), chains=False)[0])
    new.write_bytes(rendered("nftables", select({}, NETWORKS), chains=False)[0])
    own.write_text(
        "table inet blocklist {\n\tchain mine {\n"
        "\t\ttype filter hook output priority filter; policy accept;\n"
        "\t\tip daddr @outbound4 drop\n\t}\n}\n"
    )
    reached = _reached([[nft, "-f", str(file)] for file in (old, own, new)])
    stopped = {probe for (probe, _), passed in zip(PROBES, reached, strict=True) if not passed}
    # Without "ct state" the rule of this operator also drops replies to 127.0.8.1, which is listed both ways.
    to_listed = {("127.0.0.1", "127.0.7.7"), ("127.0.0.1", "127.0.8.7")}
    assert stopped == to_listed | {("127.0.8.1", "127.0.0.1")}


def test_ipset_holds_what_is_listed_after_every_restore(tmp_path: Path) -> None:
    ipset = driver.program("ipset")
    driver.may_make_namespaces()
    old, new = tmp_path / "old.ipset", tmp_path / "new.ipset"
    old.write_bytes(rendered("ipset", select({}, [("127.0.1.1", "inbound")]))[0])
    new.write_bytes(rendered("ipset", select({}, NETWORKS))[0])
    asked = [
        *(
            ("inbound4", "127.0.66.9", True),
            ("inbound4", "127.0.67.9", False),
            ("inbound4", "127.0.1.1", False),
        ),
        *(
            ("outbound4", "127.0.7.7", True),
            ("inbound4", "127.0.8.7", True),
            ("outbound4", "127.0.8.8", False),
        ),
        *(("outbound6", "2001:db8:bad::1", True), ("inbound6", "2001:db8:a77a::66", True)),
    ]
    restore = f"{ipset} -exist restore -file"
    script = [f"{restore} {old}", f"{restore} {new}", f"{restore} {new}", f"{ipset} list -name >&2"]
    script += [f"{ipset} -quiet test blocklist-{name} {address} && echo 0 || echo 1" for name, address, _ in asked]
    argv = [driver.program("unshare"), "-n", "sh", "-c", "set -e\n" + "\n".join(script)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert [status == "0" for status in done.stdout.split()] == [held for _, _, held in asked]
    assert "-new" not in done.stderr and len(done.stderr.split()) == 4


# The tools are optional: nftables has taken their place.
@pytest.mark.skipif(shutil.which("iptables", path=SBIN) is None, reason="iptables is not installed")
@pytest.mark.parametrize("way", ["src", "dst"])
def test_iptables_drops_by_the_sets(tmp_path: Path, way: str) -> None:
    ipset, iptables, ip6tables = map(driver.program, ("ipset", "iptables", "ip6tables"))
    file = tmp_path / "blocklist.ipset"
    file.write_bytes(rendered("ipset", select({}, NETWORKS))[0])
    direction, chain = ("inbound", "INPUT") if way == "src" else ("outbound", "OUTPUT")
    load = [[ipset, "-exist", "restore", "-file", str(file)]]
    for tool, digit in ((iptables, "4"), (ip6tables, "6")):
        new, held = ["-m", "conntrack", "--ctstate", "NEW"], ["-m", "set", "--match-set"]
        load.append([tool, "-I", chain, *new, *held, f"blocklist-{direction}{digit}", way, "-j", "DROP"])
    load.append(load[0])  # a set that rules use is swapped under them
    stopped = {probe for (probe, _), passed in zip(PROBES, _reached(load), strict=True) if not passed}
    wanted = {"src": {"127.0.66.9", "127.0.8.1", "2001:db8:a77a::66"}}
    wanted["dst"] = {"127.0.7.7", "127.0.8.7", "2001:db8:bad::66"}
    assert {probe[0 if way == "src" else 1] for probe in stopped} == wanted[way]
