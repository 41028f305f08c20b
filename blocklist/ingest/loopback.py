"""A small real web server on loopback that serves a dictionary: for `blocklist demo` and the tests."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType


@dataclass(frozen=True)
class Page:
    """What a path answers; under status 200 with an ETag of the body, and 304 to who has it."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class LoopbackServer:
    """Serves `pages`, which may be changed while it runs; `requests` keeps (path, status) in order.

    Use as a context manager. Answers 404 for other paths.
    """

    def __init__(self, pages: Mapping[str, Page | bytes] | None = None, *, host: str = "127.0.0.1") -> None:
        self.pages: MutableMapping[str, Page | bytes] = dict(pages or {})
        self.requests: list[tuple[str, int]] = []
        self._server = _Server((host, 0), _Handler)
        self._server.owner = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def url(self, path: str) -> str:
        return f"http://{self._server.server_address[0]!s}:{self.port}{path}"

    def __enter__(self) -> LoopbackServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    owner: LoopbackServer
    daemon_threads = True
    request_queue_size = 128  # with the usual 5 a burst of feeds waits a second for the next SYN
    block_on_close = False  # a client's idle connection must not hold the end of a demo

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that resets its idle connection is no error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        page = self.server.owner.pages.get(self.path, Page(b"not here\n", 404))
        if isinstance(page, bytes):
            page = Page(page)
        status, body, headers = page.status, page.body, dict(page.headers)
        if status == 200:
            etag = headers.setdefault("ETag", f'"{hashlib.sha256(body).hexdigest()[:16]}"')
            if self.headers.get("If-None-Match") == etag:
                status, body = 304, b""
        self.server.owner.requests.append((self.path, status))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 304:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: stderr is the demo's."""
