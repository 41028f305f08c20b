"""The current picture of a run: what every feed lists, and what must not be blocked, loaded once when asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from typing import cast
from urllib.parse import urlsplit

import msgspec
import polars as pl

from blocklist import clock
from blocklist.catalog import Feed
from blocklist.config import Config
from blocklist.ingest import guard
from blocklist.names import RejectedError, normalize_name
from blocklist.select.current import Current, current
from blocklist.select.known import named_by
from blocklist.select.lifetime import ends, lasts, seconds
from blocklist.store import columns
from blocklist.store.record import Record, Snapshot
from blocklist.store.suffix_rules import keep_rules, kept_rules
from blocklist.suffixes import SuffixRules, builtin_digest, builtin_rules


class Changes(msgspec.Struct, frozen=True):
    """What the update of this process changed: `names` (String) of listings that came, went or changed.

    `before` is what was listed before it (`Picture.listed`).
    """

    before: list[list[int | str]]
    names: pl.Series


# Names that are looked at together.
_AT_ONCE = 4_000_000
# Rows of all frames (1 GB) that may lie in memory beside the picture drawn from them.
_MANY = 20_000_000


class Picture:
    """The current listings and references, loaded once a run and only when something asks."""

    def __init__(
        self, config: Config, record: Record, suffixes: SuffixRules | None = None, at: datetime | None = None
    ) -> None:
        # Whether a listing has ended is judged as of one moment for the whole run: its start.
        self.at = clock.now() if at is None else at
        self._config = config
        self._record = record
        self._suffixes = suffixes
        self._keep_suffixes = False
        self.frames: dict[int, pl.DataFrame] = {}
        self.times: dict[int, pl.DataFrame] = {}
        self.changes: Changes | None = None
        self._feeds: dict[int, Feed] = {}
        self._snapshots: dict[int, Snapshot] | None = None
        self._current: Current | None = None
        self._references: guard.References | None = None
        self._named: pl.DataFrame | None = None
        # An update looks at the references while another thread draws the current picture.
        self._loading = threading.Lock()

    @property
    def suffixes(self) -> SuffixRules:
        """The rules of public suffixes: those given, else the built-in ones, read when first asked for."""
        with self._loading:
            if self._suffixes is None:
                self._suffixes = kept_rules(self._record.state)
            if self._suffixes is None:
                self._suffixes, self._keep_suffixes = builtin_rules(), True
            return self._suffixes

    @property
    def suffix_digest(self) -> str:
        """What tells these rules from others."""
        return self._suffixes.digest if self._suffixes else builtin_digest()

    @property
    def feeds(self) -> dict[int, Feed]:
        """Enabled feeds by their number in the record, which each keeps."""
        if len(self._feeds) < len(self._config.feeds):
            ids = self._record.feed_ids()
            self._feeds = {ids[name]: feed for name, feed in self._config.feeds.items() if name in ids}
        return self._feeds

    def _load(self, wanted: Callable[[Feed], bool]) -> dict[int, pl.DataFrame]:
        """Indicators frames of the enabled feeds that are `wanted` and have some, by number."""
        return dict(self._each(wanted, stay=True))

    def _each(self, wanted: Callable[[Feed], bool], *, stay: bool) -> Iterator[tuple[int, pl.DataFrame]]:
        """The same one by one; those that had to be read stay in memory if they may."""
        numbers = sorted(number for number, feed in self.feeds.items() if wanted(feed))
        # An update puts frames here before the record knows of them. With all of them here it is not asked.
        snapshots = {} if self.frames.keys() >= set(numbers) else self._now()
        for number in numbers:
            if number in snapshots or number in self.frames:
                with self._loading:
                    frame = self.frames.get(number)
                    if frame is None:
                        frame = self._record.indicators(number, snapshots[number].id)
                        if stay:
                            self.frames[number] = frame
                yield number, frame

    def current(self) -> Current:
        """Listings of every feed but references."""
        if self._current is None:
            frames = self.listings()
            self._current = current(frames, self.feeds, self.suffixes, self.expired(frames))
        return self._current

    def about(self, asked: Callable[[pl.Series], pl.Series]) -> Current:
        """The same for the names alone of which `asked` says so (String to Boolean)."""
        stay = sum(snapshot.entries for snapshot in self._now().values()) <= _MANY
        frames: dict[int, pl.DataFrame] = {}
        waiting: dict[int, pl.DataFrame] = {}

        def ask() -> None:
            # Of many feeds at once: what is asked for is made a table at each look.
            among = asked(pl.concat([frame["name"] for frame in waiting.values()]))
            first = 0
            for number, frame in waiting.items():
                frames[number] = frame.filter(among.slice(first, frame.height))
                first += frame.height
            waiting.clear()

        for number, frame in self._each(_lists, stay=stay):
            waiting[number] = frame
            if sum(frame.height for frame in waiting.values()) > _AT_ONCE:
                ask()
        if waiting:
            ask()
        return current(frames, self.feeds, self.suffixes, self.expired(frames))

    def settled(self) -> None:
        """The snapshots of this run are written: the record, to which another thread writes, is not asked again."""
        self._snapshots = self._record.current_snapshots()

    def preload(self) -> bool:
        """Read from their files all frames that are not yet here. False where some are lost, or there are too many to
        stay here: then the record would be asked for them.
        """
        snapshots = self._now()
        if sum(now.entries for now in snapshots.values()) > _MANY:
            return False
        for number in snapshots.keys() & self.feeds.keys():
            if number not in self.frames:
                found = columns.read(self._record.state, snapshots[number].id)
                if found is None:
                    return False
                with self._loading:
                    self.frames[number] = found.frame
            if number not in self.times and _lists(self.feeds[number]) and lasts(self.feeds[number]):
                times = columns.read_times(self._record.state, snapshots[number].id)
                if times is None:
                    return False
                self.times[number] = times
        return True

    def _now(self) -> dict[int, Snapshot]:
        """The current snapshot of each feed, by number."""
        return self._record.current_snapshots() if self._snapshots is None else self._snapshots

    def listed(self) -> list[list[int | str]]:
        """What `current` is drawn from: number and current snapshot of each feed but references, in order.

        A backup that was put back gives numbers of snapshots again: bytes, run and time tell them apart.
        """
        feeds = self.feeds
        now = self._now()
        ours = [i for i in sorted(now) if i in feeds and not feeds[i].is_reference]
        return [[i, now[i].id, now[i].run, now[i].fetched, now[i].sha256] for i in ours]

    def listings(self) -> dict[int, pl.DataFrame]:
        """Indicators frames of every feed but references, by number."""
        return self._load(_lists)

    def expired(self, frames: Mapping[int, pl.DataFrame]) -> dict[int, pl.Series]:
        """Which rows of `frames` have ended, Boolean, of the feeds that have such rows."""
        feeds, at, out = self.feeds, seconds(self.at), {}
        for number, frame in frames.items():
            ended = ends(frame, self._times(number, feeds[number]), feeds[number])
            if ended is not None and (past := (ended <= at).fill_null(False)).any():
                out[number] = past
        return out

    def lapsed(self) -> list[tuple[int, int]]:
        """Feeds with listings that ended since the last update judged them, and when the last one of each did.

        An export of its own must notice what no update has yet.
        """
        due = [i for i, end in self._record.next_ends().items() if end <= clock.text(self.at) and i in self.feeds]
        at, out, late = seconds(self.at), [], {self.feeds[i].id for i in due}
        if due:
            frames = self._load(lambda feed: feed.id in late)
            for number in due:
                feed = self.feeds[number]
                ended = ends(frames[number], self._times(number, feed), feed) if number in frames else None
                last = None if ended is None else ended.filter(ended <= at).max()
                if last is not None:
                    out.append((number, cast(int, last)))
        return out

    def _times(self, number: int, feed: Feed) -> pl.DataFrame | None:
        if not lasts(feed):
            return None
        if number not in self.times:
            snapshot = self._now().get(number)
            if snapshot is None:
                return None
            self.times[number] = self._record.times(number, snapshot.id)
        return self.times[number]

    def load_references(self) -> None:
        """Read what `references` needs of the record: it then asks for nothing more."""
        self._load(lambda feed: feed.is_reference)

    def references(self) -> guard.References:
        """What guards compare with: reference feeds, `[protect]`, and what this tool itself needs to reach."""
        if self._references is None:
            feeds = self.feeds
            self._references = guard.references(
                self._load(lambda feed: feed.is_reference),
                feeds,
                self.suffixes,
                protected_domains(self._config),
                self._config.protected_networks,
            )
        return self._references

    def references_near(self, names: pl.DataFrame) -> guard.References:
        """What of the same can hold one of `names` (`name: String`, `kind: UInt8`) whole: a tenth of the work."""
        return guard.references(
            self._load(lambda feed: feed.is_reference),
            self.feeds,
            self.suffixes,
            protected_domains(self._config),
            self._config.protected_networks,
            names,
        )

    def informers(self) -> list[tuple[Feed, pl.DataFrame]]:
        """Reference feeds that tell sinkholes and parking, with what they name."""
        found = self._load(lambda feed: feed.is_reference and feed.action in ("sinkhole", "parking"))
        return [(self.feeds[i], frame) for i, frame in sorted(found.items())]

    def named_by(self, ids: Collection[str]) -> pl.DataFrame:
        """`name`, `why: String` of what the reference feeds `ids` name, of those that hold."""
        frames = self._load(lambda feed: feed.id in ids)
        return guard.references(frames, self.feeds, self.suffixes, (), ()).domains

    def named(self) -> pl.DataFrame:
        """What references name, those that only inform among them, as `blocklist.select.known.named_by` gives it."""
        if self._named is None:
            feeds = self.feeds
            self._named = named_by(
                (feeds[i].id, feeds[i].ranked, frame) for i, frame in self._load(lambda feed: feed.is_reference).items()
            )
        return self._named

    def unload(self) -> None:
        """Give back the frames where they are very large; what asks for them again reads them from their files.

        Whoever writes calls it when the record is written: what is kept beside it for the next run is kept now.
        """
        if self._keep_suffixes and self._suffixes is not None:
            keep_rules(self._record.state, self._suffixes)
            self._keep_suffixes = False
        with self._loading:
            if sum(frame.height for frame in self.frames.values()) > _MANY:
                self.frames.clear()
                self.times.clear()

    def forget_references(self) -> None:
        """Drop the references alone."""
        self._references = self._named = None

    def forget(self) -> None:
        """Drop what depends on frames that have just changed."""
        self._current = self._references = self._named = None


def _lists(feed: Feed) -> bool:
    return not feed.is_reference


def protected_domains(config: Config) -> list[str]:
    """`[protect]` and the hosts of the enabled feeds: a list must not cut off its own sources."""
    hosts = []
    for feed in config.feeds.values():
        for url in (*feed.urls, *feed.mirrors):
            host = _host(url)
            try:
                hosts.append(normalize_name(host))
            except RejectedError:
                continue
    return list(dict.fromkeys([*config.protect.domains, *hosts]))


def _host(url: str) -> str:
    """The host of an http(s) URL; empty for others."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
