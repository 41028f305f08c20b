"""A resolver during a run: its sockets, the questions that wait for it or are under way, and how fast it may go."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from blocklist.verify.classify import Seen
from blocklist.verify.endpoint import Resolver
from blocklist.verify.wire import Answer, encode_name

SOCKETS: Final = 4  # a resolver; each has its own random port and 65,536 ids
UDP_SEGMENT: Final = 103  # linux/udp.h; Python has no name for it
BYTES: Final = sys.byteorder
CANT_SEGMENT: Final = (errno.EIO, errno.EINVAL, errno.EMSGSIZE, errno.ENOPROTOOPT, errno.EOPNOTSUPP)
FIRST_WINDOW: Final = 16.0  # queries under way to a resolver at the start, so that no run opens with a burst
LEAST_WINDOW: Final = 16.0  # what any resolver bears; keeps a lossy path moving
TOLERATED_LOSS: Final = 0.05  # below this a loss says nothing about the window: 2 % by chance each way are 4 %
ENOUGH: Final = 4  # replies that repeated the case of a question before a resolver counts as one that keeps it
TCP_AT_ONCE: Final = 16  # connections to one resolver
GIVE_UP: Final = 30  # losses in a row after which a resolver is doubted, and its TCP spared


class Case(Enum):
    """The case of letters in questions to a resolver, and in what it repeats of them."""

    PLAIN = 0
    """Lower case; a reply may repeat it in any."""
    LEARN = 1
    """Random case; a reply may repeat it in any, and what it does is noted."""
    KEPT = 2
    """Random case, and a reply must repeat it."""


class Name:
    """A name under way."""

    __slots__ = ("encoded", "seen", "text", "waiting")

    def __init__(self, text: str, encoded: bytes) -> None:
        self.text = text
        self.encoded = encoded
        self.seen: list[Seen] = []
        self.waiting = 0


class Probe(Name):
    """A question on the side, which makes no row; `then` gets the answer."""

    __slots__ = ("then", "tries")

    def __init__(self, text: str, tries: int, then: Callable[[Upstream, Probe, int, Answer], None]) -> None:
        super().__init__(text, encode_name(text))
        self.tries = tries
        self.then = then


Pending = tuple[Name, int, bytes]
"""A query on its way: name, type, question. Compared by identity: an id may be in use again when its old time-out
comes. A plain tuple, like others here that are made once a query: a class costs five times as much."""


@dataclass(slots=True, eq=False)
class Channel:
    """One connected UDP socket: the kernel discards what comes from any other address or port."""

    socket: socket.socket
    pending: dict[int, Pending] = field(default_factory=dict)
    send: Callable[[bytes], int] = field(init=False)

    def __post_init__(self) -> None:
        self.send = self.socket.send


@dataclass(slots=True, eq=False)
class Upstream:
    """A resolver in this run. `most` is the widest window, `tokens` the queries that the rate cap allows now."""

    index: int
    resolver: Resolver
    most: float
    tokens: float
    window: float = FIRST_WINDOW
    starting: bool = True  # slow start: the window doubles in a round trip until the first loss
    channels: list[Channel] = field(default_factory=list)
    turn: int = 0
    queue: deque[tuple[Name, int]] = field(default_factory=deque)
    expiry: deque[tuple[float, Channel, int, Pending]] = field(default_factory=deque)
    flying: int = 0
    sent: int = 0
    lost: int = 0
    replied: int = 0  # since the window was last judged
    missed: int = 0  # 〃
    lost_in_a_row: int = 0
    late: int = 0  # replies in that time which came too late
    heard: float = 0.0
    doubt: Probe | None = None  # the control name that it is asked for since it is silent about others
    mute: int = 0  # rounds of control names in a row to which it had no answer
    lost_over_tcp: int = 0  # in a row
    tcp_rests_until: float = 0.0
    edns: bool = True
    case: Case = Case.PLAIN
    same_case: int = 0  # replies that repeated the question letter by letter
    miscased: int = 0  # replies that did not
    segments: bool = sys.platform == "linux"
    error: str | None = None
    dropped: str | None = None
    compared: int = 0  # names that exist by another's word, and were asked here too
    hidden: int = 0  # of those, denied or sent to a sinkhole here
    filtered: int = 0  # replies that say that they are filtered
    tcp: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(TCP_AT_ONCE))

    def open(self, now: float) -> None:
        """Connected sockets, not asyncio transports: one wake-up then reads every reply that is there.

        Raises OSError when the resolver can't be reached.
        """
        family = socket.AF_INET6 if ":" in self.resolver.address else socket.AF_INET
        self.heard = now
        for _ in range(SOCKETS):
            udp = socket.socket(family, socket.SOCK_DGRAM)
            self.channels.append(Channel(udp))
            udp.setblocking(False)
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            udp.connect((self.resolver.address, self.resolver.port))

    def transmit(self, channel: Channel, size: int, packets: list[bytes]) -> list[bytes]:
        """Give datagrams of one size to the kernel; what it had no room for comes back.

        UDP_SEGMENT (Linux, udp(7)) makes one call and one walk through the stack of up to 64 of them. Where the
        kernel or the interface can't, they go one by one.
        """
        if len(packets) > 1 and self.segments:
            try:
                channel.socket.sendmsg(
                    [b"".join(packets)], [(socket.IPPROTO_UDP, UDP_SEGMENT, size.to_bytes(2, BYTES))]
                )
                return []
            except BlockingIOError:
                return packets
            except OSError as error:
                if error.errno not in CANT_SEGMENT:
                    self.error = error.strerror or str(error)
                    return []
                self.segments = False
        for number, packet in enumerate(packets):
            try:
                channel.send(packet)
            except BlockingIOError:
                return packets[number:]
            except OSError as error:
                # Often the echo of an earlier query (ICMP). It counts as sent, and as lost when its time is over:
                # a resolver that restarts must not use up the attempts of every name in a moment.
                self.error = error.strerror or str(error)
        return []

    def take_back(self, channel: Channel, packets: list[bytes]) -> None:
        """Queue again what was not sent; its time-outs, still to come, find nothing."""
        for packet in reversed(packets):
            name, qtype, _ = channel.pending.pop(packet[0] << 8 | packet[1])
            self.queue.appendleft((name, qtype))
        self.flying -= len(packets)
        self.sent -= len(packets)
        self.tokens += len(packets)

    def heard_from(self, replied: int, now: float) -> None:
        """Open the window by what came back: as much again at the start, later two a round trip."""
        self.lost_in_a_row = self.late = 0
        self.heard = now
        self.doubt = None
        self.flying -= replied
        self.replied += replied
        gain = replied if self.starting else 2 * replied / self.window
        self.window = min(self.most, self.window + gain)

    def expired(self, now: float) -> list[Pending]:
        """Queries whose time is over, counted as lost."""
        expiry = self.expiry
        over: list[Pending] = []
        while expiry and expiry[0][0] <= now:
            _, channel, ident, query = expiry.popleft()
            if channel.pending.get(ident) is not query:
                continue
            del channel.pending[ident]
            over.append(query)
        self.flying -= len(over)
        self.lost += len(over)
        self.missed += len(over)
        self.lost_in_a_row += len(over)
        return over

    def judge_window(self) -> None:
        """Shrink the window by half the share that was lost, once a window, as RFC 8257 §3.3 does with marks.

        Loss by chance takes nothing from it, up to two standard deviations above what is tolerated; a resolver that
        drowns halves it each time.
        """
        total = self.replied + self.missed
        if total >= max(LEAST_WINDOW, self.window):
            loss = self.missed / total
            self.replied = self.missed = 0
            if loss > TOLERATED_LOSS + 2 * (TOLERATED_LOSS * (1 - TOLERATED_LOSS) / total) ** 0.5:
                self.starting = False
                floor = min(LEAST_WINDOW, self.most)
                self.window = max(floor, self.window * (1 - loss / 2))

    @property
    def keeps_case(self) -> bool | None:
        """Does it repeat questions letter by letter? None when it was not asked, or too little."""
        if self.case is Case.LEARN:
            return not self.miscased if self.miscased or self.same_case >= ENOUGH else None
        return True if self.case is Case.KEPT else None

    def may_connect(self, now: float, patience: float) -> bool:
        """Is TCP worth a try? After many losses in a row one connection each `patience` seconds tells.

        Else a few names with large answers keep all others waiting, where TCP is filtered or nobody answers there.
        """
        if self.dropped is not None or (self.lost_over_tcp >= GIVE_UP and now < self.tcp_rests_until):
            return False
        self.tcp_rests_until = now + patience
        return True

    def without_edns(self) -> None:
        """From now on it is asked without EDNS, and again what is under way with it."""
        self.edns = False
        for channel in self.channels:
            self.flying -= len(channel.pending)
            self.queue.extend((query[0], query[1]) for query in channel.pending.values())
            channel.pending.clear()

    def unanswered(self) -> list[tuple[Name, int]]:
        """Take away everything that is under way or waits."""
        cut = [(query[0], query[1]) for channel in self.channels for query in channel.pending.values()]
        for channel in self.channels:
            channel.pending.clear()
        cut.extend(self.queue)
        self.queue.clear()
        self.expiry.clear()
        self.flying = 0
        return cut


class Idents:
    """Random ids, from the system's generator in bulk (RFC 5452 §9.2)."""

    def __init__(self) -> None:
        self._ready: Iterator[int] = iter(())

    def free(self, taken: dict[int, Pending]) -> int:
        """One that is not `taken`."""
        while True:
            for ident in self._ready:
                if ident not in taken:
                    return ident
            self._ready = iter(array("H", os.urandom(8192)))


def quietest(upstreams: Sequence[Upstream]) -> Upstream:
    """The one for which the fewest questions wait."""
    return min(upstreams, key=lambda upstream: len(upstream.queue))
