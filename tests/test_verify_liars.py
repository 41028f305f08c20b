"""Resolvers that lie, before the run and in the middle of it: who is dropped, why, and what becomes of their word."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import dns.edns
import dns.message
import dns.rcode
import dns.rrset
import pytest
from dnsserver import HostileServer, Manner

from blocklist.errors import BlocklistError
from blocklist.verify.control import Control
from blocklist.verify.endpoint import Resolver
from blocklist.verify.loop import run
from blocklist.verify.loopback import LoopbackServer, serving
from blocklist.verify.preflight import preflight
from blocklist.verify.resolver import resolve_all
from blocklist.verify.results import Resolution

# How long a server takes to answer decides here what becomes of it.
pytestmark = pytest.mark.alone
CONTROL = Control(exists=("control.example",), missing="example")
LIVING = [f"live{number}.example" for number in range(200)]
GONE = [f"gone{number}.example" for number in range(200)]
NAMES = [name for pair in zip(LIVING, GONE, strict=True) for name in pair]
TABLE = {name: ["192.0.2.1"] for name in ["control.example", "canary.example", *LIVING]}


class Turncoat(LoopbackServer):
    """Honest for `faith` questions, then `lie` is answered; names in `spared` are always answered honestly."""

    def __init__(self, lie: str, faith: int = 0, spared: Sequence[str] = ("control.example",), every: int = 1) -> None:
        super().__init__(TABLE)
        self.lie, self.faith, self.spared, self.every = lie, faith, spared, every

    def respond(self, query: dns.message.Message) -> dns.message.Message:
        response = super().respond(query)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        number = "".join(c for c in name if c.isdigit())
        listed = name in self.table and name not in self.spared and int(number or 0) % self.every == 0
        if self.queries <= self.faith:
            return response
        denied = response.rcode() == dns.rcode.NXDOMAIN
        if self.lie == "rewrites" and denied and question.rdtype == 1:
            response.set_rcode(dns.rcode.NOERROR)
            response.authority = []
            response.answer = [dns.rrset.from_text(question.name, 60, "IN", "A", "198.51.100.66")]
        elif self.lie in ("denies", "says so") and listed:
            response.set_rcode(dns.rcode.NXDOMAIN)
            response.answer, response.authority = [], [self._soa(question.name)]
            if self.lie == "says so":
                response.use_edns(0, options=[dns.edns.EDEOption(dns.edns.EDECode.FILTERED, "by order")])
        elif self.lie == "nullifies" and listed and question.rdtype == 1:
            response.answer = [dns.rrset.from_text(question.name, 60, "IN", "A", "0.0.0.0")]
        elif self.lie == "fails all":
            response.set_rcode(dns.rcode.SERVFAIL)
            response.answer, response.authority = [], []
        elif self.lie == "denies all":
            response.set_rcode(dns.rcode.NXDOMAIN)
            response.answer, response.authority = [], [self._soa(question.name)]
        return response


def verify(*servers: LoopbackServer, names: Sequence[str] = NAMES, **options: Any) -> Resolution:
    options = {"rate": 0, "timeout": 0.5, "control": CONTROL, "batch": 20, "window": 16, **options}
    with serving(*servers):
        return run(resolve_all(names, [Resolver("127.0.0.1", server.port) for server in servers], **options))


def truth(name: str) -> str:
    return "live" if name in TABLE else "nxdomain"


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        ("rewrites", "made up: rewritten NXDOMAIN"),
        ("denies", "names that exist by another's word: it filters, or loads this very list"),
        ("nullifies", "names that exist by another's word: it filters, or loads this very list"),
        ("denies all", "which must exist: it filters"),
        ("fails all", "answers only errors during the run (SERVFAIL)"),
        ("says so", "that it filters them (RFC 8914)"),
    ],
)
def test_who_begins_to_lie_in_the_middle_is_dropped_and_its_word_asked_again(lie: str, reason: str) -> None:
    liar = Turncoat(lie, faith=40)
    result = verify(liar, LoopbackServer(TABLE), LoopbackServer(TABLE))
    dropped = [report.dropped for report in result.summary.resolvers]
    assert reason in str(dropped[0]) and dropped[1:] == [None, None]
    found = dict(result.frame.select("name", "status").iter_rows())
    assert len(found) == result.frame.height == len(NAMES) and result.summary.unfinished == 0
    assert {name for name, status in found.items() if status not in (truth(name), "unknown")} == set()
    # What was handed over while the liar was still thought honest may be unknown, but no more than that.
    assert list(found.values()).count("unknown") <= 40
    after = result.frame.tail(20)
    assert not any(f"127.0.0.1:{liar.port}" in (who or "") for who in after["resolver"])


@pytest.mark.parametrize("lie", ["rewrites", "denies all", "denies", "nullifies", "says so"])
def test_two_against_one_never_kill_a_living_name(lie: str) -> None:
    """No resolver is under watch here: the quorum alone must do."""
    result = verify(Turncoat(lie), LoopbackServer(TABLE), control=None)
    found = dict(result.frame.select("name", "status").iter_rows())
    assert {found[name] for name in LIVING} <= {"live", "unknown"}
    assert {found[name] for name in GONE} <= {"nxdomain", "unknown", "live" if lie == "rewrites" else "unknown"}


def test_when_the_last_resolver_lies_the_run_stops_says_so_and_keeps_nothing_of_its_word() -> None:
    liar = Turncoat("rewrites", faith=100)
    result = verify(liar)
    assert result.summary.stopped is not None and "no resolver can be trusted any more" in result.summary.stopped
    found = dict(result.frame.select("name", "status").iter_rows())
    assert 0 < len(found) < len(NAMES) and result.summary.unfinished == len(NAMES) - len(found)
    assert all(status == truth(name) for name, status in found.items())


def test_when_every_resolver_loses_its_line_no_name_is_broken() -> None:
    result = verify(*(Turncoat("fails all", faith=100) for _ in range(2)))
    assert "answers only errors during the run (SERVFAIL)" in str(result.summary.stopped)
    found = dict(result.frame.select("name", "status").iter_rows())
    assert found and all(status in (truth(name), "unknown") for name, status in found.items())


def test_when_too_few_are_left_for_a_quorum_no_name_is_denied_and_the_run_says_so() -> None:
    honest = LoopbackServer(TABLE)
    result = verify(Turncoat("rewrites", faith=200), honest)
    assert result.summary.short is not None and result.summary.stopped is None
    assert f"takes 2 resolvers, and 127.0.0.1:{honest.port} alone is left" in result.summary.short
    rows = list(result.frame.select("name", "status", "resolver").iter_rows())
    assert {status for name, status, _ in rows if name in TABLE} <= {"live", "unknown"}
    assert {status for name, status, _ in rows if name not in TABLE} == {"nxdomain", "unknown"}
    assert all(" " in resolver for _, status, resolver in rows if status == "nxdomain")
    # With a third resolver a quorum is left.
    assert verify(Turncoat("rewrites", faith=200), honest, LoopbackServer(TABLE)).summary.short is None


def test_names_whose_own_server_denies_them_to_one_resolver_condemn_nobody() -> None:
    """Cloaking: a few listed names are denied to one resolver by their own servers."""
    cloaked = Turncoat("denies", every=20)
    result = verify(cloaked, LoopbackServer(TABLE))
    assert [report.dropped for report in result.summary.resolvers] == [None, None]
    found = dict(result.frame.select("name", "status").iter_rows())
    assert all(found[name] in (truth(name), "unknown") for name in NAMES)


def test_a_resolver_that_denies_only_ipv6_hides_nothing() -> None:
    """RFC 4074 §4.2, of every name, at one resolver."""
    crippled = HostileServer(TABLE, {name: Manner("nxdomain", only="AAAA") for name in LIVING})
    result = verify(crippled, LoopbackServer(TABLE))
    assert [report.dropped for report in result.summary.resolvers] == [None, None]
    assert dict(result.frame.select("name", "status").iter_rows()) == {name: truth(name) for name in NAMES}


def test_loss_in_the_middle_condemns_nobody() -> None:
    servers = [HostileServer(TABLE, loss=0.3, seed=seed) for seed in (1, 2)]
    result = verify(*servers, attempts=5)
    assert [report.dropped for report in result.summary.resolvers] == [None, None]
    assert result.frame["name"].n_unique() == len(NAMES)


def test_batches_are_whole_and_each_name_is_handed_over_once_though_a_liar_was_dropped() -> None:
    batches: list[int] = []
    names: list[str] = []

    def keep(frame: Any) -> None:
        batches.append(frame.height)
        names.extend(frame["name"])

    verify(Turncoat("denies all", faith=60), LoopbackServer(TABLE), on_batch=keep)
    assert sorted(names) == sorted(NAMES) and max(batches) <= 20


def check(*servers: LoopbackServer, control: Control) -> list[str | None]:
    """Why each resolver was dropped."""
    with serving(*servers):
        resolvers = [Resolver("127.0.0.1", server.port) for server in servers]
        tested = asyncio.run(preflight(resolvers, control, rate=0, timeout=0.3))
    reasons = dict(tested.dropped)
    return [reasons.get(resolver) for resolver in resolvers]


@pytest.mark.parametrize("lie", ["denies", "nullifies"])
def test_listed_names_that_one_resolver_hides_betray_it_before_the_run(lie: str) -> None:
    control = Control(("control.example",), "example", lived=tuple(LIVING[:20]))
    told = check(Turncoat(lie), LoopbackServer(TABLE), control=control)
    assert "hides 20 of 20 listed names that another resolver sees" in str(told[0]) and told[1] is None


def test_a_few_listed_names_that_died_betray_nobody() -> None:
    control = Control(("control.example",), "example", lived=(*LIVING[:20], *GONE[:20]))
    assert check(LoopbackServer(TABLE), LoopbackServer(TABLE), control=control) == [None, None]
    # Cloaked from one of them: less than a quarter.
    assert check(Turncoat("denies", every=10), LoopbackServer(TABLE), control=control) == [None, None]


def test_when_every_resolver_hides_what_lived_the_run_is_refused() -> None:
    control = Control(("control.example",), "example", lived=tuple(LIVING[:20]))
    with pytest.raises(BlocklistError, match="20 of 20 listed names that were live when last asked"):
        check(Turncoat("denies"), Turncoat("nullifies"), control=control)


def test_a_resolver_that_says_that_it_filters_is_dropped_before_the_run() -> None:
    control = Control(("live1.example",), "example")
    told = check(Turncoat("says so"), LoopbackServer(TABLE), control=control)
    assert told[0] is not None and "says of" in told[0] and told[1] is None


def test_a_canary_that_is_sent_to_nowhere_tells_who_loads_this_list() -> None:
    control = Control(("control.example",), "example", canaries=("canary.example",))
    for lie in ("denies", "nullifies"):
        told = check(Turncoat(lie), LoopbackServer(TABLE), control=control)
        assert "canary canary.example: it loads this very list" in str(told[0]) and told[1] is None
