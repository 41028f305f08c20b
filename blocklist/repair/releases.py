"""Releases whose rows are lost, written again from the log: which file each was, when, and which one is live."""

from __future__ import annotations

import json
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

from blocklist.config import Config
from blocklist.errors import RecordError
from blocklist.store import kept, ledger


def give_back(connection: sqlite3.Connection, config: Config) -> int:
    """Write the rows again that sound events tell of; how many. Of split exports the files are not known, nor these.

    What a release was chosen from and made by stays lost: its bytes can be had as of then, a rollback to it not.
    """
    count, last = 0, dict[str, int]()
    for event in ledger.events(connection, what="release published"):
        if event.run is None or not ledger.is_sound(event):
            continue
        told = json.loads(event.detail)
        export = config.exports.get(told.get("export"))
        if export is None or export.split is not None:
            continue
        last[export.name] = told["release"]
        row: dict[str, Any] = {
            "id": told["release"],
            "export": export.name,
            "format": told["format"],
            "policy": export.policy,
            "path": str((config.base / export.path).absolute()),
            "run": event.run,
            "revision": 0,
            "state": "superseded",
            "created": event.at,
            "published": event.at,
            "serial": told["serial"],
            "digest": told["digest"],
            # Not known: the next run publishes the same list once more.
            "body_digest": "",
            "bytes": _size(config.state, told["digest"]),
            "entries": told["entries"],
            "added": told["added"],
            "removed": told["removed"],
            "lost": "{}",
            "inputs": "",
            "checked": "",
            "note": told["note"],
        }
        marks = ", ".join(f":{name}" for name in row)
        count += connection.execute(f"INSERT OR IGNORE INTO release ({', '.join(row)}) VALUES ({marks})", row).rowcount
    for name, number in last.items():
        connection.execute(
            "UPDATE release SET state = 'live' WHERE id = ? "
            "AND NOT EXISTS (SELECT 1 FROM release WHERE export = ? AND state = 'live')",
            (number, name),
        )
    return count


def lost_pins(connection: sqlite3.Connection) -> dict[str, int]:
    """Exports that are pinned to a release of which nothing says any more what it was chosen from; its number."""
    rows = connection.execute(
        "SELECT p.export, p.release FROM pin p LEFT JOIN release r ON r.id = p.release "
        "WHERE p.until IS NULL AND r.chosen IS NULL"
    )
    return dict(rows)


def missing(connection: sqlite3.Connection) -> int:
    """How many published releases have no row, but events."""
    (count,) = connection.execute(
        "SELECT count(DISTINCT detail ->> 'release') FROM event "
        "WHERE what = 'release published' AND json_valid(detail) "
        "AND detail ->> 'release' NOT IN (SELECT id FROM release)"
    ).fetchone()
    return int(count)


def _size(state: Path, digest: str) -> int:
    """Bytes of the release where they are kept, else 0."""
    with suppress(RecordError):
        return len(kept.read(state, digest))
    return 0
