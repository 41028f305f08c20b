"""Listings that end: by their row, by age, by lingering; day by day, in the record, in exports and in `why`."""

from __future__ import annotations

import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from installation import World, names
from sqlite_utils import Database

from blocklist import clock
from blocklist.ingest.dates import read_date, read_dates
from blocklist.store import schema

START = datetime(2026, 11, 1, 6, tzinfo=UTC)
Days = Callable[[float], None]


@pytest.fixture
def day(monkeypatch: pytest.MonkeyPatch) -> Days:
    """`day(3)`: it is 06:00 on the third day after the first."""

    def go(number: float) -> None:
        monkeypatch.setattr(clock, "now", lambda: START + timedelta(days=number))

    go(0)
    return go


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


ORDERS = {
    "format": {
        "name": "csv",
        "value": "domain",
        "reason": "order",
        "date": "date",
        "expires": "until",
        "authority": "authority",
        "tags": "tags",
        "tlp": "tlp",
    },
    "legal_basis": "Regulation (EU) 833/2014",
}


def test_an_order_ends_after_its_last_day_without_any_change_of_its_feed(world: World, day: Days) -> None:
    text = "domain,order,date,until,authority,tags,tlp\n"
    text += 'evil.example,No 7,2026-10-30,2026-11-03,Example Authority,"a,b",TLP:AMBER\nother.example,,,,,,\n'
    world.feed("orders", text, **ORDERS)
    world.export("dns")
    assert world.update().code == 0
    assert world.exported("dns") == ["evil.example", "other.example"]
    said = world.why("evil.example")["listings"][0]
    assert (said["ends"], said["ends_by"], said["expired"]) == ("2026-11-04T00:00:00Z", "expires", False)
    assert said["row"]["authority"] == "Example Authority" and said["row"]["tags"] == ["a", "b"]
    assert (said["tlp"], said["legal_basis"]) == ("amber", "Regulation (EU) 833/2014")
    shown = world.run("why", "evil.example").out
    assert "ordered by Example Authority, reason No 7, legal basis Regulation (EU) 833/2014, dated 2026-10-30" in shown
    assert "until 2026-11-04 00:00 by its row" in shown
    day(2.7)
    ran = world.update()
    assert ran.export("dns")["outcome"] == "unchanged" and ran.feed("orders")["expired"] == 0
    day(2.8)
    ran = world.update()
    assert ran.feed("orders")["outcome"] == "unchanged" and ran.feed("orders")["expired"] == 1
    assert world.exported("dns") == ["other.example"]
    told = world.why("evil.example")
    assert not told["blocked"] and "expired on 2026-11-04" in told["exports"][0]["because"]
    assert world.listed() == ["evil.example", "other.example"]  # the feed lists it still
    world.assert_sound()


def test_an_export_of_its_own_notices_what_no_update_has(world: World, day: Days) -> None:
    world.feed("orders", "domain,order,date,until,authority,tags,tlp\nevil.example,,,2026-11-02,,,\n", **ORDERS)
    world.feed("more", ["other.example"])
    world.export("dns")
    world.update()
    day(5)
    told = world.why("evil.example")
    assert told["blocked"] and told["exports"][0]["pending"] is False
    assert world.run("export").code == 0
    assert world.exported("dns") == ["other.example"] and not world.why("evil.example")["blocked"]
    assert world.run("export", "--json").export("dns")["outcome"] == "unchanged"


def test_what_a_feed_drops_lingers_and_comes_back_without_a_gap(world: World, day: Days) -> None:
    world.feed("window", ["a.example", "b.example"], linger="3d")
    world.export("dns")
    world.update()
    day(1)
    world.lines("window", ["a.example"])
    ran = world.update()
    assert ran.feed("window")["removed"] == 0 and ran.feed("window")["entries"] == 1
    assert world.exported("dns") == ["a.example", "b.example"]
    said = world.why("b.example")["listings"][0]
    assert (said["dropped"], said["ends"]) == ("2026-11-02T06:00:00Z", "2026-11-05T06:00:00Z")
    assert "lingers until 2026-11-05 06:00" in world.run("why", "b.example").out
    day(2)
    world.lines("window", ["a.example", "b.example"])
    world.update()
    assert world.why("b.example")["listings"][0]["dropped"] is None and world.closed() == []
    day(3)
    world.lines("window", ["a.example"])
    world.update()
    day(5.9)
    world.update()
    assert world.exported("dns") == ["a.example", "b.example"]
    day(6)
    ran = world.update()
    assert ran.feed("window")["outcome"] == "unchanged" and ran.feed("window")["removed"] == 1
    assert world.exported("dns") == ["a.example"] and world.listed() == ["a.example"]
    assert [c[3] for c in world.closed()] == ["no longer listed, and lingered its time"]
    world.assert_sound()


def test_lingering_rows_may_come_back_as_something_else(world: World, day: Days) -> None:
    keys = {"format": {"name": "csv", "value": "name", "confidence": "c"}, "linger": "9d"}
    world.feed("window", "name,c\na.example,60\nb.example,60\n", **keys)
    world.update()
    day(1)
    world.lines("window", "name,c\na.example,60\n")
    world.update()
    day(2)
    world.lines("window", "name,c\na.example,60\nb.example,70\n")
    assert world.update().feed("window")["changed"] == 1
    assert world.why("b.example")["listings"][0]["confidence"] == 70
    world.assert_sound()


def test_listings_grow_too_old_from_their_date_or_from_when_they_were_first_seen(world: World, day: Days) -> None:
    keys = {"format": {"name": "csv", "value": "name", "date": "date"}, "max_age": "10d"}
    world.feed("dated", "name,date\nold.example,2026-10-25\nnew.example,2027-01-01\n", **keys)
    world.export("dns")
    world.update()
    assert world.exported("dns") == ["new.example", "old.example"]
    day(3)
    world.update()
    assert world.exported("dns") == ["new.example"]  # 10 days after its date
    day(9)
    world.lines("dated", "name,date\nold.example,2026-10-25\nnew.example,2027-01-01\nthird.example,\n")
    world.update()
    assert world.exported("dns") == ["new.example", "third.example"]
    day(10)
    world.update()
    assert world.exported("dns") == ["third.example"]  # a date in the future does not prolong
    (world.state / "columns").rename(world.state / "lost")
    world.feeds["dated"]["max_age"] = "20d"
    world.write()
    world.update()
    assert world.exported("dns") == ["new.example", "old.example", "third.example"]


def test_a_feed_that_no_longer_changes_is_stale(world: World, day: Days) -> None:
    world.feed("quiet", ["a.example"], stale_after="3d")
    world.feed("own", ["b.example"])
    assert world.update().code == 0
    day(4)
    ran = world.update()
    assert ran.code == 3 and ran.feed("quiet")["stale"] == "2026-11-01T06:00:00Z" and ran.feed("own")["stale"] is None
    assert "stale" in world.run("update").out and world.run("status").code == 3
    assert "feed quiet is stale: its list has not changed since 2026-11-01 06:00" in world.run("why", "a.example").out
    assert "stale" not in world.run("why", "b.example").out
    world.lines("quiet", ["a.example", "c.example"])
    assert world.update().code == 0 and world.run("status").code == 0


def test_a_stale_feed_is_said_while_it_is_not_asked_and_in_the_report(world: World, day: Days) -> None:
    world.feed("quiet", ["a.example"], stale_after="3d", min_interval="2d")
    assert world.update().code == 0
    day(4)
    assert world.update().feed("quiet")["stale"]
    day(5)
    ran = world.update()
    assert ran.code == 3 and ran.feed("quiet")["outcome"] == "skipped"
    assert ran.feed("quiet")["stale"] == "2026-11-01T06:00:00Z"
    assert any(line.split()[1:2] == ["stale"] for line in world.run("update").out.splitlines())
    [row] = [f for f in world.run("report", "--json").json["feeds"] if f["feed"] == "quiet"]
    assert row["state"] == "stale"


def test_the_same_bytes_read_otherwise_are_no_news_of_the_publisher(world: World, day: Days) -> None:
    world.feed("quiet", ["a.example"], stale_after="3d")
    assert world.update().code == 0
    day(4)
    world.feeds["quiet"]["scope"] = "subtree"
    world.write()
    assert world.update().feed("quiet")["outcome"] == "updated"
    assert world.update().feed("quiet")["stale"] == "2026-11-01T06:00:00Z"


def test_a_name_that_drops_out_of_a_reference_is_held_thirty_days_more(world: World, day: Days) -> None:
    world.feed("malware", ["evil.example", "top.example"])
    world.feed("top", ["top.example", "best.example"], category="reference")
    world.export("dns")
    world.update()
    day(1)
    world.lines("top", ["best.example"])
    world.update()
    assert world.exported("dns") == ["evil.example"]
    assert "counts until 2026-12-02 06:00" in world.run("why", "top.example").out
    day(30.9)
    world.update()
    assert world.exported("dns") == ["evil.example"]
    day(31)
    world.update("--json")
    assert world.exported("dns") == ["evil.example", "top.example"]
    world.assert_sound()


def test_a_reference_that_would_unblock_much_waits_for_a_person(world: World, day: Days) -> None:
    listed = names(120)
    world.feed("malware", listed)
    world.feed("top", ["best.example"], category="reference")
    world.export("dns")
    world.set("gates", max_change=1.0)
    world.update()
    day(1)
    world.lines("top", ["best.example", *listed[:101]])
    ran = world.update()
    assert ran.code == 3 and ran.feed("top")["outcome"] == "gated"
    assert "would newly hold 101 entries that are exported" in ran.feed("top")["error"]
    assert len(world.exported("dns")) == 120
    assert world.update().feed("top")["outcome"] == "gated"  # until resolved
    assert world.update("--accept", "top").feed("top")["outcome"] == "updated"
    assert len(world.exported("dns")) == 19
    day(2)
    world.lines("top", ["best.example", *listed])
    assert world.update().feed("top")["outcome"] == "updated"  # 19 more are no attack
    world.assert_sound()


def as_of_the_first_version(world: World) -> None:
    """Give the record the tables of the first version, with the rows that these can hold."""
    old = world.state / "old.db"
    with closing(sqlite3.connect(old)) as db:
        schema.migrations.apply(Database(db, execute_plugins=False), stop_before="0002_backoff")
        db.execute(f"ATTACH '{world.database}' AS now")
        for (table,) in db.execute(
            "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND name NOT GLOB '_*'"
        ).fetchall():
            columns = ", ".join(r[1] for r in db.execute(f"PRAGMA main.table_info({table})"))
            db.execute(f"DELETE FROM main.{table}")
            db.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM now.{table}")
        db.commit()
    for left in world.state.glob("record.db*"):
        left.unlink()
    old.rename(world.database)


def test_a_record_of_the_first_version_is_migrated_once_and_a_copy_kept(world: World, day: Days) -> None:
    world.feed("malware", ["evil.example"])
    world.update()
    as_of_the_first_version(world)
    world.database.chmod(0o600)
    told = world.run("why", "evil.example")
    assert told.code == 1 and "earlier version" in told.err
    assert world.update().code == 0
    copies = list(world.state.glob("record-*.db"))
    assert [c.name for c in copies] == ["record-0001_record.db"]
    assert copies[0].stat().st_mode & 0o777 == 0o600  # what is hidden in the record is not shown in its copy
    with closing(sqlite3.connect(copies[0])) as db:
        assert db.execute("SELECT name FROM listing").fetchall() == [("evil.example",)]
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert world.why("evil.example")["listings"] and world.update().code == 0
    assert len(list(world.state.glob("record-*"))) == 1
    world.assert_sound()


@pytest.mark.parametrize("migration", range(1, len(schema.migrations._migrations)))
def test_a_migration_that_is_killed_has_done_nothing_and_the_next_run_does_all(world: World, migration: int) -> None:
    world.feed("malware", ["evil.example"])
    world.update()
    as_of_the_first_version(world)
    killed = (
        "import os, signal; from blocklist.cli import main; from blocklist.store import schema; "
        f"it = schema.migrations._migrations[{migration}]; before = it.fn; "
        "it.fn = lambda db: (before(db), os.kill(os.getpid(), signal.SIGKILL)); main()"
    )
    words = [sys.executable, "-c", killed, "--config", str(world.config), "update"]
    ran = subprocess.run(words, capture_output=True, check=False)
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    assert world.rows("SELECT name FROM _sqlite_migrations") == [("0001_record",)]
    assert world.update().code == 0 and world.listed() == ["evil.example"]
    assert [copy.name for copy in world.state.glob("record-*")] == ["record-0001_record.db"]
    world.assert_sound()


def test_half_a_copy_is_not_left_on_a_disk_without_room(world: World) -> None:
    world.feed("malware", names(3000))
    world.update()
    as_of_the_first_version(world)
    most = world.database.stat().st_size // 2
    ran = world.call("update", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)))
    assert ran.code == 1 and "free space" in ran.err and "Traceback" not in ran.err, ran.err
    assert not list(world.state.glob("record-*"))
    assert world.update().code == 0 and len(world.listed()) == 3000


@given(
    st.lists(
        st.one_of(
            st.none(),
            st.text(max_size=30),
            st.from_regex(
                r"\A[12][0-9]{3}[-/][0-9]{2}[-/][0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2})?( ?(Z|UTC|[+-][0-9]{4}))?)?\Z"
            ),
            st.datetimes(datetime(1971, 1, 1), datetime(2190, 1, 1)).map(str),
            st.sampled_from(
                ["So 24. Jul 12:25:34 UTC 2022", "Sat, 22 Aug 2026 03:00:29 +0200", "03/04/2026", "1790000000"]
            ),
        ),
        max_size=8,
    )
)
@example(["2000/01/01T00:00-3000", "2000-01-01T00:00+2360", "2000-01-01T00:00+2359", "2000-01-01 00:00:00 -0060"])
def test_dates_are_read_alike_one_at_a_time_and_in_columns(texts: list[str | None]) -> None:
    assert read_dates(pl.Series("d", texts, dtype=pl.String)).to_list() == [
        None if t is None else read_date(t) for t in texts
    ]


def test_what_is_over_counts_again_where_the_clock_goes_back(world: World, day: Days) -> None:
    text = "domain,until\nevil.example,2026-11-03\nother.example,\n"
    world.feed("orders", text, format={"name": "csv", "value": "domain", "expires": "until"})
    world.export("list")
    world.update()
    day(5)
    world.update()
    assert world.exported("list") == ["other.example"] and not world.why("evil.example")["blocked"]
    day(1)
    said = world.why("evil.example")["exports"][0]
    assert not said["blocked"] and said["pending"] is True
    world.update()
    assert world.exported("list") == ["evil.example", "other.example"] and world.why("evil.example")["blocked"]
    day(3)
    world.update()
    assert world.exported("list") == ["other.example"] and not world.why("evil.example")["blocked"]


def test_a_clock_that_was_ahead_keeps_no_feed_waiting(world: World, day: Days) -> None:
    world.feed("a", ["evil.example", "b.example"], min_interval="1h")
    world.export("list")
    day(400)
    world.update()
    day(0)
    world.lines("a", ["evil.example", "c.example"])
    assert world.update().feed("a")["outcome"] == "updated"
    assert world.exported("list") == ["c.example", "evil.example"]
    assert not world.why("b.example")["blocked"]


def test_why_finds_what_was_closed_in_an_earlier_month_by_the_clock(world: World, day: Days) -> None:
    world.feed("a", ["evil.example", "b.example"])
    world.export("list")
    day(30)
    world.update()
    day(29.5)
    world.lines("a", ["evil.example"])
    world.update("--no-export")
    assert world.exported("list") == ["b.example", "evil.example"]
    assert world.why("b.example")["blocked"]
    world.update()
    day(40)
    ran = world.run("export", "list", "--at", "2026-12-02T00:00Z", "-o", "-")
    assert ran.code == 0 and ran.out == "evil.example\n", "the last of them by order, whatever the clock said"


def test_a_rule_that_ended_stands_in_the_file_until_it_is_written_again(world: World, day: Days) -> None:
    world.feed("a", ["evil.example", "good.example"])
    world.export("list")
    world.update()
    for action, name in (("deny", "worse.example"), ("allow", "good.example")):
        assert world.run(action, "add", name, "--reason", "r", "--until", "2026-11-02", "--now").code == 0
    assert world.exported("list") == ["evil.example", "worse.example"]
    day(4)
    told = {name: world.why(name)["exports"][0] for name in ("worse.example", "good.example")}
    assert told["worse.example"]["blocked"] and told["worse.example"]["pending"] is False
    assert not told["good.example"]["blocked"] and told["good.example"]["pending"] is True
    world.update()
    assert world.exported("list") == ["evil.example", "good.example"]


def test_a_feed_that_is_switched_off_has_no_end_to_wait_for(world: World, day: Days) -> None:
    world.feed("a", ["evil.example", "b.example"], linger="1d")
    world.feed("b", ["c.example"])
    world.update()
    world.lines("a", ["evil.example"])
    world.update()
    assert world.rows("SELECT count(next_end) FROM feed") == [(1,)]
    del world.feeds["a"]
    world.write()
    world.update()
    assert world.rows("SELECT count(next_end) FROM feed") == [(0,)]
