"""`blocklist doctor`."""

from __future__ import annotations

from itertools import chain

import click
from msgspec.structs import asdict

from blocklist.cli.screen import Screen, safe, several, shared_options
from blocklist.cli.setup import configuration


@click.command("doctor")
@click.option("--deep", is_flag=True, help="Also read every kept download and compare it with its digest.")
@click.option("--repair", is_flag=True, help="First put right what can be, and say each step.")
@shared_options
def command(screen: Screen, deep: bool, repair: bool) -> int:
    """Look at configuration, secrets, folders, record, downloads and published files; change nothing.

    The resolvers of 'verify' are tested, and the primary and the resolvers of each zone asked who they are, what they
    have, and what to know of them.

    Each line is ok, warn or fail, with the place and the way out. The exit code is 1 when something failed.

    With --repair, caches are made again, leftovers of killed runs removed, published files that are gone or were edited
    written again. Of a damaged record a new one is made: of what can be read, the log of events and the kept downloads;
    the damaged one stays beside it, and what is lost is said. What was done is said as fixed, and kept in the log. It
    may be killed and run again. Modes of secrets, disk space and the clock are left to you.

    \b
    Examples:
      blocklist doctor
      blocklist doctor --deep --json
      blocklist doctor --repair
    """
    config, formats = configuration(screen)
    from blocklist.doctor import examine

    counts = {"ok": 0, "fixed": 0, "warn": 0, "fail": 0} if repair else {"ok": 0, "warn": 0, "fail": 0}
    colors = {"ok": "green", "fixed": "cyan", "warn": "yellow", "fail": "red"}
    found = examine(config, dict(formats), deep=deep)
    if repair:
        from blocklist.repair.steps import repair as steps

        found = chain(steps(config, formats), found)
    width = max(map(len, counts))
    for finding in found:
        counts[finding.word] += 1
        screen.json(asdict(finding))
        word = screen.style(f"{finding.word:{width}}", fg=colors[finding.word])
        screen.line(f"{word}  {finding.check:13}  {safe(finding.place)}: {safe(finding.text)}")
        if finding.hint:
            screen.line(f"{'':{width}}  {'':13}  {safe(finding.hint)}")
    screen.json(counts)
    fixed = f"{counts['fixed']} fixed, " if repair else ""
    screen.line(f"{counts['ok']} ok, {fixed}{several(counts['warn'], 'warning')}, {counts['fail']} failed")
    return 1 if counts["fail"] else 0
