"""`blocklist match`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec.structs import asdict

from blocklist.cli.screen import Screen, number, safe, shared_options
from blocklist.cli.setup import configuration

if TYPE_CHECKING:
    from blocklist.match_tables import Tables

_WIDE = 60  # characters of a name on the screen


@click.command("match")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--form", metavar="FORM", help="Read the lines so, instead of recognising them: bind, squid, json …")
@click.option(
    "--top", default=10, show_default=True, type=click.IntRange(0), metavar="N", help="How many of each to show."
)
@click.option("--entries", metavar="FILE|-", help="Write every entry that hit, as CSV.")
@click.option("--at", metavar="DATE", help="Against the lists as of then: 2026-03-03, 2026-03-03T14:00Z, 7d.")
@shared_options
def command(
    screen: Screen, files: tuple[str, ...], form: str | None, top: int, entries: str | None, at: str | None
) -> int:
    """Replay logs against the lists as they are now: what would be blocked, thanks to which feed.

    Reads query logs of BIND, Unbound, dnsmasq and PowerDNS, RPZ logs, access logs of Squid, dnstap as text
    (dnstap-read, dnstap-ldns -q), JSON lines, and plain lines of names, addresses or URLs; also packed with gzip
    or zstd. - is standard input. Feeds and policies in shadow mode, and policies that no export uses, are replayed
    beside the exports: what they would have done. An export that is pinned is judged by the release to which it is
    pinned. --at takes listings, holds, verdicts, rules, pins and feeds of then, under the exports and policies of now:
    would the lists of March have stopped the queries of that night?

    \b
    Examples:
      blocklist match /var/log/named/query.log*
      dnstap-read /var/lib/named/dnstap.log | blocklist match -
      blocklist match access.log.zst --entries hits.csv
      blocklist match night.log --at 2026-03-03
      blocklist match names.txt --json | jq '.feeds[] | select(.queries == 0) | .feed'
    """
    config, formats = configuration(screen)
    from blocklist import clock
    from blocklist.dates import past
    from blocklist.decode import nearest
    from blocklist.match import match
    from blocklist.match_forms import NAMES
    from blocklist.match_read import read
    from blocklist.match_tables import Tables
    from blocklist.store.database import explained, open_for_reading, path_in
    from blocklist.store.record import Record
    from blocklist.suffixes import builtin_rules

    if form is not None and form not in NAMES:
        raise click.UsageError(f"no form {form!r}{nearest(form, NAMES)}")
    # Beside a table on standard output no remark of ours.
    say = screen.note if entries == "-" else screen.line
    moment = past(at, clock.now()) if at is not None else None
    connection = open_for_reading(config.state)
    try:
        asked = read(list(files), form)
        for log in asked.logs:
            rest = f"; {log.lines - log.queries:,} lines ask for nothing" if log.lines > log.queries else ""
            say(f"{safe(log.place)}: {log.form.title}, {log.lines:,} lines, {log.queries:,} queries{rest}")
        with explained(path_in(config.state)):
            record = Record(config.state, connection, None)
            tables = Tables(match(config, record, formats, builtin_rules(), asked, moment))
    finally:
        connection.close()
    if entries is not None:
        _write_entries(entries, tables)
    if screen.as_json and entries != "-":
        logs = [{"file": x.place, "form": x.form.name, "lines": x.lines, "queries": x.queries} for x in asked.logs]
        screen.json(_summary(tables, top, logs))
    elif entries != "-":
        _show(screen, tables, top)
    return 0


def _summary(tables: Tables, top: int, logs: list[dict[str, object]]) -> dict[str, Any]:
    return {
        "logs": logs,
        **tables.totals(),
        "lists": tables.lists(),
        "blocked": [asdict(row) for row in tables.blocked(top)],
        "entries": [asdict(row) for row in tables.entries(top)],
        "feeds": tables.feeds(),
        "shadows": tables.shadows(),
        "top_clients": tables.clients(top),
    }


def _show(screen: Screen, tables: Tables, top: int) -> None:
    totals = tables.totals()
    share = totals["blocked_queries"] / max(totals["queries"], 1)
    screen.line(
        f"{totals['blocked_queries']:,} of {totals['queries']:,} queries ({share:.2%}) would be blocked: "
        f"{totals['blocked_names']:,} of {totals['names']:,} names"
        + (f", {totals['blocked_clients']:,} of {totals['clients']:,} clients" if totals["clients"] else "")
    )
    lists = tables.lists()
    screen.line()
    screen.table(
        ("list", "format", "queries", "names", "clients", "entries", "that hit"),
        [
            (
                r["list"],
                _KINDS[str(r["kind"])].format(r["format"]),
                *(f"{r[k]:,}" for k in _COLUMNS),
                f"{r['entries_hit']:,}",
            )
            for r in lists
        ],
        right=(2, 3, 4, 5, 6),
    )
    for pin in tables.pins():
        screen.line(f"{safe(pin.export)}: pinned to release {pin.release} by {safe(pin.author)}: {safe(pin.reason)}")
    if blocked := tables.blocked(top):
        screen.line()
        screen.table(
            ("blocked", "queries", "clients", "by entry", "feeds", "in"),
            [
                (
                    _short(r.what),
                    number(r.queries),
                    number(r.clients),
                    "itself" if r.entry == r.what else _short(r.entry),
                    ", ".join(r.feeds) or "a rule",
                    ", ".join(r.lists),
                )
                for r in blocked
            ],
            right=(1, 2),
        )
    _show_feeds(screen, tables)
    for shadow in tables.shadows():
        examples = ", ".join(safe(_short(str(x))) for x in shadow["examples"])  # type: ignore[attr-defined]
        screen.line(
            f"shadow: live, {safe(str(shadow['feed']))} would block {shadow['queries']:,} queries more for "
            f"{shadow['names']:,} names by {shadow['clients']:,} clients in policy {safe(str(shadow['policy']))}"
            + (f": {examples}" if examples else "")
        )
    if clients := tables.clients(top):
        screen.line()
        screen.table(
            ("client", "blocked queries", "names"),
            [(r["client"], f"{r['queries']:,}", f"{r['names']:,}") for r in clients],
            right=(1, 2),
        )


_KINDS = {"export": "{}", "shadow": "{}, in shadow mode", "policy": "no export uses it"}
_COLUMNS = ("queries", "names", "clients", "entries")


def _show_feeds(screen: Screen, tables: Tables) -> None:
    feeds = [f for f in tables.feeds() if f["mode"] == "live"]
    if hit := [f for f in feeds if f["queries"]]:
        screen.line()
        screen.table(
            ("feed that protects", "queries", "names", "by it alone", "entries"),
            [(f["feed"], *(f"{f[k]:,}" for k in ("queries", "names", "alone_queries", "entries"))) for f in hit],
            right=(1, 2, 3, 4),
        )
    if idle := [f for f in feeds if not f["queries"]]:
        screen.line()
        entries = sum(int(str(f["entries"])) for f in idle)
        names = ", ".join(safe(str(f["feed"])) for f in idle)
        screen.line(f"not needed by these logs ({len(idle)} feeds, {entries:,} entries): {names}")


def _short(text: str) -> str:
    return text if len(text) <= _WIDE else text[: _WIDE - 1] + "…"


def _write_entries(place: str, tables: Tables) -> None:
    from blocklist.rule_table import as_csv

    header = ("entry", "queries", "clients", "feeds", "exports")
    rows = ((r.what, r.queries, r.clients, " ".join(r.feeds), " ".join(r.lists)) for r in tables.entries(None))
    text = as_csv(header, rows)
    if place == "-":
        sys.stdout.write(text)
    else:
        try:
            Path(place).write_text(text, encoding="utf-8")
        except OSError as error:
            error.filename = place  # a write that fails tells none
            raise
