"""Dates as people type them, in a place where clocks are changed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from blocklist.dates import Edge, past
from blocklist.decisions import until_text
from blocklist.errors import IndicatorError

NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def in_prague(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "edge", "meant"),
    [
        ("2026-03-03", "end", "2026-03-03T22:59:59+00:00"),
        ("2026-03-03", "start", "2026-03-02T23:00:00+00:00"),
        ("2026-07-01", "end", "2026-07-01T21:59:59+00:00"),
        # The day on which clocks go forward has 23 hours.
        ("2026-03-29", "end", "2026-03-29T21:59:59+00:00"),
        ("2026-03-03T14:00", "end", "2026-03-03T13:00:00+00:00"),
        ("2026-03-03 14:00", "end", "2026-03-03T13:00:00+00:00"),
        ("2026-03-03T14:00Z", "end", "2026-03-03T14:00:00+00:00"),
        ("2026-03-03T14:00+05:00", "end", "2026-03-03T09:00:00+00:00"),
        ("7d", "end", "2026-11-17T10:00:00+00:00"),
        ("now", "end", "2026-11-24T10:00:00+00:00"),
        ("today", "end", "2026-11-24T10:00:00+00:00"),
        ("today", "start", "2026-11-23T23:00:00+00:00"),
        ("yesterday", "end", "2026-11-23T22:59:59+00:00"),
        ("2026-11-24", "end", "2026-11-24T10:00:00+00:00"),
    ],
)
def test_a_date_means_one_moment(text: str, edge: Edge, meant: str) -> None:
    assert past(text, NOW, edge=edge).isoformat() == meant


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2026-11-25", "lies in the future"),
        ("2027-01-01T00:00Z", "lies in the future"),
        ("2026-02-30", "is no date"),
        ("", "is no date"),
        ("2026", "is no date"),
        ("99999999y", "is no date"),
        ("\x1b[2J", "is no date"),
        ("2026-10-25T02:30", "comes twice"),
        ("2026-03-29T02:30", "does not exist"),
    ],
)
def test_what_is_no_single_moment_of_the_past_is_refused(text: str, said: str) -> None:
    with pytest.raises(IndicatorError, match=said) as refused:
        past(text, NOW)
    assert refused.value.hint


# Egypt changes its clocks at midnight, Cuba at midnight and at one o'clock back to it.
EGYPT = "EET-2EEST,M4.5.5/0,M10.5.4/24"
CUBA = "CST5CDT,M3.2.0/0,M11.1.0/1"


@pytest.mark.parametrize(
    ("zone", "day", "start", "end"),
    [
        (EGYPT, "2026-04-23", "2026-04-22T22:00:00Z", "2026-04-23T21:59:59Z"),
        (EGYPT, "2026-04-24", "2026-04-23T22:00:00Z", "2026-04-24T20:59:59Z"),
        (EGYPT, "2026-10-29", "2026-10-28T21:00:00Z", "2026-10-29T21:59:59Z"),
        (CUBA, "2026-03-07", "2026-03-07T05:00:00Z", "2026-03-08T04:59:59Z"),
        (CUBA, "2026-03-08", "2026-03-08T05:00:00Z", "2026-03-09T03:59:59Z"),
        (CUBA, "2026-10-31", "2026-10-31T04:00:00Z", "2026-11-01T03:59:59Z"),
        (CUBA, "2026-11-01", "2026-11-01T04:00:00Z", "2026-11-02T04:59:59Z"),
    ],
)
def test_a_day_is_a_day_where_clocks_are_changed_at_midnight(
    zone: str, day: str, start: str, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    now = datetime(2026, 12, 1, tzinfo=UTC)
    assert past(day, now, edge="start") == datetime.fromisoformat(start)
    assert past(day, now, edge="end") == datetime.fromisoformat(end)
    assert until_text(day, datetime(2026, 1, 1, tzinfo=UTC)) == end


@pytest.mark.parametrize(
    ("text", "said"), [("2026-10-25T02:30", "comes twice"), ("2026-03-29T02:30", "does not exist")]
)
def test_a_rule_ends_at_one_moment_or_is_refused(text: str, said: str) -> None:
    with pytest.raises(IndicatorError, match=said):
        until_text(text, datetime(2026, 1, 1, tzinfo=UTC))
    assert until_text(f"{text}+01:00", datetime(2026, 1, 1, tzinfo=UTC)) == f"2026-{text[5:10]}T01:30:00Z"
