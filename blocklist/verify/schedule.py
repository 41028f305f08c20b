"""Which names are due for a check, and when denial amounts to death: rules over plain values and columns."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from blocklist.verify.classify import Status

if TYPE_CHECKING:
    import polars as pl

DAY: Final = timedelta(days=1)
LIVE_EVERY: Final = timedelta(days=7)
LEAST_WAIT: Final = DAY
MOST_WAIT: Final = timedelta(days=30)

_ANSWERS: Final = (Status.LIVE, Status.SINKHOLED, Status.PARKED)

DEAD_AFTER: Final = 3  # denials in a row
DEAD_OVER: Final = timedelta(days=7)


def due(names: pl.DataFrame, now: datetime, limit: int | None = None) -> pl.DataFrame:
    """The rows of `names` to check at `now`: never verified first, then the longest overdue, then what more feeds list.

    In: `name: String`, `status: String` (null: never verified), `checked: Datetime[us, UTC]` and optionally
    `since` of the same type (without it a denial is a day old) and `feeds: integer`, how many list it. Equals are
    sorted by name. Out: the same columns; others pass through.
    A `checked` in the future (the clock went back) is due.
    """
    import polars as pl

    moment = pl.Datetime("us", "UTC")
    checked = pl.col("checked").cast(moment)
    since = pl.col("since").cast(moment) if "since" in names.columns else checked
    most = ["feeds"] if "feeds" in names.columns else []
    present = pl.lit(now).cast(moment)
    never = pl.col("status").is_null() | pl.col("checked").is_null()
    when = pl.when(~never).then(checked + _wait(checked - since)).alias("_due")  # null sorts first
    chosen = (
        names.with_columns(when)
        .filter(never | (pl.col("_due") <= present) | (checked > present))
        .sort("_due", *most, "name", descending=[False, *(True for _ in most), False], nulls_last=False)
        .drop("_due")
    )
    return chosen if limit is None else chosen.head(limit)


def questions_a_day(names: pl.DataFrame, now: datetime) -> float:
    """How many checks a day keep the verdicts of `names` fresh: columns as of `due`, one row a verified name."""
    import polars as pl

    moment = pl.Datetime("us", "UTC")
    wait = _wait(pl.lit(now).cast(moment) - pl.col("since").cast(moment))
    days = names.select((pl.lit(DAY, pl.Duration("us")) / wait).sum()).item()
    return float(days or 0)


def _wait(held: pl.Expr) -> pl.Expr:
    """How long a verdict stays fresh that has stood for `held`.

    Live, sinkholed or parked a week. Denied as long again as it has been denied, one day to 30, which doubles the wait
    each time and needs no counter. Anything else a day.
    """
    import polars as pl

    return (
        pl.when(pl.col("status").is_in([status.value for status in _ANSWERS]))
        .then(pl.lit(LIVE_EVERY, pl.Duration("us")))
        .when(pl.col("status") == Status.NXDOMAIN.value)
        .then(held.fill_null(LEAST_WAIT).clip(LEAST_WAIT, MOST_WAIT))
        .otherwise(pl.lit(DAY, pl.Duration("us")))
    )


def is_registry(authority: str | None, registrable: str) -> bool:
    """Whether the SOA owner of a denial lies strictly above the registrable domain: the registry's word."""
    if authority is None:
        return False
    return authority == "." or registrable.endswith("." + authority)


def is_dead(
    status: Status,
    denials: int,
    since: datetime,
    checked: datetime,
    authority: str | None,
    registrable: str,
) -> bool:
    """Whether a name counts as dead: denied by its registry `DEAD_AFTER` times in a row, over at least `DEAD_OVER`.

    `since` and `checked` are the first and last of those `denials`, all with this `authority`: the record
    must begin a new interval when status or authority changes, so that a host's own name server adds nothing.
    """
    return (
        status is Status.NXDOMAIN
        and is_registry(authority, registrable)
        and denials >= DEAD_AFTER
        and checked - since >= DEAD_OVER
    )
