"""Kept bytes: what was live can be read again, in little room, until its time is over."""

from __future__ import annotations

import grp
import hashlib
import json
import os
import pwd
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from installation import World, digest, names

from blocklist.errors import RecordError
from blocklist.store import folders, kept


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def text(count: int, start: int = 0) -> bytes:
    return "".join(f"{sha(str(i).encode())[:20]}.example\n" for i in range(start, start + count)).encode()


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=6))
def test_whatever_was_kept_comes_back(tmp_path_factory: pytest.TempPathFactory, versions: list[bytes]) -> None:
    state = tmp_path_factory.mktemp("state")
    base = None
    for data in versions:
        kept.keep(state, sha(data), data, base)
        base = sha(data)
    for data in versions:
        assert kept.read(state, sha(data)) == data


def test_files_come_back_as_patches_and_very_large_ones_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = [text(5000, i) for i in range(3)]
    paths = [tmp_path / f"{i}.txt" for i in range(3)]
    for path, data in zip(paths, lists, strict=True):
        path.write_bytes(data)
    first, second, third = map(sha, lists)
    kept.keep_file(tmp_path, first, paths[0])
    # What lies where the base should be is believed by its digest alone.
    kept.keep_file(tmp_path, second, paths[1], first, lambda: kept.Bytes.of(paths[2].read_bytes()))
    monkeypatch.setattr(kept, "MOST_PATCHED", 1000)
    kept.keep_file(tmp_path, third, paths[2], second, lambda: kept.Bytes.of(paths[1].read_bytes()))
    assert [kept.read(tmp_path, digest) for digest in (first, second, third)] == lists
    sizes = [kept.file_of(tmp_path, digest).stat().st_size for digest in (first, second, third)]
    assert sizes[1] * 20 < sizes[0] < sizes[2] * 2


def test_a_small_change_takes_little_room_and_long_chains_begin_anew(tmp_path: Path) -> None:
    versions = [text(20_000, i * 20) for i in range(kept.MAX_DEPTH + 3)]
    base = None
    for data in versions:
        kept.keep(tmp_path, sha(data), data, base)
        base = sha(data)
    sizes = [kept.file_of(tmp_path, sha(data)).stat().st_size for data in versions]
    assert sum(size * 20 < sizes[0] for size in sizes) == len(sizes) - 2, "a new whole one after MAX_DEPTH patches"
    assert [kept.read(tmp_path, sha(data)) == data for data in versions] == [True] * len(versions)


def test_the_base_of_what_stays_stays_and_the_rest_goes(tmp_path: Path) -> None:
    first, second, other = text(5000), text(5000, 10), text(5000, 9000)
    kept.keep(tmp_path, sha(first), first)
    kept.keep(tmp_path, sha(second), second, sha(first))
    kept.keep(tmp_path, sha(other), other)
    (kept.file_of(tmp_path, sha(other)).with_suffix(".new")).write_bytes(b"half")
    assert kept.forget_others(tmp_path, {sha(second)}) > 0
    assert kept.read(tmp_path, sha(second)) == second and kept.is_kept(tmp_path, sha(first))
    assert not kept.is_kept(tmp_path, sha(other))
    assert [p for p in (tmp_path / "kept").rglob("*") if p.suffix == ".new"] == []


@pytest.mark.parametrize("harm", ["gone", "cut", "other", "of another base"])
def test_damaged_bytes_are_refused_with_the_file_named(tmp_path: Path, harm: str) -> None:
    first, second = text(5000), text(5000, 10)
    kept.keep(tmp_path, sha(first), first)
    kept.keep(tmp_path, sha(second), second, sha(first))
    path, base = kept.file_of(tmp_path, sha(second)), kept.file_of(tmp_path, sha(first))
    if harm == "gone":
        path.unlink()
    elif harm == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    elif harm == "other":
        path.write_bytes(base.read_bytes())
    else:
        kept.keep(tmp_path, sha(b"x"), b"x")
        base.write_bytes(kept.file_of(tmp_path, sha(b"x")).read_bytes())
    with pytest.raises(RecordError, match=sha(second)):
        kept.read(tmp_path, sha(second))


def test_every_live_release_is_kept_until_its_time_is_over(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("a", names(150))
    path = world.export("dns", "rpz")
    digests = []
    for count in (150, 160, 170):
        world.lines("a", names(count))
        world.update()
        digests.append(digest(path))
        assert kept.read(world.state, digests[-1]) == path.read_bytes()
    assert all(kept.is_kept(world.state, d) for d in digests) and world.left_over() == []
    assert world.rows("SELECT count(*) FROM release") == [(3,)]


def test_bytes_go_when_the_time_of_keep_releases_is_over(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.set("gates", max_change=5.0)
    path = world.export("list")
    world.feed("a", text(150), max_growth=50)
    world.update()
    first = digest(path)
    for start in (1000, 2000):
        world.lines("a", text(150, start))
        world.update()
        assert kept.is_kept(world.state, first) and kept.is_kept(world.state, digest(path))
    world.change("UPDATE release SET published = '2020-01-01T00:00:00Z' WHERE digest = ?", first)
    world.set("keep", releases="30d")
    world.lines("a", text(150, 3000))
    world.update()
    assert not kept.is_kept(world.state, first)
    assert sum(1 for _ in (world.state / "kept").rglob("*.zst")) == 6 and world.left_over() == []


def test_the_owner_and_the_group_of_an_export_are_given_to_its_file(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    world = World(tmp_path)
    world.feed("a", names(10))
    path = world.export("list", owner="nobody", group="nogroup", mode="0640")
    assert world.update().code == 0
    status = path.stat()
    assert (status.st_uid, status.st_gid) == (pwd.getpwnam("nobody").pw_uid, grp.getgrnam("nogroup").gr_gid)
    assert status.st_mode & 0o777 == 0o640
    world.export("list", owner="no-such-user")
    path.write_text("changed\n")
    ran = world.update()
    assert ran.code == 4 and "no user 'no-such-user'" in ran.export("list")["error"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_does_once_leaves_no_folder_that_the_user_of_the_timer_can_not_write_to(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("a", names(3))
    world.export("list")
    assert world.update().code == 0
    user = pwd.getpwnam("nobody").pw_uid
    for path in (world.state, *world.state.rglob("*")):
        os.chown(path, user, -1)
    assert world.run("deny", "add", "one.example", "--reason", "order", "--now").code == 0
    assert world.run("case", "open", names(3)[0], "--ticket", "INC-7").code == 0
    inside = [path for path in world.state.rglob("*") if path.is_dir()]
    assert len(inside) > 8 and {path.stat().st_uid for path in inside} == {user}
    assert "folders" not in {f["check"] for f in findings(world) if f["word"] != "ok"}
    strange = inside[-1]
    os.chown(strange, 0, -1)
    (told,) = (f for f in findings(world) if f["word"] == "fail")
    assert told["check"] == "folders" and told["place"] == str(strange) and "chown -R" in told["hint"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_marks_a_record_belongs_to_its_user_too(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("a", names(3))
    assert world.update().code == 0
    # As an earlier version left it, which published nothing.
    (world.state / "kept").rmdir()
    user = pwd.getpwnam("nobody").pw_uid
    for path in (world.state, *world.state.rglob("*")):
        os.chown(path, user, -1)
    assert world.run("deny", "add", "one.example", "--reason", "order").code == 0
    assert (world.state / "kept").stat().st_uid == user


def findings(world: World) -> list[dict[str, str]]:
    return [json.loads(line) for line in world.run("doctor", "--json").out.splitlines()[:-1]]


def test_threads_may_make_the_same_folder_at_once(tmp_path: Path) -> None:
    begin = threading.Barrier(8)

    def make(number: int) -> None:
        begin.wait()
        folders.make(tmp_path / str(number) / "kept" / "ab")

    with ThreadPoolExecutor(8) as pool:
        for number in range(300):
            for made in [pool.submit(make, number) for _ in range(8)]:
                made.result()
