"""`blocklist diff`."""

from __future__ import annotations

import csv
import sqlite3
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import click

from blocklist.cli import complete
from blocklist.cli.screen import Screen, change, number, safe, second, several, shared_options
from blocklist.decode import nearest

if TYPE_CHECKING:
    from blocklist.difference import Difference


@click.command("diff")
@click.argument("a", metavar="[A]", required=False)
@click.argument("b", metavar="[B]", default="now")
@click.option(
    "--feed",
    metavar="FEED",
    shell_complete=complete.feeds,
    help="Only what this feed lists; numbers are then of its snapshots.",
)
@click.option("--names", is_flag=True, help="Every listing that came, went or changed, not only how many.")
@click.option("--csv", "as_csv", is_flag=True, help="Rows for a spreadsheet.")
@shared_options
def command(screen: Screen, a: str | None, b: str, feed: str | None, names: bool, as_csv: bool) -> int:
    """What changed between A (a day ago) and B (now): listings by feed and category, decisions, exports.

    Of a record that is younger than a day, A is its first run. A and B are dates (2026-03-03 is the end of that day,
    7d is a week ago) or numbers of releases of one export, whose policy then says which listings count. What came and
    went again in between is not told. With --feed, numbers are of its snapshots, as 'feeds show FEED --all' lists them.

    \b
    Examples:
      blocklist diff
      blocklist diff 2026-03-01 2026-03-31 --csv
      blocklist diff 212 219 --names
      blocklist diff --feed openphish 15 16 --names
    """
    from blocklist import clock
    from blocklist.cli.configured import configured
    from blocklist.difference import Difference, point, point_of
    from blocklist.store.database import reading

    config = configured(screen)
    with reading(config.state) as db:
        now = clock.now()
        start = a if a is not None else _day_ago(db, now)
        if feed is not None:
            known = {row[0] for row in db.execute("SELECT name FROM feed")}
            if feed not in known:
                raise click.UsageError(f"no feed {feed!r} in the record{nearest(feed, known)}")
            ends = point_of(db, feed, start, now, "A"), point_of(db, feed, b, now, "B")
        else:
            ends = point(db, start, now, "A"), point(db, b, now, "B")
        found = Difference(db, *ends, feed)
        if as_csv:
            _sheet(found, names)
        elif feed is not None:
            _tell_feed(screen, found, feed, names)
        else:
            _tell(screen, found, names)
    return 0


def _day_ago(db: sqlite3.Connection, now: datetime) -> str:
    """A day ago, or the first run where the record is younger."""
    from blocklist import clock

    first = db.execute("SELECT min(started) FROM run").fetchone()[0]
    return "1d" if first is None or clock.parse(first) <= now - timedelta(days=1) else str(first)


def _sheet(found: Difference, names: bool) -> None:
    from blocklist.plain import cell

    rows = csv.writer(sys.stdout, lineterminator="\n")
    header = ("change", "indicator", "kind", "feed", "category") if names else _COUNTS
    rows.writerow(header)
    for item in found.items() if names else found.counted():
        rows.writerow([cell(value) if isinstance(value, str) else value for value in vars(item).values()])


_DECIDED = {
    "rules_added": ("rule added", "rules added"),
    "rules_removed": ("rule removed", "rules removed"),
    "holds_opened": ("hold opened", "holds opened"),
    "holds_closed": ("hold closed", "holds closed"),
    "holds_released": ("hold released", "holds released"),
    "names_dead": ("name died", "names died"),
}
_SIGNS = {"added": "+", "removed": "−", "changed": "~"}
_COUNTS = ("feed", "category", "added", "removed", "changed")


def _tell_feed(screen: Screen, found: Difference, feed: str, names: bool) -> None:
    """What one feed began and ceased to list; decisions and files are not its own."""
    counted = found.counted()
    if names:
        _tell_names(screen, found)
    ends = [{"run": p.run, "at": p.at, "snapshot": p.snapshot} for p in (found.a, found.b)]
    total = {what: sum(getattr(row, what) for row in counted) for what in ("added", "removed", "changed")}
    for row in counted:
        screen.json(asdict(row))
    screen.json({"feed": feed, "from": ends[0], "to": ends[1], **total})
    begin, end = (
        f"snapshot {p.snapshot} of {second(p.at)}" if p.snapshot is not None else second(p.at)
        for p in (found.a, found.b)
    )
    screen.line(
        f"listings of {feed} from {begin} to {end}: +{total['added']:,} −{total['removed']:,}, "
        f"{total['changed']:,} changed"
    )
    if not names and any(total.values()):
        screen.line("--names tells which")


def _tell_names(screen: Screen, found: Difference) -> None:
    if screen.as_json:
        screen.objects(vars(item) for item in found.items())
    else:
        screen.lines(f"{_SIGNS[x.change]} {safe(x.indicator)}  {x.feed}  {x.category}" for x in found.items())


def _tell(screen: Screen, found: Difference, names: bool) -> None:
    counted, decisions, files = found.counted(), found.decisions(), found.files()
    if names:
        _tell_names(screen, found)
    for row in counted:
        screen.json(asdict(row))
    ends = [{"run": p.run, "at": p.at, "release": p.release} for p in (found.a, found.b)]
    total = {what: sum(getattr(row, what) for row in counted) for what in ("added", "removed", "changed")}
    told = [
        {"export": f.export, **{end: _release(x) for end, x in (("before", f.before), ("after", f.after))}}
        for f in files
    ]
    screen.json({"from": ends[0], "to": ends[1], **total, **decisions, "exports": told})
    screen.table(
        _COUNTS,
        [(r.feed, r.category, change(r.added, "+"), change(r.removed, "−"), number(r.changed)) for r in counted],
        right=(2, 3, 4),
    )
    of = f", as export {found.export} takes them" if found.export else ""
    screen.line(
        f"listings from {second(found.a.at)} to {second(found.b.at)}{of}: +{total['added']:,} "
        f"−{total['removed']:,}, {total['changed']:,} changed"
    )
    said = ", ".join(several(count, *_DECIDED[what]) for what, count in decisions.items() if count)
    screen.line(said or "no rules, holds or verdicts changed")
    for f in files:
        screen.line(f"export {f.export}: {_words(f.before)} → {_words(f.after)}" + _same(f.before, f.after))


def _release(live: Sequence[object] | None) -> dict[str, object] | None:
    return dict(zip(("release", "entries", "digest"), live, strict=True)) if live is not None else None


def _words(live: tuple[int, int, str] | None) -> str:
    return "not published" if live is None else f"{live[1]:,} entries (release {live[0]})"


def _same(before: tuple[int, int, str] | None, after: tuple[int, int, str] | None) -> str:
    return ", the same bytes" if before and after and before[2] == after[2] else ""
