"""A small DNS server on loopback, for the demo and the tests: a table of names, NXDOMAIN for the rest."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset

Table = Mapping[str, Sequence[str]]
TTL = 60


class LoopbackServer:
    """Answers as a recursive resolver would that knows only `table`: name → IPv4 and IPv6 addresses.

    A name with no addresses is NODATA, as is an empty non-terminal (RFC 8020). Any other name is NXDOMAIN
    with the SOA of the longest of `zones` that holds it, else of its top-level domain: the registry's word.
    `table` may be replaced at any time. One port, UDP and TCP; `port` is 0 until `start`.
    """

    def __init__(self, table: Table, *, zones: Sequence[str] = (), address: str = "127.0.0.1") -> None:
        self.table = table
        self.zones = [dns.name.from_text(zone) for zone in zones]
        self.address = address
        self.port = 0
        self.queries = 0
        self._transport: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen on a free port. Raises OSError when none can be had for both UDP and TCP."""
        loop = asyncio.get_running_loop()
        for chance in reversed(range(20)):
            self._tcp = await asyncio.start_server(self._converse, self.address, 0)
            self.port = self._tcp.sockets[0].getsockname()[1]
            udp = socket.socket(socket.AF_INET6 if ":" in self.address else socket.AF_INET, socket.SOCK_DGRAM)
            udp.setblocking(False)
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            try:
                udp.bind((self.address, self.port))  # the TCP port may be another's for UDP
            except OSError:
                udp.close()
                self._tcp.close()
                if not chance:
                    raise
                continue
            self._transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=udp)
            return

    async def stop(self) -> None:
        """Close both sockets."""
        if self._transport is not None:
            self._transport.close()
        if self._tcp is not None:
            self._tcp.close()

    def reply(self, data: bytes, *, tcp: bool) -> bytes | None:
        """The reply to one message, or None to say nothing. Subclasses may lie here."""
        try:
            query = dns.message.from_wire(data)
        except dns.exception.DNSException:
            return None
        if query.flags & dns.flags.QR or not query.question:
            return None
        response = self.respond(query)
        if tcp:
            return response.to_wire(max_size=65535)
        limit = query.payload if query.edns >= 0 else 512
        try:
            return response.to_wire(max_size=max(512, limit))
        except dns.exception.TooBig:
            response.answer = []
            response.flags |= dns.flags.TC
            return response.to_wire()

    def deliver(self, data: bytes, address: tuple[str, int]) -> None:
        """Send one datagram. Subclasses may do it late, or from elsewhere."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(data, address)

    def respond(self, query: dns.message.Message) -> dns.message.Message:
        """The honest reply, as an object."""
        response = dns.message.make_response(query, recursion_available=True)
        question = query.question[0]
        text = question.name.to_text(omit_final_dot=True).lower()
        wanted = {1: ".", 28: ":"}.get(int(question.rdtype))
        known = self.table.get(text)
        if known is not None and wanted is not None:
            addresses = [address for address in known if wanted in address]
            if addresses:
                rrset = dns.rrset.from_text(question.name, TTL, question.rdclass, question.rdtype, *addresses)
                response.answer.append(rrset)
                return response
        if known is None and not any(name.endswith("." + text) for name in self.table):
            response.set_rcode(dns.rcode.NXDOMAIN)
        response.authority.append(self._soa(question.name))
        return response

    def _soa(self, name: dns.name.Name) -> dns.rrset.RRset:
        holding = [zone for zone in self.zones if name.is_subdomain(zone)]
        # A denied name is never its own zone's apex, so a top-level name is denied by the root.
        owner = max(holding, key=len) if holding else dns.name.Name(name.labels[-2:] if len(name) > 2 else (b"",))
        mname = f"ns.{owner}" if owner != dns.name.root else "ns."
        return dns.rrset.from_text(owner, TTL, "IN", "SOA", f"{mname} hostmaster.invalid. 1 3600 600 86400 {TTL}")

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                data = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
                self.queries += 1
                reply = self.reply(data, tcp=True)
                if reply is None:
                    break
                writer.write(len(reply).to_bytes(2) + reply)
                await writer.drain()
        writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: LoopbackServer) -> None:
        self.server = server

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.server.queries += 1
        reply = self.server.reply(data, tcp=False)
        if reply is not None:
            self.server.deliver(reply, addr)


@contextlib.contextmanager
def serving(*servers: LoopbackServer) -> Iterator[None]:
    """Run the servers in a thread with a loop of its own while the block runs."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="dns on loopback", daemon=True)
    thread.start()

    async def start() -> None:
        for server in servers:
            await server.start()

    async def stop() -> None:
        for server in servers:
            await server.stop()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    try:
        asyncio.run_coroutine_threadsafe(start(), loop).result(10)
        yield
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
