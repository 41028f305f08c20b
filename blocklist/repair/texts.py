"""Rows whose texts are not of the form that every writer of the record gives them: JSON, times, digests."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import deque
from pathlib import Path

import msgspec

from blocklist.catalog import Feed
from blocklist.publish.standing import in_place
from blocklist.repair.salvage import UNREADABLE, tables_of

_TIME = "{0} NOT GLOB '" + "[0-9]" * 4 + "-[0-1][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]Z'"
_JSON = "NOT json_valid({0})"
# By table, the conditions under which a text is wrong, and the columns that they are of.
_Forms = dict[str, dict[str, tuple[str, ...]]]
# Without them a row is worth nothing, or would say something else: an end that is lost must not make a rule endless.
_NEEDED: _Forms = {
    "run": {_TIME: ("started",)},
    "feed_version": {_JSON: ("attributes",)},
    "snapshot": {_TIME: ("fetched",), _JSON: ("account",)},
    "rule": {_TIME: ("created", "expires", "removed")},
    "hold_release": {_TIME: ("created", "revoked")},
    "verdict": {_TIME: ("since", "checked")},
    "verdict_closed": {_TIME: ("since", "until")},
    "release": {_TIME: ("created", "published", "judged"), _JSON: ("lost",)},
    "pin": {_TIME: ("created", "ended")},
    "feed_pin": {_TIME: ("created", "ended")},
    "plan": {_JSON: ("plan",)},
    "case_file": {_TIME: ("opened", "closed"), _JSON: ("cited",)},
}
_OPTIONAL: _Forms = {
    "run": {_TIME: ("finished",)},
    "feed": {_TIME: ("checked", "changed", "retry_at", "next_end")},
    "listing": {_JSON: ("extra",)},
    "listing_closed": {_JSON: ("extra",)},
    "verdict": {_TIME: ("first_nxdomain",)},
    "release": {_TIME: ("reloaded",)},
}


def faults(connection: sqlite3.Connection) -> list[str]:
    """What texts there are that nothing of ours wrote, in words; SQLite finds nothing wrong there."""
    out = []
    for table in tables_of(connection):
        try:
            deque(connection.execute(f"SELECT * FROM {table}"), maxlen=0)
        except UNREADABLE:
            return [f"a text of {table} is no UTF-8"]
    for table in _NEEDED:
        (count,) = connection.execute(f"SELECT count(*) FROM {table} WHERE {_wrong(_NEEDED[table])}").fetchone()
        if count:
            out.append(f"{count:,} rows of {table} hold a text that is no JSON, or no time")
    for table, keys in (("setting", _altered(connection)), ("release", _other_files(connection))):
        if keys:
            out.append(f"{len(keys):,} rows of {table} are not what their digests say")
    return out


def remove(connection: sqlite3.Connection) -> dict[str, int]:
    """Take such rows out, and where a row can do without the text, the text alone; how many rows, by table."""
    out = {}
    for table, wanted in _NEEDED.items():
        if count := connection.execute(f"DELETE FROM {table} WHERE {_wrong(wanted)}").rowcount:
            out[table] = count
    unknown = _unreadable_feeds(connection)
    connection.executemany("DELETE FROM feed_version WHERE feed = ? AND since = ?", unknown)
    altered = _altered(connection)
    connection.executemany("DELETE FROM setting WHERE digest = ?", [(digest,) for digest in altered])
    others = _other_files(connection)
    connection.executemany("DELETE FROM release WHERE id = ?", [(number,) for number in others])
    for table, count in (("feed_version", len(unknown)), ("setting", len(altered)), ("release", len(others))):
        if count:
            out[table] = out.get(table, 0) + count
    for table, wanted in _OPTIONAL.items():
        for form, columns in wanted.items():
            for column in columns:
                connection.execute(f"UPDATE {table} SET {column} = NULL WHERE {form.format(column)}")
    return out


def _wrong(wanted: dict[str, tuple[str, ...]]) -> str:
    """The condition in SQL; of an empty value nothing is wrong."""
    return " OR ".join(form.format(column) for form, columns in wanted.items() for column in columns)


def _altered(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute("SELECT digest, body FROM setting")
    return [digest for digest, body in rows if hashlib.sha256(body.encode()).hexdigest() != digest]


def _unreadable_feeds(connection: sqlite3.Connection) -> list[tuple[int, int]]:
    """Versions of feeds (feed and run) that no reader could make sense of."""
    out = []
    for number, since, text in connection.execute("SELECT feed, since, attributes FROM feed_version"):
        try:
            msgspec.json.decode(text, type=Feed)
        except msgspec.DecodeError:
            out.append((number, since))
    return out


def _other_files(connection: sqlite3.Connection) -> list[int]:
    """Split releases whose files don't add up to what was published."""
    out = []
    for number, digest, text in connection.execute("SELECT id, digest, files FROM release WHERE files IS NOT NULL"):
        try:
            files = {file["category"]: (Path(file["path"]), file["digest"]) for file in json.loads(text)}
        except (ValueError, TypeError, KeyError):
            out.append(number)
            continue
        digests = dict(files.values())
        if in_place([(c, path) for c, (path, _) in files.items()], digests.get) != digest:
            out.append(number)
    return out
