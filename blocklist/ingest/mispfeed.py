"""MISP feeds: `manifest.json` names the events, each a JSON document beside it; only those that changed are fetched."""

from __future__ import annotations

import asyncio
import re
from typing import Any
from urllib.parse import urljoin

import msgspec
from msgspec.structs import replace

from .body import Body
from .collect import Documents
from .download import Answer
from .formats.misp import canonical
from .reasons import Failure

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# The feeds that MISP ships with name up to a few thousand.
_MOST_EVENTS = 50_000


async def collect(documents: Documents, url: str, body: Body, *, validators: bool) -> Answer:
    """Put the events that the manifest at `url` names into `body`: a JSON list, in the order of their UUIDs.

    With `validators` the manifest is asked for only if it changed, and events of the current snapshot that have the
    timestamp of the manifest are not fetched again. An event that is named and not there fails the feed. Raises
    Failure.
    """
    request = documents.request
    answer, data = await documents.get(
        url,
        etag=request.etag if validators else None,
        last_modified=request.last_modified if validators else None,
    )
    if answer.unchanged:
        return answer
    wanted = _named(documents.object_in(data, url), documents, url)
    held = _held(documents.before()) if validators else {}
    texts: dict[str, bytes] = {}
    missing = []
    for uuid, timestamp in wanted.items():
        kept = held.get(uuid)
        if kept is not None and timestamp is not None and kept[0] == timestamp:
            texts[uuid] = kept[1]
        else:
            missing.append(uuid)
    queue = iter(missing)

    async def work() -> None:
        for uuid in queue:
            texts[uuid] = await _event(documents, url, uuid)

    try:
        # As many at once as one host may have: more would only wait for its slots.
        async with asyncio.TaskGroup() as group:
            for _ in range(documents.limits.per_host):
                group.create_task(work())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    documents.write(body, b"[\n" + b",\n".join(texts[uuid] for uuid in sorted(texts)) + b"\n]\n")
    return replace(answer, unchanged=False)


def _named(manifest: dict[str, Any], documents: Documents, url: str) -> dict[str, str | None]:
    """UUID and timestamp of every event in `manifest`."""
    if len(manifest) > _MOST_EVENTS:
        raise Failure(f"{documents.shown(url)}: names {len(manifest):,} events, more than {_MOST_EVENTS:,}")
    named = {}
    for uuid, about in manifest.items():
        # It becomes part of a URL.
        if not _UUID.fullmatch(uuid) or not isinstance(about, dict):
            raise Failure(f"{documents.shown(url)}: not the manifest of a MISP feed: {uuid[:40]!r} is no event")
        timestamp = about.get("timestamp")
        named[uuid.lower()] = str(timestamp) if isinstance(timestamp, str | int) else None
    return named


async def _event(documents: Documents, manifest: str, uuid: str) -> bytes:
    url = urljoin(manifest, f"{uuid}.json")
    try:
        _, data = await documents.get(url)
    except Failure as failure:
        if failure.status in (404, 410):
            hint = "the publisher is in the middle of an update, or the feed is broken; it is asked again next time"
            raise Failure(f"{failure.message}, though the manifest names that event", hint=hint, status=404) from None
        raise
    event = documents.object_in(data, url)
    inner = event.get("Event")
    if not isinstance(inner, dict) or str(inner.get("uuid", "")).lower() != uuid:
        raise Failure(f"{documents.shown(url)}: not the MISP event {uuid}")
    try:
        return canonical(event)
    except (msgspec.EncodeError, RecursionError) as error:
        raise Failure(f"{documents.shown(url)}: {error}") from None


class _Known(msgspec.Struct):
    uuid: str
    timestamp: str | int


class _Wrapped(msgspec.Struct):
    event: _Known = msgspec.field(name="Event")


def _held(data: bytes | None) -> dict[str, tuple[str, bytes]]:
    """Timestamp and text of every event in an earlier body."""
    held = {}
    try:
        for raw in msgspec.json.decode(data or b"[]", type=list[msgspec.Raw]):
            known = msgspec.json.decode(raw, type=_Wrapped).event
            held[known.uuid.lower()] = (str(known.timestamp), bytes(raw))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}  # of another form, so fetched anew
    return held
