"""From outcomes to verdicts, and the schedule that follows from verdicts: tables and rules."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocklist.verify.classify import Observation, Question, Status, classify, next_question
from blocklist.verify.schedule import due, is_dead, questions_a_day
from blocklist.verify.wire import AAAA, A, Answer, Outcome

ADDRESS = Answer(Outcome.ADDRESS, 0, (b"\xc0\0\x02\x01",))
OTHER = Answer(Outcome.ADDRESS, 0, (b"\xc0\0\x02\x02",))
EMPTY = Answer(Outcome.NODATA, 0, (), "evil.example")
DENIED = Answer(Outcome.NXDOMAIN, 3, (), "example")
DENIED_BELOW = Answer(Outcome.NXDOMAIN, 3, (), "evil.example")
DENIED_BARE = Answer(Outcome.NXDOMAIN, 3)
SERVFAIL = Answer(Outcome.FAILED, 2)
REFUSED = Answer(Outcome.FAILED, 5)
LOOP = Answer(Outcome.LOOP, 0)
LOST = Answer(Outcome.TIMEOUT)

VERDICTS = [
    ("an address is live", 2, [(0, A, ADDRESS), (1, AAAA, EMPTY)], Status.LIVE),
    ("only IPv6 is live too", 2, [(0, A, EMPTY), (1, AAAA, ADDRESS)], Status.LIVE),
    ("an address is live though the rest was lost", 2, [(0, A, ADDRESS), (1, AAAA, LOST)], Status.LIVE),
    ("no address of either type", 2, [(0, A, EMPTY), (1, AAAA, EMPTY)], Status.NODATA),
    ("half a nodata", 2, [(0, A, EMPTY), (1, AAAA, LOST)], Status.UNKNOWN),
    ("two that deny", 2, [(0, A, DENIED), (1, AAAA, DENIED)], Status.NXDOMAIN),
    ("one that denies twice", 2, [(0, A, DENIED), (0, AAAA, DENIED)], Status.UNKNOWN),
    ("one that denies, one silent", 2, [(0, A, DENIED), (1, AAAA, LOST)], Status.UNKNOWN),
    ("one that denies, one broken", 2, [(0, A, DENIED), (1, AAAA, SERVFAIL)], Status.UNKNOWN),
    ("the only resolver denies", 1, [(0, A, DENIED), (0, AAAA, DENIED)], Status.NXDOMAIN),
    ("denied here, address there", 2, [(0, A, DENIED), (1, A, ADDRESS)], Status.UNKNOWN),
    (
        "denied by two, address at a third",
        2,
        [(0, A, DENIED), (1, A, DENIED), (2, A, ADDRESS)],
        Status.UNKNOWN,
    ),
    ("denied here, empty there", 2, [(0, A, DENIED), (1, AAAA, EMPTY)], Status.UNKNOWN),
    ("RFC 4074 §4.2", 2, [(0, A, ADDRESS), (1, AAAA, DENIED), (1, A, ADDRESS)], Status.LIVE),
    ("all fail", 2, [(0, A, SERVFAIL), (1, A, REFUSED), (1, AAAA, SERVFAIL)], Status.BROKEN),
    ("one fails, one is silent", 2, [(0, A, SERVFAIL), (1, A, LOST)], Status.UNKNOWN),
    ("fails, lost once, fails", 2, [(0, A, SERVFAIL), (1, A, LOST), (1, A, SERVFAIL)], Status.BROKEN),
    ("the only resolver fails", 1, [(0, A, SERVFAIL), (0, AAAA, SERVFAIL)], Status.BROKEN),
    ("circles", 2, [(0, A, LOOP), (1, AAAA, LOOP)], Status.BROKEN),
    ("silence", 2, [(0, A, LOST), (1, AAAA, LOST)], Status.UNKNOWN),
    ("nothing at all", 2, [], Status.UNKNOWN),
]


@pytest.mark.parametrize(("case", "quorum", "seen", "status"), VERDICTS, ids=[row[0] for row in VERDICTS])
def test_outcomes_make_a_verdict(case: str, quorum: int, seen: list[tuple[int, int, Answer]], status: Status) -> None:
    assert classify([Observation(*row) for row in seen], quorum).status is status


def observe(*rows: tuple[int, int, Answer]) -> list[Observation]:
    return [Observation(*row) for row in rows]


def test_addresses_of_both_types_are_counted_once() -> None:
    verdict = classify(observe((0, A, ADDRESS), (1, A, ADDRESS), (1, AAAA, OTHER)), 2)
    assert len(verdict.addresses) == 2 and verdict.resolvers == (0, 1)


def test_authority_is_the_deepest_and_takes_a_quorum() -> None:
    assert classify(observe((0, A, DENIED), (1, A, DENIED)), 2).authority == "example"
    assert classify(observe((0, A, DENIED), (1, A, DENIED_BELOW)), 2).authority == "evil.example"
    assert classify(observe((0, A, DENIED), (1, A, DENIED_BARE)), 2).authority is None


QUESTIONS = [
    ("settled: live", [(0, A, ADDRESS), (1, AAAA, LOST)], None),
    ("settled: nxdomain", [(0, A, DENIED), (1, AAAA, DENIED)], None),
    ("settled: nodata", [(0, A, EMPTY), (1, AAAA, EMPTY)], None),
    ("A lost: ask the other", [(0, A, LOST), (1, AAAA, EMPTY)], Question(A, 1)),
    ("AAAA lost: ask the other", [(0, A, EMPTY), (1, AAAA, LOST)], Question(AAAA, 0)),
    ("a denial wants a second voice", [(0, A, DENIED), (0, AAAA, DENIED)], Question(A, 1)),
    ("denied type by type: same type please", [(0, A, ADDRESS), (1, AAAA, DENIED)], Question(A, 1)),
    ("true disagreement", [(0, A, ADDRESS), (1, A, DENIED)], None),
    ("attempts used up", [(0, A, LOST), (1, AAAA, LOST), (1, A, LOST), (0, A, LOST)], None),
]


@pytest.mark.parametrize(("case", "seen", "question"), QUESTIONS, ids=[row[0] for row in QUESTIONS])
def test_what_is_asked_next(case: str, seen: list[tuple[int, int, Answer]], question: Question | None) -> None:
    assert next_question(observe(*seen), 2, [0, 1], 3) == question


OUTCOMES = st.sampled_from([ADDRESS, EMPTY, DENIED, DENIED_BARE, SERVFAIL, LOOP, LOST])


@given(st.data(), st.integers(1, 3), st.integers(1, 4))
def test_asking_ends_and_death_takes_a_quorum_without_a_dissenter(
    data: st.DataObject, count: int, attempts: int
) -> None:
    quorum = min(2, count)
    seen = observe((0, A, data.draw(OUTCOMES)), (1 % count, AAAA, data.draw(OUTCOMES)))
    while (question := next_question(seen, quorum, range(count), attempts)) is not None:
        seen.append(Observation(question.resolver, question.qtype, data.draw(OUTCOMES)))
        assert len(seen) <= 2 + 3 * attempts + count
    verdict = classify(seen, quorum)
    if verdict.status is Status.NXDOMAIN:
        assert len({o.resolver for o in seen if o.answer.outcome is Outcome.NXDOMAIN}) >= quorum
        assert not any(o.answer.outcome is Outcome.ADDRESS for o in seen)
    if verdict.status is Status.BROKEN:
        assert len(verdict.resolvers) >= quorum


NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def days(number: float) -> datetime:
    return NOW - timedelta(days=number)


def test_due_names_come_unverified_first_then_by_how_long_they_waited() -> None:
    names = pl.DataFrame(
        [
            ("live-6d.example", "live", days(90), days(6)),
            ("live-10d.example", "live", days(90), days(10)),
            ("broken-3d.example", "broken", days(3), days(3)),
            ("parked-6d.example", "parked", days(90), days(6)),
            ("sunk-9d.example", "sinkholed", days(90), days(9)),
            ("broken-1h.example", "broken", days(2), days(0.04)),
            ("dead-5-of-10.example", "nxdomain", days(15), days(5)),
            ("dead-11-of-10.example", "nxdomain", days(21), days(11)),
            ("dead-29-of-30.example", "nxdomain", days(300), days(29)),
            ("future.example", "live", days(9), days(-40)),
            ("new-b.example", None, None, None),
            ("new-a.example", None, None, None),
        ],
        schema={
            "name": pl.String,
            "status": pl.String,
            "since": pl.Datetime("us", "UTC"),
            "checked": pl.Datetime("us", "UTC"),
        },
        orient="row",
    )
    found = due(names, NOW)
    assert found["name"].to_list() == [
        *("new-a.example", "new-b.example"),
        *("live-10d.example", "broken-3d.example", "sunk-9d.example", "dead-11-of-10.example", "future.example"),
    ]
    assert found.columns == names.columns
    assert due(names, NOW, 3)["name"].to_list() == found["name"].to_list()[:3]
    counted = names.with_columns((pl.col("name") == "new-b.example").cast(pl.UInt32).alias("feeds"))
    assert due(counted, NOW)["name"].to_list()[:3] == ["new-b.example", "new-a.example", "live-10d.example"]


def test_what_it_takes_to_keep_verdicts_fresh() -> None:
    rows = [("live", days(90))] * 7 + [("parked", days(1))] * 7 + [("nxdomain", days(10))] * 10
    rows += [("nxdomain", days(300))] * 30 + [("broken", days(9)), ("unknown", days(9)), ("nxdomain", days(0))]
    names = pl.DataFrame(
        {"status": [status for status, _ in rows], "since": [since for _, since in rows]},
        schema_overrides={"since": pl.Datetime("us", "UTC")},
    )
    assert questions_a_day(names, NOW) == pytest.approx(7)
    assert questions_a_day(names.clear(), NOW) == 0


@given(
    st.sampled_from(list(Status)),
    st.integers(0, 100 * 86_400),
    st.integers(0, 100 * 86_400),
)
def test_a_verdict_is_fresh_for_a_week_a_day_or_as_long_again_as_it_was_denied(
    status: Status, held: int, waited: int
) -> None:
    checked = NOW - timedelta(seconds=waited)
    since = checked - timedelta(seconds=held)
    frame = pl.DataFrame(
        {"name": ["a.example"], "status": [status.value], "since": [since], "checked": [checked]},
        schema_overrides={"since": pl.Datetime("us", "UTC"), "checked": pl.Datetime("us", "UTC")},
    )
    if status in (Status.LIVE, Status.SINKHOLED, Status.PARKED):
        wait = timedelta(days=7)
    elif status is Status.NXDOMAIN:
        wait = min(max(checked - since, timedelta(days=1)), timedelta(days=30))
    else:
        wait = timedelta(days=1)
    assert (due(frame, NOW).height == 1) is (checked + wait <= NOW)


DEATHS = [
    ("three over eight days by the registry", ("nxdomain", 3, 8, 0, "example", "evil.example"), True),
    ("by the root", ("nxdomain", 3, 8, 0, ".", "evil.example"), True),
    ("by a second-level registry", ("nxdomain", 3, 8, 0, "co.uk", "evil.co.uk"), True),
    ("its own server denies it", ("nxdomain", 9, 90, 0, "evil.example", "evil.example"), False),
    ("a host's zone denies it", ("nxdomain", 9, 90, 0, "a.evil.example", "evil.example"), False),
    ("a name that only ends alike", ("nxdomain", 9, 90, 0, "l.example", "evil.example"), False),
    ("nobody's word", ("nxdomain", 9, 90, 0, None, "evil.example"), False),
    ("twice", ("nxdomain", 2, 8, 0, "example", "evil.example"), False),
    ("within six days", ("nxdomain", 9, 6, 0, "example", "evil.example"), False),
    ("unknown never counts", ("unknown", 9, 90, 0, "example", "evil.example"), False),
    ("nor does broken", ("broken", 9, 90, 0, "example", "evil.example"), False),
]


@pytest.mark.parametrize(("case", "row", "expected"), DEATHS, ids=[row[0] for row in DEATHS])
def test_death_is_the_registrys_word(
    case: str, row: tuple[str, int, int, int, str | None, str], expected: bool
) -> None:
    status, denials, since, checked, authority, registrable = row
    assert is_dead(Status(status), denials, days(since), days(checked), authority, registrable) is expected
