"""Exports that fail before they are published: whoever looks between the runs must see it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from installation import World, digest, names, obeying_modes


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.feed("a", names(150))
    world.checker("mine", "exit 0")
    world.export("list", "mine", check=True)
    world.export("other")
    assert world.update().code == 0
    return world


def export_of(world: World, name: str = "list") -> dict[str, object]:
    found = world.run("status", "--json").json["exports"]
    return next(e for e in found if e["name"] == name)


def events(world: World) -> list[tuple[str, str]]:
    rows = world.rows("SELECT what, detail FROM event WHERE what LIKE 'export %' ORDER BY id")
    return [(what, json.loads(detail)["export"]) for what, detail in rows]


def test_a_list_that_its_checker_refuses_is_told_until_one_is_published(world: World) -> None:
    path = world.base / "exports" / "list"
    before = digest(path)
    assert world.run("status").code == 0 and export_of(world)["failing"] is None
    world.checker("mine", "echo 'line 3: bad name' >&2; exit 1")
    world.lines("a", names(160))
    assert world.update().code == 4
    first = export_of(world)["failing"]
    assert isinstance(first, dict) and "line 3: bad name" in first["error"]
    for _ in range(2):
        assert world.update().code == 4, "tried again at every run"
    ran = world.run("status")
    assert ran.code == 4 and "failed" in ran.out and "line 3: bad name" in ran.out
    again = export_of(world)["failing"]
    assert isinstance(again, dict) and again["since"] == first["since"] and again["last"] >= first["last"]
    assert export_of(world, "other")["state"] == "live"
    assert digest(path) == before, "the last good list stays"

    said = world.run("why", "new.example")
    assert "list fails since" in said.out and "line 3: bad name" in said.out
    ran = world.run("doctor")
    assert ran.code == 1 and "fails since" in ran.out and "'blocklist export list' tries again" in ran.out
    page = world.base / "report.html"
    assert world.run("report", "-o", str(page)).code == 0 and "line 3: bad name" in page.read_text()
    assert "Exports that fail" in world.run("report", "--format", "md", "-o", "-").out

    world.checker("mine", "exit 0")
    assert world.update().code == 0
    assert world.run("status").code == 0 and export_of(world) == {**export_of(world), "state": "live", "failing": None}
    assert "fails since" not in world.run("why", "new.example").out
    assert events(world) == [("export failed", "list"), ("export works again", "list")], "once each, not at every run"


def test_a_folder_that_can_not_be_written_is_told_after_the_run(world: World) -> None:
    path = world.base / "exports"
    world.lines("a", names(160))
    path.chmod(0o555)
    try:
        assert world.call("update", "--json", under=obeying_modes()).code == 4
        assert world.run("status").code == 4
    finally:
        path.chmod(0o755)
    assert "can't be written" in str(export_of(world)["note"]) and export_of(world, "other")["state"] == "failed"
    assert world.run("export", "other").code == 0
    assert export_of(world, "other")["state"] == "live" and export_of(world)["state"] == "failed"
    assert world.run("export").code == 0 and world.run("status").code == 0


def test_a_dry_run_and_an_export_that_is_configured_no_more_leave_no_failure(world: World) -> None:
    world.checker("mine", "exit 1")
    world.lines("a", names(160))
    world.update("--no-export")
    assert world.run("export", "--dry-run").code == 4 and export_of(world)["failing"] is None
    assert world.run("export").code == 4 and world.run("status").code == 4
    del world.exports["list"]
    world.write()
    assert world.run("status").code == 0 and "fails since" not in world.run("why", "new.example").out
    assert world.run("export").code == 0
    assert world.rows("SELECT * FROM export_failure") == []


def test_a_reload_that_fails_says_why_between_the_runs(world: World) -> None:
    world.export("other", reload=world.script("reload", "echo 'no such zone' >&2; exit 3"))
    world.lines("a", names(160))
    assert world.update().code == 4
    told = export_of(world, "other")
    assert told["state"] == "not loaded" and "no such zone" in str(told["note"])
    for said in (world.run("why", "new.example").out, world.run("doctor").out):
        # What the command wrote has lines of its own; here it is one.
        assert re.search(r"fails since .*: export other: reload: .*; no such zone$", said, re.MULTILINE), said
    assert "may be older" not in world.run("why", "new.example").out, "it is only not loaded"


def test_a_mistake_of_ours_in_one_format_costs_no_other_export_its_list(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from blocklist.publish import rpz

    def broken(*_: object) -> None:
        raise ValueError("zone \x1b[31m of nobody")

    world.export("zone", "rpz")
    assert world.update().code == 0
    monkeypatch.setattr(rpz, "parts", broken)
    world.lines("a", names(160))
    ran = world.run("update", "--json")
    assert ran.code == 4 and ran.export("other")["outcome"] == "published" and len(world.exported("other")) == 160
    assert "unexpected ValueError" in ran.export("zone")["error"] and "this is a bug" in ran.export("zone")["hint"]
    assert world.run("status").code == 4
    ran = world.run("--debug", "export", "zone")
    assert ran.code == 4 and "Traceback" in ran.err and "\x1b" not in ran.text
    assert len([line for line in world.exported("zone") if line.endswith("CNAME .")]) == 150, "the last good one stays"


def test_a_run_that_changes_nothing_writes_nothing(world: World) -> None:
    world.update()
    before = world.rows("SELECT max(id) FROM event"), world.rows("SELECT count(*) FROM export_failure")
    assert world.run("export").code == 0
    assert (world.rows("SELECT max(id) FROM event"), world.rows("SELECT count(*) FROM export_failure")) == before
