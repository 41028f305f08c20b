"""The situational picture: what came and went, who knew first, what is held, failing or about to end. Values only.

`blocklist.report_page` writes it as HTML, `blocklist.report_markdown` as Markdown.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
from msgspec.structs import asdict

from blocklist import __version__, clock
from blocklist.catalog import CATEGORIES
from blocklist.config import Config
from blocklist.lifetime import stale_since
from blocklist.overlap import Contribution, overlap
from blocklist.picture import Picture
from blocklist.publish.failures import failures
from blocklist.rules import ending_soon, rules_in_force
from blocklist.select.current import Current
from blocklist.select.fold import parents
from blocklist.select.policy import IPV4, IPV6
from blocklist.store.feed_pins import feed_pins
from blocklist.store.record import Record
from blocklist.suffixes import SuffixRules

_TOP = 15
_RELEASES = 30
# Holds that a person should read; the rest is a number.
_HELD = 30
_DOMAIN = 1


@dataclass(frozen=True)
class Count:
    """How many listings there are of something, and how many `came` and `went` in the time."""

    name: str
    now: int = 0
    came: int = 0
    went: int = 0


@dataclass(frozen=True)
class Day:
    """Listings that `came` and `went` on a day (UTC). `begun`: of those that came, with the first reading of a feed."""

    day: str
    came: int = 0
    went: int = 0
    begun: int = 0


@dataclass(frozen=True)
class FeedRow:
    """One feed. `alone`: entries that no other feed lists. `dead`: entries whose domain the registry denies, of
    `asked` that DNS was asked about. `first`: names of which it knew before others, `later`: of which others knew
    before it; `lead`: the median of the days by which it was first, None where it never was.
    """

    feed: str
    category: str
    state: str
    error: str | None
    changed: str | None
    entries: int
    came: int
    went: int
    alone: int
    nearest: str | None
    share: float
    asked: int
    dead: int
    first: int
    later: int
    lead: float | None


@dataclass(frozen=True)
class Report:
    """Everything that the pages show; JSON has the same keys. Times are RFC 3339, UTC."""

    since: str
    until: str
    version: str
    runs: int
    listings: int
    names: int
    first_run: str | None
    days: Sequence[Day]
    categories: Sequence[Count]
    feeds: Sequence[FeedRow]
    copies: Sequence[Mapping[str, Any]]
    held: Mapping[str, Any]
    rules: Mapping[str, Any]
    domains: Sequence[Count]
    networks: Sequence[Count]
    exports: Sequence[Mapping[str, Any]]
    releases: Sequence[Mapping[str, Any]]
    decisions: Sequence[Mapping[str, Any]] = field(default_factory=list)


def report(config: Config, record: Record, suffixes: SuffixRules, since: datetime) -> Report:
    """The picture from `since` until now. `record` may be open for reading only."""
    return _Reporter(config, record, suffixes, since).all()


class _Reporter:
    def __init__(self, config: Config, record: Record, suffixes: SuffixRules, since: datetime) -> None:
        self._config, self._record, self._suffixes = config, record, suffixes
        self._db = record.connection
        self._since, self._now = since, clock.now()
        self._begin = clock.text(since)
        self._picture = Picture(config, record, suffixes)
        # Order is by run, not by clock; runs of the time are those that started in it.
        first = self._db.execute("SELECT min(id) FROM run WHERE started >= ?", (self._begin,)).fetchone()[0]
        self._first = 2**62 if first is None else int(first)

    def all(self) -> Report:
        db = self._db
        current = self._picture.current()
        shared = overlap(current, self._picture.feeds)
        flow = _flow(db, self._first).filter(pl.col("category") != "reference")
        started = db.execute("SELECT min(started) FROM run").fetchone()[0]
        return Report(
            since=self._begin,
            until=clock.text(self._now),
            version=__version__,
            runs=db.execute("SELECT count(*) FROM run WHERE id >= ?", (self._first,)).fetchone()[0],
            listings=current.listings.height,
            names=current.names.height,
            first_run=started,
            days=self._days(flow, clock.parse(started) if started else self._now),
            categories=self._categories(flow, current),
            feeds=self._feeds(flow, {c.feed: c for c in shared.contributions}),
            copies=[{"feed": p.feed, "within": p.within, "share": round(p.share, 4)} for p in shared.proposals],
            held=self._held(),
            rules=self._rules(),
            domains=self._domains(current),
            networks=self._networks(current),
            exports=self._exports(),
            releases=_rows(
                db,
                "SELECT export, id, state, created, published, serial, entries, added, removed, note FROM release "
                f"WHERE run >= ? ORDER BY id DESC LIMIT {_RELEASES}",
                self._first,
            ),
            decisions=self._decisions(),
        )

    # What came and went

    def _days(self, flow: pl.DataFrame, started: datetime) -> list[Day]:
        """Every day of the time, also those on which nothing happened; none before the record began."""
        sums = {row[0]: row[1:] for row in flow.group_by("day").agg(pl.col("came", "went", "begun").sum()).iter_rows()}
        day, out = max(self._since, started).astimezone(UTC).date(), []
        while day <= self._now.date():
            out.append(Day(day.isoformat(), *sums.get(day.isoformat(), ())))
            day += timedelta(days=1)
        return out

    def _categories(self, flow: pl.DataFrame, current: Current) -> list[Count]:
        now = {CATEGORIES[code]: n for code, n in current.listings["category"].value_counts().iter_rows()}
        sums = {c: (a, b) for c, a, b in flow.group_by("category").agg(pl.col("came", "went").sum()).iter_rows()}
        out = [Count(c, now.get(c, 0), *sums.get(c, (0, 0))) for c in sorted({*now, *sums})]
        return sorted(out, key=lambda c: (-c.now, c.name))

    def _feeds(self, flow: pl.DataFrame, contributions: Mapping[str, Contribution]) -> list[FeedRow]:
        db = self._db
        sums = {f: (a, b) for f, a, b in flow.group_by("feed").agg(pl.col("came", "went").sum()).iter_rows()}
        known = {
            row[0]: row[1:]
            for row in db.execute(
                "SELECT f.name, f.outcome, f.error, f.changed, s.entries, f.id, "
                "(SELECT g.gate FROM snapshot g WHERE g.feed = f.id AND g.state = 'gated') "
                "FROM feed f LEFT JOIN snapshot s ON s.feed = f.id AND s.state = 'current'"
            )
        }
        dead = {
            feed: (asked, gone)
            for feed, asked, gone in db.execute(
                "SELECT l.feed, count(*), coalesce(sum(v.dead), 0) FROM verdict v JOIN listing l ON l.name = v.name "
                "GROUP BY l.feed"
            )
        }
        leads, pins = _leads(db, self._first), feed_pins(db)
        out = []
        for feed in self._config.feeds.values():
            outcome, error, changed, entries, number, gate = known.get(feed.id, (None,) * 6)
            stale = stale_since(feed, changed, self._now) is not None
            pin = pins.get(feed.id)
            state = (
                "never"
                if outcome is None
                else "pinned"
                if pin is not None and outcome != "failed"
                else "gated"
                if gate
                else "stale"
                if stale and outcome != "failed"
                else outcome
            )
            mine = contributions.get(feed.id)
            came, went = sums.get(number, (0, 0))
            asked, gone = dead.get(number, (0, 0))
            first, later, days = leads.get(number, (0, 0, None))
            out.append(
                FeedRow(
                    feed=feed.id,
                    category=feed.category,
                    state=f"{state}, shadow" if feed.mode == "shadow" else state,
                    error=(pin.said.removeprefix("pinned ") if pin is not None else gate) or error,
                    changed=changed,
                    entries=entries or 0,
                    came=came,
                    went=went,
                    alone=mine.alone if mine else 0,
                    nearest=mine.nearest if mine else None,
                    share=round(mine.share, 4) if mine else 0.0,
                    asked=asked,
                    dead=gone,
                    first=first,
                    later=later,
                    lead=days,
                )
            )
        return sorted(out, key=lambda f: (f.category == "reference", -f.entries, f.feed))

    # People's decisions and guards

    def _held(self) -> dict[str, Any]:
        db = self._db
        by_guard = _rows(
            db,
            "SELECT guard, sum(until IS NULL) AS now, sum(since >= ?1) AS came, "
            "sum(until IS NOT NULL AND until >= ?1) AS went FROM hold "
            "WHERE until IS NULL OR until >= ?1 GROUP BY guard ORDER BY 2 DESC, 1",
            self._first,
        )
        new = _rows(
            db,
            "SELECT h.name AS indicator, h.guard, h.detail, r.started AS since "
            "FROM hold h JOIN run r ON r.id = h.since "
            f"WHERE h.since >= ? AND h.until IS NULL ORDER BY h.since DESC, h.name LIMIT {_HELD}",
            self._first,
        )
        released = _rows(
            db,
            "SELECT name AS indicator, author, reason, created, revoked, revoked_by FROM hold_release "
            "WHERE since >= ?1 OR until >= ?1 ORDER BY id DESC",
            self._first,
        )
        return {"guards": by_guard, "new": new, "released": released}

    def _rules(self) -> dict[str, Any]:
        db = self._db
        live = rules_in_force(db, self._now)
        keys = ("id", "action", "name", "reason", "author", "ticket", "expires")
        return {
            "allow": sum(not r.blocks for r in live),
            "deny": sum(r.blocks for r in live),
            "ending": [{key: getattr(r, key) for key in keys} for r in ending_soon(db, self._now)],
        }

    def _decisions(self) -> list[dict[str, Any]]:
        """Rules that people made or took back in the time."""
        return _rows(
            self._db,
            "SELECT id, action, name, reason, ticket, author, created, expires, removed, removed_by, removed_reason "
            "FROM rule WHERE since >= ?1 OR until >= ?1 ORDER BY id DESC",
            self._first,
        )

    def _exports(self) -> list[dict[str, Any]]:
        sums = {
            row["export"]: row
            for row in _rows(
                self._db,
                # One that was held until the next took its place was never published.
                "SELECT export, sum(published IS NOT NULL) AS published, "
                "sum(state = 'held' OR state = 'superseded' AND published IS NULL) AS held, "
                "sum(state = 'failed') AS failed, "
                "sum(CASE WHEN published IS NOT NULL THEN added ELSE 0 END) AS added, "
                "sum(CASE WHEN published IS NOT NULL THEN removed ELSE 0 END) AS removed "
                "FROM release WHERE run >= ? GROUP BY export",
                self._first,
            )
        }
        live = {
            row["export"]: row
            for row in _rows(self._db, "SELECT export, entries, published AS at FROM release WHERE state = 'live'")
        }
        zero = dict.fromkeys(("published", "held", "failed", "added", "removed"), 0)
        failing = failures(self._db)
        return [
            {
                "export": e.name,
                "format": e.format,
                "entries": live.get(e.name, {}).get("entries"),
                "at": live.get(e.name, {}).get("at"),
                **zero,
                **{k: v for k, v in sums.get(e.name, {}).items() if k != "export"},
                "failing": asdict(failing[e.name]) if e.name in failing else None,
            }
            for e in self._config.exports.values()
        ]

    # Where it is worst

    def _domains(self, current: Current) -> list[Count]:
        """Registrable domains with the most listed names at or below them, and how many of those came."""
        mine = current.names["kind"] == _DOMAIN
        names = current.names.filter(mine & ~current.names["suffix"]).select("name", at="name")
        named = current.names.filter(mine).select("name", "registrable")
        found, flags = [], named
        while names.height:
            level = names.join(flags, left_on="at", right_on="name", how="left")
            found.append(level.filter("registrable").select("name", domain="at"))
            names = level.filter(~pl.col("registrable").fill_null(False)).select("name", at=parents(pl.col("at")))
            names = names.drop_nulls("at")
            above = names["at"].unique()
            asked = self._suffixes.columns(above)
            flags = pl.DataFrame({"name": above, "registrable": asked["registrable"]})
            # At a public suffix the way up ends.
            names = names.filter(~pl.col("at").is_in(above.filter(asked["suffix"]).implode()))
        if not found:
            return []
        return self._top(pl.concat(found), "domain")

    def _networks(self, current: Current) -> list[Count]:
        """The /24 and /48 with the most listed single addresses, and how many of those came."""
        name = pl.col("name")
        four = current.names.filter((pl.col("kind") == IPV4) & ~name.str.contains("/", literal=True))
        found = four.select("name", pl.concat_str(name.str.extract(r"^(.*\.)"), pl.lit("0/24")).alias("network"))
        six = current.names.filter((pl.col("kind") == IPV6) & ~name.str.contains("/", literal=True))["name"]
        if len(six):
            from ipaddress import ip_network

            # One by one: the columns have no word for it, and lists hold few addresses of IPv6.
            wide = [str(ip_network(f"{address}/48", strict=False)) for address in six]
            found = pl.concat([found, pl.DataFrame({"name": six, "network": wide})])
        return self._top(found, "network")

    def _top(self, members: pl.DataFrame, key: str) -> list[Count]:
        most = members.group_by(key).len().sort("len", key, descending=[True, False]).head(_TOP)
        inside = members.join(most, on=key)["name"].to_list()
        new: set[str] = set()
        for start in range(0, len(inside), 500):
            some = inside[start : start + 500]
            marks = ", ".join("?" * len(some))
            new.update(
                row[0]
                for row in self._db.execute(
                    f"SELECT name FROM listing WHERE name IN ({marks}) GROUP BY name HAVING min(since) >= ?",
                    (*some, self._first),
                )
            )
        came = members.filter(pl.col("name").is_in(list(new))).group_by(key).len()
        known = dict(came.iter_rows())
        return [Count(name, n, known.get(name, 0)) for name, n in most.iter_rows() if n > 1]


def _flow(db: sqlite3.Connection, first: int) -> pl.DataFrame:
    """`feed: Int64`, `category`, `day: String`, `came`, `went`, `begun: Int64` of the runs from `first` on.

    A listing that came and went within the time counts in both.
    """
    # SQLite sorts for its groups: a year of intervals by one number, once. By columns and JSON, twice, took 4 × that.
    # In SQLite `<<`, `>>`, `&` and `|` bind alike, from the left.
    begun_and_ended = "(feed << 48) | (since << 24) | until"
    kept = "period >= (SELECT CAST(strftime('%Y%m', started) AS INTEGER) FROM run WHERE id = ?1) AND until >= ?1"
    told = "json_extract(extra, '$.category')"
    rows = db.execute(
        f"""
        WITH version AS (SELECT feed, category, max(since) FROM feed_version GROUP BY feed),
        closed AS MATERIALIZED (
            SELECT {begun_and_ended} AS key, NULL AS told, count(*) AS n
            FROM listing_closed WHERE {kept} AND extra IS NULL GROUP BY 1
            UNION ALL
            SELECT {begun_and_ended}, {told}, count(*)
            FROM listing_closed WHERE {kept} AND extra IS NOT NULL GROUP BY 1, 2
        ),
        change AS (
            SELECT feed, NULL AS told, since AS run, count(*) AS came, 0 AS went
            FROM listing WHERE since >= ?1 AND extra IS NULL GROUP BY feed, since
            UNION ALL
            SELECT feed, {told}, since, count(*), 0
            FROM listing WHERE since >= ?1 AND extra IS NOT NULL GROUP BY 1, 2, 3
            UNION ALL
            SELECT key >> 48, told, (key >> 24) & 0xFFFFFF, n, 0 FROM closed WHERE (key >> 24) & 0xFFFFFF >= ?1
            UNION ALL
            SELECT key >> 48, told, key & 0xFFFFFF, 0, n FROM closed
        )
        SELECT c.feed, coalesce(c.told, v.category), substr(r.started, 1, 10), sum(c.came), sum(c.went),
               CASE WHEN c.run = (SELECT min(run) FROM snapshot s WHERE s.feed = c.feed) THEN sum(c.came) ELSE 0 END
        FROM change c JOIN version v ON v.feed = c.feed JOIN run r ON r.id = c.run
        GROUP BY c.feed, c.told, c.run
        """,
        (first,),
    ).fetchall()
    schema = {"feed": pl.Int64, "category": pl.String, "day": pl.String, "came": pl.Int64, "went": pl.Int64}
    schema["begun"] = pl.Int64
    return pl.DataFrame(rows, schema=schema, orient="row")


def _leads(db: sqlite3.Connection, first: int) -> dict[int, tuple[int, int, float | None]]:
    """By feed: of how many names it was the first to know, of how many others were, and by how many days (median).

    Of what is listed now by several feeds, where one of them added it in the time. What a feed held when it was first
    read says nothing about when it learnt of it, so no other feed was before it there.
    """
    rows = db.execute(
        """
        WITH late AS (
            SELECT name FROM listing GROUP BY name
            HAVING count(*) > 1 AND max(since) > min(since) AND max(since) >= ?1
        )
        SELECT l.name, l.feed, unixepoch(r.started), l.since >= ?1 AND l.since > b.run
        FROM late JOIN listing l ON l.name = late.name JOIN run r ON r.id = l.since
        JOIN (SELECT feed, min(run) AS run FROM snapshot GROUP BY feed) b ON b.feed = l.feed
        JOIN feed f ON f.id = l.feed
        WHERE (SELECT category FROM feed_version v WHERE v.feed = l.feed ORDER BY v.since DESC LIMIT 1) <> 'reference'
        """,
        (first,),
    ).fetchall()
    schema = {"name": pl.String, "feed": pl.Int64, "at": pl.Int64, "follows": pl.Int64}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    if frame.is_empty():
        return {}
    begun = frame.group_by("name").agg(
        pl.col("at").min().alias("begun"),
        pl.col("feed").sort_by("at").first().alias("leader"),
        (pl.col("at") == pl.col("at").min()).sum().alias("tied"),
    )
    after = frame.join(begun.filter(pl.col("tied") == 1), on="name").filter(
        (pl.col("at") > pl.col("begun")) & (pl.col("follows") == 1)
    )
    ahead = (
        after.group_by("name")
        .agg(pl.col("leader").first(), (pl.col("at").min() - pl.col("begun").first()).alias("lead"))
        .group_by("leader")
        .agg(pl.len(), pl.col("lead").median() / 86_400)
    )
    first_of = {feed: (n, round(days, 2)) for feed, n, days in ahead.iter_rows()}
    later = dict(after.group_by("feed").len().iter_rows())
    return {
        feed: (first_of.get(feed, (0, None))[0], later.get(feed, 0), first_of.get(feed, (0, None))[1])
        for feed in {*first_of, *later}
    }


def _rows(db: sqlite3.Connection, sql: str, *values: object) -> list[dict[str, Any]]:
    cursor = db.execute(sql, values)
    keys = [column[0] for column in cursor.description]
    return [dict(zip(keys, row, strict=True)) for row in cursor]


__all__ = ["Count", "FeedRow", "Report", "report"]
