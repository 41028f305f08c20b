"""The primary that serves a zone: which serial it has, waiting for one, telling secondaries."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.rrset
import dns.tsig

from blocklist.errors import ReleaseError
from blocklist.verify.endpoint import Resolver
from blocklist.verify.exchange import udp

# Seconds: for one answer, and between two questions at first and at last.
_PATIENCE, _SOON, _SELDOM = 2.0, 0.05, 1.0


class Silent(ReleaseError):
    """The primary does not answer, perhaps for the moment."""


@dataclass(frozen=True)
class Primary:
    """A name server and the zone that it serves; `key` signs what it is asked (RFC 8945)."""

    server: Resolver
    zone: dns.name.Name
    place: str
    key: dns.tsig.Key | None = None

    def __str__(self) -> str:
        return f"{self.place}: primary {self.server}"

    def soa(self, attempts: int = 3) -> str:
        """The data of the SOA record that it serves. Raises ReleaseError with the way out."""
        query = dns.message.make_query(self.zone, dns.rdatatype.SOA, flags=0)
        if self.key is not None:
            query.use_tsig(self.key)
        answer = self.asked(lambda: self._udp(query, attempts))
        if answer.rcode() == dns.rcode.NOERROR:
            for rrset in answer.answer:
                if rrset.rdtype == dns.rdatatype.SOA and rrset.name == self.zone:
                    return str(rrset[0].to_text())
        words = dns.rcode.to_text(answer.rcode())
        raise ReleaseError(
            f"{self} does not serve the zone {self.zone.to_text(omit_final_dot=True)} (it answered {words})",
            hint="configure the zone there, and let this machine ask for it (allow-query)",
        )

    def serial(self, attempts: int = 3) -> int:
        """The serial that it serves. Raises ReleaseError."""
        return int(self.soa(attempts).split()[2])

    def wait(self, serial: int, deadline: float) -> None:
        """Until it serves `serial`, or `deadline` of the monotonic clock. Believe no command's own word.

        BIND answers nothing for eight seconds while it takes in a million names: silence is no failure yet.
        """
        pause = _SOON
        while True:
            try:
                served = self.serial(attempts=1)
                told = ReleaseError(
                    f"{self} still serves serial {served}, not {serial}",
                    hint="see its log; it may have refused the zone, or need more time (delivery_timeout)",
                )
                if served == serial:
                    return
            except Silent as error:
                told = error
            if time.monotonic() + pause > deadline:
                raise told from None
            time.sleep(pause)
            pause = min(pause * 1.5, _SELDOM)

    def notify(self, secondaries: Iterable[Resolver], soa: str) -> list[str]:
        """Tell each secondary of the new serial (RFC 1996); the addresses that did not acknowledge."""
        silent = []
        for secondary in secondaries:
            query = dns.message.make_query(self.zone, dns.rdatatype.SOA, flags=dns.flags.AA)
            query.set_opcode(dns.opcode.NOTIFY)
            # Not signed: Unbound drops a NOTIFY with TSIG, and it says no more than that it is time to ask the primary.
            query.answer.append(dns.rrset.from_text(self.zone, 0, "IN", "SOA", soa))
            try:
                reply = udp(query, secondary, _PATIENCE)
                if reply.rcode() != dns.rcode.NOERROR:
                    silent.append(f"{secondary} ({dns.rcode.to_text(reply.rcode())})")
            except (dns.exception.DNSException, OSError):
                silent.append(str(secondary))
        return silent

    def asked(self, ask: Callable[[], dns.message.Message]) -> dns.message.Message:
        """What `ask` gives; its failures as ReleaseErrors."""
        try:
            return ask()
        except (dns.tsig.PeerBadKey, dns.message.UnknownTSIGKey):
            raise ReleaseError(f"{self} does not know the TSIG key", hint=_KEY_HINT) from None
        except (dns.tsig.PeerBadSignature, dns.tsig.BadSignature):
            raise ReleaseError(f"{self}: the TSIG signatures do not match", hint=_KEY_HINT) from None
        except (dns.tsig.PeerBadTime, dns.tsig.BadTime):
            raise ReleaseError(f"{self}: TSIG: the clocks differ by more than five minutes") from None
        except (dns.exception.Timeout, EOFError, ConnectionRefusedError):
            raise Silent(f"{self} does not answer", hint="is it running, and does it let this machine ask?") from None
        except dns.exception.DNSException as error:
            raise ReleaseError(f"{self}: its answer is not proper ({type(error).__name__})") from None
        except OSError as error:
            raise ReleaseError(f"{self}: {(error.strerror or str(error)).lower()}") from None

    def _udp(self, query: dns.message.Message, attempts: int) -> dns.message.Message:
        for left in range(attempts - 1, -1, -1):
            try:
                return udp(query, self.server, _PATIENCE)
            except (dns.exception.Timeout, ConnectionError):
                if not left:
                    raise
                time.sleep(0.2)
        raise AssertionError


_KEY_HINT = "name, algorithm and secret of the key must be those of the primary"
