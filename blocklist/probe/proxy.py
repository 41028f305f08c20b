"""Questions to a Squid, through itself: would it fetch this? It answers by itself, and nothing is fetched.

TRACE with `Max-Forwards: 0` ends at the first proxy (RFC 9110 §7.6.2, §9.3.8), after its access rules: 403 where they
deny, its own echo where they allow. Other proxies send the request on, to a host that may be hostile.
"""

from __future__ import annotations

import re
import socket
import time
from threading import Event
from urllib.parse import urlsplit

from blocklist.probe.resolver import Found, Question, Questions, Shown, put

_PATIENCE = 5.0
_AT_ONCE = 16
_FIRST_LINE = 4096  # octets
SCHEME = "http://"


def address_of(engine: str) -> tuple[str, int]:
    """Host and port of `http://HOST:PORT`. Raises ValueError when it is none."""
    parts = urlsplit(engine)
    if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError
    return parts.hostname, parts.port or 3128


def ask(engine: str, asked: Questions, stop: Event) -> Found:
    """All the questions to one proxy, until `stop` is set."""
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
    put(found, asked, lambda question: _shows(where, question), _AT_ONCE, stop)
    found.seconds = time.perf_counter() - started
    return found


def _shows(where: tuple[str, int], question: Question) -> Shown:
    try:
        status = _status(where, question.name)
    except (OSError, ValueError):
        return None
    return status == (403 if question.action == "blocked" else 200), False


def _status(where: tuple[str, int], target: str) -> int:
    """What the proxy says to a request for `target`: a host, or what follows `http://` in a URL.

    The first line of the answer is enough, and it has all of _PATIENCE for it, however slowly it comes. Raises OSError
    and ValueError where it is none of HTTP, or `target` can't be asked for.
    """
    url = target if target.startswith(SCHEME) else f"{SCHEME}{target}" + ("" if "/" in target else "/")
    if re.search(r"[^!-~]", url):
        raise ValueError(url)  # it would be read as more than one word of the request
    host = urlsplit(url).netloc
    request = f"TRACE {url} HTTP/1.1\r\nHost: {host}\r\nMax-Forwards: 0\r\nConnection: close\r\n\r\n"
    until = time.monotonic() + _PATIENCE
    said = b""
    with socket.create_connection(where, _PATIENCE) as connection:
        connection.sendall(request.encode("ascii"))
        while b"\n" not in said and len(said) < _FIRST_LINE:
            connection.settimeout(max(until - time.monotonic(), 0.001))
            more = connection.recv(_FIRST_LINE)
            if not more:
                break
            said += more
    line = re.match(rb"HTTP/1\.\d (\d{3})\b", said)
    if line is None:
        raise ValueError(said[:80])
    return int(line[1])


__all__ = ["SCHEME", "address_of", "ask"]
