"""`blocklist held`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from blocklist.cli.rules import IN_FORCE, publish
from blocklist.cli.screen import ListingGroup, Screen, moment, safe, second, shared_options
from blocklist.cli.setup import configuration, writing
from blocklist.config import Config
from blocklist.select.address import parse_one

if TYPE_CHECKING:
    from blocklist.fame import Fame


@click.group("held", cls=ListingGroup)
def command() -> None:
    """What guards withhold: well-known names, public suffixes, shared networks, your own.

    \b
    Examples:
      blocklist held
      blocklist held list --guard public-suffix
      blocklist held --at 2026-03-03
      blocklist held release evil.example --reason "confirmed with the registrar" --now
    """


@command.command("list")
@click.option("--guard", metavar="GUARD", help="Only this guard: public-suffix, reference, protect, too-wide.")
@click.option("--released", is_flag=True, help="Those that a person let pass.")
@click.option("--inform", is_flag=True, help="What references that only inform name: listed, and not held.")
@click.option("--all", "everything", is_flag=True, help="All of them, not the newest 50.")
@click.option("--at", metavar="DATE", help="As of then: 2026-03-03 (its end), 2026-03-03T14:00Z, 7d (ago), yesterday.")
@shared_options
def listing(screen: Screen, guard: str | None, released: bool, inform: bool, everything: bool, at: str | None) -> int:
    """The holds in force, newest first: who lists it, how well known it is, and what else blocking it would take.

    Known as: the rank in the reference feed that ranks it best, else a line of one that names it or what is above it.

    \b
    Examples:
      blocklist held list --guard public-suffix
      blocklist held list --released
      blocklist held list --all --json
    """
    config, _ = configuration(screen)
    if inform and at is not None:
        raise click.UsageError("--inform looks at what is listed now; leave out --at")
    if inform:
        return _informed(screen, config, everything)
    from blocklist import clock
    from blocklist.dates import past
    from blocklist.store.database import reading
    from blocklist.store.moment import run_at

    moment_asked = past(at, clock.now()) if at is not None else None
    with reading(config.state) as db:
        run = run_at(db, moment_asked) if moment_asked is not None else None
        source, feeds = _SOURCES[run is not None]
        where = "WHERE (?1 IS NULL OR guard = ?1) AND (released_by IS NOT NULL) = ?2"
        total, different = db.execute(
            f"SELECT count(*), count(DISTINCT indicator) FROM {source} {where}", (guard, released, -1, run)
        ).fetchone()
        references = [f.id for f in config.feeds.values() if f.is_reference]
        rows = db.execute(
            "SELECT indicator, guard, withheld_as, detail, since, released_by, released_because, "
            f"(SELECT group_concat(f.name, ', ') FROM ({feeds}) l JOIN feed f ON f.id = l.feed "
            "WHERE f.name NOT IN (SELECT value FROM json_each(?5))) "
            f"FROM {source} {where} ORDER BY since DESC, indicator LIMIT ?3",
            (guard, released, -1 if everything or screen.as_json else 50, run, json.dumps(references)),
        ).fetchall()
        from blocklist.fame import fame_of

        fame = fame_of(config, db, [r[0] for r in rows])
    keys = ("indicator", "guard", "scope", "detail", "since", "released_by", "released_because", "feeds")
    screen.objects({**dict(zip(keys, r, strict=True)), "feeds": _split(r[7]), **asdict(fame[r[0]])} for r in rows)
    screen.table(
        ("held", "as", "guard", "since", "listed by", "known as", "would block", "because"),
        [
            (
                r[0],
                r[2],
                r[1],
                moment(r[4]),
                (r[7] or "")[:40],
                _place(r[0], fame[r[0]]),
                _reach(r[0], fame[r[0]]),
                f"let pass by {r[5]}: {r[6]}" if released else r[3],
            )
            for r in rows
        ],
    )
    when = f" as of {second(clock.text(moment_asked))}" if moment_asked is not None else ""
    holds = f" by {total:,} holds" if total != different else ""
    screen.line(
        f"{different:,} held{holds}{when}"
        + (f", {len(rows)} shown; --all shows every one" if len(rows) < total else "")
    )
    return 0


# Where holds come from, and the feeds that list `indicator`: now, and as of run ?4.
_SOURCES = (
    ("(SELECT *, ?4 FROM holds_now)", "SELECT feed FROM listing WHERE name = indicator"),
    (
        """
        (SELECT h.name AS indicator, h.guard, CASE h.subtree_only WHEN 1 THEN 'subtree' ELSE 'exact' END AS withheld_as,
                h.detail, r.started AS since, x.author AS released_by, x.reason AS released_because
         FROM hold h JOIN run r ON r.id = h.since
         LEFT JOIN hold_release x ON x.name = h.name AND x.since <= ?4 AND (x.until IS NULL OR x.until > ?4)
         WHERE h.since <= ?4 AND (h.until IS NULL OR h.until > ?4))
        """,
        "SELECT feed FROM listing WHERE name = indicator AND since <= ?4 UNION "
        "SELECT feed FROM listing_closed WHERE period IN (SELECT DISTINCT CAST(strftime('%Y%m', started) AS INTEGER) "
        "FROM run WHERE id >= ?4) AND name = indicator AND since <= ?4 AND until > ?4",
    ),
)


def _split(feeds: str | None) -> list[str]:
    """Feeds that SQLite has put together; an id holds no comma."""
    return feeds.replace(" ", "").split(",") if feeds else []


def _place(name: str, fame: Fame) -> str:
    """`rank 12 of tranco`, `line 7 of …` where the order is none, with what is named there where that stands above."""
    if fame.reference is None:
        return "–"
    above = "" if fame.under == name else f", {fame.under}"
    place = f"line {fame.line}" if fame.rank is None else f"rank {fame.rank:,}"
    return f"{place} of {fame.reference}{above}"


def _reach(name: str, fame: Fame) -> str:
    """What blocking it takes along: well-known names below, or so many addresses."""
    if fame.below:
        more = ", …" if fame.below > len(fame.examples) else ""
        return f"{fame.below:,} known below: {', '.join(fame.examples)}{more}"
    parsed = parse_one(name)
    return f"{parsed[2] - parsed[1] + 1:,} addresses" if parsed is not None and parsed[1] != parsed[2] else "itself"


def _informed(screen: Screen, config: Config, everything: bool) -> int:
    """Listed names that a reference with `action = "inform"` names, itself or without `www.`"""
    from blocklist.store.database import reading

    references = [f.id for f in config.feeds.values() if f.is_reference]
    informing = [f.id for f in config.feeds.values() if f.is_reference and f.action == "inform"]
    every, some = (", ".join("?" * len(ids)) for ids in (references, informing))
    with reading(config.state) as db:
        rows = db.execute(
            "SELECT l.name, group_concat(DISTINCT lf.name), min(rf.name), min(r.line) "
            "FROM feed rf CROSS JOIN listing r ON r.feed = rf.id "
            "CROSS JOIN listing l ON l.name IN (r.name, 'www.' || r.name) JOIN feed lf ON lf.id = l.feed "
            f"WHERE rf.name IN ({some}) AND lf.name NOT IN ({every}) GROUP BY l.name ORDER BY l.name",
            (*informing, *references),
        ).fetchall()
    shown = rows if everything or screen.as_json else rows[:50]
    screen.objects({"indicator": r[0], "feeds": _split(r[1]), "reference": r[2], "line": r[3]} for r in shown)
    screen.table(("listed", "by", "named by"), [(r[0], r[1], f"{r[2]}, line {r[3]}") for r in shown])
    more = f", {len(shown)} shown; --all shows every one" if len(shown) < len(rows) else ""
    screen.line(f"{len(rows):,} named by references that only inform{more}; none of them is held for that")
    return 0


@command.command("release")
@click.argument("what")
@click.option("--reason", required=True, help="Why; kept for ever and shown by 'why'.")
@click.option("--now", is_flag=True, help="Publish at once.")
@shared_options
def release(screen: Screen, what: str, reason: str, now: bool) -> int:
    """Let WHAT pass every guard until it is revoked.

    WHAT is a name, an address or a network as 'blocklist held' shows it. What its feeds say then counts again; that
    it is blocked at all is still for the policy.

    \b
    Examples:
      blocklist held release evil.example --reason "confirmed with the registrar" --now
      blocklist held release 192.0.2.0/24 --reason "not ours any more"
    """
    return _decide(screen, what, reason, now, "release")


@command.command("revoke")
@click.argument("what")
@click.option("--reason", required=True, help="Why; kept for ever and shown by 'why'.")
@click.option("--now", is_flag=True, help="Publish at once.")
@shared_options
def revoke(screen: Screen, what: str, reason: str, now: bool) -> int:
    """Take a release of WHAT back: guards hold it again.

    \b
    Example:
      blocklist held revoke evil.example --reason "sold to a bank" --now
    """
    return _decide(screen, what, reason, now, "revoke")


def _decide(screen: Screen, what: str, reason: str, now: bool, verb: str) -> int:
    config, formats = configuration(screen)
    from blocklist.decisions import release_hold, revoke_hold
    from blocklist.person import whoami

    with writing(config, screen, f"held {verb}") as record:
        act = release_hold if verb == "release" else revoke_hold
        name = act(record, what, reason=reason, author=whoami())
        screen.line(f"{safe(name)} {'passes the guards' if verb == 'release' else 'is held again'}")
        screen.json({"what": name, "released": verb == "release"})
        if now:
            return publish(screen, config, record, formats)
        screen.line(IN_FORCE)
        return 0
