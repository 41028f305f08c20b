"""`blocklist feeds`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import click

from blocklist.catalog import Feed, FormatName
from blocklist.cli.overlap import command as overlap_command
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
      blocklist feeds show cert-pl
      blocklist feeds test downloaded.txt
      blocklist feeds overlap
    """


command.add_command(overlap_command)


@command.command("list")
@shared_options
def listing(screen: Screen) -> int:
    """Every feed of the catalogue and of the configuration; `*` marks the enabled."""
    config, _ = configuration(screen)
    rows = []
    for feed in sorted(config.catalog.values(), key=lambda f: (f.category, f.id)):
        on = feed.id in config.feeds
        screen.json(
            {
                "id": feed.id,
                "enabled": on,
                "category": feed.category,
                "confidence": feed.confidence,
                "licence": feed.licence,
                "title": feed.title,
            }
        )
        rows.append(
            ("*" if on else "", feed.id, feed.category, feed.confidence, feed.licence, feed.commercial_use, feed.title)
        )
    screen.table(("", "feed", "category", "confidence", "licence", "commercial use", ""), rows, right=(3,))
    screen.line(f"{len(config.feeds)} of {len(config.catalog)} enabled; choose with [feeds] enable in blocklist.toml")
    return 0


@command.command("show")
@click.argument("feed")
@click.option("--gated", is_flag=True, help="The snapshot that waits at the gate: why, and its first lines.")
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="With --gated: write its bytes to this file.")
@shared_options
def show(screen: Screen, feed: str, gated: bool, output: str | None) -> int:
    """One feed: its facts, its state, and what became of every line of its snapshots.

    \b
    Examples:
      blocklist feeds show cert-pl
      blocklist feeds show openphish --gated -o suspect.txt
    """
    config, _ = configuration(screen)
    if feed not in config.catalog:
        raise click.UsageError(f"no feed {feed!r}{nearest(feed, config.catalog)}")
    if output is not None and not gated:
        raise click.UsageError("-o goes with --gated")
    if gated:
        return _show_gated(screen, config, feed, output)
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
        for note, count in account.get("notes", {}).items():
            screen.line(f"  kept without: {count:,} {note}")
        if s["gate"]:
            screen.line(f"  waits: {safe(s['gate'])}")
            screen.line(f"  accept it with 'blocklist update --accept {feed}'")
    return 0


def _show_gated(screen: Screen, config: Config, feed: str, output: str | None) -> int:
    """What waits for a person: the reason, the counts beside those of the current snapshot, the first lines."""
    from blocklist.errors import FeedError
    from blocklist.store import snapshots as kept
    from blocklist.store.database import open_for_reading

    found = _snapshots(config, feed)
    waiting = next((s for s in found if s["state"] == "gated"), None)
    if waiting is None:
        raise FeedError(f"{feed}: no snapshot waits at its gate", hint="'blocklist status' lists those that do")
    db = open_for_reading(config.state)
    links, at = [], waiting["id"]
    while at is not None:
        links.append(at)
        at = db.execute("SELECT base FROM snapshot WHERE id = ?", (at,)).fetchone()[0]
    current = db.execute(
        "SELECT s.entries, s.fetched FROM snapshot s JOIN feed f ON f.id = s.feed "
        "WHERE f.name = ? AND s.state = 'current'",
        (feed,),
    ).fetchone()
    db.close()
    data = kept.read(config.state, links[::-1])
    if output is not None:
        Path(output).write_bytes(data)
    lines = [line.decode("utf-8", "replace")[:120] for line in data[:65_536].splitlines()[:20]]
    screen.json({**waiting, "current_entries": current and current[0], "first_lines": lines})
    screen.line(f"{feed}: {safe(waiting['gate'])}")
    screen.line(f"fetched {moment(waiting['fetched'])} from {safe(waiting['url'])}, {waiting['bytes']:,} bytes")
    counts = f"{waiting['entries']:,} entries"
    screen.line(counts + (f"; the current one of {moment(current[1])} has {current[0]:,}" if current else ""))
    for line in lines:
        screen.line(f"  | {safe(line)}")
    screen.line(f"written to {output}" if output else f"all of it: blocklist feeds show {feed} --gated -o FILE")
    screen.line(f"accept it with 'blocklist update --accept {feed}'")
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
        "notes": parsed.notes,
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
    for note, count in parsed.notes.items():
        screen.line(f"  {number(count):>12} kept without: {note}")
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
