"""Resolvers under watch during a run: the control names again and again, and who hides what others see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from blocklist.verify.classify import Observation
from blocklist.verify.control import Control
from blocklist.verify.known import Known
from blocklist.verify.upstream import Probe, Upstream
from blocklist.verify.wire import A, Answer, Outcome, rcode_text

HIDDEN: Final = 10  # names that a resolver hides, and their share of those that others see, before it is dropped
HIDDEN_SHARE: Final = 0.1
MUTE: Final = 3  # rounds without an answer to a control name, before a resolver is dropped: loss alone is no reason
FILTERED: Final = 3  # names of which a resolver itself says that it filters them, before it is dropped


class Watch:
    """`distrust` is called with each resolver that lies and the reason, `drop` with each that says nothing more,
    `passed` when a round of questions is over.

    `live` are the resolvers not dropped: a list that others change. `probing` is the number of control questions
    under way.
    """

    def __init__(
        self,
        control: Control,
        known: Known,
        attempts: int,
        upstreams: Sequence[Upstream],
        live: Sequence[Upstream],
        distrust: Callable[[Upstream, str], None],
        drop: Callable[[Upstream, str], None],
        passed: Callable[[], None],
    ) -> None:
        self.control, self.known, self.attempts = control, known, attempts
        self.upstreams, self.live = upstreams, live
        self.distrust, self.drop, self.passed = distrust, drop, passed
        self.probing = 0
        self.said: dict[int, list[Answer]] = {}

    def compare(self, seen: Sequence[Observation]) -> None:
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

    def begin(self) -> None:
        """Put the control names to each resolver; `passed` follows when all have answered."""
        self.said = {}
        for upstream in self.live:
            names = [(self.control.invented(), False)]
            if self.control.exists:
                names.append((self._existing(upstream), True))
            for text, there in names:
                self.probing += 1
                upstream.queue.appendleft((Probe(text, self.attempts, partial(self._learn, there)), A))

    def may_speak(self, upstream: Upstream) -> bool:
        """May a resolver that says nothing of many names still answer a control name? It is asked at the first call.

        Whoever has many names below one silent name server would else put an end to the run.
        """
        if upstream.doubt is None:
            text = self._existing(upstream) if self.control.exists else self.control.invented()
            upstream.doubt = Probe(text, self.attempts + 2, self._wait)
            upstream.queue.appendleft((upstream.doubt, A))
        return upstream.doubt.tries > 0

    def _wait(self, upstream: Upstream, probe: Probe, qtype: int, answer: Answer) -> None:
        probe.tries -= 1
        if answer.outcome is Outcome.TIMEOUT and probe.tries > 0 and upstream.doubt is probe:
            upstream.queue.appendleft((probe, qtype))

    def _existing(self, upstream: Upstream) -> str:
        exists = self.control.exists
        return exists[upstream.sent % len(exists)].rstrip(".").lower()

    def _learn(self, there: bool, upstream: Upstream, probe: Probe, qtype: int, answer: Answer) -> None:
        probe.tries -= 1
        if answer.outcome in (Outcome.TIMEOUT, Outcome.FAILED) and probe.tries > 0 and upstream.dropped is None:
            upstream.queue.appendleft((probe, qtype))
            return
        self.probing -= 1
        if upstream.dropped is None:
            self.said.setdefault(upstream.index, []).append(answer)
            why = _lie(there, probe, answer)
            if why is not None:
                self.distrust(upstream, why)
        if not self.probing and self.live:
            for other in list(self.live):
                said = self.said.get(other.index, [])
                other.mute = other.mute + 1 if said and all(one.outcome is Outcome.TIMEOUT for one in said) else 0
                if said and all(one.outcome is Outcome.FAILED for one in said):
                    codes = sorted({rcode_text(one.rcode) or "unreadable replies" for one in said})
                    self.distrust(other, f"answers only errors during the run ({', '.join(codes)})")
                elif other.mute >= MUTE:
                    self.drop(other, f"gave no answer to a control name {other.mute} times in a row")
                elif other.filtered >= FILTERED:
                    self.distrust(other, f"says of {other.filtered} names that it filters them (RFC 8914)")
                elif other.hidden >= HIDDEN and other.hidden > HIDDEN_SHARE * other.compared:
                    what = f"{other.hidden} of {other.compared} names that exist by another's word"
                    self.distrust(other, f"hides {what}: it filters, or loads this very list")
            self.passed()


def _lie(there: bool, probe: Probe, answer: Answer) -> str | None:
    if there and answer.outcome in (Outcome.NXDOMAIN, Outcome.FILTERED):
        return f"denied {probe.text} during the run, which must exist: it filters"
    if not there and answer.outcome in (Outcome.ADDRESS, Outcome.NODATA):
        return f"said during the run that {probe.text} exists, which was made up: rewritten NXDOMAIN"
    return None
