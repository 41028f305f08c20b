"""The wire format of DNS questions and replies (RFC 1035 §4), read without building objects."""

from __future__ import annotations

import os
from enum import IntEnum
from struct import Struct
from struct import error as StructError
from typing import Final, NamedTuple

A: Final = 1
NS: Final = 2
CNAME: Final = 5
SOA: Final = 6
AAAA: Final = 28

NOERROR: Final = 0
FORMERR: Final = 1
NXDOMAIN: Final = 3
NOTIMP: Final = 4

MAX_ALIASES: Final = 16
"""CNAMEs followed before a chain counts as one without end: BIND's limit, above Unbound's and Knot's."""

MAX_UDP: Final = 1232
"""Payload announced by EDNS: what crosses the Internet unfragmented (DNS flag day 2020)."""

_QUERY_HEAD: Final = bytes.fromhex("0100 0001 0000 0000 0001")  # RD; one question, one additional record
_PLAIN_HEAD: Final = bytes.fromhex("0100 0001 0000 0000 0000")
_OPT: Final = bytes.fromhex("00 0029")  # owner and type
_EDNS: Final = _OPT + MAX_UDP.to_bytes(2) + bytes(6)  # RFC 6891 §6.1.2, version 0, no DO
_CLASS_IN: Final = b"\0\x01"
_TAIL: Final = {A: b"\0\x01" + _CLASS_IN, NS: b"\0\x02" + _CLASS_IN, AAAA: b"\0\x1c" + _CLASS_IN}
_LENGTH_OCTET: Final = tuple(bytes([length]) for length in range(64))
_LENGTH: Final = {A: 4, AAAA: 16}
_RECORD: Final = Struct(">HHHIH")  # owner as a pointer, type, class, TTL, length of the data
_FIELDS: Final = Struct(">HHIH")  # the same after an owner of another shape

# RFC 8914 §4.5, §4.16–18: Forged Answer, Blocked, Censored, Filtered.
FILTERING: Final = {4: "forged", 15: "blocked", 16: "censored", 17: "filtered"}
_EDE: Final = 15
_EDE_OPTION: Final = b"\0\x0f\0"  # the option's code, and the upper octet of a length

_CASE: Final = bytes(0x20 if 0x41 <= octet & 0xDF <= 0x5A else 0 for octet in range(256))  # the bit that is case
_POOL: Final = 1 << 16

_RCODES: Final = (
    *("NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"),
    *("YXDOMAIN", "YXRRSET", "NXRRSET", "NOTAUTH", "NOTZONE"),
)


class Outcome(IntEnum):
    """What one question to one resolver came to."""

    ADDRESS = 0
    NODATA = 1
    """The name exists without the type asked for (RFC 2308 §2.2), or is an alias of one that does not."""
    NXDOMAIN = 2
    LOOP = 3
    """CNAMEs in a circle, or more than MAX_ALIASES of them."""
    FAILED = 4
    """SERVFAIL, REFUSED, another error, a referral (lame), or a reply that can't be read."""
    TIMEOUT = 5
    TRUNCATED = 6
    """Ask again over TCP; never reaches a verdict."""
    FILTERED = 7
    """The resolver says that it forged, blocked, censored or filtered (RFC 8914): its word on itself, not the name."""


class Answer(NamedTuple):
    """One reply, read. `addresses` are 4 or 16 octets each; `authority` is the SOA owner of a denial.

    To a question for NS `addresses` are the names of the servers, as text in octets.
    """

    outcome: Outcome
    rcode: int | None = None
    addresses: tuple[bytes, ...] = ()
    authority: str | None = None


TIMED_OUT: Final = Answer(Outcome.TIMEOUT)
_TRUNCATED: Final = Answer(Outcome.TRUNCATED)
_UNREADABLE: Final = Answer(Outcome.FAILED)
_DENIALS_KEPT: Final = 4096
_denials: dict[tuple[int, str], Answer] = {}


def encode_name(name: str) -> bytes:
    """A domain name as labels on the wire, lower case (RFC 1035 §3.1).

    Raises ValueError for an empty label, one of over 63 octets, over 255 octets in all, or what is not ASCII.
    """
    labels = name.lower().rstrip(".").encode("ascii").split(b".")
    try:
        wire = b"".join([_LENGTH_OCTET[len(label)] + label for label in labels]) + b"\0"
    except IndexError:
        wire = b""
    # RFC 1035 §2.3.4: 255 octets.
    if not wire or len(wire) > 255 or b"" in labels:
        raise ValueError(f"{name!r} is not a domain name that DNS can carry")
    return wire


def encode_question(encoded_name: bytes, qtype: int) -> bytes:
    """The question section for A, AAAA or NS: what a reply must repeat."""
    return encoded_name + _TAIL[qtype]


def encode_query(ident: int, question: bytes, *, edns: bool = True) -> bytes:
    """A whole query: `ident` 0–65535, recursion desired, EDNS payload 1232 unless `edns` is off."""
    if edns:
        return ident.to_bytes(2) + _QUERY_HEAD + question + _EDNS
    return ident.to_bytes(2) + _PLAIN_HEAD + question


class RandomCase:
    """Questions with each letter in random case: what a forger must guess besides id and port.

    draft-vixie-dnsext-dns0x20-00 §2. Lengths, types and class are no letters, so the whole section may be mixed.
    """

    def __init__(self) -> None:
        self._pool, self._at = b"", 0

    def mix(self, question: bytes) -> bytes:
        """The same question, in the sense of RFC 4343, with a bit from the system's generator in each letter."""
        size = len(question)
        if self._at + size > len(self._pool):
            self._pool, self._at = os.urandom(_POOL), 0
        bits = int.from_bytes(self._pool[self._at : self._at + size])
        self._at += size
        return (int.from_bytes(question) ^ int.from_bytes(question.translate(_CASE)) & bits).to_bytes(size)


def repeats(data: bytes, question: bytes) -> bool:
    """`answers`, and the question has come back octet by octet as it was sent."""
    return data[2] & 0xF8 == 0x80 and data[4:6] == b"\0\1" and data[12 : 12 + len(question)] == question


def answers(data: bytes, question: bytes) -> bool:
    """Whether `data` replies to `question`: QR, opcode 0, one question, the same name (any case) and type.

    The id and the source address are the caller's to match (RFC 5452 §9.1). Lower-casing the whole section
    is safe: lengths stay below 64 and our types and class below 32, all under "A".
    """
    if len(data) < 12 + len(question) or data[2] & 0xF8 != 0x80 or data[4:6] != b"\0\x01":
        return False
    section = data[12 : 12 + len(question)]
    return section == question or section.lower() == question.lower()


def read_reply(data: bytes, question: bytes, name: str) -> Answer:
    """What a reply says about `name` (lower case, no trailing dot), after `answers` said that it is one.

    Addresses behind compressed owners, and denials with one SOA, are read in place; everything unusual goes
    to dnspython. Any octets whatever give an Answer, never an exception.
    """
    if data[2] & 0x02:
        return _TRUNCATED
    rcode = data[3] & 0x0F
    # A search in C, since nearly no reply has it; what looks so by chance only costs a slower reading.
    if _EDE_OPTION in data and _says_filtered(data, 12 + len(question)):
        return Answer(Outcome.FILTERED, rcode)
    if rcode not in (NOERROR, NXDOMAIN):
        return Answer(Outcome.FAILED, rcode)
    if question[-3] == NS and data[6:8] != b"\0\0":
        names = read_servers(data) if rcode == NOERROR else ()
        return Answer(Outcome.ADDRESS if names else Outcome.FAILED, rcode, tuple(name.encode() for name in names))
    # RFC 6891 §6.1.3: upper bits of the rcode stand in the OPT record, in nearly every reply the last, without options.
    if data[10:12] != b"\0\0" and (data[-11:-8] != _OPT or data[-6]):
        return _read_any(data, question, name)
    answer: Answer | None
    try:
        if data[6:8] != b"\0\0":
            answer = _read_addresses(data, question) if rcode == NOERROR else None
        else:
            answer = _read_denial(data, question, name, rcode)
    except (IndexError, StructError):
        return _UNREADABLE
    return answer or _read_any(data, question, name)


def _read_addresses(data: bytes, question: bytes) -> Answer | None:
    """The usual positive reply: a chain of CNAMEs, each naming the next, then addresses. None: not usual."""
    qtype = question[-3]
    wanted = _LENGTH[qtype]
    owner = 0xC00C  # a pointer to the name in the question, always at offset 12
    position = 12 + len(question)
    addresses: list[bytes] = []
    aliases = 0
    for _ in range(data[6] << 8 | data[7]):
        pointer, rtype, rclass, _ttl, length = _RECORD.unpack_from(data, position)
        start = position + 12
        position = start + length
        if pointer != owner or rclass != 1:
            return None
        if rtype == qtype and length == wanted:
            addresses.append(data[start:position])
        elif rtype == CNAME and not addresses and start < 0x4000:
            owner = 0xC000 | start
            aliases += 1
        else:
            return None
    if position > len(data):
        return _UNREADABLE
    if aliases > MAX_ALIASES:
        return Answer(Outcome.LOOP, NOERROR)
    if not addresses:
        return None
    return Answer(Outcome.ADDRESS, NOERROR, tuple(addresses))


def _read_denial(data: bytes, question: bytes, name: str, rcode: int) -> Answer | None:
    """The usual negative reply: no answer, the zone's SOA first in the authority section. None: not usual."""
    if data[8:10] == b"\0\0":
        return None
    end = position = 12 + len(question)
    first = data[position]
    if first >= 0xC0:
        place = (first & 0x3F) << 8 | data[position + 1]
        position += 2
    elif first == 0:
        place = end - 5  # the root: the same as a pointer to the end of the question's name
        position += 1
    else:
        return None
    rtype, rclass, _ttl, length = _FIELDS.unpack_from(data, position)
    if rtype != SOA or rclass != 1:
        return None
    if position + 10 + length > len(data):
        return _UNREADABLE
    # A label at offset p of the question begins at character p - 12 of the name: a dot for a length octet.
    if place == end - 5:
        authority = "."
    elif place == 12 or (12 < place < end - 5 and name[place - 13] == "."):
        authority = name[place - 12 :]
    else:
        return None
    # A registry denies millions of names in the same words.
    key = (rcode, authority)
    answer = _denials.get(key)
    if answer is None:
        if len(_denials) >= _DENIALS_KEPT:
            _denials.clear()
        outcome = Outcome.NXDOMAIN if rcode == NXDOMAIN else Outcome.NODATA
        answer = _denials[key] = Answer(outcome, rcode, (), authority)
    return answer


def _says_filtered(data: bytes, position: int) -> bool:
    """Is there an extended error of filtering in the OPT record? `position` is the end of the question.

    Read in place: the octets searched for may be an address, and dnspython takes a quarter of a second for 4,000 of
    them.
    """
    answers, authority, additional = (data[i] << 8 | data[i + 1] for i in (6, 8, 10))
    try:
        for _ in range(answers + authority):
            position = _after(data, position)
        for _ in range(additional):
            end = _after(data, position)
            if data[position : position + 3] == _OPT and _has_filtering(data[position + 11 : end]):
                return True
            position = end
    except (IndexError, StructError):
        pass
    return False


def _after(data: bytes, position: int) -> int:
    """Where the record at `position` ends. Raises IndexError or StructError where the message ends before."""
    while (length := data[position]) < 0xC0:
        position += 1 + length
        if not length:
            break
    else:
        position += 2
    *_, length = _FIELDS.unpack_from(data, position)
    end: int = position + 10 + length
    if end > len(data):
        raise IndexError
    return end


def _has_filtering(options: bytes) -> bool:
    """RFC 6891 §6.1.2: code, length, data of each option; RFC 8914 §2: an extended error begins with its number."""
    position = 0
    while position + 4 <= len(options):
        code = int.from_bytes(options[position : position + 2])
        start = position + 4
        position = start + int.from_bytes(options[position + 2 : start])
        if code == _EDE and position - start >= 2 and int.from_bytes(options[start : start + 2]) in FILTERING:
            return position <= len(options)
    return False


def read_servers(data: bytes) -> tuple[str, ...]:
    """Names of the name servers in the answer to an NS question: lower case, no trailing dot, sorted.

    Any octets whatever give a tuple, never an exception.
    """
    import dns.message
    import dns.rdatatype

    try:
        message = dns.message.from_wire(data, ignore_trailing=True)
        found = [
            rdata.target.to_text(omit_final_dot=True).lower()
            for rrset in message.answer
            if rrset.rdtype == dns.rdatatype.NS
            for rdata in rrset
        ]
    except Exception:  # dnspython documents no closed set of errors for hostile octets
        return ()
    return tuple(sorted(found))


def _read_any(data: bytes, question: bytes, name: str) -> Answer:
    """Any reply, by way of dnspython."""
    import dns.flags
    import dns.message
    import dns.name
    import dns.rdataclass
    import dns.rdatatype

    try:
        message = dns.message.from_wire(data, ignore_trailing=True)
        qname = dns.name.from_text(name)
    except Exception:  # dnspython documents no closed set of errors for hostile octets
        return _UNREADABLE
    rcode = int(message.rcode())  # with EDNS's upper bits, so BADVERS is not mistaken for NOERROR
    if rcode not in (NOERROR, NXDOMAIN):
        return Answer(Outcome.FAILED, rcode)

    qtype = dns.rdatatype.RdataType(question[-3])
    internet = dns.rdataclass.IN
    target, passed = qname, {qname}
    while True:
        found = message.get_rrset(message.answer, target, internet, qtype)
        if found is not None:
            addresses = tuple(rdata.to_wire() or b"" for rdata in found)
            return Answer(Outcome.ADDRESS, rcode, addresses) if rcode == NOERROR else _UNREADABLE
        alias = message.get_rrset(message.answer, target, internet, dns.rdatatype.CNAME)
        if alias is None:
            break
        target = alias[0].target
        if target in passed or len(passed) > MAX_ALIASES:
            return Answer(Outcome.LOOP, rcode)
        passed.add(target)

    aliased = len(passed) > 1
    owners = [rrset.name for rrset in message.authority if rrset.rdtype == dns.rdatatype.SOA]
    if rcode == NXDOMAIN and aliased:
        # RFC 6604 §3: the rcode is about the last name of the chain. The name asked for has a CNAME, so it
        # exists, and an SOA above that last name is no word of this name's registry.
        return Answer(Outcome.NODATA, rcode)
    if not owners and rcode == NOERROR:
        referred = any(rrset.rdtype == dns.rdatatype.NS for rrset in message.authority)
        recursed = message.flags & dns.flags.RA
        if referred or (aliased and not recursed):
            # RFC 2308 §2.2: NS without SOA is a referral. A chain that nobody followed is no better: lame.
            return Answer(Outcome.FAILED, rcode)
    authority = None
    # RFC 2308 §3: a denial comes from a zone that holds the name; another's SOA says nothing about it.
    if owners and not aliased and qname.is_subdomain(owners[0]):
        authority = owners[0].to_text(omit_final_dot=True).lower() or "."
    if authority is not None and not authority.isascii():
        authority = None
    return Answer(Outcome.NXDOMAIN if rcode == NXDOMAIN else Outcome.NODATA, rcode, (), authority)


def rcode_text(rcode: int | None) -> str | None:
    """`NXDOMAIN` for 3 and so on (IANA DNS parameters); `RCODE16` where the table ends; None for none."""
    if rcode is None:
        return None
    return _RCODES[rcode] if rcode < len(_RCODES) else f"RCODE{rcode}"
