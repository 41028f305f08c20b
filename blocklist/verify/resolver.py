"""The engine: many names through a few resolvers by one asyncio loop, one verdict a name."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from blocklist.verify.classify import Observation, Status, Verdict, classify, next_question
from blocklist.verify.endpoint import Resolver, parse_resolver
from blocklist.verify.wire import (
    AAAA,
    FORMERR,
    TIMED_OUT,
    A,
    Answer,
    Outcome,
    answers,
    encode_name,
    encode_query,
    encode_question,
    rcode_text,
    read_reply,
)

if TYPE_CHECKING:
    import polars as pl

_T = TypeVar("_T")

SOCKETS: Final = 4  # a resolver; each has its own random port and 65,536 ids
DRAIN: Final = 128  # replies read from one socket before the others get their turn
FIRST_WINDOW: Final = 16.0  # queries under way to a resolver at the start, so that no run opens with a burst
LEAST_WINDOW: Final = 16.0  # what any resolver bears; keeps a lossy path moving
TICK: Final = 0.01  # seconds between looks at clocks: time-outs, rate, deadline
BURST: Final = 0.02  # seconds' worth of queries that the rate cap lets through at once
TOLERATED_LOSS: Final = 0.02  # below this a loss says nothing about the window
GIVE_UP: Final = 30  # losses in a row, over three time-outs at least, after which a resolver is dropped
TCP_AT_ONCE: Final = 16  # connections to one resolver
FLUSH_EVERY: Final = 5.0  # seconds after which learned rows are handed over even if the batch is small


@dataclass(frozen=True, slots=True)
class ResolverReport:
    """One resolver's run: queries sent to it, lost (no answer in time), and why it was dropped."""

    address: str
    sent: int
    lost: int
    dropped: str | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """The run in figures: `rate` is queries a second; `unfinished` names were not settled and stay due.

    `stopped` says why a run ended early ("deadline", "no resolver answers any more"), else None.
    """

    checked: int
    verdicts: dict[str, int]
    queries: int
    seconds: float
    rate: float
    resolvers: list[ResolverReport]
    unfinished: int = 0
    stopped: str | None = None


class Resolution(NamedTuple):
    """`frame` as `frame_schema()` says, a row for each settled name, in the order they were settled."""

    frame: pl.DataFrame
    summary: Summary


def frame_schema() -> dict[str, pl.DataType]:
    """Columns of a result, one row a name.

    `name`, `status`, `addresses` (how many A and AAAA; null if unknown), `authority` (SOA owner of a denial),
    `rcode` (IANA mnemonic), `resolver` (whose word it is, space between), `checked` (UTC).
    """
    import polars as pl

    return {
        "name": pl.String(),
        "status": pl.String(),
        "addresses": pl.Int32(),
        "authority": pl.String(),
        "rcode": pl.String(),
        "resolver": pl.String(),
        "checked": pl.Datetime("us", "UTC"),
    }


async def resolve_all(
    names: Sequence[str],
    resolvers: Sequence[Resolver],
    *,
    rate: int = 2000,
    timeout: float = 2.0,  # noqa: ASYNC109 - of one query, not of the call
    attempts: int = 3,
    window: int = 500,
    on_batch: Callable[[pl.DataFrame], None] | None = None,
    batch: int = 2000,
    deadline: float | None = None,
) -> Resolution:
    """Ask the resolvers for A and AAAA of each name and settle a verdict.

    `names` are normalised (lower-case A-labels). `rate` is queries a second to each resolver (0: no cap),
    `timeout` seconds a query, `attempts` queries a type before giving up, `window` the most queries under way
    to a resolver. `deadline` is a `time.monotonic()` after which nothing more is asked; names not settled by
    then have no row.

    `on_batch` gets frames of up to `batch` rows as they come (and what is left at the end, at the deadline,
    on cancellation or error), called in the event loop, so that it may commit them through a connection of
    the caller's thread. Every settled name is handed over exactly once.

    Raises ValueError without resolvers, and whatever `on_batch` raises. Network errors are verdicts or
    reasons in the summary, never exceptions.
    """
    if not resolvers:
        raise ValueError("no resolvers to ask")
    engine = _Engine(names, tuple(dict.fromkeys(resolvers)), rate, timeout, attempts, window, on_batch, batch, deadline)
    return await engine.run()


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """`asyncio.run`, on uvloop where it is installed (half as many microseconds a wake-up)."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


class _Name:
    """A name under way."""

    __slots__ = ("encoded", "seen", "text", "waiting")

    def __init__(self, text: str, encoded: bytes) -> None:
        self.text = text
        self.encoded = encoded
        self.seen: list[Observation] = []
        self.waiting = 0


class _Pending(NamedTuple):
    """A query on its way. Compared by identity: an id may be in use again when its old time-out comes."""

    name: _Name
    qtype: int
    question: bytes


@dataclass(slots=True, eq=False)
class _Channel:
    """One connected UDP socket: the kernel discards what comes from any other address or port."""

    socket: socket.socket
    pending: dict[int, _Pending] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Upstream:
    """A resolver in this run: its sockets, what waits for it, how fast it may go."""

    index: int
    resolver: Resolver
    most: float
    tokens: float
    window: float = FIRST_WINDOW
    starting: bool = True  # slow start: the window doubles in a round trip until the first loss
    channels: list[_Channel] = field(default_factory=list)
    turn: int = 0
    queue: deque[tuple[_Name, int]] = field(default_factory=deque)
    expiry: deque[tuple[float, _Channel, int, _Pending]] = field(default_factory=deque)
    flying: int = 0
    sent: int = 0
    lost: int = 0
    replied: int = 0  # since the window was last judged
    missed: int = 0  # 〃
    lost_in_a_row: int = 0
    heard: float = 0.0
    edns: bool = True
    error: str | None = None
    dropped: str | None = None
    tcp: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(TCP_AT_ONCE))


class _Engine:
    def __init__(
        self,
        names: Sequence[str],
        resolvers: Sequence[Resolver],
        rate: int,
        timeout: float,
        attempts: int,
        window: int,
        on_batch: Callable[[pl.DataFrame], None] | None,
        batch: int,
        deadline: float | None,
    ) -> None:
        self.total = len(names)
        self.names: Iterator[str] = iter(names)
        self.exhausted = not names
        self.rate, self.timeout, self.attempts = rate, timeout, attempts
        self.on_batch, self.batch, self.deadline = on_batch, batch, deadline
        # The quorum holds for the whole run: a resolver that falls silent on the way must not lower it.
        self.quorum = min(2, len(resolvers))
        first = 1.0 if rate else float("inf")
        most = float(max(1, window))
        self.upstreams = [
            _Upstream(index, resolver, most, first, min(FIRST_WINDOW, most)) for index, resolver in enumerate(resolvers)
        ]
        self.live = list(self.upstreams)
        self.most_active = int(2 * most * len(resolvers))
        self.active = 0
        self.stopped: str | None = None
        self.ids: Iterator[int] = iter(())
        self.who: dict[tuple[int, ...], str | None] = {(): None}
        self.rows: list[tuple[str, str, int | None, str | None, str | None, str | None, int]] = []
        self.frames: list[pl.DataFrame] = []
        self.verdicts: Counter[str] = Counter()
        self.connections: set[asyncio.Task[None]] = set()

    async def run(self) -> Resolution:
        self.loop = asyncio.get_running_loop()
        self.finished: asyncio.Future[None] = self.loop.create_future()
        self.started = self.ticked = self.flushed = time.monotonic()
        timer = None
        try:
            for upstream in self.upstreams:
                self._open(upstream)
            timer = self.loop.create_task(self._clock())
            self._pump()
            await self.finished
        finally:
            # Reached on cancellation too, so that what was learned is handed over.
            self._close()
            if timer is not None:
                timer.cancel()
            for task in self.connections:
                task.cancel()
            await asyncio.gather(*self.connections, *([timer] if timer else []), return_exceptions=True)
            self._flush()
        return Resolution(self._frame(), self._summary())

    # Sockets

    def _open(self, upstream: _Upstream) -> None:
        """Connected sockets, not asyncio transports: one wake-up then reads every reply that is there."""
        family = socket.AF_INET6 if ":" in upstream.resolver.address else socket.AF_INET
        upstream.heard = self.started
        try:
            for _ in range(SOCKETS):
                udp = socket.socket(family, socket.SOCK_DGRAM)
                upstream.channels.append(_Channel(udp))
                udp.setblocking(False)
                udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
                udp.connect((upstream.resolver.address, upstream.resolver.port))
        except OSError as error:
            self._drop(upstream, f"can't be reached: {error.strerror or error}")
            return
        for channel in upstream.channels:
            self.loop.add_reader(channel.socket.fileno(), self._readable, upstream, channel)

    def _close(self) -> None:
        for upstream in self.upstreams:
            self._disconnect(upstream)

    def _disconnect(self, upstream: _Upstream) -> None:
        for channel in upstream.channels:
            if channel.socket.fileno() >= 0:
                self.loop.remove_reader(channel.socket.fileno())
                channel.socket.close()

    # Sending

    def _pump(self) -> None:
        """Send what windows and rates allow: questions that wait for their resolver, then new names."""
        now = time.monotonic()
        for upstream in self.live:
            room = min(upstream.window - upstream.flying, upstream.tokens)
            while room >= 1 and self._send_next(upstream, now):
                room -= 1
        if self.exhausted and not self.active and not self.finished.done():
            self.finished.set_result(None)

    def _send_next(self, upstream: _Upstream, now: float) -> bool:
        if upstream.queue:
            name, qtype = upstream.queue.popleft()
        else:
            begun = self._begin()
            if begun is None:
                return False
            name, qtype = begun, A
            # The two types go to two resolvers where possible: two denials then make a quorum at once.
            self._partner(upstream).queue.append((name, AAAA))
            name.waiting = 2
        return self._send(upstream, name, qtype, now)

    def _begin(self) -> _Name | None:
        if self.active >= self.most_active:
            return None
        for text in self.names:
            try:
                name = _Name(text, encode_name(text))
            except ValueError:
                self._settle(text, Verdict(Status.UNKNOWN))  # never asked: DNS can't carry it
                continue
            self.active += 1
            return name
        self.exhausted = True
        return None

    def _partner(self, upstream: _Upstream) -> _Upstream:
        for step in range(1, len(self.upstreams)):
            other = self.upstreams[(upstream.index + step) % len(self.upstreams)]
            if other.dropped is None and len(other.queue) < 2 * other.window:
                return other
        return upstream

    def _send(self, upstream: _Upstream, name: _Name, qtype: int, now: float) -> bool:
        question = encode_question(name.encoded, qtype)
        pending = _Pending(name, qtype, question)
        upstream.turn = turn = (upstream.turn + 1) % len(upstream.channels)
        channel = upstream.channels[turn]
        ident = self._ident(channel.pending)
        query = encode_query(ident, question, edns=upstream.edns)
        try:
            channel.socket.send(query)
        except BlockingIOError:
            upstream.queue.appendleft((name, qtype))
            return False
        except OSError as error:
            # Often the echo of an earlier query (ICMP). It counts as sent, and as lost when its time is over:
            # a resolver that restarts must not use up the attempts of every name in a moment.
            upstream.error = error.strerror or str(error)
        channel.pending[ident] = pending
        upstream.expiry.append((now + self.timeout, channel, ident, pending))
        upstream.flying += 1
        upstream.sent += 1
        upstream.tokens -= 1
        return True

    def _ident(self, taken: dict[int, _Pending]) -> int:
        """A random id that is free: from the system's generator, in bulk (RFC 5452 §9.2)."""
        while True:
            for ident in self.ids:
                if ident not in taken:
                    return ident
            self.ids = iter(array("H", os.urandom(8192)))

    # Receiving

    def _readable(self, upstream: _Upstream, channel: _Channel) -> None:
        try:
            self._drain(upstream, channel)
            self._pump()
        except BaseException as error:  # out of a callback the loop would only log it
            self._fail(error)

    def _drain(self, upstream: _Upstream, channel: _Channel) -> None:
        receive, pending = channel.socket.recv, channel.pending
        for _ in range(DRAIN):
            try:
                data = receive(4096)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                upstream.error = error.strerror or str(error)
                continue
            if len(data) < 12:
                continue
            ident = data[0] << 8 | data[1]
            query = pending.get(ident)
            if query is None or not answers(data, query.question):
                # Late or forged: no answer, but a sign of life if nothing waits for that id any more.
                if query is None:
                    self._alive(upstream)
                continue
            del pending[ident]
            upstream.flying -= 1
            upstream.replied += 1
            if upstream.starting:
                upstream.window = min(upstream.most, upstream.window + 1)
            else:
                upstream.window = min(upstream.most, upstream.window + 2 / upstream.window)
            self._alive(upstream)
            answer = read_reply(data, query.question, query.name.text)
            if answer.outcome is Outcome.TRUNCATED:
                self._ask_by_tcp(upstream, query)
            elif answer.rcode == FORMERR and upstream.edns:
                upstream.edns = False  # RFC 6891 §7: it does not know EDNS
                upstream.queue.append((query.name, query.qtype))
            else:
                self._learn(upstream, query.name, query.qtype, answer)
            if upstream.dropped is not None or self.finished.done():
                return

    def _alive(self, upstream: _Upstream) -> None:
        upstream.lost_in_a_row = 0
        upstream.heard = time.monotonic()

    def _ask_by_tcp(self, upstream: _Upstream, query: _Pending) -> None:
        task = self.loop.create_task(self._tcp(upstream, query))
        self.connections.add(task)
        task.add_done_callback(self.connections.discard)

    async def _tcp(self, upstream: _Upstream, query: _Pending) -> None:
        """One question over a connection of its own (RFC 7766 §8: two octets of length, then the message)."""
        answer = TIMED_OUT
        async with upstream.tcp:
            upstream.sent += 1
            upstream.tokens -= 1
            try:
                async with asyncio.timeout(2 * self.timeout):
                    answer = await self._exchange(upstream, query)
            except (OSError, TimeoutError, EOFError):
                upstream.lost += 1
        try:
            self._learn(upstream, query.name, query.qtype, answer)
            self._pump()
        except BaseException as error:
            self._fail(error)

    async def _exchange(self, upstream: _Upstream, query: _Pending) -> Answer:
        resolver, ident = upstream.resolver, self._ident({})
        reader, writer = await asyncio.open_connection(resolver.address, resolver.port)
        try:
            message = encode_query(ident, query.question, edns=upstream.edns)
            writer.write(len(message).to_bytes(2) + message)
            data = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
        finally:
            writer.close()
        if len(data) < 12 or data[:2] != ident.to_bytes(2) or not answers(data, query.question):
            return Answer(Outcome.FAILED)
        answer = read_reply(data, query.question, query.name.text)
        return Answer(Outcome.FAILED) if answer.outcome is Outcome.TRUNCATED else answer

    # Learning

    def _learn(self, upstream: _Upstream, name: _Name, qtype: int, answer: Answer) -> None:
        name.seen.append(Observation(upstream.index, qtype, answer))
        name.waiting -= 1
        if name.waiting:
            return
        usable = [other.index for other in self.live]
        usable.sort(key=lambda index: len(self.upstreams[index].queue))
        question = next_question(name.seen, self.quorum, usable, self.attempts)
        if question is not None:
            name.waiting = 1
            self.upstreams[question.resolver].queue.append((name, question.qtype))
            return
        if self.stopped is not None:
            return  # cut short: what is known of it is not a verdict
        self.active -= 1
        self._settle(name.text, classify(name.seen, self.quorum))

    def _settle(self, text: str, verdict: Verdict) -> None:
        status, addresses, authority, rcode, resolvers = verdict
        who = self.who.get(resolvers)
        if who is None and resolvers:
            who = self.who[resolvers] = " ".join(str(self.upstreams[index].resolver) for index in resolvers)
        count = None if status is Status.UNKNOWN else len(addresses)
        checked = time.time_ns() // 1000
        self.rows.append((text, status.value, count, authority, rcode_text(rcode), who, checked))
        self.verdicts[status.value] += 1
        if len(self.rows) >= self.batch:
            self._flush()

    def _flush(self) -> None:
        self.flushed = time.monotonic()
        if not self.rows:
            return
        import polars as pl

        frame = pl.DataFrame(self.rows, schema=frame_schema(), orient="row")
        self.rows = []
        self.frames.append(frame)
        if self.on_batch is not None:
            on_batch, self.on_batch = (
                self.on_batch,
                None,
            )  # one that failed is not called again on the way out
            on_batch(frame)
            self.on_batch = on_batch

    # Time

    async def _clock(self) -> None:
        try:
            while not self.finished.done():
                await asyncio.sleep(TICK)
                self._tick(time.monotonic())
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._fail(error)

    def _tick(self, now: float) -> None:
        if self.deadline is not None and now >= self.deadline:
            self._stop("deadline")
            return
        if self.rate:
            earned = (now - self.ticked) * self.rate
            for upstream in self.live:
                upstream.tokens = min(upstream.tokens + earned, max(1.0, self.rate * BURST))
        self.ticked = now
        for upstream in list(self.live):
            if upstream.expiry and upstream.expiry[0][0] <= now:
                # After a stall (a slow commit) replies may be waiting in the kernel: they are not lost.
                for channel in upstream.channels:
                    self._drain(upstream, channel)
                self._expire(upstream, now)
                self._judge(upstream, now)
        if now - self.flushed >= FLUSH_EVERY:
            self._flush()
        self._pump()

    def _expire(self, upstream: _Upstream, now: float) -> None:
        expiry = upstream.expiry
        while expiry and expiry[0][0] <= now:
            _, channel, ident, query = expiry.popleft()
            if channel.pending.get(ident) is not query:
                continue
            del channel.pending[ident]
            upstream.flying -= 1
            upstream.lost += 1
            upstream.missed += 1
            upstream.lost_in_a_row += 1
            self._learn(upstream, query.name, query.qtype, TIMED_OUT)

    def _judge(self, upstream: _Upstream, now: float) -> None:
        """Shrink the window by half the share that was lost, as RFC 8257 §3.3 does with marks.

        Loss by chance takes little from it, a resolver that drowns halves it each time.
        """
        total = upstream.replied + upstream.missed
        if total >= LEAST_WINDOW:
            loss = upstream.missed / total
            upstream.replied = upstream.missed = 0
            if loss > TOLERATED_LOSS:
                upstream.starting = False
                floor = min(LEAST_WINDOW, upstream.most)
                upstream.window = max(floor, upstream.window * (1 - loss / 2))
        if upstream.lost_in_a_row >= GIVE_UP and now - upstream.heard >= 3 * self.timeout:
            why = f" ({upstream.error})" if upstream.error else ""
            self._drop(upstream, f"no answer to {upstream.lost_in_a_row} queries in a row{why}")

    # Ending

    def _drop(self, upstream: _Upstream, reason: str) -> None:
        """Go on without a resolver; what was on its way to it goes to the others."""
        upstream.dropped = reason
        self.live.remove(upstream)
        self._disconnect(upstream)
        if not self.live:
            self._stop("no resolver answers any more")
            return
        cut = [(query.name, query.qtype) for channel in upstream.channels for query in channel.pending.values()]
        for channel in upstream.channels:
            channel.pending.clear()
        cut.extend(upstream.queue)
        upstream.queue.clear()
        upstream.expiry.clear()
        upstream.flying = 0
        for turn, question in enumerate(cut):
            self.live[turn % len(self.live)].queue.append(question)

    def _stop(self, reason: str) -> None:
        self.stopped = reason
        if not self.finished.done():
            self.finished.set_result(None)

    def _fail(self, error: BaseException) -> None:
        if not self.finished.done():
            self.finished.set_exception(error)

    def _frame(self) -> pl.DataFrame:
        import polars as pl

        return pl.concat(self.frames) if self.frames else pl.DataFrame(schema=frame_schema())

    def _summary(self) -> Summary:
        seconds = time.monotonic() - self.started
        queries = sum(upstream.sent for upstream in self.upstreams)
        checked = self.verdicts.total()
        return Summary(
            checked=checked,
            verdicts={status.value: self.verdicts[status.value] for status in Status if self.verdicts[status.value]},
            queries=queries,
            seconds=seconds,
            rate=queries / seconds if seconds else 0.0,
            resolvers=[ResolverReport(str(u.resolver), u.sent, u.lost, u.dropped) for u in self.upstreams],
            unfinished=self.total - checked,
            stopped=self.stopped,
        )


__all__ = [
    "Resolution",
    "Resolver",
    "ResolverReport",
    "Summary",
    "frame_schema",
    "parse_resolver",
    "resolve_all",
    "run",
]
