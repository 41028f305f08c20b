"""Questions about one thing: a name, an address or network, a URL."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache

from blocklist import clock
from blocklist.audit.answer import Answer, InExport
from blocklist.audit.facts import Reader
from blocklist.audit.files import Files
from blocklist.audit.moment import Moment
from blocklist.audit.near import near
from blocklist.audit.releases import Live, Releases
from blocklist.audit.rendering import Judge, Look, Rendering, none_of_kind, with_host
from blocklist.audit.thing import Thing, around_network, host_of, recognise
from blocklist.catalog import Feed
from blocklist.config import Config, Export, Policy
from blocklist.evidence import Facts, Hold, Listing, Verdict
from blocklist.lifetime import stale_since
from blocklist.names import parents
from blocklist.publish.descriptor import Format
from blocklist.rules import Rule
from blocklist.select.address import parse_one
from blocklist.select.single import Outcome, Target, judge_name, judge_network, judge_url, refusal, score
from blocklist.store.database import explained, open_for_reading, path_in
from blocklist.store.feed_pins import feed_pins
from blocklist.store.moment import run_at, whole_since
from blocklist.suffixes import builtin_rules_about


class Audit:
    """Questions to one state of the record: that of now, or as of `at`. Opens its own reading connection."""

    def __init__(self, config: Config, formats: Mapping[str, Format], at: datetime | None = None) -> None:
        self._config = config
        self._path = path_in(config.state)
        self._db = open_for_reading(config.state)
        moment = clock.text(at or clock.now())
        with explained(self._path):
            self._now = Moment(run_at(self._db, at) if at is not None else None, moment, moment)
        self._releases = Releases(config, self._db, self._now)
        self._reader = Reader(config, self._db, self._now, self._releases)
        self._files = Files(config, formats, self._now, self._releases, self._reader)
        self._exports = self._releases.exports()

    def close(self) -> None:
        self._db.close()

    @property
    def connection(self) -> sqlite3.Connection:
        """The reading connection, in the state of the record that the answers are from."""
        return self._db

    @property
    def feeds(self) -> Mapping[str, Feed]:
        """The feeds as they were configured at that time, by id."""
        return self._releases.feeds_at(self._now)

    def why(self, text: str, *, lines: bool = True) -> Answer:
        """The answer for `text`. `lines`: read the raw lines out of the kept bytes too."""
        thing = recognise(text)
        self._reader.lines = lines
        with explained(self._path):
            if thing.kind == "domain":
                return self._domain(thing)
            if thing.kind == "url":
                return self._url(thing)
            return self._network(thing)

    def _domain(self, thing: Thing) -> Answer:
        name = thing.name
        chain = [name, *parents(name)]
        look, judge = self._of_name(name)
        exports = [self._files.in_export(export, "domain", look, judge) for export in self._exports.values()]
        facts = look(self._now)
        deciding = {e.by for e in exports if e.blocked}
        shown = [
            x
            for x in self._listed(look, chain, thing.kind)
            if x.indicator == name or x.scope == "subtree" or x.indicator in deciding or self._widens(x)
        ]
        rules = [r for r in facts.rules if r.kind == "domain" and (r.name == name or (r.subtree and r.name in chain))]
        listed = {x.indicator for x in facts.listings}
        by = next((e.by for e in exports if e.blocked and e.by), name)
        return self._answer(
            thing,
            exports,
            shown,
            references=[x for x in facts.listings if x.reference and x.indicator == name],
            holds=[h for h in facts.holds if h.indicator == name or h.indicator in listed],
            rules=rules,
            verdict=facts.verdicts.get(by) or facts.verdicts.get(name),
        )

    def _of_name(self, name: str) -> tuple[Look, Judge]:
        chain = [name, *parents(name)]
        suffixes = builtin_rules_about(chain)

        @cache
        def look(moment: Moment) -> Facts:
            return Facts(
                listings=self._reader.listings(chain, moment),
                holds=self._reader.holds(chain, moment),
                rules=self._reader.rules_at(moment),
                verdicts={at: v for at in chain if (v := self._reader.verdict(at, moment)) is not None},
                asked=chain,
            )

        return look, lambda facts, policy, target: judge_name(name, facts, policy, target, suffixes)

    def _widens(self, listing: Listing) -> bool:
        return builtin_rules_about([listing.indicator, *parents(listing.indicator)]).is_registrable(listing.indicator)

    def _network(self, thing: Thing) -> Answer:
        chain = around_network(thing)
        look, judge = self._of_network(thing)
        exports = [self._files.in_export(export, thing.kind, look, judge) for export in self._exports.values()]
        facts = look(self._now)
        notes = []
        if thing.first != thing.last:
            inside = self._reader.inside(thing)
            if inside:
                notes.append(f"{inside:,} narrower entries inside it are listed; ask for them one by one")
            for rule in facts.rules:
                parsed = parse_one(rule.name) if rule.kind == thing.kind and rule.name != thing.name else None
                if parsed is not None and thing.first <= parsed[1] and parsed[2] <= thing.last:
                    notes.append(f"rule {rule.id} {rule.action}s {rule.name} inside it")
        return self._answer(
            thing,
            exports,
            self._listed(look, chain, thing.kind),
            references=[x for x in facts.listings if x.reference],
            holds=facts.holds,
            rules=[r for r in facts.rules if r.kind == thing.kind and r.name in chain],
            notes=notes,
        )

    def _of_network(self, thing: Thing) -> tuple[Look, Judge]:
        chain = around_network(thing)

        @cache
        def look(moment: Moment) -> Facts:
            listings = self._reader.listings(chain, moment)
            return Facts(
                listings=listings,
                holds=self._reader.holds(chain, moment),
                rules=self._reader.rules_at(moment),
                exempt=self._exempt(thing, listings, moment),
                asked=chain,
            )

        return look, lambda facts, policy, target: judge_network(chain, facts, policy, target)

    def _exempt(self, thing: Thing, listings: Sequence[Listing], moment: Moment) -> dict[str, str]:
        """Who names a single address that is therefore cut out of listed networks, unless a person let it pass."""
        if thing.first != thing.last or self._reader.released(thing.name, moment):
            return {}
        for x in listings:
            if x.holds and x.indicator == thing.name:
                return {thing.name: f"reference feed {x.feed} names it in line {x.line}"}
        for network in self._releases.protected(moment):
            parsed = parse_one(network)
            if parsed is not None and parsed[1:] == (thing.first, thing.last):
                return {thing.name: "[protect], or a resolver of [verify], names it"}
        return {}

    def _of_url(self, thing: Thing) -> tuple[Look, Judge]:
        host = host_of(thing)
        around = around_network(host) if host is not None and host.kind != "domain" else ()

        @cache
        def look(moment: Moment) -> Facts:
            return Facts(
                listings=self._reader.listings([thing.name], moment),
                holds=self._reader.holds([thing.name], moment),
                rules=self._reader.rules_at(moment),
                asked=[thing.name],
            )

        def judge(facts: Facts, policy: Policy, target: Target) -> Outcome:
            return judge_url(thing.name, host.name if host else None, around, facts, policy, target)

        return look, judge

    def _url(self, thing: Thing) -> Answer:
        host = host_of(thing)
        look, judge = self._of_url(thing)
        exports = [self._files.in_export(export, "url", look, judge) for export in self._exports.values()]
        shown, facts = self._listed(look, [thing.name], thing.kind), look(self._now)
        own = [r for r in facts.rules if r.kind == "url" and r.name == thing.name]
        if host is None:
            return self._answer(thing, exports, shown, holds=facts.holds, rules=own)
        of_host = self._domain(host) if host.kind == "domain" else self._network(host)
        return self._answer(
            thing,
            [with_host(a, b, host.name) for a, b in zip(exports, of_host.exports, strict=True)],
            [*shown, *of_host.listings],
            references=of_host.references,
            holds=[*facts.holds, *of_host.holds],
            rules=[*own, *of_host.rules],
            verdict=of_host.verdict,
        )

    def judging(self, thing: Thing) -> Callable[[int], Outcome | None]:
        """What the file of a release did with `thing`, by the number of the release; None where nobody knows.

        Of a URL only what it did with the URL itself, not with its host.
        """
        of = {"domain": lambda: self._of_name(thing.name), "url": lambda: self._of_url(thing)}
        look, judge = of.get(thing.kind, lambda: self._of_network(thing))()

        whole = whole_since(self._db)

        def of_release(release: int) -> Outcome | None:
            export, run = self._db.execute(
                "SELECT r.export, coalesce(b.run, r.run) FROM release r LEFT JOIN release b ON b.id = r.amends "
                "WHERE r.id = ?",
                (release,),
            ).fetchone()
            shown = self._releases.release(release)
            if whole is not None and run < whole[0]:
                return None
            made_by = self._releases.settings_of(release)
            if made_by is not None:
                rendering = Rendering.of(made_by)
            elif export in self._config.exports:
                known = self._files.rendering(self._config.exports[export])
                if known is None:
                    return None
                rendering = known
            else:
                return None
            said = self._files.made(shown, rendering, thing.kind, look, judge)
            if shown.left_out is not None and said.blocked:
                said = self._files.without(shown, thing.kind, said, rendering, look, judge)
            return said

        return of_release

    def _answer(
        self,
        thing: Thing,
        exports: Sequence[InExport],
        listings: Sequence[Listing],
        *,
        references: Sequence[Listing] = (),
        holds: Sequence[Hold] = (),
        rules: Sequence[Rule] = (),
        verdict: Verdict | None = None,
        notes: Sequence[str] = (),
    ) -> Answer:
        """All together; the confidence is that of the entry which decides, as the policy of its export counts it."""
        deciding = next((e for e in exports if e.blocked and any(x.indicator == e.by for x in listings)), None)
        export = self._exports.get(deciding.name) if deciding else next(iter(self._exports.values()), None)
        shown = self._files.rendering(export) if export else None
        name = shown.export.policy if shown else "default"
        policy = shown.policy if shown else self._releases.policy(name)
        # Without one that decides, the nearest that is listed.
        indicator = deciding.by if deciding else next((x.indicator for x in listings), None)
        same = [x for x in listings if x.indicator == indicator and x.until is None]
        taken = [x for x in same if refusal(x, policy) is None]
        return Answer(
            query=thing.name,
            kind=thing.kind,
            at=self._now.at,
            exports=exports,
            listings=listings,
            references=references,
            confidence=score(taken or same),
            policy=name,
            asks=policy.min_confidence,
            holds=holds,
            rules=rules,
            verdict=verdict,
            notes=[*notes, *self._releases.unloaded(), *self._of_feeds(listings, any(e.blocked for e in exports))],
            near=[] if listings or self._now.run is not None else near(self._db, thing),
        )

    def _of_feeds(self, listings: Sequence[Listing], blocked: bool) -> list[str]:
        """What feeds that are not well have to do with the answer: old listings, and new ones that nobody saw yet."""
        pins, listing = feed_pins(self._db, self._now.run), {x.feed for x in listings}
        notes = [f"feed {name} is {pins[name].said}" for name in sorted(pins.keys() & listing)]
        if self._now.run is not None:
            return notes
        rows = self._db.execute("SELECT name, outcome, changed FROM feed WHERE enabled").fetchall()
        now, unseen = clock.parse(self._now.at), []
        for name, came, changed in rows:
            feed = self._config.feeds.get(name)
            if feed is None:
                continue
            if name in listing and name not in pins and (since := stale_since(feed, changed, now)) is not None:
                notes.append(f"feed {name} is stale: its list has not changed since {clock.said(since)}")
            came = "pinned" if name in pins else came
            if came in ("failed", "gated", "pinned") and not blocked and not feed.is_reference:
                unseen.append(f"{name} ({came})")
        if unseen:
            more = f" and {len(unseen) - 3} more" if len(unseen) > 3 else ""
            notes.append(
                f"what these feeds list now is not known: {', '.join(unseen[:3])}{more}; see 'blocklist status'"
            )
        return notes

    def _holding(self, export: Export, kind: str) -> Live | None:
        """The release in place of an export that may hold things of this kind."""
        rendering = self._files.rendering(export)
        if rendering is None or none_of_kind(rendering.export, rendering.format, kind) is not None:
            return None
        return self._releases.live(export.name)

    def _listed(self, look: Look, chain: Sequence[str], kind: str) -> list[Listing]:
        """Listings to show: those of now, and those that ended since but stand in a published file."""
        files = [live for export in self._exports.values() if (live := self._holding(export, kind)) is not None]
        then = [f.moment for f in files if self._now.run is not None or f.revision != self._releases.revision()]
        moments = [self._now, *then]
        found = {(x.indicator, x.feed, x.since): x for m in reversed(moments) for x in look(m).listings}
        # The nearest name, the narrowest network first.
        order = {name: i for i, name in enumerate(chain)}
        shown = (x for x in found.values() if not x.reference)
        return sorted(shown, key=lambda x: (order[x.indicator], x.since, x.feed))
