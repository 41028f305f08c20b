"""Feeds of many documents: which URLs name one, and the documents of one feed, fetched under its limits.

Such a feed becomes one body whose bytes depend on its content alone, so that what did not change is "unchanged" and
every listing leads to a line of kept evidence.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import replace

from .body import Body, Scratch
from .decompress import TooLarge
from .reasons import Failure, redact, secrets_of, too_large

if TYPE_CHECKING:
    from .download import Answer, Downloader
    from .fetch import Limits, Request

TAXII = ("taxii+https://", "taxii+http://")
TRANSFER = "axfr://"
# All documents of a feed together may take as many times the `total` of one.
_TIMES_TOTAL = 4


def is_misp_feed(url: str, format_name: str) -> bool:
    """Is `url` the table of contents of a MISP feed?"""
    return format_name == "misp" and urlsplit(url).path.endswith("/manifest.json")


def is_taxii(url: str) -> bool:
    return url.lower().startswith(TAXII)


def is_transfer(url: str) -> bool:
    return url.lower().startswith(TRANSFER)


class Documents(msgspec.Struct):
    """Fetches documents for one feed: their sizes count together, and so does their time."""

    request: Request
    downloader: Downloader
    scratch: Scratch
    limits: Limits
    left: int = 0
    deadline: float = 0.0

    def __post_init__(self) -> None:
        self.left = self.request.max_size
        self.deadline = monotonic() + _TIMES_TOTAL * self.limits.total

    def before(self) -> bytes | None:
        """The bytes of the current snapshot, which may spare fetching again what they hold."""
        return self.request.before()

    def shown(self, url: str) -> str:
        """`url` as people may see it."""
        request = self.request
        secrets = secrets_of((*request.urls, *request.mirrors), request.headers.values()) | frozenset(request.secrets)
        return redact(url, secrets)

    async def get(
        self, url: str, *, accept: str | None = None, etag: str | None = None, last_modified: str | None = None
    ) -> tuple[Answer, bytes]:
        """One document; with validators the answer may be `unchanged`, and empty. Raises Failure."""
        if monotonic() > self.deadline:
            raise Failure(
                f"{self.shown(url)}: the feed's documents took longer than {_TIMES_TOTAL * self.limits.total:g} s",
                hint="raise [fetch] total if the publisher is only slow",
            )
        headers = {"Accept": accept} if accept else {}
        request = replace(
            self.request,
            urls=(url,),
            mirrors=(),
            etag=etag,
            last_modified=last_modified,
            headers={**headers, **self.request.headers},
        )
        body = Body(self.scratch, self.request.feed, limit=self.left)
        try:
            answer = await self.downloader.download(request, url, body, validators=bool(etag or last_modified))
            self.left -= body.size
            data = b"" if answer.unchanged else body.close().read_bytes()
        finally:
            body.discard()
        return answer, data

    def object_in(self, data: bytes, url: str) -> dict[str, Any]:
        """A document that must be a JSON object. Raises Failure."""
        try:
            found = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Failure(f"{self.shown(url)}: not JSON: {error}") from None
        if not isinstance(found, dict):
            raise Failure(f"{self.shown(url)}: a JSON object was expected")
        return found

    def write(self, body: Body, data: bytes) -> None:
        """The whole of the feed. Raises Failure when it has grown over the limit by being put together."""
        try:
            body.write(data)
        except TooLarge:
            url = self.request.urls[0]
            raise too_large(self.shown(url), self.request.feed, self.request.max_size) from None
