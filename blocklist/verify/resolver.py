"""The engine: many names through a few resolvers by one asyncio loop, one verdict a name."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from blocklist.verify.classify import Observation, Status, Verdict, classify, next_question, quick
from blocklist.verify.control import Control
from blocklist.verify.endpoint import Resolver
from blocklist.verify.known import Known
from blocklist.verify.results import Resolution, ResolverReport, Summary
from blocklist.verify.settled import Settled
from blocklist.verify.upstream import FIRST_WINDOW, GIVE_UP, Case, Channel, Idents, Name, Pending, Probe, Upstream
from blocklist.verify.watch import Watch
from blocklist.verify.wire import (
    AAAA,
    FORMERR,
    NOTIMP,
    TIMED_OUT,
    A,
    Answer,
    Outcome,
    RandomCase,
    answers,
    encode_name,
    encode_query,
    encode_question,
    read_reply,
    repeats,
)
from blocklist.verify.zones import Zones

if TYPE_CHECKING:
    import polars as pl

SEGMENTS: Final = 64  # queries given to one socket at a time: what Linux takes in one call
DRAIN: Final = 128  # replies read from one socket before the others get their turn
TICK: Final = 0.01  # seconds between looks at clocks: time-outs, rate, deadline
BURST: Final = 0.02  # seconds' worth of queries that the rate cap lets through at once
FLUSH_EVERY: Final = 5.0  # seconds after which learned rows are handed over even if the batch is small


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
    keep_case: Collection[Resolver] = (),
    learn_case: bool = False,
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

    Resolvers among `keep_case` get questions in random case, and replies that don't repeat it are refused: the
    question is put again over TCP. With `learn_case` all get such questions, any case is heard, and
    `ResolverReport.keeps_case` tells who repeats it.

    `on_batch` gets frames of up to `batch` rows as they come (and what is left at the end, at the deadline,
    on cancellation or error), called in the event loop, so that it may commit them through a connection of
    the caller's thread. Every settled name is handed over exactly once.

    Raises ValueError without resolvers, and whatever `on_batch` raises. Network errors are verdicts or
    reasons in the summary, never exceptions.
    """
    if not resolvers:
        raise ValueError("no resolvers to ask")
    import polars  # noqa: F401 - takes a quarter of a second, in which replies would go unread

    distinct = tuple(dict.fromkeys(resolvers))
    engine = _Engine(names, distinct, rate, timeout, attempts, window, deadline, known or Known())
    engine.settled = Settled(distinct, batch, on_batch)
    for upstream in engine.upstreams:
        known_case = Case.KEPT if upstream.resolver in keep_case else Case.PLAIN
        upstream.case = Case.LEARN if learn_case else known_case
    if zone_of is not None:
        engine.look_up(zone_of)
    if control is not None:
        engine.watch_by(control)
    return await engine.run()


class _Engine:
    def __init__(
        self,
        names: Sequence[str],
        resolvers: Sequence[Resolver],
        rate: int,
        timeout: float,
        attempts: int,
        window: int,
        deadline: float | None,
        known: Known,
    ) -> None:
        self.total = len(names)
        self.names: Iterator[str] = iter(names)
        self.exhausted = not names
        self.rate, self.timeout, self.attempts = rate, timeout, attempts
        self.deadline, self.known = deadline, known
        # The quorum holds for the whole run: a resolver that falls silent on the way must not lower it.
        self.quorum = min(2, len(resolvers))
        first = 1.0 if rate else float("inf")
        most = float(max(1, window))
        self.upstreams = [
            Upstream(index, resolver, most, first, min(FIRST_WINDOW, most)) for index, resolver in enumerate(resolvers)
        ]
        self.live = list(self.upstreams)
        self.settled = Settled(resolvers, 1, None)
        self.zones: Zones | None = None
        self.watch: Watch | None = None
        self.again: deque[str] = deque()
        self.distrusted: set[int] = set()
        self.now = 0.0
        self.most_active = int(2 * most * len(resolvers))
        self.active = 0
        self.stopped: str | None = None
        self.short: str | None = None
        self.idents = Idents()
        self.cases = RandomCase()
        self.connections: set[asyncio.Task[None]] = set()

    def look_up(self, zone_of: Callable[[str], str | None]) -> None:
        """Ask about living names a level up."""
        self.zones = Zones(zone_of, self.known, self.quorum, self.attempts, self.upstreams, self.live, self._settle)

    def watch_by(self, control: Control) -> None:
        """Test the resolvers during the run."""
        self.watch = Watch(
            control, self.known, self.attempts, self.upstreams, self.live, self._distrust, self._drop, self._watched
        )

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
            for upstream in self.upstreams:
                self._disconnect(upstream)
            if timer is not None:
                timer.cancel()
            for task in self.connections:
                task.cancel()
            await asyncio.gather(*self.connections, *([timer] if timer else []), return_exceptions=True)
            self.settled.hold()
            self.settled.deliver()
        return Resolution(self.settled.frame(), self._summary())

    def _open(self, upstream: Upstream) -> None:
        try:
            upstream.open(self.started)
        except OSError as error:
            self._drop(upstream, f"can't be reached: {error.strerror or error}")
            return
        for channel in upstream.channels:
            self.loop.add_reader(channel.socket.fileno(), self._readable, upstream, channel)

    def _disconnect(self, upstream: Upstream) -> None:
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
            if self.zones is not None and self.zones.waiting:
                return
            if self.watch is None or not (self.settled.rows or self.settled.held):
                self.finished.set_result(None)
            elif not self.watch.probing:
                self._flush()

    def _begin(self) -> Name | None:
        waiting = self.zones.waiting if self.zones is not None else 0
        if self.active + waiting >= self.most_active:
            return None
        while True:
            text = self.again.popleft() if self.again else next(self.names, None)
            if text is None:
                self.exhausted = True
                return None
            try:
                name = Name(text, encode_name(text))
            except ValueError:
                self._settle(text, Verdict(Status.UNKNOWN))  # never asked: DNS can't carry it
                continue
            self.active += 1
            return name

    def _partner(self, upstream: Upstream) -> Upstream:
        for step in range(1, len(self.upstreams)):
            other = self.upstreams[(upstream.index + step) % len(self.upstreams)]
            if other.dropped is None and len(other.queue) < 2 * other.window:
                return other
        return upstream

    def _send_some(self, upstream: Upstream, room: int) -> None:
        """Send up to `room` queries, a handful to each socket in turn."""
        queue, edns, late = upstream.queue, upstream.edns, self.now + self.timeout
        mix = None if upstream.case is Case.PLAIN else self.cases.mix
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
                if mix is not None:
                    question = mix(question)
                ident = self.idents.free(pending)
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
                unsent = upstream.transmit(channel, size, same)
                if unsent:
                    room = 0
                    upstream.take_back(channel, unsent)

    # Receiving

    def _readable(self, upstream: Upstream, channel: Channel) -> None:
        try:
            self.now = time.monotonic()
            self._drain(upstream, channel)
            self._pump()
        except BaseException as error:  # out of a callback the loop would only log it
            self._fail(error)

    def _drain(self, upstream: Upstream, channel: Channel) -> None:
        receive, pending = channel.socket.recv, channel.pending
        replied = same_case = 0
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
                upstream.late += 1  # or forged, or twice: no answer to anything
                continue
            name, qtype, question = query
            if repeats(data, question):
                same_case += 1
            elif not answers(data, question):
                continue
            else:
                upstream.miscased += 1
                if upstream.case is Case.KEPT:
                    # Forged, or from a machine that does not keep it: over TCP nobody can guess.
                    del pending[ident]
                    replied += 1
                    self._ask_by_tcp(upstream, query)
                    continue
            del pending[ident]
            replied += 1
            answer = read_reply(data, question, name.text)
            if answer.outcome is Outcome.TRUNCATED:
                self._ask_by_tcp(upstream, query)
            elif answer.rcode in (FORMERR, NOTIMP) and upstream.edns:
                # RFC 6891 §7: it does not know EDNS. Some say NOTIMP.
                upstream.without_edns()
                upstream.queue.append((name, qtype))
            else:
                self._learn(upstream, name, qtype, answer)
            if upstream.dropped is not None or self.finished.done():
                break
        upstream.same_case += same_case
        if replied and upstream.dropped is None:
            upstream.heard_from(replied, self.now)

    def _ask_by_tcp(self, upstream: Upstream, query: Pending) -> None:
        task = self.loop.create_task(self._tcp(upstream, query))
        self.connections.add(task)
        task.add_done_callback(self.connections.discard)

    async def _tcp(self, upstream: Upstream, query: Pending) -> None:
        """One question over a connection of its own (RFC 7766 §8: two octets of length, then the message)."""
        answer = TIMED_OUT
        async with upstream.tcp:
            if upstream.may_connect(time.monotonic(), 2 * self.timeout):
                upstream.sent += 1
                upstream.tokens -= 1
                try:
                    async with asyncio.timeout(2 * self.timeout):
                        answer = await self._exchange(upstream, query)
                    upstream.lost_over_tcp = 0
                except (OSError, TimeoutError, EOFError):
                    upstream.lost += 1
                    upstream.lost_over_tcp += 1
        try:
            self._learn(upstream, query[0], query[1], answer)
            self._pump()
        except BaseException as error:
            self._fail(error)

    async def _exchange(self, upstream: Upstream, query: Pending) -> Answer:
        resolver, ident = upstream.resolver, self.idents.free({})
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

    def _learn(self, upstream: Upstream, name: Name, qtype: int, answer: Answer) -> None:
        if type(name) is Probe:
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
            if self.zones is not None:
                self.zones.look_up(name.text, verdict)
                return
        self._settle(name.text, verdict)

    def _consider(self, name: Name) -> Verdict | None:
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
        if self.watch is not None:
            self.watch.compare(seen)
        return classify(seen, self.quorum, self.known)

    # Settling

    def _settle(self, text: str, verdict: Verdict) -> None:
        if self.distrusted and not self.distrusted.isdisjoint(verdict.resolvers):
            self.again.append(text)
        elif self.settled.add(text, verdict):
            self._flush()

    def _flush(self) -> None:
        """Hand over what was learned; under watch, only after the resolvers have answered the control names."""
        if self.watch is not None and self.watch.probing:
            return
        self.flushed = time.monotonic()
        if self.settled.held or not self.settled.rows:
            return
        self.settled.hold()
        if self.watch is None:
            self.settled.deliver()
        else:
            self.watch.begin()

    def _watched(self) -> None:
        self.settled.deliver()
        self._pump()

    def _distrust(self, upstream: Upstream, reason: str) -> None:
        """Drop a resolver that lies, and ask again what rests on its word."""
        self.distrusted.add(upstream.index)
        self.again.extend(self.settled.without(upstream.index))
        self._drop(upstream, reason)
        if not self.live:
            self.stopped = f"no resolver can be trusted any more: {upstream.resolver} {reason}"

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
                for query in upstream.expired(now):
                    self._learn(upstream, query[0], query[1], TIMED_OUT)
                upstream.judge_window()
                if upstream.lost_in_a_row >= GIVE_UP and now - upstream.heard >= 3 * self.timeout:
                    self._doubt(upstream)
        if now - self.flushed >= FLUSH_EVERY:
            self._flush()
        self._pump()

    def _doubt(self, upstream: Upstream) -> None:
        """Drop a resolver that has been silent, unless it may be the name servers of a row of names that are."""
        if self.watch is not None and self.watch.may_speak(upstream):
            return
        late = f"{upstream.late} replies came too late" if upstream.late else None
        why = ", ".join(filter(None, (upstream.error, late)))
        self._drop(upstream, f"no answer to {upstream.lost_in_a_row} queries in a row" + (f" ({why})" if why else ""))

    # Ending

    def _drop(self, upstream: Upstream, reason: str) -> None:
        """Go on without a resolver; what was on its way to it goes to the others."""
        upstream.dropped = reason
        self.live.remove(upstream)
        self._disconnect(upstream)
        if not self.live:
            self._stop("no resolver answers any more")
            return
        if len(self.live) < self.quorum:
            left = " and ".join(str(other.resolver) for other in self.live)
            self.short = f"quorum can't be reached: it takes {self.quorum} resolvers, and {left} alone is left"
        for turn, question in enumerate(upstream.unanswered()):
            self.live[turn % len(self.live)].queue.append(question)

    def _stop(self, reason: str) -> None:
        self.stopped = reason
        if not self.finished.done():
            self.finished.set_result(None)

    def _fail(self, error: BaseException) -> None:
        if not self.finished.done():
            self.finished.set_exception(error)

    def _summary(self) -> Summary:
        verdicts = self.settled.verdicts
        seconds = time.monotonic() - self.started
        queries = sum(upstream.sent for upstream in self.upstreams)
        checked = verdicts.total()
        return Summary(
            checked=checked,
            verdicts={status.value: verdicts[status.value] for status in Status if verdicts[status.value]},
            queries=queries,
            seconds=seconds,
            rate=queries / seconds if seconds else 0.0,
            resolvers=[
                ResolverReport(str(u.resolver), u.sent, u.lost, u.dropped, u.filtered, u.keeps_case, u.miscased)
                for u in self.upstreams
            ],
            unfinished=self.total - checked,
            stopped=self.stopped,
            short=self.short if self.live else None,
        )
