"""What a bundle holds, as types: what is written, and what a stranger's file must decode as. No Polars, no record.

manifest.json  which files, how long, their SHA-256; the head of the log
answer.json    what `why --json` said
proof.json     every cited line, where it stands in which download
events.json    the part of the chain from the first event that matters to the head; of others only digests
snapshots/     the downloads, whole, or only the cited part
index.html     the same for people
"""

from __future__ import annotations

import json
from typing import Any, Literal

import msgspec

FORMAT = "blocklist-evidence/1"
MANIFEST, ANSWER, PROOF, EVENTS, PAGE = "manifest.json", "answer.json", "proof.json", "events.json", "index.html"


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of the bundle."""

    path: str
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The list of all other files; `head` of the log as `ID:DIGEST`; `template`: SHA-256 of that of the page."""

    format: str
    version: str
    template: str
    made: str
    query: str
    head: str
    files: list[Part]


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A feed as its descriptor has it; empty where that says nothing."""

    id: str
    title: str
    publisher: str
    homepage: str
    licence: str
    contact: str


class Snapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A cited download: `kept` whole or in part in the bundle, or not to be had any more (`lost`)."""

    feed: str
    sha256: str
    bytes: int
    url: str
    fetched: str
    etag: str | None
    last_modified: str | None
    kept: Literal["whole", "part", "lost"]


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A cited line, without its end: `offset` in the download, `at` in `file` of the bundle, `length`, all in bytes."""

    feed: str
    indicator: str
    snapshot: str
    line: int
    offset: int
    length: int
    sha256: str
    file: str
    at: int


class Proof(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sources: list[Source]
    snapshots: list[Snapshot]
    lines: list[Line]


class Told(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an event says."""

    at: str
    detail: dict[str, Any]
    run: int | None
    what: str
    who: str


class Link(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An event in the chain: what it says (`event`), or only the digest of that (`content`)."""

    id: int
    previous: str
    digest: str
    event: Told | None = None
    content: str | None = None


class Chain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Links in their order up to the head. `complete`: none is left out between the first and the last."""

    complete: bool
    links: list[Link]


class AnsweredExport(msgspec.Struct, frozen=True):
    """Of the answer, what the page and the check use; a later version may say more."""

    name: str
    format: str
    blocked: bool
    because: str
    by: str | None = None
    release: int | None = None
    since: str | None = None


class AnsweredListing(msgspec.Struct, frozen=True):
    indicator: str
    scope: str
    feed: str
    category: str
    confidence: int
    since: str
    line: int
    until: str | None = None
    snapshot: str | None = None
    url: str | None = None
    text: str | None = None
    legal_basis: str | None = None
    row: dict[str, Any] = {}


class AnsweredHold(msgspec.Struct, frozen=True):
    indicator: str
    guard: str
    detail: str
    since: str
    released: str | None = None


class AnsweredRule(msgspec.Struct, frozen=True):
    id: int
    action: str
    what: str
    scope: str
    reason: str
    author: str
    created: str
    ticket: str | None = None
    until: str | None = None


class AnsweredVerdict(msgspec.Struct, frozen=True):
    name: str
    status: str
    since: str
    checked: str
    dead: bool


class Answered(msgspec.Struct, frozen=True):
    query: str
    kind: str
    at: str
    blocked: bool
    confidence: int
    exports: list[AnsweredExport]
    listings: list[AnsweredListing]
    references: list[AnsweredListing]
    holds: list[AnsweredHold]
    rules: list[AnsweredRule]
    verdict: AnsweredVerdict | None = None


def written(value: object) -> bytes:
    """JSON for people and programs: ASCII, keys sorted, indented; the same bytes for the same value."""
    plain = msgspec.to_builtins(value)
    return (json.dumps(plain, sort_keys=True, indent=1, ensure_ascii=True) + "\n").encode("ascii")
