"""Questions to a Squid, through itself: would it fetch this? It answers by itself, and nothing is fetched.

TRACE with `Max-Forwards: 0` ends at the first proxy (RFC 9110 §7.6.2, §9.3.8), after its access rules: 403 where they
deny, its own echo where they allow. Other proxies send the request on, to a host that may be hostile.
"""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

from blocklist.probe.resolver import Found, Question, Questions

_PATIENCE = 5.0
_AT_ONCE = 16
SCHEME = "http://"


def address_of(engine: str) -> tuple[str, int]:
    """Host and port of `http://HOST:PORT`. Raises ValueError when it is none."""
    parts = urlsplit(engine)
    if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError
    return parts.hostname, parts.port or 3128


def ask(engine: str, asked: Questions) -> Found:
    """All the questions to one proxy."""
    started = time.perf_counter()
    found = Found()
    where = address_of(engine)
    try:
        # No question of its own: a name, or an address, may be one that Squid must look up first.
        socket.create_connection(where, _PATIENCE).close()
    except OSError as error:
        found.answers = False
        found.note = f"no answer: {error.strerror or error}".lower()
        return found
    with ThreadPoolExecutor(_AT_ONCE, "probe") as pool:
        for _ in range(2):
            right = list(pool.map(lambda q: _shows(where, q), asked.canaries))
            found.canaries_wrong += [q.name for q, fine in zip(asked.canaries, right, strict=True) if not fine]
        found.canaries = 2 * len(asked.canaries)
        right = list(pool.map(lambda q: _shows(where, q), asked.sample))
    found.sampled = len(right)
    found.missed = [q.name for q, fine in zip(asked.sample, right, strict=True) if not fine]
    found.seconds = time.perf_counter() - started
    return found


def _shows(where: tuple[str, int], question: Question) -> bool:
    try:
        status = _status(where, question.name)
    except (OSError, HTTPException):
        return False
    return status == 403 if question.action == "blocked" else status == 200


def _status(where: tuple[str, int], target: str) -> int:
    """What the proxy says to a request for `target`: a host, or what follows `http://` in a URL."""
    url = target if target.startswith(SCHEME) else f"{SCHEME}{target}" + ("" if "/" in target else "/")
    connection = HTTPConnection(*where, timeout=_PATIENCE)
    try:
        connection.putrequest("TRACE", url, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", urlsplit(url).netloc)
        connection.putheader("Max-Forwards", "0")
        connection.putheader("Connection", "close")
        connection.endheaders()
        reply = connection.getresponse()
        reply.read(1 << 16)
        return reply.status
    finally:
        connection.close()


__all__ = ["SCHEME", "address_of", "ask"]
