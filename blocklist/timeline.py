"""What became of one thing, in order: listings, holds, rules, verdicts, and the files that began or ceased to block it.

From the record alone; no column library.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from blocklist import clock
from blocklist.audit import Audit, Thing, around
from blocklist.audit.releases import ELSEWHERE
from blocklist.catalog import KINDS
from blocklist.select.single import Outcome
from blocklist.store.moment import periods
from blocklist.suffixes import SuffixRules, builtin_rules_about

What = Literal["listing", "hold", "rule", "verdict", "release"]
_ORDER: tuple[What, ...] = ("listing", "hold", "verdict", "rule", "release")


@dataclass(frozen=True)
class Happening:
    """One line of a timeline.

    `what` changed, and `how` (`opened`, `changed`, `dropped`, `closed`, `released`, `revoked`, `added`, `removed`,
    `expired`, a status, `dead`, `blocked`, `free`); `name` is the thing or what stands above it; `by` the feed, guard,
    person, resolver or export; `detail` in words; `run` did it.
    """

    at: str
    what: What
    how: str
    name: str
    by: str
    detail: str
    run: int | None = None


@dataclass
class _Gathered:
    """Happenings, and what can change a file: the runs that changed anything, and the moments at which time did."""

    out: list[Happening]
    runs: set[int]
    moments: set[str]
    timed: bool = False


def timeline(audit: Audit, thing: Thing) -> list[Happening]:
    """Everything the record knows about `thing` and what stands above it, the oldest first."""
    db, chain = audit.connection, around(thing)
    found = _Gathered([], set(), set())
    _listings(db, thing, chain, found)
    _holds(db, chain, found)
    _rules(db, thing, chain, found)
    for name in chain if thing.kind == "domain" else ():
        _verdicts(db, thing, name, found)
    _releases(db, audit.judging(thing), found)
    return sorted(found.out, key=lambda h: (h.at, h.run or 0, _ORDER.index(h.what)))


def _listings(db: sqlite3.Connection, thing: Thing, chain: Sequence[str], found: _Gathered) -> None:
    suffixes = builtin_rules_about(chain if thing.kind == "domain" else [])
    months = ", ".join(map(str, periods(db)))
    columns = "name, feed, since, subtree, line, confidence, extra, dropped"
    for name in chain:
        rows = db.execute(
            f"""
            SELECT l.subtree, l.line, l.confidence, l.extra, l.since, l.until, l.cause, l.dropped, f.name,
                   r.started, u.started, d.started
            FROM (SELECT {columns}, NULL AS until, NULL AS cause FROM listing WHERE name = ?1 UNION ALL
                  SELECT {columns}, until, cause FROM listing_closed WHERE period IN ({months}) AND name = ?1) l
            JOIN feed f ON f.id = l.feed JOIN run r ON r.id = l.since
            LEFT JOIN run u ON u.id = l.until LEFT JOIN run d ON d.id = l.dropped ORDER BY l.since, f.name
            """,
            (name,),
        ).fetchall()
        found.timed = found.timed or _ends_by_itself(db, {row[8] for row in rows})
        begun = {(row[8], row[4]) for row in rows}
        ended = {(row[8], row[5]) for row in rows}
        for subtree, line, confidence, extra, since, until, cause, dropped, feed, started, stopped, left in rows:
            found.runs |= {run for run in (since, until, dropped) if run is not None}
            found.timed = found.timed or dropped is not None or "expires" in (extra or "")
            if not _covers(name, thing, bool(subtree), suffixes):
                continue
            told = [f"line {line}", *(["with all below it"] if subtree else [])]
            told += [f"confidence {confidence}"] if confidence is not None else []
            row = json.loads(extra) if extra else {}
            told += [f"{key} {row[key]}" for key in ("category", "reason", "expires") if row.get(key)]
            how = "changed" if (feed, since) in ended else "opened"
            found.out.append(Happening(started, "listing", how, name, feed, ", ".join(told), since))
            if left is not None:
                found.out.append(
                    Happening(left, "listing", "dropped", name, feed, "its feed lists it no more", dropped)
                )
            if stopped is not None and (feed, until) not in begun:
                found.out.append(Happening(stopped, "listing", "closed", name, feed, cause, until))


def _ends_by_itself(db: sqlite3.Connection, feeds: set[str]) -> bool:
    """Had any of these feeds, at any time, a limit after which its listings cease to count?"""
    marks = ", ".join("?" * len(feeds))
    row = db.execute(
        f"SELECT 1 FROM feed f JOIN feed_version v ON v.feed = f.id WHERE f.name IN ({marks}) AND "
        "(v.attributes ->> '$.max_age' IS NOT NULL OR v.attributes ->> '$.linger' IS NOT NULL) LIMIT 1",
        list(feeds),
    ).fetchone()
    return row is not None


def _covers(name: str, thing: Thing, subtree: bool, suffixes: SuffixRules) -> bool:
    """Does a listing of `name` speak of `thing` too?"""
    return name == thing.name or subtree or thing.kind != "domain" or suffixes.is_registrable(name)


def _holds(db: sqlite3.Connection, chain: Sequence[str], found: _Gathered) -> None:
    for name in chain:
        for guard, detail, only, since, until, started, ended in db.execute(
            "SELECT h.guard, h.detail, h.subtree_only, h.since, h.until, r.started, u.started FROM hold h "
            "JOIN run r ON r.id = h.since LEFT JOIN run u ON u.id = h.until WHERE h.name = ? ORDER BY h.since",
            (name,),
        ):
            found.runs |= {run for run in (since, until) if run is not None}
            found.out.append(
                Happening(started, "hold", "opened", name, guard, detail + (", as a subtree" if only else ""), since)
            )
            if ended is not None:
                found.out.append(
                    Happening(ended, "hold", "closed", name, guard, "the guard asks for it no more", until)
                )
        for reason, author, created, since, revoked, until, revoker, why in db.execute(
            "SELECT reason, author, created, since, revoked, until, revoked_by, revoked_reason FROM hold_release "
            "WHERE name = ? ORDER BY id",
            (name,),
        ):
            found.runs |= {run for run in (since, until) if run is not None}
            found.out.append(Happening(created, "hold", "released", name, author, reason, since))
            if revoked is not None:
                found.out.append(Happening(revoked, "hold", "revoked", name, revoker or "", why or "", until))


def _rules(db: sqlite3.Connection, thing: Thing, chain: Sequence[str], found: _Gathered) -> None:
    now = clock.text(clock.now())
    marks = ", ".join("?" * len(chain))
    for row in db.execute(
        "SELECT id, action, name, kind, subtree, reason, ticket, author, created, since, expires, removed, until, "
        f"removed_by, removed_reason FROM rule WHERE name IN ({marks}) ORDER BY id",
        list(chain),
    ):
        number, action, name, kind, subtree, reason, ticket, author, created, since, expires, removed = row[:12]
        until, remover, why = row[12:]
        found.runs |= {run for run in (since, until) if run is not None}
        if KINDS[kind - 1] != thing.kind or (kind == 1 and name != thing.name and not subtree):
            continue
        told = f"{action} (rule {number}): {reason}" + (f", ticket {ticket}" if ticket else "")
        told += f", until {clock.said(expires)}" if expires else ""
        found.out.append(Happening(created, "rule", "added", name, author, told, since))
        if expires is not None:
            found.moments.add(expires)
        if removed is not None:
            found.out.append(
                Happening(removed, "rule", "removed", name, remover or "", f"rule {number}: {why or ''}", until)
            )
        elif expires is not None and expires <= now:
            found.out.append(Happening(expires, "rule", "expired", name, author, f"rule {number} ended by itself"))


def _verdicts(db: sqlite3.Connection, thing: Thing, name: str, found: _Gathered) -> None:
    for status, since, authority, resolver, died, closed, when in db.execute(
        "SELECT x.status, x.since, x.authority, x.resolver, x.died, x.closed, r.started FROM ("
        "SELECT status, since, authority, resolver, died, NULL AS closed FROM verdict WHERE name = ?1 UNION ALL "
        "SELECT status, since, authority, resolver, died, closed FROM verdict_closed WHERE name = ?1) x "
        "LEFT JOIN run r ON r.id = x.died ORDER BY x.since",
        (name,),
    ):
        found.runs |= {run for run in (died, closed) if run is not None}
        if status in ("sinkholed", "parked"):
            # A policy may drop it from then on; with which run it was first asked about, the time tells.
            found.runs |= {
                run
                for (run,) in db.execute(
                    "SELECT id FROM run WHERE started <= ?1 AND coalesce(finished, ?1) >= ?1", (since,)
                )
            }
        if name != thing.name and died is None:
            continue
        told = f"authority {authority}" if authority else ""
        found.out.append(Happening(since, "verdict", status, name, resolver or "", told))
        if died is not None:
            found.out.append(Happening(when, "verdict", "dead", name, resolver or "", "not registered any more", died))


class _Seen(NamedTuple):
    """The release of an export that was looked at last."""

    export: str
    run: int
    judged: str
    made_by: tuple[str | None, str | None]
    elsewhere: bool


def _releases(db: sqlite3.Connection, outcome: Callable[[int], Outcome | None], found: _Gathered) -> None:
    """Where the answer of a file changed. A release is judged only when something since the last could change that."""
    rows = db.execute(
        "SELECT r.id, r.export, r.format, r.run, coalesce(r.judged, r.created), r.published, r.common, r.own, "
        f"{ELSEWHERE} OR r.left_out IS NOT NULL FROM release r WHERE r.published IS NOT NULL "
        "ORDER BY r.export, r.id"
    ).fetchall()
    seen: _Seen | None = None
    blocked = False
    for number, export, fmt, run, judged, published, common, own, elsewhere in rows:
        now = _Seen(export, run, judged, (common, own), bool(elsewhere))
        if seen is None or seen.export != export:
            seen, blocked = None, False
        if seen is not None and _same(seen, now, found):
            seen = now
            continue
        seen = now
        said = outcome(number)
        if said is not None and said.blocked != blocked:
            blocked = said.blocked
            how = "blocked" if blocked else "free"
            told = f"{fmt}, from release {number} on: {said.because}"
            found.out.append(Happening(published, "release", how, said.by or "", export, told, run))


def _same(before: _Seen, now: _Seen, found: _Gathered) -> bool:
    """Can two files in a row only say the same of the thing?"""
    return (
        not found.timed
        and not before.elsewhere
        and not now.elsewhere
        and before.made_by == now.made_by
        and None not in now.made_by
        and not any(before.run < run <= now.run for run in found.runs)
        and not any(before.judged < moment <= now.judged for moment in found.moments)
    )
