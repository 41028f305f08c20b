"""Why a thing is blocked or not, from the record alone: no column library, an answer in milliseconds.

This module reads what the record knows; `blocklist.select.single` decides.
"""

from __future__ import annotations

import difflib
import json
import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from ipaddress import ip_address, ip_network
from typing import Any

import msgspec

from blocklist import clock
from blocklist.catalog import CATEGORIES, ESSENTIAL, KINDS, TLP, Feed
from blocklist.config import Config, Export, Policy
from blocklist.errors import IndicatorError, RecordError
from blocklist.evidence import Facts, Hold, Listing, Verdict
from blocklist.lifetime import end_of, stale_since
from blocklist.names import MAX_NAME, Reject, RejectedError, normalize_name, parents
from blocklist.publish import left_out, settings
from blocklist.publish.descriptor import Format
from blocklist.publish.left_out import CUT
from blocklist.publish.settings import Settings
from blocklist.rules import Rule
from blocklist.select.address import parse_one
from blocklist.select.single import Outcome, Target, judge_name, judge_network, judge_url, refusal, score
from blocklist.store import kept, snapshots
from blocklist.store.database import explained, open_for_reading, path_in
from blocklist.store.moment import periods, run_at
from blocklist.store.verdicts import BEGAN
from blocklist.suffixes import builtin_rules_about


@dataclass(frozen=True)
class InExport:
    """What the published file of one export does with the thing asked: `by` names the entry or rule that decides.

    `pending` says what the next release will do (True blocks) where that differs from what is published. `excluded`:
    the export holds nothing of the kind at all.
    """

    name: str
    format: str
    blocked: bool
    by: str | None
    because: str
    release: int | None
    since: str | None
    pending: bool | None = None
    excluded: bool = False


@dataclass(frozen=True)
class Answer:
    """Everything `why` knows about `query`, in its canonical form.

    `near`: listed names that a person may have meant, where nothing that covers it is listed.
    """

    query: str
    kind: str
    at: str
    exports: Sequence[InExport]
    listings: Sequence[Listing]
    references: Sequence[Listing]
    confidence: int
    policy: str
    asks: int
    holds: Sequence[Hold]
    rules: Sequence[Rule]
    verdict: Verdict | None
    notes: Sequence[str] = ()
    near: Sequence[str] = ()

    @property
    def blocked(self) -> bool:
        return any(e.blocked for e in self.exports)


@dataclass(frozen=True)
class Thing:
    """What was asked: `name` is canonical; a network has `first` and `last`; a URL has its `host`."""

    name: str
    kind: str
    first: int = 0
    last: int = 0
    host: str | None = None


_URL = re.compile(
    r"(?:([A-Za-z][A-Za-z0-9+.-]*):)?//(?:[^/?#@\\]*@)?(\[[0-9A-Fa-f:.]+\]|[^/:?#\[\]]*)(?::([0-9]{0,5}))?([/?#].*)?"
)
# RFC 3986 §3.3, §3.4: path and query.
_URL_REST = re.compile(r"(?:[A-Za-z0-9._~:/?@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*")
_HOST_ALONE = re.compile(r"/?\??#?")
_PORTS = {"http": 80, "https": 443, "ftp": 21}


def recognise(text: str) -> Thing:
    """A domain, address, network or URL as the record names it. Raises IndicatorError with the reason."""
    text = text.strip()
    try:
        match = _URL.fullmatch(text)
        if match:
            return _url(match[1], match[2], match[3], match[4] or "")
        return _host(text)
    except RejectedError as error:
        raise IndicatorError(
            f"{text!r} is no domain, address, network or URL ({error.reason})",
            hint="examples: evil.example, 192.0.2.1, 192.0.2.0/24, https://evil.example/path",
        ) from None


def _host(text: str) -> Thing:
    parsed = parse_one(text)
    if parsed is not None:
        family, first, last = parsed
        return Thing(network_text(family, first, last), "ipv4" if family == 4 else "ipv6", first, last)
    return Thing(normalize_name(text, allow_single=True), "domain")


def _url(scheme: str | None, host: str, port: str | None, rest: str) -> Thing:
    """A URL's parts as a URL indicator, or as its host where it stands for that.

    This is the definition; `blocklist.ingest.normalize` does the same in columns. Raises RejectedError.
    """
    scheme = scheme and re.sub("^hxxp", "http", scheme.lower())
    number = int(port) if port else None
    if (scheme is not None and scheme not in _PORTS) or (number or 0) > 65_535:
        raise RejectedError(Reject.BAD_URL)
    thing = _host(host.strip("[]"))
    if _HOST_ALONE.fullmatch(rest):
        return thing
    # A fragment never reaches a server or proxy.
    rest = rest.partition("#")[0]
    if not _URL_REST.fullmatch(rest) or (thing.kind == "domain" and "." not in thing.name):
        raise RejectedError(Reject.BAD_URL)
    shown = f"[{thing.name}]" if thing.kind == "ipv6" else thing.name
    at = "" if number is None or number == _PORTS.get(scheme or "") else f":{number}"
    return Thing(f"//{shown}{at}{'' if rest.startswith('/') else '/'}{rest}", "url", host=thing.name)


def network_text(family: int, first: int, last: int) -> str:
    """Canonical text: a single address bare, else with its prefix length."""
    length = (32 if family == 4 else 128) - (last - first).bit_length()
    address = ip_address(first.to_bytes(4 if family == 4 else 16, "big"))
    return str(address) if first == last else f"{address}/{length}"


@dataclass(frozen=True)
class Moment:
    """A state of the record: after `run` was written, at time `at`; no `run` means now.

    `judged`: as of when it was judged what has expired, which is the start of its run. `ruled`: the run, and the time,
    of the rules that were laid over this state later, where a release was held. `release`: the one that was made of
    this state, by its own settings.
    """

    run: int | None
    at: str
    judged: str
    ruled: tuple[int, str] | None = None
    release: int | None = None

    @property
    def of_rules(self) -> Moment:
        return Moment(*self.ruled, self.judged) if self.ruled else self


@dataclass(frozen=True)
class _Live:
    """The release whose file is, or was, in place."""

    id: int
    published: str
    revision: int
    moment: Moment
    left_out: str | None


@dataclass(frozen=True)
class _Rendering:
    """What makes a file out of decisions."""

    export: Export
    policy: Policy
    format: Format


_Look = Callable[[Moment], Facts]
_Judge = Callable[[Facts, Policy, Target], Outcome]


class Audit:
    """Questions to one state of the record: that of now, or as of `at`. Opens its own reading connection."""

    def __init__(self, config: Config, formats: Mapping[str, Format], at: datetime | None = None) -> None:
        self._config, self._formats = config, formats
        self._path = path_in(config.state)
        self._db = open_for_reading(config.state)
        moment = clock.text(at or clock.now())
        with explained(self._path):
            # One state of the record for the whole answer, whatever an update does meanwhile.
            self._db.execute("BEGIN")
            self._now = Moment(run_at(self._db, at) if at is not None else None, moment, moment)
        self._rules: dict[Moment, list[Rule]] = {}
        self._feeds: dict[Moment, Mapping[str, Feed]] = {}
        self._settings: dict[int, Settings | None] = {}
        self._exports = config.exports if at is None else self._exports_then()
        self._lines = True

    def close(self) -> None:
        self._db.close()

    @property
    def connection(self) -> sqlite3.Connection:
        """The reading connection, in the state of the record that the answers are from."""
        return self._db

    def why(self, text: str, *, lines: bool = True) -> Answer:
        """The answer for `text`. `lines`: read the raw lines out of the kept bytes too."""
        thing = recognise(text)
        self._lines = lines
        with explained(self._path):
            if thing.kind == "domain":
                return self._domain(thing)
            if thing.kind == "url":
                return self._url(thing)
            return self._network(thing)

    # Names

    def _domain(self, thing: Thing) -> Answer:
        name = thing.name
        chain = [name, *parents(name)]
        look, judge = self._of_name(name)
        exports = [self._in_export(export, "domain", look, judge) for export in self._exports.values()]
        facts = look(self._now)
        deciding = {e.by for e in exports if e.blocked}
        shown = [
            x
            for x in self._listed(look, chain)
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

    def _of_name(self, name: str) -> tuple[_Look, _Judge]:
        chain = [name, *parents(name)]
        suffixes = builtin_rules_about(chain)

        @cache
        def look(moment: Moment) -> Facts:
            return Facts(
                listings=self._listings(chain, moment),
                holds=self._holds(chain, moment),
                rules=self._rules_at(moment),
                verdicts={at: v for at in chain if (v := self._verdict(at, moment)) is not None},
            )

        return look, lambda facts, policy, target: judge_name(name, facts, policy, target, suffixes)

    def _widens(self, listing: Listing) -> bool:
        return builtin_rules_about([listing.indicator, *parents(listing.indicator)]).is_registrable(listing.indicator)

    # Networks

    def _network(self, thing: Thing) -> Answer:
        chain = _around(thing)
        look, judge = self._of_network(thing)
        exports = [self._in_export(export, thing.kind, look, judge) for export in self._exports.values()]
        facts = look(self._now)
        notes = []
        if thing.first != thing.last:
            inside = self._inside(thing)
            if inside:
                notes.append(f"{inside:,} narrower entries inside it are listed; ask for them one by one")
            for rule in facts.rules:
                parsed = parse_one(rule.name) if rule.kind == thing.kind and rule.name != thing.name else None
                if parsed is not None and thing.first <= parsed[1] and parsed[2] <= thing.last:
                    notes.append(f"rule {rule.id} {rule.action}s {rule.name} inside it")
        return self._answer(
            thing,
            exports,
            self._listed(look, chain),
            references=[x for x in facts.listings if x.reference],
            holds=facts.holds,
            rules=[r for r in facts.rules if r.kind == thing.kind and r.name in chain],
            notes=notes,
        )

    def _of_network(self, thing: Thing) -> tuple[_Look, _Judge]:
        chain = _around(thing)

        @cache
        def look(moment: Moment) -> Facts:
            listings = self._listings(chain, moment)
            return Facts(
                listings=listings,
                holds=self._holds(chain, moment),
                rules=self._rules_at(moment),
                exempt=self._exempt(thing, listings, moment),
            )

        return look, lambda facts, policy, target: judge_network(chain, facts, policy, target)

    def _exempt(self, thing: Thing, listings: Sequence[Listing], moment: Moment) -> dict[str, str]:
        """Who names a single address that is therefore cut out of listed networks, unless a person let it pass."""
        if thing.first != thing.last or self._released(thing.name, moment):
            return {}
        for x in listings:
            if x.holds and x.indicator == thing.name:
                return {thing.name: f"reference feed {x.feed} names it in line {x.line}"}
        for network in self._protected(moment):
            parsed = parse_one(network)
            if parsed is not None and parsed[1:] == (thing.first, thing.last):
                return {thing.name: "[protect], or a resolver of [verify], names it"}
        return {}

    def _inside(self, thing: Thing) -> int:
        """How many listed names of networks lie inside this one: a range of texts, then exactly.

        Nothing is counted in a network so wide that its addresses have no text in common.
        """
        network = ip_network(thing.name)
        if network.version == 4:
            whole = str(network.network_address).split(".")[: network.prefixlen // 8]
            prefix = "".join(octet + "." for octet in whole)
        else:
            groups = [f"{int(g, 16):x}" for g in network.exploded.split("/")[0].split(":")]
            whole = groups[: network.prefixlen // 16]
            # Zeros may be written as '::'; what comes before them is the same in every text.
            whole = whole[: whole.index("0")] if "0" in whole else whole
            prefix = "".join(group + ":" for group in whole)
        if not prefix:
            return 0
        condition = "name >= ?1 AND name < ?2 AND kind = ?3 AND name <> ?4"
        source = f"SELECT name FROM listing WHERE {condition}"
        if self._now.run is not None:
            source = (
                f"{source} AND since <= ?5 UNION SELECT name FROM listing_closed "
                f"WHERE period IN ({self._periods_from(self._now)}) AND {condition} AND since <= ?5 AND until > ?5"
            )
        values = [prefix, prefix + "\x7f", KINDS.index(thing.kind) + 1, thing.name, self._now.run]
        rows = self._db.execute(f"SELECT DISTINCT name FROM ({source})", values[: 4 + (self._now.run is not None)])
        parsed = (parse_one(name) for (name,) in rows)
        return sum(p is not None and thing.first <= p[1] and p[2] <= thing.last for p in parsed)

    # URLs

    def _of_url(self, thing: Thing) -> tuple[_Look, _Judge]:
        host = _host_of(thing)
        around = _around(host) if host is not None and host.kind != "domain" else []

        @cache
        def look(moment: Moment) -> Facts:
            return Facts(
                listings=self._listings([thing.name], moment),
                holds=self._holds([thing.name], moment),
                rules=self._rules_at(moment),
            )

        def judge(facts: Facts, policy: Policy, target: Target) -> Outcome:
            return judge_url(thing.name, host.name if host else None, around, facts, policy)

        return look, judge

    def _url(self, thing: Thing) -> Answer:
        host = _host_of(thing)
        look, judge = self._of_url(thing)
        exports = [self._in_export(export, "url", look, judge) for export in self._exports.values()]
        shown, facts = self._listed(look, [thing.name]), look(self._now)
        own = [r for r in facts.rules if r.kind == "url" and r.name == thing.name]
        if host is None:
            return self._answer(thing, exports, shown, holds=facts.holds, rules=own)
        of_host = self._domain(host) if host.kind == "domain" else self._network(host)
        return self._answer(
            thing,
            [_with_host(a, b, host.name) for a, b in zip(exports, of_host.exports, strict=True)],
            [*shown, *of_host.listings],
            references=of_host.references,
            holds=[*facts.holds, *of_host.holds],
            rules=[*own, *of_host.rules],
            verdict=of_host.verdict,
        )

    # Releases

    def judging(self, thing: Thing) -> Callable[[int], Outcome | None]:
        """What the file of a release did with `thing`, by the number of the release; None where nobody knows.

        Of a URL only what it did with the URL itself, not with its host.
        """
        of = {"domain": lambda: self._of_name(thing.name), "url": lambda: self._of_url(thing)}
        look, judge = of.get(thing.kind, lambda: self._of_network(thing))()

        def outcome(release: int) -> Outcome | None:
            export, shown, _, *moment, _ = self._db.execute(
                f"SELECT r.export, coalesce(r.amends, r.id), {_SHOWN} WHERE r.id = ?", (release,)
            ).fetchone()
            made_by = self._settings_of(release)
            if made_by is not None:
                rendering = _Rendering(made_by.own.export, made_by.own.policy, made_by.own.format)
            elif export in self._config.exports:
                known = self._rendering_now(self._config.exports[export])
                if known is None:
                    return None
                rendering = known
            else:
                return None
            return _outcome(rendering, thing.kind, _moment(shown, *moment), look, judge)

        return outcome

    # Answers

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
        shown = self._rendering_now(export) if export else None
        name = shown.export.policy if shown else "default"
        policy = shown.policy if shown else self._policy(name)
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
            notes=[*notes, *self._of_feeds(listings, any(e.blocked for e in exports))],
            near=[] if listings or self._now.run is not None else self._near(thing),
        )

    def _in_export(self, export: Export, kind: str, look: _Look, judge: _Judge) -> InExport:
        """What the published file of `export` does, and what its next release will do if that differs."""
        rendering, live = self._rendering_now(export), self._live(export.name)
        if rendering is None:
            because = f"there is no format {export.format!r}"
            return InExport(export.name, export.format, False, None, because, None, None)
        name, fmt = export.name, rendering.export.format
        pin = self._pin(name)
        facts = look if pin is None else _as_pinned(look, pin.moment)
        now = _outcome(rendering, kind, self._now, facts, judge)
        command = f"run 'blocklist export {name}'" if self._now.run is None else "the record of then says so"
        shadow = rendering.policy.mode == "shadow"
        if shadow:
            would = "would block it" if now.blocked else "would not block it"
            command = f"the policy {rendering.export.policy} is in shadow mode: it {would}, and writes nothing"
            if live is None:
                return InExport(name, fmt, False, now.by, f"{now.because}; {command}", None, None)
        elif live is None:
            because = f"it was never published: {command}" if self._now.run is None else "it was not published by then"
            if now.blocked:
                because = f"{now.because}, but {because}"
            return InExport(name, fmt, False, now.by, because, None, None, now.blocked or None)
        assert live is not None
        made_by = self._settings_of(live.id)
        rendered = _Rendering(made_by.own.export, made_by.own.policy, made_by.own.format) if made_by else rendering
        missing = _left_out(rendering.export, rendering.format, kind)
        then = now
        if self._differs(live, made_by, rendering, rendered, look):
            then = _outcome(rendered, kind, live.moment, facts, judge)
        if live.left_out is not None and then.blocked:
            then, now = self._without(live.left_out, then, now, rendered.format)
        if pin is not None and missing is None:
            then, now = (replace(x, because=f"{x.because}; {pin.said}") for x in (then, now))
        if then.blocked == now.blocked:
            excluded, since = missing is not None, live.published
            return InExport(name, fmt, now.blocked, now.by, now.because, live.id, since, excluded=excluded)
        if self._now.run is None and not shadow and self._gated(name, live.id):
            command = f"its release is held: see 'blocklist release', then 'blocklist release approve {name}'"
        because = f"{then.because}; not yet published: {now.because}; {command}"
        return InExport(name, fmt, then.blocked, then.by, because, live.id, live.published, now.blocked)

    def _differs(self, live: _Live, made_by: Settings | None, now: _Rendering, then: _Rendering, look: _Look) -> bool:
        """Could the published file say something else than the record does?"""
        if live.revision != self._revision() or self._now.run is not None:
            return True
        if any(x.ends and live.moment.judged < x.ends <= self._now.judged for x in look(self._now).listings):
            return True
        if made_by is None:
            return False
        # Frames and lines of a format decide nothing here, and a reader of abilities knows no more of it.
        same = (now.policy, now.export.kinds, now.export.options) == (
            *(then.policy, then.export.kinds, then.export.options),
        ) and now.format.name == then.format.name
        common, config = made_by.common, self._config
        return not same or common.feeds != config.feeds or common.protect != config.protect

    def _rendering_now(self, export: Export) -> _Rendering | None:
        """What `export` is made by as configured; of the past, what its release of then was made by."""
        if self._now.run is not None and (live := self._live(export.name)) is not None:
            made_by = self._settings_of(live.id)
            if made_by is not None:
                return _Rendering(made_by.own.export, made_by.own.policy, made_by.own.format)
        fmt = self._formats.get(export.format)
        return _Rendering(export, self._policy(export.policy), fmt) if fmt is not None else None

    def _exports_then(self) -> dict[str, Export]:
        """The exports that had a file at that time, and those configured now."""
        rows = self._db.execute("SELECT DISTINCT export FROM release WHERE published <= ?", (self._now.at,))
        found = dict(self._config.exports)
        for (name,) in rows:
            live = self._live(name)
            made_by = self._settings_of(live.id) if live is not None else None
            if made_by is not None:
                found[name] = made_by.own.export
        return found

    def _live(self, export: str) -> _Live | None:
        if self._now.run is None:
            where, values = "r.state = 'live'", [export]
        else:
            where, values = "r.published <= ? ORDER BY r.published DESC, r.id DESC LIMIT 1", [export, self._now.at]
        row = self._db.execute(
            f"SELECT r.id, r.published, coalesce(r.amends, r.id), {_SHOWN} WHERE r.export = ? AND {where}", values
        ).fetchone()
        if row is None:
            return None
        number, published, shown, revision, *moment, left = row
        return _Live(number, published, revision, _moment(shown, *moment), left)

    def _settings_of(self, release: int) -> Settings | None:
        if release not in self._settings:
            self._settings[release] = settings.of_release(self._db, release)
        return self._settings[release]

    def _feeds_at(self, moment: Moment) -> Mapping[str, Feed]:
        """The feeds as they were configured then, by id."""
        if moment not in self._feeds:
            made_by = self._settings_of(moment.release) if moment.release is not None else None
            if moment.run is None:
                self._feeds[moment] = self._config.feeds
            elif made_by is not None:
                self._feeds[moment] = made_by.common.feeds
            else:
                self._feeds[moment] = settings.feeds_at(self._db, moment.run) or self._config.feeds
        return self._feeds[moment]

    def _protected(self, moment: Moment) -> Sequence[str]:
        """What `[protect]` named then, and the resolvers of then."""
        made_by = self._settings_of(moment.release) if moment.release is not None else None
        if made_by is None:
            return self._config.protected_networks
        verify = msgspec.structs.replace(self._config.verify, resolvers=made_by.common.resolvers)
        return replace(self._config, protect=made_by.common.protect, verify=verify).protected_networks

    def _of_feeds(self, listings: Sequence[Listing], blocked: bool) -> list[str]:
        """What feeds that are not well have to do with the answer: old listings, and new ones that nobody saw yet."""
        if self._now.run is not None:
            return []
        rows = self._db.execute("SELECT name, outcome, changed FROM feed WHERE enabled").fetchall()
        now, listing = clock.parse(self._now.at), {x.feed for x in listings}
        notes, unseen = [], []
        for name, outcome, changed in rows:
            feed = self._config.feeds.get(name)
            if feed is None:
                continue
            if name in listing and (since := stale_since(feed, changed, now)) is not None:
                notes.append(f"feed {name} is stale: its list has not changed since {since[:16].replace('T', ' ')}")
            if outcome in ("failed", "gated") and not blocked and not feed.is_reference:
                unseen.append(f"{name} ({outcome})")
        if unseen:
            more = f" and {len(unseen) - 3} more" if len(unseen) > 3 else ""
            notes.append(
                f"what these feeds list now is not known: {', '.join(unseen[:3])}{more}; see 'blocklist status'"
            )
        return notes

    def _near(self, thing: Thing) -> list[str]:
        """Up to three listed names that look like it: steps through the key of the listings, never all of them."""
        if thing.kind == "domain":
            bare = thing.name.removeprefix("www.")
            likely = [f"{label}.{bare}" for label in _LABELS]
            found = [name for name in [bare, *likely] if name != thing.name and self._is_listed(name)]
            start, shortest = thing.name, 4
        else:
            found = []
            start = thing.name.rpartition("/")[0] + "/" if thing.kind == "url" else thing.name
            shortest = len(f"//{thing.host}/") if thing.kind == "url" else len(re.split(r"\d+$", start)[0]) or 4
        for length in range(len(start) - (thing.kind != "url"), shortest - 1, -1):
            if len(found) >= 3:
                break
            rows = self._db.execute(
                "SELECT DISTINCT name FROM listing WHERE name >= ? AND name < ? AND kind = ? LIMIT 100",
                (start[:length], start[:length] + "\x7f", KINDS.index(thing.kind) + 1),
            )
            others = [name for (name,) in rows if name != thing.name and name not in found]
            alike = 0.8 if thing.kind == "domain" else 0.5
            found += difflib.get_close_matches(thing.name, others, n=3 - len(found), cutoff=alike)
        return found[:3]

    def _is_listed(self, name: str) -> bool:
        return self._db.execute("SELECT 1 FROM listing WHERE name = ?", (name,)).fetchone() is not None

    def _pin(self, export: str) -> _Pin | None:
        held, values = _open_at(self._now)
        row = self._db.execute(
            "SELECT r.id, r.run, r.created, coalesce(r.judged, r.created), x.author, x.reason "
            f"FROM pin x JOIN release r ON r.id = x.release WHERE x.export = ? AND {held}",
            (export, *values),
        ).fetchone()
        if row is None:
            return None
        return _Pin(Moment(row[1], row[2], row[3], release=row[0]), f"pinned to release {row[0]} by {row[4]}: {row[5]}")

    def _without(self, kept_out: str, then: Outcome, now: Outcome, fmt: Format) -> tuple[Outcome, Outcome]:
        """The outcomes where the live release left out the entry that would decide."""
        try:
            data = kept.read(self._config.state, kept_out)
        except RecordError:
            return then, now
        by = then.by or ""
        why = left_out.reason(data, by)
        # Of a folded list one entry stood for all below it: cut, it stands for none of them.
        above = parents(by) if why is None and fmt.fold and parse_one(by) is None else ()
        why = why or next((f"{w} ({name})" for name in above if (w := left_out.reason(data, name)) and CUT in w), None)
        if why is None and parse_one(by) is not None:
            why = _around_left_out(data, by)
        if why is None:
            return then, now
        passes = replace(then, blocked=False, because=why)
        return passes, passes if now.blocked and now.by == then.by else now

    def _revision(self) -> int:
        return int(self._db.execute("SELECT value FROM counter WHERE name = 'revision'").fetchone()[0])

    def _gated(self, export: str, live: int) -> bool:
        """Is the newest release of `export`, after the live one, held?"""
        row = self._db.execute(
            "SELECT state FROM release WHERE export = ? AND id > ? ORDER BY id DESC LIMIT 1", (export, live)
        ).fetchone()
        return row is not None and row[0] == "held"

    def _policy(self, name: str) -> Policy:
        return self._config.policies.get(name) or Policy()

    # The record

    def _rules_at(self, moment: Moment) -> list[Rule]:
        moment = moment.of_rules
        if moment not in self._rules:
            held, values = _open_at(moment)
            rows = self._db.execute(
                "SELECT id, action, name, kind, subtree, reason, author, created, ticket, expires FROM rule x "
                f"WHERE {held} AND (expires IS NULL OR expires > ?) ORDER BY id",
                (*values, moment.at),
            )
            self._rules[moment] = [Rule(r[0], r[1], r[2], KINDS[r[3] - 1], bool(r[4]), *r[5:]) for r in rows]
        return self._rules[moment]

    def _holds(self, names: Sequence[str], moment: Moment) -> list[Hold]:
        held, values = _open_at(moment)
        out = []
        for name in names:
            rows = self._db.execute(
                "SELECT x.name, x.guard, x.detail, x.subtree_only, r.started "
                f"FROM hold x JOIN run r ON r.id = x.since WHERE x.name = ? AND {held} ORDER BY x.guard",
                (name, *values),
            ).fetchall()
            released = self._released(name, moment) if rows else None
            by = self._named_by(name, moment) if any(row[1] == "reference" for row in rows) else ()
            out += [
                Hold(row[0], row[1], row[2], bool(row[3]), row[4], released, *(by if row[1] == "reference" else ()))
                for row in rows
            ]
        return out

    def _named_by(self, name: str, moment: Moment) -> tuple[frozenset[str], ...]:
        """References that name `name`, and those that name something below it, where a policy asks which.

        The second looks through all that they list, for seconds in a large record: no index knows suffixes.
        """
        if parse_one(name) is not None or not any(policy.guards for policy in self._config.policies.values()):
            return ()
        holding = [f.id for f in self._config.feeds.values() if f.is_reference and f.action == "hold"]
        chain = [name, name.removeprefix("www.")]
        suffixes = builtin_rules_about([name, *parents(name)])
        own = [at for at in dict.fromkeys(chain) if not suffixes.is_suffix(at)]
        whole = {x.feed for x in self._listings(own, moment) if x.holds}
        asked = {
            feed for p in self._config.policies.values() for ids in p.guards.values() for feed in (*ids, ESSENTIAL)
        }
        above = {feed for feed in asked.intersection(holding) - whole if self._names_below(feed, name, moment)}
        return frozenset(whole), frozenset(above)

    def _names_below(self, feed: str, name: str, moment: Moment) -> bool:
        """Does the reference `feed` name anything below `name` but public suffixes?"""
        below = "substr(name, ?2) = ?3 AND kind = 1 AND feed = (SELECT id FROM feed WHERE name = ?1)"
        found = f"SELECT name FROM listing WHERE {below}"
        values: tuple[object, ...] = (feed, -len(name) - 1, f".{name}")
        if moment.run is not None:
            closed = f"SELECT name FROM listing_closed WHERE {below} AND since <= ?4 AND until > ?4"
            found += f" AND since <= ?4 UNION ALL {closed}"
            values += (moment.run,)
        names = (row[0] for row in self._db.execute(found, values))
        return any(not builtin_rules_about([at, *parents(at)]).is_suffix(at) for at in names)

    def _released(self, name: str, moment: Moment) -> str | None:
        """Who let `name` pass, and why."""
        held, values = _open_at(moment)
        row = self._db.execute(
            f"SELECT author || ': ' || reason FROM hold_release x WHERE name = ? AND {held}", (name, *values)
        ).fetchone()
        return row[0] if row else None

    def _verdict(self, name: str, moment: Moment) -> Verdict | None:
        columns = "name, status, since, checked, dead, detail, died"
        if moment.run is None:
            row = self._db.execute(f"SELECT {columns} FROM verdict WHERE name = ?", (name,)).fetchone()
            return Verdict(row[0], row[1], row[2], row[3], bool(row[4]), row[5]) if row else None
        row = self._db.execute(
            f"SELECT {columns} FROM verdict v WHERE name = ?2 AND (run <= ?1 OR {BEGAN}) UNION ALL "
            f"SELECT {columns.replace('checked', 'until')} FROM verdict_closed v "
            f"WHERE name = ?2 AND coalesce(closed > ?1, until > ?3) AND {BEGAN} ORDER BY 3 DESC LIMIT 1",
            (moment.run, name, moment.at),
        ).fetchone()
        if row is None:
            return None
        dead = bool(row[4]) and (row[6] is None or row[6] <= moment.run)
        # When it was last asked by then is not kept; it was when the verdict began.
        return Verdict(row[0], row[1], row[2], row[3] if row[3] <= moment.at else row[2], dead, row[5])

    def _listed(self, look: _Look, chain: Sequence[str]) -> list[Listing]:
        """Listings to show: those of now, and those that ended since but stand in a published file."""
        files = [live for name in self._exports if (live := self._live(name)) is not None]
        then = [f.moment for f in files if self._now.run is not None or f.revision != self._revision()]
        moments = [self._now, *then]
        found = {(x.indicator, x.feed, x.since): x for m in reversed(moments) for x in look(m).listings}
        # The nearest name, the narrowest network first.
        order = {name: i for i, name in enumerate(chain)}
        shown = (x for x in found.values() if not x.reference)
        return sorted(shown, key=lambda x: (order[x.indicator], x.since, x.feed))

    def _listings(self, names: Sequence[str], moment: Moment) -> list[Listing]:
        columns = "name, kind, subtree, line, confidence, extra, since, feed, dropped"
        if moment.run is None:
            source = f"SELECT {columns}, NULL AS until FROM listing WHERE name = ?1"
        else:
            source = (
                f"SELECT {columns}, NULL AS until FROM listing WHERE name = ?1 AND since <= ?2 UNION ALL "
                f"SELECT {columns}, until FROM listing_closed WHERE period IN ({self._periods_from(moment)}) "
                "AND name = ?1 AND since <= ?2 AND until > ?2"
            )
        out = []
        for name in names:
            rows = self._db.execute(
                f"""
                SELECT l.name, l.kind, l.subtree, l.line, l.confidence, l.extra, l.since, l.feed, r.started,
                       CASE WHEN ?3 IS NULL OR l.until <= ?3 THEN u.started END,
                       CASE WHEN ?2 IS NULL OR l.dropped <= ?2 THEN d.started END,
                       f.name, v.category, v.confidence, v.family, v.direction
                FROM ({source}) l JOIN feed f ON f.id = l.feed JOIN run r ON r.id = l.since
                LEFT JOIN run u ON u.id = l.until LEFT JOIN run d ON d.id = l.dropped
                LEFT JOIN feed_version v ON v.feed = l.feed
                     AND v.since = (
                         SELECT max(since) FROM feed_version WHERE feed = l.feed AND (?3 IS NULL OR since <= ?3))
                ORDER BY l.since, f.name
                """,
                (name, moment.run, self._now.run),
            )
            out += [self._listing(moment, *row) for row in rows]
        return out

    def _periods_from(self, moment: Moment) -> str:
        """What ended after that run was closed in that month or later."""
        return ", ".join(map(str, periods(self._db, moment.at)))

    def _listing(
        self,
        moment: Moment,
        name: str,
        kind: int,
        subtree: int,
        line: int,
        confidence: int | None,
        extra: str | None,
        run: int,
        number: int,
        since: str,
        until: str | None,
        dropped: str | None,
        feed_id: str,
        *version: Any,
    ) -> Listing:
        """A row with what its feed says: as configured now, else as it was last."""
        row = json.loads(extra) if extra else {}
        feed = self._feeds_at(moment).get(feed_id)
        category, own, family, direction = version
        if feed is not None:
            category, own, family, direction = feed.category, feed.confidence, feed.family, feed.matches
        told = row.get("category")
        end = end_of(
            feed,
            expires=_said(row, "expires"),
            date=_said(row, "date"),
            since=clock.parse(since),
            dropped=clock.parse(dropped) if dropped else None,
        )
        snapshot = self._db.execute(
            "SELECT id, sha256, url FROM snapshot WHERE feed = ? AND run = ? AND state <> 'refused' "
            "ORDER BY id DESC LIMIT 1",
            (number, run),
        ).fetchone()
        return Listing(
            indicator=name,
            kind=KINDS[kind - 1],
            scope="subtree" if subtree else "exact",
            feed=feed_id,
            category=told if isinstance(told, str) and told in CATEGORIES else category,
            confidence=own if confidence is None else confidence,
            family=family or f"\0{feed_id}",
            mode=feed.mode if feed is not None else "off",
            direction=direction,
            reference=category == "reference",
            holds=feed is not None and feed.is_reference and feed.action == "hold",
            since=since,
            until=until,
            line=line,
            text=self._line(snapshot[0], line) if snapshot and self._lines else None,
            snapshot=f"sha256:{snapshot[1]}" if snapshot else None,
            url=snapshot[2] if snapshot else None,
            extra={key: value for key, value in row.items() if value is not None},
            ends=clock.text(end.at) if end else None,
            ends_by=end.cause if end else None,
            expired=end is not None and clock.text(end.at) <= moment.judged,
            dropped=dropped,
            legal_basis=_said(row, "legal_basis") or (feed.legal_basis or None if feed else None),
            tlp=_tlp(row) or (feed.tlp if feed else None),
            redistribution=feed.redistribution if feed is not None else "unknown",
        )

    def _line(self, snapshot: int, line: int) -> str | None:
        links: list[int] = []
        at: int | None = snapshot
        while at is not None:
            links.append(at)
            at = self._db.execute("SELECT base FROM snapshot WHERE id = ?", (at,)).fetchone()[0]
        try:
            return snapshots.line(self._config.state, links[::-1], line).decode("utf-8", "replace")
        except RecordError:
            return None


def around(thing: Thing) -> list[str]:
    """The names whose listings and rules may decide for `thing`, its own first."""
    if thing.kind == "domain":
        return [thing.name, *parents(thing.name)]
    return [thing.name] if thing.kind == "url" else _around(thing)


def _host_of(thing: Thing) -> Thing | None:
    """What a URL's host is; None for `localhost` and the like, which no list may name."""
    try:
        return recognise(thing.host or "")
    except IndicatorError:
        return None


def _tlp(row: Mapping[str, Any]) -> str | None:
    level = _said(row, "tlp")
    return level if level in TLP else None


@dataclass(frozen=True)
class _Pin:
    """The moment of the release that an export is pinned to, and what is said of it."""

    moment: Moment
    said: str


def _as_pinned(look: _Look, moment: Moment) -> _Look:
    """What is listed as of `moment`, and all else as of the moment that is asked for."""

    def at(asked: Moment) -> Facts:
        then, now = look(moment), look(asked)
        return replace(now, listings=then.listings, verdicts=now.verdicts)

    return at


def _around_left_out(data: bytes, name: str) -> str | None:
    """Why the network around `name` was left out, if one was."""
    asked = parse_one(name)
    for line in data.decode("ascii").splitlines():
        text, _, why = line.partition("\t")
        found = parse_one(text)
        if asked and found and found[0] == asked[0] and found[1] <= asked[1] and asked[2] <= found[2]:
            return f"{why} ({text})"
    return None


def _said(row: Mapping[str, Any], key: str) -> str | None:
    value = row.get(key)
    return value if isinstance(value, str) else None


def _open_at(moment: Moment) -> tuple[str, tuple[int, ...]]:
    """The condition that the interval `x` (`since`, `until`: runs) was open then, and its parameters."""
    if moment.run is None:
        return "x.until IS NULL", ()
    return "x.since <= ? AND (x.until IS NULL OR x.until > ?)", (moment.run, moment.run)


# Of a release: revision, run, time, and as of when it judged, of the listings that it shows; the rules it shows, where
# these are newer: those of its own run.
_SHOWN = (
    "coalesce(b.revision, r.revision), coalesce(b.run, r.run), coalesce(b.created, r.created), "
    "CASE WHEN b.id IS NULL THEN coalesce(r.judged, r.created) ELSE coalesce(b.judged, b.created) END, "
    "CASE WHEN b.id IS NOT NULL THEN r.run END, r.created, r.left_out "
    "FROM release r LEFT JOIN release b ON b.id = r.amends"
)


def _moment(release: int, run: int, at: str, judged: str, ruled: int | None, created: str) -> Moment:
    return Moment(run, at, judged, None if ruled is None else (ruled, created), release)


def _around(thing: Thing) -> list[str]:
    """The canonical texts of an address or network and of all networks around it, the narrowest first."""
    family, size = (4, 32) if thing.kind == "ipv4" else (6, 128)
    chain = []
    for hosts in range((thing.last - thing.first).bit_length(), size + 1):
        first = thing.first >> hosts << hosts
        chain.append(network_text(family, first, first + (1 << hosts) - 1))
    return chain


# What most often stands before a name that a list has.
_LABELS = ("www", "m", "mail", "login", "app", "api", "cdn", "static", "secure", "web")


def _outcome(rendering: _Rendering, kind: str, moment: Moment, look: _Look, judge: _Judge) -> Outcome:
    if (left_out := _left_out(rendering.export, rendering.format, kind)) is not None:
        return Outcome(False, None, left_out)
    return judge(look(moment), rendering.policy, _target(rendering.export, rendering.format))


def _left_out(export: Export, fmt: Format, kind: str) -> str | None:
    """Why an export holds nothing of this kind at all; None when it may."""
    kinds = export.kinds if export.kinds is not None else fmt.kinds
    what = {"domain": "domains", "url": "URLs"}.get(kind, "addresses")
    if fmt.code == "rpz" and kind != "domain" and kind in fmt.kinds and not export.options.get("addresses"):
        return "an RPZ holds addresses only with addresses = true"
    if kind not in fmt.kinds:
        return f"{fmt.name} holds no {what}"
    if kind not in kinds:
        return f"this export takes no {what}"
    return None


def _target(export: Export, fmt: Format) -> Target:
    """What the format of an export can say."""
    asked = str(export.options.get("direction", "any"))
    directions = [asked, "both"] if asked in ("inbound", "outbound") else ["inbound", "outbound", "both"]
    writes: Callable[[str, bool], bool] = lambda name, subtree: True  # noqa: E731
    unwritable = ""
    if fmt.code == "rpz":
        directions = ["outbound", "both"]  # an answer's address is where clients would go
        origin = str(export.options.get("origin") or fmt.options["origin"].default)
        unwritable = "is too long for the zone"
        if export.split is not None:
            # The longest of the zones: nearly no name is so long that the difference matters.
            origin = f"{max(CATEGORIES, key=len)}.{origin}"
        room = MAX_NAME - len(origin) - 1
        writes = lambda name, subtree: len(name) + 2 * subtree <= room  # noqa: E731
    elif fmt.unwritable is not None:
        odd = re.compile(fmt.unwritable)
        unwritable = f"can't be written: {fmt.name} would read the line as something else"
        pair = f"{fmt.exact}\n{fmt.below}" if fmt.exact and fmt.below else None
        exact, suffix = fmt.exact or fmt.suffix or "", fmt.suffix or pair or fmt.exact or ""
        writes = lambda name, subtree: not odd.search((suffix if subtree else exact).replace("{name}", name))  # noqa: E731
    return Target(fmt.name, fmt.takes_subtree, fmt.takes_exact, fmt.takes_allow, writes, directions, unwritable)


def _with_host(url: InExport, host: InExport, name: str) -> InExport:
    """What an export does with a URL: what blocks its host blocks it too."""
    if host.blocked and not url.blocked:
        return replace(host, because=f"its host {name} is blocked: {host.because}")
    if url.blocked or url.pending or host.because == url.because or "holds no" in host.because:
        return url
    return replace(url, because=f"{url.because}; its host {name}: {host.because}", pending=host.pending)


__all__ = ["Answer", "Audit", "Hold", "InExport", "Listing", "Thing", "Verdict", "around", "recognise"]
