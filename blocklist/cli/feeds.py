"""`blocklist feeds`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import click

from blocklist.catalog import Feed, FormatName
from blocklist.cli import feeds_choose, feeds_list, feeds_overlap
from blocklist.cli.screen import ListingGroup, Screen, moment, number, safe, shared_options
from blocklist.cli.setup import configuration
from blocklist.config import Config
from blocklist.decode import nearest


@click.group("feeds", cls=ListingGroup)
def command() -> None:
    """Sources: what the catalogue knows, what each brought, and a trial of a new one.

    \b
    Examples:
      blocklist feeds
      blocklist feeds sets
      blocklist feeds enable set:attack
      blocklist feeds show cert-pl
      blocklist feeds test downloaded.txt
      blocklist feeds overlap
    """


command.add_command(feeds_list.listing)
command.add_command(feeds_list.sets)
command.add_command(feeds_choose.enable)
command.add_command(feeds_choose.disable)
command.add_command(feeds_overlap.command)


@command.command("show")
@click.argument("feed")
@shared_options
def show(screen: Screen, feed: str) -> int:
    """One feed: its facts, its state, and what became of every line of its snapshots."""
    config, _ = configuration(screen)
    if feed not in config.catalog:
        raise click.UsageError(f"no feed {feed!r}{nearest(feed, config.catalog)}")
    import msgspec

    facts: dict[str, Any] = msgspec.to_builtins(config.catalog[feed])
    snapshots = _snapshots(config, feed)
    screen.json({**facts, "enabled_here": feed in config.feeds, "snapshots": snapshots})
    for key, value in facts.items():
        screen.line(f"{key:15} {safe(str(value))}")
    for s in snapshots:
        screen.line(f"\nsnapshot {s['id']} ({s['state']}) of {moment(s['fetched'])}, sha256 {s['sha256']}")
        account = s["account"]
        screen.line(
            f"  {s['bytes']:,} bytes read as {account['format']}: {account['lines']:,} lines = "
            + ", ".join(f"{n:,} {k}" for k, n in account["indicators"].items())
            + f", {account['comments']:,} comments, {account['blank']:,} blank"
        )
        for reason, count in account["rejects"].items():
            screen.line(f"  refused: {count:,} {reason}")
        if s["gate"]:
            screen.line(f"  waits: {safe(s['gate'])}")
            screen.line(f"  accept it with 'blocklist update --accept {feed}'")
    return 0


def _snapshots(config: Config, feed: str) -> list[dict[str, Any]]:
    """The newest snapshots of a feed; none when there is no record yet."""
    from blocklist.store.database import open_for_reading, path_in

    if not path_in(config.state).exists():
        return []
    db = open_for_reading(config.state)
    names = ("id", "state", "sha256", "bytes", "fetched", "entries", "account", "gate", "url")
    rows = db.execute(
        f"SELECT {', '.join('s.' + n for n in names)} FROM snapshot s JOIN feed f ON f.id = s.feed "
        "WHERE f.name = ? ORDER BY s.id DESC LIMIT 5",
        (feed,),
    ).fetchall()
    db.close()
    return [{**dict(zip(names, row, strict=True)), "account": json.loads(row[6])} for row in rows]


@command.command("test")
@click.argument("what", metavar="ID|FILE|URL")
@click.option(
    "--format", "fmt", default=None, metavar="FORMAT", help="Read it so; otherwise as configured, or by its looks."
)
@shared_options
def test(screen: Screen, what: str, fmt: str | None) -> int:
    """Read a feed, file or URL and say what every line becomes. Nothing is recorded."""
    config, _ = configuration(screen)
    import time

    import msgspec

    from blocklist.ingest.parse import parse

    started = time.perf_counter()
    if what in config.catalog:
        feed = config.catalog[what]
    else:
        url = what if what.startswith(("http://", "https://", "file:")) else f"file:{Path(what).absolute()}"
        feed = Feed(id=Path(what).name or "test", title=what, url=url, category="other", allow_private=True)
    if fmt is not None:
        if fmt not in get_args(FormatName):
            raise click.UsageError(f"no format {fmt!r}{nearest(fmt, get_args(FormatName))}")
        feed = msgspec.structs.replace(feed, format=fmt)
    parsed = parse(_bytes(config, feed), feed)
    examples = parsed.frame.head(5)["name"].to_list()
    result = {
        "format": parsed.format,
        "lines": parsed.lines,
        "blank": parsed.blank,
        "comments": parsed.comments,
        "indicators": parsed.kinds,
        "rejects": {r.value: n for r, n in parsed.rejects.items()},
        "extra": parsed.extra,
        "examples": examples,
        "seconds": round(time.perf_counter() - started, 3),
    }
    screen.json(result)
    screen.line(
        f"read as {parsed.format}: {parsed.lines:,} lines, {parsed.comments:,} comments, {parsed.blank:,} blank"
    )
    for kind, count in parsed.kinds.items():
        screen.line(f"  {number(count):>12} {kind}")
    for reason, count in parsed.rejects.items():
        screen.line(f"  {number(count):>12} refused: {reason.value}")
    screen.line(f"{parsed.frame.height:,} different indicators, such as {', '.join(map(safe, examples)) or 'none'}")
    return 0


def _bytes(config: Config, feed: Feed) -> bytes:
    """The feed's bytes, fetched as an update would."""
    import tempfile

    from blocklist.errors import FeedError
    from blocklist.ingest.fetch import Request, fetch
    from blocklist.quantities import parse_size

    with tempfile.TemporaryDirectory(prefix="blocklist-test-") as folder:
        request = Request(
            feed=feed.id,
            urls=feed.urls,
            mirrors=tuple(feed.mirrors),
            max_size=parse_size(feed.max_size),
            allow_private=feed.allow_private,
            base=config.base,
        )
        done = fetch([request], into=Path(folder))[0]
        if done.path is None:
            raise FeedError(f"{feed.id}: {done.error}", hint=done.hint)
        return done.path.read_bytes()
