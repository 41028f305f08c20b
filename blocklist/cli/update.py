"""`blocklist update`."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING

import click

from blocklist.catalog import ESSENTIAL, retired
from blocklist.cli import complete, shapes
from blocklist.cli.ending import show_ending
from blocklist.cli.screen import Screen, change, moment, number, one_line, safe, several, shared_options
from blocklist.cli.setup import configuration, writing
from blocklist.cli.unconfirmed import unconfirmed
from blocklist.decode import nearest
from blocklist.sets import consequences

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blocklist.catalog import Feed
    from blocklist.config import Config
    from blocklist.gathering import FeedOutcome
    from blocklist.publish.job import ExportOutcome
    from blocklist.update import Updated


@click.command("update")
@click.argument("feeds", nargs=-1, metavar="[FEED]...", shell_complete=complete.enabled_feeds)
@click.option(
    "--accept",
    multiple=True,
    metavar="FEED",
    shell_complete=complete.enabled_feeds,
    help="Take the snapshot that waits at this feed's gate.",
)
@click.option("--force", is_flag=True, help="Ask again now, whatever was asked before (ignores min_interval and 304).")
@click.option("--no-verify", is_flag=True, help="Do not ask DNS.")
@click.option("--no-export", is_flag=True, help="Do not publish.")
@shared_options
def command(
    screen: Screen,
    feeds: tuple[str, ...],
    accept: tuple[str, ...],
    force: bool,
    no_verify: bool,
    no_export: bool,
) -> int:
    """Bring the record and the exports up to date.

    Fetches every enabled feed (or those named), reads it, guards it, records what changed, verifies what is
    due and publishes what changed. A feed that fails, shrinks or answers with a web page keeps its last good
    list; the others go on.

    \b
    Examples:
      blocklist update
      blocklist update cert-pl                   only this feed
      blocklist update --accept openphish        the 96 % shrink is right
    """
    config, formats = configuration(screen)
    for name in (*feeds, *accept):
        if name not in config.feeds and name in config.catalog:
            raise click.UsageError(f"the feed {name!r} is not enabled; 'blocklist feeds enable {name}' does it")
        if name not in config.feeds:
            raise click.UsageError(f"no enabled feed {name!r}{nearest(name, config.feeds)}")
    from blocklist import clock, heap
    from blocklist.errors import IndicatorError
    from blocklist.publish.early import Early
    from blocklist.publish.release import export_all
    from blocklist.rules import ending_soon
    from blocklist.store.feed_pins import feed_pins
    from blocklist.store.moment import last_confirmed
    from blocklist.update import update

    heap.keep_freed()
    with writing(config, screen, "update") as record, Early(config, record) as early:
        known, stands = record.feed_ids(), feed_pins(record.connection)
        for name in accept:
            if name in stands:
                raise IndicatorError(
                    f"{name} is {stands[name].said}; nothing was run",
                    hint=f"see what would come with 'blocklist feeds unpin {name} --reason … --dry-run'",
                )
            if name not in known or record.gated_snapshot(known[name]) is None:
                raise IndicatorError(
                    f"{name}: no snapshot waits at its gate, and nothing was run",
                    hint="'blocklist status' lists those that are gated",
                )
        first = [feed for feed in config.feeds.values() if feed.id not in known]
        drawn = _Progress(screen, len(feeds) or len(config.feeds))
        only = set(feeds) | (set(accept) if feeds else set())
        publishing = not no_export and bool(config.exports)
        updated, picture = update(
            config,
            record,
            only=only,
            accept=set(accept),
            force=force,
            on_feed=drawn.feed,
            on_news=early.ahead.begin if publishing else None,
            on_settled=early.settled if publishing else None,
        )
        early.recorded()
        drawn.clear()
        _show_feeds(screen, updated, config.feeds.values())
        _remarks(screen, config, first)
        if not no_verify:
            from blocklist.cli.verify import verify_due

            if verify_due(config, record, picture, updated.run, screen):
                updated.changed = True
        exports: list[ExportOutcome] = []
        if publishing:
            exports = export_all(config, record, picture, formats, run=updated.run, early=early)
            show_exports(screen, exports)
        for case in updated.cases:
            allowed = f"; rule {case.rule} allows it until {moment(case.allowed_until)}" if case.rule else ""
            screen.line(
                f"case {case.id} ({safe(case.name)}, {safe(case.ticket)}) closed: {case.closed_reason}{allowed}"
            )
        ending = ending_soon(record.connection, clock.now())
        show_ending(screen, ending)
        if (last := last_confirmed(record.connection, clock.now())) is not None:
            screen.note(unconfirmed(clock.text(last)))
    screen.json(
        {
            "feeds": [shapes.feed(f) for f in updated.feeds],
            "exports": [shapes.export(e) for e in exports],
            "cases": [
                {"id": c.id, "name": c.name, "ticket": c.ticket, "closed": c.closed_reason} for c in updated.cases
            ],
            "ending": [shapes.rule(rule) for rule in ending],
            "seconds": round(updated.seconds, 3),
        }
    )
    return exit_code(updated.feeds, exports)


class _Progress:
    """A line that counts feeds while they come in; only on a terminal."""

    def __init__(self, screen: Screen, total: int) -> None:
        self._screen, self._total, self._done = screen, total, 0

    def feed(self, outcome: FeedOutcome) -> None:
        self._done += 1
        if self._screen.lively:
            click.echo(f"\r\x1b[K{self._done}/{self._total} feeds · {outcome.id}"[:100], err=True, nl=False)
            sys.stderr.flush()

    def clear(self) -> None:
        if self._screen.lively:
            click.echo("\r\x1b[K", err=True, nl=False)


def _show_feeds(screen: Screen, updated: Updated, enabled: Iterable[Feed]) -> None:
    rows = []
    for f in updated.feeds:
        notes = [f.pinned.said if f.pinned else "", f.error or f.note, f"{f.expired:,} expired" if f.expired else ""]
        notes.append(f"stale: unchanged since {moment(f.stale)}" if f.stale else "")
        note = "; ".join(filter(None, notes))
        new = f.outcome == "updated"
        rows.append(
            (
                f.id,
                "stale" if f.stale else f.outcome,
                number(f.entries),
                change(f.added, "+") if new else "",
                change(f.removed, "−") if new else "",
                number(f.held) if new else "",
                number(sum(f.rejected.values())) if f.rejected or new else "",
                f"{f.seconds:.1f} s",
                note,
            )
        )
    screen.table(
        ("feed", "outcome", "entries", "added", "removed", "held", "rejected", "took", ""),
        rows,
        right=(2, 3, 4, 5, 6, 7),
    )
    counts = Counter(f.outcome for f in updated.feeds)
    parts = ", ".join(
        f"{counts[o]} {o}" for o in ("updated", "unchanged", "pinned", "skipped", "gated", "failed") if counts[o]
    )
    fresh = f", {updated.newly_held:,} new" if updated.newly_held else ""
    screen.line(
        f"{several(len(updated.feeds), 'feed')}: {parts or 'none'} · {several(updated.indicators, 'indicator')} "
        f"(+{updated.added:,} −{updated.removed:,}) · {updated.held:,} held{fresh}: blocklist held"
    )
    for feed in enabled:
        if (words := retired(feed)) is not None:
            screen.note(f"{feed.id}: {words[0]}; {words[1]}")
    hints: dict[str, list[str]] = {}
    for f in updated.feeds:
        if f.hint and f.outcome in ("gated", "failed"):
            hints.setdefault(f.hint, []).append(f.id)
    for hint, ids in hints.items():
        screen.note(f"{', '.join(ids) if len(ids) < 4 else f'{len(ids)} feeds'}: {safe(hint)}")


def _remarks(screen: Screen, config: Config, first: list[Feed]) -> None:
    """What the guards stand on, at every run; what the licences of new feeds ask, at their first."""
    # Of a feed of one's own that states no licence, its owner knows more than we do.
    told = [feed for feed in first if feed.source or feed.licence != "unknown"]
    for sentence in consequences(told, shown=6):
        screen.note(f"of the new feeds, {safe(sentence)}")
    references = [f.id for f in config.feeds.values() if f.is_reference and f.action == "hold"]
    way = "'blocklist feeds enable set:reference' adds top lists, resolvers and shared networks"
    if references == [ESSENTIAL]:
        screen.note(f"no reference feed is enabled besides the built-in {ESSENTIAL} list: {way}")
    elif not references:
        screen.note(f"no reference feed is enabled, so that nothing guards well-known names: {way}")


def show_exports(screen: Screen, exports: list[ExportOutcome], *, planned: bool = False) -> None:
    """The table of exports below the one of feeds; `planned`: nothing of it was done."""
    rows = []
    for e in exports:
        text = ""
        if e.outcome == "published":
            text = f"checked by {e.checked}" if planned else f"{e.release}, serial {e.serial}, checked by {e.checked}"
        elif e.release is not None:
            text = f"{e.release}"
        note = "; ".join(one_line(x) for x in (e.error, e.note, in_words(e.lost)) if x)
        moved = e.outcome in ("published", "held")
        rows.append(
            (
                e.name,
                e.format,
                "to publish" if planned and e.outcome == "published" else e.outcome,
                number(e.entries),
                change(e.added, "+") if moved else "",
                change(e.removed, "−") if moved else "",
                "; ".join(x for x in (text, note) if x),
            )
        )
    screen.table(("export", "format", "outcome", "entries", "added", "removed", "release"), rows, right=(3, 4, 5))
    for e in exports:
        if e.hint:
            screen.note(f"{e.name}: {safe(e.hint)}")


_LOST = {
    "narrowed": "cut down to the name alone, since an allow stands below and the format can't say so",
    "exact": "left out, since the format knows only whole subtrees and a guard refuses those",
    "allow_widened": "allowed with all that is below",
    "subtree": "blocked by the name alone, without what is below",
    "too_long": "too long for the target",
    "unwritable": "left out, since the target would read them as something else",
    "network": "networks left out, since the target takes single addresses",
    "inbound": "inbound networks left out, since the target only looks at destinations",
    "outbound": "outbound networks left out, since the target only looks at sources",
    "cut": "cut by capacity, those of the lowest rank: see 'blocklist release show'",
    "allow": "allows left out",
    "audience": "left out, since their source forbids to pass them on to the policy's audience",
}


def in_words(lost: dict[str, int]) -> str:
    """What a release lost or changed of what was chosen, each reason with its count."""
    return "; ".join(f"{count:,} {_LOST.get(reason, reason.replace('_', ' '))}" for reason, count in lost.items())


def exit_code(feeds: list[FeedOutcome], exports: list[ExportOutcome]) -> int:
    """3 when a feed failed, was gated or is stale, 4 when a release was held or failed; the highest wins."""
    if any(e.outcome in ("held", "failed") for e in exports):
        return 4
    return 3 if any(f.stale or f.outcome in ("failed", "gated") for f in feeds) else 0
