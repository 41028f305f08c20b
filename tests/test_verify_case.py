"""Questions in random case (0x20): who keeps it is learned, and a forger who doesn't know it is not believed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st
from installation import World

from blocklist.verify.control import Control
from blocklist.verify.endpoint import Resolver
from blocklist.verify.loop import run
from blocklist.verify.loopback import LoopbackServer, serving
from blocklist.verify.preflight import Preflight, preflight
from blocklist.verify.resolver import resolve_all
from blocklist.verify.results import Resolution
from blocklist.verify.wire import AAAA, A, RandomCase, answers, encode_name, encode_query, encode_question, repeats

# So many letters that the case which the forger takes for granted is drawn once in 2**34 questions, not once in 2,048.
LIVING = [f"a-name-of-many-letters-that-lives-{number}.example" for number in range(100)]
GONE = [f"a-name-of-many-letters-that-is-gone-{number}.example" for number in range(100)]
TABLE = {name: ["192.0.2.1"] for name in ["control.example", *LIVING]}
CONTROL = Control(exists=("control.example",), missing="example")


def lowered(data: bytes) -> bytes:
    """The same message with the letters of its question in lower case."""
    message = dns.message.from_wire(data)
    end = 12 + len(message.question[0].name.to_wire() or b"")
    return data[:12] + data[12:end].lower() + data[end:]


class Watched(LoopbackServer):
    """Keeps the questions as they came: octets, and whether over TCP."""

    def __init__(self) -> None:
        super().__init__(TABLE)
        self.asked: list[tuple[bytes, bool]] = []

    def reply(self, data: bytes, *, tcp: bool) -> bytes | None:
        self.asked.append((data[12:-15], tcp))  # without type, class and EDNS
        return super().reply(data, tcp=tcp)


class Lowering(Watched):
    """Repeats every question in lower case, from the `after`th on."""

    after = 0

    def reply(self, data: bytes, *, tcp: bool) -> bytes | None:
        reply = super().reply(data, tcp=tcp)
        return lowered(reply) if reply and not tcp and len(self.asked) > self.after else reply


class Raced(Watched):
    """Somebody answers the opposite first, with the right address, port and id; the question in lower case."""

    def deliver(self, data: bytes, address: tuple[str, int]) -> None:
        honest = dns.message.from_wire(data)
        question = honest.question[0]
        forged = dns.message.make_response(dns.message.make_query(question.name, question.rdtype, id=honest.id))
        if honest.rcode() == dns.rcode.NXDOMAIN and question.rdtype == A:
            forged.answer.append(dns.rrset.from_text(question.name, 60, "IN", "A", "198.51.100.66"))
        elif honest.rcode() != dns.rcode.NXDOMAIN:
            forged.set_rcode(dns.rcode.NXDOMAIN)
            forged.authority.append(self._soa(question.name))

        super().deliver(lowered(forged.to_wire()), address)
        super().deliver(data, address)


def learned(*servers: LoopbackServer) -> Preflight:
    return run(preflight(resolvers(servers), CONTROL, rate=0, timeout=0.5))


def resolvers(servers: Sequence[LoopbackServer]) -> list[Resolver]:
    return [Resolver("127.0.0.1", server.port) for server in servers]


def verify(*servers: LoopbackServer, keeping: bool = True, **options: Any) -> Resolution:
    keep = resolvers(servers) if keeping else []
    options = {"rate": 0, "timeout": 5.0, "window": 32, **options}
    return run(resolve_all([*LIVING, *GONE], resolvers(servers), keep_case=keep, **options))


def wrong(result: Resolution) -> set[str]:
    truth = {**dict.fromkeys(LIVING, "live"), **dict.fromkeys(GONE, "nxdomain")}
    return {name for name, status in result.frame.select("name", "status").iter_rows() if status != truth[name]}


@given(st.lists(st.from_regex(r"\A[a-z0-9_-]{1,63}\Z"), min_size=1, max_size=3).map(".".join))
def test_a_question_in_random_case_asks_the_same(name: str) -> None:
    plain = encode_question(encode_name(name), AAAA)
    mixed = RandomCase().mix(plain)
    assert mixed.lower() == plain.lower() and mixed[-4:] == plain[-4:]
    reply = bytearray(encode_query(1, mixed))
    reply[2] |= 0x80
    assert repeats(bytes(reply), mixed) and answers(bytes(reply), plain)
    assert repeats(bytes(reply), plain) == (mixed == plain)


def test_every_letter_is_drawn_anew() -> None:
    cases = RandomCase()
    question = encode_question(encode_name("abcdefgh.example"), A)
    mixed = {cases.mix(question) for _ in range(500)}
    assert len(mixed) > 450  # of 32,768
    for at, octet in enumerate(question):
        seen = {one[at] for one in mixed}
        assert seen == ({octet, octet - 32} if chr(octet).isalpha() else {octet})


def test_who_keeps_the_case_is_learned_before_the_run() -> None:
    keeper, other = Watched(), Lowering()
    with serving(keeper, other):
        found = learned(keeper, other)
        assert found.usable == tuple(resolvers([keeper, other])) and not found.dropped
        assert found.keep_case == frozenset(resolvers([keeper]))


def test_a_forger_who_guesses_all_but_the_case_is_refused() -> None:
    raced = [Raced(), Raced()]
    with serving(*raced):
        result = verify(*raced)
        assert not wrong(result) and result.frame.height == 200
        # Questions were put again over TCP, where the forger has no say; at least one for each name.
        assert all(report.miscased > 100 for report in result.summary.resolvers)
        assert sum(tcp for server in raced for _, tcp in server.asked) >= 200


def test_without_random_case_the_same_forger_is_believed() -> None:
    raced = [Raced(), Raced()]
    with serving(*raced):
        assert len(wrong(verify(*raced, keeping=False))) == 200


def test_a_resolver_that_lowers_the_case_gets_plain_questions_and_loses_nothing() -> None:
    lowering = [Lowering(), Lowering()]
    with serving(*lowering):
        found = learned(*lowering)
        assert not found.keep_case
        for server in lowering:
            server.asked.clear()
        result = verify(*lowering, keeping=bool(found.keep_case))
        assert not wrong(result) and all(report.lost == 0 for report in result.summary.resolvers)
        assert all(name == name.lower() and not tcp for server in lowering for name, tcp in server.asked)


def test_one_that_ceases_to_keep_it_is_asked_over_tcp() -> None:
    """Another machine behind the same address."""
    turned = Lowering()
    turned.after = 100
    with serving(turned):
        result = verify(turned)
        assert not wrong(result) and result.summary.resolvers[0].dropped is None
        assert result.summary.resolvers[0].miscased > 200


@pytest.mark.parametrize("keeps", [True, False])
def test_the_command_learns_it_and_says_so(tmp_path: Any, keeps: bool) -> None:
    server = Watched() if keeps else Lowering()
    world = World(tmp_path)
    world.feed("a", LIVING[:20])
    world.export("list")
    with serving(server):
        control = {"exists": ["control.example"], "missing": "example"}
        world.set("verify", resolvers=[f"127.0.0.1:{server.port}"], control=control)
        world.update("--no-verify")
        told = world.run("verify", "--json").json
    assert told["verdicts"] == {"live": 20} and told["resolvers"][0]["miscased"] == 0
    assert told["resolvers"][0]["keeps_case"] == (True if keeps else None)
    listed = [name for name, _ in server.asked if name.lower() != name and b"live" in name.lower()]
    assert bool(listed) == keeps
