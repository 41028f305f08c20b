"""`blocklist events`."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from blocklist.cli.configured import configured
from blocklist.cli.screen import ListingGroup, Screen, moment, safe, several, shared_options

if TYPE_CHECKING:
    from blocklist.store.ledger import Head


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
    """Events in their order; with --json, an object each, digest and all.

    \b
    Examples:
      blocklist events list --since 7d
      blocklist events list --all --json | jq 'select(.what == "allow added")'
    """
    from collections import deque

    from blocklist import clock
    from blocklist.store import ledger
    from blocklist.store.database import reading

    config = configured(screen)
    start = _since(since)
    with reading(config.state) as db:
        found = ledger.events(db, since=clock.text(start) if start else None)
        kept = deque(found, None if everything or since or screen.as_json else 50)
    screen.objects(
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
        for e in kept
    )
    rows = [(e.id, moment(e.at), e.who, e.what, _in_words(_detail(e.detail))) for e in kept]
    screen.table(("id", "at", "who", "what", ""), rows, right=(0,))
    older = kept[0].id - 1 if kept and not since and kept[0].id > 1 else 0
    screen.line(several(len(kept), "event") + (f"; {older:,} older ones: --all" if older else ""))
    return 0


@command.command("head")
@shared_options
def head(screen: Screen) -> int:
    """The newest event as `ID:DIGEST`, to be kept where nobody who may write the record can: elsewhere, on paper.

    One line a call, so that a timer can append them to a file; 'events verify --anchors' reads that file.

    \b
    Example:
      blocklist events head >> /mnt/elsewhere/heads.txt
    """
    from blocklist import clock
    from blocklist.store import ledger
    from blocklist.store.database import reading

    config = configured(screen)
    with reading(config.state) as db:
        found = ledger.head(db)
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

    \b
    Examples:
      blocklist events verify
      blocklist events verify --anchors /mnt/elsewhere/heads.txt
    """
    from blocklist.store import ledger
    from blocklist.store.database import reading

    config = configured(screen)
    known = _heads(heads, anchors)
    with reading(config.state) as db:
        troubles = [*ledger.verify(db, known), *ledger.compare(db)]
        end = ledger.head(db)
        (count,) = db.execute("SELECT count(*) FROM event").fetchone()
    screen.objects({"event": trouble.event, "text": trouble.text} for trouble in troubles)
    for trouble in troubles[:_SHOWN]:
        where = f"event {trouble.event}: " if trouble.event is not None else ""
        screen.line(screen.style("fail", fg="red") + f"  {where}{safe(trouble.text)}")
    if len(troubles) > _SHOWN:
        screen.line(f"      and {len(troubles) - _SHOWN:,} more; --json shows every one")
    screen.json({"events": count, "head": str(end), "anchors": len(known), "troubles": len(troubles)})
    if troubles:
        screen.note(
            "keep this record and its backups as they are: 'events verify' on a backup says when it was changed"
        )
        return 1
    screen.line(f"{several(count, 'event')}, each chained to the one before; head {end}")
    if known:
        screen.line(f"{several(len(known), 'head')} kept elsewhere {'is' if len(known) == 1 else 'are'} in it")
    else:
        screen.line("not compared with a head kept elsewhere (--head, --anchors): a cut end would not show")
    return 0


_SHOWN = 20


def _since(text: str | None) -> datetime | None:
    """A date (the beginning of that local day), a moment, or a span back from now."""
    from blocklist import clock
    from blocklist.dates import past

    return None if text is None else past(text, clock.now(), edge="start", place="--since")


def _heads(texts: tuple[str, ...], anchors: Path | None) -> list[Head]:
    """Heads given on the command line and in a file, with the place of one that is none."""
    from blocklist.errors import IndicatorError
    from blocklist.store.ledger import Head

    given = [("--head", text) for text in texts]
    if anchors is not None:
        try:
            lines = anchors.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise IndicatorError(f"{anchors}: {getattr(error, 'strerror', None) or 'not a text'}") from None
        given += [(f"{anchors}:{n}", line) for n, line in enumerate(lines, start=1) if line.strip()]
        if len(given) == len(texts):
            raise IndicatorError(f"{anchors}: holds no head", hint="'blocklist events head >> FILE' adds one")
    found = []
    for place, text in given:
        try:
            found.append(Head.parse(text))
        except ValueError as error:
            raise IndicatorError(f"{place}: {error}", hint="'blocklist events head' writes one") from None
    return found


def _detail(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _in_words(detail: object) -> str:
    if not isinstance(detail, dict):
        return str(detail)
    return ", ".join(f"{key} {_brief(value)}" for key, value in detail.items() if value not in (None, ""))


def _brief(value: object) -> str:
    if isinstance(value, dict | list):
        few = [str(item)[:40] for item in list(value)[:3]]  # of a table its keys, such as the feeds of lists
        return ", ".join(few) + (f" and {len(value) - len(few):,} more" if len(value) > len(few) else "")
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = str(value)
    if re.fullmatch("[0-9a-f]{64}", text):
        return text[:12] + "…"
    return text if len(text) <= 160 else text[:159] + "…"
