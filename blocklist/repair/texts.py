"""Rows whose texts are not of the form that every writer of the record gives them: JSON, times, digests."""

from __future__ import annotations

import hashlib
import sqlite3
from collections import deque

from blocklist.repair.salvage import UNREADABLE, tables_of

_TIME = "{0} NOT GLOB '" + "[0-9]" * 4 + "-[0-1][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]Z'"
_JSON = "NOT json_valid({0})"
_FILES = (
    "CASE WHEN json_valid({0}) THEN EXISTS (SELECT 1 FROM json_each({0}) "
    "WHERE value ->> 'category' IS NULL OR value ->> 'path' IS NULL OR value ->> 'digest' IS NULL) "
    "ELSE {0} IS NOT NULL END"
)
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
    "release": {_TIME: ("created", "published", "judged"), _JSON: ("lost",), _FILES: ("files",)},
    "pin": {_TIME: ("created", "ended")},
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
    if others := len(_altered(connection)):
        out.append(f"{others:,} rows of setting are not what their digests say")
    return out


def remove(connection: sqlite3.Connection) -> dict[str, int]:
    """Take such rows out, and where a row can do without the text, the text alone; how many rows, by table."""
    out = {}
    for table, wanted in _NEEDED.items():
        if count := connection.execute(f"DELETE FROM {table} WHERE {_wrong(wanted)}").rowcount:
            out[table] = count
    altered = _altered(connection)
    connection.executemany("DELETE FROM setting WHERE digest = ?", [(digest,) for digest in altered])
    for table, wanted in _OPTIONAL.items():
        for form, columns in wanted.items():
            for column in columns:
                connection.execute(f"UPDATE {table} SET {column} = NULL WHERE {form.format(column)}")
    return {**out, "setting": len(altered)} if altered else out


def _wrong(wanted: dict[str, tuple[str, ...]]) -> str:
    """The condition in SQL; of an empty value nothing is wrong."""
    return " OR ".join(form.format(column) for form, columns in wanted.items() for column in columns)


def _altered(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute("SELECT digest, body FROM setting")
    return [digest for digest, body in rows if hashlib.sha256(body.encode()).hexdigest() != digest]
