"""The engine and the pre-flight against real sockets on loopback, honest and hostile."""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl
import pytest
from dnsserver import HostileServer, Manner, SpoofedSource
from engines import driver

from blocklist.errors import BlocklistError, ConfigError
from blocklist.verify import upstream
from blocklist.verify.control import Control
from blocklist.verify.endpoint import Resolver, parse_resolver
from blocklist.verify.loop import run
from blocklist.verify.loopback import LoopbackServer, serving
from blocklist.verify.preflight import preflight
from blocklist.verify.resolver import resolve_all
from blocklist.verify.results import Resolution, frame_schema

# How long a server takes to answer decides here what becomes of it.
pytestmark = pytest.mark.alone
TABLE = {
    "evil.example": ["192.0.2.1", "2001:db8::1"],
    "six.example": ["2001:db8::6"],
    "empty.example": [],
    "a.deep.example": ["192.0.2.9"],
}


def living(names: Iterable[str]) -> dict[str, list[str]]:
    return {name: ["192.0.2.1"] for name in names}


def verify(names: Sequence[str], *servers: LoopbackServer, **options: Any) -> Resolution:
    options = {"rate": 0, "timeout": 0.8, **options}
    with serving(*servers):
        return run(resolve_all(names, [Resolver("127.0.0.1", server.port) for server in servers], **options))


def statuses(result: Resolution) -> dict[str, str]:
    return dict(result.frame.select("name", "status").iter_rows())


def test_two_honest_resolvers_settle_every_kind_of_name() -> None:
    zones = ["evil.example"]
    servers = [LoopbackServer(TABLE, zones=zones) for _ in range(2)]
    names = ["evil.example", "six.example", "empty.example", "deep.example", "gone.example", "x.evil.example"]
    result = verify(names, *servers)
    rows = {row["name"]: row for row in result.frame.iter_rows(named=True)}
    assert {name: rows[name]["status"] for name in names} == {
        "evil.example": "live",
        "six.example": "live",
        "empty.example": "nodata",
        "deep.example": "nodata",
        "gone.example": "nxdomain",
        "x.evil.example": "nxdomain",
    }
    assert [rows[name]["addresses"] for name in names] == [2, 1, 0, 0, 0, 0]
    assert rows["gone.example"]["authority"] == "example"
    assert rows["x.evil.example"]["authority"] == "evil.example"  # not the registry's word
    assert rows["gone.example"]["rcode"] == "NXDOMAIN" and rows["evil.example"]["rcode"] == "NOERROR"
    asked = " ".join(f"127.0.0.1:{server.port}" for server in servers)
    assert rows["gone.example"]["resolver"] == asked
    assert dict(result.frame.schema) == frame_schema()
    summary = result.summary
    assert (summary.checked, summary.unfinished, summary.stopped) == (6, 0, None)
    assert summary.verdicts == {"live": 2, "nodata": 2, "nxdomain": 2}
    assert summary.queries == sum(report.sent for report in summary.resolvers) == sum(s.queries for s in servers)


def test_resolvers_of_both_families_are_asked() -> None:
    four, six = LoopbackServer(TABLE), LoopbackServer(TABLE, address="::1")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(serving(four, six))
        except OSError:
            pytest.skip("this machine has no IPv6 loopback")
        resolvers = [Resolver("127.0.0.1", four.port), Resolver("::1", six.port)]
        result = run(resolve_all(["gone.example"], resolvers, rate=0))
    assert result.frame["resolver"].to_list() == [f"127.0.0.1:{four.port} [::1]:{six.port}"]


def test_one_resolver_is_a_quorum_of_one() -> None:
    result = verify(["evil.example", "gone.example"], LoopbackServer(TABLE))
    assert statuses(result) == {"evil.example": "live", "gone.example": "nxdomain"}


def test_names_that_dns_cannot_carry_are_unknown_and_no_names_are_no_rows() -> None:
    assert statuses(verify(["a" * 64 + ".example"], LoopbackServer(TABLE))) == {"a" * 64 + ".example": "unknown"}
    assert verify([], LoopbackServer(TABLE)).frame.height == 0
    with pytest.raises(ValueError, match="no resolvers"):
        run(resolve_all(["evil.example"], []))


KINDS = {
    "servfail": "broken",
    "refused": "broken",
    "notimp": "broken",
    "lame": "broken",
    "cname loop": "broken",
    "chain of 30": "broken",
    "compression loop": "broken",
    "silent": "unknown",
    "wrong id": "unknown",
    "wrong question": "unknown",
    "wrong type": "unknown",
    "not a reply": "unknown",
    "garbage": "unknown",
    "truncated": "live",
    "truncated, tcp closes": "unknown",
    "truncated, tcp truncated": "broken",
    "slow tcp": "unknown",
    "half-closed tcp": "unknown",
    "no end over tcp": "unknown",
    "64k over tcp": "live",
    "empty labels": "unknown",
    "formerr to edns": "live",
    "alias": "live",
    "dangling": "nodata",
    "nxdomain": "nxdomain",
    "nxdomain without soa": "nxdomain",
    "nxdomain by a stranger": "nxdomain",
}
NAME_OF = {kind: f"{kind.replace(' ', '-').replace(',', '')}.evil.example" for kind in KINDS}


@pytest.fixture(scope="module")
def treated() -> dict[str, dict[str, Any]]:
    """Each name treated in its own manner by both resolvers, all in one run: a row for each kind."""
    table = living(NAME_OF.values())
    servers = [HostileServer(table, {name: kind for kind, name in NAME_OF.items()}) for _ in range(2)]
    rows = {row["name"]: row for row in verify(list(table), *servers).frame.iter_rows(named=True)}
    return {kind: rows[name] for kind, name in NAME_OF.items()}


@pytest.mark.parametrize(("kind", "status"), KINDS.items())
def test_what_every_resolver_does_becomes_the_verdict(
    treated: dict[str, dict[str, Any]], kind: str, status: str
) -> None:
    assert treated[kind]["status"] == status


@pytest.mark.parametrize("kind", ["nxdomain without soa", "nxdomain by a stranger"])
def test_a_denial_without_its_zone_is_no_registrys_word(treated: dict[str, dict[str, Any]], kind: str) -> None:
    assert treated[kind]["authority"] is None
    assert treated["nxdomain"]["authority"] == "example"


def test_another_resolver_is_asked_when_one_fails() -> None:
    kinds = [
        *("servfail", "refused", "silent", "lame", "wrong id", "wrong question"),
        *("garbage", "compression loop", "truncated, tcp closes"),
    ]
    names = {f"k{number}.{what}.example": kind for number, kind in enumerate(kinds) for what in ("on", "no", "off")}
    table = {name: [] if ".no." in name else ["192.0.2.1"] for name in names if ".off." not in name}
    result = verify(list(names), HostileServer(table, names), LoopbackServer(table))
    # A denial needs two voices, and the failing one has none.
    right = {"on": "live", "no": "nodata", "off": "unknown"}
    assert statuses(result) == {name: right[name.split(".")[1]] for name in names}


def test_answers_from_another_address_are_not_heard() -> None:
    assert statuses(verify(["evil.example"], SpoofedSource(TABLE), SpoofedSource(TABLE))) == {"evil.example": "unknown"}


def test_resolvers_that_disagree_leave_a_name_unknown() -> None:
    liar = HostileServer(TABLE, {"evil.example": "nxdomain", "gone.example": "address"})
    result = verify(["evil.example", "gone.example"], liar, LoopbackServer(TABLE))
    assert statuses(result) == {"evil.example": "unknown", "gone.example": "unknown"}


def test_a_name_server_that_denies_only_ipv6_kills_nothing() -> None:
    """RFC 4074 §4.2: load balancers that answer AAAA with NXDOMAIN."""
    servers = [HostileServer(TABLE, {"evil.example": Manner("nxdomain", only="AAAA")}) for _ in range(2)]
    assert statuses(verify(["evil.example"], *servers)) == {"evil.example": "live"}


def test_truncation_is_asked_again_over_tcp() -> None:
    many = {"many.example": [f"192.0.2.{number}" for number in range(200)]}
    server = HostileServer(many)
    result = verify(["many.example"], server, timeout=1.0)
    assert result.frame["addresses"].to_list() == [200]
    assert ("many.example", "A", True) in server.seen


def test_loss_and_delay_bring_no_false_verdict() -> None:
    """V5: 30 % of the datagrams lost, the rest late."""
    table = {f"h{number}.example": ["192.0.2.1"] for number in range(0, 400, 2)}
    names = [f"h{number}.example" for number in range(400)]
    servers = [HostileServer(table, loss=0.3, delay=0.05, seed=seed) for seed in (1, 2)]
    result = verify(names, *servers, timeout=0.8, attempts=5)
    found = statuses(result)
    assert len(found) == 400
    wrong = {n: s for n, s in found.items() if s not in ("unknown", "live" if n in table else "nxdomain")}
    assert not wrong
    assert list(found.values()).count("unknown") < 12
    assert all(report.lost and report.dropped is None for report in result.summary.resolvers)


def test_half_a_second_of_delay_is_borne() -> None:
    names = [f"h{number}.example" for number in range(100)]
    table = living(names)
    result = verify(names, HostileServer(table, delay=0.5), HostileServer(table, delay=0.5), timeout=2.0)
    assert result.summary.verdicts == {"live": 100} and result.summary.seconds < 5


def test_a_resolver_that_falls_silent_is_dropped_and_the_others_go_on() -> None:
    names = [f"h{number}.example" for number in range(300)]
    table = living(names)
    silent, honest = HostileServer(default="silent"), LoopbackServer(table)
    result = verify(names, silent, honest, timeout=0.5)
    assert result.summary.verdicts == {"live": 300}
    reports = result.summary.resolvers
    assert reports[1].dropped is None
    assert reports[0].dropped is None or "no answer to" in reports[0].dropped


def test_the_last_resolver_to_fall_silent_ends_the_run_and_says_so() -> None:
    names = [f"h{number}.example" for number in range(2000)]
    result = run(resolve_all(names, [Resolver("127.0.0.1", driver.free_port())], rate=0, timeout=0.05))
    assert result.summary.stopped == "no resolver answers any more"
    assert result.summary.unfinished > 0
    assert "refused" in str(result.summary.resolvers[0].dropped)
    assert set(result.frame["status"]) <= {"unknown"}


def test_many_names_of_a_silent_name_server_condemn_no_resolver() -> None:
    """One person may have thousands of names that are asked in a row."""
    silent = [f"h{number}.silent.example" for number in range(150)]
    table = living(["evil.example", *(f"h{number}.example" for number in range(50))])
    servers = [HostileServer(table, dict.fromkeys(silent, "silent")) for _ in range(2)]
    names = [*silent, *(name for name in table if name != "evil.example")]
    result = verify(names, *servers, timeout=0.3, attempts=2, window=100, control=CONTROL)
    assert [report.dropped for report in result.summary.resolvers] == [None, None]
    assert result.summary.verdicts == {"live": 50, "unknown": 150} and result.summary.unfinished == 0


def test_a_resolver_whose_answers_come_too_late_is_dropped_and_that_is_said() -> None:
    names = [f"h{number}.example" for number in range(3000)]
    server = HostileServer(living(["evil.example", *names]), delay=0.4)
    result = verify(names, server, timeout=0.2, attempts=2, control=CONTROL)
    assert re.search(r"no answer to \d+ queries in a row \(\d+ replies came too late\)", str(result.summary.resolvers))
    assert set(result.summary.verdicts) <= {"unknown"} and result.summary.unfinished > 0


class NoTcp(HostileServer):
    """Takes connections and says nothing on them; after `faith` questions each answer is cut short."""

    faith = 0

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await reader.read()
        writer.close()

    def treat(self, manner: Manner, query: Any, data: bytes, *, tcp: bool) -> bytes | None:
        manner = manner if self.queries > self.faith else Manner("honest")
        return super().treat(manner, query, data, tcp=tcp)


def test_a_resolver_that_cuts_each_answer_short_and_is_silent_over_tcp_holds_up_nothing() -> None:
    names = [f"h{number}.example" for number in range(1000)]
    table = living(["evil.example", *names])
    options: dict[str, Any] = {"timeout": 0.3, "attempts": 2, "control": CONTROL, "batch": 20}
    turned, honest = NoTcp(table, default="truncated"), LoopbackServer(table)
    turned.faith = 200
    began = time.monotonic()
    result = verify(names, turned, honest, **options)
    # A connection for each of some 2,000 questions, 16 at a time and 0.6 seconds each, would be 75 seconds.
    assert time.monotonic() - began < 40
    assert result.summary.verdicts.get("live", 0) + result.summary.verdicts.get("unknown", 0) == 1000
    assert result.summary.verdicts["live"] > 250
    alone = NoTcp(table, default="truncated")
    alone.faith = 200
    result = verify(names, alone, rate=200, **options)
    assert "gave no answer to a control name 3 times in a row" in str(result.summary.resolvers[0].dropped)


@pytest.mark.parametrize("kind", ["formerr to edns", "notimp to edns"])
def test_what_is_under_way_when_a_resolver_refuses_edns_is_asked_again_without(kind: str) -> None:
    names = [f"h{number}.example" for number in range(100)]
    server = HostileServer(living(names), default=kind)
    result = verify(names, server, attempts=1)
    assert result.summary.verdicts == {"live": 100}


def test_where_the_kernel_cannot_send_many_at_once_they_go_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"h{number}.example" for number in range(200)]
    asked = []
    for segment in (upstream.UDP_SEGMENT, 9999):
        monkeypatch.setattr(upstream, "UDP_SEGMENT", segment)
        server = LoopbackServer(living(names))
        result = verify(names, server, timeout=10.0)
        assert result.summary.verdicts == {"live": 200}
        asked.append(server.queries)
    assert asked == [400, 400]


def test_the_rate_cap_holds_from_the_first_query() -> None:
    names = [f"h{number}.example" for number in range(150)]
    result = verify(names, LoopbackServer(living(names)), rate=300, timeout=1.0)
    assert result.summary.verdicts == {"live": 150}
    assert 0.9 <= result.summary.seconds <= 2.0  # 300 queries


def test_the_deadline_keeps_what_was_learned() -> None:
    names = [f"h{number}.example" for number in range(1000)]
    server = LoopbackServer(living(names))
    batches: list[pl.DataFrame] = []
    deadline = time.monotonic() + 0.5
    result = verify(names, server, rate=200, deadline=deadline, on_batch=batches.append, timeout=1.0)
    assert result.summary.stopped == "deadline" and result.summary.seconds < 1
    assert 10 < result.summary.checked < 200
    assert result.summary.unfinished == 1000 - result.summary.checked
    assert pl.concat(batches).equals(result.frame) and set(result.frame["status"]) == {"live"}


def test_cancellation_hands_over_what_was_learned_once() -> None:
    """V6: Ctrl-C."""
    names = [f"h{number}.example" for number in range(1000)]
    server = LoopbackServer(living(names))
    batches: list[pl.DataFrame] = []

    async def interrupted() -> None:
        task = asyncio.create_task(
            resolve_all(
                names,
                [Resolver("127.0.0.1", server.port)],
                rate=400,
                on_batch=batches.append,
                batch=30,
            )
        )
        await asyncio.sleep(0.6)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with serving(server):
        run(interrupted())
    learned = pl.concat(batches)
    assert 30 < learned.height < 1000 and learned["name"].n_unique() == learned.height
    assert max(batch.height for batch in batches) <= 30


def test_an_error_in_the_callback_ends_the_run_and_reaches_the_caller() -> None:
    calls = []

    def full(frame: pl.DataFrame) -> None:
        calls.append(frame.height)
        raise OSError("disk full")

    names = [f"h{number}.example" for number in range(50)]
    with pytest.raises(OSError, match="disk full"):
        verify(names, LoopbackServer(living(names)), on_batch=full, batch=10)
    assert calls == [10]


def test_importing_the_engine_needs_no_polars_and_no_network() -> None:
    code = (
        "import sys, blocklist.verify.resolver, blocklist.verify.preflight, blocklist.verify.schedule;"
        "sys.exit(bool({'polars', 'dns', 'uvloop'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


CONTROL = Control(exists=("evil.example",), missing="example", canaries=())


def check(*servers: LoopbackServer, control: Control = CONTROL) -> tuple[list[bool], str]:
    with serving(*servers):
        resolvers = [Resolver("127.0.0.1", server.port) for server in servers]
        result = run(preflight(resolvers, control, rate=0, timeout=0.3))
        passed = [one in result.usable for one in resolvers]
        return passed, "; ".join(reason for _, reason in result.dropped)


HONEST = {"evil.example": ["192.0.2.1"], "canary.example": ["192.0.2.2"]}


@pytest.mark.parametrize(
    ("liar", "reason"),
    [
        (HostileServer(HONEST, default="address"), "made up: rewritten NXDOMAIN"),
        (HostileServer(HONEST, default="silent"), "does not answer"),
        (HostileServer(HONEST, default="refused"), r"only errors \(REFUSED\)"),
        (HostileServer(HONEST, {"evil.example": "nxdomain"}), "denies evil.example"),
        (HostileServer({"evil.example": []}), "gave no address of evil.example"),
        (HostileServer(HONEST, {"canary.example": "nxdomain"}), "loads this very list"),
    ],
    ids=["captive portal", "silent", "refused", "filters", "empty", "canary"],
)
def test_a_resolver_that_lies_is_dropped_with_its_reason(liar: HostileServer, reason: str) -> None:
    control = Control(exists=("evil.example",), missing="example", canaries=("canary.example",))
    passed, told = check(liar, LoopbackServer(HONEST), control=control)
    assert passed == [False, True]
    assert re.search(reason, told)


def test_with_no_resolver_left_the_run_is_refused_with_the_way_out() -> None:
    with pytest.raises(BlocklistError, match="no resolver can be trusted") as refused:
        check(HostileServer(HONEST, default="address"))
    assert refused.value.hint
    with pytest.raises(BlocklistError, match="no resolver is configured"):
        run(preflight([], CONTROL))


def test_loss_does_not_condemn_a_resolver() -> None:
    servers = [HostileServer(HONEST, loss=0.3, seed=seed) for seed in range(5)]
    assert check(*servers)[0].count(True) >= 4


@pytest.mark.parametrize(
    ("text", "resolver", "shown"),
    [
        ("192.0.2.53", Resolver("192.0.2.53"), "192.0.2.53:53"),
        (" 192.0.2.53:5353 ", Resolver("192.0.2.53", 5353), "192.0.2.53:5353"),
        ("2001:DB8::53", Resolver("2001:db8::53"), "[2001:db8::53]:53"),
        ("[2001:db8::53]", Resolver("2001:db8::53"), "[2001:db8::53]:53"),
        ("[2001:db8::53]:5353", Resolver("2001:db8::53", 5353), "[2001:db8::53]:5353"),
    ],
)
def test_resolvers_are_read_as_people_write_them(text: str, resolver: Resolver, shown: str) -> None:
    assert parse_resolver(text) == resolver and str(resolver) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dns.example",
        "192.0.2",
        "192.0.2.053",
        "192.0.2.1:",
        "192.0.2.1:0",
        "192.0.2.1:65536",
        "192.0.2.1:x",
        "[::1",
    ],
)
def test_what_is_no_resolver_is_a_config_error_that_shows_it(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_resolver(text)
    assert repr(text) in refused.value.message and refused.value.hint
