"""What is read of the state before it is asked for is what would be read then."""

from __future__ import annotations

import hashlib
from contextlib import closing
from pathlib import Path

import pytest
from installation import World

from blocklist.config import load
from blocklist.publish import ahead as ahead_
from blocklist.publish.ahead import Ahead
from blocklist.publish.keeping import Keeping
from blocklist.publish.seen import Seen
from blocklist.store import derived, kept
from blocklist.store.record import Record


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.feed("a", [f"n{i}.example" for i in range(200)])
    world.export("list")
    world.export("dns", "rpz")
    assert world.update().code == 0
    return world


def digests(record: Record) -> set[str]:
    return {row[0] for row in record.connection.execute("SELECT chosen FROM release WHERE state = 'live'")}


def test_what_was_read_ahead_is_given_once_and_then_read_anew(world: World) -> None:
    with closing(Record.open(world.state)) as record, Ahead(load(world.config), record) as ahead:
        ahead.begin()
        paths = sorted((world.state / "decided").glob("*.frames"))
        assert paths
        for path in paths:
            found, now = ahead.decided(path), derived.read(path)
            assert found is not None and now is not None and found.told == now.told
            assert {n: f.equals(now.frames[n]) for n, f in found.frames.items()} == dict.fromkeys(now.frames, True)
            path.unlink()
            assert ahead.decided(path) is None
        for digest in digests(record):
            some = ahead.chosen(digest)
            assert some == kept.Bytes(kept.read(world.state, digest), digest)
            assert ahead.chosen(digest) is None


def test_what_is_damaged_or_too_large_is_not_read_ahead(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Record.open(world.state)) as record:
        (digest,) = digests(record)
        file = kept.file_of(world.state, digest)
        sound = file.read_bytes()
        file.write_bytes(sound[:-1])
        with Ahead(load(world.config), record) as ahead:
            ahead.begin()
            assert ahead.chosen(digest) is None
        file.write_bytes(sound)
        monkeypatch.setattr(ahead_, "_MOST", 10)
        with Ahead(load(world.config), record) as ahead:
            ahead.begin()
            assert ahead.chosen(digest) is None


def test_news_are_published_the_same_with_files_of_before_that_are_damaged(world: World) -> None:
    for path in [*(world.state / "decided").iterdir(), *(world.state / "kept").glob("*/*")]:
        path.write_bytes(path.read_bytes()[:-3])
    world.lines("a", [f"n{i}.example" for i in range(2, 202)])
    ran = world.update()
    assert ran.code == 0 and (ran.export("list")["added"], ran.export("list")["removed"]) == (2, 2)
    assert world.exported("list") == sorted(f"n{i}.example" for i in range(2, 202))
    with closing(Record.open(world.state)) as record:
        for digest in digests(record):
            kept.read(world.state, digest)


@pytest.mark.parametrize("edited", [False, True])
def test_a_file_that_was_written_to_since_is_no_base_of_a_patch(tmp_path: Path, edited: bool) -> None:
    old = b"".join(b"n%d.example\n" % i for i in range(5000))
    new = old.replace(b"n77.", b"x77.")
    place, candidate = tmp_path / "list", tmp_path / "list.new"
    place.write_bytes(old)
    candidate.write_bytes(new)
    before, digest = hashlib.sha256(old).hexdigest(), hashlib.sha256(new).hexdigest()
    kept.keep(tmp_path, before, old)
    seen = Seen.of(place)
    if edited:
        place.write_bytes(old.replace(b"n1.", b"y1."))
    with Keeping(tmp_path) as keeping:
        keeping.keep_file(digest, candidate, before, place, seen)
        keeping.wait(digest)
    assert kept.read(tmp_path, digest) == new
    # By the kept bytes of before it is a patch all the same.
    assert kept.file_of(tmp_path, digest).stat().st_size < len(new) // 20


def test_the_digest_of_a_file_in_place_is_that_of_now(world: World) -> None:
    path = world.base / "exports" / "list"
    with closing(Record.open(world.state)) as record, Ahead(load(world.config), record) as ahead:
        ahead.begin()
        assert ahead.file_digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()
        ahead.begin()
        path.write_bytes(path.read_bytes() + b"x.example\n")
        assert ahead.file_digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()
