"""TAXII 2.1 collections (OASIS, 10 June 2021): the objects of one, page by page.

A client of our own, over the connections that every feed uses: taxii2-client opens a session of `requests`, which
would go past the checks of addresses, the limits of size and time, and the manners towards hosts.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec
from msgspec.structs import replace

from .body import Body
from .collect import Documents
from .download import Answer
from .formats.stix import canonical
from .reasons import Failure

_MEDIA_TYPE = "application/taxii+json;version=2.1"
_MOST_PAGES = 20_000
# A server gives fewer where it likes (§3.5); OASIS's own fails on later pages of a request without it.
_PAGE = "1000"
# The protocol does not tell of objects that were deleted, so now and then everything is asked for.
_WHOLE_EVERY = timedelta(days=7)


async def collect(documents: Documents, url: str, body: Body, *, validators: bool) -> Answer:
    """Put the objects of the collection at `url` (`taxii+https://…/collections/ID/`) into `body` as one STIX bundle.

    With `validators` only what was added since the current snapshot is asked for and joined to that, but for once a
    week. Raises Failure.
    """
    target = _objects_url(url)
    asked = datetime.now(UTC)
    since, whole = _state(documents.request.etag) if validators else (None, None)
    kept: list[dict[str, Any]] = []
    if since is not None and whole is not None and timedelta(0) <= asked - whole < _WHOLE_EVERY:
        held = documents.before()
        kept = _objects(documents.object_in(held, target), documents, target) if held else []
    if not kept:
        since, whole = None, asked
    pages: list[dict[str, Any]] = []
    added = since
    following: str | None = None
    seen: set[str] = set()
    while True:
        page_url = _with_query(target, {"added_after": since, "limit": _PAGE, "next": following})
        answer, data = await documents.get(page_url, accept=_MEDIA_TYPE)
        page = documents.object_in(data, page_url)
        objects = _objects(page, documents, page_url)
        pages += objects
        added = answer.added or added
        if page.get("more") is not True:
            break
        following = page.get("next")
        if not isinstance(following, str) or not following:
            raise Failure(f"{documents.shown(page_url)}: says that there is more, but not where")
        # A server may keep the cursor in the token or behind it, so that an equal token alone is no loop.
        mark = f"{following}\0{msgspec.json.encode(objects[-1]).decode() if objects else ''}"
        if mark in seen or not objects:
            raise Failure(f"{documents.shown(page_url)}: its pages go round in a loop")
        seen.add(mark)
        if len(seen) >= _MOST_PAGES:
            raise Failure(f"{documents.shown(page_url)}: more than {_MOST_PAGES:,} pages")
    answer = replace(answer, url=documents.shown(url), etag=_etag(added, whole), last_modified=None)
    if kept and not pages:
        return replace(answer, unchanged=True)
    named = urlsplit(target)
    place = f"//{(named.netloc).rpartition('@')[2]}{named.path}"
    bundle = f"bundle--{uuid.uuid5(uuid.NAMESPACE_URL, place)}"
    try:
        documents.write(body, canonical([*kept, *pages], bundle))
    except (msgspec.EncodeError, RecursionError) as error:
        raise Failure(f"{documents.shown(url)}: {error}") from None
    return answer


def _objects_url(url: str) -> str:
    parts = urlsplit(url[len("taxii+") :])
    path = parts.path.rstrip("/")
    return urlunsplit(parts._replace(path=path + ("/" if path.endswith("/objects") else "/objects/")))


def _with_query(url: str, fields: dict[str, str | None]) -> str:
    parts = urlsplit(url)
    query = [*parse_qsl(parts.query), *((key, value) for key, value in fields.items() if value)]
    return urlunsplit(parts._replace(query=urlencode(query)))


def _objects(page: dict[str, Any], documents: Documents, url: str) -> list[dict[str, Any]]:
    objects = page.get("objects", [])
    if not isinstance(objects, list) or not all(isinstance(item, dict) for item in objects):
        raise Failure(f"{documents.shown(url)}: 'objects' is no list of STIX objects")
    if not objects and "objects" not in page and not set(page) <= {"more", "next"}:
        # `{}` is what an empty collection answers (§3.7); an error or the collection's description has other keys.
        raise Failure(
            f"{documents.shown(url)}: not an envelope of TAXII 2.1",
            hint="the URL of a collection ends in /collections/ID/",
        )
    return objects


def _etag(added: str | None, whole: datetime | None) -> str | None:
    return f"{added} {whole.isoformat()}" if added and whole else None


def _state(etag: str | None) -> tuple[str | None, datetime | None]:
    """When the last object that we have was added, and when everything was asked for."""
    added, _, whole = (etag or "").partition(" ")
    try:
        return added or None, datetime.fromisoformat(whole)
    except ValueError:
        return None, None
