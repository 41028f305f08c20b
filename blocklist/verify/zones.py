"""Questions a level up: living names are asked about once for each registrable domain."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from blocklist.verify.classify import Status, Verdict
from blocklist.verify.known import Known, Mark
from blocklist.verify.upstream import Probe, Upstream, quietest
from blocklist.verify.wire import NS, A, Answer, Outcome


@dataclass(slots=True)
class Zone:
    """What is known of a registrable domain, and the living names that wait to hear it."""

    waiting: list[tuple[str, Verdict]] = field(default_factory=list)
    unasked: int = 0
    tried: bool = False  # a random name below, for the first name that is not the domain itself
    marks: dict[int, tuple[str, Mark]] = field(default_factory=dict)
    wildcard: bool = False


class Zones:
    """Asks for the name servers of registrable domains, where `known` has some, and for a random name below them.

    `settle` gets each living name with what was learned above it. `upstreams` are all, `live` those not dropped: a
    list that others change. `waiting` is the number of names whose domain is being asked about.
    """

    def __init__(
        self,
        zone_of: Callable[[str], str | None],
        known: Known,
        quorum: int,
        attempts: int,
        upstreams: Sequence[Upstream],
        live: Sequence[Upstream],
        settle: Callable[[str, Verdict], None],
    ) -> None:
        self.zone_of, self.known, self.quorum, self.attempts = zone_of, known, quorum, attempts
        self.upstreams, self.live, self.settle = upstreams, live, settle
        self.zones: dict[str, Zone] = {}
        self.waiting = 0

    def look_up(self, text: str, verdict: Verdict) -> None:
        """Settle a living name by its registrable domain, now or when what is asked about that has come."""
        apex = self.zone_of(text) or text
        zone = self.zones.get(apex)
        if zone is None:
            zone = self.zones[apex] = Zone()
            if self.known.knows_servers:
                self._ask(apex, zone, apex, NS)
        if text != apex and not zone.tried:
            zone.tried = True
            self._ask(apex, zone, f"{secrets.token_hex(8)}.{apex}", A)
        if zone.unasked:
            self.waiting += 1
            zone.waiting.append((text, verdict))
            return
        self._settle_in(zone, apex, text, verdict)

    def _ask(self, apex: str, zone: Zone, text: str, qtype: int) -> None:
        try:
            probe = Probe(text, self.attempts + 1, partial(self._learn, apex, zone))
        except ValueError:
            return  # too long with a label more
        zone.unasked += 1
        quietest(self.live or self.upstreams).queue.append((probe, qtype))

    def _learn(self, apex: str, zone: Zone, upstream: Upstream, probe: Probe, qtype: int, answer: Answer) -> None:
        probe.tries -= 1
        others = [other for other in self.live if other is not upstream and other.index not in zone.marks]
        if answer.outcome >= Outcome.FAILED and probe.tries > 0 and self.live:
            quietest(others or self.live).queue.append((probe, qtype))
            return
        if qtype == NS:
            servers = [name.decode() for name in answer.addresses]
            marks = [(name, mark) for name in servers if (mark := self.known.server(name)) is not None]
            if marks:
                zone.marks[upstream.index] = marks[0]
                if len(zone.marks) < self.quorum and others and probe.tries > 0:
                    quietest(others).queue.append((probe, qtype))
                    return
        else:
            zone.wildcard = answer.outcome is Outcome.ADDRESS
        zone.unasked -= 1
        if not zone.unasked:
            for text, verdict in zone.waiting:
                self.waiting -= 1
                self._settle_in(zone, apex, text, verdict)
            zone.waiting = []

    def _settle_in(self, zone: Zone, apex: str, text: str, verdict: Verdict) -> None:
        detail = f"wildcard: every name below {apex} answers" if zone.wildcard else None
        if len(zone.marks) >= self.quorum:
            server, mark = next(iter(zone.marks.values()))
            status = Status.SINKHOLED if mark.what == "sinkhole" else Status.PARKED
            detail = f"name server {server}: {mark.source}"
            verdict = verdict._replace(status=status, resolvers=tuple(sorted(zone.marks)))
        self.settle(text, verdict._replace(detail=detail))
