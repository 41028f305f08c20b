"""Connections that only ever reach checked addresses, whatever the DNS says a second later.

Imported by `fetch` when the first http(s) URL comes: httpx and httpcore take 100 ms to load.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from concurrent.futures import Executor
from time import monotonic
from typing import Any

import httpcore
import httpx

from .addresses import refusal

_FIRST_TRIES = 3.0  # seconds for an address while others are left: a dead IPv6 route must not eat the time


class AddressRefused(Exception):
    """Every address of the host is one that this feed may not be fetched from."""


class NameNotFound(Exception):
    """The host's name has no address; `temporary` when the resolver did not answer."""

    def __init__(self, host: str, *, temporary: bool) -> None:
        super().__init__(host)
        self.temporary = temporary


class _Backend(httpcore.AsyncNetworkBackend):
    """Resolves once, checks every address, connects to a checked one.

    httpcore goes on using the URL's host for Host and for the server name and certificate of TLS.
    """

    def __init__(self, *, allow_private: bool, resolvers: Executor) -> None:
        self._allow_private = allow_private
        self._resolvers = resolvers
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 (httpcore's signature)
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        deadline = monotonic() + (timeout or 60.0)
        addresses = await self._addresses(host, port, deadline)
        allowed = []
        refused = ""
        for address in addresses:
            words = refusal(address, allow_private=self._allow_private)
            if words is None:
                allowed.append(address)
            else:
                refused = refused or (words if address == host else f"{address}, {words}")
        if not allowed:
            raise AddressRefused(f"{host} is {refused}" if refused else f"{host} has no address")
        while True:
            address = allowed.pop(0)
            left = max(deadline - monotonic(), 0.1)
            try:
                return await self._inner.connect_tcp(
                    address,
                    port,
                    timeout=min(left, _FIRST_TRIES) if allowed else left,
                    local_address=local_address,
                    socket_options=socket_options,
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if not allowed or monotonic() >= deadline:
                    raise

    async def _addresses(self, host: str, port: int, deadline: float) -> list[str]:
        loop = asyncio.get_running_loop()
        try:
            # An executor of its own: the loop's default one has six threads here, and a silent resolver
            # holds each for many seconds.
            found = await asyncio.wait_for(
                loop.run_in_executor(self._resolvers, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)),
                max(deadline - monotonic(), 0.1),
            )
        except socket.gaierror as error:
            raise NameNotFound(host, temporary=error.errno == socket.EAI_AGAIN) from None
        except (UnicodeError, ValueError):
            raise NameNotFound(host, temporary=False) from None
        except TimeoutError:
            raise NameNotFound(host, temporary=True) from None
        # A dict keeps the order of RFC 6724 that getaddrinfo gives, and drops repeats.
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


class _Body(httpx.AsyncByteStream):
    def __init__(self, stream: AsyncIterable[bytes]) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._stream:
            yield part

    async def aclose(self) -> None:
        if hasattr(self._stream, "aclose"):
            await self._stream.aclose()


class _Transport(httpx.AsyncBaseTransport):
    """httpx over httpcore with our network backend, which httpx's own transport can't be given.

    Exceptions of httpcore pass through as they are.
    """

    def __init__(self, pool: httpcore.AsyncConnectionPool) -> None:
        self._pool = pool

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        answer = await self._pool.handle_async_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(
                    scheme=request.url.raw_scheme,
                    host=request.url.raw_host,
                    port=request.url.port,
                    target=request.url.raw_path,
                ),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        assert isinstance(answer.stream, AsyncIterable)
        return httpx.Response(answer.status, headers=answer.headers, stream=_Body(answer.stream))

    async def aclose(self) -> None:
        await self._pool.aclose()


def tls_context() -> ssl.SSLContext:
    """Trust as httpx sets it up: certifi's roots, or SSL_CERT_FILE / SSL_CERT_DIR."""
    return httpx.create_ssl_context()


def transport(
    *, allow_private: bool, connections: int, tls: ssl.SSLContext, resolvers: Executor
) -> httpx.AsyncBaseTransport:
    """What carries requests.

    Used without an httpx client, which would log URLs, keep cookies and stumble over a hostile Location.
    Feeds that may be fetched from private addresses need one apart, so that no open connection to such an
    address is used again for a feed that may not.
    """
    # Proxies (issue B) come in here: an httpcore.AsyncHTTPProxy takes the same backend.
    return _Transport(
        httpcore.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=30.0,
            network_backend=_Backend(allow_private=allow_private, resolvers=resolvers),
        )
    )
