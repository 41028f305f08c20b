"""A moment of the record, of now or of then, and what was in force at it."""

from __future__ import annotations

import msgspec


class Moment(msgspec.Struct, frozen=True):
    """A state of the record: after `run` was written, at time `at`; no `run` means now.

    `judged`: as of when it was judged what has expired, which is the start of its run. `ruled`: the run, and the time,
    of the rules that were laid over this state later, where a release was held. `release`: the one that was made of
    this state, by its own settings.
    """

    run: int | None
    at: str
    judged: str
    ruled: tuple[int, str] | None = None
    release: int | None = None

    @property
    def of_rules(self) -> Moment:
        return Moment(*self.ruled, self.judged) if self.ruled else self


def open_at(moment: Moment) -> tuple[str, tuple[int, ...]]:
    """The condition that the interval `x` (`since`, `until`: runs) was open then, and its parameters."""
    if moment.run is None:
        return "x.until IS NULL", ()
    return "x.since <= ? AND (x.until IS NULL OR x.until > ?)", (moment.run, moment.run)
