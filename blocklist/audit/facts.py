"""What the record says about names at a moment: listings with their lines, holds, rules, verdicts."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from typing import Any

from blocklist import clock
from blocklist.audit.moment import Moment, open_at
from blocklist.audit.releases import Releases
from blocklist.audit.thing import Thing
from blocklist.catalog import CATEGORIES, ESSENTIAL, KINDS, TLP
from blocklist.config import Config
from blocklist.errors import RecordError
from blocklist.evidence import Hold, Listing, Verdict
from blocklist.lifetime import end_of
from blocklist.names import parents
from blocklist.rules import Rule, rules_where
from blocklist.select.address import parse_one
from blocklist.store import snapshots
from blocklist.store.moment import periods_after
from blocklist.store.verdicts import BEGAN
from blocklist.suffixes import builtin_rules_about


class Reader:
    """Asks `connection`, of which `now` is the moment that is asked for. `lines`: read raw lines too."""

    def __init__(self, config: Config, connection: sqlite3.Connection, now: Moment, releases: Releases) -> None:
        self._config, self._db, self._now, self._releases = config, connection, now, releases
        self._rules: dict[Moment, list[Rule]] = {}
        self._periods: dict[int, str] = {}
        self._texts: dict[tuple[int, int], str | None] = {}
        self._to_compare = snapshots.MOST_READ
        self.lines = True

    def rules_at(self, moment: Moment) -> list[Rule]:
        moment = moment.of_rules
        if moment not in self._rules:
            held, values = open_at(moment)
            condition = f"{held} AND (expires IS NULL OR expires > ?)"
            self._rules[moment] = rules_where(self._db, condition, (*values, moment.at))
        return self._rules[moment]

    def holds(self, names: Sequence[str], moment: Moment) -> list[Hold]:
        held, values = open_at(moment)
        out = []
        for name in names:
            rows = self._db.execute(
                "SELECT x.name, x.guard, x.detail, x.subtree_only, r.started "
                f"FROM hold x JOIN run r ON r.id = x.since WHERE x.name = ? AND {held} ORDER BY x.guard",
                (name, *values),
            ).fetchall()
            released = self.released(name, moment) if rows else None
            by = self._named_by(name, moment) if any(row[1] == "reference" for row in rows) else ()
            out += [
                Hold(row[0], row[1], row[2], bool(row[3]), row[4], released, *(by if row[1] == "reference" else ()))
                for row in rows
            ]
        return out

    def _named_by(self, name: str, moment: Moment) -> tuple[frozenset[str], ...]:
        """References that name `name`, and those that name something below it, where a policy asks which.

        The second looks through all that they list, for seconds in a large record: no index knows suffixes.
        """
        if parse_one(name) is not None or not any(policy.guards for policy in self._config.policies.values()):
            return ()
        holding = [f.id for f in self._config.feeds.values() if f.is_reference and f.action == "hold"]
        chain = [name, name.removeprefix("www.")]
        suffixes = builtin_rules_about([name, *parents(name)])
        own = [at for at in dict.fromkeys(chain) if not suffixes.is_suffix(at)]
        whole = {x.feed for x in self.listings(own, moment) if x.holds}
        asked = {
            feed for p in self._config.policies.values() for ids in p.guards.values() for feed in (*ids, ESSENTIAL)
        }
        above = {feed for feed in asked.intersection(holding) - whole if self._names_below(feed, name, moment)}
        return frozenset(whole), frozenset(above)

    def _names_below(self, feed: str, name: str, moment: Moment) -> bool:
        """Does the reference `feed` name anything below `name` but public suffixes?"""
        below = "substr(name, ?2) = ?3 AND kind = 1 AND feed = (SELECT id FROM feed WHERE name = ?1)"
        found = f"SELECT name FROM listing WHERE {below}"
        values: tuple[object, ...] = (feed, -len(name) - 1, f".{name}")
        if moment.run is not None:
            closed = f"SELECT name FROM listing_closed WHERE {below} AND since <= ?4 AND until > ?4"
            found += f" AND since <= ?4 UNION ALL {closed}"
            values += (moment.run,)
        names = (row[0] for row in self._db.execute(found, values))
        return any(not builtin_rules_about([at, *parents(at)]).is_suffix(at) for at in names)

    def released(self, name: str, moment: Moment) -> str | None:
        """Who let `name` pass, and why."""
        held, values = open_at(moment)
        row = self._db.execute(
            f"SELECT author || ': ' || reason FROM hold_release x WHERE name = ? AND {held}", (name, *values)
        ).fetchone()
        return row[0] if row else None

    def verdict(self, name: str, moment: Moment) -> Verdict | None:
        columns = "name, status, since, checked, dead, detail, died"
        if moment.run is None:
            row = self._db.execute(f"SELECT {columns} FROM verdict WHERE name = ?", (name,)).fetchone()
            return Verdict(row[0], row[1], row[2], row[3], bool(row[4]), row[5]) if row else None
        row = self._db.execute(
            f"SELECT {columns} FROM verdict v WHERE name = ?2 AND (run <= ?1 OR {BEGAN}) UNION ALL "
            f"SELECT {columns.replace('checked', 'until')} FROM verdict_closed v "
            f"WHERE name = ?2 AND coalesce(closed > ?1, until > ?3) AND {BEGAN} ORDER BY 3 DESC LIMIT 1",
            (moment.run, name, moment.at),
        ).fetchone()
        if row is None:
            return None
        dead = bool(row[4]) and (row[6] is None or row[6] <= moment.run)
        # When it was last asked by then is not kept; it was when the verdict began.
        return Verdict(row[0], row[1], row[2], row[3] if row[3] <= moment.at else row[2], dead, row[5])

    def listings(self, names: Sequence[str], moment: Moment) -> list[Listing]:
        columns = "name, kind, subtree, line, confidence, extra, since, feed, dropped"
        if moment.run is None:
            source = f"SELECT {columns}, NULL AS until FROM listing WHERE name = ?1"
        else:
            source = (
                f"SELECT {columns}, NULL AS until FROM listing WHERE name = ?1 AND since <= ?2 UNION ALL "
                f"SELECT {columns}, until FROM listing_closed WHERE period IN ({self._periods_from(moment)}) "
                "AND name = ?1 AND since <= ?2 AND until > ?2"
            )
        out = []
        for name in names:
            rows = self._db.execute(
                f"""
                SELECT l.name, l.kind, l.subtree, l.line, l.confidence, l.extra, l.since, l.feed, r.started,
                       CASE WHEN ?3 IS NULL OR l.until <= ?3 THEN u.started END,
                       CASE WHEN ?2 IS NULL OR l.dropped <= ?2 THEN d.started END,
                       f.name, v.category, v.confidence, v.family, v.direction
                FROM ({source}) l JOIN feed f ON f.id = l.feed JOIN run r ON r.id = l.since
                LEFT JOIN run u ON u.id = l.until LEFT JOIN run d ON d.id = l.dropped
                LEFT JOIN feed_version v ON v.feed = l.feed
                     AND v.since = (
                         SELECT max(since) FROM feed_version WHERE feed = l.feed AND (?3 IS NULL OR since <= ?3))
                ORDER BY l.since, f.name
                """,
                (name, moment.run, self._now.run),
            )
            out += [self._listing(moment, *row) for row in rows]
        return out

    def inside(self, thing: Thing) -> int:
        """How many listed names of networks lie inside this one: a range of texts, then exactly.

        Nothing is counted in a network so wide that its addresses have no text in common.
        """
        network = ip_network(thing.name)
        if network.version == 4:
            whole = str(network.network_address).split(".")[: network.prefixlen // 8]
            prefix = "".join(octet + "." for octet in whole)
        else:
            groups = [f"{int(g, 16):x}" for g in network.exploded.split("/")[0].split(":")]
            whole = groups[: network.prefixlen // 16]
            # Zeros may be written as '::'; what comes before them is the same in every text.
            whole = whole[: whole.index("0")] if "0" in whole else whole
            prefix = "".join(group + ":" for group in whole)
        if not prefix:
            return 0
        condition = "name >= ?1 AND name < ?2 AND kind = ?3 AND name <> ?4"
        source = f"SELECT name FROM listing WHERE {condition}"
        if self._now.run is not None:
            source = (
                f"{source} AND since <= ?5 UNION SELECT name FROM listing_closed "
                f"WHERE period IN ({self._periods_from(self._now)}) AND {condition} AND since <= ?5 AND until > ?5"
            )
        values = [prefix, prefix + "\x7f", KINDS.index(thing.kind) + 1, thing.name, self._now.run]
        rows = self._db.execute(f"SELECT DISTINCT name FROM ({source})", values[: 4 + (self._now.run is not None)])
        parsed = (parse_one(name) for (name,) in rows)
        return sum(p is not None and thing.first <= p[1] and p[2] <= thing.last for p in parsed)

    def _periods_from(self, moment: Moment) -> str:
        """The months in which what was open at that moment can have been closed."""
        assert moment.run is not None
        if moment.run not in self._periods:
            self._periods[moment.run] = ", ".join(map(str, periods_after(self._db, moment.run)))
        return self._periods[moment.run]

    def _listing(
        self,
        moment: Moment,
        name: str,
        kind: int,
        subtree: int,
        line: int,
        confidence: int | None,
        extra: str | None,
        run: int,
        number: int,
        since: str,
        until: str | None,
        dropped: str | None,
        feed_id: str,
        *version: Any,
    ) -> Listing:
        """A row with what its feed says: as configured now, else as it was last."""
        row = json.loads(extra) if extra else {}
        feed = self._releases.feeds_at(moment).get(feed_id)
        category, own, family, direction = version
        if feed is not None:
            category, own, family, direction = feed.category, feed.confidence, feed.family, feed.matches
        told = row.get("category")
        end = end_of(
            feed,
            expires=_said(row, "expires"),
            date=_said(row, "date"),
            since=clock.parse(since),
            dropped=clock.parse(dropped) if dropped else None,
        )
        snapshot = self._db.execute(
            "SELECT id, sha256, url FROM snapshot WHERE feed = ? AND run = ? AND state <> 'refused' "
            "ORDER BY id DESC LIMIT 1",
            (number, run),
        ).fetchone()
        return Listing(
            indicator=name,
            kind=KINDS[kind - 1],
            scope="subtree" if subtree else "exact",
            feed=feed_id,
            category=told if isinstance(told, str) and told in CATEGORIES else category,
            confidence=own if confidence is None else confidence,
            family=family or f"\0{feed_id}",
            mode=feed.mode if feed is not None else "off",
            direction=direction,
            reference=category == "reference",
            holds=feed is not None and feed.is_reference and feed.action == "hold",
            since=since,
            until=until,
            line=line,
            text=self._line(snapshot[0], line) if snapshot and self.lines else None,
            snapshot=f"sha256:{snapshot[1]}" if snapshot else None,
            url=snapshot[2] if snapshot else None,
            extra={key: value for key, value in row.items() if value is not None},
            ends=clock.text(end.at) if end else None,
            ends_by=end.cause if end else None,
            expired=end is not None and clock.text(end.at) <= moment.judged,
            dropped=dropped,
            legal_basis=_said(row, "legal_basis") or (feed.legal_basis or None if feed else None),
            tlp=_tlp(row) or (feed.tlp if feed else None),
            redistribution=feed.redistribution if feed is not None else "unknown",
        )

    def _line(self, snapshot: int, line: int) -> str | None:
        """The raw line; read once, however many exports and moments ask for it."""
        if (snapshot, line) not in self._texts:
            self._texts[snapshot, line] = self._read_line(snapshot, line)
        return self._texts[snapshot, line]

    def _read_line(self, snapshot: int, line: int) -> str | None:
        links = snapshots.chain(self._db, snapshot)
        sha256, size, stored = self._db.execute(
            "SELECT sha256, bytes, stored FROM snapshot WHERE id = ?", (snapshot,)
        ).fetchone()
        # What an answer quotes is compared with its digest as far as the time of an answer goes.
        most = self._to_compare
        if len(links) == 1 and size <= most:
            self._to_compare -= size
        try:
            data = snapshots.line(self._config.state, links, line, sha256, size, stored, most)
            return data.decode("utf-8", "replace")
        except RecordError:
            return None


def _tlp(row: Mapping[str, Any]) -> str | None:
    level = _said(row, "tlp")
    return level if level in TLP else None


def _said(row: Mapping[str, Any], key: str) -> str | None:
    value = row.get(key)
    return value if isinstance(value, str) else None
