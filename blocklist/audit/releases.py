"""Releases in the record: which was live when, what made it, what it was pinned to, what it left out."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from itertools import takewhile

import msgspec
from msgspec.structs import replace

from blocklist.audit.moment import Moment, open_at
from blocklist.catalog import Feed
from blocklist.config import Config, Export, Policy
from blocklist.errors import RecordError
from blocklist.evidence import Hold
from blocklist.names import parents
from blocklist.publish import left_out, settings
from blocklist.publish.descriptor import Format
from blocklist.publish.failures import failures
from blocklist.publish.left_out import ALONE
from blocklist.publish.settings import Settings
from blocklist.publish.standing import standing
from blocklist.rules import Rule
from blocklist.select.single import Outcome
from blocklist.store import kept
from blocklist.store.moment import whole_since


class Live(msgspec.Struct, frozen=True):
    """The release whose file is, or was, in place.

    `chosen`: digest of what it was chosen from, where that is not what was listed when it was made, at `made`.
    """

    id: int
    published: str
    revision: int
    moment: Moment
    left_out: str | None
    chosen: str | None
    made: Moment


class Pin(msgspec.Struct, frozen=True):
    """The moment of the release that an export is pinned to, the digest of what it was chosen from, what is said."""

    moment: Moment
    chosen: str | None
    said: str


# Was a release `r` chosen from what an earlier one held, when it was made?
ELSEWHERE = (
    "r.amends IS NOT NULL OR EXISTS (SELECT 1 FROM pin p WHERE p.export = r.export AND p.since <= r.run "
    "AND (p.until IS NULL OR p.until > r.run))"
)
# Of a release: revision, run, time, and as of when it judged, of the listings that it shows; the rules it shows, where
# these are newer: those of its own run.
SHOWN = (
    "coalesce(b.revision, r.revision), coalesce(b.run, r.run), coalesce(b.created, r.created), "
    "CASE WHEN b.id IS NULL THEN coalesce(r.judged, r.created) ELSE coalesce(b.judged, b.created) END, "
    "CASE WHEN b.id IS NOT NULL THEN r.run END, r.created, r.left_out "
    "FROM release r LEFT JOIN release b ON b.id = r.amends"
)


def moment_of(release: int, run: int, at: str, judged: str, ruled: int | None, created: str) -> Moment:
    return Moment(run, at, judged, None if ruled is None else (ruled, created), release)


class Releases:
    """Asks `connection` as of `now`."""

    def __init__(self, config: Config, connection: sqlite3.Connection, now: Moment) -> None:
        self._config, self._db, self._now = config, connection, now
        self._feeds: dict[Moment, Mapping[str, Feed]] = {}
        self._settings: dict[int, Settings | None] = {}
        self._texts: dict[str, bytes | None] = {}

    def waiting(self, export: str) -> int | None:
        """The newest release of an export, where that is held now."""
        row = self._db.execute(
            "SELECT id, state FROM release WHERE export = ? ORDER BY id DESC LIMIT 1", (export,)
        ).fetchone()
        return int(row[0]) if row is not None and row[1] == "held" else None

    def exports(self) -> Mapping[str, Export]:
        """Those configured now, and those that had a file at that time."""
        if self._now.run is None:
            return self._config.exports
        rows = self._db.execute("SELECT DISTINCT export FROM release WHERE published <= ?", (self._now.at,))
        found = dict(self._config.exports)
        for (name,) in rows:
            live = self.live(name)
            made_by = self.settings_of(live.id) if live is not None else None
            if made_by is not None:
                found[name] = made_by.own.export
        return found

    def live(self, export: str) -> Live | None:
        if self._now.run is None:
            number = standing(self._db, export)
            return self.release(number) if number is not None else None
        row = self._db.execute(
            "SELECT id FROM release WHERE export = ? AND published <= ? ORDER BY id DESC LIMIT 1",
            (export, self._now.at),
        ).fetchone()
        return self.release(row[0]) if row is not None else None

    def release(self, number: int) -> Live:
        """What a published release shows, and what it was made of."""
        published, chosen, judged, shown, revision, *moment, left = self._db.execute(
            f"SELECT coalesce(r.published, r.created), CASE WHEN {ELSEWHERE} THEN r.chosen END, "
            f"coalesce(r.judged, r.created), coalesce(r.amends, r.id), {SHOWN} WHERE r.id = ?",
            (number,),
        ).fetchone()
        run, created = self._db.execute("SELECT run, created FROM release WHERE id = ?", (number,)).fetchone()
        made = Moment(run, created, judged, release=number)
        return Live(
            number, published, revision, self._known(moment_of(shown, *moment)), left, chosen, self._known(made)
        )

    def text(self, digest: str | None) -> bytes | None:
        """What a release was chosen from, or left out; None where that can't be read any more."""
        if digest is not None and digest not in self._texts:
            try:
                self._texts[digest] = kept.read(self._config.state, digest)
            except RecordError:
                self._texts[digest] = None
        return self._texts[digest] if digest is not None else None

    def _known(self, moment: Moment) -> Moment:
        """A file that is older than all that is kept of history: it stayed, so what is known first made it too."""
        whole = whole_since(self._db)
        if whole is None or moment.run is None or moment.run >= whole[0]:
            return moment
        return replace(moment, run=whole[0])

    def settings_of(self, release: int) -> Settings | None:
        if release not in self._settings:
            self._settings[release] = settings.of_release(self._db, release)
        return self._settings[release]

    def feeds_at(self, moment: Moment) -> Mapping[str, Feed]:
        """The feeds as they were configured then, by id."""
        if moment not in self._feeds:
            made_by = self.settings_of(moment.release) if moment.release is not None else None
            if moment.run is None:
                self._feeds[moment] = self._config.feeds
            elif made_by is not None:
                self._feeds[moment] = made_by.common.feeds
            else:
                self._feeds[moment] = settings.feeds_at(self._db, moment.run) or self._config.feeds
        return self._feeds[moment]

    def protected(self, moment: Moment) -> Sequence[str]:
        """What `[protect]` named then, and the resolvers of then."""
        made_by = self.settings_of(moment.release) if moment.release is not None else None
        if made_by is None:
            return self._config.protected_networks
        verify = msgspec.structs.replace(self._config.verify, resolvers=made_by.common.resolvers)
        return replace(self._config, protect=made_by.common.protect, verify=verify).protected_networks

    def pin(self, export: str) -> Pin | None:
        held, values = open_at(self._now)
        row = self._db.execute(
            "SELECT r.id, r.chosen, x.author, x.reason FROM pin x JOIN release r ON r.id = x.release "
            f"WHERE x.export = ? AND {held}",
            (export, *values),
        ).fetchone()
        if row is None:
            return None
        said = f"pinned to release {row[0]} by {row[2]}: {row[3]}"
        return Pin(self.release(row[0]).moment, row[1], said)

    def without(self, live: Live, said: Outcome, fmt: Format, rules: Sequence[Rule]) -> Outcome:
        """`said` under `rules`, unless the release `live` left out the entry that would decide."""
        data = self.text(live.left_out) or b""
        by = said.by or ""
        why = left_out.cut(data, by)
        # Of a folded list one entry stood for all below it: cut, it stands for none of them.
        above = parents(by) if why is None and fmt.fold else []
        # Below an allow it stands by itself; of a target that knows subtrees only, every allow is one.
        wide = [r for r in rules if not r.blocks and r.kind == "domain" and (r.subtree or not fmt.takes_exact)]
        apart = {rule.name for rule in wide}
        above = list(takewhile(lambda name: name not in apart, above))
        cut = ((name, w) for name in above if (w := left_out.cut(data, name)))
        why = why or next((f"{w} ({name})" for name, w in cut if not w.endswith(ALONE)), None)
        return replace(said, blocked=False, because=why) if why is not None else said

    def cut(self, live: Live, names: Sequence[str]) -> dict[str, str]:
        """Those of `names` that a release cut, and why."""
        data = self.text(live.left_out) or b""
        return {name: why for name in names if (why := left_out.cut(data, name))}

    def networks_cut(self, live: Live, asked: str) -> list[left_out.Network]:
        """What a release cut around an address or network; nothing where that can't be read."""
        return left_out.around(self.text(live.left_out) or b"", asked)

    def held(self, live: Live, names: Sequence[str]) -> list[Hold]:
        """What guards withheld of `names` from a release that its export was pinned to."""
        data = self.text(live.left_out)
        return [
            Hold(name, guard, detail, below, live.published, None)
            for name in names
            for guard, detail, below in (left_out.held(data, name) if data else ())
        ]

    def unloaded(self) -> list[str]:
        """Exports that fail, and what is in place and was not loaded: engines may do what an earlier release says."""
        if self._now.run is not None:
            return []
        rows = self._db.execute(
            "SELECT export, id FROM release WHERE state = 'live' AND reloaded IS NULL ORDER BY export"
        )
        failing = {name: failure.said for name, failure in failures(self._db).items() if name in self._config.exports}
        told = []
        for name, release in rows:
            export = self._config.exports.get(name)
            if export is not None and (export.reload or export.primary is not None):
                why = f"; it {failing.pop(name)}" if name in failing else ""
                told.append(
                    f"release {release} of {name} is in place, but was not loaded: the engine may still serve an "
                    f"earlier one; 'blocklist export {name}' tries again{why}"
                )
        told += [f"{n} {why}; what is in place may be older than what is recorded" for n, why in failing.items()]
        return told

    def revision(self) -> int:
        return int(self._db.execute("SELECT value FROM counter WHERE name = 'revision'").fetchone()[0])

    def gated(self, export: str, live: int) -> bool:
        """Is the newest release of `export`, after the live one, held?"""
        row = self._db.execute(
            "SELECT state FROM release WHERE export = ? AND id > ? ORDER BY id DESC LIMIT 1", (export, live)
        ).fetchone()
        return row is not None and row[0] == "held"

    def policy(self, name: str) -> Policy:
        return self._config.policies.get(name) or Policy()
