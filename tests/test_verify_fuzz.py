"""Replies that nobody meant: ten million mutants through the reader, and forgeries that miss by one thing only."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct
from collections import Counter
from dataclasses import dataclass

import dns.edns
import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rrset
import pytest
from dnsserver import HostileServer

from blocklist.verify.endpoint import Resolver
from blocklist.verify.loop import run
from blocklist.verify.loopback import LoopbackServer, serving
from blocklist.verify.resolver import resolve_all
from blocklist.verify.wire import (
    AAAA,
    FILTERING,
    NS,
    A,
    Answer,
    Outcome,
    RandomCase,
    answers,
    encode_name,
    encode_query,
    encode_question,
    read_reply,
    repeats,
)

TABLE = {"evil.example": ["192.0.2.1", "192.0.2.2", "2001:db8::1"], "empty.example": []}
MANNERS = {
    f"{kind.replace(' ', '-')}.example": kind
    for kind in (
        *("servfail", "nxdomain", "nxdomain without soa", "nxdomain by a stranger", "lame", "truncated", "alias"),
        *("cname loop", "chain of 30", "dangling", "compression loop", "address", "empty labels"),
    )
}


@dataclass(frozen=True)
class Reply:
    """A real reply to `question` for `name`, with the id 4711."""

    data: bytes
    question: bytes
    name: str


def replies() -> list[Reply]:
    """Of every kind that the servers of the tests give; half of the questions in random case."""
    servers = [LoopbackServer(TABLE), HostileServer(TABLE, MANNERS, name_servers={"evil.example": ["ns1.example"]})]
    cases = RandomCase()
    found = []
    for name in (*TABLE, "gone.example", "www.evil.example", "a.b.c.gone.example", *MANNERS):
        for qtype in (A, AAAA) if name in MANNERS else (A, AAAA, NS):
            for server in servers:
                question = encode_question(encode_name(name), qtype)
                if server is servers[0]:
                    question = cases.mix(question)
                data = server.reply(encode_query(4711, question), tcp=False)
                if data is not None and answers(data, question):
                    found.append(Reply(data, question, name))
    question = encode_question(encode_name("evil.example"), A)
    filtered = dns.message.make_response(dns.message.from_wire(encode_query(4711, question)))
    filtered.use_edns(0, options=[dns.edns.EDEOption(dns.edns.EDECode.FILTERED, "by order")])
    return [*found, Reply(filtered.to_wire(), question, "evil.example")]


REPLIES = replies()
TELLING = bytes([0, 1, 2, 5, 6, 12, 15, 28, 41, 63, 64, 0x80, 0xC0, 0xFF])


def mutant(reply: Reply, other: Reply, chance: random.Random) -> bytes:
    """Octets changed, cut off, inserted, or the second half of another reply."""
    data = bytearray(reply.data)
    kind = chance.random()
    # Most keep id, flags and question: they would otherwise be thrown away unread.
    first = 0 if kind < 0.2 else 12 + len(reply.question)
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(6, 12) if first and chance.random() < 0.2 else chance.randrange(first, len(data) + 1)
        if at < len(data):
            data[at] = TELLING[chance.randrange(14)] if chance.random() < 0.7 else chance.randrange(256)
    if kind > 0.9:
        del data[chance.randrange(len(data)) :]
    elif kind > 0.8:
        at = chance.randrange(first, len(data) + 1)
        data[at:at] = chance.randbytes(chance.randrange(1, 8))
    elif kind > 0.7:
        data[12 + len(reply.question) :] = other.data[12 + len(other.question) :]
    return bytes(data)


def is_reply_to(data: bytes, question: bytes) -> bool:
    """Whether it is one, as dnspython reads header and question."""
    try:
        message = dns.message.from_wire(data, question_only=True)
        asked = dns.message.from_wire(encode_query(1, question)).question[0]
    except (dns.exception.DNSException, ValueError, UnicodeError, struct.error):
        return False
    flags = int.from_bytes(data[2:4])
    return flags & 0xF800 == 0x8000 and len(message.question) == 1 and message.question[0] == asked


def in_dnspythons_view(data: bytes, name: str) -> Answer | None:
    """The whole of a reply by `resolve_chaining` of dnspython; None where it can't be read."""
    try:
        message = dns.message.from_wire(data, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError, UnicodeError, struct.error):
        return None
    rcode = int(message.rcode())
    told = [int(option.code) for option in message.options if isinstance(option, dns.edns.EDEOption)]
    if any(code in FILTERING for code in told):
        return Answer(Outcome.FILTERED, rcode)
    if rcode not in (0, 3):
        return Answer(Outcome.FAILED, rcode)
    assert isinstance(message, dns.message.QueryMessage)
    try:
        chain = message.resolve_chaining()
    except dns.exception.DNSException:
        return None
    if chain.answer is not None:
        return Answer(Outcome.ADDRESS, rcode, tuple(sorted({rdata.to_wire() or b"" for rdata in chain.answer})))
    if rcode == 3 and not chain.cnames:
        owners = [rrset.name for rrset in message.authority if rrset.rdtype == 6]
        above = owners[:1] if owners and dns.name.from_text(name).is_subdomain(owners[0]) else []
        text = above[0].to_text(omit_final_dot=True).lower() if above else None
        return Answer(Outcome.NXDOMAIN, rcode, (), text or ("." if above else None))
    return Answer(Outcome.NODATA, rcode)


def check(data: bytes, reply: Reply, chance: random.Random, told: Counter[str]) -> None:
    """No exception, and nothing accepted that is not so."""
    question = reply.question
    accepted = len(data) >= 12 and answers(data, question)
    exact = len(data) >= 12 and repeats(data, question)
    assert not exact or (accepted and question in data)
    look = chance.random() < 0.02
    if look:
        assert accepted == is_reply_to(data, question), data
    if not accepted:
        told["refused"] += 1
        return
    answer = read_reply(data, question, reply.name)
    told[answer.outcome.name] += 1
    octets = {A: 4, AAAA: 16}.get(question[-3])
    assert octets is None or all(len(address) == octets for address in answer.addresses)
    assert bool(answer.addresses) == (answer.outcome is Outcome.ADDRESS)
    owner = answer.authority
    assert owner in (None, ".") or reply.name == owner or reply.name.endswith(f".{owner}")
    if look and octets and answer.outcome in (Outcome.ADDRESS, Outcome.NXDOMAIN):
        seen = in_dnspythons_view(data, reply.name)
        if seen is None:
            told["not read by dnspython"] += 1
            return
        told["compared"] += 1
        ours = answer._replace(addresses=tuple(sorted(set(answer.addresses))))
        if answer.outcome is Outcome.ADDRESS:
            assert (seen.outcome, seen.addresses) == (Outcome.ADDRESS, ours.addresses), data
        else:
            assert seen == ours, data


def fuzz(count: int, seed: int) -> Counter[str]:
    chance = random.Random(seed)
    told: Counter[str] = Counter()
    for turn in range(count):
        reply = REPLIES[turn % len(REPLIES)]
        check(mutant(reply, REPLIES[chance.randrange(len(REPLIES))], chance), reply, chance, told)
    return told


def test_twenty_thousand_mutants_are_read_or_refused() -> None:
    told = fuzz(20_000, 1)
    assert told["refused"] > 1_000 and min(told[o.name] for o in Outcome if o is not Outcome.TIMEOUT) > 10
    assert told["compared"] > 30


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_ten_million_mutants_are_read_or_refused(part: int) -> None:
    """A tenth each; BLOCKLIST_FUZZ_REPLIES for more or less."""
    count = int(os.environ.get("BLOCKLIST_FUZZ_REPLIES", 10_000_000)) // 10
    told = fuzz(count, 100 + part)
    print(dict(told))
    assert told["compared"] > told["not read by dnspython"]


class Forger(LoopbackServer):
    """Sends forgeries of the opposite before each honest reply, each wrong in one thing: id, question, type, port."""

    forged = 0

    def deliver(self, data: bytes, address: tuple[str, int]) -> None:
        question = dns.message.from_wire(data).question[0]
        ident = data[0] << 8 | data[1]
        lie = dns.message.make_response(dns.message.make_query(question.name, question.rdtype, id=ident))
        lie.set_rcode(dns.rcode.NXDOMAIN)
        lie.authority.append(self._soa(question.name))
        if dns.message.from_wire(data).rcode() == dns.rcode.NXDOMAIN and question.rdtype == A:
            lie = dns.message.make_response(dns.message.make_query(question.name, "A", id=ident))
            lie.answer.append(dns.rrset.from_text(question.name, 60, "IN", "A", "198.51.100.66"))
        wire = lie.to_wire()
        end = 12 + len(question.name.to_wire() or b"")
        for bit in range(16):
            other = (int.from_bytes(wire[:2]) ^ 1 << bit).to_bytes(2)
            super().deliver(other + wire[2:], address)
        super().deliver(wire[:13] + bytes([wire[13] ^ 1]) + wire[14:], address)
        super().deliver(wire[: end + 1] + b"\x0f" + wire[end + 2 :], address)
        super().deliver(wire[:2] + bytes([wire[2] & 0x7F]) + wire[3:], address)
        with socket.socket(type=socket.SOCK_DGRAM) as elsewhere:
            elsewhere.sendto(wire, address)
        self.forged += 20
        super().deliver(data, address)


def test_forgeries_that_miss_by_one_thing_are_not_heard() -> None:
    names = [f"h{number}.example" for number in range(200)]
    table = {name: ["192.0.2.1"] for name in names[::2]}
    servers = [Forger(table), Forger(table)]
    with serving(*servers):
        resolvers = [Resolver("127.0.0.1", server.port) for server in servers]
        # One at a time in flight: an id that is wrong for a query must not happen to be right for another.
        result = run(asyncio.wait_for(resolve_all(names, resolvers, rate=0, window=1, timeout=2.0), 120))
    found = dict(result.frame.select("name", "status").iter_rows())
    assert found == {name: "live" if name in table else "nxdomain" for name in names}
    assert sum(server.forged for server in servers) >= 8_000
