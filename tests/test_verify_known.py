"""Sinkholes, parking, null routes, wildcard zones: what tells them, and what does not."""

from __future__ import annotations

import ipaddress
import pickle
from typing import Any

import pytest
from dnsserver import HostileServer
from hypothesis import given
from hypothesis import strategies as st

from blocklist.verify.classify import Observation, Seen, Status, classify, next_question, quick
from blocklist.verify.endpoint import Resolver
from blocklist.verify.known import Known, Mark
from blocklist.verify.loop import run
from blocklist.verify.loopback import LoopbackServer, serving
from blocklist.verify.resolver import resolve_all
from blocklist.verify.results import Resolution
from blocklist.verify.wire import AAAA, A, Answer, Outcome

SINK = Mark("sinkhole", "sinks, line 3")
PARK = Mark("parking", "parks, line 5")
KNOWN = Known(
    {"192.0.2.64/26": SINK, "192.0.2.0/24": PARK, "2001:db8:5::/48": SINK, "rubbish": SINK, "198.51.100.7": PARK},
    {"parking.example": PARK, "sinkhole.example.": SINK},
)


def packed(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("192.0.2.65", "sinkhole"),
        ("192.0.2.1", "parking"),
        ("192.0.3.1", None),
        ("198.51.100.7", "parking"),
        ("198.51.100.8", None),
        ("2001:db8:5::1", "sinkhole"),
        ("2001:db8:6::1", None),
        ("::ffff:192.0.2.65", "sinkhole"),
        *((null, "sinkhole") for null in ("0.0.0.0", "0.1.2.3", "127.0.0.1", "127.9.9.9", "::", "::1")),
        ("::2", None),
        ("128.0.0.1", None),
    ],
)
def test_an_address_is_known_by_its_network(address: str, what: str | None) -> None:
    for known in (KNOWN, pickle.loads(pickle.dumps(KNOWN))):
        for _ in range(2):
            mark = known.address(packed(address))
            assert (mark.what if mark else None) == what


def test_a_name_server_is_known_by_the_domain_above_it() -> None:
    assert KNOWN.server("ns1.parking.example") == PARK and KNOWN.server("PARKING.example.") == PARK
    assert KNOWN.server("sinkhole.example") == SINK
    assert KNOWN.server("noparking.example") is None and KNOWN.server("example") is None and KNOWN.server("") is None
    assert KNOWN.knows_servers and not Known().knows_servers


def given_address(*texts: str) -> Answer:
    return Answer(Outcome.ADDRESS, 0, tuple(packed(text) for text in texts))


SINKED, PARKED, NULL, REAL = map(given_address, ("192.0.2.65", "192.0.2.1", "0.0.0.0", "203.0.113.1"))
BOTH = given_address("192.0.2.1", "203.0.113.1")
EMPTY = Answer(Outcome.NODATA, 0, (), "evil.example")
FILTERED = Answer(Outcome.FILTERED, 3)
DENIED = Answer(Outcome.NXDOMAIN, 3, (), "example")
LOST = Answer(Outcome.TIMEOUT)

VERDICTS = [
    ("two say sinkhole", [(0, A, SINKED), (1, A, SINKED), (1, AAAA, EMPTY)], Status.SINKHOLED),
    ("one says sinkhole", [(0, A, SINKED), (1, AAAA, EMPTY)], Status.UNKNOWN),
    ("two say parked", [(0, A, PARKED), (1, A, PARKED), (1, AAAA, EMPTY)], Status.PARKED),
    ("two say null", [(0, A, NULL), (1, A, NULL), (1, AAAA, EMPTY)], Status.SINKHOLED),
    ("null here, real there", [(0, A, NULL), (1, A, REAL), (1, AAAA, EMPTY)], Status.LIVE),
    ("parked and real", [(0, A, BOTH), (1, AAAA, EMPTY)], Status.LIVE),
    ("sinkhole and parking", [(0, A, SINKED), (1, A, PARKED)], Status.PARKED),
    ("both filter", [(0, A, FILTERED), (1, AAAA, FILTERED)], Status.UNKNOWN),
    ("one filters, one denies", [(0, A, FILTERED), (1, AAAA, DENIED)], Status.UNKNOWN),
    ("one filters, one knows", [(0, A, FILTERED), (1, AAAA, EMPTY), (1, A, REAL)], Status.LIVE),
]


@pytest.mark.parametrize(("case", "seen", "status"), VERDICTS, ids=[row[0] for row in VERDICTS])
def test_bad_news_takes_a_quorum(case: str, seen: list[Seen], status: Status) -> None:
    verdict = classify([Observation(*one) for one in seen], 2, KNOWN)
    assert verdict.status is status
    assert (verdict.detail is not None) is (status in (Status.SINKHOLED, Status.PARKED))


def test_the_verdict_says_by_what_it_is_known() -> None:
    seen = [Observation(0, A, SINKED), Observation(1, A, SINKED)]
    assert classify(seen, 2, KNOWN).detail == "192.0.2.65: sinks, line 3"


def test_a_sinkhole_is_put_to_another_resolver() -> None:
    question = next_question([Observation(0, A, SINKED), Observation(1, AAAA, EMPTY)], 2, [0, 1], 3, KNOWN)
    assert question == (A, 1)
    assert next_question([Observation(0, A, REAL), Observation(1, AAAA, LOST)], 2, [0, 1], 3, KNOWN) is None


ANSWERS = st.sampled_from(
    [
        *(SINKED, PARKED, NULL, REAL, BOTH, given_address("2001:db8:9::1"), EMPTY, FILTERED, DENIED, LOST),
        *(Answer(Outcome.NXDOMAIN, 3), Answer(Outcome.NXDOMAIN, 3, (), "evil.example"), Answer(Outcome.FAILED, 2)),
        Answer(Outcome.LOOP, 0),
    ]
)


@given(ANSWERS, ANSWERS, st.integers(0, 1), st.integers(0, 1), st.booleans(), st.integers(1, 3))
def test_the_quick_way_says_what_the_long_way_says(
    one: Answer, two: Answer, here: int, there: int, swapped: bool, quorum: int
) -> None:
    first, second = (here, A, one), (there, AAAA, two)
    if swapped:
        first, second = second, first
    verdict = quick(first, second, quorum, KNOWN)
    if verdict is not None:
        seen = [Observation(*first), Observation(*second)]
        assert next_question(seen, quorum, [0, 1, 2], 3, KNOWN) is None
        assert verdict == classify(seen, quorum, KNOWN)


@given(st.data())
def test_asking_about_sinkholes_ends(data: st.DataObject) -> None:
    count, attempts = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
    quorum = min(2, count)
    seen = [Observation(0, A, data.draw(ANSWERS)), Observation(1 % count, AAAA, data.draw(ANSWERS))]
    while (question := next_question(seen, quorum, range(count), attempts, KNOWN)) is not None:
        seen.append(Observation(question.resolver, question.qtype, data.draw(ANSWERS)))
        assert len(seen) <= 2 + 4 * attempts + 2 * count
    verdict = classify(seen, quorum, KNOWN)
    if verdict.status in (Status.SINKHOLED, Status.PARKED):
        assert len({o.resolver for o in seen if o.answer.addresses}) >= quorum


TABLE = {
    "live.example": ["203.0.113.1"],
    "sunk.example": ["192.0.2.65", "2001:db8:5::1"],
    "parked.example": ["192.0.2.1"],
    "null.example": ["0.0.0.0", "::"],
    "www.forsale.example": ["203.0.113.2"],
    "shop.forsale.example": ["203.0.113.2"],
    "a.wild.example": ["203.0.113.3"],
    "a.tame.example": ["203.0.113.3"],
}
SERVERS = {"forsale.example": ["ns1.parking.example", "ns2.parking.example"], "live.example": ["ns.live.example"]}


def ask(servers: list[LoopbackServer], names: list[str] | None = None, **options: Any) -> Resolution:
    with serving(*servers):
        resolvers = [Resolver("127.0.0.1", server.port) for server in servers]
        options = {"rate": 0, "timeout": 0.3, "known": KNOWN, **options}
        return run(resolve_all(names or list(TABLE), resolvers, **options))


def apex(name: str) -> str:
    return ".".join(name.split(".")[-2:])


def test_the_engine_tells_sinkholes_parking_and_wildcards() -> None:
    servers = [HostileServer(TABLE, name_servers=SERVERS, wildcards={"wild.example": "203.0.113.9"}) for _ in range(2)]
    result = ask(list(servers), zone_of=apex)
    rows = {row["name"]: (row["status"], row["detail"]) for row in result.frame.iter_rows(named=True)}
    assert rows == {
        "live.example": ("live", None),
        "sunk.example": ("sinkholed", "192.0.2.65: sinks, line 3"),
        "parked.example": ("parked", "192.0.2.1: parks, line 5"),
        "null.example": ("sinkholed", "0.0.0.0: null route (RFC 1122 §3.2.1.3)"),
        "www.forsale.example": ("parked", "name server ns1.parking.example: parks, line 5"),
        "shop.forsale.example": ("parked", "name server ns1.parking.example: parks, line 5"),
        "a.wild.example": ("live", "wildcard: every name below wild.example answers"),
        "a.tame.example": ("live", None),
    }
    asked = [name for server in servers for name, kind, _ in server.seen if kind == "NS"]
    # Bad news is put to both, once for the domain; the others are asked once.
    assert sorted(asked) == sorted(
        ["forsale.example", "forsale.example", "live.example", "wild.example", "tame.example"]
    )
    random = [name for server in servers for name, _, _ in server.seen if name.endswith(".forsale.example")]
    assert len(set(random) - set(TABLE)) == 1


def test_without_known_name_servers_none_is_asked_for() -> None:
    server = HostileServer(TABLE)
    ask([server], known=Known(), zone_of=apex)
    assert not [kind for _, kind, _ in server.seen if kind == "NS"]


def test_lies_and_silence_about_name_servers_settle_the_name_all_the_same() -> None:
    silent = HostileServer({"a.evil.example": ["203.0.113.1"]}, {"evil.example": "silent"}, default="silent")
    silent.manners["a.evil.example"] = None  # type: ignore[assignment]
    assert ask([silent], ["a.evil.example"], zone_of=apex, timeout=0.1).frame["status"].to_list() == ["live"]
    assert ask([HostileServer(TABLE)], ["live.example"], zone_of=lambda _: None).frame["status"].to_list() == ["live"]
