"""`blocklist feeds rollback` and `blocklist feeds unpin`: one feed stands at an earlier list, all others go on."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click
from msgspec.structs import replace

from blocklist.cli import complete, shapes
from blocklist.cli.rules import IN_FORCE, publish
from blocklist.cli.screen import Screen, moment, safe, several, shared_options
from blocklist.cli.setup import configuration, writing
from blocklist.decode import nearest

if TYPE_CHECKING:
    from blocklist.config import Config
    from blocklist.picture import Picture
    from blocklist.publish.descriptor import Format
    from blocklist.store.record import Record
    from blocklist.update import Updated

_NAMED = 5


@click.command("rollback")
@click.argument("feed", shell_complete=complete.enabled_feeds)
@click.option(
    "--to",
    type=click.IntRange(1),
    metavar="SNAPSHOT",
    shell_complete=complete.taken_snapshots,
    help="The number of a snapshot, as 'feeds show FEED --all' lists them.",
)
@click.option(
    "--at", metavar="DATE", help="What it listed then: 2026-03-03 (its end), 2026-03-03T14:00Z, 7d, yesterday."
)
@click.option("--reason", required=True, help="Why; kept for ever, and shown wherever the feed is.")
@click.option("--ticket", metavar="TEXT", help="Number of the case.")
@click.option("--dry-run", is_flag=True, help="Show what would change, in the lists too; change nothing.")
@click.option("--now", is_flag=True, help="Publish at once.")
@shared_options
def rollback(
    screen: Screen,
    feed: str,
    to: int | None,
    at: str | None,
    reason: str,
    ticket: str | None,
    dry_run: bool,
    now: bool,
) -> int:
    """Put FEED back to an earlier list and hold it there, while all other feeds go on.

    Without --to or --at, to the list before the one that it has. That list is read anew, by the options and under the
    guards of now; 'history', 'diff' and 'why --at' tell of it. Until 'blocklist feeds unpin FEED' updates go on
    fetching what its publisher sends, and keep the last of it, but take nothing in.

    \b
    Examples:
      blocklist feeds rollback openphish --reason "taken over" --dry-run
      blocklist feeds rollback openphish --reason "taken over" --ticket INC-7 --now
      blocklist feeds rollback openphish --to 15 --reason "the last good one"
      blocklist feeds rollback openphish --at yesterday --reason "taken over this morning"
    """
    config, formats = configuration(screen)
    _require_enabled(config, feed)
    if to is not None and at is not None:
        raise click.UsageError("give --to or --at, not both")
    if dry_run and now:
        raise click.UsageError("--dry-run changes nothing; leave out --now")
    from blocklist import clock
    from blocklist.dates import past
    from blocklist.feed_rollback import roll_back

    then = None if at is None else past(at, clock.now())
    with writing(config, screen, "feeds rollback") as record:
        _require_record(record, feed)
        with record.undone() if dry_run else nullcontext():
            updated, picture, target = roll_back(config, record, feed, to=to, at=then, reason=reason, ticket=ticket)
            outcome = updated.feeds[0]
            verbs = ("would go back", "would stay") if dry_run else ("goes back", "stays")
            if outcome.note:
                verbs = ("is", *verbs[1:])
            screen.line(
                f"{feed} {verbs[0]} {'at' if outcome.note else 'to'} snapshot {target.id} of "
                f"{moment(record.started(target.run))} ({several(outcome.entries or 0, 'entry', 'entries')}) and "
                f"{verbs[1]} there until 'blocklist feeds unpin {feed}'"
            )
            _differences(screen, updated)
            _changed_since(screen, record, feed, target.feed, target.run)
            _pinned_exports(screen, config, record)
            if dry_run:
                return _foretold(screen, config, record, formats, updated, picture)
        return _ended(screen, config, record, formats, updated, now)


@click.command("unpin")
@click.argument("feed", shell_complete=complete.pinned_feeds)
@click.option("--reason", required=True, help="Why; kept for ever.")
@click.option("--ticket", metavar="TEXT", help="Number of the case.")
@click.option("--dry-run", is_flag=True, help="Show what would change, in the lists too; change nothing.")
@click.option("--now", is_flag=True, help="Publish at once.")
@shared_options
def unpin(screen: Screen, feed: str, reason: str, ticket: str | None, dry_run: bool, now: bool) -> int:
    """End a rollback: FEED goes on with what its publisher sends.

    What came last meanwhile is taken in at once, if its gate lets it pass; the next update asks for what is newer.

    \b
    Examples:
      blocklist feeds unpin openphish --reason "its publisher is well" --dry-run
      blocklist feeds unpin openphish --reason "its publisher is well" --now
    """
    config, formats = configuration(screen)
    if dry_run and now:
        raise click.UsageError("--dry-run changes nothing; leave out --now")
    from blocklist.feed_rollback import unpin as end
    from blocklist.store.feed_pins import feed_pins

    with writing(config, screen, "feeds unpin") as record:
        _require_record(record, feed, config)
        pin = feed_pins(record.connection).get(feed)
        with record.undone() if dry_run else nullcontext():
            done = end(config, record, feed, reason=reason, ticket=ticket)
            assert pin is not None
            verb = "would no longer be" if dry_run else "is no longer"
            screen.line(f"{feed} {verb} pinned to snapshot {pin.snapshot}")
            if done is None:
                screen.line("it is not enabled: nothing of it is listed")
                screen.json({"feed": None, "dry_run": dry_run})
                return 0
            updated, picture = done
            outcome = updated.feeds[0]
            if outcome.outcome == "gated":
                screen.note(f"{feed}: what came meanwhile waits at its gate: {safe(outcome.error or '')}")
                screen.note(f"{feed}: {safe(outcome.hint or '')}")
            elif outcome.note:
                screen.line(f"{outcome.note}; the next update asks its publisher")
            _differences(screen, updated)
            if dry_run:
                return _foretold(screen, config, record, formats, updated, picture)
        return _ended(screen, config, record, formats, updated, now)


def _require_enabled(config: Config, feed: str) -> None:
    if feed in config.feeds:
        return
    if feed in config.catalog:
        raise click.UsageError(
            f"the feed {feed!r} is not enabled, so that nothing of it is listed once an update has run; "
            f"'blocklist feeds enable {feed}' enables it"
        )
    raise click.UsageError(f"no feed {feed!r}{nearest(feed, config.feeds)}")


def _require_record(record: Record, feed: str, config: Config | None = None) -> None:
    """A record that knows the feed; nothing is begun where there is none."""
    from blocklist.errors import IndicatorError

    known = record.feed_ids()
    if config is not None and feed not in known and feed not in config.catalog:
        raise click.UsageError(f"no feed {feed!r}{nearest(feed, known)}")
    if record.fresh:
        raise IndicatorError("there is no record yet", hint="run 'blocklist update' first")


def _differences(screen: Screen, updated: Updated) -> None:
    """What this changes in the record: how much of the feed, some of it by name, and what guards hold now."""
    for names, sign, word in ((updated.came, "+", "listed"), (updated.went, "−", "no longer listed")):
        if len(names):
            some = names.sort().head(_NAMED).to_list()
            more = f" and {len(names) - len(some):,} more" if len(names) > len(some) else ""
            screen.line(f"  {sign}{len(names):,} {word}: {', '.join(map(safe, some))}{more}")
    if not len(updated.came) and not len(updated.went):
        screen.line("  its entries stay as they are")
    if updated.newly_held:
        screen.line(f"  {several(updated.newly_held, 'name')} newly held by guards: see 'blocklist held'")


def _changed_since(screen: Screen, record: Record, feed: str, number_: int, run: int) -> None:
    """Where the feed came from another place, or was read otherwise, when the snapshot was taken in."""
    import json

    then, now = record.feed_version(number_, run), record.feed_version(number_)
    if then is None or now is None:
        return
    before, after = json.loads(then), json.loads(now)
    changed = [
        key for key in ("url", "format", "kinds", "scope", "url_hosts", "first") if before.get(key) != after.get(key)
    ]
    if changed:
        screen.note(f"{feed}: changed in the configuration since then, and read as it says now: {', '.join(changed)}")


def _pinned_exports(screen: Screen, config: Config, record: Record) -> None:
    """Lists that do not follow, since they were put back themselves."""
    from blocklist.publish.rollback import pins

    for name, pin in sorted(pins(record).items()):
        if name in config.exports:
            screen.note(
                f"{name} is pinned to release {pin.release}: what the feed lists changes it only after "
                f"'blocklist release unpin {name}'"
            )


def _foretold(
    screen: Screen,
    config: Config,
    record: Record,
    formats: Mapping[str, Format],
    updated: Updated,
    picture: Picture,
) -> int:
    """What the lists would be; the record is put back as it was by the caller."""
    from blocklist.cli.plan import show_plan
    from blocklist.cli.update import exit_code, show_exports
    from blocklist.publish.release import export_all

    exports = export_all(config, record, picture, formats, dry_run=True)
    show_exports(screen, exports, planned=True)
    for export in exports:
        if export.plan is not None:
            if export.outcome == "published":
                export.plan = replace(export.plan, ways=())  # how to publish what is not there yet
            show_plan(screen, export.name, export.plan)
    screen.line("dry run: nothing was changed")
    told = _told(updated)
    screen.json({**told, "dry_run": True, "exports": [shapes.export(e) for e in exports]})
    return exit_code(updated.feeds, exports)


def _ended(
    screen: Screen, config: Config, record: Record, formats: Mapping[str, Format], updated: Updated, now: bool
) -> int:
    from blocklist.cli.update import exit_code

    screen.json({**_told(updated), "dry_run": False})
    failed = exit_code(updated.feeds, [])
    if now:
        return max(failed, publish(screen, config, record, formats))
    screen.line(IN_FORCE)
    return failed


def _told(updated: Updated) -> dict[str, Any]:
    return {"feed": shapes.feed(updated.feeds[0])}
