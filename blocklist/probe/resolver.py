"""Questions to a resolver or a primary: which serial, canaries twice, a random sample of the zone."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import ip_address
from threading import Event

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype

from blocklist.publish.delivery.zone import Zone
from blocklist.rules import Rule
from blocklist.verify.endpoint import Resolver
from blocklist.verify.exchange import udp

_PATIENCE = 2.0
_AT_ONCE = 32
_GIVE_UP = 64  # questions in a row without an answer, after which an engine is asked nothing more
RULES, FIXED = 4, 2
# Extended errors of a policy: Blocked, Censored, Filtered, Prohibited (RFC 8914 §4.16–4.19).
_POLICY = (15, 16, 17, 18)


@dataclass(frozen=True)
class Question:
    """A name, and the target of its CNAME in the zone: the action that a client must see.

    Of a list that is no zone, `blocked` (however the engine says so) or `passes`.
    """

    name: str
    action: str


@dataclass(frozen=True)
class Questions:
    """What to ask about one zone or list; `version` is the name of its version record, or nothing."""

    origin: str
    version: str
    canaries: list[Question]
    sample: list[Question]


@dataclass
class Found:
    """What one engine answered. `serial`: by its version record or SOA; `missed`: names of the sample not acted on.

    `unanswered`: questions, of canaries and sample, to which nothing came; they are in none of the other counts.
    """

    answers: bool = True
    serial: int | None = None
    canaries: int = 0
    canaries_wrong: list[str] = field(default_factory=list)
    sampled: int = 0
    proved: int = 0
    missed: list[str] = field(default_factory=list)
    unanswered: int = 0
    note: str = ""
    seconds: float = 0.0


def questions(
    zone: Zone, origin: str, version: str, sample: int, rules: Sequence[Rule], exists: Sequence[str]
) -> Questions:
    """Canaries are the newest rules that the zone has, two names that are the same at every run, and `exists`.

    Records of addresses are left out, as only an answer that holds such an address would show them.
    """
    lines = zone.lines
    names = lines.filter(
        lines.str.contains(" CNAME ", literal=True) & ~lines.str.contains(".rpz-ip CNAME", literal=True)
    )
    fixed = names.gather(names.hash(seed=1).arg_sort().head(FIXED)) if len(names) else names
    ruled = [rule for rule in reversed(rules) if rule.kind == "domain"]
    wanted = [rule.name for blocks in (True, False) for rule in [r for r in ruled if r.blocks is blocks][:RULES]]
    of_rules = names.filter(names.str.split(" ").list.first().is_in(wanted)) if wanted else names.clear()
    canaries = [_question(line) for line in (*of_rules, *fixed)]
    canaries += [Question(name, "rpz-passthru.") for name in exists]
    taken = names.sample(min(sample, len(names)), seed=random.SystemRandom().getrandbits(32))
    return Questions(origin, version, list(dict.fromkeys(canaries)), [_question(line) for line in taken])


def _question(line: str) -> Question:
    owner, _, action = line.partition(" CNAME ")
    # Any name below shows a wildcard; a new one every time has no answer in a cache.
    name = f"p{secrets.token_hex(4)}{owner[1:]}" if owner.startswith("*.") else owner
    return Question(name if len(name) <= 253 else owner, action)


Shown = tuple[bool, bool] | None
"""Does the answer show the action? And does it name the zone as its reason? None where nothing was answered."""


def put(found: Found, asked: Questions, shows: Callable[[Question], Shown], at_once: int, stop: Event) -> None:
    """Put canaries and sample to one engine, and write what it showed into `found`; nothing more once `stop` is set.

    An engine that answers nothing more is not waited for 10,000 times. A zone may want just that of it (`rpz-drop.`).
    """
    silent = 0

    def show(question: Question) -> Shown:
        nonlocal silent
        if stop.is_set() or silent >= _GIVE_UP:
            return None
        shown = shows(question)
        if question.action != "rpz-drop.":
            silent = 0 if shown is not None else silent + 1
        return shown

    with ThreadPoolExecutor(at_once, "probe") as pool:

        def answers(questions: Sequence[Question]) -> list[tuple[str, bool, bool]]:
            pairs = list(zip(questions, pool.map(show, questions), strict=True))
            found.unanswered += sum(shown is None for _, shown in pairs)
            return [(question.name, *shown) for question, shown in pairs if shown is not None]

        # Twice: an answer that is in the cache must be judged as one that is not.
        for _ in range(2):
            canaries = answers(asked.canaries)
            found.canaries += len(canaries)
            found.canaries_wrong += [name for name, right, _ in canaries if not right]
        sample = answers(asked.sample)
    found.sampled = len(sample)
    found.missed = [name for name, right, _ in sample if not right]
    found.proved = sum(named for _, _, named in sample)
    if found.unanswered:
        asked_in_all = found.canaries + found.sampled + found.unanswered
        found.note = found.note or f"no answer to {found.unanswered:,} of {asked_in_all:,} questions"
        found.answers = silent < _GIVE_UP and 2 * found.unanswered <= asked_in_all


def ask(server: Resolver, asked: Questions, *, primary: bool, stop: Event) -> Found:
    """All the questions to one server, until `stop` is set; a primary is asked for its SOA only."""
    started = time.perf_counter()
    found = Found()
    try:
        if primary:
            found.serial = _soa(server, asked.origin)
            if found.serial is None:
                found.note = f"it does not serve {asked.origin}"
            return found
        if asked.version:
            found.serial = _version(server, asked.version, found)
        else:
            _exchange(server, asked.origin or ".", "SOA")
    except (dns.exception.DNSException, OSError) as error:
        found.answers = False
        silent = isinstance(error, dns.exception.Timeout | ConnectionRefusedError)
        found.note = "no answer" if silent else f"no proper answer: {error}"
        return found
    finally:
        found.seconds = time.perf_counter() - started
    put(found, asked, lambda question: _shows(server, question, asked.origin), _AT_ONCE, stop)
    found.seconds = time.perf_counter() - started
    return found


def _exchange(server: Resolver, name: str, kind: str, *, recursive: bool = True) -> dns.message.Message:
    """The answer to one question, at the second attempt if the first got none."""
    query = dns.message.make_query(dns.name.from_text(name), kind, use_edns=0, flags=dns.flags.RD if recursive else 0)
    try:
        return udp(query, server, _PATIENCE)
    except dns.exception.Timeout:
        return udp(query, server, _PATIENCE)


def _soa(server: Resolver, origin: str) -> int | None:
    reply = _exchange(server, origin, "SOA", recursive=False)
    for rrset in reply.answer:
        if rrset.rdtype == dns.rdatatype.SOA and rrset.name == dns.name.from_text(origin):
            return int(rrset[0].serial)
    return None


def _version(server: Resolver, version: str, found: Found) -> int | None:
    """The serial in the version record, which is asked for twice."""
    texts = []
    for _ in range(2):
        reply = _exchange(server, version, "TXT")
        texts += [
            b"".join(data.strings).decode("ascii", "replace")
            for rrset in reply.answer
            if rrset.rdtype == dns.rdatatype.TXT
            for data in rrset
        ]
    if not texts:
        found.note = f"it has no version record ({version})"
        return None
    text = texts[-1]
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else None


def _shows(server: Resolver, question: Question, origin: str) -> Shown:
    try:
        reply = _exchange(server, question.name, "A")
        if reply.flags & dns.flags.TC and question.action != "rpz-tcp-only.":
            # Cut short it shows nothing: without a record it looks like one that leads nowhere.
            query = dns.message.make_query(reply.question[0].name, "A", use_edns=0)
            reply = dns.query.tcp(query, server.address, _PATIENCE, server.port)
    except (dns.exception.DNSException, OSError, EOFError):
        return (True, False) if question.action == "rpz-drop." else None
    named = _names_zone(reply, origin) if origin else False
    nothing = not reply.answer
    match question.action:
        case "blocked":
            return _refuses(reply), False
        case "passes":
            return not _refuses(reply), False
        case ".":
            return reply.rcode() == dns.rcode.NXDOMAIN, named
        case "*.":
            return reply.rcode() == dns.rcode.NOERROR and nothing, named
        case "rpz-tcp-only.":
            return bool(reply.flags & dns.flags.TC), named
        case "rpz-drop.":
            return False, False
        case "rpz-passthru.":
            return not named, False
        case target:
            wanted = dns.name.from_text(target)
            cname = any(
                data.target == wanted for rrset in reply.answer if rrset.rdtype == dns.rdatatype.CNAME for data in rrset
            )
            return cname, cname


def _refuses(reply: dns.message.Message) -> bool:
    """Does the answer lead nowhere: no such name, no data, refused, or the address of nobody?"""
    if reply.rcode() in (dns.rcode.NXDOMAIN, dns.rcode.REFUSED):
        return True
    addresses = [data.address for rrset in reply.answer if rrset.rdtype == dns.rdatatype.A for data in rrset]
    return reply.rcode() == dns.rcode.NOERROR and all(ip_address(a).is_unspecified for a in addresses)


def _names_zone(reply: dns.message.Message, origin: str) -> bool:
    """BIND adds the zone's SOA to what it rewrites; others say so by an extended error."""
    zone = dns.name.from_text(origin)
    soa = any(
        rrset.rdtype == dns.rdatatype.SOA and rrset.name == zone
        for section in (reply.authority, reply.additional)
        for rrset in section
    )
    return soa or any(isinstance(option, dns.edns.EDEOption) and option.code in _POLICY for option in reply.options)


__all__ = ["FIXED", "RULES", "Found", "Question", "Questions", "Shown", "ask", "put", "questions"]
