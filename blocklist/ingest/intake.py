"""One feed's new bytes, from the temporary file to what will be recorded: parse, gate, difference, files on disk.

Runs in a thread a feed: Polars and zstd release the interpreter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from blocklist.catalog import Feed
from blocklist.errors import FeedError, FeedGated
from blocklist.hunks import hunks
from blocklist.ingest import gate, linger
from blocklist.ingest.change import difference, parse_change
from blocklist.ingest.gate import Known
from blocklist.ingest.header import Header, read_header
from blocklist.ingest.normalize import NONE
from blocklist.ingest.parse import PARSER_VERSION, Parsed, parse
from blocklist.select import lifetime
from blocklist.select.lifetime import lasts
from blocklist.shortage import shortage_of
from blocklist.store import columns, snapshots
from blocklist.store.columns import Columns
from blocklist.store.snapshots import Stored

_NO_NAMES = pl.Series("name", [], dtype=pl.String)


class Intake(msgspec.Struct):
    """What one feed brings. `added` and `removed` are indicators frames; a changed listing is in both.

    `frame`: all that counts from now on; `entries` of it are listed by the new snapshot, others linger. `gate`: why it
    waits for a person, else None. `times`, `dropped`, `back`, `over`: as in `blocklist.ingest.linger`, where listings
    may end. `next_end`: seconds since 1970, when the next one does.
    """

    feed: Feed
    snapshot: int
    sha256: str
    size: int
    parsed: Parsed
    frame: pl.DataFrame
    added: pl.DataFrame
    removed: pl.DataFrame
    stored: Stored
    gate: str | None = None
    hint: str | None = None
    changed: int = 0
    account: dict[str, object] = msgspec.field(default_factory=dict)
    entries: int = 0
    times: pl.DataFrame | None = None
    dropped: pl.Series = msgspec.field(default_factory=lambda: _NO_NAMES)
    back: pl.Series = msgspec.field(default_factory=lambda: _NO_NAMES)
    over: pl.DataFrame = msgspec.field(default_factory=lambda: NONE)
    next_end: int | None = None


def parse_key(feed: Feed, sha256: str) -> str:
    """What decides how bytes are read: their digest, the parser's version, the format and scope of the feed."""
    spec = msgspec.json.encode([feed.input, feed.kinds, feed.scope, feed.url_hosts, feed.first]).decode()
    return f"{PARSER_VERSION}:{sha256}:{spec}"


def take_in(
    feed: Feed,
    data: bytes,
    sha256: str,
    *,
    state: Path,
    snapshot: int,
    before: Columns | None,
    base: bytes | None,
    base_depth: int,
    accept: bool,
    account: Mapping[str, Any] | None = None,
    at: int = 0,
    times: pl.DataFrame | None = None,
    known: Known | None = None,
    keep_back: str | None = None,
    undone: pl.Series = _NO_NAMES,
    fetched: Path | None = None,
) -> Intake:
    """Parse `data`, judge it, compare it with `before`, and put bytes and columns on disk.

    `before`, `base` and `account` are columns, bytes and account of the current snapshot; with an account the
    shared lines need not be read again. `times` are those of `before`, `at` the start of the run (seconds since 1970).
    `known`: what the current snapshot and the answer say of their age. `accept`: a person has seen it; no gate.
    `keep_back`: why it waits though no gate holds it. `undone`: names that don't linger (`blocklist.ingest.linger`).
    `fetched`: a file of `data` that is moved to where the bytes are kept, unless they wait.
    Raises FeedError when it can't be read at all.
    """
    reason = hint = None
    lines = hunks(base, data) if base is not None else None
    parsed = Parsed(NONE, feed.input.name)
    listed = None if before is None else linger.listed(before.frame, times)
    stated = read_header(data)
    try:
        change = None
        if before is not None and listed is not None and base is not None and lines is not None and account is not None:
            change = parse_change(feed, base, data, lines, listed, before.repeated, account)
        parsed = change or parse(data, feed)
        if not accept:
            gate.check(feed, parsed, listed.height if listed is not None else None)
            gate.check_header(feed, parsed, stated, known or Known())
    except FeedGated as gated:
        reason, hint = gated.message.removeprefix(f"{feed.id}: "), gated.hint
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        if shortage_of(error) is not None:
            raise  # that is no fault of the feed
        raise FeedError(f"{feed.id}: can't be read as {feed.input.name}: {str(error).splitlines()[0][:200]}") from error
    reason = reason or keep_back
    stored = snapshots.write(state, snapshot, data, base, base_depth, lines, sha256)
    frame = parsed.frame
    entries, kept, next_end = frame.height, None, None
    if reason is None:
        added, removed, changed = parsed.difference or difference(listed, frame)
        if lasts(feed) or times is not None:
            kept = linger.keep(feed, before.frame if before else None, times, frame, added, removed, at, undone)
            frame, added, removed = kept.frame, kept.added, kept.removed
            changed = int(added["name"].is_in(removed["name"].implode()).sum())
            columns.write_times(state, snapshot, kept.times)
        next_end = lifetime.next_end(frame, kept.times if kept else None, feed, at)
        columns.write(state, snapshot, Columns(frame, parsed.repeated))
        columns.keep_bytes(state, snapshot, data, fetched)
    else:
        added = removed = frame.clear()
        changed = 0
    intake = Intake(
        feed=feed,
        snapshot=snapshot,
        sha256=sha256,
        size=len(data),
        parsed=parsed,
        frame=frame,
        added=added,
        removed=removed,
        stored=stored,
        gate=reason,
        hint=hint,
        changed=changed,
        account=account_of(parsed, stated),
        entries=entries,
        next_end=next_end,
    )
    if kept is not None:
        intake.times, intake.dropped, intake.back, intake.over = kept.times, kept.dropped, kept.back, kept.over
    return intake


def account_of(parsed: Parsed, stated: Header | None = None) -> dict[str, object]:
    """What became of the lines, as it is kept with the snapshot and shown by `feeds show`."""
    return {
        "format": parsed.format,
        "why": parsed.why,
        "lines": parsed.lines,
        "blank": parsed.blank,
        "comments": parsed.comments,
        "indicators": dict(sorted(parsed.kinds.items())),
        "rejects": {reason.value: n for reason, n in sorted(parsed.rejects.items()) if n},
        "extra": parsed.extra,
        "masked": parsed.masked,
        "notes": dict(sorted(parsed.notes.items())),
        "stated": stated.as_json() if stated else {},
        "entries": parsed.frame.height,
    }


def account_text(account: dict[str, object]) -> str:
    return json.dumps(account, sort_keys=True)
