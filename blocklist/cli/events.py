"""`blocklist events`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from blocklist.cli.screen import ListingGroup, Screen, moment, safe, shared_options
from blocklist.config import Config, load


@click.group("events", cls=ListingGroup)
def command() -> None:
    """The log of what persons decided and what was published; each event is chained to the one before by SHA-256.

    \b
    Examples:
      blocklist events list --since 7d
      blocklist events head >> /mnt/elsewhere/heads.txt
      blocklist events verify --anchors /mnt/elsewhere/heads.txt
    """


@command.command("list")
@click.option("--since", metavar="DATE", help="From then on: 2026-11-01, 2026-11-01T18:00, or a span such as 7d.")
@click.option("--all", "everything", is_flag=True, help="All of them, not the newest 50.")
@shared_options
def listing(screen: Screen, since: str | None, everything: bool) -> int:
    """Events in their order; with --json, an object each, digest and all."""
    from collections import deque

    from blocklist import clock
    from blocklist.store import ledger
    from blocklist.store.database import explained, open_for_reading, path_in

    config = load(screen.config_path)
    start = _since(since)
    db = open_for_reading(config.state)
    with explained(path_in(config.state)):
        found = ledger.events(db, since=clock.text(start) if start else None)
        kept = deque(found, None if everything or since or screen.as_json else 50)
    db.close()
    for e in kept:
        screen.json(
            {
                "id": e.id,
                "at": e.at,
                "run": e.run,
                "what": e.what,
                "who": e.who,
                "detail": _detail(e.detail),
                "previous": e.previous,
                "digest": e.digest,
            }
        )
    rows = [(e.id, moment(e.at), e.who, e.what, _in_words(_detail(e.detail))) for e in kept]
    screen.table(("id", "at", "who", "what", ""), rows, right=(0,))
    older = kept[0].id - 1 if kept and not since and kept[0].id > 1 else 0
    screen.line(f"{len(kept):,} events" + (f"; {older:,} older ones: --all" if older else ""))
    return 0


@command.command("head")
@shared_options
def head(screen: Screen) -> int:
    """The newest event as `ID:DIGEST`, to be kept where whoever may write the record can't: another machine, a printout.

    One line a call, so that a timer can append them to a file; 'events verify --anchors' reads that file.
    """
    from blocklist import clock
    from blocklist.store import ledger
    from blocklist.store.database import explained, open_for_reading, path_in

    config = load(screen.config_path)
    db = open_for_reading(config.state)
    with explained(path_in(config.state)):
        found = ledger.head(db)
    db.close()
    at = clock.text(clock.now())
    screen.json({"id": found.id, "digest": found.digest, "at": at})
    if not screen.as_json:
        click.echo(f"{found} {at}")
    return 0


@command.command("verify")
@click.option("--head", "heads", multiple=True, metavar="ID:DIGEST", help="A head that was kept elsewhere.")
@click.option(
    "--anchors", type=click.Path(path_type=Path), metavar="FILE", help="A file of heads, one a line, as 'head' writes."
)
@shared_options
def verify(screen: Screen, heads: tuple[str, ...], anchors: Path | None) -> int:
    """Was the log edited, cut, put in another order, or the record changed past it? Exit code 1 when it was.

    Without a head that was kept elsewhere, a log that was cut at its end, or written anew as a whole, can't be told
    from a true one.
    """
    from blocklist.store import ledger
    from blocklist.store.database import explained, open_for_reading, path_in

    config = load(screen.config_path)
    known = _heads(heads, anchors)
    db = open_for_reading(config.state)
    with explained(path_in(config.state)):
        db.execute("BEGIN")
        troubles = [*ledger.verify(db, known), *ledger.compare(db)]
        end = ledger.head(db)
        (count,) = db.execute("SELECT count(*) FROM event").fetchone()
    db.close()
    for trouble in troubles:
        screen.json({"event": trouble.event, "text": trouble.text})
    for trouble in troubles[:_SHOWN]:
        where = f"event {trouble.event}: " if trouble.event is not None else ""
        screen.line(screen.style("fail", fg="red") + f"  {where}{safe(trouble.text)}")
    if len(troubles) > _SHOWN:
        screen.line(f"      and {len(troubles) - _SHOWN:,} more; --json shows every one")
    screen.json({"events": count, "head": str(end), "anchors": len(known), "troubles": len(troubles)})
    if troubles:
        screen.note("keep this record and its backups as they are: 'events verify' on a backup says when it was changed")
        return 1
    screen.line(f"{count:,} events, each chained to the one before; head {end}")
    if known:
        screen.line(f"{len(known):,} heads kept elsewhere are in it")
    else:
        screen.line("not compared with a head kept elsewhere (--head, --anchors): a cut end would not show")
    return 0


_SHOWN = 20


def _since(text: str | None):  # type: ignore[no-untyped-def]
    return None


def _heads(heads: tuple[str, ...], anchors: Path | None):  # type: ignore[no-untyped-def]
    return []


def _detail(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _in_words(detail: object) -> str:
    if not isinstance(detail, dict):
        return str(detail)
    parts = []
    for key, value in detail.items():
        if value is None or value == "":
            continue
        shown = f"{len(value):,}" if isinstance(value, dict | list) else str(value)
        parts.append(f"{key} {shown if len(shown) < 64 else shown[:12] + '…' if key.endswith('digest') or key == 'sha256' else shown[:160]}")
    return ", ".join(parts)


_ = Config
