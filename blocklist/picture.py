"""The current picture of a run: what every feed lists, and what must not be blocked, loaded once when asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import polars as pl

from blocklist.catalog import Feed
from blocklist.config import Config
from blocklist.ingest import guard
from blocklist.names import RejectedError, normalize_name
from blocklist.select.current import Current, current
from blocklist.store.record import Record
from blocklist.suffixes import SuffixRules


@dataclass(frozen=True)
class Changes:
    """What the update of this process changed: `names` (String) of listings that came, went or changed.

    `before` is what was listed before it (`Picture.listed`).
    """

    before: list[list[int]]
    names: pl.Series


class Picture:
    """The current listings and references, loaded once a run and only when something asks."""

    def __init__(self, config: Config, record: Record, suffixes: SuffixRules) -> None:
        self._config = config
        self._record = record
        self.suffixes = suffixes
        self.frames: dict[int, pl.DataFrame] = {}
        self.changes: Changes | None = None
        self._current: Current | None = None
        self._references: guard.References | None = None
        # An update looks at the references while another thread draws the current picture.
        self._loading = threading.Lock()

    @property
    def feeds(self) -> dict[int, Feed]:
        """Enabled feeds by their number in the record."""
        ids = self._record.feed_ids()
        return {ids[name]: feed for name, feed in self._config.feeds.items() if name in ids}

    def _load(self) -> dict[int, pl.DataFrame]:
        """Indicators frames of every enabled feed that has some, by its number."""
        with self._loading:
            feeds = self.feeds
            for feed_id, snapshot in self._record.current_snapshots().items():
                if feed_id in feeds and feed_id not in self.frames:
                    self.frames[feed_id] = self._record.indicators(feed_id, snapshot.id)
            return dict(self.frames)

    def current(self) -> Current:
        """Listings of every feed but references."""
        if self._current is None:
            self._current = current(self._listings(), self.feeds, self.suffixes)
        return self._current

    def about(self, asked: Callable[[pl.Series], pl.Series]) -> Current:
        """The same for the names alone of which `asked` says so (String to Boolean)."""
        frames = {i: frame.filter(asked(frame["name"])) for i, frame in self._listings().items()}
        return current(frames, self.feeds, self.suffixes)

    def listed(self) -> list[list[int]]:
        """What `current` is drawn from: number and current snapshot of each feed but references, in order."""
        feeds = self.feeds
        snapshots = self._record.current_snapshots()
        return [[i, snapshots[i].id] for i in sorted(snapshots) if i in feeds and not feeds[i].is_reference]

    def _listings(self) -> dict[int, pl.DataFrame]:
        feeds = self.feeds
        return {i: f for i, f in self._load().items() if i in feeds and not feeds[i].is_reference}

    def references(self) -> guard.References:
        """What guards compare with: reference feeds, `[protect]`, and what this tool itself needs to reach."""
        if self._references is None:
            feeds = self.feeds
            frames = {i: f for i, f in self._load().items() if i in feeds and feeds[i].is_reference}
            self._references = guard.references(
                frames,
                feeds,
                self.suffixes,
                protected_domains(self._config),
                self._config.protected_networks,
            )
        return self._references

    def forget(self) -> None:
        """Drop what depends on frames that have just changed."""
        self._current = self._references = None


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
