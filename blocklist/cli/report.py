"""`blocklist report`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import click

from blocklist.cli.screen import Screen, safe, shared_options
from blocklist.cli.setup import configuration

_FORMATS = {".html": "html", ".htm": "html", ".md": "md", ".json": "json"}


@click.command("report")
@click.option("--since", default="7d", show_default=True, metavar="WHEN", help="A span (7d), a day or a time.")
@click.option("-o", "--output", metavar="FILE|-", help="Where it goes; report.html, and - for md and json.")
@click.option("--format", "fmt", type=click.Choice(["html", "md", "json"]), help="Else by the name of FILE, else html.")
@shared_options
def command(screen: Screen, since: str, output: str | None, fmt: str | None) -> int:
    """The situational picture: what came and went, which feeds contribute or fail, what is held, what ends.

    The HTML page is one file without script or outside parts: to send, to print, to keep. Without a FILE,
    --json is the same as --format json.

    \b
    Examples:
      blocklist report
      blocklist report --since 30d -o november.html
      blocklist report --since 2026-11-01 --format md
      blocklist report --json | jq '.feeds[] | select(.alone == 0) | .feed'
    """
    config, _ = configuration(screen)
    if fmt is None:
        named = _FORMATS.get(Path(output or "").suffix.lower())
        fmt = named or ("json" if screen.as_json else "html")
    if output is None:
        output = "report.html" if fmt == "html" else "-"
    from blocklist import clock
    from blocklist.dates import past
    from blocklist.report import report
    from blocklist.store.database import reading
    from blocklist.store.record import Record
    from blocklist.suffixes import builtin_rules

    begin = past(since, clock.now(), edge="start", place="--since")
    with reading(config.state) as connection:
        made = report(config, Record(config.state, connection, None), builtin_rules(), begin)
    if fmt == "html":
        from blocklist.report_page import page

        text = page(made)
    elif fmt == "md":
        from blocklist.report_markdown import markdown

        text = markdown(made)
    else:
        text = json.dumps(asdict(made), ensure_ascii=True) + "\n"
    if output == "-":
        sys.stdout.write(text)
        return 0
    from blocklist.publish.file import no_release, replace

    def write(out: BinaryIO) -> None:
        out.write(text.encode())

    with no_release():
        replace(Path(output), write, lambda path, written: None)
    screen.line(f"{safe(output)}: {clock.text(begin)[:10]} to {made.until[:10]}, {len(text.encode()):,} bytes")
    screen.json({"file": output, "since": made.since, "until": made.until})
    return 0
