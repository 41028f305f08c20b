"""The report: counts that a person could count, in three forms, and nothing in it that acts on its reader."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from installation import World, names

from blocklist.report import Count, Day, FeedRow
from blocklist.report_charts import by_category, by_day, by_feed

# What a hostile feed, a careless colleague and a failing server may write.
HOSTILE = (
    '=HYPERLINK("//evil.example")<script>alert(1)</script><img src=x>|[a](javascript:1) www.evil.example \x1b[31m\u202e'
)


def aged(world: World, days: int) -> None:
    """All that is recorded happened so many days earlier."""
    for table, columns in (
        ("run", ("started", "finished")),
        ("rule", ("created",)),
        ("release", ("created", "published")),
    ):
        for column in columns:
            world.change(
                f"UPDATE {table} SET {column} = strftime('%Y-%m-%dT%H:%M:%SZ', {column}, '-{days} days') "
                f"WHERE {column} IS NOT NULL"
            )


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Three days: `early` lists h00100 to h00109 at first, `late` two days after it; some go."""
    world = World(tmp_path)
    world.set("gates", max_change=100.0)
    world.feed("early", names(100), max_shrink=1.0)
    world.feed("late", names(50, zone="other.example"), category="phishing", max_shrink=1.0)
    world.export("dns", "domains")
    assert world.update().code == 0
    aged(world, 1)
    world.lines("early", names(110))
    assert world.update().code == 0
    aged(world, 2)
    world.lines("early", names(105, start=5))
    world.lines("late", [*names(50, zone="other.example"), *names(10, start=100)])
    assert world.update().code == 0
    return world


def test_what_came_and_went_is_counted_by_day_category_and_feed(world: World) -> None:
    report = world.run("report", "--json").json
    days = [(d["came"], d["went"], d["begun"]) for d in report["days"]]
    assert days == [(150, 0, 150), (10, 0, 0), (0, 0, 0), (10, 5, 0)]
    assert {c["name"]: (c["now"], c["came"], c["went"]) for c in report["categories"]} == {
        "malware": (105, 110, 5),
        "phishing": (60, 60, 0),
    }
    feeds = {f["feed"]: f for f in report["feeds"]}
    assert (feeds["early"]["entries"], feeds["early"]["came"], feeds["early"]["went"]) == (105, 110, 5)
    assert (feeds["early"]["alone"], feeds["late"]["alone"]) == (95, 50)
    assert report["runs"] == 3 and report["names"] == 155
    assert [(e["export"], e["published"]) for e in report["exports"]] == [("dns", 3)]
    assert (report["domains"][0]["name"], report["domains"][0]["now"]) == ("evil.example", 105)
    since = world.run("report", "--json", "--since", "1d").json
    assert {f["feed"]: (f["came"], f["went"]) for f in since["feeds"]} == {"early": (0, 5), "late": (10, 0)}
    aged(world, 1)
    quiet = world.run("report", "--json", "--since", "12h").json
    assert quiet["runs"] == 0 and {(f["came"], f["went"]) for f in quiet["feeds"]} == {(0, 0)}


def test_the_feed_that_knew_first_is_told_by_how_many_days(world: World) -> None:
    feeds = {f["feed"]: f for f in world.run("report", "--json").json["feeds"]}
    assert (feeds["early"]["first"], feeds["early"]["later"], feeds["early"]["lead"]) == (10, 0, 2.0)
    assert (feeds["late"]["first"], feeds["late"]["later"], feeds["late"]["lead"]) == (0, 10, None)


def test_what_a_feed_held_when_it_was_first_read_is_no_lateness(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("early", names(20))
    world.update()
    aged(world, 2)
    world.feed("new", names(20))
    world.update()
    assert {(f["first"], f["later"]) for f in world.run("report", "--json").json["feeds"]} == {(0, 0)}


def test_failing_feeds_ending_rules_and_holds_are_shown(world: World) -> None:
    (world.base / "feeds" / "late.txt").unlink()
    world.feed("top", ["h00050.evil.example"], category="reference")
    world.update()
    world.run("allow", "add", "good.example", "--reason", "customer", "--until", "2d")
    report = world.run("report", "--json").json
    assert next(f["state"] for f in report["feeds"] if f["feed"] == "late") == "failed"
    assert [r["name"] for r in report["rules"]["ending"]] == ["good.example"]
    assert [h["indicator"] for h in report["held"]["new"]] == ["h00050.evil.example"]
    assert report["held"]["guards"] == [{"guard": "reference", "now": 1, "came": 1, "went": 0}]
    page = world.run("report", "-o", "-").out
    for text in ("late", "failed", "good.example", "h00050.evil.example", "named by top"):
        assert text in page
    assert "Nothing: every feed is read" not in page


def test_dead_names_are_counted_of_those_that_were_asked(world: World) -> None:
    for name, dead in (("h00050.evil.example", 1), ("h00051.evil.example", 0)):
        world.change(
            "INSERT INTO verdict (name, status, since, checked, dead, run) VALUES (?, 'live', '2026-01-01T00:00:00Z', "
            "'2026-01-01T00:00:00Z', ?, 1)",
            name,
            dead,
        )
    feeds = {f["feed"]: (f["asked"], f["dead"]) for f in world.run("report", "--json").json["feeds"]}
    assert feeds == {"early": (2, 1), "late": (0, 0)}


class Page(HTMLParser):
    """Tags and attributes of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str | None]] = set()
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= set(attrs)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_stands_alone(world: World) -> None:
    target = world.base / "out.html"
    assert world.run("report", "-o", target).code == 0
    text = target.read_text("utf-8")
    page = Page(text)
    assert not page.tags & {"script", "link", "img", "iframe", "a", "object", "form"}
    assert not {name for name, _ in page.attributes} & {"src", "href", "onload", "action", "style"}
    assert "url(" not in text and "@import" not in text and "://" not in text
    assert "prefers-color-scheme: dark" in text and "@media print" in text
    assert text.count("<svg") == text.count("<desc id=") == 3


def test_no_text_of_a_stranger_acts_on_the_reader(world: World) -> None:
    world.change("UPDATE feed SET outcome = 'failed', error = ? WHERE name = 'late'", HOSTILE)
    world.run("allow", "add", "good.example", "--reason", "x", "--until", "2d")
    world.change("UPDATE rule SET reason = ?, author = ?", HOSTILE, HOSTILE)
    world.change("UPDATE release SET note = ?", HOSTILE)
    html = world.run("report", "-o", "-").out
    page = Page(html)
    assert not page.tags & {"script", "img", "a"}
    cells = [word.strip() for word in page.words if "HYPERLINK" in word]
    assert len(cells) >= 4 and not any(cell.startswith("=") for cell in cells)
    markdown = world.run("report", "--format", "md").out
    assert "<script" not in markdown and "<img" not in markdown and "\\[a\\](javascript" in markdown
    assert "www.evil" not in markdown and "|[" not in markdown
    for text in (html, markdown):
        assert "\x1b" not in text and "\u202e" not in text and "HYPERLINK" in text
    assert "\x1b" not in world.run("report", "--json").out


def test_the_charts_are_pictures_with_words_for_those_who_cannot_see_them() -> None:
    feed = FeedRow("<b>&", "malware", "updated", None, None, 3, 0, 0, 1, None, 0.0, 0, 0, 0, 0, None)
    days = [Day(f"2026-{month:02}-{day:02}", month, day) for month in range(1, 7) for day in range(1, 29)]
    for chart in (
        by_day(days[:9]),
        by_day(days),
        by_day([]),
        by_category([Count("<x>", 2)]),
        by_category([]),
        by_feed([feed]),
    ):
        root = ElementTree.fromstring(str(chart))
        assert root.attrib["role"] == "img" and [child.tag for child in root][:2] == ["title", "desc"]
        assert all(child.text for child in list(root)[:2])
    weekly = str(by_day(days))
    assert "by week" in weekly and weekly.count('class="came"') < 30
    assert f"{sum(d.came for d in days):,} came" in weekly


def test_the_file_says_which_form(world: World) -> None:
    for name, begins in (
        ("r.md", "# Blocklist"),
        ("r.json", "{"),
        ("r.html", "<!doctype html>"),
        ("r", "<!doctype html>"),
    ):
        assert world.run("report", "-o", world.base / name).code == 0
        assert (world.base / name).read_text("utf-8").startswith(begins)
    assert json.loads((world.base / "r.json").read_text())["runs"] == 3
    assert re.search(r"^\| malware \| 105 \| 110 \| 5 \|$", (world.base / "r.md").read_text(), re.M)


@pytest.mark.parametrize(
    ("since", "says"), [("next week", "no date"), ("2999-01-01", "future"), ("9999999y", "no date")]
)
def test_a_time_that_is_none_is_refused(world: World, since: str, says: str) -> None:
    ran = world.run("report", "--since", since)
    assert ran.code == 2 and says in ran.err


def test_before_the_first_run_there_is_nothing_to_report(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("a", [])
    ran = world.run("report")
    assert ran.code == 1 and "update" in ran.err


def test_a_release_that_was_held_until_the_next_took_its_place_was_never_published(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("a", names(150))
    world.export("list")
    assert world.update().code == 0
    world.lines("a", names(150, start=1000))
    assert world.update().code == 4
    world.lines("a", names(151))
    assert world.update().code == 0
    (row,) = world.run("report", "--json").json["exports"]
    assert (row["published"], row["held"], row["added"], row["removed"]) == (2, 1, 151, 0)
