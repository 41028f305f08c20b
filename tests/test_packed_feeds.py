"""Packed feeds through whole commands: what `update` lists, and which line of which member `why` shows."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from feedserver import FeedServer
from installation import World
from test_fetch_packed import tar, zipped

HOSTS = b"# hosts of malware\n\n127.0.0.1  a.evil.example   # C2\n0.0.0.0\tB.Evil.example\n"
LATER = b"# hosts of malware\n127.0.0.1  c.evil.example\n"
README = b"0.0.0.0 readme.example\n"


def tar_gz(members: dict[str, bytes]) -> bytes:
    return gzip.compress(tar(members))


@pytest.mark.parametrize("pack", [zipped, tar_gz])
@pytest.mark.parametrize("way", ["file", "web"])
def test_update_reads_the_named_member_and_why_shows_its_line(
    pack: Callable[[dict[str, bytes]], bytes], way: str, tmp_path: Path
) -> None:
    world = World(tmp_path)
    path = world.lines("packed", pack({"README": README, "lists/hosts": HOSTS}))
    with closing(FeedServer()) as server:
        server.routes["/packed"] = lambda talk: talk.reply(200, path.read_bytes())
        keys = {"url": server.url("/packed"), "allow_private": True} if way == "web" else {}
        world.feed("packed", path.read_bytes(), format="hosts", member="lists/hosts", **keys)
        world.export("list", allow_empty=True, min_entries=0)
        assert world.update().feed("packed")["outcome"] == "updated"
        assert world.listed("packed") == ["a.evil.example", "b.evil.example"]
        [told] = world.why("a.evil.example")["listings"]
        assert (told["line"], told["text"]) == (3, "127.0.0.1  a.evil.example   # C2")
        # The evidence is the member's bytes, not the archive's.
        assert told["snapshot"] == f"sha256:{hashlib.sha256(HOSTS).hexdigest()}"
        assert "  3  127.0.0.1  a.evil.example   # C2\n" in world.run("why", "a.evil.example").out
        [told] = world.why("b.evil.example")["listings"]
        assert (told["line"], told["text"]) == (4, "0.0.0.0\tB.Evil.example")
        # Packed anew with another time and another neighbour, the list is the same.
        world.lines("packed", pack({"README": README * 2, "lists/hosts": HOSTS, "new": b""}))
        assert world.update("--force").feed("packed")["outcome"] == "unchanged"
        world.lines("packed", pack({"lists/hosts": LATER}))
        assert world.update("--force").feed("packed")["outcome"] == "updated"
    assert world.listed("packed") == ["c.evil.example"] == world.exported("list")
    [told] = world.why("c.evil.example")["listings"]
    assert (told["line"], told["text"]) == (2, "127.0.0.1  c.evil.example")
    assert not world.why("readme.example")["listings"]
    world.assert_sound()


@pytest.mark.parametrize("pack", [zipped, tar_gz])
def test_a_member_that_is_gone_keeps_what_we_have(pack: Callable[[dict[str, bytes]], bytes], tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("packed", pack({"lists/hosts": HOSTS}), format="hosts", member="lists/hosts")
    world.export("list", min_entries=0)
    assert world.update().code == 0
    world.lines("packed", pack({"lists/renamed": HOSTS}))
    ran = world.update()
    assert ran.code == 3 and "there is no file 'lists/hosts'" in ran.feed("packed")["error"]
    assert "it holds 'lists/renamed'" in ran.feed("packed")["error"]
    assert world.exported("list") == ["a.evil.example", "b.evil.example"]
