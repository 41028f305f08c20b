"""One feed's new bytes, from the temporary file to what will be recorded: parse, gate, difference, files on disk.

Runs in a thread a feed: Polars and zstd release the interpreter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from blocklist.catalog import Feed
from blocklist.errors import FeedError, FeedGated
from blocklist.hunks import hunks
from blocklist.ingest import gate
from blocklist.ingest.change import difference, parse_change
from blocklist.ingest.normalize import SCHEMA
from blocklist.ingest.parse import PARSER_VERSION, Parsed, parse
from blocklist.store import columns, snapshots
from blocklist.store.columns import Columns
from blocklist.store.snapshots import Stored


@dataclass
class Intake:
    """What one feed brings. `added` and `removed` are indicators frames; a changed listing is in both.

    `frame`: all of the new snapshot. `gate`: why it waits for a person, else None.
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
    account: dict[str, object] = field(default_factory=dict)


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
) -> Intake:
    """Parse `data`, judge it, compare it with `before`, and put bytes and columns on disk.

    `before`, `base` and `account` are columns, bytes and account of the current snapshot; with an account the
    shared lines need not be read again. `accept`: a person has seen it; no gate. Raises FeedError when it can't be
    read at all.
    """
    reason = hint = None
    lines = hunks(base, data) if base is not None else None
    parsed = Parsed(pl.DataFrame(schema=SCHEMA), feed.input.name)
    try:
        change = None
        if before is not None and base is not None and lines is not None and account is not None:
            change = parse_change(feed, base, data, lines, before.frame, before.repeated, account)
        parsed = change or parse(data, feed)
        if not accept:
            gate.check(feed, parsed, before.frame.height if before is not None else None)
    except FeedGated as gated:
        reason, hint = gated.message.removeprefix(f"{feed.id}: "), gated.hint
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise FeedError(f"{feed.id}: can't be read as {feed.input.name}: {str(error).splitlines()[0][:200]}") from error
    stored = snapshots.write(state, snapshot, data, base, base_depth, lines)
    frame = parsed.frame
    if reason is None:
        columns.write(state, snapshot, Columns(frame, parsed.repeated))
        columns.keep_bytes(state, snapshot, data)
        added, removed, changed = parsed.difference or difference(before.frame if before else None, frame)
    else:
        added = removed = frame.clear()
        changed = 0
    return Intake(
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
        account=account_of(parsed),
    )


def account_of(parsed: Parsed) -> dict[str, object]:
    """What became of the lines, as it is kept with the snapshot and shown by `feeds show`."""
    return {
        "format": parsed.format,
        "lines": parsed.lines,
        "blank": parsed.blank,
        "comments": parsed.comments,
        "indicators": dict(sorted(parsed.kinds.items())),
        "rejects": {reason.value: n for reason, n in sorted(parsed.rejects.items()) if n},
        "extra": parsed.extra,
        "masked": parsed.masked,
    }


def account_text(account: dict[str, object]) -> str:
    return json.dumps(account, sort_keys=True)
