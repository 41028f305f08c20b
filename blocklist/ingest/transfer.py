"""Zone transfers: AXFR (RFC 5936), and IXFR (RFC 1995) from the serial that we hold, signed by TSIG where asked."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import unquote, urlsplit

import dns.exception
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdataclass
import dns.rdataset
import dns.rdatatype
import dns.serial
import dns.transaction
import dns.tsig
import dns.xfr

from .addresses import AddressRefused, allowed
from .decompress import TooLarge
from .reasons import Failure, redact, too_large
from .tsig import load_key


@dataclass(frozen=True)
class Zone:
    """A zone as text (`data`), and its serial; no text where it is the serial that was held already."""

    serial: int
    data: bytes | None


@dataclass(frozen=True)
class Primary:
    """Whom to ask for which zone."""

    host: str
    port: int
    zone: dns.name.Name
    shown: str


def primary_of(url: str) -> Primary:
    """`axfr://HOST[:PORT]/ZONE`. Raises Failure."""
    shown = redact(url)
    try:
        parts = urlsplit(url)
        zone = dns.name.from_text(unquote(parts.path.strip("/")))
        port = parts.port or 53
    except (ValueError, dns.exception.DNSException):
        raise Failure(f"{shown}: not of the form axfr://PRIMARY/ZONE") from None
    if not parts.hostname or zone == dns.name.root or parts.query or parts.username or parts.fragment:
        raise Failure(f"{shown}: not of the form axfr://PRIMARY/ZONE", hint="a key is named by the feed's 'tsig'")
    return Primary(parts.hostname, port, zone, shown)


@dataclass
class Transfer:
    """One transfer, with its limits: `max_size` bytes of text; `deadline` of the monotonic clock; seconds `idle`."""

    primary: Primary
    feed: str
    tsig: str | None
    base: Path
    max_size: int
    allow_private: bool
    connect: float
    idle: float
    deadline: float
    stop: threading.Event

    def fetch(self, serial: int | None, before: Callable[[], bytes | None]) -> Zone:
        """The zone, by IXFR where `before` gives its text of `serial`. Runs in a thread. Raises Failure."""
        where = self.primary.shown
        try:
            self._key = load_key(self.tsig, self.base) if self.tsig else None
            with self._connection() as connection:
                now = self._serial(connection)
                if serial is not None and now == serial:
                    return Zone(now, None)
                held = before() if serial is not None else None
                if serial is not None and dns.serial.Serial(now) < dns.serial.Serial(serial):
                    raise Failure(
                        f"{where}: its serial {now} is older than {serial}, which we hold",
                        hint=f"if the zone was begun anew, take it with 'blocklist update --force {self.feed}'",
                    )
                if serial is not None and held is not None:
                    try:
                        return self._transfer(connection, serial, _Records(self, held))
                    except (dns.xfr.TransferError, dns.exception.FormError, dns.transaction.DeleteNotExact):
                        pass  # no IXFR there, or not from our copy: the whole zone will do
            with self._connection() as connection:
                return self._transfer(connection, None, _Records(self, b""))
        except dns.xfr.TransferError as error:
            raise self._refused(error.rcode) from None
        except (dns.tsig.PeerBadKey, dns.message.UnknownTSIGKey):
            raise Failure(f"{where}: the primary does not know the TSIG key", hint=self._hint()) from None
        except (dns.tsig.PeerBadSignature, dns.tsig.BadSignature):
            raise Failure(f"{where}: the TSIG signatures do not match", hint=self._hint()) from None
        except (dns.tsig.PeerBadTime, dns.tsig.BadTime):
            raise Failure(f"{where}: TSIG: the clocks differ by more than five minutes") from None
        except TooLarge:
            raise too_large(where, self.feed, self.max_size) from None
        except AddressRefused as error:
            hint = f"if this is your own network, set allow_private = true for feed {self.feed}"
            raise Failure(f"{where}: refused to connect: {error}", hint=None if self.allow_private else hint) from None
        except EOFError:
            raise Failure(f"{where}: the transfer was cut off before its end", again=True) from None
        except dns.exception.DNSException as error:
            raise Failure(f"{where}: the answer is not a proper transfer ({type(error).__name__})") from None
        except OSError as error:
            raise self._in_words(error) from None

    def _connection(self) -> socket.socket:
        primary = self.primary
        try:
            found = socket.getaddrinfo(primary.host, primary.port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError):
            raise Failure(f"{primary.shown}: the name {primary.host} can't be looked up", again=True) from None
        addresses = dict.fromkeys(str(entry[4][0]) for entry in found)
        last: OSError | None = None
        for address in allowed(primary.host, addresses, allow_private=self.allow_private):
            try:
                return socket.create_connection((address, primary.port), timeout=self.connect)
            except OSError as error:
                last = error
        assert last is not None
        raise last

    def _ask(self, connection: socket.socket, query: dns.message.Message) -> None:
        if self._key is not None:
            query.use_tsig(self._key)
        wire = query.to_wire()
        connection.sendall(struct.pack("!H", len(wire)) + wire)

    def _answer(
        self, connection: socket.socket, query: dns.message.Message, context: Any = None, *, transfer: bool = False
    ) -> dns.message.Message:
        """The next message, its TSIG verified."""
        length = struct.unpack("!H", self._receive(connection, 2))[0]
        answer = dns.message.from_wire(
            self._receive(connection, length),
            keyring=query.keyring,
            request_mac=query.mac,
            xfr=transfer,
            tsig_ctx=context,
            multi=transfer,
            one_rr_per_rrset=True,
        )
        if not query.is_response(answer, xfr_continuation=transfer):
            raise dns.query.BadResponse
        return answer

    def _receive(self, connection: socket.socket, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            left = self.deadline - monotonic()
            if left <= 0:
                raise self._late()
            if self.stop.is_set():
                raise Failure(f"{self.primary.shown}: interrupted")
            connection.settimeout(min(left, self.idle))
            try:
                piece = connection.recv(size - len(data))
            except TimeoutError:
                if left < self.idle:
                    raise self._late() from None
                raise
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)

    def _late(self) -> Failure:
        return Failure(f"{self.primary.shown}: not finished in time", hint="raise [fetch] total", strain="feed")

    def _serial(self, connection: socket.socket) -> int:
        query = dns.message.make_query(self.primary.zone, dns.rdatatype.SOA, flags=0)
        self._ask(connection, query)
        answer = self._answer(connection, query)
        if answer.rcode() != dns.rcode.NOERROR:
            raise self._refused(answer.rcode())
        if self._key is not None and not answer.had_tsig:
            raise Failure(f"{self.primary.shown}: the primary did not sign its answer", hint=self._hint())
        for rrset in answer.answer:
            if rrset.name == self.primary.zone and rrset.rdtype == dns.rdatatype.SOA:
                return int(rrset[0].serial)
        raise Failure(f"{self.primary.shown}: the server does not have the zone {self.primary.zone}")

    def _transfer(self, connection: socket.socket, serial: int | None, records: _Records) -> Zone:
        query, _ = dns.xfr.make_query(records, serial)
        self._ask(connection, query)
        kind = dns.rdatatype.AXFR if serial is None else dns.rdatatype.IXFR
        with dns.xfr.Inbound(records, kind, serial) as inbound:
            done, context = False, None
            while not done:
                message = self._answer(connection, query, context, transfer=True)
                done = inbound.process_message(message)
                context = message.tsig_ctx
        if records.serial is None:
            # "You are up to date", although its SOA said otherwise a moment ago: ask again next time.
            raise Failure(f"{self.primary.shown}: the zone changed while it was transferred", again=True)
        return Zone(records.serial, records.text())

    def _refused(self, rcode: dns.rcode.Rcode) -> Failure:
        words = dns.rcode.to_text(rcode)
        hint = {
            dns.rcode.REFUSED: "the primary allows transfers to whom it knows: its allow-transfer, and the feed's tsig",
            dns.rcode.NOTAUTH: "it does not serve that zone, or does not know the key",
            dns.rcode.NXDOMAIN: "check the name of the zone",
        }.get(rcode)
        return Failure(f"{self.primary.shown}: the primary answered {words}", hint=hint)

    def _hint(self) -> str:
        return "name, algorithm and secret of the key must be those of the primary" if self.tsig else "set tsig"

    def _in_words(self, error: OSError) -> Failure:
        where, host = self.primary.shown, self.primary.host
        if isinstance(error, TimeoutError):
            return Failure(f"{where}: stalled: nothing came for {self.idle:g} s", again=True)
        if isinstance(error, ConnectionRefusedError):
            return Failure(f"{where}: {host} refused the connection", hint="nothing listens on that port", again=True)
        if isinstance(error, ConnectionError):
            return Failure(f"{where}: the transfer was cut off before its end", again=True)
        return Failure(f"{where}: {host} can't be reached: {(error.strerror or '').lower()}", again=True)


class _Records(dns.transaction.TransactionManager):
    """The zone as lines of text, a record each; a dnspython zone of a million records would take over a gigabyte.

    `dns.xfr.Inbound` speaks to it as to a zone, in one transaction.
    """

    def __init__(self, transfer: Transfer, text: bytes) -> None:
        self._origin = transfer.primary.zone
        self._limit = transfer.max_size
        self._held = text
        self.lines: set[bytes] = set()
        self.size = 0
        self.serial: int | None = None
        self._soa = b""

    def reader(self) -> dns.transaction.Transaction:
        raise NotImplementedError

    def writer(self, replacement: bool = False) -> dns.transaction.Transaction:
        self.lines = set() if replacement else {line for line in self._held.splitlines(keepends=True)[1:] if line}
        self.size = sum(map(len, self.lines))
        return _Writer(self, replacement)

    def origin_information(self) -> tuple[dns.name.Name | None, bool, dns.name.Name | None]:
        return self._origin, False, self._origin

    def get_class(self) -> dns.rdataclass.RdataClass:
        return dns.rdataclass.IN

    def add(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            if line not in self.lines:
                self.size += len(line)
                if self.size > self._limit:
                    raise TooLarge
                self.lines.add(line)

    def remove(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            if line not in self.lines:
                raise dns.transaction.DeleteNotExact
            self.size -= len(line)
            self.lines.remove(line)

    def set_soa(self, line: bytes, serial: int) -> None:
        self._soa, self.serial = line, serial

    def text(self) -> bytes:
        """The SOA first, then the records in order: the same for equal zones, however they were sent."""
        return self._soa + b"".join(sorted(self.lines))


class _Writer(dns.transaction.Transaction):
    """What `dns.xfr.Inbound` does to a zone, done to lines."""

    manager: _Records

    def add(self, *args: Any) -> None:
        self.manager.add(_lines(*args))

    def delete_exact(self, *args: Any) -> None:
        self.manager.remove(_lines(*args))

    def replace(self, *args: Any) -> None:
        """Only the SOA is ever replaced."""
        name, rdataset = args
        self.manager.set_soa(b"".join(_lines(name, rdataset)), rdataset[0].serial)

    def _end_transaction(self, commit: bool) -> None:
        if not commit:
            self.manager.serial = None


def _lines(name: dns.name.Name, rdataset: dns.rdataset.Rdataset) -> Iterable[bytes]:
    """Each record of `rdataset` in presentation format, absolute, lower case in the owner (RFC 4343)."""
    head = f"{name.canonicalize().to_text()} {rdataset.ttl} IN {dns.rdatatype.to_text(rdataset.rdtype)} "
    return (f"{head}{rdata.to_text()}\n".encode() for rdata in rdataset)
