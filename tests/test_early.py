"""What is decided while an update is being recorded is what would be decided after it, or is decided again."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from installation import World

from blocklist import clock
from blocklist.config import Config, load
from blocklist.errors import RecordError
from blocklist.picture import Picture
from blocklist.publish.decided import Decided
from blocklist.publish.early import Early
from blocklist.rules import rules_in_force
from blocklist.store.record import Record
from blocklist.update import update


def names(first: int) -> list[str]:
    return [f"n{i}.example" for i in range(first, first + 200)]


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.feed("a", names(0))
    world.feed("same", ["x.example", "192.0.2.1"])
    # What it names is held.
    world.feed("top", ["n7.example", "n8.example"], category="reference")
    world.export("list")
    world.export("dns", "rpz")
    assert world.update().code == 0
    world.lines("a", names(2))
    return world


@pytest.fixture
def opened(world: World) -> Iterator[tuple[Config, Record, Early]]:
    config = load(world.config)
    with closing(Record.open(world.state)) as record, Early(config, record) as early:
        yield config, record, early


def files(world: World) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (world.state / "decided").glob("*.frames")}


def updated(config: Config, record: Record, early: Early) -> Picture:
    _, picture = update(config, record, on_news=early.ahead.begin, on_settled=early.settled)
    early.recorded()
    return picture


def test_it_is_what_would_be_decided_from_nothing(world: World, opened: tuple[Config, Record, Early]) -> None:
    config, record, early = opened
    before = files(world)
    picture = updated(config, record, early)
    assert early._begun is not None
    early._begun.result()
    # Not a word of what is not yet known to be recorded.
    assert files(world) == before
    rules = rules_in_force(record.connection, clock.now())
    decided = early.decided(picture, rules)
    assert decided is not None and decided.came("default") is not None
    anew = Decided(picture, record, config.policies, rules, keep=False).selected("default", ["domain", "ipv4"])
    assert decided.chosen("default").decisions.sort("name").equals(anew.decisions.sort("name"))
    assert set(decided.withheld.names["name"]) == {"n7.example", "n8.example"}
    decided.finish(())
    assert files(world) != before
    assert early.decided(picture, rules) is None


def ruled(record: Record) -> None:
    record.connection.execute(
        "INSERT INTO rule (action, name, kind, subtree, reason, author, created, since) "
        "VALUES ('allow', 'n9.example', 1, 1, 'test', 'me', '2026-01-01T00:00:00Z', 1)"
    )


def released(record: Record) -> None:
    record.connection.execute(
        "INSERT INTO hold_release (name, reason, author, created, since) VALUES ('n7.example', 'test', 'me', '', 1)"
    )


def dead(record: Record) -> None:
    record.connection.execute(
        "INSERT INTO verdict (name, status, since, checked, dead, run) VALUES ('n9.example', 'nxdomain', '', '', 1, 1)"
    )


@pytest.mark.parametrize("said", [ruled, released, dead], ids=lambda said: said.__name__)
def test_what_is_said_in_between_counts(
    world: World, opened: tuple[Config, Record, Early], said: Callable[[Record], None]
) -> None:
    config, record, early = opened
    before = files(world)
    picture = updated(config, record, early)
    said(record)
    assert early.decided(picture, rules_in_force(record.connection, clock.now())) is None
    assert files(world) == before


def test_an_update_that_is_not_recorded_leaves_nothing_of_it(
    world: World, opened: tuple[Config, Record, Early], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, record, early = opened
    before = files(world)

    def refuse(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patched, pytest.raises(RecordError):
        patched.setattr(Record, "finish_run", refuse)
        updated(config, record, early)
    assert files(world) == before


def test_updates_decide_so_and_a_failure_of_it_costs_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("not now")

    with monkeypatch.context() as patched:
        patched.setattr(Decided, "_decide", refuse)
        assert {e["outcome"] for e in world.update().json["exports"]} == {"published"}
    assert set(world.exported("list")) == {*names(2), "x.example"} - {"n7.example", "n8.example"}
    world.lines("a", names(3))
    with monkeypatch.context() as patched:
        patched.setattr(Decided, "foresee", refuse)
        assert {e["outcome"] for e in world.update().json["exports"]} == {"published"}
    assert set(world.exported("list")) == {*names(3), "x.example"} - {"n7.example", "n8.example"}
    world.assert_sound()


def test_with_a_lost_column_file_it_waits_for_the_record(world: World, opened: tuple[Config, Record, Early]) -> None:
    config, record, early = opened
    (number,) = record.connection.execute(
        "SELECT s.id FROM snapshot s JOIN feed f ON f.id = s.feed WHERE f.name = 'same' AND s.state = 'current'"
    ).fetchone()
    picture = Picture(config, record)
    picture.settled()
    (world.state / "columns" / f"{number}.columns").unlink()
    assert not picture.preload()
    picture = updated(config, record, early)
    decided = early.decided(picture, rules_in_force(record.connection, clock.now()))
    assert decided is not None
    assert set(decided.chosen("default").decisions["name"]) >= {"n200.example", "x.example"}
