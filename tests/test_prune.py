"""Retention: what `prune` forgets, and that no answer within what is kept changes by it."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from installation import PROGRAM, World, names

from blocklist import clock

START = datetime(2026, 1, 5, 6, tzinfo=UTC)
WEEKS = 24
# Weeks from which on everything is known, by history = "84d" at the end.
WHOLE = WEEKS - 1 - 12


class Lived:
    """A world that was updated each Monday; `published` what it then published."""

    def __init__(self, world: World, published: list[bytes], patch: pytest.MonkeyPatch) -> None:
        self.world, self.published, self.patch = world, published, patch

    def at(self, week: float) -> None:
        self.patch.setattr(clock, "now", lambda: START + timedelta(weeks=week))

    def answers(self, weeks: range) -> Iterator[Any]:
        for week in weeks:
            then = clock.text(START + timedelta(weeks=week, hours=1))
            for what in ("evil.example", "x.evil.example", "h00040.crowd.test", "still.example", "wobbly.example"):
                ran = self.world.run("why", what, "--at", then, "--json")
                assert ran.code == 0, ran.text
                yield ran.json
            ran = self.world.run("export", "dns", "--at", then, "-o", self.world.base / "then", "--json")
            assert ran.code == 0, ran.text
            yield (self.world.base / "then").read_bytes() == self.published[week]

    def files(self) -> dict[str, int]:
        return {str(p.relative_to(self.world.state)): p.stat().st_size for p in self.world.state.rglob("*.zst")}


@pytest.fixture(scope="module")
def weeks(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, list[bytes], Path]:
    """The world, what it published, and a copy of its folder."""
    folder = tmp_path_factory.mktemp("weeks")
    world = World(folder / "world")
    world.base.mkdir()
    world.set("gates", max_change=1.0)
    world.set("keep", snapshots="28d", history="84d", releases="28d")
    world.feed("moving", [])
    world.feed("still", ["still.example", "192.0.2.1"])
    world.feed("wobbly", [])
    path = world.export("dns", "rpz")
    world.export("fw", "cidr")
    published = []
    with pytest.MonkeyPatch.context() as patch:
        lived = Lived(world, published, patch)
        for week in range(WEEKS):
            lived.at(week)
            evil = ["evil.example"] if week < 5 or week > 15 else []
            world.lines("moving", [*names(100, 3 * week, "crowd.test"), *evil])
            # Comments that change, and nothing else: downloads that no listing began with.
            world.lines("wobbly", [f"# made in week {week}", "wobbly.example"])
            assert world.update("--no-verify").code == 0
            published.append(path.read_bytes())
    shutil.copytree(world.base, folder / "saved")
    return world, published, folder / "saved"


@pytest.fixture
def lived(weeks: tuple[World, list[bytes], Path], monkeypatch: pytest.MonkeyPatch) -> Lived:
    """In the same place, whose path is in the record."""
    world, published, saved = weeks
    shutil.rmtree(world.base)
    shutil.copytree(saved, world.base)
    lived = Lived(copy.deepcopy(world), published, monkeypatch)
    lived.at(WEEKS - 0.5)
    return lived


def test_what_is_kept_answers_as_before_and_what_is_not_says_so(lived: Lived) -> None:
    world = lived.world
    assert world.run("allow", "add", "good.example", "--reason", "ours").code == 0
    before = list(lived.answers(range(WHOLE, WEEKS)))
    now = [world.why(what) for what in ("evil.example", "still.example", "192.0.2.1")]
    rows = world.rows("SELECT id, sha256, url, fetched, bytes FROM snapshot")
    listed, files = world.listed(), lived.files()

    world.set("keep", releases="14d")
    planned = world.run("prune", "--dry-run", "--json").json
    assert lived.files() == files and world.rows("SELECT 1 FROM counter WHERE name = 'forgotten'") == []
    ran = world.run("prune", "--json")
    assert ran.code == 0, ran.text
    done = ran.json
    assert {**planned, "dry_run": False} == done
    assert done["listings"] > 20 and done["downloads"] > 5 and done["release_bytes"] > 0

    # The present and the past that is kept are as they were.
    assert [world.why(what) for what in ("evil.example", "still.example", "192.0.2.1")] == [
        {**x, "at": world.why("evil.example")["at"]} for x in now
    ]
    assert list(lived.answers(range(WHOLE, WEEKS))) == before and False not in before
    assert world.listed() == listed
    # Of downloads that went, what was told of them is left; of each month and feed one is there.
    assert world.rows("SELECT id, sha256, url, fetched, bytes FROM snapshot") == rows
    kept = [(f, m) for f, m in world.rows("SELECT DISTINCT feed, substr(fetched, 1, 7) FROM snapshot WHERE stored > 0")]
    assert sorted(kept) == sorted(world.rows("SELECT DISTINCT feed, substr(fetched, 1, 7) FROM snapshot"))
    gone = set(files) - set(lived.files())
    pruned = {f"snapshots/00000/{number}.zst" for (number,) in world.rows("SELECT id FROM snapshot WHERE stored = 0")}
    assert pruned == {name for name in gone if name.startswith("snapshots/")} and len(pruned) == done["downloads"]
    assert sum(files[name] for name in pruned) == done["download_bytes"]

    # Before that, nobody knows any more, and it is said what is left.
    then = clock.text(START + timedelta(weeks=3))
    for words in (("why", "evil.example"), ("export", "--format", "domains", "-o", "-"), ("held",)):
        ran = world.run(*words, "--at", then)
        assert ran.code == 1 and "is pruned: the record is whole since" in ran.err, ran.text
        assert "digests, times and decisions are left" in ran.err
    for ends in ((then, "now"), ("1", "40")):
        assert "is pruned" in world.run("diff", *ends).err
    ran = world.run("export", "dns", "--at", then, "-o", world.base / "none")
    assert ran.code == 4 and "its listings are pruned" in ran.err, ran.text
    assert world.run("history", "evil.example").code == 0

    # The record is sound, goes on, and has told who pruned it.
    world.assert_sound()
    assert world.run("events", "verify").code == 0
    told = [e for e in map(json.loads, world.run("events", "list", "--json").out.splitlines()) if "what" in e]
    assert [e["detail"]["listings"] for e in told if e["what"] == "record pruned"] == [done["listings"]]
    assert "fail" not in [f["word"] for f in _findings(world) if f["check"] in ("downloads", "database", "events")]
    assert "nothing is older" in world.run("prune").out
    lived.at(WEEKS)
    world.lines("moving", names(100, 3 * WEEKS, "crowd.test"))
    assert world.update("--no-verify").code == 0
    assert not world.why("evil.example")["blocked"]


def test_what_a_crash_leaves_behind_goes_with_the_next_run(lived: Lived) -> None:
    assert lived.world.run("prune").code == 0
    ((number,), *_) = lived.world.rows("SELECT id FROM snapshot WHERE stored = 0")
    left = lived.world.state / "snapshots" / "00000" / f"{number}.zst"
    left.write_bytes(b"as it was")
    assert lived.world.run("prune").code == 0
    assert not left.exists()


def test_a_young_record_has_nothing_to_forget(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("alpha", names(3))
    assert world.update("--no-verify").code == 0
    ran = world.run("prune")
    assert ran.code == 0 and ran.out == "nothing is older than [keep] says\n"
    assert world.rows("SELECT command FROM run") == [("update",)]


def _findings(world: World) -> list[dict[str, Any]]:
    lines = map(json.loads, world.run("doctor", "--deep", "--json").out.splitlines())
    return [x for x in lines if "check" in x]


def test_a_clock_that_jumps_years_ahead_forgets_nothing(lived: Lived) -> None:
    """A battery dies, and at boot it is 2030: what is forgotten then never comes back."""
    world = lived.world
    kept = lived.files()
    lived.at(WEEKS + 4 * 52)
    for _ in range(2):  # a second run of that day confirms nothing
        world.lines("moving", [*names(3, 900, "crowd.test"), "late.example"])
        ran = world.update("--no-verify")
        assert "clock is far ahead of" in ran.err, ran.text
        lived.at(WEEKS + 4 * 52 + 0.1)
    told = world.run("status", "--json").json
    assert told["clock_unconfirmed_since"] == clock.text(START + timedelta(weeks=WEEKS - 1))
    assert "clock is far ahead of" in world.run("status").out
    assert [f["word"] for f in _findings(world) if f["check"] == "clock"] == ["warn"]
    # Of that day's view it is the last day before the jump still: what was kept then is kept.
    ran = world.run("prune", "--json")
    assert ran.code == 0 and "clock is far ahead of" in ran.err
    assert ran.json["as_of"] == clock.text(START + timedelta(weeks=WEEKS - 1))
    assert all(name.startswith("snapshots/") for name in kept.keys() - lived.files().keys()), "no release's bytes went"
    # The clock is set right, and all that [keep] asks for still answers.
    lived.at(WEEKS - 0.5)
    assert [f["word"] for f in _findings(world) if f["check"] == "clock"] == ["fail"]
    assert False not in list(lived.answers(range(WHOLE, WEEKS)))
    world.update("--no-verify")
    (told,) = [f for f in _findings(world) if f["check"] == "clock"]
    assert told["word"] == "ok" and "set right" in told["text"]
    assert "far ahead" not in world.run("prune").err


def test_a_day_of_runs_or_a_person_confirms_the_clock(lived: Lived) -> None:
    """A tool that stood still for half a year is not stuck."""
    world = lived.world
    lived.at(WEEKS + 26)
    planned = world.run("prune", "--dry-run", "--json").json
    trusted = world.run("prune", "--dry-run", "--trust-clock", "--json").json
    assert trusted["as_of"] is None and trusted["listings"] > planned["listings"]
    world.update("--no-verify")
    lived.at(WEEKS + 26 + 1 / 7)
    ran = world.run("prune", "--json")
    assert ran.json["as_of"] is None and "far ahead" not in ran.err
    assert ran.json["listings"] >= trusted["listings"]
    assert world.run("status", "--json").json["clock_unconfirmed_since"] is None


@pytest.mark.skipif(
    subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0,
    reason="a small disk takes the right to mount one",
)
def test_on_a_disk_without_a_free_byte_it_makes_room_for_itself(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.set("gates", max_change=1.0)
    world.set("keep", snapshots="0d", history="0d", releases="0d")
    world.feed("a", names(2000))
    world.export("list")
    world.update()
    world.lines("a", names(2000, 1000))
    world.update()
    assert world.rows("SELECT count(*) FROM listing_closed") == [(1000,)]
    # What ended within this second is not older than it.
    time.sleep(1.1)
    # The state alone on a disk of four megabytes, and all that is left of it written full.
    script = (
        'mount -t tmpfs -o size=4m,mode=755 tmpfs "$2" && cp -r "$1"/. "$2" && '
        '{ head -c 4M /dev/zero > "$2/fill"; shift 2; "$@" update; echo "update $?"; "$@" prune; echo "prune $?"; '
        '"$@" prune; rm -f "$0/fill"; "$@" update --force; echo "update $?"; "$@" doctor --deep; }'
    )
    disk = tmp_path / "disk"
    disk.mkdir()
    world.set("verify", resolvers=[])
    world.config.write_text(f'state = "{disk}"\n' + world.config.read_text())
    command = [*PROGRAM, "--config", str(world.config)]
    ran = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, str(disk), str(world.state), str(disk), *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "update 1" in ran.stdout and "prune 0" in ran.stdout, ran
    assert "the disk is full: caches went" in ran.stderr and "went: 1,000 listings" in ran.stdout, ran
    assert ran.stdout.count("update 0") == 1 and " 0 failed" in ran.stdout, ran
