"""One update: what the feeds bring is guarded and recorded. Verification and publishing follow in their own modules."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial
from typing import Literal, NamedTuple

import msgspec
import polars as pl

from blocklist import clock, holding
from blocklist.cases import Case, close_dropped
from blocklist.catalog import ESSENTIAL
from blocklist.config import Config
from blocklist.errors import FeedError
from blocklist.feed_decision import Back, Resume
from blocklist.framepatch import among
from blocklist.gathering import FeedOutcome, Work, attributes_of, source_of
from blocklist.ingest.backoff import next_try
from blocklist.ingest.intake import Intake, account_text, parse_key
from blocklist.lapses import Lapse, lapses_of
from blocklist.lifetime import stale_since
from blocklist.person import whoami
from blocklist.picture import Changes, Picture
from blocklist.store import columns
from blocklist.store.record import HoldChanges, Record, Run, Snapshot
from blocklist.stretches import stretches


class Updated(msgspec.Struct):
    """What an update did: `feeds` in the order of the configuration; counts over all of them; `cases` it closed.

    `came` and `went`: where it was a person's word about one feed, the names (String) that this one began and ceased
    to list.
    """

    run: int
    feeds: list[FeedOutcome]
    added: int = 0
    removed: int = 0
    indicators: int = 0
    held: int = 0
    newly_held: int = 0
    changed: bool = False
    cases: list[Case] = msgspec.field(default_factory=list)
    came: pl.Series = msgspec.field(default_factory=lambda: pl.Series("name", [], pl.String))
    went: pl.Series = msgspec.field(default_factory=lambda: pl.Series("name", [], pl.String))
    seconds: float = 0.0
    timings: dict[str, float] = msgspec.field(default_factory=dict)


def update(
    config: Config,
    record: Record,
    *,
    only: Collection[str] = (),
    accept: Collection[str] = (),
    force: bool = False,
    on_feed: Callable[[FeedOutcome], None] | None = None,
    on_news: Callable[[], None] | None = None,
    on_settled: Callable[[Picture], Callable[[pl.DataFrame], None] | None] | None = None,
    decision: Back | Resume | None = None,
    command: str = "update",
) -> tuple[Updated, Picture]:
    """Bring the record up to date with the enabled feeds (or those of `only`).

    Every feed stands alone: one that fails or is gated keeps its last good snapshot. Everything that changed is
    written in one transaction, after the files it names are on disk. Raises RecordError when that can't be.

    `on_news` is called before they are recorded, when some feed brought something new. `on_settled` is called when all
    but holds is as it will be, and may ask the record; what it gives is called with the holds that will be in force
    (`Record.open_holds`), and may not.
    `decision`: a person's word about one feed, recorded with what it changes, as a run of `command`. Where that feed
    fails nothing is recorded at all, and FeedError is raised.
    """
    started_at, started = clock.now(), time.perf_counter()
    run = record.next_run()
    picture = Picture(config, record, at=started_at)
    _sync_feeds(config, record)
    work = Work(
        config, record, picture, run, started_at, force=force, accept=set(accept), on_feed=on_feed, decision=decision
    )
    out = Updated(run, [])
    # Without the built-in reference nothing is published; a first run over one feed must not fail for that.
    missing = record.feed_ids().get(ESSENTIAL) not in record.current_snapshots()
    feeds = [f for f in config.feeds.values() if not only or f.id in only or (f.id == ESSENTIAL and missing)]
    work.gather(feeds)
    out.timings["gather"] = time.perf_counter() - started
    if decision is not None and (failed := work.outcomes[decision.feed]).outcome == "failed":
        raise FeedError(failed.error or f"{failed.id} failed", hint=failed.hint)
    if on_news is not None and any(intake.added.height or intake.removed.height for intake in work.intakes.values()):
        on_news()
    _record(work, out, command, on_settled)
    if decision is not None and (intake := work.intakes.get(decision.feed)) is not None:
        out.came = intake.added.join(intake.removed, on="name", how="anti")["name"]
        out.went = pl.concat([intake.removed, intake.over]).join(intake.added, on="name", how="anti")["name"]
    picture.unload()
    out.feeds = [work.outcomes[f.id] for f in feeds]
    out.seconds = time.perf_counter() - started
    return out, picture


def _sync_feeds(config: Config, record: Record) -> None:
    """Give new feeds their numbers; the rows wait in the run's transaction when there is nothing else to write."""
    known = record.feed_ids()
    new = [name for name in config.feeds if name not in known]
    if new and not record.fresh:
        with record.transaction() as connection:
            record.add_feeds(connection, new)
    elif new:
        record.add_feeds(record.connection, new)


def _record(
    work: Work,
    out: Updated,
    command: str,
    on_settled: Callable[[Picture], Callable[[pl.DataFrame], None] | None] | None,
) -> None:
    """Everything that changed, in one transaction; when nothing did, the run and the time each feed was asked."""
    record, config, picture, run, at = work.record, work.config, work.picture, work.run, work.at
    started = time.perf_counter()
    period = clock.period(at)
    taken = {i: w for i, w in work.intakes.items() if w.gate is None}
    with ThreadPoolExecutor(1, "ahead") as ahead:
        if taken:
            picture.load_references()
            # The record keeps what it read. SQLite and Polars both leave the interpreter free.
            ahead.submit(record.open_holds)
        taken = holding.gate_overtaken(work, taken)
    enabled = {work.ids[i] for i in config.feeds}
    gone = [i for i in work.snapshots if i not in enabled]
    versions = {
        feed.id: text
        for feed in config.feeds.values()
        if record.feed_version(work.ids[feed.id]) != (text := attributes_of(feed)[1])
    }
    lapses = lapses_of(work, taken, versions)
    for intake in taken.values():
        picture.frames[work.ids[intake.feed.id]] = intake.frame
        if intake.times is not None:
            picture.times[work.ids[intake.feed.id]] = intake.times
    for lapse in lapses:
        picture.frames[work.ids[lapse.feed.id]] = lapse.columns.frame
        if lapse.times is not None:
            picture.times[work.ids[lapse.feed.id]] = lapse.times
    for number in gone:
        picture.frames.pop(number, None)
    if taken or gone or lapses:
        picture.forget()
        touched = [part["name"] for w in taken.values() for part in (w.added, w.removed, w.over)]
        picture.changes = Changes(picture.listed(), pl.concat(touched) if touched else pl.Series("name", [], pl.String))
    # Only where something was held before: a first load looks at everything anyway.
    again = cache(partial(holding.concerned, work, taken, lapses))
    if (taken or lapses) and not gone and not record.fresh:
        with ThreadPoolExecutor(1, "ahead") as ahead:
            ahead.submit(picture.references)
            again()
    taken = holding.gate_references(work, taken, again)
    listings_changed = (
        bool(gone or lapses)
        or any(w.added.height or w.removed.height or w.over.height or len(w.back) for w in taken.values())
        # What ended since the last run ended, whatever else this run brings.
        or any((end := work.next_ends.get(work.ids[i])) is not None and end <= clock.text(at) for i in taken)
    )
    inputs = holding.inputs_of(work, lapses)
    before = record.guard_input()
    look = holding.look(work, taken, lapses, again, before, inputs, anew=bool(gone))
    names = {number: name for name, number in work.ids.items()}
    with (
        ThreadPoolExecutor(1, "counting") as counting,
        record.transaction() as connection,
        ThreadPoolExecutor(1, "beside") as beside,
    ):
        said, who = clock.text(at), whoami()
        this = Run(record, connection, record.begin_run(connection, said, command, who), said, who)
        assert this.id == run
        for feed_id, text in versions.items():
            if feed_id not in taken and source_of(record.feed_version(work.ids[feed_id])) != source_of(text):
                _forget_validators(connection, work.ids[feed_id])
            attributes = attributes_of(config.feeds[feed_id])[0]
            record.add_feed_version(connection, work.ids[feed_id], run, attributes, text)
        if work.decision is not None:
            work.decision.write(this)
        _tell(this, work, taken, versions)
        for intake in work.intakes.values():
            record.add_snapshot(connection, _snapshot_row(work, intake))
        for feed_id in work.again:
            connection.execute(
                "UPDATE snapshot SET state = 'refused' WHERE feed = ? AND state = 'gated'",
                (work.ids[feed_id],),
            )
        for number in gone:
            record.close_feed(connection, run, period, number, "feed disabled")
            connection.execute("UPDATE feed SET enabled = 0, next_end = NULL WHERE id = ?", (number,))
            this.event("feed disabled", feed=names[number])
        # Asked now, as the connection belongs to the writer then.
        if look is not None or work.intakes:
            held, released = record.open_holds(), record.released_names()
            decide = on_settled(picture) if on_settled is not None and (listings_changed or look is not None) else None
        # SQLite takes the rows while the guards look at names; both leave the interpreter free, and nothing else asks
        # this connection meanwhile.
        written = beside.submit(_write_listings, connection, work, taken, lapses, period)
        changes: HoldChanges | None = None
        if look is not None:
            changes = record.hold_changes(look.holds(), None if look.no_more is None else look.no_more())
            fresh = changes.in_force["name"]
            out.newly_held = fresh.filter(~fresh.is_in(held["name"].implode())).n_unique()
        withheld: Future[_Withheld] | None = None
        if look is not None or work.intakes:
            in_force = held if changes is None else changes.in_force
            if decide is not None:
                decide(in_force)
        if work.intakes:
            withheld = counting.submit(_withheld, work, in_force, released)
        ended = _ended(work, taken, lapses)
        written.result()
        if changes is not None:
            record.change_holds(connection, run, changes)
            record.set_guard_input(connection, inputs)
            if changes.opened.height or changes.closed.height:
                listings_changed = True
        if listings_changed or versions:
            record.bump(connection)
        out.cases = close_dropped(this)
        for feed_id, outcome in work.outcomes.items():
            _feed_row(connection, work, feed_id, outcome)
        _note_ends(connection, work, taken, lapses)
        record.finish_run(run)
    out.timings["record"] = time.perf_counter() - started
    # After the transaction: rows of before that a crash leaves in a file have ended by their times all the same.
    for lapse in lapses if not record.undoing else ():
        if lapse.over.height:
            columns.write(record.state, lapse.snapshot, lapse.columns)
            if lapse.times is not None:
                columns.write_times(record.state, lapse.snapshot, lapse.times)
    _tell_ends(work, lapses, ended)
    if not record.undoing:
        record.remove_other_columns()
    out.changed = listings_changed or bool(versions)
    out.added = sum(o.added for o in work.outcomes.values())
    out.removed = sum(o.removed for o in work.outcomes.values())
    (entries,) = record.connection.execute("SELECT sum(entries) FROM snapshot WHERE state = 'current'").fetchone()
    out.indicators = int(entries or 0)
    out.held = record.count_held() if withheld is None else _tell_withheld(work, withheld.result())


def _tell(run: Run, work: Work, taken: Mapping[str, Intake], versions: Mapping[str, str]) -> None:
    """Events: what a person says of feeds, which list he let through its gate, and the digest of every list taken."""
    if versions:
        said = {feed_id: hashlib.sha256(text.encode()).hexdigest() for feed_id, text in versions.items()}
        run.event("feeds configured", attributes=said)
    for feed_id in sorted(work.accept & taken.keys()):
        waiting = work.record.gated_snapshot(work.ids[feed_id])
        gate, sha256 = waiting.gate if waiting else None, taken[feed_id].sha256
        run.event("snapshot accepted", feed=feed_id, sha256=sha256, gate=gate)
    if taken:
        digests = {feed_id: intake.sha256 for feed_id, intake in taken.items()}
        run.event("lists taken", snapshots=digests)


def _write_listings(
    connection: sqlite3.Connection, work: Work, taken: Mapping[str, Intake], lapses: Sequence[Lapse], period: int
) -> None:
    """Close what is listed no more, mark what lingers, and open what is new."""
    by_cause: dict[str, dict[str, Intake]] = {}
    for feed_id, intake in taken.items():
        back = work.back.get(feed_id)
        cause = f"feed rolled back to snapshot {back.id}" if back is not None else "no longer listed"
        by_cause.setdefault(cause, {})[feed_id] = intake
    for cause, some in by_cause.items():
        work.record.close_listings(connection, work.run, period, pl.concat(_with_feed(work, some, "removed")), cause)
    for feed_id, intake in taken.items():
        work.record.mark_dropped(connection, work.run, work.ids[feed_id], intake.dropped)
        work.record.mark_dropped(connection, None, work.ids[feed_id], intake.back)
    for feed, rows in [(w.feed, w.over) for w in taken.values()] + [(x.feed, x.over) for x in lapses]:
        these = rows.with_columns(pl.lit(work.ids[feed.id], pl.UInt16).alias("feed"))
        work.record.close_listings(connection, work.run, period, these, "no longer listed, and lingered its time")
    if taken:
        _add_listings(connection, work, taken)


def _add_listings(connection: sqlite3.Connection, work: Work, taken: Mapping[str, Intake]) -> None:
    # In order of the names, as the table has it, and never all at once: sixty feeds may bring sixty million.
    for some in stretches(_with_feed(work, taken, "added")):
        work.record.add_listings(connection, work.run, pl.concat(some))


def _with_feed(work: Work, taken: Mapping[str, Intake], which: Literal["added", "removed"]) -> list[pl.DataFrame]:
    """What feeds brought or lost with the number of each, sorted by name."""
    frames = {i: intake.added if which == "added" else intake.removed for i, intake in taken.items()}
    return [rows.with_columns(pl.lit(work.ids[i], pl.UInt16).alias("feed")) for i, rows in frames.items()]


def _note_ends(
    connection: sqlite3.Connection, work: Work, taken: Mapping[str, Intake], lapses: Sequence[Lapse]
) -> None:
    """When the next listing of each feed ends, so that a run need only look at these moments."""
    ends = {i: w.next_end for i, w in taken.items()} | {x.feed.id: x.next_end for x in lapses}
    connection.executemany(
        "UPDATE feed SET next_end = ? WHERE id = ?",
        [(None if end is None else clock.of_epoch(end), work.ids[i]) for i, end in ends.items()],
    )


def _ended(work: Work, taken: Mapping[str, Intake], lapses: Sequence[Lapse]) -> dict[int, int]:
    """How many listings of the feeds in question are over, by number; the record is not asked."""
    frames = {work.ids[i]: w.frame for i, w in taken.items()} | {work.ids[x.feed.id]: x.columns.frame for x in lapses}
    return {number: int(ended.sum()) for number, ended in work.picture.expired(frames).items()}


def _tell_ends(work: Work, lapses: Sequence[Lapse], ended: Mapping[int, int]) -> None:
    """How many listings are over (`ended`), and which feeds are stale, into the outcomes."""
    changed = dict(work.record.connection.execute("SELECT name, changed FROM feed"))
    for lapse in lapses:
        if lapse.feed.id in work.outcomes:
            work.outcomes[lapse.feed.id].removed += lapse.over.height
    for feed_id, outcome in work.outcomes.items():
        outcome.expired = ended.get(work.ids[feed_id], 0)
        # One that is pinned can't change.
        if outcome.outcome in ("unchanged", "skipped") and outcome.pinned is None:
            outcome.stale = stale_since(work.config.feeds[feed_id], changed.get(feed_id), work.at)


def _snapshot_row(work: Work, intake: Intake) -> Snapshot:
    fetched = work.fetched[intake.feed.id]
    now = work.current(intake.feed)
    stored = intake.stored
    return Snapshot(
        id=intake.snapshot,
        feed=work.ids[intake.feed.id],
        run=work.run,
        state="gated" if intake.gate is not None else "current",
        sha256=intake.sha256,
        bytes=intake.size,
        parse_key=parse_key(intake.feed, intake.sha256),
        url=fetched.url or intake.feed.urls[0],
        fetched=clock.text(work.at),
        etag=fetched.etag,
        last_modified=fetched.last_modified,
        base=now.id if now and stored.depth else None,
        depth=stored.depth,
        stored=stored.stored,
        format=intake.parsed.format,
        lines=intake.parsed.lines,
        entries=intake.entries,
        account=account_text(intake.account),
        gate=intake.gate,
    )


def _forget_validators(connection: sqlite3.Connection, feed: int) -> None:
    """Those of the current snapshot are of a source that is asked no more; what the new one answers comes after."""
    connection.execute(
        "UPDATE snapshot SET etag = NULL, last_modified = NULL WHERE feed = ? AND state = 'current'", (feed,)
    )


def _feed_row(connection: sqlite3.Connection, work: Work, feed_id: str, outcome: FeedOutcome) -> None:
    if feed_id in work.unasked or outcome.outcome == "skipped" or (outcome.note and outcome.outcome == "failed"):
        return
    fetched = work.fetched.get(feed_id)
    number = work.ids[feed_id]
    if feed_id in work.by_word:
        connection.execute(
            "UPDATE feed SET enabled = 1, outcome = ?, error = ?, hint = ?, changed = iif(?, ?, changed) WHERE id = ?",
            (outcome.outcome, outcome.error, outcome.hint, outcome.outcome == "updated", clock.text(work.at), number),
        )
        return
    failures = 0
    retry = host = None
    if fetched is not None:
        (failures,) = connection.execute("SELECT failures FROM feed WHERE id = ?", (number,)).fetchone()
        retry = fetched.retry_at
        if fetched.strain is not None:
            failures += 1
            retry = next_try(fetched.strain, failures, work.at, retry)
            host = fetched.host if fetched.strain == "host" else None
        elif fetched.outcome in ("fetched", "not-modified") and retry is None:
            failures = 0
        now = work.snapshots.get(number)
        stands = outcome.outcome == "pinned" and now is not None and fetched.sha256 == now.sha256
        same = outcome.outcome == "unchanged" or stands
        if same and fetched.status == 200 and (fetched.etag or fetched.last_modified):
            # The same bytes under new validators: with the old ones they would come whole every time.
            connection.execute(
                "UPDATE snapshot SET etag = ?1, last_modified = ?2 WHERE feed = ?3 AND state = 'current' "
                "AND (etag IS NOT ?1 OR last_modified IS NOT ?2)",
                (fetched.etag, fetched.last_modified, number),
            )
    connection.execute(
        """
        UPDATE feed SET enabled = 1, outcome = ?, error = ?, hint = ?, checked = ?, retry_at = ?, retry_host = ?,
               failures = ?, changed = CASE WHEN ? THEN ? ELSE changed END
        WHERE id = ?
        """,
        (
            outcome.outcome,
            outcome.error,
            outcome.hint,
            clock.text(work.at),
            clock.text(retry) if retry else None,
            host,
            failures,
            # The same bytes read by a better parser are no news of the publisher's.
            outcome.outcome == "updated" and not _same_bytes(work, feed_id),
            clock.text(work.at),
            number,
        ),
    )


def _same_bytes(work: Work, feed_id: str) -> bool:
    now, intake = work.snapshots.get(work.ids[feed_id]), work.intakes.get(feed_id)
    return now is not None and intake is not None and now.sha256 == intake.sha256


class _Withheld(NamedTuple):
    """How many names a guard withholds, and how many entries of each feed that brought something."""

    names: int
    entries: dict[str, int]


def _withheld(work: Work, holds: pl.DataFrame, released: Collection[str]) -> _Withheld:
    """Counted from the holds in force; the record is not asked, which commits meanwhile."""
    live = holds.filter(~pl.col("name").is_in(list(released)))
    whole = live.filter(~pl.col("subtree_only"))["name"].unique()
    listed = [(i, w.frame["name"]) for i, w in work.intakes.items() if w.gate is None and not w.feed.is_reference]
    entries = {}
    if listed:
        # One search for all feeds: every one makes a table of the held names first.
        withheld, at = among(pl.concat([names for _, names in listed]), whole), 0
        for feed_id, names in listed:
            entries[feed_id] = int(withheld.slice(at, len(names)).sum())
            at += len(names)
    return _Withheld(live["name"].n_unique(), entries)


def _tell_withheld(work: Work, withheld: _Withheld) -> int:
    """Entries into the outcomes; the number of names."""
    for feed_id, entries in withheld.entries.items():
        work.outcomes[feed_id].held = entries
    return withheld.names
