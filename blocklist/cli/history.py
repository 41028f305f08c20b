"""`blocklist history`."""

from __future__ import annotations

import csv
import sys
from dataclasses import asdict

import click

from blocklist.cli.screen import Screen, moment, safe, shared_options


@click.command("history")
@click.argument("what")
@click.option("--since", metavar="DATE", help="Only from then on: 2026-03-03 (its start), 7d (ago), yesterday.")
@click.option("--csv", "as_csv", is_flag=True, help="Rows for a spreadsheet.")
@shared_options
def command(screen: Screen, what: str, since: str | None, as_csv: bool) -> int:
    """What became of WHAT, in order: listings that opened and closed, holds, rules, verdicts, releases.

    WHAT is a domain, an address, a network or a URL; what stands above it and covers it is told too. A release is
    told where the file of an export began or ceased to block it, with the reason.

    \b
    Examples:
      blocklist history evil.example
      blocklist history 192.0.2.7 --since 30d
      blocklist history evil.example --json
    """
    from blocklist import clock
    from blocklist.audit import Audit, recognise
    from blocklist.cli.configured import configured
    from blocklist.dates import past
    from blocklist.publish.descriptor import abilities
    from blocklist.store.database import explained, path_in
    from blocklist.timeline import timeline

    config = configured(screen)
    thing = recognise(what)
    begin = clock.text(past(since, clock.now(), edge="start", place="--since")) if since is not None else ""
    audit = Audit(config, abilities([e.format for e in config.exports.values()], config.formats_folder))
    try:
        with explained(path_in(config.state)):
            found = [h for h in timeline(audit, thing) if h.at >= begin]
    finally:
        audit.close()
    if as_csv:
        from blocklist.plain import cell

        rows = csv.writer(sys.stdout, lineterminator="\n")
        rows.writerow(("at", "what", "how", "name", "by", "detail", "run"))
        rows.writerows([cell(str(value or "")) for value in asdict(h).values()] for h in found)
        return 0
    screen.objects(asdict(h) for h in found)
    screen.json({"query": thing.name, "kind": thing.kind, "happenings": len(found)})
    if not found:
        screen.line(f"the record has never heard of {safe(thing.name)}" + (f" since {since}" if since else ""))
        return 0
    screen.line(screen.style(safe(thing.name), bold=True))
    screen.table(
        ("when", "what", "", "by", "name", ""),
        [(moment(h.at), h.what, h.how, h.by, "" if h.name == thing.name else h.name, _short(h.detail)) for h in found],
    )
    return 0


def _short(text: str) -> str:
    return text if len(text) <= 140 else text[:139] + "…"
