"""`blocklist prune`."""

from __future__ import annotations

from dataclasses import asdict

import click

from blocklist.cli.screen import Screen, moment, shared_options
from blocklist.cli.setup import configuration, writing
from blocklist.cli.unconfirmed import unconfirmed


@click.command("prune")
@click.option("--dry-run", is_flag=True, help="Say what would go; remove nothing.")
@click.option("--trust-clock", is_flag=True, help="The clock is right, though it is far ahead of the last runs.")
@shared_options
def command(screen: Screen, dry_run: bool, trust_clock: bool) -> int:
    """Forget what [keep] no longer asks for.

    Listings, verdicts and holds that ended longer ago than `history`; downloads older than `snapshots`, but for one a
    month and those that a listing began with; bytes of releases older than `releases`. Digests, times, rules and the
    log of events stay. Put it beside 'blocklist update' in the timer, once a month. On a full disk caches go first:
    without room nothing can be forgotten.

    While the clock is more than 35 days ahead of the runs before, [keep] counts from the last of those: what a wrong
    clock forgets never comes back. A day of runs confirms the clock, or --trust-clock.

    \b
    Examples:
      blocklist prune --dry-run
      blocklist prune
    """
    config, _ = configuration(screen)
    from blocklist.person import whoami
    from blocklist.retention import make_room, prune

    def first() -> None:
        if not dry_run and (freed := make_room(config.state)):
            screen.note(f"the disk is full: caches went ({freed / 1e6:.1f} MB), which the next update makes again")

    with writing(config, screen, "prune", first) as record:
        done = prune(record, config, author=whoami(), dry_run=dry_run, trust_clock=trust_clock)
    screen.json({**asdict(done), "dry_run": dry_run})
    if done.as_of is not None:
        screen.note(unconfirmed(done.as_of))
    if not done.any:
        screen.line("nothing is older than [keep] says")
        return 0
    would = "would go" if dry_run else "went"
    screen.line(
        f"{would}: {done.listings:,} listings, {done.verdicts:,} verdicts and {done.holds:,} holds that had ended, "
        f"{done.downloads:,} downloads ({done.download_bytes / 1e6:.1f} MB), "
        f"releases' bytes ({done.release_bytes / 1e6:.1f} MB)"
    )
    if done.history is not None:
        screen.line(f"answers as of a date reach back to {moment(done.history)}")
    if dry_run:
        screen.line("dry run: nothing was removed")
    return 0
