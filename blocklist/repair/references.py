"""Rows that name lost rows: a lost run or feed is named again as lost, all else is let go of and counted."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field

from blocklist import clock
from blocklist.catalog import Feed
from blocklist.gathering import attributes_of
from blocklist.store import ledger
from blocklist.store.record import MAX_FEED

# Runs after the last one that is sure, which rows of a lost page may have been written by.
_BEYOND = 1000
LOST = "lost"
"""The command of a run, and the beginning of the name of a feed, of which only the number is known."""


# No record has come to it, and from here on numbers could be counted up to where SQLite's end.
_MOST = 2**31


@dataclass
class Mended:
    """How many `runs`, and which `feeds`, were lost and are named again; a feed that the configuration did not tell is
    False. `cleared`: links let go of, `removed`: rows, by table.
    """

    runs: int = 0
    feeds: dict[str, bool] = field(default_factory=dict)
    cleared: dict[str, int] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)


def mend(connection: sqlite3.Connection, tables: list[str], feeds: Mapping[str, Feed]) -> Mended:
    """Make every reference name a row that is there. `feeds`: those of the configuration, to know lost ones by."""
    out = Mended()
    for table in tables:
        if any(column == "id" for _, column, *_ in connection.execute(f"PRAGMA table_info({table})")):
            connection.execute(f"DELETE FROM {table} WHERE id NOT BETWEEN 1 AND ?", (_MOST,))
    links = [(table, *link) for table in tables for link in _links(connection, table)]
    most = {"run": _last_run(connection) + _BEYOND, "feed": MAX_FEED}
    for wanted in ("run", "feed"):
        for number in sorted(
            {n for t, parent, c, k, _ in links if parent == wanted for n in _lost(connection, t, c, parent, k)}
        ):
            if not 0 < number <= most[wanted]:
                continue
            if wanted == "run":
                _name_run(connection, number)
                out.runs += 1
            else:
                name, known = _name_feed(connection, number, feeds)
                out.feeds[name] = known
    again = True
    while again:  # a row that goes may be what another one named
        again = False
        for table, parent, column, key, required in links:
            where = f"{column} IS NOT NULL AND {column} NOT IN (SELECT {key} FROM {parent})"
            sql = (
                f"DELETE FROM {table} WHERE {where}"
                if required
                else f"UPDATE {table} SET {column} = NULL WHERE {where}"
            )
            if count := connection.execute(sql).rowcount:
                counts = out.removed if required else out.cleared
                counts[table] = counts.get(table, 0) + count
                again = again or required
    _unreadable(connection)
    return out


def _last_run(connection: sqlite3.Connection) -> int:
    """The last run that something sure tells of: a damaged number would be taken for the last one for good."""
    told = [event.run for event in ledger.events(connection) if event.run is not None and ledger.is_sound(event)]
    rows = connection.execute("SELECT max(id) FROM run UNION ALL SELECT max(run) FROM snapshot").fetchall()
    sure = [*told, *(row[0] for row in rows[:1] if row[0] is not None)]
    return max(sure) if sure else next((row[0] for row in rows if row[0] is not None), 0)


def _links(connection: sqlite3.Connection, table: str) -> list[tuple[str, str, str, bool]]:
    """Parent, column, its key there, and whether the column may not be empty, of each foreign key of `table`."""
    rows = connection.execute(
        'SELECT f."table", f."from", f."to", c."notnull" OR c.pk FROM pragma_foreign_key_list(?1) f '
        'JOIN pragma_table_info(?1) c ON c.name = f."from"',
        (table,),
    )
    return [(parent, column, key, bool(required)) for parent, column, key, required in rows]


def _lost(connection: sqlite3.Connection, table: str, column: str, parent: str, key: str) -> list[int]:
    rows = connection.execute(
        f"SELECT DISTINCT {column} FROM {table} "
        f"WHERE {column} IS NOT NULL AND {column} NOT IN (SELECT {key} FROM {parent})"
    )
    return [row[0] for row in rows]


def _name_run(connection: sqlite3.Connection, number: int) -> None:
    """A run of which only what others say of it is known: its start is the earliest that they tell."""
    (started,) = connection.execute(
        "SELECT coalesce((SELECT min(at) FROM (SELECT fetched AS at FROM snapshot WHERE run = ?1 "
        "UNION ALL SELECT at FROM event WHERE run = ?1 UNION ALL SELECT created FROM release WHERE run = ?1)), "
        "(SELECT started FROM run WHERE id < ?1 ORDER BY id DESC LIMIT 1), "
        "(SELECT started FROM run WHERE id > ?1 ORDER BY id LIMIT 1), ?2)",
        (number, clock.text(clock.now())),
    ).fetchone()
    connection.execute(
        "INSERT INTO run (id, started, finished, command, by, version) VALUES (?1, ?2, ?2, ?3, ?3, ?3)",
        (number, started, LOST),
    )


def _name_feed(connection: sqlite3.Connection, number: int, feeds: Mapping[str, Feed]) -> tuple[str, bool]:
    """A feed by what its newest version said, or by where its list came from; else by its number alone."""
    taken = {row[0] for row in connection.execute("SELECT name FROM feed")}
    free = {name: feed for name, feed in feeds.items() if name not in taken}
    said = connection.execute(
        "SELECT attributes, url FROM feed_version WHERE feed = ? ORDER BY since DESC LIMIT 1", (number,)
    ).fetchone()
    sent = connection.execute("SELECT url FROM snapshot WHERE feed = ? ORDER BY id DESC LIMIT 1", (number,)).fetchone()
    url = said[1] if said else sent[0] if sent else None
    same = [name for name, feed in free.items() if said and attributes_of(feed)[1] == said[0]]
    same = same or [name for name, feed in free.items() if url in feed.urls]
    name = same[0] if len(same) == 1 else f"{LOST}-{number}"
    connection.execute("INSERT INTO feed (id, name) VALUES (?, ?)", (number, name))
    return name, len(same) == 1


def _unreadable(connection: sqlite3.Connection) -> None:
    """Downloads that are patches of a lost one are as if they were pruned: only their rows are left."""
    connection.execute("UPDATE snapshot SET stored = 0 WHERE base IS NULL AND depth > 0")
    while connection.execute(
        "UPDATE snapshot SET stored = 0 WHERE stored > 0 AND base IN (SELECT id FROM snapshot WHERE stored = 0)"
    ).rowcount:
        pass
