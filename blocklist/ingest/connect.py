"""Connections that only ever reach checked addresses, whatever the DNS says a second later.

Imported by `fetch` when the first http(s) URL comes: httpx and httpcore take 100 ms to load.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from concurrent.futures import Executor
from pathlib import Path
from time import monotonic
from typing import Any

import httpcore
import httpx

from .addresses import AddressRefused, allowed, refusal
from .route import Route

_FIRST_TRIES = 3.0  # seconds for an address while others are left: a dead IPv6 route must not eat the time


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
        fit = allowed(host, await self._addresses(host, port, deadline), allow_private=self._allow_private)
        while True:
            address = fit.pop(0)
            left = max(deadline - monotonic(), 0.1)
            try:
                return await self._inner.connect_tcp(
                    address,
                    port,
                    timeout=min(left, _FIRST_TRIES) if fit else left,
                    local_address=local_address,
                    socket_options=socket_options,
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if not fit or monotonic() >= deadline:
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


class _Proxied(_Transport):
    """Through a proxy only the proxy's address is ours to check; a URL that names an address outright still is.

    What a name means is the proxy's to find out, and to refuse.
    """

    def __init__(self, pool: httpcore.AsyncConnectionPool, *, allow_private: bool) -> None:
        super().__init__(pool)
        self._allow_private = allow_private

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        try:
            words = refusal(host, allow_private=self._allow_private)
        except ValueError:
            loopback = host == "localhost" or host.endswith(".localhost")
            words = "the proxy's own host" if loopback and not self._allow_private else None
        if words is not None:
            raise AddressRefused(f"{host} is {words}")
        return await super().handle_async_request(request)


class RouteError(Exception):
    """A route can't be taken: a certificate file that can't be used, a proxy of an unknown kind."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def tls_context(ca_file: Path | None = None, client_cert: Path | None = None) -> ssl.SSLContext:
    """Trust as httpx sets it up (certifi's roots, or SSL_CERT_FILE / SSL_CERT_DIR), and `ca_file` besides.

    Raises RouteError.
    """
    context = httpx.create_ssl_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError) as error:
            raise RouteError(
                f"ca_file {ca_file} can't be used: {_why(error)}", hint="it must hold certificates in PEM"
            ) from None
    if client_cert is not None:
        try:
            # Without a password OpenSSL would ask for one on the terminal.
            context.load_cert_chain(client_cert, password="")
        except (OSError, ssl.SSLError) as error:
            raise RouteError(
                f"client_cert {client_cert} can't be used: {_why(error)}",
                hint="it must hold a certificate and its key in PEM, without a password",
            ) from None
    return context


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "no PEM in it").lower().replace("_", " ")
    return (error.strerror or type(error).__name__).lower()


class Transports:
    """What carries requests, one a kind of route, with TLS and without. Used by one event loop; close with `aclose`.

    Used without an httpx client, which would log URLs, keep cookies and stumble over a hostile Location.
    Feeds that may be fetched from private addresses have one apart, so that no open connection to such an
    address is used again for a feed that may not; so have those that trust or show other certificates.
    """

    def __init__(self, *, connections: int, resolvers: Executor) -> None:
        self._connections = connections
        self._resolvers = resolvers
        self._tls: dict[tuple[Path | None, Path | None], ssl.SSLContext] = {}
        self._made: dict[tuple[Route, bool], _Transport] = {}

    def on(self, route: Route, *, tls: bool) -> httpx.AsyncBaseTransport:
        """The transport of `route`, whose proxy is settled (see `Route.to`). Raises RouteError."""
        # To read the public authorities takes 27 ms: who asks by plain HTTP alone needs none of them.
        secured = tls or route.ca_file is not None or route.client_cert is not None
        if (made := self._made.get((route, secured))) is None:
            made = self._made[route, secured] = self._make(route, secured)
        return made

    async def aclose(self) -> None:
        for transport in self._made.values():
            await transport.aclose()

    def _context(self, ca_file: Path | None, client_cert: Path | None) -> ssl.SSLContext:
        key = (ca_file, client_cert)
        if key not in self._tls:
            self._tls[key] = tls_context(ca_file, client_cert)
        return self._tls[key]

    def _make(self, route: Route, secured: bool) -> _Transport:
        shared: dict[str, Any] = {
            "ssl_context": self._context(route.ca_file, route.client_cert) if secured else None,
            "max_connections": self._connections,
            "max_keepalive_connections": self._connections,
            "keepalive_expiry": 30.0,
            # The operator named the proxy, and proxies stand in one's own network.
            "network_backend": _Backend(allow_private=route.allow_private or route.proxied, resolvers=self._resolvers),
        }
        if not route.proxied:
            return _Transport(httpcore.AsyncConnectionPool(**shared))
        proxy = httpx.URL(route.proxy)
        if proxy.scheme not in ("http", "https"):
            raise RouteError(f"the proxy {route.proxy_shown} is of kind {proxy.scheme!r}; http and https proxies work")
        pool = httpcore.AsyncHTTPProxy(
            proxy_url=httpcore.URL(scheme=proxy.raw_scheme, host=proxy.raw_host, port=proxy.port, target=b"/"),
            proxy_auth=(proxy.username, proxy.password) if proxy.userinfo else None,
            proxy_ssl_context=self._context(route.ca_file, None) if proxy.scheme == "https" else None,
            **shared,
        )
        return _Proxied(pool, allow_private=route.allow_private)
