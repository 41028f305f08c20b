"""One http(s) URL to a body: polite retries, redirects by hand, bounded decoding, reasons in words."""

from __future__ import annotations

import asyncio
import base64
import email.utils
import http
import random
import re
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

import httpcore
import httpx
import msgspec
from msgspec.structs import replace

from .addresses import AddressRefused
from .arrival import Arrival
from .body import Body, Scratch
from .connect import NameNotFound, RouteError, Transports
from .decompress import CODINGS, DecodeError, Decompressor, TooLarge
from .reasons import Failure, Strain, mask, redact, secrets_of, size_in_words, too_large
from .route import Route

if TYPE_CHECKING:
    from .fetch import Limits, Request

# A server can't silence a feed for longer than this by a Retry-After in the year 9999.
_LONGEST_WAIT = 7 * 86_400.0
_MOST_WAITS = 3
# So many connections in a row that nobody accepted, and the host's other feeds need not wait for theirs.
_SILENCE = 3
# What a 429 without a Retry-After asks of the other feeds of its host in this run.
_REST = 300.0

Origin = tuple[str, str, int | None]


class Answer(msgspec.Struct, frozen=True):
    """What the server said; with `unchanged` (304) nothing was added to the body.

    `added`: when the last object of a page was added (TAXII 2.1 §3.4, X-TAXII-Date-Added-Last). `moved`: where the URL
    has gone for good, if every redirect on the way said so (301, 308: RFC 9110 §15.4).
    """

    status: int
    url: str
    etag: str | None
    last_modified: str | None
    unchanged: bool
    added: str | None = None
    moved: str | None = None


class Redirect(NamedTuple):
    """Where an answer sends us, and whether for good."""

    location: str
    for_good: bool


class Host:
    """What is known about a host in this run: its free slots, and when it wants to be asked again.

    `closed`: not to be asked before this time, for the reason `why`.
    """

    def __init__(self, name: str, slots: int, closed: datetime | None) -> None:
        self.name = name
        self.slots = asyncio.Semaphore(slots)
        self.resume = 0.0
        self.silent = 0
        self.closed = closed
        self.why = "asked to wait"

    def close(self, until: datetime, why: str) -> None:
        if self.closed is None or until > self.closed:
            self.closed, self.why = until, why

    def refuse(self, where: str) -> None:
        """Raises Failure while the host is closed."""
        if self.closed is not None and datetime.now(UTC) < self.closed:
            raise Failure(
                f"{where}: not asked, since {self.name} {self.why}",
                hint=f"it is asked again from {self.closed:%Y-%m-%d %H:%M:%S} UTC on, or now with --force",
                retry_at=self.closed,
                asked=False,
            )


class Budget:
    """The time left for one URL, its retries included; waiting for a slot does not count."""

    def __init__(self, seconds: float) -> None:
        self.whole = seconds
        self.left = seconds

    @contextmanager
    def running(self) -> Iterator[None]:
        start = monotonic()
        try:
            yield
        finally:
            self.left -= monotonic() - start


class Downloader:
    """Fetches URLs for many feeds at once, with `limits` on each host and on all of them together."""

    def __init__(
        self,
        transports: Transports,
        limits: Limits,
        scratch: Scratch,
        threads: Executor,
        closed: Mapping[str, datetime],
    ):
        self._transports = transports
        self._limits = limits
        self._scratch = scratch
        self._threads = threads
        self._closed = closed
        self._hosts: dict[str, Host] = {}
        self._slots = asyncio.Semaphore(limits.at_once)

    @asynccontextmanager
    async def turn(self, host: str) -> AsyncIterator[None]:
        """A slot to ask `host` by another protocol than HTTP."""
        async with self._known(host).slots, self._slots:
            yield

    async def download(self, request: Request, url: str, body: Body, *, validators: bool) -> Answer:
        """Add what `url` gives to `body`; `validators` says whether those of the request belong to it.

        Raises Failure, and then the body is as it was.
        """
        budget = Budget(self._limits.total)
        tries = waits = 0
        waited = 0.0
        before: Failure | None = None
        while True:
            mark = body.mark()
            asked: list[Host] = []
            try:
                return await self._try(request, url, body, budget, asked, validators=validators)
            except Failure as failure:
                body.rewind(mark)
                failure.host = asked[-1].name if asked else None
                if before is not None and not failure.asked:
                    raise before from None  # the host was closed meanwhile; what it said counts
                before = failure
                if failure.wait is not None:
                    waits += 1
                    waited += failure.wait
                    if waited > self._limits.retry_after_max or waits > _MOST_WAITS:
                        raise
                    continue  # the host's `resume` makes this and its other requests wait
                if not failure.again or tries or budget.left <= 0:
                    raise
                tries += 1
                # Jitter, so that the feeds of one host do not come back in step.
                await asyncio.sleep(self._limits.backoff * (0.5 + random.random()))  # noqa: S311

    async def _try(
        self, request: Request, url: str, body: Body, budget: Budget, asked: list[Host], *, validators: bool
    ) -> Answer:
        """Follow redirects from `url` to an answer; `asked` gets the hosts on the way."""
        secrets = secrets_of((*request.urls, *request.mirrors), request.headers.values()) | frozenset(request.secrets)
        current, auth = _parse(url, secrets)
        first = current
        seen: set[str] = set()
        for_good = True
        for _ in range(self._limits.max_redirects + 1):
            shown = redact(str(current), secrets)
            if str(current) in seen:
                raise Failure(f"{redact(url, secrets)}: redirects in a loop, back to {shown}")
            where = f"{redact(url, secrets)} (redirected to {shown})" if seen else shown
            seen.add(str(current))
            headers = self._headers(request, current, where, validators=validators)
            if auth and _origin(current) == _origin(first):
                headers.setdefault("Authorization", auth)
            route = self._route(request, current)
            host = self._host(current)
            asked.append(host)
            arrival = Arrival(self._scratch, request.feed, body, request.packing, where)
            try:
                outcome = await self._hop(request, current, headers, route, arrival, budget, where, host)
                if arrival.packed:
                    # A zip is read from its end, and what takes the processor must hold up nobody's connection.
                    await asyncio.get_running_loop().run_in_executor(
                        self._threads, arrival.unpack, self._limits.total, self._scratch.stop
                    )
            except TooLarge:
                raise too_large(where, request.feed, request.max_size) from None
            finally:
                arrival.discard()
            if isinstance(outcome, Answer):
                return replace(outcome, url=shown, moved=shown if len(seen) > 1 and for_good else None)
            for_good = for_good and outcome.for_good
            current = _next_hop(current, outcome.location, where, secrets)
        raise Failure(f"{redact(url, secrets)}: more than {self._limits.max_redirects} redirects")

    async def _hop(
        self,
        request: Request,
        url: httpx.URL,
        headers: Mapping[str, str],
        route: Route,
        arrival: Arrival,
        budget: Budget,
        where: str,
        host: Host,
    ) -> Answer | Redirect:
        """One request when its turn comes, with what goes wrong in words."""
        async with host.slots, self._slots:
            host.refuse(where)
            await asyncio.sleep(max(0.0, host.resume - monotonic()))
            # Through a proxy it is the proxy that does not answer.
            peer = f"the proxy {route.proxy_shown}" if route.proxied else url.raw_host.decode("ascii")
            try:
                with budget.running():
                    async with asyncio.timeout(max(budget.left, 0.001)):
                        outcome = await self._ask(request, url, headers, route, arrival, where, host)
                host.silent = 0
                return outcome
            except TimeoutError:
                came = size_in_words(arrival.came)
                raise Failure(
                    f"{where}: not finished after {budget.whole:g} s ({came} had come)", strain="feed"
                ) from None
            except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
                if isinstance(error, httpcore.ConnectTimeout) and not route.proxied:
                    host.silent += 1
                    if host.silent >= _SILENCE:
                        host.close(datetime.now(UTC) + timedelta(seconds=_REST), "did not answer before")
                failure = self._in_words(error, peer, url.host, where, arrival.came)
                if route.proxied and failure.strain == "host":
                    failure.strain = None
                raise failure from None
            except httpcore.ProxyError as error:
                raise _proxy_refusal(error, peer, where) from None
            except RouteError as error:
                raise Failure(f"{where}: {error}", hint=error.hint) from None
            except NameNotFound as error:
                raise _name_not_found(error, where) from None
            except AddressRefused as error:
                hint = f"if this is your own network, set allow_private = true for feed {request.feed}"
                raise Failure(
                    f"{where}: refused to connect: {error}", hint=None if route.allow_private else hint
                ) from None
            except DecodeError as error:
                raise Failure(f"{where}: {error}", again=True) from None

    def _host(self, url: httpx.URL) -> Host:
        """By name for its free slots; a port that is not the usual one is another server."""
        return self._known(f"{url.host}:{url.port}" if url.port else url.host)

    def _known(self, name: str) -> Host:
        if name not in self._hosts:
            self._hosts[name] = Host(name, self._limits.per_host, self._closed.get(name))
        return self._hosts[name]

    def _route(self, request: Request, url: httpx.URL) -> Route:
        route = (
            request.route
            if request.route.allow_private == request.allow_private
            else replace(request.route, allow_private=request.allow_private)
        )
        if not _is_own(request, url):
            route = route.without_certificate()
        return route.to(*_origin(url))

    def _headers(self, request: Request, url: httpx.URL, where: str, *, validators: bool) -> dict[str, str]:
        headers = {"Accept": "*/*", "Accept-Encoding": ", ".join(CODINGS), "User-Agent": request.user_agent}
        if validators:
            if request.etag:
                headers["If-None-Match"] = request.etag
            if request.last_modified:
                headers["If-Modified-Since"] = request.last_modified
        # A key goes to the host it was made for, never to a mirror or to where that host redirects.
        if _is_own(request, url):
            headers |= request.headers
        for name, value in headers.items():
            if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or not re.fullmatch(
                r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?", value
            ):
                raise Failure(
                    f"{where}: header {name!r} holds a character that HTTP does not allow; nothing was sent",
                    hint="is there a line break at the end of the key?",
                )
        return headers

    async def _ask(
        self,
        request: Request,
        url: httpx.URL,
        headers: Mapping[str, str],
        route: Route,
        arrival: Arrival,
        where: str,
        host: Host,
    ) -> Answer | Redirect:
        """One request: an answer, or where it redirects to."""
        limits = self._limits
        ask = httpx.Request(
            "GET",
            url,
            headers=dict(headers),
            extensions={
                "timeout": {
                    "connect": limits.connect,
                    "read": limits.idle,
                    "write": limits.idle,
                    "pool": None,
                }
            },
        )
        response = await self._transports.on(route, tls=url.scheme == "https").handle_async_request(ask)
        try:
            status = response.status_code
            if status in (301, 302, 303, 307, 308):
                return Redirect(str(response.headers.get("location", "")), status in (301, 308))
            if status == 304 and ("If-None-Match" in headers or "If-Modified-Since" in headers):
                return Answer(status, where, request.etag, request.last_modified, unchanged=True)
            if status != 200:
                raise self._refusal(response, where, host)
            await self._receive(response, arrival, where)
            hidden = secrets_of(request.urls, request.headers.values()) | frozenset(request.secrets)
            return Answer(
                status,
                where,
                _validator(response.headers.get("etag"), hidden),
                _validator(response.headers.get("last-modified"), hidden),
                unchanged=False,
                added=_validator(response.headers.get("x-taxii-date-added-last"), hidden),
            )
        finally:
            await response.aclose()

    async def _receive(self, response: httpx.Response, arrival: Arrival, where: str) -> None:
        coding = response.headers.get("content-encoding", "").strip().lower() or "identity"
        limit = arrival.left
        try:
            decoder = Decompressor(coding, limit=limit)
        except ValueError:
            shown = re.sub(r"[^a-z0-9, -]", "?", coding[:40])
            raise Failure(f"{where}: sent in a coding that was not asked for ({shown})") from None
        length = response.headers.get("content-length", "")
        expected = int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None
        if coding == "identity" and expected is not None and expected > limit:
            raise TooLarge
        came = 0
        try:
            async for data in response.aiter_raw():
                came += len(data)
                if came > limit + 65_536:  # a stream may also be long without giving anything
                    raise TooLarge
                for chunk in decoder.feed(data):
                    arrival.write(chunk)
        except httpcore.RemoteProtocolError as error:
            if "complete message body" not in str(error) and "incomplete chunked" not in str(error):
                raise
            of = f" of {expected:,}" if expected is not None else ""
            raise Failure(f"{where}: the body ended early, after {came:,}{of} bytes", again=True) from None
        decoder.finish()
        arrival.settle()

    def _refusal(self, response: httpx.Response, where: str, host: Host) -> Failure:
        status = response.status_code
        try:
            words = f"{status} {http.HTTPStatus(status).phrase}"
        except ValueError:
            words = str(status)
        message = f"{where}: the server answered {words}"
        wait = _retry_after(response.headers.get("retry-after", "")) if status in (429, 503) else None
        # RFC 6585 §4, RFC 9110 §15.6.4: too many requests from us, or a server that is busy; both mean all of it.
        if wait is not None:
            at = datetime.now(UTC) + timedelta(seconds=wait)
            if wait <= self._limits.retry_after_max:
                host.resume = max(host.resume, monotonic() + wait)
            else:
                host.close(at, f"answered {words} to another feed and asks to wait")
            return Failure(
                f"{message} and asks to wait {wait:,.0f} s",
                hint=f"it will not be asked again before {at:%Y-%m-%d %H:%M:%S} UTC",
                status=status,
                wait=wait,
                retry_at=at,
                strain="host",
            )
        if status == 429:
            host.close(datetime.now(UTC) + timedelta(seconds=_REST), f"answered {words} to another feed")
        hint = {
            401: "check the feed's key (its header or its file)",
            403: "check the feed's key, and whether the publisher still allows automated downloads",
            407: "name the secret user:password of the proxy with proxy_auth in [fetch]",
            404: "the publisher may have moved the list: see the feed's homepage",
            410: "the publisher has withdrawn the list: see the feed's homepage",
            429: "the server is asked too often: raise the feed's min_interval",
        }.get(status)
        broken = 500 <= status <= 599
        strain: Strain = "host" if status == 429 else "feed" if broken else "refused"
        return Failure(message, hint=hint, status=status, again=broken, strain=strain)

    def _in_words(self, error: Exception, host: str, server: str, where: str, came: int) -> Failure:
        """`host` is whom we connect to: the `server`, or the proxy before it."""
        got = f" ({size_in_words(came)} had come)" if came else ""
        if isinstance(error, httpcore.ConnectTimeout):
            return Failure(
                f"{where}: no connection to {host} within {self._limits.connect:g} s", again=True, strain="host"
            )
        if isinstance(error, httpcore.TimeoutException):
            return Failure(
                f"{where}: stalled: nothing came for {self._limits.idle:g} s{got}", again=True, strain="feed"
            )
        if isinstance(error, httpcore.LocalProtocolError):
            return Failure(f"{where}: the request can't be sent: HTTP does not allow it")
        if isinstance(error, httpcore.RemoteProtocolError):
            if "without sending a response" in str(error):
                return Failure(f"{where}: the connection was closed without an answer", again=True)
            return Failure(f"{where}: the answer is not valid HTTP{got}")
        cause = _root(error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            # OpenSSL's own words, which may quote names out of the certificate.
            words = re.sub(r"[^\x20-\x7e]", "?", cause.verify_message or "not valid")[:200].rstrip(".")
            return Failure(
                f"{where}: the TLS certificate of {server} is not trusted: {words}",
                hint="for a private certificate authority set ca_file; is this machine's clock right?",
            )
        if isinstance(cause, ssl.SSLError):
            reason = re.sub(r"[^a-z0-9 ]", "?", (cause.reason or "handshake failed").lower().replace("_", " "))
            return Failure(f"{where}: TLS with {server} failed: {reason}", again=True)
        if isinstance(cause, ConnectionRefusedError):
            return Failure(f"{where}: {host} refused the connection", hint="nothing listens on that port", again=True)
        if isinstance(cause, ConnectionResetError | BrokenPipeError):
            return Failure(f"{where}: the connection was reset{got}", again=True)
        if isinstance(cause, OSError) and cause.errno and cause.strerror:
            return Failure(f"{where}: {host} can't be reached: {cause.strerror.lower()}{got}", again=True)
        return Failure(f"{where}: the connection to {host} broke{got}", again=True)


def _parse(url: str, secrets: frozenset[str]) -> tuple[httpx.URL, str | None]:
    """The URL without its user, and the Authorization header that the user stood for."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError, TypeError):
        raise Failure(f"{redact(url, secrets)}: not a valid URL") from None
    if parsed.scheme not in ("http", "https"):
        raise Failure(
            f"{redact(url, secrets)}: {parsed.scheme or 'no scheme'!r} can't be fetched",
            hint="feeds come from https:, http:, file:, taxii+https: and axfr: URLs",
        )
    if not parsed.host:
        raise Failure(f"{redact(url, secrets)}: names no host")
    auth = None
    if parsed.userinfo:
        userinfo = unquote(parsed.userinfo.decode("ascii"))
        auth = "Basic " + base64.b64encode(userinfo.encode()).decode("ascii")
    return _bare(parsed), auth


def _is_own(request: Request, url: httpx.URL) -> bool:
    """Is this a host of the feed's own URLs, or plain http of theirs become https?"""
    own = {_origin(httpx.URL(own)) for own in request.urls if not own.lower().startswith("file:")}
    scheme, host, port = _origin(url)
    return (scheme, host, port) in own or ((scheme, port) == ("https", 443) and ("http", host, 80) in own)


def _proxy_refusal(error: httpcore.ProxyError, proxy: str, where: str) -> Failure:
    """The proxy's answer to CONNECT; httpcore gives status and phrase as one text."""
    found = re.match(r"[0-9]{3}", str(error))
    status = int(found[0]) if found else None
    try:
        words = f"{status} {http.HTTPStatus(status).phrase}" if status else "something that is not HTTP"
    except ValueError:
        words = str(status)
    hint = "name the secret user:password of the proxy with proxy_auth in [fetch]" if status == 407 else None
    return Failure(f"{where}: {proxy} answered {words}", hint=hint, again=bool(status and status >= 500))


def _bare(url: httpx.URL) -> httpx.URL:
    return url.copy_with(username=None, password=None, fragment=None)


def _origin(url: httpx.URL) -> Origin:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)


def _next_hop(current: httpx.URL, location: str, where: str, secrets: frozenset[str]) -> httpx.URL:
    """Where a redirect leads, if it may. Addresses are checked when connecting."""
    if not location:
        raise Failure(f"{where}: redirects to nowhere (no Location)")
    try:
        target = current.join(location)
        bare = _bare(target)
    except (httpx.InvalidURL, ValueError, TypeError):
        raise Failure(f"{where}: redirects to something that is not a URL") from None
    shown = redact(str(bare), secrets)
    if target.scheme not in ("http", "https"):
        raise Failure(f"{where}: redirects to {shown}; only http and https are followed")
    if not target.host:
        raise Failure(f"{where}: redirects to a URL without a host")
    if current.scheme == "https" and target.scheme == "http":
        raise Failure(f"{where}: redirects from https to plain http ({shown}), refused")
    return bare


def _retry_after(value: str) -> float | None:
    """Seconds to wait by a Retry-After (RFC 9110 §10.2.3: seconds or a date), or None if it says nothing."""
    value = value.strip()
    if re.fullmatch(r"[0-9]{1,12}", value):
        seconds = float(value)
    else:
        try:
            at = email.utils.parsedate_to_datetime(value)
        except (ValueError, TypeError, OverflowError):
            return None
        if at.tzinfo is None:
            at = at.replace(tzinfo=UTC)
        seconds = (at - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), _LONGEST_WAIT)


def _validator(value: str | None, secrets: frozenset[str]) -> str | None:
    """A validator that can be sent back and kept: short, printable ASCII, no key in it."""
    if (
        value is None
        or mask(value, secrets) != value
        or not re.fullmatch(r"[\x21-\x7e](?:[\x20-\x7e]{0,510}[\x21-\x7e])?", value)
    ):
        return None
    return value


def _name_not_found(error: NameNotFound, where: str) -> Failure:
    if error.temporary:
        return Failure(f"{where}: the name {error} could not be looked up: no answer from the resolver", again=True)
    return Failure(f"{where}: the name {error} does not exist", hint="check the URL, and the resolver of this machine")


def _root(error: BaseException) -> BaseException | None:
    """The operating system's or OpenSSL's own error below httpcore's and anyio's."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    found: BaseException | None = None
    while pending:
        current = pending.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, ssl.SSLError):
            return current
        if isinstance(current, OSError) and current.errno:
            found = found or current
        if isinstance(current, BaseExceptionGroup):
            pending.extend(current.exceptions)
        pending.extend((current.__context__, current.__cause__))
    return found
