"""Dates as people type them: ISO 8601, `7d`, `yesterday`."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Literal

from blocklist.errors import IndicatorError
from blocklist.quantities import parse_duration

Edge = Literal["start", "end"]
_EXAMPLES = "write 2026-03-03, 2026-03-03T14:00, 2026-03-03T14:00Z, 7d (ago), yesterday or now"


def past(text: str, now: datetime, *, edge: Edge = "end", place: str = "--at") -> datetime:
    """The moment that `text` means, UTC, whole seconds, not after `now`.

    A date without a time is its local day's end (`edge`, for "as of") or start (for "since"); the end of today is
    `now`. A time without an offset is local. Raises IndicatorError, naming `place`, for what is no date, for the
    future, and for a local time that a change of clocks makes ambiguous or leaves out.
    """
    said = text.strip()
    day = _day(said, now)
    if day is not None:
        if day > now.astimezone().date():
            raise IndicatorError(f"{place} {text!r} lies in the future", hint=_EXAMPLES)
        try:
            moment = day_start(day) if edge == "start" else day_end(day)
        except (OverflowError, ValueError):  # the first day of all, east of Greenwich
            raise IndicatorError(f"{place} {said!r} is no date and no span", hint=_EXAMPLES) from None
        if edge == "end" and day == now.astimezone().date():
            moment = min(moment, now)
    elif said.lower() == "now":
        moment = now
    else:
        moment = _moment(said, now, place)
    if moment > now:
        raise IndicatorError(f"{place} {text!r} lies in the future", hint=_EXAMPLES)
    return moment.replace(microsecond=0)


def _day(said: str, now: datetime) -> date | None:
    today = now.astimezone().date()
    if said.lower() in ("today", "yesterday"):
        return today - timedelta(days=said.lower() == "yesterday")
    if len(said) != 10:
        return None
    try:
        return date.fromisoformat(said)
    except ValueError:
        return None


def _moment(said: str, now: datetime, place: str) -> datetime:
    try:
        return now - timedelta(seconds=parse_duration(said))
    except (ValueError, OverflowError):
        pass
    try:
        # A bare run of digits is a number that something else was meant by, not a year.
        return utc(datetime.fromisoformat("" if said.isdigit() else said), said, place)
    except (ValueError, OverflowError):
        raise IndicatorError(f"{place} {said!r} is no date and no span", hint=_EXAMPLES) from None


def day_start(day: date) -> datetime:
    """The first moment of the local `day`, UTC. Raises OverflowError or ValueError at the ends of the calendar.

    Some places change their clocks at midnight: it comes twice there, and the first one counts, or it is left out, and
    the day begins with the change. Both are the time stamp for `fold = 0` (PEP 495); `astimezone` is an hour early.
    """
    return datetime.fromtimestamp(datetime.combine(day, time()).timestamp(), UTC)


def day_end(day: date) -> datetime:
    """The last second of the local `day`, UTC. Raises as `day_start` does."""
    return day_start(day + timedelta(days=1)) - timedelta(seconds=1)


def utc(moment: datetime, said: str, place: str) -> datetime:
    """`moment` in UTC; without an offset it is local, and must then be one moment and not two or none.

    Raises IndicatorError, naming `place`, for what a person `said` and a change of clocks leaves open or out.
    """
    if moment.tzinfo is not None:
        return moment.astimezone(UTC)
    first, second = (moment.replace(fold=fold).astimezone(UTC) for fold in (0, 1))
    if first == second:
        return first
    # Where clocks go forward, the local time between does not come back from UTC.
    what = "comes twice" if first.astimezone().replace(tzinfo=None) == moment else "does not exist"
    raise IndicatorError(
        f"{place} {said!r} {what} here: clocks were changed",
        hint=f"say which is meant in UTC: {first:%Y-%m-%dT%H:%MZ} or {second:%Y-%m-%dT%H:%MZ}",
    )
