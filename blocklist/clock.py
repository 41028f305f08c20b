"""Time as the record keeps it: UTC, RFC 3339, whole seconds."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def text(moment: datetime) -> str:
    """`2026-11-24T10:00:00Z`."""
    # Not strftime: its year has fewer digits before 1000, and texts are compared.
    return moment.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def minute(moment: str | None) -> str:
    """`2026-11-24 10:00` of what `text` gave; of nothing, nothing."""
    return "" if moment is None else moment[:16].replace("T", " ")


def said(moment: str) -> str:
    """The same with the word UTC: for sentences that are kept, and read wherever."""
    return f"{minute(moment)} UTC"


def parse(moment: str) -> datetime:
    """The inverse of `text`. Raises ValueError for all that is none of it."""
    # Not strptime, which every start would wait for.
    found = datetime.fromisoformat(moment.removesuffix("Z")).replace(tzinfo=UTC)
    if text(found) != moment:
        raise ValueError(f"{moment!r} is no time as the record keeps it")
    return found


def of_epoch(seconds: int) -> str:
    """`text` of seconds since 1970."""
    return text(datetime.fromtimestamp(seconds, UTC))


def serial(moment: datetime) -> int:
    """Seconds since 1970 in the circle of zone serials (RFC 1982), which comes round in 2106."""
    return int(moment.timestamp()) % 2**32


def period(moment: datetime) -> int:
    """The month of `moment` as YYYYMM, by which closed listings are kept together."""
    return moment.year * 100 + moment.month
