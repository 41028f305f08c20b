"""The engine on other machines: names are dealt out to Dask workers, each with resolvers of its own.

One lot of names at a time to each worker, so that the rate caps hold; a lost worker's lot goes to another. The engine
runs unchanged in the worker: what comes back is the frame of `blocklist.verify.results`, with `@WORKER` behind each
resolver in the column `resolver`.
"""

from __future__ import annotations

import importlib
import os
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from blocklist.errors import BlocklistError
from blocklist.verify.endpoint import parse_resolver
from blocklist.verify.loop import run
from blocklist.verify.preflight import preflight
from blocklist.verify.results import Resolution, ResolverReport, Tally, frame_schema
from blocklist.verify.task import Task, ask

if TYPE_CHECKING:
    import polars as pl

LOT: Final = 5_000  # names dealt out at once
NO_WORKER: Final = 15.0  # seconds without any worker before a run gives up
RESOLVERS: Final = "BLOCKLIST_RESOLVERS"
"""Environment of a worker: the resolvers it asks, space between, instead of those of the run."""


@dataclass
class _Lot:
    """Names dealt out, and what the workers of each vantage made of them."""

    names: list[str]
    seen: dict[str, pl.DataFrame] = field(default_factory=dict)
    out: set[str] = field(default_factory=set)


def work(names: Sequence[str], task: Task) -> Resolution:
    """Run in the worker: test the resolvers from here, then ask. Raises BlocklistError when none can be trusted."""
    own = tuple(parse_resolver(text) for text in os.environ.get(RESOLVERS, "").split())
    resolvers = own or task.resolvers
    tested = run(preflight(resolvers, task.control, rate=task.rate, timeout=task.timeout))
    result = run(ask(names, replace(task, resolvers=tested.usable, keep_case=tested.keep_case)))
    for one, why in tested.dropped:
        result.summary.resolvers.append(ResolverReport(str(one), 0, 0, why))
    return result


def resolve_on(
    scheduler: str,
    names: Sequence[str],
    task: Task,
    *,
    vantages: int = 1,
    on_batch: Callable[[pl.DataFrame], None] | None = None,
    deadline: float | None = None,
    lot: int = LOT,
) -> Resolution:
    """`resolve_all` on the workers of a Dask scheduler (`tcp://ADDRESS:PORT` or `tls://…`).

    `task.rate` is for each resolver over all workers; those with resolvers of their own get the same share.
    `vantages` workers are put the same names: bad news must be the word of all of them, good news of one. Frames
    go to `on_batch` a lot at a time. Raises BlocklistError without Dask, scheduler or workers, or when no worker has
    a resolver to be trusted.
    """
    if not re.fullmatch(r"(tcp|tls|ws|wss)://[^\s/]+", scheduler):
        raise BlocklistError(f"{scheduler!r} is no scheduler", hint="write tcp://ADDRESS:PORT or tls://ADDRESS:PORT")
    try:
        distributed = importlib.import_module("distributed")
    except ImportError:
        raise BlocklistError(
            "verification on other machines needs dask.distributed, which is not installed",
            hint="pip install 'blocklist[distributed]', here and on the workers",
        ) from None
    try:
        client = distributed.Client(scheduler, timeout=10, set_as_default=False)
    except OSError as error:
        raise BlocklistError(
            f"the scheduler {scheduler} does not answer: {error}", hint="start it: dask scheduler"
        ) from None
    with client, client.as_current():
        return _Dealer(client, names, task, vantages, on_batch, deadline, lot).run()


class _Dealer:
    def __init__(
        self,
        client: Any,
        names: Sequence[str],
        task: Task,
        vantages: int,
        on_batch: Callable[[pl.DataFrame], None] | None,
        deadline: float | None,
        lot: int,
    ) -> None:
        self.client, self.task, self.vantages = client, task, vantages
        self.on_batch, self.deadline = on_batch, deadline
        self.lots = deque(_Lot(list(names[start : start + lot])) for start in range(0, len(names), lot))
        self.busy: dict[str, tuple[Any, _Lot]] = {}
        self.refused: dict[str, str] = {}
        self.lost: Counter[str] = Counter()
        self.stopped: str | None = None
        self.manned = time.monotonic()
        self.tally = Tally(len(names), self.manned)

    def run(self) -> Resolution:
        try:
            while self.lots or self.busy:
                now = time.monotonic()
                if self.deadline is not None and now >= self.deadline:
                    self.stopped = "deadline"
                    break
                workers = self._workers(now)
                if self.stopped is not None:
                    break
                self._notice_lost(workers)
                self._deal(workers, now)
                self._collect()
        finally:
            self.client.cancel([future for future, _ in self.busy.values()])
        for lot in [*self.lots, *{id(lot): lot for _, lot in self.busy.values()}.values()]:
            self._finish(lot)  # cut short: what one vantage has already seen may be good news
        notes = dict(self.refused)
        notes |= {name: f"worker lost {n} times, its names were asked again elsewhere" for name, n in self.lost.items()}
        self.tally.stopped = self.stopped
        return self.tally.resolution(notes)

    def _workers(self, now: float) -> dict[str, str]:
        """Address and name of the workers that can be used."""
        info: Mapping[str, Any] = self.client.scheduler_info(n_workers=-1)["workers"]
        workers = {address: str(worker["name"]) for address, worker in info.items()}
        usable = {address: name for address, name in workers.items() if address not in self.refused}
        if usable:
            self.manned = now
        elif self.refused and workers:
            if not self.tally.frames and not self.busy:
                told = "; ".join(self.refused.values())
                raise BlocklistError(
                    f"no worker has a resolver that can be trusted: {told}",
                    hint=f"set verify.resolvers here, or {RESOLVERS} in the environment of each worker",
                )
            self.stopped = "no worker has a resolver that can be trusted any more"
        elif now - self.manned > NO_WORKER:
            if not self.tally.frames:
                raise BlocklistError("the scheduler has no workers", hint="start some: dask worker tcp://ADDRESS:PORT")
            self.stopped = "no worker is left"
        return usable

    def _notice_lost(self, workers: Mapping[str, str]) -> None:
        for address in [address for address in self.busy if address not in workers]:
            future, lot = self.busy.pop(address)
            self.client.cancel([future])
            lot.out.discard(address)
            self.lost[address] += 1
            if lot not in self.lots:
                self.lots.appendleft(lot)

    def _deal(self, workers: Mapping[str, str], now: float) -> None:
        share = max(1, self.task.rate // max(1, len(workers))) if self.task.rate else 0
        seconds = None if self.deadline is None else self.deadline - now
        vantages = min(self.vantages, max(1, len(workers)))
        for address in workers:
            if address in self.busy:
                continue
            for lot in self.lots:
                if address not in lot.seen and address not in lot.out and len(lot.seen) + len(lot.out) < vantages:
                    task = replace(self.task, rate=share, seconds=seconds)
                    # Pinned: Dask would move it to where another lot already uses up the rate.
                    future = self.client.submit(
                        work, lot.names, task, workers=[address], allow_other_workers=False, pure=False
                    )
                    lot.out.add(address)
                    self.busy[address] = (future, lot)
                    break
        for lot in [lot for lot in self.lots if not lot.out and len(lot.seen) >= vantages]:
            self.lots.remove(lot)  # a worker less than was hoped for
            self._finish(lot)

    def _collect(self) -> None:
        futures = [future for future, _ in self.busy.values()]
        if not futures:
            time.sleep(0.2)
            return
        try:
            importlib.import_module("distributed").wait(futures, timeout=0.5, return_when="FIRST_COMPLETED")
        except TimeoutError:
            return
        for address, (future, lot) in list(self.busy.items()):
            if not future.done():
                continue
            del self.busy[address]
            lot.out.discard(address)
            if future.status == "finished":
                self._take(address, lot, future.result())
            elif future.status == "error" and isinstance(error := future.exception(), BlocklistError):
                self.refused[address] = f"{address}: {error.message}"
            elif future.status == "error" and "Killed" not in type(error).__name__:
                raise error
            else:
                self.lost[address] += 1

    def _take(self, address: str, lot: _Lot, result: Resolution) -> None:
        import polars as pl

        lot.seen[address] = result.frame.with_columns(
            pl.col("resolver").str.replace_all(" ", f"@{address} ", literal=True) + f"@{address}"
        )
        self.tally.add(result.summary, address)
        if len(lot.seen) >= self.vantages:
            self.lots.remove(lot)
            self._finish(lot)

    def _finish(self, lot: _Lot) -> None:
        if not lot.seen:
            return
        frame = merged(list(lot.seen.values()), min(self.vantages, len(lot.seen)))
        lot.seen = {}
        self.tally.frames.append(frame)
        if self.on_batch is not None and frame.height:
            self.on_batch(frame)


def merged(frames: Sequence[pl.DataFrame], vantages: int) -> pl.DataFrame:
    """One verdict a name out of those of several vantage points, columns as of `frame_schema()`.

    One that says `live` is believed; anything else must be said by all `vantages`, else it is `unknown`.
    """
    import polars as pl

    if len(frames) == 1:
        return frames[0]
    together = pl.concat(frames)
    agreed = (pl.col("status").n_unique() == 1) & (pl.len() >= vantages)
    live = (pl.col("status") == "live").any()
    first = pl.all().exclude("name").sort_by(pl.col("status") != "live", maintain_order=True).first()
    authorities = pl.col("authority").n_unique() == 1
    out = together.group_by("name", maintain_order=True).agg(
        first,
        agreed.alias("_agreed"),
        live.alias("_live"),
        authorities.alias("_authorities"),
        pl.col("resolver").drop_nulls().str.join(" ").alias("_who"),
    )
    kept = pl.col("_live") | pl.col("_agreed")
    return out.with_columns(
        pl.when(kept).then("status").otherwise(pl.lit("unknown")).alias("status"),
        pl.when(kept).then("addresses").alias("addresses"),
        # Words of different zones are nobody's word.
        pl.when(kept & pl.col("_authorities")).then("authority").alias("authority"),
        pl.when(kept).then("detail").alias("detail"),
        pl.when(pl.col("_live")).then("resolver").otherwise("_who").alias("resolver"),
    ).select(list(frame_schema()))
