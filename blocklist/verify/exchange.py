"""One question to one server by UDP, on a socket of its own that hears at once when nobody listens there."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import dns.message
import dns.query

if TYPE_CHECKING:
    from blocklist.verify.endpoint import Resolver


def udp(query: dns.message.Message, server: Resolver, seconds: float) -> dns.message.Message:
    """The answer; what is none to this question is not heard, unless that is signed (TSIG).

    Raises dns.exception.Timeout after `seconds`, ConnectionRefusedError where no server is.
    """
    family = socket.AF_INET6 if ":" in server.address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as connected:
        # Connected, the system tells of a closed port (RFC 1122 §4.1.3.3); else that takes the whole time.
        connected.connect((server.address, server.port))
        connected.setblocking(False)
        # A signed question must hear that its key is refused.
        signed = query.keyring is not None
        return dns.query.udp(query, server.address, seconds, server.port, sock=connected, ignore_errors=not signed)
