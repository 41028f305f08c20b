"""`blocklist status`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click
from msgspec.structs import asdict

from blocklist.cli import shapes
from blocklist.cli.ending import show_ending
from blocklist.cli.screen import Screen, moment, number, one_line, several, shared_options
from blocklist.cli.setup import configuration
from blocklist.cli.unconfirmed import unconfirmed


@click.command("status")
@shared_options
def command(screen: Screen) -> int:
    """Age and state of every feed, gate, hold and export, on one screen.

    The exit code is for monitoring: 0 all well, 3 a feed failed, is gated or stale, 4 a release is held, or an export
    was not written or not loaded.

    \b
    Examples:
      blocklist status
      blocklist status --quiet || echo "look at it"
      blocklist status --json
    """
    config, _ = configuration(screen)
    from blocklist import clock
    from blocklist.lifetime import stale_since
    from blocklist.publish.failures import failures
    from blocklist.rules import ending_soon
    from blocklist.store.database import reading
    from blocklist.store.feed_pins import feed_pins
    from blocklist.store.moment import last_confirmed

    now = clock.now()
    with reading(config.state) as db:
        known = {
            row[0]: row
            for row in db.execute(
                "SELECT f.name, f.outcome, f.error, f.checked, f.changed, s.entries, "
                "(SELECT g.gate FROM snapshot g WHERE g.feed = f.id AND g.state = 'gated'), "
                "(SELECT g.id FROM snapshot g WHERE g.feed = f.id AND g.state = 'gated') "
                "FROM feed f LEFT JOIN snapshot s ON s.feed = f.id AND s.state = 'current'"
            )
        }
        exports = {
            row[0]: row
            for row in db.execute(
                "SELECT export, state, published, serial, entries, id, reloaded FROM release WHERE state = 'live'"
            )
        }
        held = {
            row[0]: row[1:]
            for row in db.execute(
                "SELECT export, id, note FROM release r WHERE state = 'held' AND note NOT LIKE 'approved%' "
                "AND id > coalesce((SELECT max(id) FROM release x WHERE x.export = r.export AND x.state = 'live'), 0)"
            )
        }
        stands = feed_pins(db)
        pins = {
            row[0]: f"pinned to release {row[1]} by {row[2]}: {row[3]}"
            for row in db.execute("SELECT export, release, author, reason FROM pin WHERE until IS NULL")
        }
        failing = failures(db)
        holds = db.execute("SELECT count(DISTINCT indicator) FROM holds_now WHERE released_by IS NULL").fetchone()[0]
        rules = db.execute(
            "SELECT count(*) FROM rule WHERE until IS NULL AND (expires IS NULL OR expires > ?)", (clock.text(now),)
        ).fetchone()[0]
        run = db.execute("SELECT started, command FROM run ORDER BY id DESC LIMIT 1").fetchone()
        ending = ending_soon(db, now)
        last = last_confirmed(db, now)
    status = 0
    rows: list[tuple[Any, ...]] = []
    for feed in config.feeds.values():
        _, outcome, error, checked, changed, entries, gate, waits = known.get(feed.id, (feed.id,) + (None,) * 7)
        stale = stale_since(feed, changed, now) is not None
        pin = stands.get(feed.id)
        state = (
            "never"
            if outcome is None
            else outcome
            if pin is not None and outcome == "failed"
            else "pinned"
            if pin is not None
            else "gated"
            if gate
            else "stale"
            if stale and outcome != "failed"
            else outcome
        )
        if pin is not None:
            kept_back = f"snapshot {waits} came and waits" if waits else ""
            gate = "; ".join(filter(None, (pin.said, kept_back, error)))
        if state in ("never", "gated", "stale", "failed"):
            status = 3
        rows.append(
            (feed.id, state, number(entries), _age(now, checked), _age(now, changed), one_line(gate or error or ""))
        )
        screen.json(
            {
                "feed": feed.id,
                "state": state,
                "entries": entries,
                "checked": checked,
                "changed": changed,
                "error": (error if pin is not None else gate or error) or None,
                "pinned": shapes.feed_pin(pin),
            }
        )
    screen.table(("feed", "state", "entries", "asked", "changed", ""), rows, right=(2, 3, 4))
    told: list[dict[str, Any]] = []
    for export in config.exports.values():
        live, waits = exports.get(export.name), held.get(export.name)
        unloaded = bool(live and (export.reload or export.primary) and live[6] is None)
        failure = failing.get(export.name)
        status = 4 if waits or unloaded or failure else status
        told.append(
            {
                "name": export.name,
                "format": export.format,
                "state": "shadow"
                if config.policies[export.policy].mode == "shadow"
                else "held"
                if waits
                else "not loaded"
                if unloaded
                else "failed"
                if failure
                else "live"
                if live
                else "never published",
                "entries": live[4] if live else None,
                "published": live[2] if live else None,
                "serial": live[3] if live else None,
                "failing": None if failure is None else asdict(failure),
                "note": "; ".join(
                    x
                    for x in (
                        f"release {waits[0]}: {waits[1]}" if waits else "",
                        failure.said if failure else "",
                        pins.get(export.name),
                    )
                    if x
                ),
            }
        )
    screen.table(
        ("export", "format", "state", "entries", "published", "serial", ""),
        [
            (
                e["name"],
                e["format"],
                e["state"],
                number(e["entries"]),
                moment(e["published"]),
                "" if e["serial"] is None else e["serial"],
                one_line(e["note"]),
            )
            for e in told
        ],
        right=(3,),
    )
    for e in told:
        if e["failing"] is not None and e["failing"]["hint"]:
            screen.note(f"{e['name']}: {one_line(e['failing']['hint'])}")
    show_ending(screen, ending)
    screen.line(
        f"{holds:,} held · {several(rules, 'rule')} · last run {moment(run[0])} ({run[1]})" if run else "no run yet"
    )
    if last is not None:
        screen.line(unconfirmed(clock.text(last)))
    screen.json(
        {
            "held": holds,
            "rules": rules,
            "ending": [shapes.rule(rule) for rule in ending],
            "exports": told,
            "clock_unconfirmed_since": None if last is None else clock.text(last),
            "run": {"started": run[0], "command": run[1]} if run else None,
        }
    )
    return status


def _age(now: datetime, then: str | None) -> str:
    """`5 min`, `3 h`, `2 d` since an RFC 3339 time."""
    from blocklist import clock

    if then is None:
        return "never"
    seconds = int((now - clock.parse(then)).total_seconds())
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{max(seconds, 0)} s"
