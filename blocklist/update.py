"""One update: fetch, parse, guard, record. Verification and publishing follow in their own modules."""

from __future__ import annotations

import hashlib
import itertools
import json
import sqlite3
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import Literal

import msgspec
import polars as pl

from blocklist import __version__, clock, holding
from blocklist.asking import limits_of, request_for
from blocklist.cases import Case, close_dropped
from blocklist.catalog import ESSENTIAL, Feed
from blocklist.config import Config
from blocklist.errors import BlocklistError, FeedError, RecordError
from blocklist.ingest.backoff import next_try
from blocklist.ingest.fetch import Fetched, Request, fetch
from blocklist.ingest.gate import Known, ways_out
from blocklist.ingest.intake import Intake, account_text, parse_key, take_in
from blocklist.lifetime import stale_since
from blocklist.person import whoami
from blocklist.picture import Changes, Picture
from blocklist.quantities import parse_duration
from blocklist.select import lifetime
from blocklist.select.lifetime import lasts, seconds
from blocklist.store import columns, snapshots
from blocklist.store.columns import Columns
from blocklist.store.record import Record, Snapshot
from blocklist.store.snapshots import MAX_DEPTH
from blocklist.stretches import stretches

FeedOutcomeName = Literal["updated", "unchanged", "failed", "gated", "skipped"]


@dataclass
class FeedOutcome:
    """What an update did to one feed; a line of the screen and an item of `--json`.

    `expired`: its listings that are over but still listed or lingering. `stale`: when it changed last, where that is
    too long ago.
    """

    id: str
    outcome: FeedOutcomeName
    entries: int | None = None
    added: int = 0
    removed: int = 0
    changed: int = 0
    held: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    expired: int = 0
    stale: str | None = None
    note: str = ""
    error: str | None = None
    hint: str | None = None


@dataclass
class Updated:
    """What an update did: `feeds` in the order of the configuration; counts over all of them; `cases` it closed."""

    run: int
    feeds: list[FeedOutcome]
    added: int = 0
    removed: int = 0
    indicators: int = 0
    held: int = 0
    newly_held: int = 0
    changed: bool = False
    cases: list[Case] = field(default_factory=list)
    seconds: float = 0.0
    timings: dict[str, float] = field(default_factory=dict)


def update(
    config: Config,
    record: Record,
    *,
    only: Collection[str] = (),
    accept: Collection[str] = (),
    force: bool = False,
    on_feed: Callable[[FeedOutcome], None] | None = None,
) -> tuple[Updated, Picture]:
    """Bring the record up to date with the enabled feeds (or those of `only`).

    Every feed stands alone: one that fails or is gated keeps its last good snapshot. Everything that changed is
    written in one transaction, after the files it names are on disk. Raises RecordError when that can't be.
    """
    started_at, started = clock.now(), time.perf_counter()
    run = record.next_run()
    picture = Picture(config, record, at=started_at)
    _sync_feeds(config, record)
    work = Work(config, record, picture, run, started_at, force=force, accept=set(accept), on_feed=on_feed)
    out = Updated(run, [])
    # Without the built-in reference nothing is published; a first run over one feed must not fail for that.
    missing = record.feed_ids().get(ESSENTIAL) not in record.current_snapshots()
    feeds = [f for f in config.feeds.values() if not only or f.id in only or (f.id == ESSENTIAL and missing)]
    work.gather(feeds)
    out.timings["gather"] = time.perf_counter() - started
    _record(work, out)
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


class Work:
    """The state of one update between fetching and the transaction."""

    def __init__(
        self,
        config: Config,
        record: Record,
        picture: Picture,
        run: int,
        at: datetime,
        *,
        force: bool,
        accept: set[str],
        on_feed: Callable[[FeedOutcome], None] | None,
    ) -> None:
        self.config, self.record, self.picture, self.run, self.at = config, record, picture, run, at
        self.force, self.accept, self.on_feed = force, accept, on_feed
        self.ids = record.feed_ids()
        self.snapshots = record.current_snapshots()
        # Drawn by threads side by side: `next` of a counter is one step, reading and adding would be two.
        self.last_snapshot = record.next_snapshot() - 1
        self.numbers = itertools.count(self.last_snapshot + 1)
        self.outcomes: dict[str, FeedOutcome] = {}
        self.intakes: dict[str, Intake] = {}
        self.fetched: dict[str, Fetched] = {}
        self.again: set[str] = set()
        self.unasked: set[str] = set()
        self.next_ends = record.next_ends()
        self.again_read: list[Fetched] = []

    def gather(self, feeds: list[Feed]) -> None:
        """Fetch and take in; parsing of one feed runs beside the fetching of others."""
        temporary = self.record.state / "incoming"
        temporary.mkdir(parents=True, exist_ok=True)
        for left in temporary.iterdir():
            left.unlink()
        snapshots.remove_unrecorded(self.record.state, self.last_snapshot)
        requests = []
        closed = {} if self.force else self._closed_hosts()
        with ThreadPoolExecutor(2, "intake") as pool:
            futures: dict[Future[None], Feed] = {}
            for feed in feeds:
                if feed.id in self.accept:
                    futures[pool.submit(self._guarded, feed, self._accept, None)] = feed
                elif (request := self._request(feed, closed)) is not None:
                    requests.append(request)
            by_id = {f.id: f for f in feeds}

            def done(fetched: Fetched) -> None:
                feed = by_id[fetched.feed]
                self.fetched[feed.id] = fetched
                futures[pool.submit(self._guarded, feed, self._take, fetched)] = feed

            try:
                for kept in self.again_read:
                    done(kept)
                if requests:
                    fetch(requests, into=temporary, limits=limits_of(self.config), on_done=done, closed=closed)
                while wait(futures, timeout=0.2).not_done:
                    pass  # in pieces, so that Ctrl-C is heard (Polars' handler has an endless wait resumed)
                for future in list(futures):
                    future.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
            finally:
                for left in temporary.iterdir():
                    left.unlink(missing_ok=True)

    def _closed_hosts(self) -> dict[str, datetime]:
        """Hosts that asked one of our feeds to wait, or did not answer; most feeds share few hosts."""
        rows = self.record.connection.execute(
            "SELECT retry_host, max(retry_at) FROM feed WHERE retry_host IS NOT NULL AND retry_at > ? GROUP BY 1",
            (clock.text(self.at),),
        )
        return {host: clock.parse(until) for host, until in rows}

    def _guarded(
        self, feed: Feed, step: Callable[[Feed, Fetched | None], FeedOutcome], fetched: Fetched | None
    ) -> None:
        """Run `step`; what it raises is that feed's outcome and nobody else's."""
        started = time.perf_counter()
        try:
            outcome = step(feed, fetched)
        except BlocklistError as error:
            outcome = FeedOutcome(feed.id, "failed", error=error.message, hint=error.hint)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            outcome = FeedOutcome(feed.id, "failed", error=f"{where}{error.strerror or error}")
        except Exception as error:
            # A mistake of ours that this feed's text brought to light must not cost the other feeds their update.
            outcome = FeedOutcome(
                feed.id,
                "failed",
                error=f"unexpected {type(error).__name__}: {str(error)[:200]}",
                hint="this is a bug; please report it with the feed's name",
            )
        outcome.seconds = (fetched.seconds if fetched else 0.0) + time.perf_counter() - started
        if outcome.error and feed.id in self.ids and (kept := self.snapshots.get(self.ids[feed.id])):
            outcome.entries = outcome.entries if outcome.entries is not None else kept.entries
        self.outcomes[feed.id] = outcome
        if self.on_feed is not None:
            self.on_feed(outcome)

    def _current(self, feed: Feed) -> Snapshot | None:
        return self.snapshots.get(self.ids[feed.id])

    def _request(self, feed: Feed, closed: Mapping[str, datetime]) -> Request | None:
        """What to ask for, or None when it is not time yet or the key is missing (the outcome is then set)."""
        now = self._current(feed)
        number = self.ids[feed.id]
        row = self.record.connection.execute(
            "SELECT checked, outcome, retry_at, retry_host, failures FROM feed WHERE id = ?", (number,)
        ).fetchone()
        checked, outcome, retry_at, retry_host, failures = row if row else (None, None, None, None, 0)
        not_before = None
        # With another URL, what the old one said is of no matter.
        moved = _source(self.record.feed_version(number)) not in (None, _source(_attributes(feed)[1]))
        if not self.force and not moved:
            if retry_at and clock.parse(retry_at) > self.at:
                if not feed.mirrors:
                    whom = f"{retry_host} is" if retry_host else "its server is"
                    again = f", failed {failures} times in a row" if failures > 1 else ""
                    self._skip(
                        feed,
                        now,
                        f"waits: {whom} not asked before {retry_at}{again}",
                        failed=True,
                        hint=f"ask now with 'blocklist update --force {feed.id}'",
                    )
                    return None
                not_before = clock.parse(retry_at)
            wait = timedelta(seconds=parse_duration(feed.min_interval))
            waiting = self.record.gated_snapshot(self.ids[feed.id]) if outcome == "gated" else None
            same = waiting and waiting.parse_key == parse_key(feed, waiting.sha256)
            if waiting and same and checked and clock.parse(checked) + wait > self.at:
                # What waits for a person is said at every run, and the publisher not asked more often for it.
                self.outcomes[feed.id] = _still_gated(feed, waiting)
                self.unasked.add(feed.id)
                if self.on_feed is not None:
                    self.on_feed(self.outcomes[feed.id])
                return None
            if checked and now and outcome in ("updated", "unchanged") and clock.parse(checked) + wait > self.at:
                if now.parse_key != parse_key(feed, now.sha256):
                    # Other options for the bytes we have: no reason to ask the publisher.
                    self.again_read.append(
                        Fetched(
                            feed.id,
                            "not-modified",
                            sha256=now.sha256,
                            url=now.url,
                            etag=now.etag,
                            last_modified=now.last_modified,
                        )
                    )
                    return None
                self._skip(
                    feed,
                    now,
                    f"asked {_ago(self.at - clock.parse(checked))} ago, min_interval {feed.min_interval}",
                )
                return None
        try:
            request = request_for(feed, self.config)
        except BlocklistError as error:
            self.outcomes[feed.id] = FeedOutcome(
                feed.id, "failed", entries=now.entries if now else None, error=error.message, hint=error.hint
            )
            if self.on_feed is not None:
                self.on_feed(self.outcomes[feed.id])
            return None
        # Validators of one URL, or of one file of an archive, say nothing about another.
        same = now is not None and _source(self.record.feed_version(number, now.run)) == _source(_attributes(feed)[1])
        return replace(
            request,
            etag=now.etag if now and same and not self.force else None,
            last_modified=now.last_modified if now and same and not self.force else None,
            known_sha256=now.sha256 if now and now.parse_key == parse_key(feed, now.sha256) else None,
            known_size=now.bytes if now else None,
            not_before=not_before,
            before=partial(self._kept_bytes, None if self.force else now),
        )

    def _kept_bytes(self, now: Snapshot | None) -> bytes | None:
        """The bytes of a current snapshot, if there are any."""
        if now is not None:
            with suppress(RecordError):
                return self.record.current_bytes(now)
        return None

    def _skip(
        self, feed: Feed, now: Snapshot | None, note: str, *, failed: bool = False, hint: str | None = None
    ) -> None:
        self.outcomes[feed.id] = FeedOutcome(
            feed.id,
            "failed" if failed else "skipped",
            entries=now.entries if now else None,
            note=note,
            error=note if failed else None,
            hint=hint,
        )
        if self.on_feed is not None:
            self.on_feed(self.outcomes[feed.id])

    def _take(self, feed: Feed, fetched: Fetched | None) -> FeedOutcome:
        assert fetched is not None
        now = self._current(feed)
        if fetched.outcome in ("failed", "waiting"):
            return FeedOutcome(
                feed.id,
                "failed",
                note="not asked" if fetched.outcome == "waiting" else "",
                error=(fetched.error or "failed") + (f"; keeping {now.fetched}" if now else ""),
                hint=fetched.hint,
            )
        if fetched.outcome == "not-modified" or (now and fetched.sha256 == now.sha256):
            assert now is not None
            if now.parse_key == parse_key(feed, now.sha256):
                note = f"{fetched.status}" if fetched.status else "same bytes"
                self._resolve_gate(feed, now)
                return FeedOutcome(feed.id, "unchanged", entries=now.entries, note=note)
            # The same bytes, read by a better parser or by other options.
            waiting = self.record.gated_snapshot(self.ids[feed.id])
            if waiting and waiting.parse_key == parse_key(feed, now.sha256):
                return _still_gated(feed, waiting)
            return self._intake(feed, self.record.current_bytes(now), now.sha256, fetched)
        assert fetched.path is not None and fetched.sha256 is not None
        waiting = self.record.gated_snapshot(self.ids[feed.id])
        if waiting and waiting.sha256 == fetched.sha256 and waiting.parse_key == parse_key(feed, fetched.sha256):
            fetched.path.unlink(missing_ok=True)
            return _still_gated(feed, waiting)
        data = fetched.path.read_bytes()
        fetched.path.unlink(missing_ok=True)
        return self._intake(feed, data, fetched.sha256, fetched)

    def _resolve_gate(self, feed: Feed, now: Snapshot) -> None:
        """Where the publisher has gone back to the bytes that are current, nothing waits at the gate any more."""
        waiting = self.record.gated_snapshot(self.ids[feed.id])
        if waiting and waiting.id > now.id:
            self.again.add(feed.id)

    def _accept(self, feed: Feed, fetched: Fetched | None) -> FeedOutcome:
        """Take the snapshot that waits at the gate, without fetching again."""
        waiting = self.record.gated_snapshot(self.ids[feed.id])
        if waiting is None:
            raise FeedError(f"{feed.id}: no snapshot waits at its gate", hint="'blocklist status' lists those that do")
        data = self.record.raw(waiting.id)
        self.fetched[feed.id] = Fetched(
            feed.id,
            "fetched",
            sha256=waiting.sha256,
            size=waiting.bytes,
            etag=waiting.etag,
            last_modified=waiting.last_modified,
            url=waiting.url,
        )
        return self._intake(feed, data, waiting.sha256, self.fetched[feed.id], accept=True)

    def _intake(
        self,
        feed: Feed,
        data: bytes,
        sha256: str,
        fetched: Fetched,
        *,
        accept: bool = False,
    ) -> FeedOutcome:
        number = self.ids[feed.id]
        now = self._current(feed)
        times = self._times(feed, now)
        snapshot = next(self.numbers)
        base = self._kept_bytes(now)  # lost ones must not stop the feed
        intake = take_in(
            feed,
            data,
            sha256,
            state=self.record.state,
            snapshot=snapshot,
            before=self.record.columns(number, now.id) if now else None,
            base=base,
            # Where a link of the chain is lost, a whole copy begins anew.
            base_depth=now.depth if now and self.record.has_chain(now.id) else MAX_DEPTH,
            accept=accept,
            # Other options or another parser may read the shared lines otherwise.
            account=json.loads(now.account) if now and now.parse_key == parse_key(feed, now.sha256) else None,
            at=seconds(self.at),
            times=times,
            known=Known(json.loads(now.account), now.last_modified, fetched.last_modified) if now else None,
        )
        self.intakes[feed.id] = intake
        rejected = {reason.value: n for reason, n in intake.parsed.rejects.items()}
        if intake.gate is not None:
            return FeedOutcome(
                feed.id,
                "gated",
                entries=now.entries if now else None,
                rejected=rejected,
                error=intake.gate,
                hint=intake.hint,
            )
        return FeedOutcome(
            feed.id,
            "updated",
            entries=intake.entries,
            added=intake.added.height - intake.changed,
            removed=intake.removed.height - intake.changed + intake.over.height,
            changed=intake.changed,
            rejected=rejected,
        )

    def _times(self, feed: Feed, now: Snapshot | None) -> pl.DataFrame | None:
        """The times of the current listings, where they may end or some linger."""
        if now is None or not (lasts(feed) or columns.times_of(self.record.state, now.id).exists()):
            return None
        return self.record.times(now.feed, now.id)


@dataclass
class Lapse:
    """A feed that brought nothing new and has listings that end: what is left, and the rows that linger no more."""

    feed: Feed
    snapshot: int
    columns: Columns
    times: pl.DataFrame | None
    over: pl.DataFrame
    next_end: int | None


def _lapses(work: Work, taken: Mapping[str, Intake], versions: Collection[str]) -> list[Lapse]:
    """Feeds whose listings ended since the last run, or whose lifetimes the configuration changed."""
    out = []
    for feed in work.config.feeds.values():
        number = work.ids[feed.id]
        now, end = work.snapshots.get(number), work.next_ends.get(number)
        if now is None or feed.id in taken:
            continue
        if not (end is not None and end <= clock.text(work.at)) and not (
            feed.id in versions and (end is not None or feed.max_age is not None or feed.linger is not None)
        ):
            continue
        at, times = seconds(work.at), work._times(feed, now)
        frame, repeated = work.record.columns(number, now.id)
        gone = lifetime.over(times, feed, at) if times is not None else pl.Series("name", [], dtype=pl.String)
        left = frame.filter(~pl.col("name").is_in(gone.implode()))
        times = times.filter(~pl.col("name").is_in(gone.implode())) if times is not None else None
        over = frame.filter(pl.col("name").is_in(gone.implode()))
        # What lingers stands in no line, so what is said of repeated names stays.
        kept = Columns(left, repeated)
        out.append(Lapse(feed, now.id, kept, times, over, lifetime.next_end(left, times, feed, at)))
    return out


def _still_gated(feed: Feed, waiting: Snapshot) -> FeedOutcome:
    return FeedOutcome(
        feed.id,
        "gated",
        error=waiting.gate or "gated",
        hint=ways_out(feed.id),
    )


def _ago(span: timedelta) -> str:
    seconds = int(span.total_seconds())
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _source(attributes: str | None) -> tuple[object, ...] | None:
    """Of a feed's attributes (JSON), those that decide which bytes are fetched."""
    if attributes is None:
        return None
    known = json.loads(attributes)
    return tuple(known.get(key) for key in ("url", "mirrors", "packed", "member", "auth", "proxy"))


def _attributes(feed: Feed) -> tuple[dict[str, object], str]:
    """Attributes of a feed that decisions depend on, as columns and as canonical JSON."""
    text = json.dumps(msgspec.to_builtins(feed), sort_keys=True)
    return {
        "category": feed.category,
        "confidence": feed.confidence,
        "family": feed.family,
        "direction": feed.matches,
        "mode": feed.mode,
        "title": feed.title,
        "url": feed.urls[0],
    }, text


def _record(work: Work, out: Updated) -> None:
    """Everything that changed, in one transaction; when nothing did, the run and the time each feed was asked."""
    record, config, picture, run, at = work.record, work.config, work.picture, work.run, work.at
    started = time.perf_counter()
    period = clock.period(at)
    taken = {i: w for i, w in work.intakes.items() if w.gate is None}
    enabled = {work.ids[i] for i in config.feeds}
    gone = [i for i in work.snapshots if i not in enabled]
    versions = {
        feed.id: text
        for feed in config.feeds.values()
        if record.feed_version(work.ids[feed.id]) != (text := _attributes(feed)[1])
    }
    lapses = _lapses(work, taken, versions)
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
    taken = holding.gate_references(work, taken, again)
    listings_changed = (
        bool(gone or lapses)
        or any(w.added.height or w.removed.height or w.over.height or len(w.back) for w in taken.values())
        # What ended since the last run ended, whatever else this run brings.
        or any((end := work.next_ends.get(work.ids[i])) is not None and end <= clock.text(at) for i in taken)
    )
    inputs = holding.inputs_of(work, lapses)
    before = record.guard_input()
    names = {number: name for name, number in work.ids.items()}
    with record.transaction() as connection, ThreadPoolExecutor(2, "beside") as beside:
        actual = record.begin_run(connection, clock.text(at), "update", whoami(), __version__)
        assert actual == run
        for feed_id, text in versions.items():
            attributes = _attributes(config.feeds[feed_id])[0]
            record.add_feed_version(connection, work.ids[feed_id], run, attributes, text)
        _tell(connection, work, taken, versions)
        for intake in work.intakes.values():
            record.add_snapshot(connection, _snapshot_row(work, intake))
        for feed_id in work.again:
            connection.execute(
                "UPDATE snapshot SET state = 'refused' WHERE feed = ? AND state = 'gated'",
                (work.ids[feed_id],),
            )
        for number in gone:
            record.close_feed(connection, run, period, number, "feed disabled")
            connection.execute("UPDATE feed SET enabled = 0 WHERE id = ?", (number,))
            record.event(connection, clock.text(at), run, "feed disabled", whoami(), feed=names[number])
        if taken:
            removed = pl.concat(_with_feed(work, taken, "removed"))
            record.close_listings(connection, run, period, removed, "no longer listed")
            for feed_id, intake in taken.items():
                record.mark_dropped(connection, run, work.ids[feed_id], intake.dropped)
                record.mark_dropped(connection, None, work.ids[feed_id], intake.back)
        for feed, rows in [(w.feed, w.over) for w in taken.values()] + [(x.feed, x.over) for x in lapses]:
            these = rows.with_columns(pl.lit(work.ids[feed.id], pl.UInt16).alias("feed"))
            record.close_listings(connection, run, period, these, "no longer listed, and lingered its time")
        if taken:
            # SQLite takes the rows while the guards look at them; both leave the interpreter free.
            written = beside.submit(_add_listings, connection, work, taken)
        held = holding.held_now(work, taken, lapses, again, before, inputs, anew=bool(gone))
        if taken:
            written.result()
        if held is not None:
            out.newly_held, closed = record.replace_holds(connection, run, *held)
            record.set_guard_input(connection, inputs)
            if out.newly_held or closed:
                listings_changed = True
        if listings_changed or versions:
            record.bump(connection)
        out.cases = close_dropped(record, connection, run, clock.text(at), whoami())
        for feed_id, outcome in work.outcomes.items():
            _feed_row(connection, work, feed_id, outcome)
        _note_ends(connection, work, taken, lapses)
        connection.execute("UPDATE run SET finished = ? WHERE id = ?", (clock.text(clock.now()), run))
    out.timings["record"] = time.perf_counter() - started
    # After the transaction: rows of before that a crash leaves in a file have ended by their times all the same.
    for lapse in lapses:
        if lapse.over.height:
            columns.write(record.state, lapse.snapshot, lapse.columns)
            if lapse.times is not None:
                columns.write_times(record.state, lapse.snapshot, lapse.times)
    _tell_ends(work, taken, lapses)
    columns.remove_others(record.state, {s.id for s in record.current_snapshots().values()})
    out.changed = listings_changed or bool(versions)
    out.added = sum(o.added for o in work.outcomes.values())
    out.removed = sum(o.removed for o in work.outcomes.values())
    _count_held(work, out)


def _tell(connection: sqlite3.Connection, work: Work, taken: Mapping[str, Intake], versions: Mapping[str, str]) -> None:
    """Events: what a person says of feeds, which list he let through its gate, and the digest of every list taken."""
    at = clock.text(work.at)
    if versions:
        said = {feed_id: hashlib.sha256(text.encode()).hexdigest() for feed_id, text in versions.items()}
        work.record.event(connection, at, work.run, "feeds configured", whoami(), attributes=said)
    for feed_id in sorted(work.accept & taken.keys()):
        waiting = work.record.gated_snapshot(work.ids[feed_id])
        gate, sha256 = waiting.gate if waiting else None, taken[feed_id].sha256
        work.record.event(
            connection, at, work.run, "snapshot accepted", whoami(), feed=feed_id, sha256=sha256, gate=gate
        )
    if taken:
        digests = {feed_id: intake.sha256 for feed_id, intake in taken.items()}
        work.record.event(connection, at, work.run, "lists taken", whoami(), snapshots=digests)


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
        [(None if end is None else clock.text(_moment(end)), work.ids[i]) for i, end in ends.items()],
    )


def _tell_ends(work: Work, taken: Mapping[str, Intake], lapses: Sequence[Lapse]) -> None:
    """How many listings of the feeds in question are over, and which feeds are stale, into the outcomes."""
    frames = {work.ids[i]: w.frame for i, w in taken.items()} | {work.ids[x.feed.id]: x.columns.frame for x in lapses}
    counts = {number: int(ended.sum()) for number, ended in work.picture.expired(frames).items()}
    changed = dict(work.record.connection.execute("SELECT name, changed FROM feed"))
    for lapse in lapses:
        if lapse.feed.id in work.outcomes:
            work.outcomes[lapse.feed.id].removed += lapse.over.height
    for feed_id, outcome in work.outcomes.items():
        outcome.expired = counts.get(work.ids[feed_id], 0)
        if outcome.outcome in ("unchanged", "skipped"):
            outcome.stale = stale_since(work.config.feeds[feed_id], changed.get(feed_id), work.at)


def _moment(seconds_: int) -> datetime:
    return datetime.fromtimestamp(seconds_, UTC)


def _snapshot_row(work: Work, intake: Intake) -> Snapshot:
    fetched = work.fetched[intake.feed.id]
    now = work._current(intake.feed)
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


def _feed_row(connection: sqlite3.Connection, work: Work, feed_id: str, outcome: FeedOutcome) -> None:
    if feed_id in work.unasked or outcome.outcome == "skipped" or (outcome.note and outcome.outcome == "failed"):
        return
    fetched = work.fetched.get(feed_id)
    number = work.ids[feed_id]
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
        if outcome.outcome == "unchanged" and fetched.status == 200 and (fetched.etag or fetched.last_modified):
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


def _count_held(work: Work, out: Updated) -> None:
    """Fill in how many entries of each feed a guard withholds, and the totals."""
    record = work.record
    rows = record.connection.execute("SELECT sum(entries) FROM snapshot WHERE state = 'current'").fetchone()
    out.indicators = int(rows[0] or 0)
    if not work.intakes:
        out.held = record.count_held()
        return
    holds = record.open_holds()
    released = record.released_names()
    live = holds.filter(~pl.col("name").is_in(list(released)))
    out.held = live["name"].n_unique()
    whole = live.filter(~pl.col("subtree_only"))["name"].unique()
    listed = [(i, w.frame["name"]) for i, w in work.intakes.items() if w.gate is None and not w.feed.is_reference]
    if listed:
        # One search for all feeds: every one makes a table of the held names first.
        withheld, at = pl.concat([names for _, names in listed]).is_in(whole.implode()), 0
        for feed_id, names in listed:
            work.outcomes[feed_id].held = int(withheld.slice(at, len(names)).sum())
            at += len(names)
