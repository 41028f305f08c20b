"""`blocklist demo`."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import click

from blocklist.cli.screen import Screen, shared_options


@click.command("demo")
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@shared_options
def command(screen: Screen, folder: Path | None) -> int:
    """The whole tour on this machine, without a network: feeds, guards, DNS, exports, why, and what goes wrong.

    Starts a web server and a DNS server on loopback, with feeds of reserved names that hold a wrong entry, a
    dead name, a failing and a shrinking feed; runs the real commands on them and says what to notice. With DIR
    (new or empty) everything stays there to be looked at; otherwise it is removed at the end.

    \b
    Examples:
      blocklist demo
      blocklist demo /tmp/tour
    """
    from blocklist.demo import tour

    if folder is not None and folder.exists() and any(folder.iterdir()):
        raise click.UsageError(f"{folder} is not empty; name a new folder")
    place = folder.absolute() if folder is not None else Path(tempfile.mkdtemp(prefix="blocklist-demo-"))
    place.mkdir(parents=True, exist_ok=True)

    def say(text: str) -> None:
        # With --json standard output is for the object at the end.
        if not screen.quiet:
            click.echo(text, err=screen.as_json)

    try:
        missed = tour(place, say)
    finally:
        if folder is None:
            shutil.rmtree(place, ignore_errors=True)
    screen.json({"missed": missed})
    if missed:
        screen.note("the demo did not go as it should: " + "; ".join(missed))
    elif folder is None:
        screen.line("\nThat was the tour, and all of it is removed. To look around: blocklist demo FOLDER")
        screen.line("For real: blocklist init")
    else:
        screen.line(f"\nEverything is in {folder}; try: blocklist --config {folder}/blocklist.toml why evil.example")
    return 1 if missed else 0
