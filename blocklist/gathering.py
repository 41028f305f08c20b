"""What the feeds of one update bring: asked, read and judged side by side, each standing alone. Nothing is recorded."""

from __future__ import annotations

import itertools
import json
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Literal

import msgspec
import polars as pl
from msgspec.structs import replace

from blocklist import clock
from blocklist.asking import limits_of, request_for
from blocklist.catalog import Feed
from blocklist.config import Config
from blocklist.errors import BlocklistError, FeedError, RecordError
from blocklist.feed_decision import Back, Resume
from blocklist.ingest import gate
from blocklist.ingest.body import TEMPORARY
from blocklist.ingest.fetch import Fetched, Request, fetch
from blocklist.ingest.gate import Known, ways_out
from blocklist.ingest.intake import Intake, parse_key, take_in
from blocklist.ingest.parse import parse
from blocklist.person import whoami
from blocklist.picture import Picture
from blocklist.quantities import parse_duration
from blocklist.select.lifetime import lasts, seconds
from blocklist.store import columns, folders, snapshots
from blocklist.store.feed_pins import FeedPin, feed_pins, pin_over
from blocklist.store.record import Record, Snapshot
from blocklist.store.snapshots import MAX_DEPTH

FeedOutcomeName = Literal["updated", "unchanged", "failed", "gated", "skipped", "pinned"]


class FeedOutcome(msgspec.Struct):
    """What an update did to one feed; a line of the screen and an item of `--json`.

    `expired`: its listings that are over but still listed or lingering. `stale`: when it changed last, where that is
    too long ago. `pinned`: what it stands at whatever comes.
    """

    id: str
    outcome: FeedOutcomeName
    entries: int | None = None
    added: int = 0
    removed: int = 0
    changed: int = 0
    held: int = 0
    rejected: dict[str, int] = msgspec.field(default_factory=dict)
    seconds: float = 0.0
    expired: int = 0
    stale: str | None = None
    note: str = ""
    error: str | None = None
    hint: str | None = None
    pinned: FeedPin | None = None


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
        decision: Back | Resume | None = None,
    ) -> None:
        self.config, self.record, self.picture, self.run, self.at = config, record, picture, run, at
        self.force, self.accept, self.on_feed, self.decision = force, accept, on_feed, decision
        self.ids = record.feed_ids()
        self.snapshots = record.current_snapshots()
        self.pins = feed_pins(record.connection)
        # Snapshots that feeds go back to in this run.
        self.back: dict[str, Snapshot] = {}
        if isinstance(decision, Back):
            self.back[decision.feed] = decision.to
            run_began = record.started(decision.to.run)
            said = (decision.to.id, run_began, clock.text(at), whoami(), decision.reason, decision.ticket)
            self.pins[decision.feed] = FeedPin(*said)
        elif decision is not None:
            self.pins.pop(decision.feed, None)
        for feed_id in self.pins.keys() & config.feeds.keys():
            # It was disabled, and is enabled again: what it stands at is taken in, not what comes.
            if self.ids[feed_id] not in self.snapshots and feed_id not in self.back:
                pinned = record.snapshot(self.pins[feed_id].snapshot)
                assert pinned is not None
                self.back[feed_id] = pinned
        # Drawn by threads side by side: `next` of a counter is one step, reading and adding would be two.
        self.last_snapshot = record.next_snapshot() - 1
        self.numbers = itertools.count(self.last_snapshot + 1)
        self.outcomes: dict[str, FeedOutcome] = {}
        self.intakes: dict[str, Intake] = {}
        self.fetched: dict[str, Fetched] = {}
        self.again: set[str] = set()
        self.unasked: set[str] = set()
        # What became of them says nothing of their publishers.
        self.by_word: set[str] = set()
        self.next_ends = record.next_ends()
        self.again_read: list[Fetched] = []

    @property
    def approved(self) -> set[str]:
        """Feeds whose list a person has seen: no gate holds it."""
        return self.accept | self.back.keys()

    def gather(self, feeds: list[Feed]) -> None:
        """Fetch and take in; parsing of one feed runs beside the fetching of others."""
        temporary = self.record.state / "incoming"
        folders.make(temporary)
        # Where the state is the operator's own folder, his `incoming` may be there too.
        for left in temporary.glob(TEMPORARY):
            left.unlink()
        snapshots.remove_unrecorded(self.record.state, self.last_snapshot)
        # Of a run that was killed, too: the numbers of its snapshots go to other feeds.
        columns.remove_others(self.record.state, {now.id for now in self.snapshots.values()})
        requests = []
        closed = {} if self.force else self._closed_hosts()
        with ThreadPoolExecutor(2, "intake") as pool:
            futures: dict[Future[None], Feed] = {}
            for feed in feeds:
                if feed.id in self.accept:
                    futures[pool.submit(self._guarded, feed, self._accept, None)] = feed
                elif feed.id in self.back:
                    futures[pool.submit(self._guarded, feed, self._go_back, None)] = feed
                elif self.decision is not None and self.decision.feed == feed.id:
                    futures[pool.submit(self._guarded, feed, self._resume, None)] = feed
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
                for left in temporary.glob(TEMPORARY):
                    left.unlink(missing_ok=True)

    def _closed_hosts(self) -> dict[str, datetime]:
        """Hosts that asked one of our feeds to wait, or did not answer; most feeds share few hosts."""
        rows = self.record.connection.execute(
            "SELECT retry_host, max(retry_at) FROM feed WHERE retry_host IS NOT NULL AND retry_at > ?1 "
            "AND checked <= ?1 GROUP BY 1",
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
            if fetched is not None and fetched.moved is not None:
                moved = f"moved for good to {fetched.moved}: name that as its url"
                outcome.note = f"{outcome.note}; {moved}" if outcome.note else moved
        except BlocklistError as error:
            outcome = FeedOutcome(feed.id, "failed", error=error.message, hint=error.hint)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            outcome = FeedOutcome(feed.id, "failed", error=f"{where}{error.strerror or error}")
        except Exception as error:
            # A mistake of ours that this feed's text brought to light must not cost the other feeds their update.
            logging.getLogger(__name__).debug("feed %s", feed.id, exc_info=True)
            outcome = FeedOutcome(
                feed.id,
                "failed",
                error=f"unexpected {type(error).__name__}: {str(error)[:200]}",
                hint=f"this is a bug; please report what 'blocklist --debug update --force {feed.id}' prints",
            )
        outcome.seconds = (fetched.seconds if fetched else 0.0) + time.perf_counter() - started
        if outcome.error and feed.id in self.ids and (kept := self.snapshots.get(self.ids[feed.id])):
            outcome.entries = outcome.entries if outcome.entries is not None else kept.entries
        self._settle(outcome)

    def _settle(self, outcome: FeedOutcome) -> None:
        """What became of a feed, and told at once."""
        outcome.pinned = self.pins.get(outcome.id)
        self.outcomes[outcome.id] = outcome
        if self.on_feed is not None:
            self.on_feed(outcome)

    def current(self, feed: Feed) -> Snapshot | None:
        return self.snapshots.get(self.ids[feed.id])

    def _request(self, feed: Feed, closed: Mapping[str, datetime]) -> Request | None:
        """What to ask for, or None when it is not time yet or the key is missing (the outcome is then set)."""
        now = self.current(feed)
        number = self.ids[feed.id]
        row = self.record.connection.execute(
            "SELECT checked, outcome, retry_at, retry_host, failures FROM feed WHERE id = ?", (number,)
        ).fetchone()
        checked, outcome, retry_at, retry_host, failures = row if row else (None, None, None, None, 0)
        not_before = None
        # With another URL, what the old one said is of no matter.
        source = source_of(self.record.feed_version(number))
        moved = source not in (None, source_of(attributes_of(feed)[1]))
        # A clock that was ahead would keep feeds waiting until it is there again.
        ahead = checked is not None and clock.parse(checked) > self.at
        if not self.force and not moved and not ahead:
            if retry_at and clock.parse(retry_at) > self.at:
                if not feed.mirrors:
                    whom = f"{retry_host} is" if retry_host else "its server is"
                    again = f", failed {failures} times in a row" if failures > 1 else ""
                    self._skip(
                        feed,
                        now,
                        f"waits: {whom} not asked before {clock.said(retry_at)}{again}",
                        failed=True,
                        hint=f"ask now with 'blocklist update --force {feed.id}'",
                    )
                    return None
                not_before = clock.parse(retry_at)
            wait = timedelta(seconds=parse_duration(feed.min_interval))
            waiting = self.record.gated_snapshot(self.ids[feed.id]) if outcome == "gated" else None
            same = waiting and self._judged(feed, waiting)
            if waiting and same and checked and clock.parse(checked) + wait > self.at:
                # What waits for a person is said at every run, and the publisher not asked more often for it.
                self.unasked.add(feed.id)
                self._settle(_still_gated(feed, waiting))
                return None
            if (
                checked
                and now
                and outcome in ("updated", "unchanged", "pinned")
                and clock.parse(checked) + wait > self.at
            ):
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
            entries = now.entries if now else None
            self._settle(FeedOutcome(feed.id, "failed", entries=entries, error=error.message, hint=error.hint))
            return None
        # Validators of one URL, or of one file of an archive, say nothing about another; an update forgets them.
        same = now is not None and source is not None and not moved
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
        self._settle(
            FeedOutcome(
                feed.id,
                "failed" if failed else "skipped",
                entries=now.entries if now else None,
                note=note,
                error=note if failed else None,
                hint=hint,
            )
        )

    def _take(self, feed: Feed, fetched: Fetched | None) -> FeedOutcome:
        assert fetched is not None
        now = self.current(feed)
        if fetched.outcome in ("failed", "waiting"):
            return FeedOutcome(
                feed.id,
                "failed",
                note="not asked" if fetched.outcome == "waiting" else "",
                error=(fetched.error or "failed") + (f"; keeping {clock.said(now.fetched)}" if now else ""),
                hint=fetched.hint,
            )
        if fetched.outcome == "not-modified" or (now and fetched.sha256 == now.sha256):
            assert now is not None
            if now.parse_key == parse_key(feed, now.sha256):
                note = f"{fetched.status}" if fetched.status else "same bytes"
                self._resolve_gate(feed, now)
                return FeedOutcome(feed.id, self._stands(feed) or "unchanged", entries=now.entries, note=note)
            # The same bytes, read by a better parser or by other options.
            waiting = self.record.gated_snapshot(self.ids[feed.id])
            if waiting and waiting.sha256 == now.sha256 and self._judged(feed, waiting):
                return _still_gated(feed, waiting)
            return self._intake(feed, self.record.current_bytes(now), now.sha256, fetched)
        assert fetched.path is not None and fetched.sha256 is not None
        pin = self.pins.get(feed.id)
        if pin is not None and now is not None and now.parse_key != parse_key(feed, now.sha256):
            # What it stands at is read by the options of now first; what came comes again.
            fetched.path.unlink(missing_ok=True)
            again = Fetched(feed.id, "fetched", url=now.url)
            self.fetched[feed.id] = again
            return self._intake(feed, self.record.current_bytes(now), now.sha256, again)
        waiting = self.record.gated_snapshot(self.ids[feed.id])
        if waiting and waiting.sha256 == fetched.sha256 and self._judged(feed, waiting):
            fetched.path.unlink(missing_ok=True)
            return self._kept_back(feed, waiting.id, waiting.gate) if pin is not None else _still_gated(feed, waiting)
        try:
            return self._intake(feed, fetched.path.read_bytes(), fetched.sha256, fetched, keep_back=pin)
        finally:
            fetched.path.unlink(missing_ok=True)

    def _judged(self, feed: Feed, waiting: Snapshot) -> bool:
        """Would `waiting` be read and judged as it was when it came to the gate?"""
        if waiting.parse_key != parse_key(feed, waiting.sha256):
            return False
        number = self.ids[feed.id]
        if pin_over(self.record.connection, number, waiting.run) != pin_over(self.record.connection, number):
            return False
        then = self.record.feed_version(number, waiting.run)
        return then is None or _limits(then) == _limits(attributes_of(feed)[1])

    def _stands(self, feed: Feed) -> Literal["pinned"] | None:
        return "pinned" if feed.id in self.pins else None

    def _kept_back(self, feed: Feed, snapshot: int, gate_: str | None) -> FeedOutcome:
        """What came from a feed that is pinned waits, for one more reason where a gate would hold it too."""
        pin, now = self.pins[feed.id], self.current(feed)
        more = f", which its gate would hold: {gate_}" if gate_ not in (None, _kept_back_by(pin)) else ""
        return FeedOutcome(
            feed.id,
            "pinned",
            entries=now.entries if now else None,
            note=f"what came waits as snapshot {snapshot}{more}",
        )

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
        self.fetched[feed.id] = _again(feed, waiting)
        return self._intake(feed, data, waiting.sha256, self.fetched[feed.id], accept=True)

    def _go_back(self, feed: Feed, fetched: Fetched | None) -> FeedOutcome:
        """Take in a snapshot of before, without asking the publisher. Raises FeedError where it reads otherwise now."""
        target, now = self.back[feed.id], self.current(feed)
        self.by_word.add(feed.id)
        if now and now.sha256 == target.sha256 and now.parse_key == parse_key(feed, now.sha256):
            return FeedOutcome(feed.id, "pinned", entries=now.entries, note="it is what it lists already")
        data = self.record.raw(target.id)
        if target.parse_key != parse_key(feed, target.sha256):
            try:
                gate.check(feed, parse(data, feed), target.entries)
            except FeedError as error:
                raise FeedError(
                    f"{feed.id}: snapshot {target.id} held {target.entries:,} entries then, and does not as it is read "
                    f"now: {error.message.removeprefix(f'{feed.id}: ')}",
                    hint=f"its format or options in the configuration were changed since: 'blocklist feeds show "
                    f"{feed.id}' shows those of now; set them as they were, or choose a later snapshot",
                ) from None
        # Without validators: its URL may be another one now.
        self.fetched[feed.id] = replace(_again(feed, target), etag=None, last_modified=None)
        done = self._intake(feed, data, target.sha256, self.fetched[feed.id], accept=True, back=target)
        done.outcome = "pinned"
        return done

    def _resume(self, feed: Feed, fetched: Fetched | None) -> FeedOutcome:
        """What came while the feed was pinned, and waits, judged as if it came now; else it goes on where it is."""
        self.by_word.add(feed.id)
        waiting, now = self.record.gated_snapshot(self.ids[feed.id]), self.current(feed)
        kept = None
        if waiting is not None:
            with suppress(RecordError):  # lost bytes must not keep it pinned: they are fetched again
                kept = self.record.raw(waiting.id)
        if waiting is None or kept is None:
            return FeedOutcome(feed.id, "unchanged", entries=now.entries if now else None, note="nothing else came yet")
        again = _again(feed, waiting)
        if source_of(self.record.feed_version(waiting.feed, waiting.run)) != source_of(attributes_of(feed)[1]):
            again = replace(again, etag=None, last_modified=None)
        self.fetched[feed.id] = again
        return self._intake(feed, kept, waiting.sha256, self.fetched[feed.id])

    def _intake(
        self,
        feed: Feed,
        data: bytes,
        sha256: str,
        fetched: Fetched,
        *,
        accept: bool = False,
        keep_back: FeedPin | None = None,
        back: Snapshot | None = None,
    ) -> FeedOutcome:
        number = self.ids[feed.id]
        now = self.current(feed)
        times = self.times_of(feed, now)
        undone = pl.Series("name", [], dtype=pl.String)
        if back is not None and times is not None:
            # What came after the snapshot that it goes back to was never meant to linger.
            undone = self.record.listed_after(number, back.run)
        snapshot = next(self.numbers)
        base = self._kept_bytes(now)  # lost ones must not stop the feed
        try:
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
                keep_back=_kept_back_by(keep_back) if keep_back is not None else None,
                undone=undone,
                fetched=fetched.path,
            )
        except BaseException:
            # Others of this run may be recorded with higher numbers: the next run would leave it where it is.
            with suppress(OSError):
                snapshots.file_of(self.record.state, snapshot).unlink(missing_ok=True)
            raise
        self.intakes[feed.id] = intake
        rejected = {reason.value: n for reason, n in intake.parsed.rejects.items()}
        if keep_back is not None:
            return self._kept_back(feed, snapshot, intake.gate)
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

    def times_of(self, feed: Feed, now: Snapshot | None) -> pl.DataFrame | None:
        """The times of the current listings, where they may end or some linger."""
        if now is None or not (lasts(feed) or columns.times_of(self.record.state, now.id).exists()):
            return None
        return self.record.times(now.feed, now.id)


def _again(feed: Feed, kept: Snapshot) -> Fetched:
    """A kept snapshot as if it were fetched now."""
    return Fetched(
        feed.id,
        "fetched",
        sha256=kept.sha256,
        size=kept.bytes,
        etag=kept.etag,
        last_modified=kept.last_modified,
        url=kept.url,
    )


def _kept_back_by(pin: FeedPin) -> str:
    """What stands at a snapshot as its gate, where nothing but the pin holds it."""
    return f"the feed is {pin.said}"


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


def source_of(attributes: str | None) -> tuple[object, ...] | None:
    """Of a feed's attributes (JSON), those that decide which bytes are fetched."""
    if attributes is None:
        return None
    known = json.loads(attributes)
    return tuple(known.get(key) for key in ("url", "mirrors", "packed", "member", "auth", "proxy"))


def _limits(attributes: str) -> tuple[object, ...]:
    """Of a feed's attributes (JSON), those that its gates compare with."""
    known = json.loads(attributes)
    keys = (
        "min_entries",
        "max_shrink",
        "max_growth",
        "max_held",
        "max_new_holds",
        "check_count",
        "allow_empty",
        "category",
        "action",
    )
    return tuple(known.get(key) for key in keys)


def attributes_of(feed: Feed) -> tuple[dict[str, object], str]:
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
