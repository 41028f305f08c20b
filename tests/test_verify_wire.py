"""The wire: queries that dnspython reads, replies that it wrote, and octets that nobody meant."""

from __future__ import annotations

import random

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from blocklist.verify import wire
from blocklist.verify.loopback import LoopbackServer
from blocklist.verify.wire import (
    AAAA,
    A,
    Answer,
    Outcome,
    answers,
    encode_name,
    encode_query,
    encode_question,
    read_reply,
)

LABELS = st.from_regex(r"\A[a-z0-9_]([a-z0-9-]{0,20}[a-z0-9])?\Z")
NAMES = st.lists(LABELS, min_size=1, max_size=8).map(".".join)


def ask(name: str, qtype: int = A) -> tuple[bytes, dns.message.Message]:
    question = encode_question(encode_name(name), qtype)
    query = dns.message.from_wire(encode_query(4711, question))
    return question, dns.message.make_response(query, recursion_available=True)


def read(response: dns.message.Message, question: bytes, name: str) -> Answer:
    data = response.to_wire(max_size=65535)
    assert answers(data, question)
    return read_reply(data, question, name)


@given(NAMES, st.integers(0, 65535), st.sampled_from([A, AAAA]), st.booleans())
def test_queries_read_back_by_dnspython(name: str, ident: int, qtype: int, edns: bool) -> None:
    query = dns.message.from_wire(encode_query(ident, encode_question(encode_name(name), qtype), edns=edns))
    assert (query.id, query.question[0].name) == (ident, dns.name.from_text(name))
    assert query.question[0].rdtype == qtype and query.flags == dns.flags.RD
    assert (query.edns, query.payload) == ((0, 1232) if edns else (-1, 0))


@pytest.mark.parametrize(
    "name", ["", ".", "a..example", ".example", "a" * 64 + ".example", ".".join(["a" * 63] * 4), "ü.example"]
)
def test_names_that_dns_cannot_carry_are_refused(name: str) -> None:
    with pytest.raises(ValueError):
        encode_name(name)


def test_the_longest_name_is_carried() -> None:
    assert len(encode_name(".".join(["a" * 63] * 3 + ["a" * 61]))) == 255


def usual(name: str, qtype: int, rows: list[tuple[str, str, str]]) -> Answer:
    question, response = ask(name, qtype)
    for owner, rtype, text in rows:
        response.answer.append(dns.rrset.from_text(owner, 60, "IN", rtype, *text.split()))
    return read(response, question, name)


def test_addresses_are_read_without_dnspython(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(wire, "_read_any")  # the usual case must never get there
    two = usual("evil.example", A, [("evil.example.", "A", "192.0.2.1 192.0.2.2")])
    assert sorted(two.addresses) == [bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2])]
    assert len(usual("evil.example", AAAA, [("evil.example.", "AAAA", "2001:db8::1")]).addresses[0]) == 16
    chain = [
        ("a.example.", "CNAME", "b.example."),
        ("b.example.", "CNAME", "c.net."),
        ("c.net.", "A", "192.0.2.1"),
    ]
    assert usual("a.example", A, chain) == Answer(Outcome.ADDRESS, 0, (bytes([192, 0, 2, 1]),))


@pytest.mark.parametrize("place", ["alone", "among others"])
@pytest.mark.parametrize(("code", "filters"), [(15, True), (17, True), (3, False), (22, False)])
def test_an_extended_error_is_found_wherever_it_stands(code: int, filters: bool, place: str) -> None:
    question, response = ask("evil.example")
    options: list[dns.edns.Option] = [dns.edns.EDEOption(dns.edns.EDECode(code), "\x1b[2Jby order")]
    if place == "among others":
        options = [dns.edns.NSIDOption(b"x\0\x0f\0"), *options, dns.edns.NSIDOption(b"")]
        response.answer.append(dns.rrset.from_text("evil.example.", 60, "IN", "A", "192.0.2.1"))
        response.authority.append(dns.rrset.from_text("other.example.", 60, "IN", "NS", "ns.other.example."))
        response.additional.append(dns.rrset.from_text("ns.other.example.", 60, "IN", "A", "192.0.2.1"))
    response.use_edns(0, options=options)
    assert (read(response, question, "evil.example").outcome is Outcome.FILTERED) is filters


def test_addresses_that_look_like_an_extended_error_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four thousand of them, one with the octets of the option, took a quarter of a second for each reply."""
    monkeypatch.setattr(dns.message, "from_wire", lambda *_, **__: pytest.fail("dnspython was asked"))
    question = encode_question(encode_name("evil.example"), A)
    record = bytes.fromhex("c00c 0001 0001 00000001 0004")
    records = b"".join(record + (0xC0000F00 + number).to_bytes(4) for number in range(4000))
    opt = bytes.fromhex("00 0029 04d0 00000000 0000")
    data = bytes.fromhex("0001 8180 0001 0fa0 0000 0001") + question + records + opt
    answer = read_reply(data, question, "evil.example")
    assert b"\0\x0f\0" in data and (answer.outcome, len(answer.addresses)) == (Outcome.ADDRESS, 4000)


@pytest.mark.parametrize("owner", ["a.evil.example.", "evil.example.", "example.", "."])
@pytest.mark.parametrize("denied", [True, False])
def test_denials_name_the_zone_that_denies(owner: str, denied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(wire, "_read_any")
    question, response = ask("a.evil.example")
    if denied:
        response.set_rcode(dns.rcode.NXDOMAIN)
    response.authority.append(dns.rrset.from_text(owner, 60, "IN", "SOA", "ns. host. 1 1 1 1 1"))
    answer = read(response, question, "a.evil.example")
    assert answer.outcome is (Outcome.NXDOMAIN if denied else Outcome.NODATA)
    assert answer.authority == (owner.rstrip(".") or ".")


def test_a_strangers_soa_is_no_authority() -> None:
    question, response = ask("evil.example")
    response.set_rcode(dns.rcode.NXDOMAIN)
    response.authority.append(dns.rrset.from_text("other.example.", 60, "IN", "SOA", "ns. host. 1 1 1 1 1"))
    assert read(response, question, "evil.example") == Answer(Outcome.NXDOMAIN, 3)


def test_an_alias_of_nothing_exists_itself_and_gets_no_authority() -> None:
    question, response = ask("evil.com")
    response.set_rcode(dns.rcode.NXDOMAIN)
    response.answer.append(dns.rrset.from_text("evil.com.", 60, "IN", "CNAME", "gone.com."))
    response.authority.append(dns.rrset.from_text("com.", 60, "IN", "SOA", "ns. host. 1 1 1 1 1"))
    assert read(response, question, "evil.com") == Answer(Outcome.NODATA, 3)


def test_circles_and_long_chains_are_loops() -> None:
    circle = [("a.example.", "CNAME", "b.example."), ("b.example.", "CNAME", "a.example.")]
    assert usual("a.example", A, circle).outcome is Outcome.LOOP
    assert usual("a.example", A, [("a.example.", "CNAME", "a.example.")]).outcome is Outcome.LOOP
    long = [(f"c{step}.example.", "CNAME", f"c{step + 1}.example.") for step in range(30)]
    assert usual("c0.example", A, long).outcome is Outcome.LOOP
    assert usual("c0.example", A, long[::-1]).outcome is Outcome.LOOP  # out of order: dnspython reads it
    assert usual("c0.example", A, [*long, ("c30.example.", "A", "192.0.2.1")]).outcome is Outcome.LOOP
    short = [*long[:9], ("c9.example.", "A", "192.0.2.1")]
    assert usual("c0.example", A, short).outcome is Outcome.ADDRESS


def test_a_reply_out_of_order_is_still_read() -> None:
    rows = [("b.example.", "A", "192.0.2.1"), ("a.example.", "CNAME", "b.example.")]
    assert usual("a.example", A, rows).outcome is Outcome.ADDRESS


def test_an_address_of_another_name_is_not_taken() -> None:
    assert usual("a.example", A, [("b.example.", "A", "192.0.2.1")]).outcome is not Outcome.ADDRESS


def test_replies_must_repeat_the_question_in_any_case() -> None:
    question, response = ask("evil.example")
    data = response.to_wire()
    assert answers(data.replace(b"evil", b"eViL"), question)
    assert not answers(data.replace(b"evil", b"evul"), question)
    assert not answers(data, encode_question(encode_name("evil.example"), AAAA))
    assert not answers(encode_query(4711, question), question)  # its own query, reflected


def test_badvers_is_not_nodata() -> None:
    question, response = ask("evil.example")
    response.use_edns(0)
    response.set_rcode(dns.rcode.BADVERS)
    assert read(response, question, "evil.example") == Answer(Outcome.FAILED, 16)


def test_upper_bits_of_the_rcode_make_no_denial() -> None:
    question, response = ask("gone.example")
    response.authority.append(dns.rrset.from_text("example.", 60, "IN", "SOA", "ns. host. 1 1 1 1 1"))
    response.use_edns(0)
    response.set_rcode(dns.rcode.Rcode.make(19))  # NXDOMAIN in the header's four bits
    assert read(response, question, "gone.example") == Answer(Outcome.FAILED, 19)
    response.answer.append(dns.rrset.from_text("gone.example.", 60, "IN", "A", "192.0.2.1"))
    response.set_rcode(dns.rcode.Rcode.make(32))
    assert read(response, question, "gone.example") == Answer(Outcome.FAILED, 32)


TABLE = {"evil.example": ["192.0.2.1", "192.0.2.2", "2001:db8::1"], "empty.example": []}
SERVER = LoopbackServer(TABLE)


def replies() -> list[tuple[bytes, bytes, str]]:
    found = []
    for name in ("evil.example", "empty.example", "gone.example", "www.evil.example"):
        for qtype in (A, AAAA):
            question = encode_question(encode_name(name), qtype)
            data = SERVER.reply(encode_query(1, question), tcp=True)
            assert data is not None
            found.append((data, question, name))
    question, response = ask("a.example")
    for step in range(5):
        owner = "a" if step == 0 else f"c{step}"
        response.answer.append(dns.rrset.from_text(f"{owner}.example.", 60, "IN", "CNAME", f"c{step + 1}.example."))
    response.answer.append(dns.rrset.from_text("c5.example.", 60, "IN", "A", "192.0.2.1"))
    found.append((response.to_wire(), question, "a.example"))
    return found


REPLIES = replies()


def survives(data: bytes, question: bytes, name: str) -> None:
    if len(data) >= 12 and answers(data, question):
        answer = read_reply(data, question, name)
        length = 4 if question[-3] == A else 16
        assert all(len(address) == length for address in answer.addresses)
        assert (answer.outcome is Outcome.ADDRESS) == bool(answer.addresses)
        authority = answer.authority
        assert authority in (None, ".") or name == authority or name.endswith("." + str(authority))


@given(st.sampled_from(REPLIES), st.binary(max_size=200))
@settings(max_examples=300)
@example(REPLIES[0], b"")
def test_any_octets_after_the_question_give_an_answer(reply: tuple[bytes, bytes, str], tail: bytes) -> None:
    data, question, name = reply
    survives(data[: 12 + len(question)] + tail, question, name)


def test_twenty_thousand_mutated_replies_give_an_answer() -> None:
    chance = random.Random(7)
    for turn in range(20_000):
        data, question, name = REPLIES[turn % len(REPLIES)]
        mutant = bytearray(data)
        end = 12 + len(question)
        for _ in range(chance.randint(1, 4)):
            # Never the question, id and QR: those replies are thrown away before they are read.
            place = chance.choice([3, *range(6, 12), *range(end, len(mutant))])
            mutant[place] = chance.choice([0, 0xC0, 0xFF, 12, 5, chance.randrange(256)])
        if turn % 5 == 0:
            del mutant[chance.randint(12, len(mutant)) :]
        survives(bytes(mutant), question, name)


@pytest.mark.parametrize("reply", REPLIES, ids=lambda reply: f"{reply[2]}-{reply[1][-3]}")
def test_the_fast_reader_agrees_with_dnspython(reply: tuple[bytes, bytes, str]) -> None:
    data, question, name = reply
    fast, slow = read_reply(data, question, name), wire._read_any(data, question, name)
    assert fast._replace(addresses=()) == slow._replace(addresses=())
    assert sorted(fast.addresses) == sorted(slow.addresses)
