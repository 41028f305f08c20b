"""Kept bytes: a chain of patches gives back every byte of every download, and every line of it."""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from installation import World, names

from blocklist.errors import RecordError
from blocklist.hunks import hunks
from blocklist.store import snapshots
from blocklist.store.snapshots import MAX_DEPTH, Stored, line, line_of, read, write


@pytest.mark.parametrize("lines_known", [False, True])
def test_a_chain_of_35_downloads_reads_back_byte_for_byte(tmp_path: Path, lines_known: bool) -> None:
    chance = random.Random(7)
    rows = names(3000)
    kept: list[bytes] = []
    chains: list[list[int]] = []
    before, stored = None, Stored(0, 0)
    for number in range(1, 36):
        rows = [r for r in rows if chance.random() > 0.01] + names(20, 10_000 + 20 * number)
        data = "\n".join(rows).encode() + b"\n"
        changed = hunks(before, data) if lines_known and before else None
        stored = write(tmp_path, number, data, before, stored.depth, changed)
        chains.append([*(chains[-1] if stored.depth else []), number])
        assert stored.stored == snapshots.file_of(tmp_path, number).stat().st_size
        kept.append(data)
        before = data
    assert max(map(len, chains)) == MAX_DEPTH and len(chains[-1]) < 10
    for chain, data in zip(chains, kept, strict=True):
        assert read(tmp_path, chain) == data
    # The chain is what makes a year of history affordable.
    on_disk = sum(p.stat().st_size for p in tmp_path.rglob("*.zst"))
    assert on_disk < sum(map(len, kept)) / 10


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([b"a.example", b"", b"\r", b"x" * 70, b"\xff\x00", b"b.example\r"]), max_size=30))
def test_every_line_is_the_same_read_alone_or_out_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    state = tmp_path_factory.mktemp("state")
    for data in (b"\n".join(lines), b"\n".join(lines) + b"\n"):
        write(state, 1, data, None, 0)
        write(state, 2, data, data, 0)
        for number in range(1, len(lines) + 3):
            expected = line_of(data, number)
            assert line(state, [1], number, *told(state, 1, data)) == expected
            chain = [1, 2] if read(state, [1]) and _is_patch(state) else [1]
            assert line(state, chain, number, *told(state, chain[-1], data)) == expected


def _is_patch(state: Path) -> bool:
    try:
        read(state, [2])
    except RecordError:
        return True
    return False


def test_a_line_far_into_a_large_file_is_found_across_the_pieces_it_is_read_in(tmp_path: Path) -> None:
    rows = [f"{i:06d}" + "x" * (i % 97) for i in range(60_000)]
    data = "\n".join(rows).encode()
    assert len(data) > 3 * 2**20
    write(tmp_path, 1, data, None, 0)
    for number in (1, 2, 19_000, 19_999, 40_000, 59_999, 60_000, 60_001):
        expected = rows[number - 1].encode() if number <= len(rows) else b""
        assert line(tmp_path, [1], number, *told(tmp_path, 1, data)) == expected == line_of(data, number)


def told(state: Path, number: int, data: bytes) -> tuple[str, int, int]:
    """What the record says of a snapshot: digest, length, length on disk."""
    return hashlib.sha256(data).hexdigest(), len(data), snapshots.file_of(state, number).stat().st_size


@pytest.mark.parametrize("harm", ["missing", "truncated", "other bytes", "another snapshot"])
def test_a_lost_file_is_named_with_the_way_out(tmp_path: Path, harm: str) -> None:
    first, second = b"a.example\n" * 500, b"a.example\n" * 500 + b"b.example\n"
    write(tmp_path, 1, first, None, 0)
    assert write(tmp_path, 2, second, first, 0).depth == 1
    known = {1: told(tmp_path, 1, first), 2: told(tmp_path, 2, second)}
    path = snapshots.file_of(tmp_path, 1)
    if harm == "missing":
        path.unlink()
    elif harm == "truncated":
        path.write_bytes(path.read_bytes()[:12])
    elif harm == "another snapshot":
        write(tmp_path, 1, b"c.example\n" * 600, None, 0)
    else:
        path.write_bytes(b"not zstd")
    acts: list[Callable[[], bytes]] = [
        lambda: read(tmp_path, [1, 2]),
        lambda: line(tmp_path, [1, 2], 1, *known[2]),
        lambda: line(tmp_path, [1], 400, *known[1]),
    ]
    for act in acts:
        with pytest.raises(RecordError) as caught:
            act()
        # Which of a chain is another one's, nobody knows.
        place = path.parent if harm == "another snapshot" else path
        assert str(place) in caught.value.message and "backup" in (caught.value.hint or "")


def swap(path: Path, other: bytes) -> None:
    """Put `other`, packed, in the place of a kept copy, in the same length."""
    packed, length = zstandard.compress(other), path.stat().st_size
    room = length - len(packed) - 8
    # A frame that readers skip (RFC 8878 3.1.2) fills it up.
    path.write_bytes(packed + struct.pack("<II", 0x184D2A50, room) + bytes(room))
    assert path.stat().st_size == length


def test_a_large_copy_of_another_one_s_bytes_in_the_same_length_is_not_shown(tmp_path: Path) -> None:
    own = b"".join(b"%x.example\n" % random.Random(i).getrandbits(40) for i in range(300_000))
    write(tmp_path, 1, own, None, 0)
    known = told(tmp_path, 1, own)
    assert 2**22 < known[1] < 2**23
    swap(snapshots.file_of(tmp_path, 1), b"other" + own[5 : -(2**20)])
    for number in (1, 150_000):
        with pytest.raises(RecordError, match="are not those that snapshot 1 was recorded with"):
            line(tmp_path, [1], number, *known)
    # Where an answer has no time left for it, the length alone tells.
    assert line(tmp_path, [1], 1, *known, 2**20).startswith(b"other")


def test_why_quotes_no_line_of_a_large_copy_that_is_another_one_s(tmp_path: Path) -> None:
    world = World(tmp_path)
    listed = [f"{random.Random(i).getrandbits(40):x}.evil.example" for i in range(100_000)]
    world.feed("a", listed)
    world.update("--no-export")
    assert world.why(listed[0])["listings"][0]["text"] == listed[0]
    (path,) = world.state.glob("snapshots/*/*.zst")
    swap(path, "".join(f"{name}\n" for name in ("other.example", *listed[1:60_000])).encode())
    assert world.why(listed[0])["listings"][0]["text"] is None


def test_bytes_that_have_nothing_in_common_are_kept_whole(tmp_path: Path) -> None:
    chance = random.Random(1)
    first, second = (chance.randbytes(5000) for _ in range(2))
    assert write(tmp_path, 1, first, None, 0).depth == 0
    assert write(tmp_path, 2, second, first, 0).depth == 0
    assert read(tmp_path, [2]) == second


def test_an_empty_download_is_kept_too(tmp_path: Path) -> None:
    write(tmp_path, 1, b"", None, 0)
    assert read(tmp_path, [1]) == b"" and line(tmp_path, [1], 1, *told(tmp_path, 1, b"")) == b""


def test_why_reads_the_line_of_the_first_snapshot_through_a_long_chain(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("a", names(400))
    world.update()
    for i in range(1, 34):
        world.lines("a", [f"# edition {i}", *names(400 + i)])
        world.update()
    depths = [row[0] for row in world.rows("SELECT depth FROM snapshot ORDER BY id")]
    assert max(depths) == MAX_DEPTH - 1
    for i in (0, 399, 400, 420, 432):
        name = names(1, i)[0]
        listing = world.why(name)["listings"][0]
        assert listing["text"] == name and listing["line"] == i + (1 if i < 400 else 2)
    world.assert_sound()


LINES = st.lists(st.sampled_from([b"a.example", b"", b"0 0 0", b"\xff\0", b"b.example\r"]), max_size=12)


@settings(max_examples=60, deadline=None)
@given(old=LINES, new=LINES, end=st.booleans())
def test_a_list_of_changed_lines_gives_back_every_byte(
    tmp_path_factory: pytest.TempPathFactory, old: list[bytes], new: list[bytes], end: bool
) -> None:
    state = tmp_path_factory.mktemp("state")
    shared = [b"%d.example" % (i * 7919 % 10_007) for i in range(3000)]
    base, data = b"\n".join(old + shared), b"\n".join([*new, *shared, *new, *[b""] * end])
    write(state, 1, base, None, 0)
    assert write(state, 2, data, base, 0, hunks(base, data)).depth == 1
    assert read(state, [1, 2]) == data


def test_a_list_of_changes_on_another_base_or_cut_short_is_damaged(tmp_path: Path) -> None:
    base = "\n".join(names(3000)).encode()
    data = base + b"\nnew.example"
    write(tmp_path, 1, base, None, 0)
    write(tmp_path, 2, data, base, 0, hunks(base, data))
    write(tmp_path, 3, base[1:], None, 0)
    with pytest.raises(RecordError, match="does not fit"):
        read(tmp_path, [3, 2])
    file = snapshots.file_of(tmp_path, 2)
    for cut in (10, 40, file.stat().st_size - 3):
        whole = file.read_bytes()
        file.write_bytes(whole[:cut])
        with pytest.raises(RecordError, match="can't be read"):
            read(tmp_path, [1, 2])
        file.write_bytes(whole)
    assert read(tmp_path, [1, 2]) == data


def test_a_link_in_the_middle_that_is_another_ones_is_named(tmp_path: Path) -> None:
    rows = names(3000)
    before, chain = b"", []
    for number in range(1, 6):
        rows[number * 100] = f"new{number}.example"
        data = "\n".join(rows).encode()
        write(tmp_path, number, data, before or None, number - 2, hunks(before, data) if before else None)
        before, chain = data, [*chain, number]
    assert read(tmp_path, chain) == before
    other = snapshots.file_of(tmp_path, 3)
    other.write_bytes(snapshots.file_of(tmp_path, 4).read_bytes())
    with pytest.raises(RecordError) as caught:
        read(tmp_path, chain)
    assert str(other) in caught.value.message


@pytest.mark.parametrize("longest", [0, 1, 70, 9000])
def test_a_line_is_found_wherever_it_is(longest: int) -> None:
    chance = random.Random(longest)
    lines = [chance.randbytes(chance.randrange(longest + 1)).replace(b"\n", b"").rstrip(b"\r") for _ in range(2000)]
    data = b"\n".join(lines)
    for number in (1, 2, 3, 64, 65, 1000, 1999, 2000):
        assert line_of(data, number) == lines[number - 1]
        assert line_of(data + b"\n", number) == lines[number - 1]
    assert line_of(data, 2001) == line_of(data + b"\n", 2001) == line_of(data, 2002) == b""


def test_why_reads_each_raw_line_once_however_many_exports_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    for feed in ("a", "b"):
        world.feed(feed, names(5))
    for export in ("one", "two", "three"):
        world.export(export)
    world.update()
    asked: list[tuple[int, int]] = []

    def counted(state: Path, chain: list[int], number: int, *known: Any) -> bytes:
        asked.append((chain[-1], number))
        return line(state, chain, number, *known)

    monkeypatch.setattr(snapshots, "line", counted)
    assert [x["text"] for x in world.why(names(1)[0])["listings"]] == names(1) * 2
    assert len(asked) == len(set(asked)) == 2


def test_a_very_large_download_that_is_another_one_is_told_by_its_length_on_disk(tmp_path: Path) -> None:
    data = b"".join(b"h%07d.example\n" % i for i in range(1_200_000))
    assert len(data) > 2**24
    write(tmp_path, 1, data, None, 0)
    known = told(tmp_path, 1, data)
    assert line(tmp_path, [1], 500_001, *known) == b"h0500000.example"
    assert line(tmp_path, [1], 1_200_000, *known) == b"h1199999.example"
    assert line(tmp_path, [1], 1_200_001, *known) == b""
    write(tmp_path, 1, data.replace(b"h0500000.", b"wrong-one."), None, 0)
    with pytest.raises(RecordError, match="was recorded with"):
        line(tmp_path, [1], 500_001, *known)
