"""The log of events: each is chained to the one before by SHA-256, so that a change of the past shows.

The digest of an event is the SHA-256 of canonical JSON (RFC 8785) in two steps:

    content = SHA-256 {"at","detail","run","what","who"}
    digest  = SHA-256 {"content","id","previous"}

so that a part of the chain can be shown to somebody who may see some events, and of the others only their number.
Whoever may write the record can write the whole chain anew; against that stands a head that was kept elsewhere.
Standard library only.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec

GENESIS = "0" * 64
REPAIRED = "record repaired"
"""The event of a record made anew. Its `troubles` are what could not be settled: pairs of event (or null) and text."""
_HEAD = re.compile(r"([0-9]{1,18}):([0-9a-f]{64})")


class Head(msgspec.Struct, frozen=True):
    """The newest event of a log at some time, as `ID:DIGEST`; of an empty log `0:000…`."""

    id: int
    digest: str

    def __str__(self) -> str:
        return f"{self.id}:{self.digest}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """The inverse of `str`; what follows a blank is a remark. Raises ValueError."""
        words = text.split(maxsplit=1)
        match = _HEAD.fullmatch(words[0]) if words else None
        if match is None:
            raise ValueError(f"{text[:80]!r} is no head of an event log (ID:DIGEST)")
        return cls(int(match[1]), match[2])


class Event(msgspec.Struct, frozen=True):
    """A row of the table `event`; `detail` is the JSON text as it is stored."""

    id: int
    at: str
    run: int | None
    what: str
    who: str
    detail: str
    previous: str
    digest: str

    def told(self) -> dict[str, Any]:
        """What it says: what `content` is made of. Raises ValueError when `detail` is no JSON."""
        detail = json.loads(self.detail)
        return {"at": self.at, "detail": detail, "run": self.run, "what": self.what, "who": self.who}


class Trouble(msgspec.Struct, frozen=True):
    """What does not hold, and at which event."""

    event: int | None
    text: str


def canonical(value: object) -> bytes:
    """Canonical JSON (RFC 8785) of objects with ASCII keys, lists, texts, whole numbers, booleans and nulls."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


def content_digest(told: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(told)).hexdigest()


def link_digest(number: int, content: str, previous: str) -> str:
    return hashlib.sha256(canonical({"content": content, "id": number, "previous": previous})).hexdigest()


def _stored(detail: object) -> str:
    """The one way in which a detail is written; any other text is not ours."""
    return json.dumps(detail, sort_keys=True, ensure_ascii=True)


def append(
    connection: sqlite3.Connection, at: str, run: int | None, what: str, who: str, detail: Mapping[str, Any]
) -> int:
    """Add an event to the end of the chain, in the caller's transaction; its number."""
    before = head(connection)
    # As it will be read again: tuples become lists, keys texts.
    told = {"at": at, "detail": json.loads(_stored(detail)), "run": run, "what": what, "who": who}
    number = before.id + 1
    digest = link_digest(number, content_digest(told), before.digest)
    connection.execute(
        "INSERT INTO event (id, at, run, what, who, detail, previous, digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (number, at, run, what, who, _stored(detail), before.digest, digest),
    )
    return number


def chain_existing(connection: sqlite3.Connection) -> None:
    """Chain events that were written before there was a chain, as they stand."""
    previous = GENESIS
    rows = connection.execute("SELECT id, at, run, what, who, detail FROM event ORDER BY id").fetchall()
    for number, at, run, what, who, text in rows:
        try:
            detail = json.loads(text)
        except ValueError:
            detail = {"text": text}
        told = {"at": at, "detail": detail, "run": run, "what": what, "who": who}
        digest = link_digest(number, content_digest(told), previous)
        connection.execute(
            "UPDATE event SET detail = ?, previous = ?, digest = ? WHERE id = ?",
            (_stored(detail), previous, digest, number),
        )
        previous = digest


def head(connection: sqlite3.Connection) -> Head:
    row = connection.execute("SELECT id, digest FROM event ORDER BY id DESC LIMIT 1").fetchone()
    return Head(*row) if row else Head(0, GENESIS)


def events(
    connection: sqlite3.Connection, *, since: str | None = None, first: int = 0, what: str = "*"
) -> Iterator[Event]:
    """Events in their order, from the time `since` (RFC 3339) and the number `first` on, of what GLOB `what` fits."""
    rows = connection.execute(
        "SELECT id, at, run, what, who, detail, previous, digest FROM event "
        "WHERE id >= ?1 AND (?2 IS NULL OR at >= ?2) AND what GLOB ?3 ORDER BY id",
        (first, since, what),
    )
    return (Event(*row) for row in rows)


def verify(connection: sqlite3.Connection, heads: Sequence[Head] = ()) -> list[Trouble]:
    """What in the log was edited, taken out, put in, moved or cut off; of the end only as far as `heads` reach.

    `heads` were kept elsewhere: everything up to one of them must be as it was then.
    """
    out: list[Trouble] = []
    wanted = {h.id for h in heads}
    found: dict[int, str] = {0: GENESIS}
    before, expected = 0, GENESIS
    for event in events(connection):
        if event.previous != expected:
            if event.id > before + 1:
                missing = (
                    f"event {before + 1} is" if event.id == before + 2 else f"events {before + 1} to {event.id - 1} are"
                )
                out.append(Trouble(event.id, f"{missing} missing before it"))
            else:
                says = f"event {before}" if before else "the beginning of the log"
                out.append(
                    Trouble(
                        event.id, f"it does not follow {says} as that stands: one of the two was rewritten or moved"
                    )
                )
        if (trouble := _altered(event)) is not None:
            out.append(Trouble(event.id, trouble))
        before, expected = event.id, event.digest
        if event.id in wanted:
            found[event.id] = event.digest
    for anchor in heads:
        if anchor.id > before:
            end = f"after event {before}" if before else "whole: there is no event"
            out.append(
                Trouble(anchor.id, f"the log was cut off {end}; the head kept elsewhere is of event {anchor.id}")
            )
        elif found.get(anchor.id) != anchor.digest:
            out.append(Trouble(anchor.id, "it is not the event of the head kept elsewhere: the log was rewritten"))
    return out


def is_sound(event: Event) -> bool:
    """Is it what was written, whatever became of the events around it?"""
    return _altered(event) is None


def _altered(event: Event) -> str | None:
    try:
        told = event.told()
    except ValueError:
        return "it was changed after it was written: its detail is no JSON"
    if (
        link_digest(event.id, content_digest(told), event.previous) != event.digest
        or _stored(told["detail"]) != event.detail
    ):
        return "it was changed after it was written"
    return None


_Told = dict[str, list[tuple[Event, dict[str, Any]]]]
_COMPARED = ("allow *", "deny *", "hold *", "release rolled back", "feed rolled back", "feed unpinned")
_SAID = ("name", "subtree", "reason", "ticket", "expires")


def compare(connection: sqlite3.Connection) -> list[Trouble]:
    """Where rules, released holds and published releases are not what their events say: edited past the log."""
    told: _Told = {}
    for event in chain.from_iterable(events(connection, what=what) for what in _COMPARED):
        try:
            detail = json.loads(event.detail)
        except ValueError:
            continue  # `verify` says so
        if isinstance(detail, dict):
            told.setdefault(event.what, []).append((event, detail))
    out = [*_rules(connection, told), *_lets_pass(connection, told)]
    others = connection.execute(
        "SELECT e.id, r.id FROM event e JOIN release r ON r.id = e.detail ->> 'release' "
        "WHERE e.what = 'release published' AND json_valid(e.detail) AND r.digest <> e.detail ->> 'digest' ORDER BY 1"
    )
    out += [Trouble(e, f"the digest of release {r} is not what was published") for e, r in others]
    unsaid = connection.execute(
        "SELECT r.id FROM release r WHERE r.note GLOB 'approved by *' AND NOT EXISTS (SELECT 1 FROM event e "
        "WHERE e.what = 'release approved' AND json_valid(e.detail) AND e.detail ->> 'release' = r.id) ORDER BY 1"
    )
    return [
        *out,
        *(Trouble(None, f"release {r} stands in the record as approved, but no event says by whom") for (r,) in unsaid),
    ]


def _rules(connection: sqlite3.Connection, told: _Told) -> Iterator[Trouble]:
    rows = {
        row[0]: row[1:]
        for row in connection.execute(
            "SELECT id, action, author, name, subtree, reason, ticket, expires, removed, removed_by, removed_reason "
            "FROM rule"
        )
    }
    for action in ("allow", "deny"):
        added = {d.get("rule"): (e, d) for e, d in told.get(f"{action} added", [])}
        removed = {d.get("rule"): (e, d) for e, d in told.get(f"{action} removed", [])}
        for number, (event, detail) in added.items():
            if number not in rows:
                yield Trouble(event.id, f"rule {number}, which it added, is gone from the record")
                continue
            now = dict(zip(_SAID, rows[number][2:7], strict=True)) | {
                "author": rows[number][1],
                "action": rows[number][0],
            }
            then = {"author": event.who, "action": action, **{key: detail[key] for key in _SAID if key in detail}}
            for key, value in then.items():
                if now[key] != value:
                    yield Trouble(
                        event.id,
                        f"the {key} of rule {number} was changed since: {_short(value)} became {_short(now[key])}",
                    )
        for number, row in rows.items():
            if row[0] != action:
                continue
            if number not in added:
                yield Trouble(None, f"rule {number} ({action} {row[2]}) stands in the record, but no event added it")
            event_, detail_ = removed.get(number, (None, None))
            if event_ is None or detail_ is None:
                if row[7] is not None:
                    yield Trouble(None, f"rule {number} ({action} {row[2]}) has ended, but no event ended it")
            elif (row[8], row[9]) != (event_.who, detail_.get("reason")):
                yield Trouble(event_.id, f"who ended rule {number}, or why, was changed since")


def _lets_pass(connection: sqlite3.Connection, told: _Told) -> Iterator[Trouble]:
    """The same for holds that a person let pass, and for exports and feeds that one took back."""
    pairs = (
        ("hold released", "SELECT name, author, reason, created FROM hold_release", "let pass"),
        ("release rolled back", "SELECT export, author, reason, created FROM pin", "taken back"),
        (
            "feed rolled back",
            "SELECT f.name, p.author, p.reason, p.created FROM feed_pin p JOIN feed f ON f.id = p.feed",
            "taken back",
        ),
        (
            "feed unpinned",
            "SELECT f.name, p.ended_by, p.ended_reason, p.ended FROM feed_pin p JOIN feed f ON f.id = p.feed "
            "WHERE p.ended_reason IS NOT NULL",
            "let go on",
        ),
        (
            "hold release revoked",
            "SELECT name, revoked_by, revoked_reason, revoked FROM hold_release WHERE revoked IS NOT NULL",
            "held again",
        ),
    )
    for what, sql, words in pairs:
        rows = set(connection.execute(sql))
        said = {
            (d.get("name", d.get("export", d.get("feed"))), e.who, d.get("reason"), e.at): e
            for e, d in told.get(what, [])
        }
        for key, event in said.items():
            if key not in rows:
                yield Trouble(event.id, f"{key[0]} was {words} by it, but the record does not say so any more")
        for row in sorted(rows - set(said)):
            yield Trouble(None, f"the record says that {row[0]} was {words} by {row[1]}, but no event does")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
