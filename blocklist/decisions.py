"""What persons decide: rules, releases of holds, approvals. Each is recorded with who, when and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from blocklist import __version__, clock
from blocklist.audit import Thing, recognise
from blocklist.catalog import KINDS
from blocklist.errors import IndicatorError
from blocklist.names import parents
from blocklist.quantities import parse_duration
from blocklist.rules import Rule
from blocklist.select.address import parse_one
from blocklist.store.record import Record


@dataclass(frozen=True)
class Added:
    """A new rule, and how many listed names it covers (`frees`), and the nearest listed name above it."""

    id: int
    name: str
    kind: str
    subtree: bool
    frees: int
    above: str | None = None


def until_text(text: str | None, now: datetime) -> str | None:
    """The end of a rule: a date (the end of that local day), or a span such as `30d` from `now`; RFC 3339.

    Raises IndicatorError when it is neither or lies in the past.
    """
    if text is None:
        return None
    try:
        end = now + timedelta(seconds=parse_duration(text))
    except (ValueError, OverflowError):
        try:
            moment = datetime.fromisoformat(text)
            if not {"T", " ", ":"} & set(text):
                moment = moment.replace(hour=23, minute=59, second=59)
            end = moment.astimezone(UTC)
        except (ValueError, OverflowError):
            raise IndicatorError(
                f"--until {text!r} is no date and no span", hint="write 2026-12-31, 2026-12-31T18:00 or 30d"
            ) from None
    if end <= now:
        raise IndicatorError(f"--until {text!r} lies in the past", hint="a rule must end after it begins")
    return clock.text(end)


def add_rule(
    record: Record,
    action: str,
    what: str,
    *,
    reason: str,
    author: str,
    ticket: str | None = None,
    until: str | None = None,
    exact: bool = False,
) -> Added:
    """Record an `allow` or `deny`. Raises IndicatorError for what no rule may name, or for one that stands already."""
    now = clock.now()
    thing = recognise(what)
    if thing.kind in ("ipv4", "ipv6") and thing.name.endswith("/0"):
        raise IndicatorError(f"{what}: a rule for the whole Internet is not taken", hint="name the networks meant")
    _require(reason)
    expires = until_text(until, now)
    subtree = thing.kind == "domain" and not exact
    row = record.connection.execute(
        "SELECT id FROM rule WHERE action = ? AND name = ? AND subtree = ? AND until IS NULL "
        "AND (expires IS NULL OR expires > ?)",
        (action, thing.name, int(subtree), clock.text(now)),
    ).fetchone()
    if row:
        raise IndicatorError(
            f"rule {row[0]} says '{action} {thing.name}' already",
            hint=f"to change it: 'blocklist {action} remove {row[0]} --reason …', then add it again",
        )
    frees = listed_under(record, thing, subtree)
    with record.transaction() as connection:
        run = record.begin_run(connection, clock.text(now), f"{action} add", author, __version__)
        cursor = connection.execute(
            "INSERT INTO rule (action, name, kind, subtree, reason, ticket, author, created, since, expires) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                action,
                thing.name,
                KINDS.index(thing.kind) + 1,
                int(subtree),
                reason,
                ticket,
                author,
                clock.text(now),
                run,
                expires,
            ),
        )
        number = cursor.lastrowid
        assert number is not None
        record.bump(connection)
        record.event(
            connection,
            clock.text(now),
            run,
            f"{action} added",
            author,
            rule=number,
            name=thing.name,
            subtree=subtree,
            reason=reason,
            ticket=ticket,
            expires=expires,
        )
        record.finish_run(run, clock.text(clock.now()))
    return Added(number, thing.name, thing.kind, subtree, frees, listed_above(record, thing))


def _require(reason: str) -> None:
    if not reason.strip():
        raise IndicatorError("--reason is empty", hint="say why: whoever asks in a year reads only this")


def listed_under(record: Record, thing: Thing, subtree: bool) -> int:
    """How many listed names or networks a rule for `thing` covers."""
    if thing.kind == "domain":
        row = record.connection.execute(
            "SELECT count(DISTINCT name) FROM listing WHERE kind = 1 AND "
            "(name = ?1 OR (?2 AND substr(name, -length(?1) - 1) = '.' || ?1))",
            (thing.name, subtree),
        ).fetchone()
        return int(row[0])
    if thing.kind == "url":
        row = record.connection.execute("SELECT count(*) > 0 FROM listing WHERE name = ?", (thing.name,)).fetchone()
        return int(row[0])
    kind = KINDS.index(thing.kind) + 1
    listed = record.connection.execute("SELECT DISTINCT name FROM listing WHERE kind = ?", (kind,))
    ranges = (found for (name,) in listed if (found := parse_one(name)) is not None)
    return sum(first <= thing.last and last >= thing.first for _, first, last in ranges)


def listed_above(record: Record, thing: Thing) -> str | None:
    """The nearest listed name above a domain: what most often makes a person write an allow."""
    for name in parents(thing.name) if thing.kind == "domain" else ():
        if record.connection.execute("SELECT 1 FROM listing WHERE name = ?", (name,)).fetchone():
            return name
    return None


def remove_rule(record: Record, action: str, number: int, *, reason: str, author: str) -> Rule:
    """End a rule; it stays in the record with who ended it and why. Raises IndicatorError when there is none."""
    _require(reason)
    row = record.connection.execute(
        "SELECT id, action, name, kind, subtree, reason, author, created, ticket, expires FROM rule "
        "WHERE id = ? AND action = ? AND until IS NULL",
        (number, action),
    ).fetchone()
    if row is None:
        raise IndicatorError(f"there is no {action} rule {number}", hint=f"'blocklist {action} list' shows them")
    now = clock.text(clock.now())
    with record.transaction() as connection:
        run = record.begin_run(connection, now, f"{action} remove", author, __version__)
        connection.execute(
            "UPDATE rule SET removed = ?, until = ?, removed_by = ?, removed_reason = ? WHERE id = ?",
            (now, run, author, reason, number),
        )
        record.bump(connection)
        record.event(connection, now, run, f"{action} removed", author, rule=number, name=row[2], reason=reason)
        record.finish_run(run, clock.text(clock.now()))
    return Rule(row[0], row[1], row[2], KINDS[row[3] - 1], bool(row[4]), *row[5:])


def release_hold(record: Record, what: str, *, reason: str, author: str) -> str:
    """Let a held name pass until it is revoked. Raises IndicatorError when nothing holds it."""
    name = recognise(what).name
    _require(reason)
    if record.connection.execute("SELECT 1 FROM hold WHERE name = ? AND until IS NULL", (name,)).fetchone() is None:
        raise IndicatorError(f"{name} is not held", hint="'blocklist held' lists what is; 'blocklist why' says more")
    if name in record.released_names():
        raise IndicatorError(f"{name} was let pass already", hint=f"'blocklist why {name}' says by whom")
    now = clock.text(clock.now())
    with record.transaction() as connection:
        run = record.begin_run(connection, now, "held release", author, __version__)
        connection.execute(
            "INSERT INTO hold_release (name, reason, author, created, since) VALUES (?, ?, ?, ?, ?)",
            (name, reason, author, now, run),
        )
        record.bump(connection)
        record.event(connection, now, run, "hold released", author, name=name, reason=reason)
        record.finish_run(run, clock.text(clock.now()))
    return name


def revoke_hold(record: Record, what: str, *, reason: str, author: str) -> str:
    """Take a release of a hold back. Raises IndicatorError when there is none."""
    name = recognise(what).name
    _require(reason)
    if name not in record.released_names():
        raise IndicatorError(f"nobody let {name} pass", hint="'blocklist held --released' lists those that were")
    now = clock.text(clock.now())
    with record.transaction() as connection:
        run = record.begin_run(connection, now, "held revoke", author, __version__)
        connection.execute(
            "UPDATE hold_release SET revoked = ?, until = ?, revoked_by = ?, revoked_reason = ? "
            "WHERE name = ? AND until IS NULL",
            (now, run, author, reason, name),
        )
        record.bump(connection)
        record.event(connection, now, run, "hold release revoked", author, name=name, reason=reason)
        record.finish_run(run, clock.text(clock.now()))
    return name


def approve_release(record: Record, export: str, number: int | None, *, author: str) -> int:
    """Let the newest held release of `export` (or release `number`) through its gate. Raises IndicatorError."""
    row = record.connection.execute(
        "SELECT id, state, note FROM release WHERE export = ? AND (?2 IS NULL OR id = ?2) ORDER BY id DESC LIMIT 1",
        (export, number),
    ).fetchone()
    if row is None or row[1] != "held":
        raise IndicatorError(f"no release of {export} is held", hint="'blocklist release' lists them")
    now = clock.text(clock.now())
    with record.transaction() as connection:
        run = record.begin_run(connection, now, "release approve", author, __version__)
        connection.execute(
            "UPDATE release SET note = 'approved by ' || ? || ' at ' || ? || ': ' || note WHERE id = ?",
            (author, now, row[0]),
        )
        record.event(connection, now, run, "release approved", author, export=export, release=row[0])
        record.finish_run(run, clock.text(clock.now()))
    return int(row[0])


__all__: Sequence[str] = [
    "Added",
    "add_rule",
    "approve_release",
    "release_hold",
    "remove_rule",
    "revoke_hold",
    "until_text",
]
