"""The log of events: what was edited, taken out, moved or cut off shows, and who wrote past it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from installation import World

from blocklist.store import ledger
from blocklist.store.ledger import GENESIS, Head
from blocklist.store.schema import migrate, migrations


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.feed("a", ["evil.example", "other.example"])
    world.feed("top", ["famous.example"], category="reference")
    world.export("list")
    assert world.update().code == 0
    world.run("allow", "add", "other.example", "--reason", "customer", "--ticket", "INC-7")
    world.run("deny", "add", "mine.example", "--reason", "order 17")
    world.run("deny", "remove", "2", "--reason", "order withdrawn")
    world.run("allow", "add", "third.example", "--reason", "a mistake")
    world.lines("a", ["evil.example", "famous.example"])
    world.update("--force")
    world.run("held", "release", "famous.example", "--reason", "checked")
    return world


@pytest.fixture
def taken_back(world: World) -> World:
    assert world.run("release", "rollback", "list", "1", "--reason", "a feed went wrong").code == 0
    return world


def verified(world: World, *words: object) -> tuple[int, list[dict[str, object]]]:
    ran = world.run("events", "verify", "--json", *words)
    return ran.code, [json.loads(line) for line in ran.out.splitlines()][:-1]


def head(world: World) -> str:
    return world.run("events", "head").out.split()[0]


def test_a_true_log_holds_and_doctor_says_so(world: World) -> None:
    code, troubles = verified(world, "--head", head(world))
    assert (code, troubles) == (0, [])
    assert re.search(r"ok .*events .*each chained", world.run("doctor").out)
    whats = [row[0] for row in world.rows("SELECT what FROM event ORDER BY id")]
    assert whats == [
        "feeds configured",
        "lists taken",
        "release published",
        "allow added",
        "deny added",
        "deny removed",
        "allow added",
        "lists taken",
        "release published",
        "hold released",
    ]


def test_anybody_can_follow_the_chain_with_sha256_alone(world: World) -> None:
    """Written anew from docs/audit.md, with nothing of ours."""
    previous = "0" * 64
    for line in world.run("events", "list", "--json").out.splitlines():
        e = json.loads(line)
        told = {key: e[key] for key in ("at", "detail", "run", "what", "who")}
        content = hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
        link = f'{{"content":"{content}","id":{e["id"]},"previous":"{previous}"}}'
        assert (e["previous"], e["digest"]) == (previous, hashlib.sha256(link.encode()).hexdigest())
        previous = e["digest"]


@pytest.mark.parametrize(
    ("harm", "event", "said"),
    [
        ("UPDATE event SET who = 'nobody' WHERE id = 5", 5, "changed after it was written"),
        ("UPDATE event SET at = '2020-01-01T00:00:00Z' WHERE id = 5", 5, "changed after it was written"),
        ("UPDATE event SET detail = replace(detail, 'order 17', 'order 18') WHERE id = 5", 5, "changed after"),
        # The same JSON to us, another one to whoever takes the first of two keys.
        ("""UPDATE event SET detail = '{"name": "x", ' || substr(detail, 2) WHERE id = 5""", 5, "changed after"),
        ("UPDATE event SET detail = 'x' WHERE id = 5", 5, "no JSON"),
        ("UPDATE event SET run = NULL WHERE id = 5", 5, "changed after it was written"),
        ("DELETE FROM event WHERE id = 5", 6, "event 5 is missing"),
        ("DELETE FROM event WHERE id IN (4, 5)", 6, "events 4 to 5 are missing"),
        ("DELETE FROM event WHERE id = 1", 2, "event 1 is missing"),
        ("UPDATE event SET id = CASE id WHEN 4 THEN -5 ELSE -4 END WHERE id IN (4, 5)", -5, "does not follow"),
        ("INSERT INTO event SELECT 99, at, run, what, who, detail, previous, digest FROM event WHERE id = 5", 99, ""),
    ],
)
def test_a_tampered_log_is_caught_at_its_place(world: World, harm: str, event: int, said: str) -> None:
    world.change(harm)
    if "CASE" in harm:
        world.change("UPDATE event SET id = -id WHERE id < 0")
        event = 4
    code, troubles = verified(world)
    assert code == 1
    assert any(t["event"] == event and said in str(t["text"]) for t in troubles), troubles
    assert world.run("doctor").code == 1 and f"event {troubles[0]['event']}" in world.run("doctor").out


def rewritten(world: World) -> None:
    """The whole chain anew, as whoever may write the record can do."""
    with contextlib.closing(sqlite3.connect(world.database)) as db, db:
        ledger.chain_existing(db)


def test_a_log_written_anew_as_a_whole_is_caught_by_a_head_kept_elsewhere(world: World, tmp_path: Path) -> None:
    anchors = tmp_path / "heads.txt"
    anchors.write_text(world.run("events", "head").out)
    world.run("allow", "add", "later.example", "--reason", "later")
    anchors.write_text(anchors.read_text() + world.run("events", "head").out)
    assert verified(world, "--anchors", anchors) == (0, [])
    world.change("UPDATE event SET who = 'nobody' WHERE what = 'hold released'")
    world.change("UPDATE hold_release SET author = 'nobody'")
    rewritten(world)
    assert verified(world)[0] == 0
    code, troubles = verified(world, "--anchors", anchors)
    assert code == 1 and len(troubles) == 2 and "head kept elsewhere" in str(troubles[0]["text"])


def test_a_cut_log_is_caught_by_a_head_kept_elsewhere(world: World) -> None:
    kept = head(world)
    world.change("DELETE FROM event WHERE what = 'hold released'")
    world.change("DELETE FROM hold_release")
    assert verified(world)[0] == 0
    code, troubles = verified(world, "--head", kept)
    assert code == 1 and "cut off after event 9" in str(troubles[0]["text"])
    world.change("DELETE FROM event")
    assert "there is no event" in str(verified(world, "--head", kept)[1][0]["text"])


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("UPDATE rule SET reason = 'order of the minister' WHERE id = 1", "the reason of rule 1 was changed"),
        ("UPDATE rule SET name = 'evil.example' WHERE id = 1", "the name of rule 1"),
        ("UPDATE rule SET author = 'nobody' WHERE id = 1", "the author of rule 1"),
        ("UPDATE rule SET action = 'deny' WHERE id = 1", "the action of rule 1"),
        ("UPDATE rule SET expires = '2099-01-01T00:00:00Z' WHERE id = 1", "the expires of rule 1"),
        ("UPDATE rule SET removed_reason = 'x' WHERE id = 2", "who ended rule 2"),
        ("UPDATE rule SET removed = '2026-01-01T00:00:00Z' WHERE id = 1", "no event ended it"),
        ("UPDATE rule SET removed = NULL, removed_by = NULL WHERE id = 2", "who ended rule 2"),
        ("DELETE FROM rule WHERE id = 1", "rule 1, which it added, is gone"),
        (
            "INSERT INTO rule SELECT 9, 'allow', 'x.example', 1, 1, 'x', NULL, 'y', created, since, NULL, NULL, NULL, "
            "NULL, NULL FROM rule WHERE id = 1",
            "no event added it",
        ),
        ("UPDATE hold_release SET reason = 'x'", "does not say so any more"),
        ("UPDATE release SET digest = body_digest || 'x'", "is not what was published"),
        ("UPDATE release SET note = 'approved by ana at noon: 2 entries'", "no event says by whom"),
        ("UPDATE pin SET reason = 'x'", "does not say so any more"),
        ("UPDATE pin SET author = 'nobody'", "was taken back by nobody, but no event does"),
    ],
)
def test_a_decision_changed_past_the_log_is_caught(taken_back: World, harm: str, said: str) -> None:
    world = taken_back
    assert verified(world) == (0, [])
    world.change(harm)
    code, troubles = verified(world)
    assert code == 1 and any(said in str(t["text"]) for t in troubles), troubles


def test_what_is_held_accepted_and_approved_is_in_the_log(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("a", [f"h{i}.example" for i in range(200)])
    world.export("list")
    world.update()
    world.lines("a", [f"h{i}.example" for i in range(5)])
    assert world.update("--force").code == 3
    assert world.update("--accept", "a").code == 4
    world.run("release", "approve", "list")
    log = [json.loads(line) for line in world.run("events", "list", "--json").out.splitlines()]
    by = {e["what"]: e for e in log}
    assert by["snapshot accepted"]["detail"]["feed"] == "a" and "fewer" in by["snapshot accepted"]["detail"]["gate"]
    data = (world.base / "feeds" / "a.txt").read_bytes()
    assert by["snapshot accepted"]["detail"]["sha256"] == hashlib.sha256(data).hexdigest()
    assert by["lists taken"]["detail"]["snapshots"] == {"a": hashlib.sha256(data).hexdigest()}
    assert "removed" in by["release held"]["detail"]["note"]
    assert by["release approved"]["detail"]["release"] == by["release held"]["detail"]["release"]
    published = (world.base / "exports" / "list").read_bytes()
    assert by["release published"]["detail"]["digest"] == hashlib.sha256(published).hexdigest()
    assert verified(world) == (0, [])


def test_an_update_that_brings_nothing_new_adds_no_event(world: World) -> None:
    before = head(world)
    world.update("--force")
    world.update("--force")
    after = int(head(world).partition(":")[0])
    assert after - int(before.partition(":")[0]) <= 1  # the released hold is published once


def test_list_since_and_words(world: World) -> None:
    assert "deny added" in world.run("events").out
    assert "10 events" in world.run("events", "list", "--since", "1d").out
    assert "lies in the future" in world.run("events", "list", "--since", "2999-01-01").err
    assert "customer" in world.run("events", "list").out
    for words, said in (
        (("events", "list", "--since", "whenever"), "no date and no span"),
        (("events", "verify", "--head", "7"), "no head"),
        (("events", "verify", "--anchors", world.base / "none"), "none"),
    ):
        ran = world.run(*words)
        assert ran.code == 2 and said in ran.err


def test_hostile_text_of_an_event_reaches_no_terminal(world: World) -> None:
    world.run("allow", "add", "fourth.example", "--reason", "\x1b]0;pwned\x07 \u202eabc")
    out = world.run("events", "list").out
    assert "\x1b" not in out and "\u202e" not in out and "pwned" in out
    assert verified(world) == (0, [])


def test_events_of_before_the_chain_are_chained_by_the_migration(world: World) -> None:
    """A record as the third version wrote it."""
    old = sqlite3.connect(":memory:", isolation_level=None)
    for migration in migrations._migrations[:3]:
        migration.fn(__import__("sqlite_utils").Database(old))
    old.execute("INSERT INTO run VALUES (1, '2026-01-01T00:00:00Z', NULL, 'allow add', 'ana', '0.1.0')")
    for text in ('{"reason": "caf\\u00e9", "rule": 1}', "no json", '{"b":1,"a":2}'):
        old.execute(
            "INSERT INTO event (at, run, what, who, detail) VALUES ('2026-01-01T00:00:00Z', 1, 'x', 'ana', ?)", (text,)
        )
    migrations._migrations[3].fn(__import__("sqlite_utils").Database(old))
    assert ledger.verify(old) == []
    assert [row[0] for row in old.execute("SELECT previous FROM event ORDER BY id LIMIT 1")] == [GENESIS]
    assert json.loads(old.execute("SELECT detail FROM event WHERE id = 1").fetchone()[0])["reason"] == "café"
    ledger.append(old, "2026-01-02T00:00:00Z", 1, "y", "ana", {"a": ("b", None)})
    assert ledger.verify(old, [ledger.head(old)]) == []


texts = st.text(max_size=20)
details = st.dictionaries(
    st.from_regex("[a-z_]{1,8}", fullmatch=True),
    st.none() | texts | st.integers(-(2**53), 2**53) | st.booleans() | st.lists(texts, max_size=3),
    max_size=4,
)


@given(st.lists(st.tuples(texts.filter(lambda t: t.isprintable()), details), min_size=1, max_size=6), st.data())
def test_any_events_hold_and_any_change_of_one_shows(
    told: list[tuple[str, dict[str, object]]], data: st.DataObject
) -> None:
    db = sqlite3.connect(":memory:", isolation_level=None)
    migrate(db, Path("record.db"))
    for who, detail in told:
        ledger.append(db, "2026-01-01T00:00:00Z", None, "told", who, detail)
    end = ledger.head(db)
    assert ledger.verify(db, [end]) == [] and Head.parse(f"{end} remark") == end
    victim = data.draw(st.integers(1, len(told)))
    column = data.draw(st.sampled_from(["at", "what", "who", "detail", "previous", "digest"]))
    db.execute(f"UPDATE event SET {column} = {column} || 'x' WHERE id = ?", (victim,))
    assert {t.event for t in ledger.verify(db, [end])} & {victim, victim + 1}


def test_a_backup_that_is_put_back_shows_as_a_cut_log(world: World) -> None:
    shutil.copy(world.database, world.base / "old.db")
    with contextlib.closing(sqlite3.connect(world.database)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    world.run("deny", "add", "late.example", "--reason", "late")
    kept = head(world)
    for left in world.state.glob("record.db*"):
        left.unlink()
    shutil.copy(world.base / "old.db", world.database)
    assert "cut off" in str(verified(world, "--head", kept)[1][0]["text"])
