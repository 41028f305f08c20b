"""Fetch the feeds: all at once but few per host, streamed to disk while hashed, under limits.

A failure is an answer, not an exception: the other feeds go on and the caller keeps its
last good snapshot.
"""

from __future__ import annotations

import concurrent.futures
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec.structs import replace

from .. import __version__, interruption
from ..errors import RecordError
from .body import Body, Scratch
from .collect import Documents, is_misp_feed, is_taxii, is_transfer
from .local import copy_local, is_local
from .reasons import Failure, Strain, redact, secrets_of
from .route import DIRECT, Route
from .unpack import AUTO, Packing

# asyncio and httpx are imported where the first http(s) URL is met: together 130 ms, and a run over local
# files needs neither.
if TYPE_CHECKING:
    from .download import Answer, Downloader

_LOCAL_THREADS = 4

Outcome = Literal["fetched", "not-modified", "failed", "waiting"]


class Request(msgspec.Struct, frozen=True):
    """What to fetch for one feed, and what is known about it.

    `urls` are the parts of one snapshot; each of `mirrors` has all of it and is tried, in order, when the
    parts fail. `etag` and `last_modified` belong to the accepted snapshot and are sent to a feed of one URL
    only. `packing` says which file of an archive is meant; `max_size` counts bytes after unpacking. `file:` URLs
    are relative to `base`. Values of `headers`, and `secrets` that stand elsewhere in a URL, are never shown.
    Before `not_before` only mirrors are asked. `format` is how the body will be read: a manifest of MISP stands for
    its events. `before` gives the bytes of the accepted snapshot, for sources that can be asked for what changed;
    `tsig` names the key of a zone transfer.
    """

    feed: str
    urls: tuple[str, ...]
    mirrors: tuple[str, ...] = ()
    etag: str | None = None
    last_modified: str | None = None
    known_sha256: str | None = None
    known_size: int | None = None
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    max_size: int = 64_000_000
    packing: Packing = AUTO
    allow_private: bool = False
    route: Route = DIRECT
    base: Path = Path()
    not_before: datetime | None = None
    user_agent: str = f"blocklist/{__version__}"
    format: str = "auto"
    before: Callable[[], bytes | None] = lambda: None
    tsig: str | None = None

    def __repr__(self) -> str:
        return f"Request({self.feed!r})"  # the rest may hold secrets


class Fetched(msgspec.Struct, frozen=True):
    """How it went.

    `path` is a temporary file in `into`, the caller's to move or remove, present when `outcome` is
    "fetched". "not-modified" is a 304 or a body whose digest is `known_sha256`. `url` is the one that
    answered, fit to be shown; `moved` the same where redirects led there for good. Keep `etag` and `last_modified`
    once the snapshot is accepted. `retry_at` is to be kept whatever the outcome: the server wants no request before
    it. "waiting": nobody was asked, for that reason. `strain` (see `Failure`) and `host`, where the first URL failed,
    even if a mirror then delivered.
    """

    feed: str
    outcome: Outcome
    path: Path | None = None
    sha256: str | None = None
    size: int = 0
    etag: str | None = None
    last_modified: str | None = None
    url: str | None = None
    moved: str | None = None
    status: int | None = None
    seconds: float = 0.0
    error: str | None = None
    hint: str | None = None
    retry_at: datetime | None = None
    strain: Strain | None = None
    host: str | None = None


class Limits(msgspec.Struct, frozen=True):
    """Seconds and counts that hold for every feed.

    `total` is for one URL with its retry, without waiting for a slot; `idle` between two pieces of a body;
    `retry_after_max` the longest Retry-After that is waited out; `backoff` the pause before the one retry.
    """

    connect: float = 10.0
    idle: float = 20.0
    total: float = 300.0
    max_redirects: int = 5
    retry_after_max: float = 10.0
    backoff: float = 1.0
    per_host: int = 2
    at_once: int = 16


DEFAULT_LIMITS = Limits()
OnDone = Callable[[Fetched], None]


def fetch(
    requests: Sequence[Request],
    *,
    into: Path,
    limits: Limits = DEFAULT_LIMITS,
    on_done: OnDone | None = None,
    closed: Mapping[str, datetime] | None = None,
) -> list[Fetched]:
    """`fetch_all` for callers without an event loop; a run of `file:` URLs alone needs none at all."""
    if all(_all_local(request) for request in requests):
        return _fetch_local(requests, into=into, limits=limits, on_done=on_done)
    return interruption.run(fetch_all(requests, into=into, limits=limits, on_done=on_done, closed=closed))


async def fetch_all(
    requests: Sequence[Request],
    *,
    into: Path,
    limits: Limits = DEFAULT_LIMITS,
    on_done: OnDone | None = None,
    closed: Mapping[str, datetime] | None = None,
) -> list[Fetched]:
    """Fetch every request, in their order; `on_done` hears of each as it ends.

    `closed`: hosts (as in `Fetched.host`) that are not to be asked before a time.

    Raises RecordError when `into` can't be written. When it raises or is cancelled, no file is left.
    """
    import asyncio

    from . import connect
    from .download import Downloader

    # httpcore logs the headers of answers at DEBUG: Location may hold a key.
    logging.getLogger("httpcore").setLevel(logging.WARNING)

    scratch = Scratch(into)
    loop = asyncio.get_running_loop()
    threads = concurrent.futures.ThreadPoolExecutor(_LOCAL_THREADS, "fetch-local")
    resolvers = concurrent.futures.ThreadPoolExecutor(limits.at_once, "fetch-dns")
    transports = connect.Transports(connections=limits.at_once, resolvers=resolvers)
    downloader = Downloader(transports, limits, scratch, threads, closed or {})

    async def one(request: Request) -> Fetched:
        if _all_local(request):
            done = await loop.run_in_executor(threads, _local_feed, request, scratch, limits)
        else:
            done = await _feed(request, scratch, limits, downloader, threads)
        if on_done is not None:
            on_done(done)
        return done

    tasks = [asyncio.create_task(one(request)) for request in requests]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        scratch.stop.set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        threads.shutdown(wait=True, cancel_futures=True)
        scratch.remove_all()
        raise
    finally:
        threads.shutdown(wait=False)
        resolvers.shutdown(wait=False, cancel_futures=True)
        await transports.aclose()


def _fetch_local(requests: Sequence[Request], *, into: Path, limits: Limits, on_done: OnDone | None) -> list[Fetched]:
    scratch = Scratch(into)
    threads = concurrent.futures.ThreadPoolExecutor(_LOCAL_THREADS, "fetch-local")
    try:
        futures = [threads.submit(_local_feed, request, scratch, limits) for request in requests]
        for future in concurrent.futures.as_completed(futures):
            done = future.result()
            if on_done is not None:
                on_done(done)
        return [future.result() for future in futures]
    except BaseException:
        scratch.stop.set()
        threads.shutdown(wait=True, cancel_futures=True)
        scratch.remove_all()
        raise
    finally:
        threads.shutdown(wait=True)


def _all_local(request: Request) -> bool:
    return all(is_local(url) for url in (*request.urls, *request.mirrors))


def _places(request: Request) -> list[tuple[str, ...]]:
    """The parts, then each mirror, which has the whole."""
    return [request.urls, *((mirror,) for mirror in request.mirrors)]


def _too_early(request: Request) -> Failure | None:
    """Why the feed's own URL is not asked now, if it is not."""
    if request.not_before is None or datetime.now(UTC) >= request.not_before:
        return None
    text = f"not asked before {request.not_before:%Y-%m-%d %H:%M:%S} UTC"
    return Failure(text, retry_at=request.not_before, asked=False)


def _local_feed(request: Request, scratch: Scratch, limits: Limits) -> Fetched:
    """A feed of `file:` URLs alone; runs in a thread."""
    start = monotonic()
    failures: list[Failure] = []
    for urls in _places(request):
        body = Body(scratch, request.feed, limit=request.max_size)
        try:
            unchanged = False
            for url in urls:
                body.begin_part()
                unchanged = _copy(request, url, body, scratch, limits, alone=len(urls) == 1)
            url = redact(urls[0])
            if unchanged:
                return Fetched(
                    request.feed,
                    "not-modified",
                    sha256=request.known_sha256,
                    url=url,
                    seconds=monotonic() - start,
                )
            return _finish(Fetched(request.feed, "fetched", url=url), request, body, start)
        except Failure as failure:
            failures.append(failure)
            body.discard()
        except BaseException:
            body.discard()
            raise
    return _failed(request, failures, start)


def _copy(request: Request, url: str, body: Body, scratch: Scratch, limits: Limits, *, alone: bool) -> bool:
    return copy_local(
        url,
        base=request.base,
        feed=request.feed,
        body=body,
        deadline=monotonic() + limits.total,
        stop=scratch.stop,
        known_sha256=request.known_sha256 if alone else None,
        known_size=request.known_size,
        packing=request.packing,
    )


async def _feed(
    request: Request,
    scratch: Scratch,
    limits: Limits,
    downloader: Downloader,
    threads: concurrent.futures.Executor,
) -> Fetched:
    """A feed with at least one http(s) URL."""
    start = monotonic()
    failures: list[Failure] = []
    for place, urls in enumerate(_places(request)):
        if place == 0 and (early := _too_early(request)) is not None:
            failures.append(early)
            continue
        body = Body(scratch, request.feed, limit=request.max_size)
        try:
            # Another server's validators say nothing about a mirror's copy, so they stay with the first URL.
            own = place == 0 and len(urls) == 1
            done = await _parts(request, urls, body, scratch, limits, downloader, threads, validators=own)
            done = replace(done, retry_at=_latest(failures), **_strain(failures))
            if done.outcome == "not-modified":
                body.discard()
                return replace(done, seconds=monotonic() - start)
            return _finish(done, request, body, start)
        except Failure as failure:
            failures.append(failure)
            body.discard()
        except RecordError:
            body.discard()
            raise
        except Exception as error:
            # A mistake of ours that one server brings out must not cost the other feeds their update.
            logging.getLogger(__name__).debug("feed %s", request.feed, exc_info=True)
            body.discard()
            shown = redact(urls[0], secrets_of(urls, request.headers.values()) | frozenset(request.secrets))
            failures.append(Failure(f"{shown}: internal error ({type(error).__name__})", hint="please report this"))
        except BaseException:
            body.discard()
            raise
    return _failed(request, failures, start)


async def _parts(
    request: Request,
    urls: tuple[str, ...],
    body: Body,
    scratch: Scratch,
    limits: Limits,
    downloader: Downloader,
    threads: concurrent.futures.Executor,
    *,
    validators: bool,
) -> Fetched:
    import asyncio

    loop = asyncio.get_running_loop()
    done = Fetched(request.feed, "fetched")
    for url in urls:
        body.begin_part()
        if is_local(url):
            unchanged = await loop.run_in_executor(
                threads, partial(_copy, request, url, body, scratch, limits, alone=len(urls) == 1)
            )
            shown, status, etag, last_modified, moved = redact(url), None, None, None, None
        else:
            answer = await _ask(request, url, body, scratch, limits, downloader, threads, validators=validators)
            unchanged, shown, status = answer.unchanged, answer.url, answer.status
            etag, last_modified, moved = answer.etag, answer.last_modified, answer.moved
        done = replace(
            done,
            outcome="not-modified" if unchanged else "fetched",
            sha256=request.known_sha256 if unchanged else None,
            url=done.url or shown,
            moved=done.moved or moved,
            status=status,
            etag=etag if validators else None,
            last_modified=last_modified if validators else None,
        )
    return done


async def _ask(
    request: Request,
    url: str,
    body: Body,
    scratch: Scratch,
    limits: Limits,
    downloader: Downloader,
    threads: concurrent.futures.Executor,
    *,
    validators: bool,
) -> Answer:
    """What one URL gives: a document, or where the URL stands for many documents or records, all of them."""
    if is_transfer(url):
        return await _transfer(request, url, body, scratch, limits, downloader, threads, validators=validators)
    if is_taxii(url):
        from . import taxii

        documents = Documents(request, downloader, scratch, limits)
        return await taxii.collect(documents, url, body, validators=validators)
    if is_misp_feed(url, request.format):
        from . import mispfeed

        documents = Documents(request, downloader, scratch, limits)
        return await mispfeed.collect(documents, url, body, validators=validators)
    return await downloader.download(request, url, body, validators=validators)


async def _transfer(
    request: Request,
    url: str,
    body: Body,
    scratch: Scratch,
    limits: Limits,
    downloader: Downloader,
    threads: concurrent.futures.Executor,
    *,
    validators: bool,
) -> Answer:
    """A zone, in a thread: reading a message of records takes the processor, not the network."""
    import asyncio

    from .download import Answer
    from .transfer import Transfer, primary_of

    primary = primary_of(url)
    # The serial is that of one zone: after a change of the URL it says nothing.
    mark = f"{primary.zone} "
    etag = request.etag if validators and request.etag and request.etag.startswith(mark) else None
    held = etag.removeprefix(mark) if etag else ""
    async with downloader.turn(primary.host):
        transfer = Transfer(
            primary,
            request.feed,
            request.tsig,
            request.base,
            max_size=request.max_size,
            allow_private=request.allow_private,
            connect=limits.connect,
            idle=limits.idle,
            deadline=monotonic() + limits.total,
            stop=scratch.stop,
        )
        serial = int(held) if held.isdigit() else None
        loop = asyncio.get_running_loop()
        zone = await loop.run_in_executor(threads, transfer.fetch, serial, request.before)
    if zone.data is not None:
        body.write(zone.data)
    return Answer(200, primary.shown, f"{mark}{zone.serial}", None, unchanged=zone.data is None)


def _finish(done: Fetched, request: Request, body: Body, start: float) -> Fetched:
    if body.sha256 == request.known_sha256:
        # The same bytes under 200: validators may be new, the snapshot is not.
        size = body.size
        body.discard()
        return replace(
            done, outcome="not-modified", sha256=request.known_sha256, size=size, seconds=monotonic() - start
        )
    path = body.close()
    return replace(done, path=path, sha256=body.sha256, size=body.size, seconds=monotonic() - start)


def _latest(failures: Sequence[Failure]) -> datetime | None:
    return max((failure.retry_at for failure in failures if failure.retry_at is not None), default=None)


def _strain(failures: Sequence[Failure]) -> dict[str, Any]:
    """Whom to ask less often: what the feed's own URL said, not what a mirror did."""
    return {"strain": failures[0].strain, "host": failures[0].host} if failures else {}


def _failed(request: Request, failures: Sequence[Failure], start: float) -> Fetched:
    first = failures[0]
    return Fetched(
        request.feed,
        "failed" if any(failure.asked for failure in failures) else "waiting",
        **_strain(failures),
        status=first.status,
        seconds=monotonic() - start,
        error="; then mirror ".join(failure.message for failure in failures),
        hint=first.hint,
        retry_at=_latest(failures),
    )
