"""What persons decided, given back from the log of events where its own row is lost: the log says who, when and why."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any

from blocklist.audit import recognise
from blocklist.catalog import KINDS
from blocklist.errors import IndicatorError
from blocklist.store import ledger
from blocklist.store.ledger import Event

_Told = tuple[Event, dict[str, Any]]


@dataclass(frozen=True)
class GivenBack:
    """How many rules, released holds and pins were written again from their events."""

    rules: int
    releases: int
    pins: int


def give_back(connection: sqlite3.Connection) -> GivenBack:
    """Write again what sound events tell and the record has lost; nothing that stands is changed, but ended."""
    told: dict[str, list[_Told]] = {}
    for event in ledger.events(connection):
        if ledger.is_sound(event):
            detail = json.loads(event.detail)
            if isinstance(detail, dict):
                told.setdefault(event.what, []).append((event, detail))
    pins = _pins(connection, told) + _feed_pins(connection, told)
    return GivenBack(_rules(connection, told), _releases(connection, told), pins)


def _rules(connection: sqlite3.Connection, told: dict[str, list[_Told]]) -> int:
    count = 0
    for action in ("allow", "deny"):
        for event, detail in told.get(f"{action} added", []):
            if (kind := _kind(detail.get("name"))) is None or event.run is None:
                continue
            said = (detail["rule"], action, detail["name"], kind, int(detail["subtree"]), detail["reason"])
            by = (detail.get("ticket"), event.who, event.at, event.run, detail.get("expires"))
            count += connection.execute(
                "INSERT OR IGNORE INTO rule (id, action, name, kind, subtree, reason, ticket, author, created, since, "
                "expires) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                said + by,
            ).rowcount
        for event, detail in told.get(f"{action} removed", []):
            connection.execute(
                "UPDATE rule SET removed = ?, until = ?, removed_by = ?, removed_reason = ? "
                "WHERE id = ? AND until IS NULL",
                (event.at, event.run, event.who, detail.get("reason"), detail.get("rule")),
            )
    return count


def _releases(connection: sqlite3.Connection, told: dict[str, list[_Told]]) -> int:
    count = 0
    revoked = told.get("hold release revoked", [])
    for event, detail in told.get("hold released", []):
        end = next((e for e, d in revoked if e.id > event.id and d.get("name") == detail.get("name")), None)
        known = connection.execute(
            "SELECT 1 FROM hold_release WHERE name = ? AND author = ? AND created = ?",
            (detail.get("name"), event.who, event.at),
        ).fetchone()
        if known is None and event.run is not None:
            reason = next((d.get("reason") for e, d in revoked if e is end), None)
            said = (detail["name"], detail["reason"], event.who, event.at, event.run)
            ended = (end.at, end.run, end.who, reason) if end is not None else (None,) * 4
            count += connection.execute(
                "INSERT OR IGNORE INTO hold_release (name, reason, author, created, since, revoked, until, revoked_by, "
                "revoked_reason) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                said + ended,
            ).rowcount
    return count


def _pins(connection: sqlite3.Connection, told: dict[str, list[_Told]]) -> int:
    count = 0
    # Whoever rolls back again ends the pin before.
    ends = sorted(told.get("release unpinned", []) + told.get("release rolled back", []), key=lambda one: one[0].id)
    for event, detail in told.get("release rolled back", []):
        export = detail.get("export")
        end = next((e for e, d in ends if e.id > event.id and d.get("export") == export), None)
        known = connection.execute(
            "SELECT 1 FROM pin WHERE export = ? AND author = ? AND created = ?", (export, event.who, event.at)
        ).fetchone()
        if known is None and event.run is not None:
            said = (export, detail["release"], detail["reason"], event.who, event.at, event.run)
            ended = (end.at, end.run, end.who) if end is not None else (None,) * 3
            count += connection.execute(
                "INSERT OR IGNORE INTO pin (export, release, reason, author, created, since, ended, until, ended_by) "
                "SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9 WHERE EXISTS (SELECT 1 FROM release WHERE id = ?2)",
                said + ended,
            ).rowcount
    return count


def _feed_pins(connection: sqlite3.Connection, told: dict[str, list[_Told]]) -> int:
    """Feeds stand at the bytes that they list: of a snapshot that is lost, the current one has them too."""
    connection.execute(
        "UPDATE feed_pin SET snapshot = (SELECT s.id FROM snapshot s WHERE s.feed = feed_pin.feed AND "
        "s.state = 'current') WHERE until IS NULL AND snapshot NOT IN (SELECT id FROM snapshot) AND EXISTS "
        "(SELECT 1 FROM snapshot s WHERE s.feed = feed_pin.feed AND s.state = 'current')"
    )
    count = 0
    unpinned = told.get("feed unpinned", [])
    ends = sorted(unpinned + told.get("feed rolled back", []), key=lambda one: one[0].id)
    for event, detail in told.get("feed rolled back", []):
        feed = detail.get("feed")
        end = next(((e, d) for e, d in ends if e.id > event.id and d.get("feed") == feed), None)
        known = connection.execute(
            "SELECT 1 FROM feed_pin p JOIN feed f ON f.id = p.feed WHERE f.name = ? AND p.since = ?", (feed, event.run)
        ).fetchone()
        if known is None and event.run is not None:
            why = end[1].get("reason") if end is not None and end in unpinned else None
            ended = (end[0].at, end[0].run, end[0].who, why) if end is not None else (None,) * 4
            said = (feed, detail["snapshot"], detail["reason"], detail.get("ticket"), event.who, event.at, event.run)
            count += connection.execute(
                "INSERT OR IGNORE INTO feed_pin (feed, snapshot, reason, ticket, author, created, since, ended, until, "
                "ended_by, ended_reason) SELECT f.id, s.id, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11 "
                "FROM feed f JOIN snapshot s ON s.feed = f.id AND (s.id = ?2 OR s.state = 'current') "
                "WHERE f.name = ?1 ORDER BY s.id <> ?2 LIMIT 1",
                said + ended,
            ).rowcount
    return count


def _kind(name: object) -> int | None:
    if not isinstance(name, str):
        return None
    if name.startswith("//"):
        return KINDS.index("url") + 1
    try:
        return KINDS.index(recognise(name).kind) + 1
    except IndicatorError:
        return None
