"""Settled names on their way out: kept back while resolvers are tested, then handed over in batches."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from blocklist.verify.classify import Status, Verdict
from blocklist.verify.endpoint import Resolver
from blocklist.verify.results import Row, frame_schema, framed

if TYPE_CHECKING:
    import polars as pl


class Settled:
    """`rows` were settled of late; `held` wait until the resolvers have answered the control names."""

    def __init__(
        self, resolvers: Sequence[Resolver], batch: int, on_batch: Callable[[pl.DataFrame], None] | None
    ) -> None:
        self.resolvers, self.batch, self.on_batch = resolvers, batch, on_batch
        self.rows: list[Row] = []
        self.held: list[Row] = []
        self.frames: list[pl.DataFrame] = []
        self.verdicts: Counter[str] = Counter()
        self._who: dict[tuple[int, ...], str | None] = {(): None}

    def add(self, text: str, verdict: Verdict) -> bool:
        """Keep a verdict; is a batch full?"""
        status, addresses, authority, rcode, resolvers, detail = verdict
        count = None if status is Status.UNKNOWN else len(addresses)
        self.rows.append(Row(text, status._value_, count, authority, rcode, resolvers, detail, time.time_ns() // 1000))
        self.verdicts[status._value_] += 1
        if resolvers not in self._who:
            self._who[resolvers] = " ".join(str(self.resolvers[index]) for index in resolvers)
        return len(self.rows) >= self.batch

    def hold(self) -> None:
        """Let what was settled of late wait."""
        self.held, self.rows = [*self.held, *self.rows], []

    def without(self, resolver: int) -> list[str]:
        """Forget what rests on the word of a resolver and was not handed over: those names."""
        gone = [row for row in (*self.held, *self.rows) if resolver in row.resolvers]
        self.held = [row for row in self.held if resolver not in row.resolvers]
        self.rows = [row for row in self.rows if resolver not in row.resolvers]
        for row in gone:
            self.verdicts[row.status] -= 1
        return [row.text for row in gone]

    def deliver(self) -> None:
        """Hand over what is held, a batch at a time."""
        rows, self.held = self.held, []
        for start in range(0, len(rows), self.batch):
            frame = framed(rows[start : start + self.batch], self._who)
            self.frames.append(frame)
            if self.on_batch is not None:
                # One that failed is not called again on the way out.
                on_batch, self.on_batch = self.on_batch, None
                on_batch(frame)
                self.on_batch = on_batch

    def frame(self) -> pl.DataFrame:
        """Everything that was handed over."""
        import polars as pl

        return pl.concat(self.frames) if self.frames else pl.DataFrame(schema=frame_schema())
