"""`blocklist doctor`."""

from __future__ import annotations

from dataclasses import asdict

import click

from blocklist.cli.screen import Screen, safe, shared_options
from blocklist.cli.setup import configuration


@click.command("doctor")
@click.option("--deep", is_flag=True, help="Also read every kept download and compare it with its digest.")
@shared_options
def command(screen: Screen, deep: bool) -> int:
    """Look at configuration, secrets, folders, record, downloads and published files; change nothing.

    The resolvers of 'verify' are tested, and the primary and the resolvers of each zone asked who they are, what they
    have, and what to know of them.

    Each line is ok, warn or fail, with the place and the way out. The exit code is 1 when something failed.

    \b
    Examples:
      blocklist doctor
      blocklist doctor --deep --json
    """
    config, formats = configuration(screen)
    from blocklist.doctor import examine

    counts = {"ok": 0, "warn": 0, "fail": 0}
    colors = {"ok": "green", "warn": "yellow", "fail": "red"}
    for finding in examine(config, dict(formats), deep=deep):
        counts[finding.word] += 1
        screen.json(asdict(finding))
        word = screen.style(f"{finding.word:4}", fg=colors[finding.word])
        screen.line(f"{word}  {finding.check:13}  {safe(finding.place)}: {safe(finding.text)}")
        if finding.hint:
            screen.line(f"      {'':13}  {safe(finding.hint)}")
    screen.json(counts)
    screen.line(f"{counts['ok']} ok, {counts['warn']} warnings, {counts['fail']} failed")
    return 1 if counts["fail"] else 0
