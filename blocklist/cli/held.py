"""`blocklist held`."""

from __future__ import annotations

import click

from blocklist.cli.rules import publish
from blocklist.cli.screen import ListingGroup, Screen, moment, safe, shared_options
from blocklist.cli.setup import configuration, writing


@click.group("held", cls=ListingGroup)
def command() -> None:
    """What guards withhold: well-known names, public suffixes, shared networks, your own.

    \b
    Examples:
      blocklist held
      blocklist held list --guard public-suffix
      blocklist held release evil.example --reason "confirmed with the registrar" --now
    """


@command.command("list")
@click.option("--guard", help="Only this guard: public-suffix, reference, protect, too-wide.")
@click.option("--released", is_flag=True, help="Those that a person let pass.")
@click.option("--all", "everything", is_flag=True, help="All of them, not the newest 50.")
@shared_options
def listing(screen: Screen, guard: str | None, released: bool, everything: bool) -> int:
    """The holds in force, newest first."""
    config, _ = configuration(screen)
    from blocklist.store.database import explained, open_for_reading, path_in

    db = open_for_reading(config.state)
    with explained(path_in(config.state)):
        where = "WHERE (?1 IS NULL OR guard = ?1) AND (released_by IS NOT NULL) = ?2"
        total = db.execute(f"SELECT count(*) FROM holds_now {where}", (guard, released)).fetchone()[0]
        rows = db.execute(
            "SELECT indicator, guard, withheld_as, detail, since, released_by, released_because, "
            "(SELECT group_concat(f.name, ', ') FROM listing l JOIN feed f ON f.id = l.feed WHERE l.name = indicator) "
            f"FROM holds_now {where} ORDER BY since DESC, indicator LIMIT ?3",
            (guard, released, -1 if everything or screen.as_json else 50),
        ).fetchall()
    db.close()
    for r in rows:
        screen.json(
            dict(
                zip(
                    ("indicator", "guard", "scope", "detail", "since", "released_by", "released_because", "feeds"),
                    r,
                    strict=True,
                )
            )
        )
    screen.table(
        ("held", "as", "guard", "since", "listed by", "because"),
        [
            (r[0], r[2], r[1], moment(r[4]), (r[7] or "")[:40], f"let pass by {r[5]}: {r[6]}" if released else r[3])
            for r in rows
        ],
    )
    screen.line(f"{total:,} held" + (f", {len(rows)} shown; --all shows every one" if len(rows) < total else ""))
    return 0


@command.command("release")
@click.argument("what")
@click.option("--reason", required=True)
@click.option("--now", is_flag=True, help="Publish at once.")
@shared_options
def release(screen: Screen, what: str, reason: str, now: bool) -> int:
    """Let WHAT pass every guard until it is revoked."""
    return _decide(screen, what, reason, now, "release")


@command.command("revoke")
@click.argument("what")
@click.option("--reason", required=True)
@click.option("--now", is_flag=True, help="Publish at once.")
@shared_options
def revoke(screen: Screen, what: str, reason: str, now: bool) -> int:
    """Take a release of WHAT back: guards hold it again."""
    return _decide(screen, what, reason, now, "revoke")


def _decide(screen: Screen, what: str, reason: str, now: bool, verb: str) -> int:
    config, formats = configuration(screen)
    from blocklist.decisions import release_hold, revoke_hold
    from blocklist.person import whoami

    with writing(config, screen, f"held {verb}") as record:
        act = release_hold if verb == "release" else revoke_hold
        name = act(record, what, reason=reason, author=whoami())
        screen.line(f"{safe(name)} {'passes the guards' if verb == 'release' else 'is held again'}")
        screen.json({"what": name, verb: True})
        return publish(screen, config, record, formats) if now else 0
