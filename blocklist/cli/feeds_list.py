"""`blocklist feeds list` and `blocklist feeds sets`: what there is, what is on, and what it obliges to."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable
from typing import Any

import click

from blocklist.catalog import CATEGORIES, Feed
from blocklist.cli import shapes
from blocklist.cli.screen import Screen, number, safe, shared_options
from blocklist.cli.setup import configuration
from blocklist.config import Config
from blocklist.decode import nearest
from blocklist.sets import PREFIX, consequences, sets_of

# Where nobody looks at a terminal, lines are as long as a wide one.
_WIDTH = (120, 24)


@click.command("list")
@click.option("--category", "categories", multiple=True, metavar="NAME", help="Only this category; may be given again.")
@click.option("--set", "sets", multiple=True, metavar="NAME", help="Only the feeds of this set; may be given again.")
@click.option("--enabled", is_flag=True, help="Only what is enabled here.")
@shared_options
def listing(screen: Screen, categories: tuple[str, ...], sets: tuple[str, ...], enabled: bool) -> int:
    """Every feed of the catalogue and of the configuration, by category; `*` marks the enabled.

    \b
    Examples:
      blocklist feeds list --category phishing
      blocklist feeds list --set attack
      blocklist feeds list --enabled --json
    """
    config, _ = configuration(screen)
    feeds = _chosen(config, categories, sets, enabled)
    states = _states(config)
    known = sets_of(config.catalog)
    width = shutil.get_terminal_size(_WIDTH).columns
    if feeds:
        screen.line(screen.style(_line("", "feed", " licence", "every", "last run", "title", width), bold=True))
    for category in CATEGORIES:
        rows = [feed for feed in feeds if feed.category == category]
        if rows:
            on = sum(feed.id in config.feeds for feed in rows)
            screen.line(screen.style(f"{category} ({len(rows)}, {on} enabled)", bold=True))
        for feed in rows:
            state = states.get(feed.id, {})
            screen.json(
                {
                    "id": feed.id,
                    "enabled": feed.id in config.feeds,
                    "category": feed.category,
                    "kinds": feed.kinds,
                    "confidence": feed.confidence,
                    "licence": feed.licence,
                    "commercial_use": feed.commercial_use,
                    "update": feed.update,
                    "min_interval": feed.min_interval,
                    "sets": [name for name, found in known.items() if feed.id in found.feeds],
                    "status": feed.status,
                    "title": feed.title,
                    "state": state.get("outcome"),
                    "checked": state.get("checked"),
                    "entries": state.get("entries"),
                    "pinned": shapes.feed_pin(state.get("pinned")),
                }
            )
            screen.line(_row(feed, feed.id in config.feeds, state, width))
    of = [feed for feed in feeds if feed.id in config.feeds]
    screen.line(f"{len(of)} of {len(feeds)} enabled; ! forbids commercial use, ? says nothing of it")
    for sentence in consequences(feeds if sets else of, shown=6):
        for line in textwrap.wrap(
            f"{'of these' if sets else 'of the enabled'}, {sentence}", width, break_on_hyphens=False
        ):
            screen.line(safe(line))
    screen.line("choose: blocklist feeds enable ID|set:NAME, blocklist feeds disable ID|set:NAME")
    return 0


@click.command("sets")
@shared_options
def sets(screen: Screen) -> int:
    """Feeds to enable at once, and what their licences ask.

    \b
    Examples:
      blocklist feeds sets
      blocklist feeds enable set:attack set:reference
    """
    config, _ = configuration(screen)
    for name, found in sets_of(config.catalog).items():
        feeds = [config.catalog[i] for i in found.feeds if i in config.catalog]
        on = [feed.id for feed in feeds if feed.id in config.feeds]
        asks = consequences(feeds)
        screen.json(
            {"set": name, "title": found.title, "feeds": [f.id for f in feeds], "enabled": on, "licences": asks}
        )
        screen.line(screen.style(f"{PREFIX}{name}", bold=True) + f"  {found.title}")
        screen.line(f"  {len(on)} of {len(feeds)} enabled: {', '.join(f.id for f in feeds)}")
        for sentence in asks:
            screen.line(f"  {sentence}")
    return 0


def _chosen(config: Config, categories: Iterable[str], sets: Iterable[str], enabled: bool) -> list[Feed]:
    """Feeds by category and name, less what the filters leave out. Raises UsageError for names that do not exist."""
    for category in categories:
        if category not in CATEGORIES:
            raise click.UsageError(f"no category {category!r}{nearest(category, CATEGORIES)}")
    known = sets_of(config.catalog)
    members: set[str] = set()
    for name in sets:
        if name.removeprefix(PREFIX) not in known:
            raise click.UsageError(f"no set {name!r}{nearest(name.removeprefix(PREFIX), known)}")
        members |= set(known[name.removeprefix(PREFIX)].feeds)
    return [
        feed
        for feed in sorted(config.catalog.values(), key=lambda f: (CATEGORIES.index(f.category), f.id))
        if (not categories or feed.category in categories)
        and (not sets or feed.id in members)
        and (not enabled or feed.id in config.feeds)
    ]


def _states(config: Config) -> dict[str, dict[str, Any]]:
    """What the last run said of each feed; nothing when there is no record yet."""
    from blocklist.store.database import is_there, reading
    from blocklist.store.feed_pins import feed_pins

    if not is_there(config.state):
        return {}
    with reading(config.state) as db:
        rows = db.execute(
            "SELECT f.name, f.outcome, f.checked, s.entries FROM feed f "
            "LEFT JOIN snapshot s ON s.feed = f.id AND s.state = 'current'"
        ).fetchall()
        pins = feed_pins(db)
    return {name: {"outcome": o, "checked": c, "entries": e, "pinned": pins.get(name)} for name, o, c, e in rows}


def _row(feed: Feed, on: bool, state: dict[str, Any], width: int) -> str:
    """One line: mark, id, licence, cadence, last state; with room for it the title."""
    terms = {"no": "!", "unknown": "?"}.get(feed.commercial_use, " ")
    last = "retired" if feed.status == "discontinued" else "never asked" if on else ""
    if on and state.get("outcome"):
        word = "pinned" if state["pinned"] is not None else state["outcome"]
        last = f"{word} {number(state['entries'])}".rstrip()
    return _line("*" if on else "", feed.id, terms + _cut(feed.licence, 18), feed.update, last, feed.title, width)


def _line(mark: str, feed: str, licence: str, every: str, last: str, title: str, width: int) -> str:
    cells = [mark.ljust(1), _cut(feed, 28).ljust(28), licence.ljust(19), every.rjust(5), _cut(last, 20)]
    text = " ".join(cells)
    if width >= 100:
        text = f"{text.ljust(77)} {title}"
    return safe(_cut(text.rstrip(), width))


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
