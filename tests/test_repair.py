"""`blocklist doctor --repair`: real damage to a lived record, and what must be as before, or be said to be lost."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from installation import KILLER, Ran, World, digest, names

from blocklist.errors import RecordError
from blocklist.repair import salvage
from blocklist.repair.pages import Pages, Table
from blocklist.store import database, ledger, snapshots
from blocklist.store.database import PAGE
from blocklist.store.lock import Lock
from blocklist.store.record import Record

# What a repair adds to by itself, and what it need not keep.
OWN = ("run", "event", "counter", "guard_input")


def live(world: World) -> None:
    """Some days: lists that change, listings that linger, rules, holds, a rollback, a case, releases."""
    for zone in "abc":
        world.feed(zone, names(1500, zone=f"{zone}.example"))
    world.feeds["a"]["linger"] = "30d"
    world.feeds["c"]["category"] = "phishing"
    world.feed("top", names(20, start=100, zone="a.example"), category="reference")
    world.export("list", kinds=["domain"])
    world.export("dns", "rpz", options={"origin": "rpz.example"})
    world.export("parts", "hosts", split="category")
    assert world.update().code == 0
    world.lines("a", names(1550, start=10, zone="a.example"))
    assert world.update().code == 0
    world.lines("b", names(1450, start=10, zone="b.example"))
    world.run("allow", "add", "h00500.b.example", "--reason", "a customer", "--ticket", "INC-1", "--until", "300d")
    world.run("allow", "add", "h00501.b.example", "--reason", "a mistake")
    world.run("deny", "add", "bad.example", "--reason", "an order")
    world.run("allow", "remove", "2", "--reason", "over")
    world.run("held", "release", "h00100.a.example", "--reason", "known")
    world.run("held", "release", "h00101.a.example", "--reason", "known")
    world.run("held", "revoke", "h00101.a.example", "--reason", "not known")
    assert world.update().code == 0
    assert world.run("release", "rollback", "list", "--reason", "try").code == 0
    assert world.run("export").code == 0
    settle(world)


def settle(world: World) -> None:
    with contextlib.closing(sqlite3.connect(world.database)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Path]:
    """A lived installation and a copy of it; paths in a record are absolute, so that it is always used in one place."""
    folder = tmp_path_factory.mktemp("lived")
    world = World(folder / "here")
    world.base.mkdir()
    live(world)
    shutil.copytree(world.base, folder / "copy")
    return world, folder / "copy"


@pytest.fixture
def world(pristine: tuple[World, Path]) -> World:
    world, copy = pristine
    shutil.rmtree(world.base)
    shutil.copytree(copy, world.base)
    return replace(world, exports=json.loads(json.dumps(world.exports)))


# Looking


def published(world: World) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((world.base / "exports").iterdir())}


def table(world: World, name: str) -> list[tuple[Any, ...]]:
    return sorted(world.rows(f"SELECT * FROM {name}"), key=repr)


def tables(world: World) -> dict[str, list[tuple[Any, ...]]]:
    found = world.rows("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT GLOB '*sqlite_*'")
    return {name: table(world, name) for (name,) in found}


def pages_of(world: World) -> dict[tuple[str, str], list[int]]:
    """Pages by table or index and kind of page (`leaf`, `internal`, `overflow`)."""
    found = defaultdict(list)
    with contextlib.closing(sqlite3.connect(world.database)) as db:
        try:
            rows = db.execute("SELECT name, pagetype, pageno FROM dbstat ORDER BY path").fetchall()
        except sqlite3.OperationalError:
            pytest.skip("this SQLite is built without dbstat, which tells where a table's pages are")
    for name, kind, number in rows:
        found[name, kind].append(number)
    return found


def smash(world: World, numbers: list[int], data: bytes | None = None) -> None:
    """Overwrite whole pages with noise, or with `data`."""
    with world.database.open("r+b") as file:
        for number in numbers:
            file.seek((number - 1) * PAGE)
            file.write(random.Random(number).randbytes(PAGE) if data is None else data)


def tree(world: World) -> dict[str, str]:
    """Digests of all files of the installation, but for what SQLite keeps for itself while it reads."""
    files = [p for p in world.base.rglob("*") if p.is_file() and not p.name.endswith(("-shm", "-wal"))]
    return {str(p.relative_to(world.base)): digest(p) for p in sorted(files) if p.name != "lock"}


def repaired(world: World) -> list[dict[str, Any]]:
    """Repair; what it said, of a run that ended well and left a sound record that a second look finds nothing in."""
    ran = world.run("doctor", "--repair", "--json")
    assert "Traceback" not in ran.text and "unexpected" not in ran.text, ran.text
    assert ran.code == 0, ran.text
    world.assert_sound()
    assert [path for path in world.left_over() if "snapshots.lost-" not in path] == []
    again = world.run("doctor", "--deep")
    assert again.code == 0, again.out
    before = tree(world)
    twice = world.run("doctor", "--repair", "--json")
    assert (twice.code, twice.json["fixed"]) == (0, 0), twice.out
    assert tree(world) == before
    return found_by(ran)


def found_by(ran: Ran) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ran.out.splitlines()][:-1]


def told(found: list[dict[str, Any]], *words: str) -> list[str]:
    """`check: text` of the findings with these words."""
    return [f"{one['check']}: {one['text']}" for one in found if one["word"] in words]


def update_goes_on(world: World) -> None:
    """What comes next is taken and published as if nothing had been."""
    world.lines("b", names(1400, start=20, zone="b.example"))
    world.lines("c", names(1510, zone="c.example"))
    ran = world.update()
    assert ran.code == 0, ran.text
    assert world.listed("b") == names(1400, start=20, zone="b.example")
    assert world.listed("c") == names(1510, zone="c.example")
    world.assert_sound()
    assert [path for path in world.left_over() if "snapshots.lost-" not in path] == []
    assert len([name for name in names_in(world) if ".c.example" in name]) >= 1510


def names_in(world: World) -> set[str]:
    zone = (world.base / "exports" / "dns").read_text()
    return {line.split()[0] for line in zone.splitlines() if " CNAME . " in line or line.endswith("CNAME .")}


# The record


def test_of_damaged_indices_nothing_is_lost(world: World) -> None:
    before, files = tables(world), published(world)
    pages = pages_of(world)
    hurt = [pages[name, "leaf"][0] for name in ("rule_by_name", "release_live", "snapshot_current", "hold_open")]
    smash(world, [*hurt, pages["sqlite_autoindex_feed_1", "leaf"][0]])
    assert world.run("doctor").code == 1
    found = repaired(world)
    assert any("its tables are whole; its indices were made anew" in text for text in told(found, "fixed"))
    assert told(found, "warn") == [text for text in told(found, "warn") if text.startswith(("exports", "disk"))]
    after = tables(world)
    assert {n: rows for n, rows in after.items() if n not in OWN} == {
        n: rows for n, rows in before.items() if n not in OWN
    }
    assert set(before["event"]) < set(after["event"]) and published(world) == files
    assert world.run("events", "verify").code == 0
    update_goes_on(world)


def test_an_index_that_says_something_else_than_its_table_is_made_anew(world: World) -> None:
    with contextlib.closing(sqlite3.connect(world.database)) as db:
        db.execute("PRAGMA writable_schema = ON")
        sql = "CREATE INDEX rule_by_name ON rule (reason)"
        db.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 'rule_by_name'", (sql,))
        db.commit()
    before = table(world, "rule")
    assert world.rows("PRAGMA integrity_check") != [("ok",)]
    repaired(world)
    assert world.rows("SELECT sql FROM sqlite_schema WHERE name = 'rule_by_name'") == [
        ("CREATE INDEX rule_by_name ON rule (name)",)
    ]
    assert table(world, "rule") == before


@pytest.mark.parametrize("kind", ["leaf", "internal"])
def test_listings_that_are_lost_begin_again_with_their_snapshot(world: World, kind: str) -> None:
    before, files = tables(world), published(world)
    said = world.why("h00700.b.example")
    which = pages_of(world)["listing", kind]
    smash(world, which[len(which) // 2 :][:2])
    damaged = digest(world.database)
    assert "doctor --repair" in world.run("doctor").out
    found = repaired(world)
    begun = [text for text in told(found, "fixed") if "begin again with its snapshot" in text]
    assert begun and any("could be read" in text for text in told(found, "warn"))
    # The damaged one is kept as it was.
    assert [digest(path) for path in world.state.glob("record.db.damaged-*Z")] == [damaged]
    # All that is listed is listed; of some only the run of the snapshot is known.
    after = tables(world)
    assert [r[:2] + r[3:5] for r in after["listing"]] == [r[:2] + r[3:5] for r in before["listing"]]
    changed = set(after["listing"]) - set(before["listing"])
    current = {row[1]: row[2] for row in world.rows("SELECT id, feed, run FROM snapshot WHERE state = 'current'")}
    assert 0 < len(changed) < 800
    assert all(row[2] == current[row[1]] or row[8] is not None for row in changed)
    assert {n: rows for n, rows in after.items() if n not in (*OWN, "listing")} == {
        n: rows for n, rows in before.items() if n not in (*OWN, "listing")
    }
    assert published(world) == files
    assert world.run("export").code == 0 and published(world) == files
    assert world.why("h00700.b.example")["blocked"] == said["blocked"]
    assert world.run("why", "h00700.b.example").code == 0
    event = world.rows("SELECT who, detail FROM event WHERE what = ?", ledger.REPAIRED)
    assert json.loads(event[0][1])["begun"] >= len(changed) and event[0][0]
    assert world.run("events", "verify").code == 0
    update_goes_on(world)


def test_what_lingered_in_a_lost_page_lingers_on(world: World) -> None:
    before = world.rows("SELECT name, dropped FROM listing WHERE dropped IS NOT NULL ORDER BY name")
    assert len(before) == 10
    smash(world, pages_of(world)["listing", "leaf"][:1])
    repaired(world)
    assert world.rows("SELECT name, dropped FROM listing WHERE dropped IS NOT NULL ORDER BY name") == before
    update_goes_on(world)


def test_listings_are_known_from_the_downloads_where_the_caches_are_gone_too(world: World) -> None:
    before = [r[:2] + r[3:5] for r in table(world, "listing")]
    which = pages_of(world)["listing", "leaf"]
    smash(world, which[len(which) // 2 :][:3])
    shutil.rmtree(world.state / "columns")
    repaired(world)
    assert [r[:2] + r[3:5] for r in table(world, "listing")] == before


def test_decisions_that_are_lost_are_given_back_from_the_log(world: World) -> None:
    before = {name: table(world, name) for name in ("rule", "hold_release", "pin")}
    assert [len(rows) for rows in before.values()] == [3, 2, 1]
    pages = pages_of(world)
    smash(world, [pages[name, "leaf"][0] for name in before])
    found = repaired(world)
    assert any("3 rules, 2 released holds and 1 pins are given back" in text for text in told(found, "fixed"))
    assert {name: table(world, name) for name in before} == before
    assert world.run("events", "verify").code == 0


def test_holds_that_are_lost_hold_again(world: World) -> None:
    before = world.rows("SELECT name, guard, kind, subtree_only, detail FROM hold WHERE until IS NULL ORDER BY 1, 2")
    files = published(world)
    assert len(before) == 20
    smash(world, pages_of(world)["hold", "leaf"])
    found = repaired(world)
    assert any("20 were lost and hold again" in text for text in told(found, "fixed"))
    sql = "SELECT name, guard, kind, subtree_only, detail FROM hold WHERE until IS NULL ORDER BY 1, 2"
    assert world.rows(sql) == before
    assert world.run("export").code == 0 and published(world) == files


def test_a_log_that_is_lost_is_said_to_be_lost_and_decisions_stay(world: World) -> None:
    before = {name: table(world, name) for name in ("rule", "hold_release", "pin", "listing")}
    lost = len(table(world, "event"))
    smash(world, pages_of(world)["event", "leaf"])
    found = repaired(world)  # what is said once is no failure of the next look
    assert any("but no event added it" in text for text in told(found, "warn"))
    assert lost > 10 and {name: table(world, name) for name in before} == before
    assert world.run("events", "verify").code == 1
    assert "since the record was repaired" in world.run("doctor").out
    # What is edited after that is news.
    world.change("UPDATE rule SET reason = 'another' WHERE id = 1")
    world.change(
        "INSERT INTO rule SELECT 9, action, name, kind, subtree, reason, ticket, author, created, since, expires, "
        "removed, until, removed_by, removed_reason FROM rule WHERE id = 3"
    )
    assert world.run("doctor").code == 1


def test_events_that_are_lost_in_between_are_counted(world: World) -> None:
    for i in range(120):
        assert world.run("deny", "add", f"d{i}.example", "--reason", "a long reason " * 40).code == 0
    settle(world)
    which = pages_of(world)["event", "leaf"]
    assert len(which) > 3
    rules = table(world, "rule")
    smash(world, which[1:2])
    found = repaired(world)
    (text,) = [text for text in told(found, "warn") if "lost events" in text]
    gone = int(text.split(": ")[2].split(" ")[0].replace(",", ""))
    numbers = [row[0] for row in world.rows("SELECT id FROM event ORDER BY id")]
    assert gone == numbers[-1] - len(numbers) > 2
    assert table(world, "rule") == rules


def test_runs_and_feeds_that_are_lost_keep_their_numbers(world: World) -> None:
    listed = world.listed()
    started = dict(world.rows("SELECT id, started FROM run"))
    pages = pages_of(world)
    smash(world, [pages["run", "leaf"][0], pages["feed", "leaf"][0]])
    found = repaired(world)
    assert sum("known again by its configuration" in text for text in told(found, "fixed")) == 4
    assert any("only the numbers and times are left" in text for text in told(found, "warn"))
    assert world.listed() == listed and sorted(n for (n,) in world.rows("SELECT name FROM feed")) == sorted(world.feeds)
    again = dict(world.rows("SELECT id, started FROM run WHERE command = 'lost'"))
    assert again and all(started[number] == at for number, at in again.items())
    update_goes_on(world)


def test_a_feed_that_nothing_names_any_more_is_said(world: World) -> None:
    pages = pages_of(world)
    smash(world, [pages["feed", "leaf"][0], pages["feed_version", "leaf"][0]])
    world.feed("b", names(1450, start=10, zone="b.example"), url="file:feeds/moved.txt")
    shutil.copy(world.base / "feeds" / "b.txt", world.base / "feeds" / "moved.txt")
    found = repaired(world)
    assert any("its name is lost" in text for text in told(found, "warn"))
    assert world.update().code == 0 and world.listed("b") == names(1450, start=10, zone="b.example")
    world.assert_sound()


def test_rows_of_downloads_that_are_lost_are_given_back_from_log_and_files(world: World) -> None:
    before = world.rows("SELECT id, feed, run, sha256, bytes, lines, entries FROM snapshot WHERE state = 'current'")
    files, listings = published(world), table(world, "listing")
    smash(world, pages_of(world)["snapshot", "leaf"])
    found = repaired(world)
    assert sum("given back from the log and the file" in text for text in told(found, "fixed")) == 4
    after = world.rows("SELECT id, feed, run, sha256, bytes, lines, entries FROM snapshot WHERE state = 'current'")
    assert sorted(after) == sorted(before) and table(world, "listing") == listings
    # Older ones are put aside, not removed.
    assert len(list(world.state.glob("snapshots.lost-*/*.zst"))) == 2
    assert world.run("export").code == 0 and published(world) == files
    update_goes_on(world)


def test_releases_that_are_lost_are_given_back_from_the_log(world: World) -> None:
    names_ = "id, export, run, state, serial, digest, entries, bytes"
    before = world.rows(f"SELECT {names_} FROM release WHERE export <> 'parts' AND published IS NOT NULL ORDER BY id")
    files = published(world)
    smash(world, pages_of(world)["release", "leaf"])
    found = told(found_by(world.run("doctor", "--repair", "--json")), "fixed", "warn")
    assert any(f"{len(before)} are given back from the log" in text for text in found)
    assert any("releases only their events are left" in text for text in found), "those of the split export"
    assert (
        any("is pinned no more" in text for text in found) and "not pinned" in world.run("release", "unpin", "list").err
    )
    assert world.rows(f"SELECT {names_} FROM release WHERE export <> 'parts' ORDER BY id") == before
    assert published(world) == files
    world.assert_sound()
    out = world.base / "then"
    assert world.run("export", "dns", "--at", "now", "-o", out).code == 0 and out.read_bytes() == files["dns"]
    # The gates have something to compare with.
    world.lines("b", names(740, zone="b.example"))
    world.lines("c", names(755, zone="c.example"))
    ran = world.update()
    assert ran.export("dns")["outcome"] == "held", ran.text


def test_what_would_leave_the_lists_is_said(world: World) -> None:
    files = published(world)
    smash(world, pages_of(world)["snapshot", "leaf"])
    for folder in ("columns", "snapshots"):
        shutil.rmtree(world.state / folder)
    ran = world.run("doctor", "--repair", "--json")
    found = found_by(ran)
    assert any("nothing says what it lists, and its 1,450 listings ended" in text for text in told(found, "warn"))
    assert any("less than the live one" in text for text in told(found, "warn"))
    world.assert_sound()
    assert published(world) == files, "a repair takes nothing from a list by itself"
    assert world.update("--force").code == 0
    assert len(world.listed()) > 4000 and names_in(world)


def test_what_lost_rules_would_change_is_not_published_with_a_file_that_was_edited(world: World) -> None:
    files, pages = published(world), pages_of(world)
    smash(world, pages["rule", "leaf"] + pages["event", "leaf"])
    folder = world.base / "exports"
    (folder / "dns").write_text("edited\n")
    (folder / "parts-phishing").unlink()
    found = found_by(world.run("doctor", "--repair", "--json"))
    assert table(world, "rule") == []
    assert published(world) == files, "the allowed name is listed, and its rule is lost"
    assert any("the next release brings" in text for text in told(found, "warn"))
    assert world.run("export").code == 0 and published(world)["dns"] != files["dns"]


def test_of_half_a_file_what_is_there_is_kept_and_what_is_missing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As records began before: its small tables stand in their first pages alone, which the first half has.
    monkeypatch.setattr(database, "PAGE", 8192)
    world = World(tmp_path / "here")
    world.base.mkdir()
    live(world)
    rules, files = table(world, "rule"), published(world)
    data = world.database.read_bytes()
    world.database.write_bytes(data[: len(data) // 8192 // 2 * 8192 + 100])
    before = [row[:2] for row in sorted(table_of(data, world, "listing"))]
    ran = world.run("doctor", "--repair", "--json")
    assert ran.code == 0, ran.text
    world.assert_sound()
    assert table(world, "rule") == rules and published(world) == files
    assert sorted(row[:2] for row in table(world, "listing")) == before
    assert any("could be read" in text for text in told(found_by(ran), "warn"))
    update_goes_on(world)


def table_of(data: bytes, world: World, name: str) -> list[tuple[Any, ...]]:
    path = world.base / "whole.db"
    path.write_bytes(data)
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as db:
        rows = db.execute(f"SELECT * FROM {name}").fetchall()
    path.unlink()
    return rows


def test_rows_that_are_not_ours_are_left_out_and_what_they_listed_is_listed(world: World) -> None:
    before = [r[:2] + r[3:5] for r in table(world, "listing")]
    with contextlib.closing(sqlite3.connect(world.database)) as db, db:
        db.execute("UPDATE listing SET kind = 77 WHERE name = 'h00700.b.example'")
        db.execute("UPDATE listing SET subtree = 1 WHERE name = 'h00701.b.example'")
        db.execute("DELETE FROM listing WHERE name = 'h00702.b.example'")
        db.execute(
            "INSERT INTO listing SELECT 'ghost.example', feed, since, 1, 0, 5, NULL, NULL, NULL FROM listing LIMIT 1"
        )
    settle(world)
    smash(world, pages_of(world)["verdict", "leaf"])
    found = repaired(world)
    assert [r[:2] + r[3:5] for r in table(world, "listing")] == before
    assert any("1 rows were no listings" in text for text in told(found, "warn"))
    assert world.rows("SELECT cause FROM listing_closed WHERE name = 'ghost.example'") == [
        ("not listed; found when the record was repaired",)
    ]


def test_what_was_written_last_is_in_the_journal_and_is_not_lost(world: World) -> None:
    page = pages_of(world)["hold", "leaf"]
    code = (
        "import os, sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute('PRAGMA wal_autocheckpoint = 0'); "
        "db.execute(\"UPDATE feed SET error = 'the last word' WHERE name = 'a'\"); db.commit(); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(world.database)], check=True)
    assert world.database.with_name("record.db-wal").stat().st_size > 0
    smash(world, page)
    repaired(world)
    assert world.rows("SELECT error FROM feed WHERE name = 'a'") == [("the last word",)]
    (copy,) = [p for p in world.state.glob("record.db.damaged-*") if p.suffix.endswith("Z")]
    assert copy.with_name(copy.name + "-wal").stat().st_size > 0


def test_while_another_program_has_it_open_nothing_is_done(world: World) -> None:
    smash(world, pages_of(world)["hold", "leaf"])
    before = digest(world.database)
    with contextlib.closing(sqlite3.connect(world.database, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM run").fetchall()
        ran = world.call("doctor", "--repair")
        assert ran.code == 1 and "another program has it open" in ran.out, ran.text
        assert digest(world.database) == before
    repaired(world)


# Every page


def survives(world: World, number: int, data: bytes | None = None) -> None:
    files, before = published(world), {n: table(world, n) for n in ("rule", "hold_release")}
    smash(world, [number], data)
    ran = world.run("doctor", "--repair", "--json")
    assert "Traceback" not in ran.text and "unexpected" not in ran.text, (number, ran.text)
    assert published(world) == files, number
    if number == 1:
        assert ran.code == 1 and "first page is lost" in ran.out
        return
    assert ran.code == 0, (number, ran.text)
    world.assert_sound()
    # Bytes that no row names any more stay until something is published.
    odd = [path for path in world.left_over() if not path.startswith(("var/snapshots.lost-", "var/kept/"))]
    assert odd == [], number
    assert {n: table(world, n) for n in before} == before, number
    listed = {row[0] for row in world.rows("SELECT DISTINCT name FROM listing WHERE feed <> 4")}
    assert len(listed) == 1560 + 1450 + 1500, number
    assert world.run("doctor").code == 0, number
    assert world.update().code == 0, number


def test_whichever_page_is_lost_the_lists_and_the_rules_stay(pristine: tuple[World, Path], world: World) -> None:
    chosen = {kind: numbers[len(numbers) // 2] for kind, numbers in pages_of(world).items()}
    for number in random.Random(6).sample(sorted(chosen.values()), 8):
        restore(pristine)
        survives(world, number)


@pytest.mark.slow
@pytest.mark.parametrize("data", [None, bytes(PAGE)], ids=["noise", "zeros"])
def test_whichever_of_all_pages_is_lost_the_lists_and_the_rules_stay(
    pristine: tuple[World, Path], world: World, data: bytes | None
) -> None:
    count = world.database.stat().st_size // PAGE
    for number in range(1, count + 1):
        restore(pristine)
        survives(world, number, data)


def restore(pristine: tuple[World, Path]) -> None:
    world, copy = pristine
    shutil.rmtree(world.base)
    shutil.copytree(copy, world.base)


# Reading pages


VALUES = st.one_of(
    st.none(),
    st.text(max_size=40),
    st.text(st.sampled_from("ab"), min_size=2_000, max_size=25_000).map(lambda text: text[:9000]),
    st.sampled_from([0, 1, -1, 127, 128, -129, 2**15, 2**23, 2**31, 2**47, -(2**47) - 1, 2**63 - 1, -(2**63)]),
)


@settings(max_examples=25)
@given(
    rows=st.dictionaries(st.integers(-(2**63), 2**63 - 1), st.tuples(VALUES, VALUES), max_size=60),
    size=st.sampled_from([512, 1024, PAGE, 8192, 65536]),
    kind=st.sampled_from(["rowid", "without"]),
)
def test_pages_say_what_sqlite_says(
    tmp_path_factory: pytest.TempPathFactory, rows: dict[int, tuple[Any, Any]], size: int, kind: str
) -> None:
    path = tmp_path_factory.mktemp("pages") / "x.db"
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute(f"PRAGMA page_size = {size}")
        key = "INTEGER PRIMARY KEY" if kind == "rowid" else "INTEGER NOT NULL PRIMARY KEY"
        db.execute(f"CREATE TABLE t (a TEXT, k {key}, b INTEGER){' WITHOUT ROWID' if kind == 'without' else ''}")
        told = [(k, a if isinstance(a, str) else None, b if isinstance(b, int) else None) for k, (a, b) in rows.items()]
        db.executemany("INSERT INTO t (k, a, b) VALUES (?, ?, ?)", told)
        db.commit()
        shape = Table.of(db, "t")
        wanted = db.execute("SELECT a, k, b FROM t ORDER BY k").fetchall()
    with contextlib.closing(Pages(path)) as pages:
        found = pages.tree(pages.roots()["t"], table=shape.rowids)
        read = [shape.row(rowid, values) for rowid, values in pages.records(found.pages)]
    assert found.lost == 0
    assert sorted(read, key=lambda row: row[1] if row else 0) == wanted  # type: ignore[index, arg-type, return-value]


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32), flips=st.integers(1, 400))
def test_whatever_bytes_are_changed_salvage_ends_and_gives_rows_of_the_schema(
    pristine: tuple[World, Path], tmp_path_factory: pytest.TempPathFactory, seed: int, flips: int
) -> None:
    chance = random.Random(seed)
    data = bytearray((pristine[1] / "var" / "record.db").read_bytes())
    for _ in range(flips):
        data[chance.randrange(16, len(data))] = chance.randrange(256)
    folder = tmp_path_factory.mktemp("flipped")
    path = folder / "damaged.db"
    path.write_bytes(data)
    record = Record.anew(folder)
    try:
        with contextlib.suppress(RecordError), record.transaction() as connection:
            copied = salvage.copy(path, connection)
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert all(one.rows >= 0 for one in copied)
    finally:
        record.close()


def bytes_changed(world: World, seed: int) -> None:
    """Repair a record some of whose bytes are others, here and there or close together."""
    chance = random.Random(seed)
    data = bytearray(world.database.read_bytes())
    at, span = chance.randrange(100, len(data)), chance.choice((len(data), 3 * PAGE, 100))
    for _ in range(chance.choice((1, 5, 50, 400))):
        data[100 + (at + chance.randrange(span)) % (len(data) - 100)] = chance.randrange(256)
    world.database.write_bytes(data)
    files = published(world)
    ran = world.run("doctor", "--repair", "--json")
    assert "Traceback" not in ran.text and "unexpected" not in ran.text, (seed, ran.text)
    assert set(published(world)) == set(files), seed
    if [one for one in found_by(ran) if (one["check"], one["word"]) in (("repair", "fail"), ("record", "fail"))]:
        return  # said, with the way out; nothing was put in its place
    if not any(text.startswith("record: made anew") for text in told(found_by(ran), "fixed")):
        return  # no look could tell that another byte was meant
    world.assert_sound()
    for words in (("update",), ("doctor",), ("status",), ("why", "h00700.b.example")):
        ran = world.run(*words)
        assert "Traceback" not in ran.text and "unexpected" not in ran.text, (seed, words, ran.text)
    world.assert_sound()


def test_whatever_bytes_are_changed_the_record_is_sound_after_it(pristine: tuple[World, Path], world: World) -> None:
    for seed in range(12):
        restore(pristine)
        bytes_changed(world, seed)


@pytest.mark.slow
def test_whatever_bytes_are_changed_three_hundred_times(pristine: tuple[World, Path], world: World) -> None:
    for seed in range(100, 400):
        restore(pristine)
        bytes_changed(world, seed)


def test_rows_whose_texts_are_damaged_are_left_out_and_given_back(world: World) -> None:
    before = {name: table(world, name) for name in ("rule", "listing")}
    let_pass = sorted(world.rows("SELECT name, author, reason, created, since, until FROM hold_release"), key=repr)
    files = published(world)
    for sql in (
        "UPDATE rule SET expires = '2027-\\-18T10:00:00Z' WHERE id = 1",
        "UPDATE hold_release SET created = '' WHERE id = 1",
        "UPDATE setting SET body = replace(body, 'confidence', 'konfidence')",
        "UPDATE snapshot SET account = '{' WHERE state = 'current' AND feed = 2",
        "UPDATE feed SET checked = 'x' WHERE id = 2",
    ):
        world.change(sql)
    settle(world)
    assert world.rows("PRAGMA integrity_check") == [("ok",)]
    found = repaired(world)
    assert any("given back from the log and the file" in text for text in told(found, "fixed"))
    assert {name: table(world, name) for name in before} == before
    again = world.rows("SELECT name, author, reason, created, since, until FROM hold_release")
    assert sorted(again, key=repr) == let_pass
    assert world.rows("SELECT count(*) FROM setting") == [(0,)] and published(world) == files
    update_goes_on(world)


# Caches, downloads, leftovers, the lock


def test_caches_are_made_again_from_the_downloads(world: World) -> None:
    files = published(world)
    for harm, path in zip(
        ("zero", "half", "gone", "zero"), sorted((world.state / "columns").glob("*.columns")), strict=True
    ):
        if harm == "gone":
            path.unlink()
        else:
            data = path.read_bytes()
            path.write_bytes(bytes(len(data)) if harm == "zero" else data[: len(data) // 2])
    for path in (world.state / "columns").glob("*.bytes"):
        path.write_bytes(b"torn")
    next((world.state / "columns").glob("*.times")).unlink()
    before = {p.name for p in (world.state / "columns").iterdir()}
    assert "missing or torn" in world.run("doctor", "--deep").out
    found = repaired(world)
    assert any("caches: made again: a, b, c, top" in text for text in told(found, "fixed"))
    assert before < {p.name for p in (world.state / "columns").iterdir()}
    assert world.run("export").code == 0 and published(world) == files
    assert [what for (what,) in world.rows("SELECT what FROM event ORDER BY id DESC LIMIT 1")] == ["caches repaired"]
    assert world.run("events", "verify").code == 0
    update_goes_on(world)


def test_a_current_download_that_is_gone_is_kept_again_from_its_unpacked_bytes(world: World) -> None:
    ((number, sha256),) = world.rows(
        "SELECT s.id, s.sha256 FROM snapshot s JOIN feed f ON f.id = s.feed WHERE f.name = 'b' AND state = 'current'"
    )
    line = world.why("h00700.b.example")
    snapshots.file_of(world.state, number).unlink()
    assert world.run("doctor").code == 1
    found = repaired(world)
    assert any("from the unpacked bytes: b" in text for text in told(found, "fixed"))
    assert snapshots.file_of(world.state, number).exists()
    assert world.rows("SELECT base, depth FROM snapshot WHERE id = ?", number) == [(None, 0)]
    assert world.rows("SELECT sha256 FROM snapshot WHERE id = ?", number) == [(sha256,)]
    assert world.why("h00700.b.example")["listings"] == line["listings"]
    update_goes_on(world)


def test_a_download_that_is_lost_for_good_stays_a_failure_with_the_way_out(world: World) -> None:
    path = snapshots.file_of(world.state, world.rows("SELECT min(id) FROM snapshot WHERE state = 'superseded'")[0][0])
    path.unlink()
    ran = world.run("doctor", "--repair")
    assert ran.code == 1 and "restore the files from a backup" in ran.out


def test_a_damaged_record_that_can_not_be_kept_whole_is_not_kept_in_part(world: World) -> None:
    """As under a quota, which no look at the disk foretells."""
    with world.database.open("r+b") as file:
        file.seek(3 * PAGE)
        file.write(bytes(PAGE))
    most = world.database.stat().st_size // 2
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))  # noqa: E731
    ran = world.call("doctor", "--repair", preexec_fn=limit)
    assert ran.code == 1 and "file too large" in ran.out and "Traceback" not in ran.text, ran.text
    assert not list(world.state.glob("*damaged*"))


def test_leftovers_of_killed_runs_are_removed(world: World) -> None:
    left = [
        *(world.state / name for name in ("columns/9.columns.new", "decided/1.new", "exports/2.new", "record.db.new")),
        *(
            world.state / name
            for name in ("kept/00/1.new", "incoming/.fetch-x", "snapshots/00000/99.new", "columns/77.bytes")
        ),
        world.base / "exports" / ".dns.0123abcd.blocklist-new",
    ]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    strangers = world.state / "notes.new"
    strangers.write_text("mine")
    found = repaired_but_for(world, "notes.new")
    assert not any(path.exists() for path in left) and strangers.exists()
    assert any("files of runs that were killed" in text for text in told(found, "fixed"))


def repaired_but_for(world: World, name: str) -> list[dict[str, Any]]:
    ran = world.run("doctor", "--repair", "--json")
    assert ran.code == 0 and [path for path in world.left_over() if not path.endswith(name)] == []
    return found_by(ran)


def test_a_lock_that_a_dead_process_left_is_taken_over_and_that_of_a_live_one_is_waited_for(world: World) -> None:
    (world.state / "lock").write_text('{"pid": 1, "since": "2026-01-01T00:00:00Z", "command": "update"}')
    found = found_by(world.run("doctor", "--repair", "--json"))
    assert any("took over the lock" in text for text in told(found, "fixed"))
    (world.base / "exports" / "list").unlink()
    before = tree(world)
    with Lock(world.state, "update"):
        process = world.start("doctor", "--repair")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
        assert tree(world) == before
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0 and b"put back" in out


def test_owner_and_mode_of_the_record_stay(world: World) -> None:
    world.database.chmod(0o640)
    smash(world, pages_of(world)["hold", "leaf"])
    repaired(world)
    kept = [world.database, *world.state.glob("record.db.damaged-*Z")]
    assert [path.stat().st_mode & 0o777 for path in kept] == [0o640] * 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_root_does_not_repair_what_another_user_must_write_to(world: World) -> None:
    smash(world, pages_of(world)["hold", "leaf"])
    os.chown(world.state, 65534, -1)
    before = tree(world)
    ran = world.run("doctor", "--repair")
    assert ran.code == 1 and "sudo -u " in ran.out and tree(world) == before
    os.chown(world.state, 0, -1)


# Published files


def test_published_files_that_are_gone_or_edited_come_back_byte_for_byte(world: World) -> None:
    files = published(world)
    folder = world.base / "exports"
    (folder / "list").unlink()
    (folder / "parts-phishing").write_text("edited\n")
    (folder / "dns").unlink()
    found = repaired(world)
    assert published(world) == files
    assert sum("put back as release" in text for text in told(found, "fixed")) == 3
    whats = [what for (what,) in world.rows("SELECT what FROM event ORDER BY id DESC LIMIT 3")]
    assert whats == ["published file put back"] * 3
    assert world.run("events", "verify").code == 0


def test_a_zone_that_was_edited_gets_a_higher_serial(world: World) -> None:
    path = world.base / "exports" / "dns"
    before = path.read_text()
    path.write_text(before.replace("h00700.b.example", "edited.example"))
    found = repaired(world)
    assert any("edited by hand; written again" in str(one["hint"]) for one in found if one["word"] == "fixed")
    after = path.read_text()
    assert serial(after) > serial(before)
    assert after.replace(str(serial(after)), "N") == before.replace(str(serial(before)), "N")


def serial(zone: str) -> int:
    line = next(line for line in zone.splitlines() if " SOA " in line)
    return int(next(word for word in line.split() if word.isdigit() and len(word) == 10))


def test_a_file_whose_bytes_are_not_kept_is_computed_and_loaded(world: World) -> None:
    shutil.rmtree(world.state / "kept")
    before = (world.base / "exports" / "parts-malware").read_bytes()
    seen = world.base / "loaded"
    world.exports["parts"]["reload"] = world.script("reload", f"touch {seen}")
    world.write()
    (world.base / "exports" / "parts-malware").unlink()
    ran = world.run("doctor", "--repair", "--json")
    assert ran.code == 0, ran.text
    assert (world.base / "exports" / "parts-malware").read_bytes() == before and seen.exists()


def test_a_file_that_is_put_back_is_loaded(world: World) -> None:
    seen = world.base / "loaded"
    world.exports["parts"]["reload"] = world.script("reload", f"touch {seen}")
    world.write()
    (world.base / "exports" / "parts-malware").unlink()
    repaired(world)
    assert seen.exists()


def test_the_place_that_an_export_has_left_is_left_alone(world: World) -> None:
    old = world.base / "exports" / "list"
    world.exports["list"]["path"] = "exports/moved"
    world.write()
    old.unlink()
    assert world.run("doctor", "--repair").code == 0
    assert not old.exists() and (world.base / "exports" / "moved").exists()


# What no repair can put right


@pytest.mark.parametrize("how", ["missing", "empty", "text", "first page", "a folder", "another program's", "newer"])
def test_without_a_record_of_ours_it_says_what_a_person_can_do_and_changes_nothing(world: World, how: str) -> None:
    path = world.database
    if how == "newer":
        world.change(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('blocklist', '9999', '2')"
        )
        settle(world)
    elif how == "first page":
        smash(world, [1])
    else:
        path.unlink()
    if how in ("empty", "text"):
        path.write_text("" if how == "empty" else "hello " * 1000)
    elif how == "a folder":
        path.mkdir()
    elif how == "another program's":
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("CREATE TABLE bookmarks (url TEXT)")
    before = tree(world)
    for words in (("doctor",), ("doctor", "--repair")):
        ran = world.run(*words)
        assert ran.code == 1 and "record.db" in ran.out and "Traceback" not in ran.text, ran.text
        assert {
            "missing": "is missing, but one was there and has left kept",
            "empty": "is empty",
            "text": "is not a database",
            "first page": "first page is lost",
            "a folder": "is no file",
            "another program's": "not a record of blocklist",
            "newer": "newer version",
        }[how] in ran.out, ran.out
        if how in ("missing", "empty", "text", "first page"):
            assert "restore it from a backup" in ran.out and "snapshots (6 downloads)" in ran.out
        assert tree(world) == before


def test_a_newer_record_that_is_damaged_is_not_touched(world: World) -> None:
    world.change("INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('blocklist', '9999', '2')")
    settle(world)
    smash(world, pages_of(world)["hold", "leaf"])
    before = tree(world)
    ran = world.run("doctor", "--repair")
    assert ran.code == 1 and "newer version" in ran.out and tree(world) == before


def test_where_there_was_never_anything_there_is_nothing_to_repair(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("a", names(3))
    ran = world.run("doctor", "--repair")
    assert ran.code == 0 and "0 fixed" in ran.out and not world.state.exists()


def test_without_repair_nothing_is_changed(world: World) -> None:
    which = pages_of(world)["listing", "leaf"]
    smash(world, which[3:5])
    (world.base / "exports" / "list").unlink()
    (world.state / "columns" / "9.columns.new").write_bytes(b"half")
    before = tree(world)
    for words in (("doctor",), ("doctor", "--deep"), ("doctor", "--json")):
        assert world.run(*words).code == 1
        assert tree(world) == before


def test_a_backup_put_back_as_the_page_says_goes_on(world: World) -> None:
    backup = world.base / "backup.db"
    with contextlib.closing(sqlite3.connect(world.database)) as db:
        db.execute("VACUUM INTO ?", (str(backup),))
    world.lines("c", names(1520, zone="c.example"))
    assert world.update().code == 0
    smash(world, [1])
    for path in world.state.glob("record.db-*"):
        path.unlink()
    shutil.copy(backup, world.database)
    ran = world.update("--force")
    assert ran.code == 0, ran.text
    assert world.listed("c") == names(1520, zone="c.example")
    world.assert_sound()
    assert world.left_over() == [] and world.run("doctor", "--deep").code == 0


# Killed


def kill_at(pristine: tuple[World, Path], step: int) -> int:
    """Repair the same damage, killed at every `step`th touch of a file, and once more to the end; how many died."""
    world, _ = pristine
    killed = 0
    for number in range(1, 1_000, step):
        restore(pristine)
        files = published(world)
        which = pages_of(world)["listing", "leaf"]
        wanted = [r[:2] + r[3:5] for r in table(world, "listing")]
        smash(world, [*which[5:7], pages_of(world)["rule", "leaf"][0]])
        damaged = digest(world.database)
        (world.base / "exports" / "list").unlink()
        (world.state / "columns" / "9.columns.new").write_bytes(b"half")
        words = [sys.executable, "-c", KILLER, str(number), str(world.base), "--config", str(world.config)]
        process = subprocess.run([*words, "doctor", "--repair"], capture_output=True, check=False)
        copies = [digest(path) for path in world.state.glob("record.db.damaged-*Z")]
        assert digest(world.database) == damaged or damaged in copies, "the damaged one is kept first"
        repaired(world)
        assert published(world) == files and len(table(world, "rule")) == 3
        assert [r[:2] + r[3:5] for r in table(world, "listing")] == wanted
        copies = [digest(path) for path in world.state.glob("record.db.damaged-*Z")]
        assert damaged in copies and len(copies) <= 2
        if process.returncode != -signal.SIGKILL:
            assert process.returncode == 0, process.stderr.decode()
            break
        killed += 1
    return killed


def test_killed_at_some_touches_of_files_a_second_repair_ends_it(pristine: tuple[World, Path], world: World) -> None:
    assert kill_at(pristine, 7) >= 3


@pytest.mark.slow
def test_killed_at_every_touch_of_a_file_a_second_repair_ends_it(pristine: tuple[World, Path], world: World) -> None:
    assert kill_at(pristine, 1) >= 20


def test_killed_at_any_moment_a_second_repair_ends_it(pristine: tuple[World, Path], world: World) -> None:
    chance, killed = random.Random(3), 0
    for _ in range(4):
        restore(pristine)
        which = pages_of(world)["listing", "leaf"]
        smash(world, which[5:7])
        process = world.start("doctor", "--repair", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not list(world.state.glob("record.db.damaged-*")):
            os.sched_yield()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        repaired(world)
    assert killed >= 1
