"""One thing's timeline, and what changed between two dates."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from installation import World, names
from test_past import backdate


def happened(world: World, what: str, *words: str) -> list[tuple[str, str, str]]:
    ran = world.run("history", what, "--json", *words)
    assert ran.code == 0, ran.err
    rows: list[dict[str, Any]] = [json.loads(line) for line in ran.out.splitlines()]
    assert rows[-1]["happenings"] == len(rows) - 1
    times = [row["at"] for row in rows[:-1]]
    assert times == sorted(times)
    return [(row["what"], row["how"], row["by"]) for row in rows[:-1]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Six days in the life of evil.example and of what stands beside it."""
    world = World(tmp_path_factory.mktemp("history"))
    world.export("flat", "domains")
    world.export("dns", "rpz")
    crowd = names(200, zone="crowd.example")
    world.feed("alpha", crowd)
    world.feed("beta", ["192.0.2.0/24"], category="phishing")
    world.feed("top", ["known.example"], category="reference")

    def day(**feeds: list[str]) -> None:
        for name, lines in feeds.items():
            world.lines(name, lines)
        assert world.update("--no-verify", "--force").code == 0
        backdate(world, 1)

    day()
    day(alpha=["evil.example", *crowd])
    day(beta=["192.0.2.0/24", "evil.example", "worse.example"])
    world.run("allow", "add", "evil.example", "--reason", "=HYPERLINK(1)\x1b[2J", "--ticket", "OPS-1")
    day()
    world.run("allow", "remove", "1", "--reason", "over")
    world.lines("top", ["known.example", "evil.example"])
    day()
    world.lines("top", ["known.example"])
    world.run("held", "release", "evil.example", "--reason", "seen")
    day(alpha=crowd, beta=["192.0.2.0/24"])
    return world


def test_a_name_has_one_timeline(world: World) -> None:
    told = happened(world, "evil.example")
    assert [t for t in told if t[2] != "top"] == [
        ("listing", "opened", "alpha"),
        ("release", "blocked", "dns"),
        ("release", "blocked", "flat"),
        ("listing", "opened", "beta"),
        ("rule", "added", "root"),
        ("release", "free", "dns"),
        ("release", "free", "flat"),
        ("rule", "removed", "root"),
        ("hold", "opened", "reference"),
        ("hold", "released", "root"),
        ("listing", "closed", "alpha"),
        ("listing", "closed", "beta"),
        ("hold", "closed", "reference"),
    ]
    below = happened(world, "a.evil.example")
    assert ("release", "blocked", "dns") in below and ("listing", "opened", "alpha") in below
    # A file of bare names holds the name alone.
    assert ("release", "blocked", "flat") not in below


def test_an_address_is_told_of_the_network_around_it(world: World) -> None:
    assert happened(world, "192.0.2.7") == [("listing", "opened", "beta")]
    assert happened(world, "192.0.2.7", "--since", "2d") == []


def test_the_screen_is_safe_and_says_when_nothing_is_known(world: World) -> None:
    ran = world.run("history", "evil.example")
    assert "\x1b" not in ran.out and "allow (rule 1): =HYPERLINK(1)\\x1b[2J, ticket OPS-1" in ran.out
    assert world.run("history", "never.example").out == "the record has never heard of never.example\n"
    assert world.run("history", "no name").code == 2


def test_a_spreadsheet_computes_nothing(world: World) -> None:
    rows = list(csv.reader(io.StringIO(world.run("history", "evil.example", "--csv").out)))
    assert rows[0] == ["at", "what", "how", "name", "by", "detail", "run"]
    assert not [c for row in rows for c in row if c.startswith(("=", "+", "-", "@"))]


def changed(world: World, *words: str) -> tuple[dict[tuple[str, str], tuple[int, int, int]], dict[str, Any]]:
    ran = world.run("diff", "--json", *words)
    assert ran.code == 0, ran.err
    rows = [json.loads(line) for line in ran.out.splitlines()]
    counts = {(r["feed"], r["category"]): (r["added"], r["removed"], r["changed"]) for r in rows[:-1] if "added" in r}
    return counts, rows[-1]


def test_a_difference_of_dates_by_feed_and_category(world: World) -> None:
    counts, told = changed(world, "132h", "84h")
    assert counts == {("alpha", "malware"): (1, 0, 0), ("beta", "phishing"): (2, 0, 0)}
    assert (told["added"], told["removed"], told["rules_added"]) == (3, 0, 0)
    counts, told = changed(world, "60h", "12h")
    assert counts == {
        ("alpha", "malware"): (0, 1, 0),
        ("beta", "phishing"): (0, 2, 0),
        ("top", "reference"): (1, 0, 0),
    }
    # What came and went again in between is not told.
    assert changed(world, "132h", "now")[0] == {("top", "reference"): (1, 0, 0)}
    assert changed(world, "now", "now")[0] == {}


def test_the_difference_of_a_young_record_begins_with_its_first_run(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("alpha", ["one.example"])
    world.update("--no-verify")
    world.change("UPDATE run SET started = strftime('%Y-%m-%dT%H:%M:%SZ', started, '-1 hour')")
    world.lines("alpha", ["one.example", "two.example"])
    world.update("--no-verify", "--force")
    assert world.run("diff", "1d", "now").code == 1
    assert changed(world)[0] == {("alpha", "malware"): (1, 0, 0)}
    backdate(world, 2)
    assert changed(world)[0] == {}


def test_a_difference_of_releases_is_of_what_their_policy_takes(world: World) -> None:
    first, *_, last = (row[0] for row in world.rows("SELECT id FROM release WHERE export = 'dns' ORDER BY id"))
    counts, told = changed(world, str(first), str(last))
    assert ("top", "reference") not in counts
    (export,) = told["exports"]
    assert export["before"]["release"] == first and export["after"]["release"] == last
    other = world.rows("SELECT min(id) FROM release WHERE export = 'flat'")[0][0]
    ran = world.run("diff", str(first), str(other))
    assert ran.code == 2 and "of export dns" in ran.err


def test_the_names_of_a_difference_are_those_of_two_pictures(world: World) -> None:
    """Against a plain replay: the set of open listings at either end."""

    def open_at(run: int) -> set[tuple[str, str]]:
        sql = "SELECT name, feed FROM listing WHERE since <= ?1 UNION SELECT name, feed FROM listing_closed "
        feeds = dict(world.rows("SELECT id, name FROM feed"))
        rows = world.rows(f"{sql} WHERE since <= ?1 AND until > ?1", run)
        return {(name, feeds[feed]) for name, feed in rows}

    for a, b in ((132, 84), (108, 36), (60, 0)):
        ran = world.run("diff", f"{a}h", f"{b}h", "--names", "--csv")
        rows = list(csv.reader(io.StringIO(ran.out)))
        assert rows[0] == ["change", "indicator", "kind", "feed", "category"]
        moments = [
            world.rows(
                "SELECT max(id) FROM run WHERE started <= strftime('%Y-%m-%dT%H:%M:%SZ', 'now', ?)", f"-{h} hours"
            )
            for h in (a, b)
        ]
        before, after = (open_at(run[0][0]) for run in moments)
        got = {kind: {(r[1], r[3]) for r in rows[1:] if r[0] == kind} for kind in ("added", "removed", "changed")}
        assert got == {"added": after - before, "removed": before - after, "changed": set()}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("2020-01-01",), 1, "it begins on "),
        (("1d", "3d"), 2, "the second is earlier than the first"),
        (("999999",), 2, "A: there is no release 999999"),
        (("1d", "soon"), 2, "B 'soon' is no date"),
        (("2120-01-01",), 2, "in the future"),
    ],
)
def test_a_difference_that_can_not_be_had_says_why(world: World, words: tuple[str, ...], code: int, said: str) -> None:
    ran = world.run("diff", *words)
    assert ran.code == code and said in ran.err, ran.err
