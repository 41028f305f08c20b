"""What exports will need, begun while the update before them is being recorded, which leaves a core idle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from functools import partial
from types import TracebackType

import polars as pl

from blocklist import clock
from blocklist.config import Config
from blocklist.grounds import Grounds
from blocklist.picture import Picture
from blocklist.publish.ahead import Ahead
from blocklist.publish.decided import Decided
from blocklist.rules import Rule, rules_in_force
from blocklist.store.record import Record


class Early:
    """Reads `ahead` of the record, and decides as it will be; `decided` gives that if it has become so."""

    def __init__(self, config: Config, record: Record) -> None:
        self._config, self._record = config, record
        self.ahead = Ahead(config, record)
        self._begun: Future[tuple[Grounds, Decided]] | None = None
        self._picture: Picture | None = None
        self._rows = 0

    def __enter__(self) -> Early:
        self.ahead.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ahead.__exit__(kind, error, trace)

    def settled(self, picture: Picture) -> Callable[[pl.DataFrame], None] | None:
        """Ask the record for all that decisions need but holds. What is given is called with the holds that will be in
        force, decides beside the caller and asks the record for nothing; None where that is not possible.
        """
        if not self.ahead.begun:
            return None
        picture.settled()
        record, policies = self._record, self._config.policies
        names = sorted({export.policy for export in self._config.exports.values()})
        rules = rules_in_force(record.connection, clock.now())
        listed, released, verdicts = picture.listed(), record.released_names(), record.verdict_names()

        def decide(holds: pl.DataFrame) -> tuple[Grounds, Decided]:
            grounds = Grounds(listed, holds, released, verdicts)
            decided = Decided(picture, record, policies, rules, keep=True, ahead=self.ahead, foreseen=grounds)
            for name in names if picture.preload() else ():
                decided.foresee(name)
            return grounds, decided

        def begin(holds: pl.DataFrame) -> None:
            self._begun = self.ahead.submit(partial(decide, holds))

        self._picture = picture
        return begin

    def recorded(self) -> None:
        """The update is recorded."""
        self._rows = self._record.connection.total_changes

    def decided(self, picture: Picture, rules: Sequence[Rule]) -> Decided | None:
        """What was decided for `picture`, once; None where there is nothing, or by another record or other `rules`."""
        begun, self._begun = self._begun, None
        if begun is None or picture is not self._picture:
            return None
        while wait([begun], timeout=0.2).not_done:
            pass  # in pieces, so that Ctrl-C is heard (Polars' handler has an endless wait resumed)
        picture.settled()
        # Whatever went wrong with it goes wrong again where it is told of the export that it concerns.
        with suppress(Exception):
            record, (foreseen, decided) = self._record, begun.result()
            # Of the record only this run writes; verdicts are many, and the update itself gives none.
            same = record.connection.total_changes == self._rows
            verdicts = foreseen.verdicts if same else record.verdict_names()
            now = Grounds(picture.listed(), record.open_holds(), record.released_names(), verdicts)
            if foreseen.same(now) and decided.rules == list(rules):
                decided.go_on()
                return decided
        return None
