"""What the published file of an export does with a thing, and what its next release will do."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from msgspec.structs import replace

from blocklist.audit.answer import InExport
from blocklist.audit.chosen import as_made, as_pinned, listings, settled
from blocklist.audit.facts import Reader
from blocklist.audit.moment import Moment
from blocklist.audit.releases import Live, Pin, Releases
from blocklist.audit.rendering import Judge, Look, Rendering, none_of_kind, outcome
from blocklist.config import Config, Export, Policy
from blocklist.evidence import Facts, Listing
from blocklist.publish.descriptor import Format
from blocklist.publish.left_out import Network
from blocklist.publish.settings import Settings
from blocklist.select.single import Outcome, Target


class Files:
    """Of the exports at `now`, as `releases` tells of them."""

    def __init__(
        self, config: Config, formats: Mapping[str, Format], now: Moment, releases: Releases, reader: Reader
    ) -> None:
        self._config, self._formats, self._now = config, formats, now
        self._releases, self._reader = releases, reader

    def in_export(self, export: Export, kind: str, look: Look, judge: Judge) -> InExport:
        """What the published file of `export` does, and what its next release will do if that differs."""
        rendering, live = self.rendering(export), self._releases.live(export.name)
        if rendering is None:
            because = f"there is no format {export.format!r}"
            return InExport(export.name, export.format, False, None, because, None, None)
        name, fmt = export.name, rendering.export.format
        pin = self._releases.pin(name)

        def of_now(one: Judge) -> Outcome:
            if pin is not None:
                return self._pinned(pin, live, rendering, kind, look, one)
            return outcome(rendering, kind, self._now, look, one)

        now = of_now(judge)
        command = f"run 'blocklist export {name}'" if self._now.run is None else "the record of then says so"
        shadow = rendering.policy.mode == "shadow"
        if shadow:
            would = "would block it" if now.blocked else "would not block it"
            command = f"the policy {rendering.export.policy} is in shadow mode: it {would}, and writes nothing"
            if live is None:
                return InExport(name, fmt, False, now.by, f"{now.because}; {command}", None, None)
        elif live is None:
            if self._now.run is None and (held := self._releases.waiting(name)) is not None:
                command = f"release {held} is held, 'blocklist release show {held}' says why"
            because = f"it was never published: {command}" if self._now.run is None else "it was not published by then"
            if now.blocked:
                because = f"{now.because}, but {because}"
            return InExport(name, fmt, False, now.by, because, None, None, now.blocked or None)
        assert live is not None
        made_by = self._releases.settings_of(live.id)
        rendered = Rendering.of(made_by) if made_by else rendering
        missing = none_of_kind(rendering.export, rendering.format, kind)
        then = now
        if live.chosen is not None or self._differs(live, made_by, rendering, rendered, look):
            then = self.made(live, rendered, kind, look, judge)
        if live.left_out is not None:
            before, facts = now, look(self._now)
            denied = {r.name for r in facts.rules if r.blocks and r not in look(live.made).rules}
            # What a person denies since comes first.
            if now.blocked and now.by not in denied:
                now = self._left(live, now, facts, rendering.format, kind, judge, of_now)
            if then is before:
                then = now
            elif then.blocked:
                then = self.without(live, kind, then, rendered, look, judge)
        if pin is not None and missing is None:
            then, now = (replace(x, because=f"{x.because}; {pin.said}") for x in (then, now))
        if then.blocked == now.blocked:
            excluded, since = missing is not None, live.published
            return InExport(name, fmt, now.blocked, now.by, now.because, live.id, since, excluded=excluded)
        if self._now.run is None and not shadow and self._releases.gated(name, live.id):
            command = f"its release is held: see 'blocklist release', then 'blocklist release approve {name}'"
        because = f"{then.because}; not yet published: {now.because}; {command}"
        return InExport(name, fmt, then.blocked, then.by, because, live.id, live.published, now.blocked)

    def without(self, live: Live, kind: str, then: Outcome, rendered: Rendering, look: Look, judge: Judge) -> Outcome:
        """`then`, what the file of `live` says by what that was made of, without what it left out."""

        def again(one: Judge) -> Outcome:
            return self.made(live, rendered, kind, look, one)

        return self._left(live, then, look(live.made), rendered.format, kind, judge, again)

    def _left(
        self,
        live: Live,
        said: Outcome,
        facts: Facts,
        fmt: Format,
        kind: str,
        judge: Judge,
        again: Callable[[Judge], Outcome],
    ) -> Outcome:
        """`said`, which blocks, unless `live` left out the entry that would decide. `again` asks another judge."""
        if kind in ("ipv4", "ipv6"):
            around = self._releases.networks_cut(live, facts.asked[0])
            cut = {network.name: network.why for network in around if not network.in_pieces}
            others = _others_around(around, fmt, judge)
        elif fmt.of_rows:
            cut = self._releases.cut(live, facts.asked)
            others = [_unless(judge, set(cut))]
        else:
            return self._releases.without(live, said, fmt, facts.rules)
        if not cut:
            return said
        left = next((other for other in map(again, others) if other.blocked), None)
        if left is None:
            by = said.by if said.by in cut else next(iter(cut))
            left = replace(said, blocked=False, because=f"{cut[by]} ({by})")
        return left

    def made(self, live: Live, rendered: Rendering, kind: str, look: Look, judge: Judge) -> Outcome:
        """What the file of a release says by what it was made of; what it left out is another matter."""
        text = self._releases.text(live.chosen)
        if text is None:
            return outcome(rendered, kind, live.moment, look, judge)

        def chosen(moment: Moment) -> Facts:
            facts = look(moment)
            # A release under newer rules keeps what guards said when it was chosen; of that, the record knows what some
            # feed listed.
            facts = replace(facts, holds=[*look(live.moment).holds, *self._releases.held(live, facts.asked)])
            return as_made(facts, listings(text, facts.asked))

        return outcome(settled(rendered, again=False), kind, live.made, chosen, judge)

    def _pinned(
        self, pin: Pin, live: Live | None, rendering: Rendering, kind: str, look: Look, judge: Judge
    ) -> Outcome:
        """What the next release of a pinned export says."""
        text = self._releases.text(pin.chosen)

        def chosen(moment: Moment) -> Facts:
            facts = look(moment)
            if text is None:
                return replace(facts, listings=look(pin.moment).listings)
            # A guard may hold what no feed lists any more, and the record knows no hold of it.
            held = self._releases.held(live, facts.asked) if live is not None else []
            held = [replace(x, released=self._reader.released(x.indicator, moment)) for x in held]
            facts = replace(facts, holds=[*facts.holds, *held])
            return as_pinned(facts, listings(text, facts.asked))

        rendering = settled(rendering, again=True) if text is not None else rendering
        return outcome(rendering, kind, self._now, chosen, judge)

    def _differs(self, live: Live, made_by: Settings | None, now: Rendering, then: Rendering, look: Look) -> bool:
        """Could the published file say something else than the record does?"""
        if live.revision != self._releases.revision() or self._now.run is not None:
            return True
        # Rules end by themselves; so do listings, and where the clock went back they count again.
        if look(live.moment).rules != look(self._now).rules:
            return True
        begin, end = sorted((live.moment.judged, self._now.judged))
        if any(x.ends and begin < x.ends <= end for x in look(self._now).listings):
            return True
        if made_by is None:
            return False
        # Frames and lines of a format decide nothing here, and a reader of abilities knows no more of it.
        same = (now.policy, now.export.kinds, now.export.options) == (
            *(then.policy, then.export.kinds, then.export.options),
        ) and now.format.name == then.format.name
        common, config = made_by.common, self._config
        return not same or common.feeds != config.feeds or common.protect != config.protect

    def rendering(self, export: Export) -> Rendering | None:
        """What `export` is made by as configured; of the past, what its release of then was made by."""
        if self._now.run is not None and (live := self._releases.live(export.name)) is not None:
            made_by = self._releases.settings_of(live.id)
            if made_by is not None:
                return Rendering.of(made_by)
        fmt = self._formats.get(export.format)
        return Rendering(export, self._releases.policy(export.policy), fmt) if fmt is not None else None


def _others_around(around: Sequence[Network], fmt: Format, judge: Judge) -> list[Judge]:
    """Who says whether a file blocks an address by something else than the networks `around` it that were cut."""
    cut = [network for network in around if not network.in_pieces]
    if fmt.directed:
        ways = [way for way in ("inbound", "outbound") if all(way not in network.ways for network in cut)]
        return [_one_way(judge, way) for way in ways]
    if not fmt.of_rows:
        return []
    names, gone = {network.name for network in around}, [network.name for network in cut]

    def by_rows(facts: Facts, policy: Policy, target: Target) -> Outcome:
        """Every listed network has a row of its own, or rows for what is left of it, which are no part of another."""
        bare = replace(facts, rules=[], exempt={})

        def of(listings: Sequence[Listing]) -> Outcome:
            return judge(replace(bare, listings=listings), policy, target)

        if not all(of([x for x in facts.listings if x.indicator == name]).blocked for name in gone):
            return Outcome(False, None, "")
        return of([x for x in facts.listings if x.indicator not in names])

    return [by_rows]


def _unless(judge: Judge, cut: Collection[str]) -> Judge:
    """As `judge`, without the rows of the names that were `cut`."""

    def of_rest(facts: Facts, policy: Policy, target: Target) -> Outcome:
        rules = [r for r in facts.rules if not (r.blocks and r.name in cut)]
        listings = [x for x in facts.listings if x.indicator not in cut]
        return judge(replace(facts, listings=listings, rules=rules), policy, target)

    return of_rest


def _one_way(judge: Judge, way: str) -> Judge:
    """As `judge`, for the list of one direction; where the target has none of it, nothing is blocked."""

    def of_one(facts: Facts, policy: Policy, target: Target) -> Outcome:
        if way not in target.directions:
            return Outcome(False, None, "")
        return judge(facts, policy, replace(target, directions=[way, "both"]))

    return of_one
