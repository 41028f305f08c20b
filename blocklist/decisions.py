"""What persons decide: rules, releases of holds, approvals. Each is recorded with who, when and why."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from blocklist import clock
from blocklist.audit import Thing, recognise
from blocklist.catalog import KINDS
from blocklist.dates import day_end, utc
from blocklist.errors import IndicatorError
from blocklist.names import parents
from blocklist.publish import left_out
from blocklist.quantities import parse_duration
from blocklist.rules import Rule, rules_where
from blocklist.select.address import parse_one
from blocklist.store import kept
from blocklist.store.record import Record, Run


class Added(msgspec.Struct, frozen=True):
    """A new rule, and how many listed names it covers (`frees`), and the nearest listed name above it."""

    id: int
    name: str
    kind: str
    subtree: bool
    frees: int
    above: str | None = None


def until_text(text: str | None, now: datetime, option: str = "--until") -> str | None:
    """The end of a rule: a date (the end of that local day), or a span such as `30d` from `now`; RFC 3339.

    Raises IndicatorError when it is neither, lies in the past, or is a local time that comes twice or never.
    """
    if text is None:
        return None
    try:
        end = now + timedelta(seconds=parse_duration(text))
    except (ValueError, OverflowError):
        try:
            moment = datetime.fromisoformat(text)
            whole = not {"T", " ", ":"} & set(text)
            end = day_end(moment.date()) if whole else utc(moment, text, option)
        except (ValueError, OverflowError):
            raise IndicatorError(
                f"{option} {text!r} is no date and no span", hint="write 2026-12-31, 2026-12-31T18:00 or 30d"
            ) from None
    if end <= now:
        raise IndicatorError(f"{option} {text!r} lies in the past", hint="a rule must end after it begins")
    return clock.text(end)


class Wanted(msgspec.Struct, frozen=True):
    """A rule as a person asks for it: `what` in any spelling, `until` a date or a span (see `until_text`)."""

    what: str
    reason: str
    ticket: str | None = None
    until: str | None = None
    exact: bool = False


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
    rule = _prepared(Wanted(what, reason, ticket, until, exact), clock.now())
    if (standing := _standing(record, action, rule)) is not None:
        raise IndicatorError(
            f"rule {standing} says '{action} {rule.thing.name}' already",
            hint=f"to change it: 'blocklist {action} remove {standing} --reason …', then add it again",
        )
    frees = listed_under(record, rule.thing, rule.subtree)
    number = _write(record, action, [rule], author, f"{action} add")[0]
    thing = rule.thing
    return Added(number, thing.name, thing.kind, rule.subtree, frees, listed_above(record, thing))


class Imported(msgspec.Struct, frozen=True):
    """`numbers` of new rules, how many stood already, and of these those with another end.

    `otherwise`: number, name, the end that stands and the one that was asked for (RFC 3339; None: no end).
    """

    numbers: list[int]
    standing: int
    otherwise: list[tuple[int, str, str | None, str | None]]


def add_rules(
    record: Record, action: str, wanted: Sequence[tuple[str, Wanted]], *, author: str, command: str
) -> Imported:
    """Record many rules at once, all or none.

    `wanted` gives each with the place it comes from, such as `rules.csv:4`. Raises IndicatorError that names every
    place that is wrong.
    """
    now = clock.now()
    rules: dict[tuple[str, bool], _Prepared] = {}
    wrong: list[str] = []
    standing = 0
    otherwise: dict[int, tuple[int, str, str | None, str | None]] = {}
    for place, one in wanted:
        try:
            rule = _prepared(one, now)
        except IndicatorError as error:
            wrong.append(f"{place}: {error.message}")
            continue
        key = (rule.thing.name, rule.subtree)
        stands = _standing(record, action, rule)
        if key in rules or stands is not None:
            standing += 1
        else:
            rules[key] = rule
        if stands is not None and not _is_span(one.until) and (end := _end_of(record, stands)) != rule.expires:
            otherwise[stands] = (stands, rule.thing.name, end, rule.expires)
    if wrong:
        more = [f"and {len(wrong) - _SHOWN:,} more"] if len(wrong) > _SHOWN else []
        raise IndicatorError(
            "\n".join([*wrong[:_SHOWN], *more]), hint="nothing was recorded; mend these lines and run the command again"
        )
    numbers = _write(record, action, list(rules.values()), author, command) if rules else []
    return Imported(numbers, standing, list(otherwise.values()))


_SHOWN = 20


def _is_span(text: str | None) -> bool:
    """`30d`: an end that moves with every import."""
    try:
        return text is not None and parse_duration(text) >= 0
    except ValueError:
        return False


def _end_of(record: Record, number: int) -> str | None:
    row = record.connection.execute("SELECT expires FROM rule WHERE id = ?", (number,)).fetchone()
    return None if row is None else row[0]


class _Prepared(msgspec.Struct, frozen=True):
    thing: Thing
    subtree: bool
    expires: str | None
    wanted: Wanted


def _prepared(wanted: Wanted, now: datetime) -> _Prepared:
    thing = recognise(wanted.what)
    if thing.kind in ("ipv4", "ipv6") and thing.name.endswith("/0"):
        raise IndicatorError(
            f"{wanted.what}: a rule for the whole Internet is not taken", hint="name the networks meant"
        )
    require_reason(wanted.reason)
    if wanted.exact and thing.kind != "domain":
        means = "a URL is that URL alone" if thing.kind == "url" else "a network is all its addresses"
        raise IndicatorError(
            f"{wanted.what}: exact is for names, which else stand for all below them; {means}",
            hint="leave 'exact' out",
        )
    return _Prepared(thing, thing.kind == "domain" and not wanted.exact, until_text(wanted.until, now), wanted)


def _standing(record: Record, action: str, rule: _Prepared) -> int | None:
    """The rule in force that says the same, if there is one."""
    row = record.connection.execute(
        "SELECT id FROM rule WHERE action = ? AND name = ? AND subtree = ? AND until IS NULL "
        "AND (expires IS NULL OR expires > ?)",
        (action, rule.thing.name, int(rule.subtree), clock.text(clock.now())),
    ).fetchone()
    return None if row is None else int(row[0])


def _write(record: Record, action: str, rules: Sequence[_Prepared], author: str, command: str) -> list[int]:
    """Rules and their events in one transaction; the numbers given."""
    with record.new_run(command, author) as run:
        numbers = [_insert(run, action, rule) for rule in rules]
        record.bump(run.connection)
    return numbers


def _insert(run: Run, action: str, rule: _Prepared) -> int:
    """A rule and its event; the number given."""
    thing, wanted = rule.thing, rule.wanted
    cursor = run.connection.execute(
        "INSERT INTO rule (action, name, kind, subtree, reason, ticket, author, created, since, expires) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            action,
            thing.name,
            KINDS.index(thing.kind) + 1,
            int(rule.subtree),
            wanted.reason,
            wanted.ticket,
            run.by,
            run.at,
            run.id,
            rule.expires,
        ),
    )
    number = cursor.lastrowid
    assert number is not None
    run.event(
        f"{action} added",
        rule=number,
        name=thing.name,
        subtree=rule.subtree,
        reason=wanted.reason,
        ticket=wanted.ticket,
        expires=rule.expires,
    )
    return number


def allow_within(run: Run, wanted: Wanted) -> int:
    """An allow as a part of another decision; its number.

    Raises IndicatorError for what no rule may name, or for one that stands already.
    """
    rule = _prepared(wanted, clock.parse(run.at))
    if (standing := _standing(run.record, "allow", rule)) is not None:
        raise IndicatorError(f"rule {standing} allows {rule.thing.name} already", hint="leave out --allow")
    number = _insert(run, "allow", rule)
    run.record.bump(run.connection)
    return number


def end_within(run: Run, number: int, *, reason: str) -> None:
    """End a rule as a part of another decision, unless a person ended it already."""
    db = run.connection
    row = db.execute("SELECT action, name FROM rule WHERE id = ? AND until IS NULL", (number,)).fetchone()
    if row is None:
        return
    db.execute(
        "UPDATE rule SET removed = ?, until = ?, removed_by = ?, removed_reason = ? WHERE id = ?",
        (run.at, run.id, run.by, reason, number),
    )
    run.record.bump(db)
    run.event(f"{row[0]} removed", rule=number, name=row[1], reason=reason)


def require_reason(reason: str) -> None:
    """Raises IndicatorError for a reason that says nothing."""
    if not reason.strip():
        raise IndicatorError("--reason is empty", hint="say why: whoever asks in a year reads only this")


# A reference names what must not be blocked: to stand in one is not to be listed.
_BY_NO_REFERENCE = (
    "(SELECT v.category FROM feed_version v WHERE v.feed = listing.feed ORDER BY v.since DESC LIMIT 1) <> 'reference'"
)


def listed_under(record: Record, thing: Thing, subtree: bool) -> int:
    """How many listed names or networks a rule for `thing` covers."""
    if thing.kind == "domain":
        row = record.connection.execute(
            "SELECT count(DISTINCT name) FROM listing WHERE kind = 1 AND "
            f"(name = ?1 OR (?2 AND substr(name, -length(?1) - 1) = '.' || ?1)) AND {_BY_NO_REFERENCE}",
            (thing.name, subtree),
        ).fetchone()
        return int(row[0])
    if thing.kind == "url":
        row = record.connection.execute(
            f"SELECT count(*) > 0 FROM listing WHERE name = ? AND {_BY_NO_REFERENCE}", (thing.name,)
        ).fetchone()
        return int(row[0])
    kind = KINDS.index(thing.kind) + 1
    listed = record.connection.execute(
        f"SELECT DISTINCT name FROM listing WHERE kind = ? AND {_BY_NO_REFERENCE}", (kind,)
    )
    ranges = (found for (name,) in listed if (found := parse_one(name)) is not None)
    return sum(first <= thing.last and last >= thing.first for _, first, last in ranges)


def listed_above(record: Record, thing: Thing) -> str | None:
    """The nearest listed name above a domain: what most often makes a person write an allow."""
    for name in parents(thing.name) if thing.kind == "domain" else ():
        query = f"SELECT 1 FROM listing WHERE name = ? AND {_BY_NO_REFERENCE}"
        if record.connection.execute(query, (name,)).fetchone():
            return name
    return None


def remove_rules(
    record: Record,
    action: str,
    numbers: Sequence[int] = (),
    named: Sequence[tuple[str, Wanted]] | None = None,
    ticket: str | None = None,
    *,
    reason: str,
    author: str,
) -> list[Rule]:
    """End rules at once, all or none: those of `numbers`, or those that `named` names and that bear `ticket`.

    They stay in the record with who ended them and why. A name means its rules of either scope, unless it is wanted
    `exact`; one that no rule names is passed over.
    Raises IndicatorError for a number that is no rule in force, for what is no name, and when nothing is left to end.
    """
    require_reason(reason)
    now = clock.text(clock.now())
    standing = {rule.id: rule for rule in rules_where(record.connection, "action = ? AND until IS NULL", (action,))}
    shows = f"'blocklist {action} list' shows them"
    if missing := [str(n) for n in numbers if n not in standing]:
        raise IndicatorError(f"there is no {action} rule {' and no '.join(missing[:_SHOWN])}", hint=shows)
    if numbers:
        ended = [standing[n] for n in dict.fromkeys(numbers)]
    else:
        wanted = None if named is None else _meant(named)
        ended = [
            rule
            for rule in standing.values()
            if (rule.expires is None or rule.expires > now)
            and (ticket is None or rule.ticket == ticket)
            and (wanted is None or (rule.name, rule.subtree) in wanted)
            and (wanted is not None or ticket is not None)
        ]
    if not ended:
        raise IndicatorError(f"no {action} rule in force is meant by that", hint=shows)
    with record.new_run(f"{action} remove", author) as run:
        for rule in ended:
            end_within(run, rule.id, reason=reason)
    return ended


def _meant(named: Sequence[tuple[str, Wanted]]) -> set[tuple[str, bool]]:
    """Names and scopes of the rules that `named` may mean: an exact one, and unless it is wanted so, the subtree."""
    wrong, found = [], set()
    for place, one in named:
        try:
            name = recognise(one.what).name
        except IndicatorError as error:
            wrong.append(f"{place}: {error.message}")
            continue
        found.add((name, False))
        if not one.exact:
            found.add((name, True))
    if wrong:
        more = [f"and {len(wrong) - _SHOWN:,} more"] if len(wrong) > _SHOWN else []
        raise IndicatorError(
            "\n".join([*wrong[:_SHOWN], *more]), hint="nothing has ended; mend these lines and run the command again"
        )
    return found


def release_hold(record: Record, what: str, *, reason: str, author: str) -> str:
    """Let a held name pass until it is revoked. Raises IndicatorError when nothing holds it."""
    name = recognise(what).name
    require_reason(reason)
    if not _is_held(record, name):
        raise IndicatorError(f"{name} is not held", hint="'blocklist held' lists what is; 'blocklist why' says more")
    if name in record.released_names():
        raise IndicatorError(f"{name} was let pass already", hint=f"'blocklist why {name}' says by whom")
    with record.new_run("held release", author) as run:
        run.connection.execute(
            "INSERT INTO hold_release (name, reason, author, created, since) VALUES (?, ?, ?, ?, ?)",
            (name, reason, author, run.at, run.id),
        )
        record.bump(run.connection)
        run.event("hold released", name=name, reason=reason)
    return name


def _is_held(record: Record, name: str) -> bool:
    """By the record, or where no feed lists it any more, in a release that an export is pinned to."""
    db = record.connection
    if db.execute("SELECT 1 FROM hold WHERE name = ? AND until IS NULL", (name,)).fetchone() is not None:
        return True
    texts = db.execute(
        "SELECT r.left_out FROM release r JOIN pin p ON p.export = r.export AND p.until IS NULL "
        "WHERE r.state = 'live' AND r.left_out IS NOT NULL"
    )
    return any(left_out.held(kept.read(record.state, digest), name) for (digest,) in texts.fetchall())


def revoke_hold(record: Record, what: str, *, reason: str, author: str) -> str:
    """Take a release of a hold back. Raises IndicatorError when there is none."""
    name = recognise(what).name
    require_reason(reason)
    if name not in record.released_names():
        raise IndicatorError(f"nobody let {name} pass", hint="'blocklist held --released' lists those that were")
    with record.new_run("held revoke", author) as run:
        run.connection.execute(
            "UPDATE hold_release SET revoked = ?, until = ?, revoked_by = ?, revoked_reason = ? "
            "WHERE name = ? AND until IS NULL",
            (run.at, run.id, author, reason, name),
        )
        record.bump(run.connection)
        run.event("hold release revoked", name=name, reason=reason)
    return name


def approve_release(record: Record, export: str, number: int | None, *, author: str) -> int:
    """Let the newest held release of `export` (or release `number`) through its gate. Raises IndicatorError."""
    row = record.connection.execute(
        "SELECT id, state, note FROM release WHERE export = ? AND (?2 IS NULL OR id = ?2) ORDER BY id DESC LIMIT 1",
        (export, number),
    ).fetchone()
    if row is None or row[1] != "held":
        raise IndicatorError(f"no release of {export} is held", hint="'blocklist release' lists them")
    with record.new_run("release approve", author) as run:
        run.connection.execute(
            "UPDATE release SET note = 'approved by ' || ? || ' at ' || ? || ': ' || note WHERE id = ?",
            (author, run.at, row[0]),
        )
        run.event("release approved", export=export, release=row[0])
    return int(row[0])


__all__: Sequence[str] = [
    "Added",
    "Imported",
    "Wanted",
    "add_rule",
    "add_rules",
    "allow_within",
    "approve_release",
    "end_within",
    "release_hold",
    "remove_rules",
    "require_reason",
    "revoke_hold",
    "until_text",
]
