"""Connections to `record.db`: one place that sets the pragmas and turns SQLite's errors into advice.

Standard library only: `why` reads through here in milliseconds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from blocklist.errors import RecordError
from blocklist.store.lost import present, refuse_lost

NAME = "record.db"
BACKUP = "restore it from a backup; 'blocklist doctor' says what else can be done"
REPAIR = (
    "restore it from a backup, or run 'blocklist doctor --repair': it makes a new one of what can be read, keeps the "
    "damaged one, and says what is lost"
)
# Bytes of a page of a new record; one that is there keeps its own. An update of 1 % changes lines all over the table,
# and COMMIT waits for every page with one of them: 98 MB at 8,192 bytes, 48 MB at 2,048. Longer names and texts than a
# quarter of a page go to pages of their own.
PAGE = 2_048
# Names of the migrations that this version knows (`blocklist.store.schema` has them), for readers that must be quick.
MIGRATIONS = (
    "0001_record",
    "0002_backoff",
    "0003_lifetimes",
    "0004_evidence",
    "0005_releases",
    "0006_plans",
    "0007_verdict_detail",
    "0008_history",
    "0009_failures",
    "0010_feed_pin",
)


def path_in(state: Path) -> Path:
    return state / NAME


def is_there(state: Path) -> bool:
    """Is there a record, or something in its place? Raises RecordError where one was and is lost."""
    refuse_lost(path_in(state))
    return present(path_in(state))


def open_for_reading(state: Path, *, follow: bool = False) -> sqlite3.Connection:
    """A connection that can't write. From its first question on it sees one state, whatever an update writes meanwhile.

    With `follow` every question sees the newest, for what lasts and is compared with the world outside. Raises
    RecordError when there is no record, or none that can be read.
    """
    path = path_in(state)
    if not is_there(state):
        raise RecordError(f"there is no record yet at {path}", hint="run 'blocklist update' first")
    with explained(path):
        refuse_empty(path)
        try:
            connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=10)
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except sqlite3.OperationalError:
            # A reader without write access to the folder can't take part in WAL; with no WAL file there is
            # nothing it could miss (sqlite.org/wal.html, "Read-Only Databases").
            wal = path.with_name(path.name + "-wal")
            if wal.exists() and wal.stat().st_size:
                raise
            connection = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True, timeout=10)
        connection.execute("PRAGMA cache_size = -8192")
        try:
            _refuse_others(connection, path)
        except BaseException:
            connection.close()
            raise
        if not follow:
            connection.execute("BEGIN")
        return connection


def _refuse_others(connection: sqlite3.Connection, path: Path) -> None:
    if not {"run", "listing", "_sqlite_migrations"} <= _tables(connection):
        raise not_a_record(path)
    names = applied(connection)
    if unknown := sorted(names - set(MIGRATIONS)):
        raise of_newer_version(path, unknown)
    if set(MIGRATIONS) - names:
        raise RecordError(
            f"{path} was written by an earlier version of blocklist",
            hint="run 'blocklist update': it keeps a backup copy and brings the record up to date",
        )


@contextmanager
def reading(state: Path, *, follow: bool = False) -> Iterator[sqlite3.Connection]:
    """`open_for_reading` for the length of a block, whose errors are explained too."""
    with closing(open_for_reading(state, follow=follow)) as connection, explained(path_in(state)):
        yield connection


def applied(connection: sqlite3.Connection) -> set[str]:
    """Names of the migrations that a record has seen. Raises sqlite3.Error where there is no table of them."""
    rows = connection.execute("SELECT name FROM _sqlite_migrations WHERE migration_set = 'blocklist'")
    return {row[0] for row in rows}


def is_of_this_version(connection: sqlite3.Connection) -> bool:
    """Has a database seen all migrations, and no others? Of one that can't say, False."""
    try:
        return applied(connection) == set(MIGRATIONS)
    except sqlite3.Error:
        return False


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}


def refuse_empty(path: Path) -> None:
    """SQLite takes a file without a byte for a new database; here one was lost, and rules with it."""
    if path.is_file() and path.stat().st_size == 0:
        raise RecordError(f"{path} is empty", hint=BACKUP)


def not_a_record(path: Path) -> RecordError:
    return RecordError(f"{path} is a database, but not a record of blocklist", hint="set 'state' to another folder")


def of_newer_version(path: Path, unknown: list[str]) -> RecordError:
    """Nothing is known about what the tables mean there, so they are not even read."""
    return RecordError(
        f"{path} was written by a newer version of blocklist ({', '.join(unknown)})",
        hint="run that version, or restore the backup made when it was migrated",
    )


def open_for_writing(path: Path, *, fresh: bool = False) -> sqlite3.Connection:
    """A connection in autocommit mode; transactions are begun by hand.

    `fresh` is for a file that is built beside the final one and renamed: without journal, since a crash leaves
    nothing but a file to remove.
    """
    with explained(path):
        # Threads of an update read through the same connection; SQLite itself takes turns (serialized mode). But from
        # Python 3.12 on the module's cache hands a statement that one thread is about to run, or has just run, to
        # another that asks the same, and both get rows of either: each question has a statement of its own.
        connection = sqlite3.connect(
            path, timeout=30, isolation_level=None, check_same_thread=False, cached_statements=0
        )
        if fresh:
            connection.execute(f"PRAGMA page_size = {PAGE}")
            connection.execute("PRAGMA journal_mode = OFF")
            connection.execute("PRAGMA synchronous = OFF")
        else:
            # A stranger's database must not be given our tables, nor another journal.
            if (tables := _tables(connection)) and not {"run", "listing"} <= tables:
                connection.close()
                raise not_a_record(path)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            # Not within a COMMIT, which the writer waits for: see `checkpoint`.
            connection.execute("PRAGMA wal_autocheckpoint = 0")
        # An update changes nearly every page of 2.5 million listings, and comes back to each: 119 MB.
        connection.execute("PRAGMA cache_size = -131072")
        connection.execute("PRAGMA temp_store = MEMORY")
        return connection


def checkpoint(path: Path) -> None:
    """Bring a long WAL file into the database, beside what its writer does meanwhile.

    A transaction is safe without (sqlite.org/wal.html): who closes the record last does what is left.
    """
    with suppress(OSError, sqlite3.Error):
        if path.with_name(path.name + "-wal").stat().st_size < _LONG_WAL:
            return
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=0)) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")


# Fewer bytes are soon brought in by whoever closes the record.
_LONG_WAL = 8_192_000


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """SQLite's and the system's errors as RecordError: the file, the reason, the way out.

    A damaged schema makes messages that Python can't decode: UnicodeDecodeError is one of SQLite's errors too.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        text = str(error)
        if "readonly" in text or "unable to open" in text:
            raise RecordError(
                f"{path}: {text}", hint=f"check owner and mode of {path} and of its folder {path.parent}"
            ) from error
        # Before the next: it is a "database disk image" that is malformed.
        if "malformed" in text or "not a database" in text:
            hint = REPAIR if "malformed" in text else BACKUP
            raise RecordError(f"{path} is damaged: {text}", hint=hint) from error
        if "disk" in text or "full" in text:
            raise RecordError(
                f"{path}: {text}",
                hint=f"free space on the disk that holds {path.parent}; nothing is half written",
            ) from error
        raise RecordError(f"{path}: {text}") from error
    except UnicodeDecodeError as error:
        raise RecordError(f"{path} is damaged: a text in it is no UTF-8", hint=REPAIR) from error
    except BrokenPipeError:
        raise  # of who read what was told meanwhile
    except OSError as error:
        raise RecordError(f"{error.filename or path}: {error.strerror}") from error
