"""The record: whole at every moment, readable by anyone's SQLite, and never written over by mistake."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from installation import World, digest, names, obeying_modes

from blocklist.errors import RecordError
from blocklist.store.database import MIGRATIONS, PAGE, open_for_reading, open_for_writing
from blocklist.store.record import Record
from blocklist.store.schema import migrations


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.feed("a", names(30))
    world.export("list")
    return world


def test_the_first_load_is_built_beside_and_then_kept_with_a_journal(world: World) -> None:
    world.update()
    assert world.rows("PRAGMA journal_mode") == [("wal",)]
    assert [p.name for p in world.state.iterdir() if p.name.startswith("record.db.new")] == []
    world.assert_sound()


def test_a_first_load_that_was_cut_off_leaves_nothing_in_the_way(world: World) -> None:
    world.state.mkdir()
    (world.state / "record.db.new").write_bytes(b"half a database")
    (world.state / "record.db.new-journal").write_bytes(b"x")
    assert world.update().code == 0
    assert world.left_over() == []


def test_a_look_before_the_first_load_leaves_no_database(world: World) -> None:
    assert world.run("export", "--format", "domains", "-o", "-").code == 0
    assert list(world.state.glob("record.db*")) == []
    ran = world.run("why", "evil.example")
    assert ran.code == 1 and "blocklist update" in ran.err


def test_people_can_read_the_views_with_plain_sqlite(world: World) -> None:
    world.feed("top", [names(1)[0]], category="reference")
    world.update()
    now = world.rows(
        "SELECT indicator, kind, scope, feed, line FROM listings_now WHERE feed = 'a' ORDER BY line LIMIT 1"
    )
    assert now == [("h00000.evil.example", "domain", "exact", "a", 1)]
    assert world.rows("SELECT indicator, guard, withheld_as FROM holds_now") == [
        ("h00000.evil.example", "reference", "exact")
    ]
    assert world.rows("SELECT feed, entries, outcome FROM feeds_overview ORDER BY feed") == [
        ("a", 30, "updated"),
        ("top", 1, "updated"),
    ]
    assert world.rows("SELECT export, state, entries FROM releases") == [("list", "live", 29)]
    strict = world.rows(
        "SELECT name FROM pragma_table_list WHERE type = 'table' AND strict = 0 AND name NOT LIKE '%\\_%' ESCAPE '\\'"
    )
    assert strict == []


def test_many_updates_leave_a_sound_record(world: World) -> None:
    for i in range(8):
        world.lines("a", names(30 + 3 * i, start=2 * i))
        world.feed("b", names(10, start=i % 3, zone="b.example"))
        if i % 3 == 2:
            del world.feeds["b"]
            world.write()
        world.update()
        world.assert_sound()
        assert world.listed("a") == sorted(names(30 + 3 * i, start=2 * i))
    runs = [row[0] for row in world.rows("SELECT id FROM run ORDER BY id")]
    assert runs == sorted(runs) and len(runs) == 8
    assert world.rows("SELECT count(*) FROM run WHERE finished IS NULL") == [(0,)]


def test_an_interval_never_overlaps_the_next_one_of_the_same_name_and_feed(world: World) -> None:
    for i in range(6):
        world.lines("a", names(30) if i % 2 else names(20))
        world.update()
    spans = world.rows(
        "SELECT name, since, until FROM listing_closed UNION ALL SELECT name, since, 1000000 FROM listing ORDER BY 1, 2"
    )
    for (name, _, until), (following, since, _) in pairwise(spans):
        assert name != following or until <= since


# Refusals


def harm(world: World, how: str) -> None:
    if how == "not a database":
        world.database.write_bytes(b"these are not the bytes of a database\n" * 100)
    elif how == "empty":
        world.database.write_bytes(b"")
    elif how == "text":
        world.database.write_text("hello")
    elif how == "damaged":
        data = bytearray(world.database.read_bytes())
        for page in range(1, len(data) // PAGE):
            data[page * PAGE : page * PAGE + 200] = os.urandom(200)
        world.database.write_bytes(data)
    elif how == "truncated":
        whole = world.database.read_bytes()
        world.database.write_bytes(whole[: len(whole) // 2])
    elif how == "a folder":
        world.database.unlink()
        world.database.mkdir()
    elif how == "another program's":
        world.database.unlink()
        with contextlib.closing(sqlite3.connect(world.database)) as db:
            db.execute("CREATE TABLE bookmarks (url TEXT)")
    elif how == "of a newer version":
        world.change(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) "
            "VALUES ('blocklist', '9999_later', '2030')"
        )
    for suffix in ("-wal", "-shm"):
        world.database.with_name(f"record.db{suffix}").unlink(missing_ok=True)


@pytest.mark.parametrize(
    "how",
    ["not a database", "empty", "text", "damaged", "truncated", "a folder", "another program's", "of a newer version"],
)
def test_a_database_that_is_not_ours_to_write_is_refused_with_advice_and_left_as_it_is(world: World, how: str) -> None:
    world.update()
    published = world.exported("list")
    with contextlib.closing(sqlite3.connect(world.database)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    harm(world, how)
    before = digest(world.database) if world.database.is_file() else ""
    world.lines("a", names(31))
    writers: list[tuple[str, ...]] = [("update",), ("export",), ("allow", "add", "x.example", "--reason", "r")]
    for words in writers:
        ran = world.run(*words)
        assert ran.code == 1, (words, ran)
        assert "record.db" in ran.err and "hint:" in ran.err, ran.err
        assert "Traceback" not in ran.err and "unexpected" not in ran.err, ran.err
    readers: list[tuple[str, ...]] = [
        ("status",),
        ("why", "h00001.evil.example"),
        ("held",),
        ("release",),
        ("allow", "list"),
        ("feeds", "show", "a"),
    ]
    for words in readers:
        ran = world.run(*words)
        assert "Traceback" not in ran.err and "unexpected" not in ran.err, (words, ran.err)
        assert ran.code == 0 or "record.db" in ran.err, (words, ran.err)
    assert world.exported("list") == published
    assert before == (digest(world.database) if world.database.is_file() else "")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("feed", "feeds show a"),
        ("snapshot", "feeds show a"),
        ("snapshot", "feeds show a --gated"),
        ("release", "release"),
        ("rule", "allow"),
    ],
)
def test_a_torn_table_is_said_by_who_reads_it(world: World, table: str, words: str) -> None:
    world.update()
    with contextlib.closing(sqlite3.connect(world.database)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        ((root, size),) = db.execute(
            "SELECT rootpage, (SELECT page_size FROM pragma_page_size) FROM sqlite_schema WHERE name = ?", (table,)
        )
    data = bytearray(world.database.read_bytes())
    data[(root - 1) * size : root * size] = bytes(size)
    world.database.write_bytes(data)
    ran = world.run(*words.split())
    assert ran.code == 1 and "record.db is damaged" in ran.err and "unexpected" not in ran.err, ran.err


def test_threads_that_ask_one_connection_the_same_at_once_get_their_own_answers(tmp_path: Path) -> None:
    with contextlib.closing(open_for_writing(tmp_path / "record.db", fresh=True)) as db:
        db.execute("CREATE TABLE listing (id INTEGER PRIMARY KEY, name TEXT)")
        db.executemany("INSERT INTO listing VALUES (?, ?)", enumerate(names(500)))
        known = names(500)

        def ask(start: int) -> int:
            asked = [(start * 167 + step) % len(known) for step in range(5_000)]
            found = (db.execute("SELECT name FROM listing WHERE id = ?", (number,)).fetchone() for number in asked)
            return sum(row != (known[number],) for number, row in zip(asked, found, strict=True))

        with ThreadPoolExecutor(3) as pool:
            assert list(pool.map(ask, range(3))) == [0, 0, 0]


def test_a_reader_sees_one_state_from_its_first_question_on_unless_it_follows(world: World) -> None:
    world.update()
    count = "SELECT count(*) FROM listing"
    with (
        contextlib.closing(open_for_reading(world.state)) as one,
        contextlib.closing(open_for_reading(world.state, follow=True)) as follower,
    ):
        before = one.execute(count).fetchone()
        world.lines("a", names(31))
        assert world.update().code == 0
        assert one.execute(count).fetchone() == before == (30,)
        assert follower.execute(count).fetchone() == (31,)
    world.assert_sound()


def test_a_long_journal_comes_into_the_database_while_the_writer_goes_on(world: World) -> None:
    world.update()

    def without_journal() -> bool:
        # In a process of its own: to close a file that is read without locks would end those of its writer here.
        ask = "SELECT count(*) FROM feed WHERE length(hint) > 1000000"
        uri = f"file:{world.database}?immutable=1"
        program = "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1], uri=True).execute(sys.argv[2]).fetchone())"
        ran = subprocess.run([sys.executable, "-c", program, uri, ask], capture_output=True, text=True, check=False)
        return ran.stdout == "1\n"  # an error while half of it was brought in

    record = Record.open(world.state)
    with record.transaction() as db:
        db.execute("UPDATE feed SET hint = hex(zeroblob(8192000))")
    journal = world.database.with_name("record.db-wal")
    assert journal.stat().st_size > 16_000_000
    with record.transaction() as db:
        db.execute("UPDATE feed SET error = 'x'")
    until = time.monotonic() + 60
    while not without_journal() and time.monotonic() < until:
        time.sleep(0.01)
    assert without_journal()
    record.close()
    assert not journal.exists()
    world.assert_sound()


def test_readers_know_the_same_migrations_as_writers() -> None:
    assert list(MIGRATIONS) == [m.name for m in migrations._migrations]


def test_a_reader_refuses_a_newer_database_too(world: World) -> None:
    world.update()
    harm(world, "of a newer version")
    for words in (("why", "evil.example"), ("status",)):
        ran = world.run(*words)
        assert ran.code == 1 and "newer version" in ran.err


# Permissions


@pytest.fixture
def closable(world: World) -> Iterator[World]:
    """A world whose files a test may close; they are opened again for those who clean up."""
    yield world
    for path in [world.base, *world.base.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def test_a_folder_that_may_not_be_written_is_named(closable: World) -> None:
    closable.base.chmod(0o555)
    ran = closable.call("update", under=obeying_modes())
    assert ran.code == 1
    assert str(closable.state) in ran.err or str(closable.base) in ran.err
    assert "ermission" in ran.err and "owner and mode" in ran.err and "Traceback" not in ran.err


def test_a_database_that_may_not_be_written_is_named_and_can_still_be_read(closable: World) -> None:
    world = closable
    assert world.update().code == 0
    world.lines("a", names(31))
    for path in [world.state, *world.state.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = digest(world.database)
    for words in (("update",), ("deny", "add", "x.example", "--reason", "r")):
        ran = world.call(*words, under=obeying_modes())
        assert ran.code == 1 and "ermission denied" in ran.err and str(world.state) in ran.err, ran.err
        assert "Traceback" not in ran.err
    why = world.call("why", names(1)[0], "--json", under=obeying_modes())
    assert why.code == 0 and why.json["blocked"]
    assert world.call("status", under=obeying_modes()).code == 0
    assert digest(world.database) == before


@pytest.mark.parametrize("what", ["record.db", "snapshots", "columns", "incoming"])
def test_what_may_not_be_written_in_a_folder_of_ones_own_is_named(closable: World, what: str) -> None:
    world = closable
    world.update()
    world.lines("a", names(31))
    for path in sorted((world.state / what).rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    (world.state / what).chmod(0o555 if (world.state / what).is_dir() else 0o444)
    ran = world.call("update", under=obeying_modes())
    assert ran.code in (1, 3) and str(world.state / what) in ran.text and "Traceback" not in ran.text, ran.text
    assert "unexpected" not in ran.text, ran.text
    assert world.listed() == names(30)
    world.assert_sound()


# The bulk path


def test_packed_rows_come_back_as_they_went_in(tmp_path: Path) -> None:
    record = Record.open(tmp_path)
    with record.transaction() as db:
        ids = record.add_feeds(db, ["a", "b"])
        run = record.begin_run(db, "2026-01-01T00:00:00Z", "update", "me")
        rows = pl.DataFrame(
            {
                "name": [f"h{i}.example" for i in range(250)] + ["//x.example/p", "2001:db8::/32"],
                "kind": [1] * 250 + [4, 3],
                "feed": [ids["b"]] * 252,
                "subtree": [i % 2 == 0 for i in range(250)] + [False, False],
                "line": [*range(1, 251), 2**32 - 1, 7],
                "confidence": [None] * 251 + [77],
                "extra": [None] * 250 + ['{"reason":"é"}', None],
            },
            schema={
                "name": pl.String,
                "kind": pl.UInt8,
                "feed": pl.UInt16,
                "subtree": pl.Boolean,
                "line": pl.UInt32,
                "confidence": pl.UInt8,
                "extra": pl.String,
            },
        )
        record.add_listings(db, run, rows)
    back = record.indicators(ids["b"], 999)
    columns = ["name", "kind", "subtree", "line", "confidence", "extra"]
    assert back.select(columns).equals(rows.select(columns).sort("name"))
    record.close()


def test_an_error_inside_a_transaction_changes_nothing(world: World) -> None:
    world.update()
    record = Record.open(world.state)
    with pytest.raises(RuntimeError), record.transaction() as db:
        record.close_feed(db, 1, 202601, 1, "test")
        raise RuntimeError
    record.close()
    assert len(world.listed()) == 30


def test_a_violated_rule_of_the_schema_is_a_record_error(world: World) -> None:
    world.update()
    record = Record.open(world.state)
    with pytest.raises(RecordError, match=r"record\.db"), record.transaction() as db:
        record.add_listings(
            db,
            9999,
            pl.DataFrame(
                {
                    "name": ["x"],
                    "kind": [1],
                    "feed": [1],
                    "subtree": [True],
                    "line": [1],
                    "confidence": [None],
                    "extra": [None],
                }
            ),
        )
    record.close()


def test_listings_that_did_not_go_in_are_missed(world: World) -> None:
    world.update()
    # As an error would that nobody heard of.
    world.change(
        "CREATE TRIGGER deaf BEFORE INSERT ON listing WHEN NEW.name = 'h00031.evil.example' "
        "BEGIN SELECT RAISE(IGNORE); END"
    )
    world.lines("a", names(35))
    ran = world.update()
    assert ran.code == 1 and "took 4 of 5 listings" in ran.err and "doctor" in ran.err, ran.text
    assert len(world.listed("a")) == len(world.exported("list")) == 30
    world.change("DROP TRIGGER deaf")
    assert world.update().code == 0
    assert len(world.listed("a")) == len(world.exported("list")) == 35


def test_a_first_load_with_a_reference_to_nothing_is_not_kept(tmp_path: Path) -> None:
    record = Record.open(tmp_path)
    with pytest.raises(RecordError, match=r"table snapshot names a (feed|run)"), record.transaction() as connection:
        record.begin_run(connection, "2026-11-24T00:00:00Z", "update", "t")
        columns = [row[1:4] for row in connection.execute("PRAGMA table_info(snapshot)") if row[3] or row[1] == "id"]
        values = [7 if "INT" in kind else "current" if name == "state" else "x" for name, kind, _ in columns]
        names = ", ".join(name for name, _, _ in columns)
        connection.execute(f"INSERT INTO snapshot ({names}) VALUES ({', '.join('?' * len(values))})", values)
    record.close()
    assert list(tmp_path.glob("record.db*")) == []
