"""A DNS server on loopback that can be told to misbehave, name by name."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

from blocklist.verify.loopback import LoopbackServer

CHAIN = 30


@dataclass(frozen=True)
class Manner:
    """How to treat a name: `kind` is one of the branches of `HostileServer.treat`."""

    kind: str
    addresses: Sequence[str] = ()
    only: str | None = None  # "A" or "AAAA": the other type is answered honestly


class HostileServer(LoopbackServer):
    """An honest LoopbackServer but for the names in `manners`; `delay` seconds and `loss` (0–1) for all.

    `seed` decides which datagrams are lost; both directions count as one. `seen` holds (name, type, tcp).
    """

    def __init__(
        self,
        table: Mapping[str, Sequence[str]] | None = None,
        manners: Mapping[str, Manner | str] | None = None,
        *,
        zones: Sequence[str] = (),
        default: str | None = None,
        delay: float = 0.0,
        loss: float = 0.0,
        seed: int = 1,
        name_servers: Mapping[str, Sequence[str]] | None = None,
        wildcards: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(table or {}, zones=zones)
        self.manners = {k: Manner(v) if isinstance(v, str) else v for k, v in (manners or {}).items()}
        self.default = Manner(default) if default else None
        self.delay, self.loss, self.random = delay, loss, random.Random(seed)
        self.seen: list[tuple[str, str, bool]] = []
        self.name_servers, self.wildcards = name_servers or {}, wildcards or {}

    def respond(self, query: dns.message.Message) -> dns.message.Message:
        response = super().respond(query)
        question = query.question[0]
        name, kind = question.name.to_text(omit_final_dot=True).lower(), question.rdtype.name
        address = next((a for zone, a in self.wildcards.items() if name.endswith("." + zone)), None)
        found = [server + "." for server in self.name_servers.get(name, ())] if kind == "NS" else []
        if kind == "A" and address is not None and name not in self.table:
            found = [address]
        if found:
            response.set_rcode(dns.rcode.NOERROR)
            response.authority = []
            response.answer = [dns.rrset.from_text(question.name, 60, "IN", kind, *found)]
        return response

    def reply(self, data: bytes, *, tcp: bool) -> bytes | None:
        try:
            query = dns.message.from_wire(data)
        except Exception:
            return None
        name = query.question[0].name.to_text(omit_final_dot=True).lower()
        qtype = query.question[0].rdtype.name
        self.seen.append((name, qtype, tcp))
        if not tcp and self.random.random() < self.loss:
            return None
        manner = self.manners.get(name, self.default)
        if manner is None or (manner.only is not None and manner.only != qtype):
            reply = super().reply(data, tcp=tcp)
        else:
            reply = self.treat(manner, query, data, tcp=tcp)
        return reply

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            data = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
            self.queries += 1
            reply = self.reply(data, tcp=True)
            if reply is None:
                return
            question = dns.message.from_wire(data).question[0]
            manner = self.manners.get(question.name.to_text(omit_final_dot=True).lower())
            kind = manner.kind if manner else ""
            if kind == "64k over tcp":
                section = data[12 : 12 + len(question.name.to_wire() or b"") + 4]
                record = b"\xc0\x0c" + section[-4:-2] + b"\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01"
                count = (65535 - len(data)) // len(record)
                head = data[:2] + b"\x81\x80\0\x01" + count.to_bytes(2) + bytes(4)
                reply = head + section + record * count
            framed = len(reply).to_bytes(2) + reply
            if kind == "half-closed tcp":
                writer.write(framed[: len(framed) // 2])
                writer.write_eof()
                await asyncio.sleep(5)
            elif kind in ("slow tcp", "no end over tcp"):
                for octet in framed if kind == "slow tcp" else b"\xff" * 65537:
                    writer.write(bytes([octet]))
                    await asyncio.sleep(0.2)
            else:
                writer.write(framed)
                await writer.drain()
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    def deliver(self, data: bytes, address: tuple[str, int]) -> None:
        if self.delay:
            asyncio.get_running_loop().call_later(self.delay, super().deliver, data, address)
        else:
            super().deliver(data, address)

    def treat(self, manner: Manner, query: dns.message.Message, data: bytes, *, tcp: bool) -> bytes | None:
        question = query.question[0]
        response = dns.message.make_response(query, recursion_available=True)
        honest = super().reply(data, tcp=True) or b""
        match manner.kind:
            case "servfail" | "refused" | "notimp":
                response.set_rcode(getattr(dns.rcode, manner.kind.upper()))
            case "nxdomain":
                response.set_rcode(dns.rcode.NXDOMAIN)
                response.authority.append(self._soa(question.name))
            case "nxdomain without soa":
                response.set_rcode(dns.rcode.NXDOMAIN)
            case "nxdomain by a stranger":
                response.set_rcode(dns.rcode.NXDOMAIN)
                response.authority.append(dns.rrset.from_text("other.example.", 60, "IN", "SOA", "a. b. 1 1 1 1 1"))
            case "formerr to edns" | "notimp to edns" if query.edns >= 0:
                response.set_rcode(getattr(dns.rcode, manner.kind.split()[0].upper()))
            case "formerr to edns" | "notimp to edns" | "honest":
                return honest
            case "silent":
                return None
            case "lame":
                response.flags &= ~dns.flags.RA
                response.authority.append(dns.rrset.from_text("example.", 60, "IN", "NS", "ns.example."))
            case "truncated":
                if tcp:
                    return honest
                response.flags |= dns.flags.TC
            case "truncated, tcp closes" | "truncated, tcp truncated":
                if tcp and manner.kind.endswith("closes"):
                    return None
                response.flags |= dns.flags.TC
            case "slow tcp" | "half-closed tcp" | "64k over tcp" | "no end over tcp":
                if tcp:
                    return honest  # `_converse` sees to the rest
                response.flags |= dns.flags.TC
            case "empty labels":
                return honest[:6] + bytes(6) + b"\0" * (len(data) - 12)
            case "wrong id":
                return bytes([data[0] ^ 1, data[1]]) + honest[2:]
            case "wrong question":
                other = dns.message.make_query("other.example.", question.rdtype, id=query.id)
                return LoopbackServer.respond(self, other).to_wire()
            case "wrong type":
                other = dns.message.make_query(question.name, "MX", id=query.id)
                return LoopbackServer.respond(self, other).to_wire()
            case "not a reply":
                return data
            case "garbage":
                return self.random.randbytes(self.random.randrange(0, 600))
            case "garbage after the question":
                return honest[: len(data) - 11][:6] + b"\0\x05\0\x05\0\x05" + data[12:] + self.random.randbytes(99)
            case "compression loop":
                head = data[:2] + bytes.fromhex("8180 0001 0001 0000 0000")
                body = data[12 : 12 + len(question.name.to_wire() or b"") + 4]
                here = 0xC000 | (12 + len(body))
                return head + body + struct.pack(">HHHIH", here, question.rdtype, 1, 60, 4) + bytes(4)
            case "cname loop":
                response.answer.append(dns.rrset.from_text(question.name, 60, "IN", "CNAME", "a.loop."))
                response.answer.append(dns.rrset.from_text("a.loop.", 60, "IN", "CNAME", "b.loop."))
                response.answer.append(dns.rrset.from_text("b.loop.", 60, "IN", "CNAME", "a.loop."))
            case "chain of 30":
                owner = question.name.to_text()
                for step in range(CHAIN):
                    response.answer.append(dns.rrset.from_text(owner, 60, "IN", "CNAME", f"c{step}.chain."))
                    owner = f"c{step}.chain."
                if question.rdtype.name == "A":
                    response.answer.append(dns.rrset.from_text(owner, 60, "IN", "A", "192.0.2.1"))
            case "alias":
                response.answer.append(dns.rrset.from_text(question.name, 60, "IN", "CNAME", "cdn.example."))
                if question.rdtype.name == "A":
                    response.answer.append(dns.rrset.from_text("cdn.example.", 60, "IN", "A", "192.0.2.7"))
                else:
                    response.authority.append(self._soa(question.name))
            case "dangling":
                response.answer.append(dns.rrset.from_text(question.name, 60, "IN", "CNAME", "gone.com."))
                response.set_rcode(dns.rcode.NXDOMAIN)
                response.authority.append(dns.rrset.from_text("com.", 60, "IN", "SOA", "a. b. 1 1 1 1 1"))
            case "address":
                address = "192.0.2.66" if question.rdtype.name == "A" else "2001:db8::66"
                response.answer.append(dns.rrset.from_text(question.name, 60, "IN", question.rdtype.name, address))
            case _:
                raise AssertionError(manner.kind)
        return response.to_wire(max_size=65535)


class SpoofedSource(LoopbackServer):
    """Answers every datagram from another port than it was asked on."""

    def deliver(self, data: bytes, address: tuple[str, int]) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.sendto(data, address)
