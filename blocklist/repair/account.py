"""What a repair of the record tells: findings for a person, and what its event keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blocklist.finding import Finding
from blocklist.repair import decided, downloads, listings, references
from blocklist.repair.salvage import Copied
from blocklist.store.ledger import Trouble

_WORDS = {
    "listing": "open listings",
    "listing_closed": "listings that ended",
    "hold_release": "released holds",
    "case_file": "cases",
}


# Of a log that holds nowhere the first are enough.
_MOST = 100


@dataclass(frozen=True)
class Done:
    """One repair.

    `copy`: where the damaged file is kept; `said`: what SQLite said of it; `impossible`: rows that were no listings;
    `odd`: rows left out for what their texts are, by table;
    `gaps`: numbers of rules and events that are lost, as spans; `releases`: how many are given back from the log, and
    of how many only their events are left; `unpinned`: exports whose pin is ended, and the release it named; `held`:
    lost holds that hold again; `moved`: where downloads went whose rows are lost; `troubles` of the log.
    """

    copy: Path
    said: Sequence[str]
    tables: Sequence[Copied]
    impossible: int
    odd: Mapping[str, int]
    given: decided.GivenBack
    gaps: Mapping[str, Sequence[tuple[int, int]]]
    releases: tuple[int, int]
    unpinned: Mapping[str, int]
    mended: references.Mended
    taken: Sequence[downloads.GivenBack]
    feeds: Sequence[listings.Mended]
    held: int
    moved: Path | None
    troubles: Sequence[Trouble]

    @property
    def hurt(self) -> list[Copied]:
        """Tables that SQLite could not read to their end."""
        return [one for one in self.tables if not one.whole]


def detail(done: Done) -> dict[str, Any]:
    """What the event of the repair keeps."""
    return {
        "damaged": done.copy.name,
        "said": list(done.said[:3]),
        "tables": {one.table: {"rows": one.rows, "lost pages": one.lost} for one in done.hurt},
        "left out": dict(done.odd),
        "rules": done.given.rules,
        "released holds": done.given.releases,
        "pins": done.given.pins,
        "begun": sum(one.begun for one in done.feeds),
        "ended": sum(one.ended for one in done.feeds) + sum(one.ended for one in done.taken),
        "holds": done.held,
        "releases": done.releases[0],
        "unpinned": dict(done.unpinned),
        "troubles": [[trouble.event, trouble.text] for trouble in done.troubles[:_MOST]],
    }


def findings(path: Path, done: Done) -> Iterator[Finding]:
    """What was done to the record at `path`, what is lost, and what a person should know of it."""
    rows, hurt = sum(one.rows for one in done.tables), done.hurt
    whole = f"its tables are whole; its indices were made anew ({rows:,} rows)"
    sound = len(done.tables) - len(hurt)
    part = f"made anew of what can be read: {sound} of {len(done.tables)} tables whole, {rows:,} rows"
    yield Finding(
        "record", "fixed", str(path), part if hurt or done.odd else whole, done.said[0] if done.said else None
    )
    for one in hurt:
        what = _WORDS.get(one.table, f"rows of {one.table}")
        pages = f"; pages of it that can't be read: {one.lost:,}" if one.lost else ""
        yield Finding("record", "warn", f"table {one.table}", f"{one.rows:,} {what} could be read{pages}")
    if done.impossible:
        yield Finding("listings", "warn", str(path), f"{done.impossible:,} rows were no listings, and are left out")
    for table, count in done.odd.items():
        text = f"{count:,} rows are left out: a text of theirs is no JSON, no time, or not what its digest says"
        yield Finding("record", "warn", f"table {table}", text)
    yield from _decisions(path, done.given, done.gaps, done.releases)
    for export, release in done.unpinned.items():
        text = f"is pinned no more: what release {release} was chosen from is lost; the published file stays as it is"
        hint = f"the next export publishes what is listed now: see 'blocklist export {export} --dry-run' first"
        yield Finding("releases", "warn", export, text, hint)
    yield from _references(done.mended)
    yield from _downloads(done.taken)
    yield from _listings(done.feeds)
    if done.held:
        yield Finding("holds", "fixed", "guards", f"{done.held:,} were lost and hold again, from now on")
    if done.moved is not None:
        text = "kept downloads that no row names any more were moved here"
        yield Finding("downloads", "warn", str(done.moved), text)
    yield from _log(path, done.troubles)


def _decisions(
    path: Path, given: decided.GivenBack, gaps: Mapping[str, Sequence[tuple[int, int]]], releases: tuple[int, int]
) -> Iterator[Finding]:
    if given.rules or given.releases or given.pins:
        counts = f"{given.rules:,} rules, {given.releases:,} released holds and {given.pins:,} pins"
        yield Finding("decisions", "fixed", str(path), f"{counts} are given back from the log")
    for table, spans in gaps.items():
        if count := sum(last - first + 1 for first, last in spans):
            shown = ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in spans[:5])
            way = "'blocklist allow list' and 'deny list' show what stands: add again what is missing"
            hint = way if table == "rule" else None
            yield Finding(f"{table}s", "warn", str(path), f"lost {table}s: {count:,} (number {shown})", hint)
    returned, lost = releases
    if returned:
        text = (
            f"{returned:,} are given back from the log: what they were chosen from is lost, no rollback leads to them"
        )
        yield Finding("releases", "fixed", str(path), text)
    if lost:
        text = f"of {lost:,} releases only their events are left"
        hint = "an export whose live release is lost is published next as if for the first time"
        yield Finding("releases", "warn", str(path), text, hint)


def _references(mended: references.Mended) -> Iterator[Finding]:
    if mended.runs:
        yield Finding("record", "warn", "runs", f"of {mended.runs:,} only the numbers and times are left")
    for name, known in mended.feeds.items():
        hint = None if known else "the next update ends what it listed: restore a backup if that must not be"
        how = "known again by its configuration" if known else "its name is lost"
        yield Finding("feeds", "fixed" if known else "warn", name, how, hint)
    for what, counts in (
        ("named what is lost, and names nothing now", mended.cleared),
        ("is left out: what it belongs to is lost", mended.removed),
    ):
        for table, count in counts.items():
            yield Finding("record", "warn", f"table {table}", f"{count:,} rows: each {what}")


def _downloads(taken: Sequence[downloads.GivenBack]) -> Iterator[Finding]:
    for one in taken:
        if one.found:
            text = "the row of its current download was lost, and is given back from the log and the file"
            yield Finding("downloads", "fixed", one.feed, text)
        else:
            text = f"its current download is lost: nothing says what it lists, and its {one.ended:,} listings ended"
            hint = "'blocklist update' lists them again; until then the next export has no more of it"
            yield Finding("listings", "warn", one.feed, text, hint)


def _listings(feeds: Sequence[listings.Mended]) -> Iterator[Finding]:
    for one in feeds:
        if not one.known:
            text = "its download can't be read: what the table has of it could not be compared"
            yield Finding("listings", "warn", one.feed, text, f"'blocklist update --force {one.feed}'")
        elif one.begun or one.ended:
            parts = []
            if one.begun:
                parts.append(f"{one.begun:,} listings begin again with its snapshot (since when they stood is lost)")
            if one.ended:
                parts.append(f"{one.ended:,} ended that it does not list")
            yield Finding("listings", "fixed", one.feed, "; ".join(parts))
    if same := sum(one.known and not one.begun and not one.ended for one in feeds):
        yield Finding("listings", "ok", "the others", f"{same:,} feeds are listed as their snapshots say")


def _log(path: Path, troubles: Sequence[Trouble]) -> Iterator[Finding]:
    if not troubles:
        text = "each chained to the one before, and decisions are what they say"
        yield Finding("events", "ok", str(path), text)
    for trouble in troubles[:3]:
        where = f"event {trouble.event}" if trouble.event is not None else str(path)
        hint = f"all {len(troubles):,}: 'blocklist events verify'"
        yield Finding("events", "warn", where, trouble.text, hint)
