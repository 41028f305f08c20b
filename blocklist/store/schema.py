"""The tables of the record, by migrations from the first version on (docs/record.md describes them for readers).

STRICT tables, WITHOUT ROWID where the key is the order that queries want. Bulk tables hold small codes; the
views beside them say the words.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path

from sqlite_utils import Database, Migrations

from blocklist.store import ledger
from blocklist.store.database import of_newer_version

MIGRATION_SET = "blocklist"
migrations = Migrations(MIGRATION_SET)

_LISTING_COLUMNS = """
    kind INTEGER NOT NULL,
    subtree INTEGER NOT NULL,
    line INTEGER NOT NULL,
    confidence INTEGER,
    extra TEXT
"""


@migrations(name="0001_record")
def _record(db: Database) -> None:
    script = f"""
    CREATE TABLE run (
        id INTEGER PRIMARY KEY,
        started TEXT NOT NULL,
        finished TEXT,
        command TEXT NOT NULL,
        by TEXT NOT NULL,
        version TEXT NOT NULL
    ) STRICT;

    CREATE TABLE feed (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        enabled INTEGER NOT NULL DEFAULT 1,
        outcome TEXT,
        error TEXT,
        hint TEXT,
        checked TEXT,
        changed TEXT,
        retry_at TEXT
    ) STRICT;

    CREATE TABLE feed_version (
        feed INTEGER NOT NULL REFERENCES feed (id),
        since INTEGER NOT NULL REFERENCES run (id),
        category TEXT NOT NULL,
        confidence INTEGER NOT NULL,
        family TEXT,
        direction TEXT NOT NULL,
        mode TEXT NOT NULL,
        title TEXT NOT NULL,
        url TEXT NOT NULL,
        attributes TEXT NOT NULL,
        PRIMARY KEY (feed, since)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE snapshot (
        id INTEGER PRIMARY KEY,
        feed INTEGER NOT NULL REFERENCES feed (id),
        run INTEGER NOT NULL REFERENCES run (id),
        state TEXT NOT NULL CHECK (state IN ('current', 'superseded', 'gated', 'refused')),
        sha256 TEXT NOT NULL,
        bytes INTEGER NOT NULL,
        parse_key TEXT NOT NULL,
        url TEXT NOT NULL,
        fetched TEXT NOT NULL,
        etag TEXT,
        last_modified TEXT,
        base INTEGER REFERENCES snapshot (id),
        depth INTEGER NOT NULL DEFAULT 0,
        stored INTEGER NOT NULL,
        format TEXT NOT NULL,
        lines INTEGER NOT NULL,
        entries INTEGER NOT NULL,
        account TEXT NOT NULL,
        gate TEXT
    ) STRICT;
    CREATE INDEX snapshot_by_feed ON snapshot (feed, run);
    CREATE UNIQUE INDEX snapshot_current ON snapshot (feed) WHERE state = 'current';

    CREATE TABLE listing (
        name TEXT NOT NULL,
        feed INTEGER NOT NULL REFERENCES feed (id),
        since INTEGER NOT NULL REFERENCES run (id),
        {_LISTING_COLUMNS},
        PRIMARY KEY (name, feed)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE listing_closed (
        period INTEGER NOT NULL,
        name TEXT NOT NULL,
        feed INTEGER NOT NULL REFERENCES feed (id),
        since INTEGER NOT NULL REFERENCES run (id),
        until INTEGER NOT NULL REFERENCES run (id),
        cause TEXT NOT NULL,
        {_LISTING_COLUMNS},
        PRIMARY KEY (period, name, feed, since)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE hold (
        name TEXT NOT NULL,
        guard TEXT NOT NULL,
        since INTEGER NOT NULL REFERENCES run (id),
        until INTEGER REFERENCES run (id),
        kind INTEGER NOT NULL,
        subtree_only INTEGER NOT NULL,
        detail TEXT NOT NULL,
        PRIMARY KEY (name, guard, since)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX hold_open ON hold (name) WHERE until IS NULL;

    CREATE TABLE hold_release (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        reason TEXT NOT NULL,
        author TEXT NOT NULL,
        created TEXT NOT NULL,
        since INTEGER NOT NULL REFERENCES run (id),
        revoked TEXT,
        until INTEGER REFERENCES run (id),
        revoked_by TEXT,
        revoked_reason TEXT
    ) STRICT;
    CREATE UNIQUE INDEX hold_release_open ON hold_release (name) WHERE until IS NULL;

    CREATE TABLE rule (
        id INTEGER PRIMARY KEY,
        action TEXT NOT NULL CHECK (action IN ('allow', 'deny')),
        name TEXT NOT NULL,
        kind INTEGER NOT NULL,
        subtree INTEGER NOT NULL,
        reason TEXT NOT NULL,
        ticket TEXT,
        author TEXT NOT NULL,
        created TEXT NOT NULL,
        since INTEGER NOT NULL REFERENCES run (id),
        expires TEXT,
        removed TEXT,
        until INTEGER REFERENCES run (id),
        removed_by TEXT,
        removed_reason TEXT
    ) STRICT;
    CREATE INDEX rule_by_name ON rule (name);

    CREATE TABLE verdict (
        name TEXT NOT NULL PRIMARY KEY,
        status TEXT NOT NULL,
        since TEXT NOT NULL,
        checked TEXT NOT NULL,
        first_nxdomain TEXT,
        strikes INTEGER NOT NULL DEFAULT 0,
        dead INTEGER NOT NULL DEFAULT 0,
        authority TEXT,
        resolver TEXT,
        run INTEGER NOT NULL REFERENCES run (id)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE verdict_closed (
        name TEXT NOT NULL,
        since TEXT NOT NULL,
        until TEXT NOT NULL,
        status TEXT NOT NULL,
        dead INTEGER NOT NULL,
        authority TEXT,
        resolver TEXT,
        PRIMARY KEY (name, since)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE release (
        id INTEGER PRIMARY KEY,
        export TEXT NOT NULL,
        format TEXT NOT NULL,
        policy TEXT NOT NULL,
        path TEXT NOT NULL,
        run INTEGER NOT NULL REFERENCES run (id),
        revision INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('pending', 'live', 'superseded', 'held', 'failed')),
        created TEXT NOT NULL,
        published TEXT,
        serial INTEGER NOT NULL,
        digest TEXT NOT NULL,
        body_digest TEXT NOT NULL,
        bytes INTEGER NOT NULL,
        entries INTEGER NOT NULL,
        added INTEGER NOT NULL,
        removed INTEGER NOT NULL,
        lost TEXT NOT NULL,
        inputs TEXT NOT NULL,
        checked TEXT NOT NULL,
        note TEXT NOT NULL DEFAULT '',
        reloaded TEXT
    ) STRICT;
    CREATE INDEX release_by_export ON release (export, id);
    CREATE UNIQUE INDEX release_live ON release (export) WHERE state = 'live';

    CREATE TABLE event (
        id INTEGER PRIMARY KEY,
        at TEXT NOT NULL,
        run INTEGER REFERENCES run (id),
        what TEXT NOT NULL,
        who TEXT NOT NULL,
        detail TEXT NOT NULL
    ) STRICT;

    CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    INSERT INTO counter VALUES ('revision', 0);

    CREATE TABLE guard_input (name TEXT PRIMARY KEY, digest TEXT NOT NULL) STRICT, WITHOUT ROWID;

    CREATE VIEW listings_now AS
    SELECT l.name AS indicator,
           CASE l.kind WHEN 1 THEN 'domain' WHEN 2 THEN 'ipv4' WHEN 3 THEN 'ipv6' ELSE 'url' END AS kind,
           CASE l.subtree WHEN 1 THEN 'subtree' ELSE 'exact' END AS scope,
           f.name AS feed, r.started AS since, l.line, l.confidence AS row_confidence, l.extra
    FROM listing l JOIN feed f ON f.id = l.feed JOIN run r ON r.id = l.since;

    CREATE VIEW holds_now AS
    SELECT h.name AS indicator, h.guard, CASE h.subtree_only WHEN 1 THEN 'subtree' ELSE 'exact' END AS withheld_as,
           h.detail, r.started AS since, x.author AS released_by, x.reason AS released_because
    FROM hold h JOIN run r ON r.id = h.since
    LEFT JOIN hold_release x ON x.name = h.name AND x.until IS NULL
    WHERE h.until IS NULL;

    CREATE VIEW feeds_overview AS
    SELECT f.name AS feed, f.enabled, f.outcome, f.checked, f.changed, f.error, s.entries, s.bytes, s.sha256, s.url
    FROM feed f LEFT JOIN snapshot s ON s.feed = f.id AND s.state = 'current';

    CREATE VIEW releases AS
    SELECT id, export, format, policy, state, published, serial, entries, added, removed, digest, path FROM release;
    """
    for statement in script.split(";\n"):
        if statement.strip():
            db.execute(statement)


@migrations(name="0002_backoff")
def _backoff(db: Database) -> None:
    """Feeds remember failures in a row, and the host that wants to be left alone until `retry_at`."""
    db.execute("ALTER TABLE feed ADD COLUMN failures INTEGER NOT NULL DEFAULT 0")
    db.execute("ALTER TABLE feed ADD COLUMN retry_host TEXT")


@migrations(name="0003_lifetimes")
def _lifetimes(db: Database) -> None:
    """When a feed dropped a listing that lingers, when the next listing of a feed ends, as of when a release judged."""
    for statement in (
        "ALTER TABLE listing ADD COLUMN dropped INTEGER REFERENCES run (id)",
        "ALTER TABLE listing_closed ADD COLUMN dropped INTEGER REFERENCES run (id)",
        "ALTER TABLE feed ADD COLUMN next_end TEXT",
        "ALTER TABLE release ADD COLUMN judged TEXT",
        "DROP VIEW listings_now",
        """
        CREATE VIEW listings_now AS
        SELECT l.name AS indicator,
               CASE l.kind WHEN 1 THEN 'domain' WHEN 2 THEN 'ipv4' WHEN 3 THEN 'ipv6' ELSE 'url' END AS kind,
               CASE l.subtree WHEN 1 THEN 'subtree' ELSE 'exact' END AS scope,
               f.name AS feed, r.started AS since, l.line, l.confidence AS row_confidence, l.extra,
               d.started AS dropped
        FROM listing l JOIN feed f ON f.id = l.feed JOIN run r ON r.id = l.since LEFT JOIN run d ON d.id = l.dropped
        """,
    ):
        db.execute(statement)


@migrations(name="0004_evidence")
def _evidence(db: Database) -> None:
    """Events are chained, those of before as they stand; cases of complaints."""
    for statement in (
        "ALTER TABLE event ADD COLUMN previous TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE event ADD COLUMN digest TEXT NOT NULL DEFAULT ''",
        """
        CREATE TABLE case_file (
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL,
            kind INTEGER NOT NULL,
            ticket TEXT NOT NULL,
            opened TEXT NOT NULL,
            opened_by TEXT NOT NULL,
            since INTEGER NOT NULL REFERENCES run (id),
            bundle TEXT NOT NULL,
            sha256 TEXT NOT NULL,
            cited TEXT NOT NULL,
            rule INTEGER REFERENCES rule (id),
            closed TEXT,
            until INTEGER REFERENCES run (id),
            closed_by TEXT,
            closed_reason TEXT
        ) STRICT
        """,
    ):
        db.execute(statement)
    ledger.chain_existing(db.conn)


@migrations(name="0005_releases")
def _releases(db: Database) -> None:
    """What a release was chosen from, what was left out of it, its files; exports pinned to an earlier release."""
    for statement in (
        "ALTER TABLE release ADD COLUMN chosen TEXT",
        "ALTER TABLE release ADD COLUMN left_out TEXT",
        "ALTER TABLE release ADD COLUMN files TEXT",
        """
        CREATE TABLE pin (
            id INTEGER PRIMARY KEY,
            export TEXT NOT NULL,
            release INTEGER NOT NULL REFERENCES release (id),
            reason TEXT NOT NULL,
            author TEXT NOT NULL,
            created TEXT NOT NULL,
            since INTEGER NOT NULL REFERENCES run (id),
            ended TEXT,
            until INTEGER REFERENCES run (id),
            ended_by TEXT
        ) STRICT
        """,
        "CREATE UNIQUE INDEX pin_open ON pin (export) WHERE until IS NULL",
    ):
        db.execute(statement)


@migrations(name="0006_plans")
def _plans(db: Database) -> None:
    """What a held release would change; which release's listings another one shows under newer rules."""
    db.execute("ALTER TABLE release ADD COLUMN amends INTEGER REFERENCES release (id)")
    db.execute("CREATE TABLE plan (release INTEGER PRIMARY KEY REFERENCES release (id), plan TEXT NOT NULL) STRICT")


@migrations(name="0007_verdict_detail")
def _details(db: Database) -> None:
    """How a verdict was known: the list that names the sinkhole, or that the zone is a wildcard."""
    db.execute("ALTER TABLE verdict ADD COLUMN detail TEXT")
    db.execute("ALTER TABLE verdict_closed ADD COLUMN detail TEXT")


@migrations(name="0008_history")
def _history(db: Database) -> None:
    """What each release was made by; with which run a name died, and its verdict was closed."""
    for statement in (
        "CREATE TABLE setting (digest TEXT NOT NULL PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID",
        "ALTER TABLE release ADD COLUMN common TEXT REFERENCES setting (digest)",
        "ALTER TABLE release ADD COLUMN own TEXT REFERENCES setting (digest)",
        "ALTER TABLE verdict ADD COLUMN died INTEGER REFERENCES run (id)",
        # When it died before this version was not noted; the last time it was asked is the latest that it can be.
        "UPDATE verdict SET died = run WHERE dead = 1",
        "ALTER TABLE verdict_closed ADD COLUMN died INTEGER REFERENCES run (id)",
        "ALTER TABLE verdict_closed ADD COLUMN closed INTEGER REFERENCES run (id)",
    ):
        db.execute(statement)


@migrations(name="0009_failures")
def _failures(db: Database) -> None:
    """Exports that could not be written or loaded by the last run that tried."""
    db.execute(
        """
        CREATE TABLE export_failure (
            export TEXT NOT NULL PRIMARY KEY,
            since TEXT NOT NULL,
            last TEXT NOT NULL,
            error TEXT NOT NULL,
            hint TEXT
        ) STRICT, WITHOUT ROWID
        """
    )


@migrations(name="0010_feed_pin")
def _feed_pins(db: Database) -> None:
    """Feeds that were put back to an earlier snapshot, and stand there."""
    for statement in (
        """
        CREATE TABLE feed_pin (
            id INTEGER PRIMARY KEY,
            feed INTEGER NOT NULL REFERENCES feed (id),
            snapshot INTEGER NOT NULL REFERENCES snapshot (id),
            reason TEXT NOT NULL,
            ticket TEXT,
            author TEXT NOT NULL,
            created TEXT NOT NULL,
            since INTEGER NOT NULL REFERENCES run (id),
            ended TEXT,
            until INTEGER REFERENCES run (id),
            ended_by TEXT,
            ended_reason TEXT
        ) STRICT
        """,
        "CREATE UNIQUE INDEX feed_pin_open ON feed_pin (feed) WHERE until IS NULL",
    ):
        db.execute(statement)


def backup_of(path: Path, version: str) -> Path:
    """Where the copy of a database is kept that the migration `version` last touched."""
    return path.with_name(f"{path.stem}-{version}{path.suffix}")


def _keep_copy(connection: sqlite3.Connection, path: Path, version: str) -> None:
    """A whole copy beside the database, before anything in it is changed; one that is there already is kept."""
    copy = backup_of(path, version)
    if copy.exists():
        return
    beside = copy.with_name(copy.name + ".new")
    beside.unlink(missing_ok=True)
    try:
        # SQLite takes an empty file that is there: whom the record is hidden from never sees the copy.
        beside.touch(mode=0o600)
        connection.execute("VACUUM INTO ?", (str(beside),))
        shutil.copymode(path, beside)
        with suppress(OSError):  # not the owner's to give: the folder is shared by its mode then
            os.chown(beside, path.stat().st_uid, path.stat().st_gid)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.rename(copy)
    except BaseException:
        beside.unlink(missing_ok=True)  # half a copy, on a disk that has no room as it seems
        raise


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the database to this version.

    A copy of an older one is kept beside it (`backup_of`). Raises RecordError for a database of a newer version:
    sqlite-utils would accept unknown migrations in silence.
    """
    db = Database(connection, execute_plugins=False)
    applied = {m.name for m in migrations.applied(db)}
    known = {m.name for m in migrations._migrations}
    if applied - known:
        raise of_newer_version(path, sorted(applied - known))
    if migrations.pending(db):
        if applied:
            _keep_copy(connection, path, max(applied))
        with db.atomic():  # all or none: a state in between would be copied as a version of its own
            migrations.apply(db)
