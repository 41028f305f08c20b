"""The engine: many names through a few resolvers by one asyncio loop, one verdict a name."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import secrets
import socket
import sys
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from blocklist.verify.classify import Observation, Seen, Status, Verdict, classify, next_question, quick
from blocklist.verify.endpoint import Resolver, parse_resolver
from blocklist.verify.known import Known, Mark
from blocklist.verify.wire import (
    AAAA,
    FORMERR,
    NS,
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
SEGMENTS: Final = 64  # queries given to one socket at a time: what Linux takes in one call
UDP_SEGMENT: Final = 103  # linux/udp.h; Python has no name for it
BYTES: Final = sys.byteorder
CANT_SEGMENT: Final = (errno.EIO, errno.EINVAL, errno.EMSGSIZE, errno.ENOPROTOOPT, errno.EOPNOTSUPP)
DRAIN: Final = 128  # replies read from one socket before the others get their turn
FIRST_WINDOW: Final = 16.0  # queries under way to a resolver at the start, so that no run opens with a burst
LEAST_WINDOW: Final = 16.0  # what any resolver bears; keeps a lossy path moving
TICK: Final = 0.01  # seconds between looks at clocks: time-outs, rate, deadline
BURST: Final = 0.02  # seconds' worth of queries that the rate cap lets through at once
TOLERATED_LOSS: Final = 0.02  # below this a loss says nothing about the window
GIVE_UP: Final = 30  # losses in a row, over three time-outs at least, after which a resolver is dropped
TCP_AT_ONCE: Final = 16  # connections to one resolver
FLUSH_EVERY: Final = 5.0  # seconds after which learned rows are handed over even if the batch is small
HIDDEN: Final = 10  # names that a resolver hides, and their share of those that others see, before it is dropped
HIDDEN_SHARE: Final = 0.1
FILTERED: Final = 3  # names of which a resolver itself says that it filters them, before it is dropped


@dataclass(frozen=True, slots=True)
class ResolverReport:
    """One resolver's run: queries sent to it, lost (no answer in time), and why it was dropped.

    `filtered`: replies that said of themselves that they are filtered (RFC 8914).
    """

    address: str
    sent: int
    lost: int
    dropped: str | None = None
    filtered: int = 0


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
    known: Known | None = None,
    zone_of: Callable[[str], str | None] | None = None,
    control: Control | None = None,
) -> Resolution:
    """Ask the resolvers for A and AAAA of each name and settle a verdict.

    `names` are normalised (lower-case A-labels). `rate` is queries a second to each resolver (0: no cap),
    `timeout` seconds a query, `attempts` queries a type before giving up, `window` the most queries under way
    to a resolver. `deadline` is a `time.monotonic()` after which nothing more is asked; names not settled by
    then have no row.

    `known` tells sinkholes and parking from the living; without it only null routes are known. With `zone_of` (the
    registrable domain of a name) living names are asked about a level up, once for each such domain: its name
    servers where `known` has some, and for names below it a random one, which tells a wildcard zone.

    `control` keeps the resolvers under watch: before rows are handed over each resolver must still answer the
    control names rightly, and must not have hidden names that others see. One that does not is dropped with the
    reason, and names that rest on its word are asked again of the others.

    `on_batch` gets frames of up to `batch` rows as they come (and what is left at the end, at the deadline,
    on cancellation or error), called in the event loop, so that it may commit them through a connection of
    the caller's thread. Every settled name is handed over exactly once.

    Raises ValueError without resolvers, and whatever `on_batch` raises. Network errors are verdicts or
    reasons in the summary, never exceptions.
    """
    if not resolvers:
        raise ValueError("no resolvers to ask")
    import polars  # noqa: F401 - takes a quarter of a second, in which replies would go unread

    engine = _Engine(names, tuple(dict.fromkeys(resolvers)), rate, timeout, attempts, window, on_batch, batch, deadline)
    engine.known, engine.zone_of, engine.control = known or Known(), zone_of, control
    return await engine.run()


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """`asyncio.run`, on uvloop where it is installed (half as many microseconds a wake-up)."""
    thresholds = gc.get_threshold()
    # Millions of small tuples that are in no circle: looking through them again and again took a tenth of the time.
    gc.set_threshold(100_000, 50, 50)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(main)
    finally:
        gc.set_threshold(*thresholds)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop  # type: ignore[no-any-return,unused-ignore]


@dataclass(frozen=True, slots=True)
class Control:
    """Names whose answer is known: `exists` have an address, a random name below `missing` does not exist.

    `canaries` are names that only a resolver which loads our own list answers otherwise than with an address:
    they must be live as well, and failing them is reported as what it is. `lived` are listed names that were live
    when last asked: resolvers that see far fewer of them than expected hide what is listed.
    """

    exists: tuple[str, ...] = ("example.com",)
    missing: str = "com"
    canaries: tuple[str, ...] = ()
    lived: tuple[str, ...] = ()

    def invented(self) -> str:
        """A random name that can't exist."""
        return f"{secrets.token_hex(10)}.{self.missing.strip('.').lower()}".rstrip(".")


class _Name:
    """A name under way."""

    __slots__ = ("encoded", "seen", "text", "waiting")

    def __init__(self, text: str, encoded: bytes) -> None:
        self.text = text
        self.encoded = encoded
        self.seen: list[Seen] = []
        self.waiting = 0


class _Probe(_Name):
    """A question on the side, which makes no row; `then` gets the answer."""

    __slots__ = ("then", "tries")

    def __init__(self, text: str, tries: int, then: Callable[[_Upstream, _Probe, int, Answer], None]) -> None:
        super().__init__(text, encode_name(text))
        self.tries = tries
        self.then = then


@dataclass(slots=True)
class _Zone:
    """What is known of a registrable domain, and the living names that wait to hear it."""

    waiting: list[tuple[str, Verdict]] = field(default_factory=list)
    unasked: int = 0
    tried: bool = False  # a random name below, for the first name that is not the domain itself
    marks: dict[int, tuple[str, Mark]] = field(default_factory=dict)
    wildcard: bool = False


class _Row(NamedTuple):
    """A settled name; `resolvers` are indices."""

    text: str
    status: str
    addresses: int | None
    authority: str | None
    rcode: int | None
    resolvers: tuple[int, ...]
    detail: str | None
    checked: int


# A query on its way: name, type, question. Compared by identity: an id may be in use again when its old time-out
# comes. A plain tuple, like others here that are made once a query: a class costs five times as much.
_Pending = tuple[_Name, int, bytes]


@dataclass(slots=True, eq=False)
class _Channel:
    """One connected UDP socket: the kernel discards what comes from any other address or port."""

    socket: socket.socket
    pending: dict[int, _Pending] = field(default_factory=dict)
    send: Callable[[bytes], int] = field(init=False)

    def __post_init__(self) -> None:
        self.send = self.socket.send


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
    segments: bool = sys.platform == "linux"
    error: str | None = None
    dropped: str | None = None
    compared: int = 0  # names that exist by another's word, and were asked here too
    hidden: int = 0  # of those, denied or sent to a sinkhole here
    filtered: int = 0  # replies that say that they are filtered
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
        self.known = Known()
        self.zone_of: Callable[[str], str | None] | None = None
        self.control: Control | None = None
        self.zones: dict[str, _Zone] = {}
        self.again: deque[str] = deque()
        self.distrusted: set[int] = set()
        self.held: list[_Row] = []
        self.probing = 0
        self.now = 0.0
        self.most_active = int(2 * most * len(resolvers))
        self.active = 0
        self.stopped: str | None = None
        self.ids: Iterator[int] = iter(())
        self.who: dict[tuple[int, ...], str | None] = {(): None}
        self.rows: list[_Row] = []
        self.frames: list[pl.DataFrame] = []
        self.verdicts: Counter[str] = Counter()
        self.connections: set[asyncio.Task[None]] = set()

    async def run(self) -> Resolution:
        self.loop = asyncio.get_running_loop()
        self.finished: asyncio.Future[None] = self.loop.create_future()
        self.started = self.ticked = self.flushed = self.now = time.monotonic()
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
            self.held, self.rows = [*self.held, *self.rows], []
            self._deliver()
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
        for upstream in self.live:
            room = min(upstream.window - upstream.flying, upstream.tokens)
            if room >= 1:
                self._send_some(upstream, int(min(room, upstream.most)))
        if self.exhausted and not self.active and not self.again and not self.finished.done():
            if self.control is None or not (self.rows or self.held):
                self.finished.set_result(None)
            elif not self.probing:
                self._flush()

    def _begin(self) -> _Name | None:
        if self.active >= self.most_active:
            return None
        while True:
            text = self.again.popleft() if self.again else next(self.names, None)
            if text is None:
                self.exhausted = True
                return None
            try:
                name = _Name(text, encode_name(text))
            except ValueError:
                self._settle(text, Verdict(Status.UNKNOWN))  # never asked: DNS can't carry it
                continue
            self.active += 1
            return name

    def _partner(self, upstream: _Upstream) -> _Upstream:
        for step in range(1, len(self.upstreams)):
            other = self.upstreams[(upstream.index + step) % len(self.upstreams)]
            if other.dropped is None and len(other.queue) < 2 * other.window:
                return other
        return upstream

    def _send_some(self, upstream: _Upstream, room: int) -> None:
        """Send up to `room` queries, a handful to each socket in turn."""
        queue, edns, late = upstream.queue, upstream.edns, self.now + self.timeout
        while room >= 1:
            upstream.turn = turn = (upstream.turn + 1) % len(upstream.channels)
            channel = upstream.channels[turn]
            pending, expiry = channel.pending, upstream.expiry
            # By length, so that many go to the kernel in one call.
            packets: dict[int, list[bytes]] = {}
            count = 0
            while count < room and count < SEGMENTS:
                if queue:
                    name, qtype = queue.popleft()
                else:
                    begun = self._begin()
                    if begun is None:
                        room = 0
                        break
                    name, qtype = begun, A
                    # The two types go to two resolvers where possible: two denials then make a quorum at once.
                    self._partner(upstream).queue.append((name, AAAA))
                    name.waiting = 2
                question = encode_question(name.encoded, qtype)
                ident = self._ident(pending)
                query = (name, qtype, question)
                pending[ident] = query
                expiry.append((late, channel, ident, query))
                packet = encode_query(ident, question, edns=edns)
                size = len(packet)
                if size in packets:
                    packets[size].append(packet)
                else:
                    packets[size] = [packet]
                count += 1
            room -= count
            upstream.flying += count
            upstream.sent += count
            upstream.tokens -= count
            for size, same in packets.items():
                unsent = self._transmit(upstream, channel, size, same)
                if unsent:
                    room = 0
                    self._take_back(upstream, channel, unsent)

    def _transmit(self, upstream: _Upstream, channel: _Channel, size: int, packets: list[bytes]) -> list[bytes]:
        """Give datagrams of one size to the kernel; what it had no room for comes back.

        UDP_SEGMENT (Linux, udp(7)) makes one call and one walk through the stack of up to 64 of them. Where the
        kernel or the interface can't, they go one by one.
        """
        if len(packets) > 1 and upstream.segments:
            try:
                channel.socket.sendmsg(
                    [b"".join(packets)], [(socket.IPPROTO_UDP, UDP_SEGMENT, size.to_bytes(2, BYTES))]
                )
                return []
            except BlockingIOError:
                return packets
            except OSError as error:
                if error.errno not in CANT_SEGMENT:
                    upstream.error = error.strerror or str(error)
                    return []
                upstream.segments = False
        for number, packet in enumerate(packets):
            try:
                channel.send(packet)
            except BlockingIOError:
                return packets[number:]
            except OSError as error:
                # Often the echo of an earlier query (ICMP). It counts as sent, and as lost when its time is over:
                # a resolver that restarts must not use up the attempts of every name in a moment.
                upstream.error = error.strerror or str(error)
        return []

    def _take_back(self, upstream: _Upstream, channel: _Channel, packets: list[bytes]) -> None:
        """Queue again what was not sent; its time-outs, still to come, find nothing."""
        for packet in reversed(packets):
            name, qtype, _ = channel.pending.pop(packet[0] << 8 | packet[1])
            upstream.queue.appendleft((name, qtype))
        upstream.flying -= len(packets)
        upstream.sent -= len(packets)
        upstream.tokens += len(packets)

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
            self.now = time.monotonic()
            self._drain(upstream, channel)
            self._pump()
        except BaseException as error:  # out of a callback the loop would only log it
            self._fail(error)

    def _drain(self, upstream: _Upstream, channel: _Channel) -> None:
        receive, pending = channel.socket.recv, channel.pending
        replied = 0
        heard = False
        for _ in range(DRAIN):
            try:
                data = receive(4096)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                upstream.error = error.strerror or str(error)
                continue
            if len(data) < 12:
                continue
            ident = data[0] << 8 | data[1]
            query = pending.get(ident)
            if query is None:
                # Late or forged: no answer, but a sign of life if nothing waits for that id any more.
                heard = True
                continue
            name, qtype, question = query
            if not answers(data, question):
                continue
            del pending[ident]
            replied += 1
            answer = read_reply(data, question, name.text)
            if answer.outcome is Outcome.TRUNCATED:
                self._ask_by_tcp(upstream, query)
            elif answer.rcode == FORMERR and upstream.edns:
                upstream.edns = False  # RFC 6891 §7: it does not know EDNS
                upstream.queue.append((name, qtype))
            else:
                self._learn(upstream, name, qtype, answer)
            if upstream.dropped is not None or self.finished.done():
                break
        if (heard or replied) and upstream.dropped is None:
            self._heard(upstream, replied)

    def _heard(self, upstream: _Upstream, replied: int) -> None:
        """Open the window by what came back: as much again at the start, later two a round trip."""
        upstream.lost_in_a_row = 0
        upstream.heard = self.now
        upstream.flying -= replied
        upstream.replied += replied
        gain = replied if upstream.starting else 2 * replied / upstream.window
        upstream.window = min(upstream.most, upstream.window + gain)

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
            self._learn(upstream, query[0], query[1], answer)
            self._pump()
        except BaseException as error:
            self._fail(error)

    async def _exchange(self, upstream: _Upstream, query: _Pending) -> Answer:
        resolver, ident = upstream.resolver, self._ident({})
        reader, writer = await asyncio.open_connection(resolver.address, resolver.port)
        try:
            message = encode_query(ident, query[2], edns=upstream.edns)
            writer.write(len(message).to_bytes(2) + message)
            data = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
        finally:
            writer.close()
        if len(data) < 12 or data[:2] != ident.to_bytes(2) or not answers(data, query[2]):
            return Answer(Outcome.FAILED)
        answer = read_reply(data, query[2], query[0].text)
        return Answer(Outcome.FAILED) if answer.outcome is Outcome.TRUNCATED else answer

    # Learning

    def _learn(self, upstream: _Upstream, name: _Name, qtype: int, answer: Answer) -> None:
        if type(name) is _Probe:
            name.then(upstream, name, qtype, answer)
            return
        seen = name.seen
        seen.append((upstream.index, qtype, answer))
        name.waiting -= 1
        if name.waiting:
            return
        verdict = quick(seen[0], seen[1], self.quorum, self.known) if len(seen) == 2 and not self.distrusted else None
        if verdict is None:
            verdict = self._consider(name)
            if verdict is None:
                return
        self.active -= 1
        if verdict.status is Status.LIVE:
            for index in verdict.resolvers:
                self.upstreams[index].compared += 1
            if self.zone_of is not None:
                self._look_up(name.text, verdict, self.zone_of)
                return
        self._settle(name.text, verdict)

    def _consider(self, name: _Name) -> Verdict | None:
        """The verdict on a name, or None when there is more to ask first."""
        seen = [Observation(*one) for one in name.seen if one[0] not in self.distrusted]
        usable = [other.index for other in self.live]
        usable.sort(key=lambda index: len(self.upstreams[index].queue))
        question = next_question(seen, self.quorum, usable, self.attempts, self.known)
        if question is not None:
            name.waiting = 1
            self.upstreams[question.resolver].queue.append((name, question.qtype))
            return None
        if self.stopped is not None:
            return None  # cut short: what is known of it is not a verdict
        for o in seen:
            if o.answer.outcome is Outcome.FILTERED:
                self.upstreams[o.resolver].filtered += 1
        if self.control is not None:
            self._compare(seen)
        return classify(seen, self.quorum, self.known)

    def _compare(self, seen: Sequence[Observation]) -> None:
        """Count who hides what others see: denies a name that exists, or answers a null route for its address."""
        exists: set[int] = set()
        reachable: set[int] = set()
        denies: set[int] = set()
        nullifies: set[int] = set()
        for o in seen:
            if o.answer.outcome is Outcome.ADDRESS:
                exists.add(o.resolver)
                marks = [self.known.address(address) for address in o.answer.addresses]
                sunk = all(mark is not None and mark.what == "sinkhole" for mark in marks)
                (nullifies if sunk else reachable).add(o.resolver)
            elif o.answer.outcome is Outcome.NODATA:
                exists.add(o.resolver)
            elif o.answer.outcome in (Outcome.NXDOMAIN, Outcome.FILTERED):
                denies.add(o.resolver)
        hides = (denies - exists if exists else set()) | (nullifies - reachable if reachable else set())
        for index in hides:
            self.upstreams[index].compared += 1
            self.upstreams[index].hidden += 1

    # A level up

    def _look_up(self, text: str, verdict: Verdict, zone_of: Callable[[str], str | None]) -> None:
        """Settle a living name by its registrable domain, now or when what is asked about that has come."""
        apex = zone_of(text) or text
        zone = self.zones.get(apex)
        if zone is None:
            zone = self.zones[apex] = _Zone()
            if self.known.knows_servers:
                self._ask_zone(apex, zone, apex, NS)
        if text != apex and not zone.tried:
            zone.tried = True
            self._ask_zone(apex, zone, f"{secrets.token_hex(8)}.{apex}", A)
        if zone.unasked:
            self.active += 1
            zone.waiting.append((text, verdict))
            return
        self._settle_in(zone, apex, text, verdict)

    def _ask_zone(self, apex: str, zone: _Zone, text: str, qtype: int) -> None:
        try:
            probe = _Probe(text, self.attempts + 1, partial(self._learn_zone, apex, zone))
        except ValueError:
            return  # too long with a label more
        zone.unasked += 1
        self._quietest(self.live or self.upstreams).queue.append((probe, qtype))

    def _learn_zone(
        self, apex: str, zone: _Zone, upstream: _Upstream, probe: _Probe, qtype: int, answer: Answer
    ) -> None:
        probe.tries -= 1
        others = [other for other in self.live if other is not upstream and other.index not in zone.marks]
        if answer.outcome >= Outcome.FAILED and probe.tries > 0 and self.live:
            self._quietest(others or self.live).queue.append((probe, qtype))
            return
        if qtype == NS:
            servers = [name.decode() for name in answer.addresses]
            marks = [(name, mark) for name in servers if (mark := self.known.server(name)) is not None]
            if marks:
                zone.marks[upstream.index] = marks[0]
                if len(zone.marks) < self.quorum and others and probe.tries > 0:
                    self._quietest(others).queue.append((probe, qtype))
                    return
        else:
            zone.wildcard = answer.outcome is Outcome.ADDRESS
        zone.unasked -= 1
        if not zone.unasked:
            for text, verdict in zone.waiting:
                self.active -= 1
                self._settle_in(zone, apex, text, verdict)
            zone.waiting = []

    def _settle_in(self, zone: _Zone, apex: str, text: str, verdict: Verdict) -> None:
        detail = f"wildcard: every name below {apex} answers" if zone.wildcard else None
        if len(zone.marks) >= self.quorum:
            server, mark = next(iter(zone.marks.values()))
            status = Status.SINKHOLED if mark.what == "sinkhole" else Status.PARKED
            detail = f"name server {server}: {mark.source}"
            verdict = verdict._replace(status=status, resolvers=tuple(sorted(zone.marks)))
        self._settle(text, verdict._replace(detail=detail))

    @staticmethod
    def _quietest(upstreams: Sequence[_Upstream]) -> _Upstream:
        return min(upstreams, key=lambda upstream: len(upstream.queue))

    # Watching the resolvers

    def _watch(self) -> None:
        """Put the control names to each resolver; what is held is handed over when all have answered."""
        assert self.control is not None
        exists = self.control.exists
        for upstream in self.live:
            names = [(self.control.invented(), False)]
            if exists:
                names.append((exists[upstream.sent % len(exists)].rstrip(".").lower(), True))
            for text, there in names:
                self.probing += 1
                upstream.queue.appendleft((_Probe(text, self.attempts, partial(self._watched, there)), A))

    def _watched(self, there: bool, upstream: _Upstream, probe: _Probe, qtype: int, answer: Answer) -> None:
        probe.tries -= 1
        if answer.outcome in (Outcome.TIMEOUT, Outcome.FAILED) and probe.tries > 0 and upstream.dropped is None:
            upstream.queue.appendleft((probe, qtype))
            return
        self.probing -= 1
        if upstream.dropped is None:
            why = self._lie(there, upstream, probe, answer)
            if why is not None:
                self._distrust(upstream, why)
        if not self.probing and self.stopped is None:
            for other in list(self.live):
                if other.filtered >= FILTERED:
                    self._distrust(other, f"says of {other.filtered} names that it filters them (RFC 8914)")
                elif other.hidden >= HIDDEN and other.hidden > HIDDEN_SHARE * other.compared:
                    what = f"{other.hidden} of {other.compared} names that exist by another's word"
                    self._distrust(other, f"hides {what}: it filters, or loads this very list")
            self._deliver()
            self._pump()

    def _lie(self, there: bool, upstream: _Upstream, probe: _Probe, answer: Answer) -> str | None:
        if there and answer.outcome in (Outcome.NXDOMAIN, Outcome.FILTERED):
            return f"denied {probe.text} during the run, which must exist: it filters"
        if not there and answer.outcome in (Outcome.ADDRESS, Outcome.NODATA):
            return f"said during the run that {probe.text} exists, which was made up: rewritten NXDOMAIN"
        return None

    def _distrust(self, upstream: _Upstream, reason: str) -> None:
        """Drop a resolver that lies, and ask again what rests on its word."""
        self.distrusted.add(upstream.index)
        for name in ("held", "rows"):
            rows: list[_Row] = getattr(self, name)
            setattr(self, name, [row for row in rows if upstream.index not in row.resolvers])
            for row in rows:
                if upstream.index in row.resolvers:
                    self.verdicts[row.status] -= 1
                    self.again.append(row.text)
        self._drop(upstream, reason)
        if not self.live:
            self.stopped = f"no resolver can be trusted any more: {upstream.resolver} {reason}"

    def _settle(self, text: str, verdict: Verdict) -> None:
        status, addresses, authority, rcode, resolvers, detail = verdict
        if self.distrusted and not self.distrusted.isdisjoint(resolvers):
            self.again.append(text)
            return
        count = None if status is Status.UNKNOWN else len(addresses)
        self.rows.append(_Row(text, status._value_, count, authority, rcode, resolvers, detail, time.time_ns() // 1000))
        self.verdicts[status._value_] += 1
        if len(self.rows) >= self.batch:
            self._flush()

    def _flush(self) -> None:
        """Hand over what was learned; under watch, only after the resolvers have answered the control names."""
        if self.probing:
            return
        self.flushed = time.monotonic()
        if self.held or not self.rows:
            return
        self.held, self.rows = self.rows, []
        if self.control is None:
            self._deliver()
        else:
            self._watch()

    def _deliver(self) -> None:
        rows, self.held = self.held, []
        for start in range(0, len(rows), self.batch):
            self._deliver_frame(rows[start : start + self.batch])

    def _deliver_frame(self, rows: list[_Row]) -> None:
        import polars as pl

        columns: list[Any] = [list(column) for column in zip(*rows, strict=True)]
        columns[4] = [rcode_text(rcode) for rcode in columns[4]]
        columns[5] = [self._who(resolvers) for resolvers in columns[5]]
        frame = pl.DataFrame(dict(zip(frame_schema(), columns, strict=True)), schema=frame_schema())
        self.frames.append(frame)
        if self.on_batch is not None:
            # One that failed is not called again on the way out.
            on_batch, self.on_batch = self.on_batch, None
            on_batch(frame)
            self.on_batch = on_batch

    def _who(self, resolvers: tuple[int, ...]) -> str | None:
        if resolvers not in self.who:
            self.who[resolvers] = " ".join(str(self.upstreams[index].resolver) for index in resolvers)
        return self.who[resolvers]

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
        self.now = now
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
            self._learn(upstream, query[0], query[1], TIMED_OUT)

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
        cut = [(query[0], query[1]) for channel in upstream.channels for query in channel.pending.values()]
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
            resolvers=[ResolverReport(str(u.resolver), u.sent, u.lost, u.dropped, u.filtered) for u in self.upstreams],
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
