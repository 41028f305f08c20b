"""Downloads of current snapshots and what is derived of them, made again from each other; leftovers of killed runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from blocklist.catalog import Feed
from blocklist.config import Config
from blocklist.errors import RecordError
from blocklist.finding import Finding
from blocklist.ingest.body import TEMPORARY
from blocklist.ingest.change import difference
from blocklist.person import whoami
from blocklist.publish import split
from blocklist.publish.file import leftovers
from blocklist.repair import listings
from blocklist.select.lifetime import lasts
from blocklist.store import columns, snapshots
from blocklist.store.record import Record, Snapshot

_FOLDERS = ("snapshots", "columns", "kept", "decided", "exports", "approved")


@dataclass
class _Made:
    """Feeds of which something was made again, and those of which something can't be."""

    caches: list[str] = field(default_factory=list)
    downloads: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


def mend(config: Config, record: Record) -> Iterator[Finding]:
    """Make the caches of every current snapshot, and its kept download, again where they are missing or torn."""
    names, made = {number: name for name, number in record.feed_ids().items()}, _Made()
    for number, now in sorted(record.current_snapshots().items()):
        _mend(record, names[number], config.feeds, now, made)
    if made.caches or made.downloads:
        _tell(record, "caches repaired", caches=made.caches, downloads=made.downloads)
    if made.caches:
        yield Finding("caches", "fixed", str(record.state / "columns"), f"made again: {_some(made.caches)}")
    if made.downloads:
        text = f"kept again, whole, from the unpacked bytes: {_some(made.downloads)}"
        yield Finding("downloads", "fixed", str(record.state / "snapshots"), text)
    for name in made.lost:
        text = "its current download is lost: 'why' can't show its lines"
        hint = f"restore the file from a backup, or 'blocklist update --force {name}'"
        yield Finding("downloads", "warn", name, text, hint)


def sweep(config: Config, record: Record) -> Iterator[Finding]:
    """Remove what killed runs left half written. Downloads that no row names are left to the next update."""
    state = record.state
    found = [path for folder in _FOLDERS for path in (state / folder).rglob("*.new")]
    found += [
        *state.glob("record.db*.new"),
        *state.glob("record.db*.new-journal"),
        *(state / "incoming").glob(TEMPORARY),
    ]
    current = {f"{now.id}" for now in record.current_snapshots().values()}
    found += [p for p in (state / "columns").glob("*") if p.suffix != ".new" and p.stem not in current]
    for export in config.exports.values():
        for _, path in split.paths(export, config.policies[export.policy], config.base):
            found += leftovers(path)
    left = [path for path in found if path.is_file()]
    for path in left:
        path.unlink(missing_ok=True)
    if left:
        _tell(record, "leftovers removed", files=len(left))
        yield Finding("leftovers", "fixed", str(state), f"removed {len(left):,} files of runs that were killed")


def _mend(record: Record, name: str, feeds: Mapping[str, Feed], now: Snapshot, made: _Made) -> None:
    state, feed = record.state, feeds.get(name)
    data = columns.kept_bytes(state, now.id, now.sha256)
    raw = _raw(record, now)
    if raw is None and data is not None:
        stored = snapshots.write(state, now.id, data, None, 0, sha256=now.sha256)
        with record.transaction() as connection:
            connection.execute(
                "UPDATE snapshot SET base = NULL, depth = 0, stored = ? WHERE id = ?", (stored.stored, now.id)
            )
        made.downloads.append(name)
    elif raw is None:
        made.lost.append(name)
    again = False
    if data is None and raw is not None:
        columns.keep_bytes(state, now.id, raw)
        again = True
    if columns.read(state, now.id) is None:
        open_ = listings.standing(record.connection, now.feed)
        found = listings.read(record, feed, now)
        if found is not None:
            found = listings.with_lingering(found, open_)
            here = open_.drop("dropped").select(found.frame.columns)
            added, removed, _ = difference(here, found.frame)
            # The listings are what was published; a download that says otherwise is of another time.
            found = None if added.height or removed.height else found
        if found is None:
            record.columns(now.feed, now.id)
        else:
            columns.write(state, now.id, found)
        again = True
    if columns.read_times(state, now.id) is None and _has_times(record, feed, now):
        record.times(now.feed, now.id)
        again = True
    if again:
        made.caches.append(name)


def _raw(record: Record, now: Snapshot) -> bytes | None:
    try:
        return record.raw(now.id)
    except RecordError:
        return None


def _has_times(record: Record, feed: Feed | None, now: Snapshot) -> bool:
    if feed is not None and lasts(feed):
        return True
    sql = "SELECT 1 FROM listing WHERE feed = ? AND dropped IS NOT NULL LIMIT 1"
    return record.connection.execute(sql, (now.feed,)).fetchone() is not None


def _tell(record: Record, what: str, **detail: object) -> None:
    with record.new_run("doctor --repair", whoami()) as run:
        run.event(what, **detail)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
