"""What a run gives back: a frame of verdicts, and the run in figures."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from blocklist.verify.wire import rcode_text

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, slots=True)
class ResolverReport:
    """One resolver's run: queries sent to it, lost (no answer in time), and why it was dropped.

    `filtered`: replies that said of themselves that they are filtered (RFC 8914). `keeps_case`: does it repeat a
    question letter by letter? None where that was not looked at. `miscased`: replies refused since they did not,
    though it does: forged, or of another machine behind the same address.
    """

    address: str
    sent: int
    lost: int
    dropped: str | None = None
    filtered: int = 0
    keeps_case: bool | None = None
    miscased: int = 0


@dataclass(frozen=True, slots=True)
class Summary:
    """The run in figures: `rate` is queries a second; `unfinished` names were not settled and stay due.

    `stopped` says why a run ended early ("deadline", "no resolver answers any more"), else None. `short` says that so
    many resolvers were dropped on the way that the quorum can't be reached: denied names are `unknown` from then on.
    """

    checked: int
    verdicts: dict[str, int]
    queries: int
    seconds: float
    rate: float
    resolvers: list[ResolverReport]
    unfinished: int = 0
    stopped: str | None = None
    short: str | None = None


class Resolution(NamedTuple):
    """`frame` as `frame_schema()` says, a row for each settled name, in the order they were settled."""

    frame: pl.DataFrame
    summary: Summary


def frame_schema() -> dict[str, pl.DataType]:
    """Columns of a result, one row a name.

    `name`, `status`, `addresses` (how many A and AAAA; null if unknown), `authority` (SOA owner of a denial),
    `rcode` (IANA mnemonic), `resolver` (whose word it is, space between), `detail` (how a sinkhole or parking was
    known, and whether every name below the registrable domain answers), `checked` (UTC).
    """
    import polars as pl

    return {
        "name": pl.String(),
        "status": pl.String(),
        "addresses": pl.Int32(),
        "authority": pl.String(),
        "rcode": pl.String(),
        "resolver": pl.String(),
        "detail": pl.String(),
        "checked": pl.Datetime("us", "UTC"),
    }


class Row(NamedTuple):
    """A settled name: the columns of `frame_schema()` before they are text; `resolvers` are indices."""

    text: str
    status: str
    addresses: int | None
    authority: str | None
    rcode: int | None
    resolvers: tuple[int, ...]
    detail: str | None
    checked: int


def framed(rows: Sequence[Row], who: dict[tuple[int, ...], str | None]) -> pl.DataFrame:
    """`rows`, one at least, as a frame; `who` has the text for each combination of resolvers in them."""
    import polars as pl

    columns: list[Any] = [list(column) for column in zip(*rows, strict=True)]
    columns[4] = [rcode_text(rcode) for rcode in columns[4]]
    columns[5] = [who[resolvers] for resolvers in columns[5]]
    return pl.DataFrame(dict(zip(frame_schema(), columns, strict=True)), schema=frame_schema())


class Tally:
    """The results of several runs of the engine over parts of the same `total` names, as one."""

    def __init__(self, total: int, started: float) -> None:
        self.total, self.started = total, started
        self.frames: list[pl.DataFrame] = []
        self.reports: dict[str, ResolverReport] = {}
        self.queries = 0
        self.stopped: str | None = None
        self.short: str | None = None

    def add(self, summary: Summary, vantage: str = "") -> None:
        """Take in a summary; its resolvers go by `ADDRESS@VANTAGE` where there is one."""
        self.queries += summary.queries
        self.stopped = self.stopped or (summary.stopped if not vantage else None)
        if summary.short is not None:
            self.short = self.short or summary.short + (f" at {vantage}" if vantage else "")
        for report in summary.resolvers:
            name = f"{report.address}@{vantage}" if vantage else report.address
            before = self.reports.get(name, ResolverReport(name, 0, 0))
            self.reports[name] = ResolverReport(
                name,
                before.sent + report.sent,
                before.lost + report.lost,
                report.dropped or before.dropped,
                before.filtered + report.filtered,
                report.keeps_case if report.keeps_case is not None else before.keeps_case,
                before.miscased + report.miscased,
            )

    def resolution(self, notes: Mapping[str, str]) -> Resolution:
        """All frames and figures; `notes` on what was dropped besides resolvers, such as a worker."""
        import polars as pl

        frame = pl.concat(self.frames) if self.frames else pl.DataFrame(schema=frame_schema())
        seconds = time.monotonic() - self.started
        verdicts = dict(sorted(Counter(frame["status"].to_list()).items()))
        reports = [*self.reports.values(), *(ResolverReport(what, 0, 0, why) for what, why in notes.items())]
        rate = self.queries / seconds if seconds else 0.0
        left = self.total - frame.height
        return Resolution(
            frame,
            Summary(frame.height, verdicts, self.queries, seconds, rate, reports, left, self.stopped, self.short),
        )
