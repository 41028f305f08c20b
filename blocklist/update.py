"""One update: fetch, parse, guard, record. Verification and publishing follow in their own modules."""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

import msgspec
import polars as pl

from blocklist import __version__, clock
from blocklist.catalog import Feed
from blocklist.config import Config
from blocklist.errors import BlocklistError, FeedError, RecordError
from blocklist.ingest import guard
from blocklist.ingest.fetch import Fetched, Limits, Request, fetch
from blocklist.ingest.intake import Intake, account_text, parse_key, take_in
from blocklist.person import whoami
from blocklist.picture import Changes, Picture, protected_domains
from blocklist.quantities import parse_duration, parse_size
from blocklist.select.current import current
from blocklist.store import columns, snapshots
from blocklist.store.record import Record, Snapshot
from blocklist.store.snapshots import MAX_DEPTH
from blocklist.suffixes import builtin_rules

FeedOutcomeName = Literal["updated", "unchanged", "failed", "gated", "skipped"]


@dataclass
class FeedOutcome:
    """What an update did to one feed; a line of the screen and an item of `--json`."""

    id: str
    outcome: FeedOutcomeName
    entries: int | None = None
    added: int = 0
    removed: int = 0
    changed: int = 0
    held: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    note: str = ""
    error: str | None = None
    hint: str | None = None


@dataclass
class Updated:
    """What an update did: `feeds` in the order of the configuration; counts over all of them."""

    run: int
    feeds: list[FeedOutcome]
    added: int = 0
    removed: int = 0
    indicators: int = 0
    held: int = 0
    newly_held: int = 0
    changed: bool = False
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
    suffixes = builtin_rules()
    picture = Picture(config, record, suffixes)
    _sync_feeds(config, record)
    work = _Work(config, record, picture, run, started_at, force=force, accept=set(accept), on_feed=on_feed)
    out = Updated(run, [])
    feeds = [f for f in config.feeds.values() if not only or f.id in only]
    work.gather(feeds)
    out.timings["gather"] = time.perf_counter() - started
    _record(work, out)
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


class _Work:
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
        self.again_read: list[Fetched] = []

    def gather(self, feeds: list[Feed]) -> None:
        """Fetch and take in; parsing of one feed runs beside the fetching of others."""
        temporary = self.record.state / "incoming"
        temporary.mkdir(parents=True, exist_ok=True)
        for left in temporary.iterdir():
            left.unlink()
        snapshots.remove_unrecorded(self.record.state, self.last_snapshot)
        requests = []
        with ThreadPoolExecutor(2, "intake") as pool:
            futures: dict[Future[None], Feed] = {}
            for feed in feeds:
                if feed.id in self.accept:
                    futures[pool.submit(self._guarded, feed, self._accept, None)] = feed
                elif (request := self._request(feed)) is not None:
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
                    fetch(requests, into=temporary, limits=self._limits(), on_done=done)
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

    def _limits(self) -> Limits:
        settings = self.config.fetch
        return Limits(
            connect=parse_duration(settings.connect),
            idle=parse_duration(settings.idle),
            total=parse_duration(settings.total),
            per_host=settings.per_host,
            at_once=settings.at_once,
        )

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

    def _request(self, feed: Feed) -> Request | None:
        """What to ask for, or None when it is not time yet (the outcome is then set)."""
        now = self._current(feed)
        row = self.record.connection.execute(
            "SELECT checked, outcome, retry_at FROM feed WHERE id = ?", (self.ids[feed.id],)
        ).fetchone()
        checked, outcome, retry_at = row if row else (None, None, None)
        if not self.force:
            if retry_at and clock.parse(retry_at) > self.at:
                self._skip(feed, now, f"the publisher asks to wait until {retry_at}", failed=True)
                return None
            wait = timedelta(seconds=parse_duration(feed.min_interval))
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
        return Request(
            feed=feed.id,
            urls=feed.urls,
            mirrors=tuple(feed.mirrors),
            etag=now.etag if now and not self.force else None,
            last_modified=now.last_modified if now and not self.force else None,
            known_sha256=now.sha256 if now and now.parse_key == parse_key(feed, now.sha256) else None,
            max_size=parse_size(feed.max_size),
            allow_private=feed.allow_private,
            base=self.config.base,
            user_agent=self._user_agent(),
        )

    def _user_agent(self) -> str:
        contact = self.config.fetch.contact
        return f"blocklist/{__version__}" + (
            f" ({contact})" if contact.isascii() and contact.isprintable() and contact else ""
        )

    def _skip(self, feed: Feed, now: Snapshot | None, note: str, *, failed: bool = False) -> None:
        self.outcomes[feed.id] = FeedOutcome(
            feed.id,
            "failed" if failed else "skipped",
            entries=now.entries if now else None,
            note=note,
            error=note if failed else None,
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
        snapshot = next(self.numbers)
        base = None
        if now:
            with suppress(RecordError):  # kept bytes that are lost must not stop the feed
                base = self.record.current_bytes(now)
        intake = take_in(
            feed,
            data,
            sha256,
            state=self.record.state,
            snapshot=snapshot,
            before=self.record.indicators(number, now.id) if now else None,
            base=base,
            # Where a link of the chain is lost, a whole copy begins anew.
            base_depth=now.depth if now and self.record.has_chain(now.id) else MAX_DEPTH,
            accept=accept,
            # Other options or another parser may read the shared lines otherwise.
            account=json.loads(now.account) if now and now.parse_key == parse_key(feed, now.sha256) else None,
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
            entries=intake.frame.height,
            added=intake.added.height - intake.changed,
            removed=intake.removed.height - intake.changed,
            changed=intake.changed,
            rejected=rejected,
        )


def _still_gated(feed: Feed, waiting: Snapshot) -> FeedOutcome:
    return FeedOutcome(
        feed.id,
        "gated",
        error=waiting.gate or "gated",
        hint=f"inspect with 'blocklist feeds show {feed.id}', accept with 'blocklist update --accept {feed.id}'",
    )


def _ago(span: timedelta) -> str:
    seconds = int(span.total_seconds())
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


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


def _record(work: _Work, out: Updated) -> None:
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
    for intake in taken.values():
        picture.frames[work.ids[intake.feed.id]] = intake.frame
    for number in gone:
        picture.frames.pop(number, None)
    listings_changed = bool(gone) or any(w.added.height or w.removed.height for w in taken.values())
    inputs = _guard_inputs(work)
    before = record.guard_input()
    if taken or gone:
        picture.forget()
        touched = [part["name"] for w in taken.values() for part in (w.added, w.removed)]
        picture.changes = Changes(picture.listed(), pl.concat(touched) if touched else pl.Series("name", [], pl.String))
    names = {number: name for name, number in work.ids.items()}
    with record.transaction() as connection, ThreadPoolExecutor(2, "beside") as beside:
        actual = record.begin_run(connection, clock.text(at), "update", whoami(), __version__)
        assert actual == run
        for feed_id, text in versions.items():
            attributes = _attributes(config.feeds[feed_id])[0]
            record.add_feed_version(connection, work.ids[feed_id], run, attributes, text)
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
            record.close_listings(connection, run, period, _with_feed(work, taken, "removed"), "no longer listed")
            # SQLite takes the rows while the guards look at them; both leave the interpreter free.
            written = beside.submit(record.add_listings, connection, run, _with_feed(work, taken, "added"))
        holds = None
        anew = before is None or before[0] != inputs[0] or bool(gone)
        if anew:
            holds = guard.guard(picture.current(), picture.references())
        elif before != inputs:
            holds = _holds_of_added(work, taken)
        if taken:
            written.result()
        if holds is not None:
            out.newly_held, closed = record.replace_holds(
                connection, run, holds, None if anew else _no_longer_listed(work, taken)
            )
            record.set_guard_input(connection, inputs)
            if out.newly_held or closed:
                listings_changed = True
        if listings_changed or versions:
            record.bump(connection)
        for feed_id, outcome in work.outcomes.items():
            _feed_row(connection, work, feed_id, outcome)
        connection.execute("UPDATE run SET finished = ? WHERE id = ?", (clock.text(clock.now()), run))
    out.timings["record"] = time.perf_counter() - started
    columns.remove_others(record.state, {s.id for s in record.current_snapshots().values()})
    out.changed = listings_changed or bool(versions)
    out.added = sum(o.added for o in work.outcomes.values())
    out.removed = sum(o.removed for o in work.outcomes.values())
    _count_held(work, out)


def _with_feed(work: _Work, taken: Mapping[str, Intake], which: Literal["added", "removed"]) -> pl.DataFrame:
    return pl.concat(
        [
            (intake.added if which == "added" else intake.removed).with_columns(
                pl.lit(work.ids[feed_id], pl.UInt16).alias("feed")
            )
            for feed_id, intake in taken.items()
        ]
    )


def _holds_of_added(work: _Work, taken: Mapping[str, Intake]) -> pl.DataFrame:
    """Holds of the names that this run adds.

    A guard looks at one name and at the references; while those stay, what it said of the other names stays.
    """
    feeds = work.picture.feeds
    added = {work.ids[i]: w.added for i, w in taken.items() if w.added.height and not feeds[work.ids[i]].is_reference}
    return guard.guard(current(added, feeds, work.picture.suffixes), work.picture.references())


def _no_longer_listed(work: _Work, taken: Mapping[str, Intake]) -> pl.Series:
    """Names that this run removed and that no feed but references lists any more; to be asked after the removal."""
    held = work.record.open_holds().select("name").unique()
    removed = pl.concat([w.removed.select("name") for w in taken.values()]).unique()
    suspects = removed.join(held, on="name", how="semi")["name"].to_list()
    references = {work.ids[f.id] for f in work.config.feeds.values() if f.is_reference}
    gone = []
    for name in suspects:
        feeds = {row[0] for row in work.record.connection.execute("SELECT feed FROM listing WHERE name = ?", (name,))}
        if not feeds - references:
            gone.append(name)
    return pl.Series("name", gone, dtype=pl.String)


def _guard_inputs(work: _Work) -> tuple[str, str]:
    """Digests of what holds depend on: of everything but the listings, and of the listings.

    While both stay, nothing is guarded; while the first stays, only what is new.
    """
    references, listed = [], []
    for feed_id, feed in work.config.feeds.items():
        number = work.ids[feed_id]
        intake = work.intakes.get(feed_id)
        snapshot = work.snapshots[number].id if number in work.snapshots else None
        if intake is not None and intake.gate is None:
            snapshot = intake.snapshot
        if feed.is_reference:
            references.append((feed_id, feed.action, snapshot))
        else:
            listed.append((feed_id, snapshot))
    fixed = [
        __version__,
        work.picture.suffixes.digest,
        references,
        # A feed that becomes a reference, or ceases to be one, changes what all others are compared with.
        sorted(i for i, _ in listed),
        protected_domains(work.config),
        work.config.protected_networks,
    ]
    return _digest(fixed), _digest(listed)


def _digest(parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _snapshot_row(work: _Work, intake: Intake) -> Snapshot:
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
        entries=intake.frame.height,
        account=account_text(intake.account),
        gate=intake.gate,
    )


def _feed_row(connection: object, work: _Work, feed_id: str, outcome: FeedOutcome) -> None:
    if outcome.outcome == "skipped" or (outcome.note and outcome.outcome == "failed"):
        return
    fetched = work.fetched.get(feed_id)
    retry = fetched.retry_at if fetched else None
    work.record.connection.execute(
        """
        UPDATE feed SET enabled = 1, outcome = ?, error = ?, hint = ?, checked = ?, retry_at = ?,
               changed = CASE WHEN ? THEN ? ELSE changed END
        WHERE id = ?
        """,
        (
            outcome.outcome,
            outcome.error,
            outcome.hint,
            clock.text(work.at),
            clock.text(retry) if retry else None,
            outcome.outcome == "updated",
            clock.text(work.at),
            work.ids[feed_id],
        ),
    )


def _count_held(work: _Work, out: Updated) -> None:
    """Fill in how many entries of each feed a guard withholds, and the totals."""
    record = work.record
    holds = record.open_holds()
    released = record.released_names()
    live = holds.filter(~pl.col("name").is_in(list(released)))
    out.held = live["name"].n_unique()
    whole = live.filter(~pl.col("subtree_only"))["name"].unique()
    for feed_id, intake in work.intakes.items():
        if intake.gate is None and not intake.feed.is_reference:
            work.outcomes[feed_id].held = int(intake.frame["name"].is_in(whole.implode()).sum())
    rows = record.connection.execute("SELECT sum(entries) FROM snapshot WHERE state = 'current'").fetchone()
    out.indicators = int(rows[0] or 0)
