"""A bundle out of the record: the answer, the cited lines, their downloads, the events that matter. The same bytes
for the same record, answer and time."""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from blocklist import __version__
from blocklist.bundle.page import page, template_digest
from blocklist.bundle.parts import (
    ANSWER,
    EVENTS,
    FORMAT,
    MANIFEST,
    PAGE,
    PROOF,
    Answered,
    AnsweredListing,
    Chain,
    Line,
    Link,
    Manifest,
    Part,
    Proof,
    Snapshot,
    Source,
    Told,
    written,
)
from blocklist.catalog import Feed
from blocklist.errors import RecordError
from blocklist.store import ledger, snapshots

# A larger download goes in only in part: a bundle must fit into a mail.
MAX_WHOLE = 8_000_000
_AROUND = 3  # lines before and after a cited one, where only a part goes in
_MAX_AROUND = 4_096  # bytes of a part with those
# With more events than this between the first that matters and the head, the others are left out.
MAX_LINKS = 20_000


@dataclass(frozen=True)
class Bundle:
    """A finished bundle, and the head of the log in it."""

    data: bytes
    head: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


def collect(
    db: sqlite3.Connection,
    state: Path,
    feeds: Mapping[str, Feed],
    answer: Mapping[str, Any],
    *,
    made: str,
    excerpt: bool = False,
) -> Bundle:
    """The bundle of `answer`, the object of `why --json`, from the same state of the record.

    `excerpt`: of every download only the cited part. Raises RecordError where the record can't be read; a download
    that is lost is told in the bundle instead.
    """
    said = msgspec.convert(json.loads(json.dumps(answer)), Answered)
    proof, bytes_of = _proof(db, state, feeds, said, excerpt)
    end = ledger.head(db)
    chain = _chain(db, said, proof, end)
    files = {
        ANSWER: written(answer),
        PROOF: written(proof),
        EVENTS: written(chain),
        **bytes_of,
        PAGE: page(said, proof, chain, version=__version__, made=made, head=str(end)),
    }
    parts = [Part(path, len(data), hashlib.sha256(data).hexdigest()) for path, data in sorted(files.items())]
    manifest = Manifest(FORMAT, __version__, template_digest(), made, said.query, str(end), parts)
    return Bundle(_packed({MANIFEST: written(manifest), **dict(sorted(files.items()))}), str(end))


def _packed(files: Mapping[str, bytes]) -> bytes:
    """A zip without the time, owner or order of this machine."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path, data in files.items():
            info = zipfile.ZipInfo(path)  # of 1980, the beginning of a zip's time
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system, info.external_attr = 3, 0o100644 << 16
            archive.writestr(info, data, compresslevel=9)
    return out.getvalue()


def _proof(
    db: sqlite3.Connection, state: Path, feeds: Mapping[str, Feed], said: Answered, excerpt: bool
) -> tuple[Proof, dict[str, bytes]]:
    cited: dict[tuple[str, str], list[AnsweredListing]] = {}
    for x in (*said.listings, *said.references):
        if x.snapshot is not None:
            cited.setdefault((x.feed, x.snapshot.removeprefix("sha256:")), []).append(x)
    proof = Proof([_source(feeds, name) for name in sorted({feed for feed, _ in cited})], [], [])
    files: dict[str, bytes] = {}
    for (feed, sha256), listings in sorted(cited.items()):
        row = db.execute(
            "SELECT s.id, s.bytes, s.url, s.fetched, s.etag, s.last_modified FROM snapshot s "
            "JOIN feed f ON f.id = s.feed WHERE f.name = ? AND s.sha256 = ? ORDER BY s.id LIMIT 1",
            (feed, sha256),
        ).fetchone()
        number, size, url, fetched, etag, last_modified = row
        try:
            data: bytes | None = snapshots.read(state, snapshots.chain(db, number))
        except RecordError:
            data = None
        if data is None or hashlib.sha256(data).hexdigest() != sha256:
            proof.snapshots.append(Snapshot(feed, sha256, size, url, fetched, etag, last_modified, "lost"))
            continue
        whole = not excerpt and len(data) <= MAX_WHOLE
        kept: Literal["whole", "part"] = "whole" if whole else "part"
        proof.snapshots.append(Snapshot(feed, sha256, size, url, fetched, etag, last_modified, kept))
        if whole:
            files[f"snapshots/{sha256}"] = data
        for x in listings:
            start, end = _place(data, x.line)
            first, last = (0, len(data)) if whole else _around(data, start, end)
            path = f"snapshots/{sha256}" if whole else f"snapshots/{sha256}.{first}.part"
            files.setdefault(path, data[first:last])
            digest = hashlib.sha256(data[start:end]).hexdigest()
            proof.lines.append(Line(feed, x.indicator, sha256, x.line, start, end - start, digest, path, start - first))
    return proof, files


def _source(feeds: Mapping[str, Feed], name: str) -> Source:
    feed = feeds.get(name)
    if feed is None:
        return Source(name, name, "", "", "", "")
    return Source(name, feed.title, feed.publisher, feed.homepage, feed.licence, feed.contact)


def _place(data: bytes, number: int) -> tuple[int, int]:
    """Where line `number` (from 1) begins and ends, without its end; an empty place behind the last line."""
    start = 0
    for _ in range(number - 1):
        start = data.find(b"\n", start) + 1
        if start == 0:
            return len(data), len(data)
    end = data.find(b"\n", start)
    end = len(data) if end < 0 else end
    return start, end - len(data[start:end]) + len(data[start:end].rstrip(b"\r"))


def _around(data: bytes, start: int, end: int) -> tuple[int, int]:
    """The place of the lines around one; where they are long, of that one alone."""
    first, last = start, end
    for _ in range(_AROUND):
        first = data.rfind(b"\n", 0, max(first - 1, 0)) + 1
        after = data.find(b"\n", min(last + 1, len(data)))
        last = len(data) if after < 0 else after
    return (first, last) if last - first <= _MAX_AROUND + end - start else (start, end)


# Events


def _chain(db: sqlite3.Connection, said: Answered, proof: Proof, end: ledger.Head) -> Chain:
    relevant = {event.id: told for event, told in _relevant(db, said, proof)}
    if not end.id:
        return Chain(True, [])
    first = min(relevant, default=end.id)
    complete = end.id - first < MAX_LINKS
    links = []
    for event in ledger.events(db, first=first):
        if (told := relevant.get(event.id)) is not None:
            links.append(Link(event.id, event.previous, event.digest, event=told))
        elif complete or event.id == end.id:
            links.append(Link(event.id, event.previous, event.digest, content=_content(event)))
    return Chain(complete, links)


def _content(event: ledger.Event) -> str:
    try:
        return ledger.content_digest(event.told())
    except ValueError:
        return ""  # damaged: the check will say so


def _relevant(db: sqlite3.Connection, said: Answered, proof: Proof) -> Iterator[tuple[ledger.Event, Told]]:
    """Events about the things, rules, releases, feeds and downloads in the answer."""
    names = {said.query, *(x.indicator for x in said.listings), *(h.indicator for h in said.holds)}
    names |= {r.what for r in said.rules} | {e.by for e in said.exports if e.by is not None}
    rules, releases = {r.id for r in said.rules}, {e.release for e in said.exports if e.release is not None}
    feeds, digests = {s.id for s in proof.sources}, {(s.feed, s.sha256) for s in proof.snapshots}
    # Most events are about something else; a look at their text is much quicker than to read it.
    needles = [json.dumps(x) for x in (*names, *feeds)]
    needles += [f'"rule": {n}' for n in rules] + [f'"release": {n}' for n in releases]
    for event in ledger.events(db):
        if not any(needle in event.detail for needle in needles):
            continue
        try:
            told = msgspec.convert(event.told(), Told)
        except (ValueError, msgspec.ValidationError):
            continue  # `events verify` says so
        detail = told.detail
        taken, configured = detail.get("snapshots"), detail.get("attributes")
        if (
            detail.get("name") in names
            or detail.get("rule") in rules
            or detail.get("release") in releases
            or (isinstance(taken, dict) and any(taken.get(feed) == digest for feed, digest in digests))
            or (isinstance(configured, dict) and feeds & configured.keys())
            or (detail.get("feed") in feeds and (told.what == "feed disabled" or ("sha256" in detail)))
        ):
            yield event, told


__all__ = ["MAX_LINKS", "MAX_WHOLE", "Bundle", "collect"]
