"""Why a thing is blocked or not, from the record alone: no column library, an answer in milliseconds.

What a policy takes is decided here for one name as `blocklist.select.policy` decides it for all; a property
test holds the two together.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

from blocklist import clock
from blocklist.catalog import KINDS
from blocklist.confidence import combine
from blocklist.config import Config, Export, Policy
from blocklist.errors import IndicatorError, RecordError
from blocklist.names import RejectedError, normalize_name, parents
from blocklist.publish.descriptor import Format
from blocklist.rules import Rule, deciding_rule
from blocklist.select.address import parse_one
from blocklist.store import snapshots
from blocklist.store.database import explained, open_for_reading, path_in
from blocklist.suffixes import SuffixRules, builtin_rules


@dataclass(frozen=True)
class Listing:
    """One feed's listing of an indicator that covers what was asked."""

    indicator: str
    kind: str
    scope: str
    feed: str
    category: str
    confidence: int
    family: str
    mode: str
    since: str
    until: str | None
    line: int
    text: str | None
    snapshot: str | None
    url: str | None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reference(self) -> bool:
        return self.category == "reference"


@dataclass(frozen=True)
class Hold:
    """A guard's hold; `released` names the person who let it pass."""

    indicator: str
    guard: str
    detail: str
    subtree_only: bool
    since: str
    released: str | None


@dataclass(frozen=True)
class InExport:
    """What one export does with the thing asked: `by` names the entry or rule, `because` says it in words."""

    name: str
    format: str
    blocked: bool
    by: str | None
    because: str
    release: int | None
    since: str | None


@dataclass(frozen=True)
class Verdict:
    """What DNS said last about `name`."""

    name: str
    status: str
    since: str
    checked: str
    dead: bool


@dataclass(frozen=True)
class Answer:
    """Everything `why` knows about `query`, in its canonical form."""

    query: str
    kind: str
    at: str
    exports: Sequence[InExport]
    listings: Sequence[Listing]
    references: Sequence[Listing]
    confidence: int
    asks: int
    holds: Sequence[Hold]
    rules: Sequence[Rule]
    verdict: Verdict | None
    inside: int = 0
    notes: Sequence[str] = ()

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


def recognise(text: str) -> Thing:
    """A domain, address, network or URL as the record names it. Raises IndicatorError with the reason."""
    text = text.strip()
    match = re.fullmatch(r"(?:[A-Za-z][A-Za-z0-9+.-]*:)?//(?:[^/?#@]*@)?([^/?#]+)([/?#].*)?", text)
    if match:
        thing = _url(text, match[1], match[2] or "")
        if thing is not None:
            return thing
        text = match[1]
    parsed = parse_one(text)
    if parsed is not None:
        family, first, last = parsed
        return Thing(network_text(family, first, last), "ipv4" if family == 4 else "ipv6", first, last)
    try:
        return Thing(normalize_name(text, allow_single=True), "domain")
    except RejectedError as error:
        raise IndicatorError(
            f"{text!r} is no domain, address, network or URL ({error.reason})",
            hint="examples: evil.example, 192.0.2.1, 192.0.2.0/24, https://evil.example/path",
        ) from None


_PORTS = {"http": "80", "https": "443", "ftp": "21"}


def _url(text: str, authority: str, rest: str) -> Thing | None:
    """A URL indicator; None when the URL stands for its host."""
    rest = rest.partition("#")[0]
    if rest in ("", "/"):
        return None
    host, _, port = authority.rpartition(":") if re.search(r":[0-9]*$", authority) else (authority, "", "")
    host = host.strip("[]").lower().removesuffix(".")
    if port == _PORTS.get(text.partition(":")[0].lower()):
        port = ""
    shown = f"[{host}]" if ":" in host else host
    path = rest if rest.startswith("/") else "/" + rest
    return Thing(f"//{shown}{':' + port if port else ''}{path}", "url", host=host)


def network_text(family: int, first: int, last: int) -> str:
    """Canonical text: a single address bare, else with its prefix length."""
    length = (32 if family == 4 else 128) - (last - first).bit_length()
    address = ip_address(first.to_bytes(4 if family == 4 else 16, "big"))
    return str(address) if first == last else f"{address}/{length}"


class Audit:
    """Questions to one state of the record; opens its own reading connection."""

    def __init__(self, config: Config, formats: Mapping[str, Format]) -> None:
        self._config, self._formats = config, formats
        self._path = path_in(config.state)
        self._db = open_for_reading(config.state)
        self._now = clock.text(clock.now())
        self._rules: list[Rule] | None = None

    def close(self) -> None:
        self._db.close()

    def why(self, text: str, *, lines: bool = True) -> Answer:
        """The answer for `text`. `lines`: read the raw lines out of the kept bytes too."""
        thing = recognise(text)
        with explained(self._path):
            if thing.kind == "domain":
                return self._domain(thing, lines)
            if thing.kind == "url":
                return self._url(thing, lines)
            return self._network(thing, lines)

    # Domains

    def _domain(self, thing: Thing, lines: bool) -> Answer:
        name = thing.name
        chain = [name, *parents(name)]
        found = self._listings(chain, lines)
        covering = [x for x in found if x.indicator == name or x.scope == "subtree" or self._may_widen(x)]
        holds = self._holds([x for x in chain if x == name or any(y.indicator == x for y in found)])
        rules = [r for r in self._rules_in_force() if r.kind == "domain" and r.name in chain]
        rules = [r for r in rules if r.subtree or r.name == name]
        verdicts = {n: v for n in chain if (v := self._verdict(n)) is not None}
        exports = [
            self._in_export(
                export,
                lambda policy, fmt: self._domain_decision(name, chain, found, holds, verdicts, policy, fmt),
                "domain",
            )
            for export in self._config.exports.values()
        ]
        listed = [x for x in covering if not x.reference]
        by = next((e.by for e in exports if e.blocked and e.by), name)
        return Answer(
            query=name,
            kind="domain",
            at=self._now,
            exports=exports,
            listings=listed,
            references=[x for x in found if x.reference and x.indicator == name],
            confidence=combine((x.family, x.confidence) for x in listed),
            asks=self._policy("default").min_confidence,
            holds=holds,
            rules=rules,
            verdict=verdicts.get(by) or verdicts.get(name),
        )

    def _may_widen(self, listing: Listing) -> bool:
        return listing.kind == "domain" and self._suffixes().is_registrable(listing.indicator)

    def _domain_decision(
        self,
        name: str,
        chain: Sequence[str],
        found: Sequence[Listing],
        holds: Sequence[Hold],
        verdicts: Mapping[str, Verdict],
        policy: Policy,
        fmt: Format,
    ) -> tuple[bool, str | None, str]:
        rule = deciding_rule(name, self._rules_in_force())
        if rule is not None and not self._scope_fits(rule, name, fmt):
            rule = None
        if rule is not None and not rule.blocks:
            return False, rule.name, f"allowed by rule {rule.id}"
        if rule is not None:
            return True, rule.name, f"denied by rule {rule.id}"
        reason = "not listed"
        for at in chain:
            entry, why_not = self._entry(at, found, holds, verdicts, policy)
            if entry is None:
                reason = why_not if reason == "not listed" else reason
                continue
            covers, why_not = self._covers(name, at, entry, holds, fmt)
            if covers:
                return True, at, "it is listed" if at == name else f"{at} and all below it is listed"
            reason = why_not
        return False, None, reason

    def _scope_fits(self, rule: Rule, name: str, fmt: Format) -> bool:
        return rule.name == name or fmt.takes_subtree or not rule.blocks

    def _entry(
        self,
        at: str,
        found: Sequence[Listing],
        holds: Sequence[Hold],
        verdicts: Mapping[str, Verdict],
        policy: Policy,
    ) -> tuple[str | None, str]:
        """The effective scope of `at` under `policy`, or None and why it is no entry."""
        listed = [x for x in found if x.indicator == at and not x.reference]
        if not listed:
            return None, "not listed"
        taken = [x for x in listed if self._takes(x, policy)]
        if not taken:
            return None, f"{at}: listed only in feeds or categories that the policy does not take"
        live = [h for h in holds if h.indicator == at and h.released is None]
        if any(not h.subtree_only for h in live):
            return None, f"{at} is held ({live[0].guard}: {live[0].detail})"
        refused = bool(live)
        widen = policy.widen and not refused and self._suffixes().is_registrable(at)
        wide = [x for x in taken if x.scope == "subtree" or widen]
        narrow = [x for x in taken if not (x.scope == "subtree" or widen)]
        by_all = combine((x.family, x.confidence) for x in taken)
        by_wide = combine((x.family, x.confidence) for x in wide)
        if refused and wide:
            by_all = combine((x.family, x.confidence) for x in narrow)
            if by_all < policy.min_confidence:
                return None, f"{at} is held ({live[0].guard}: {live[0].detail})"
        if by_all < policy.min_confidence:
            return None, f"{at}: confidence {by_all}, the policy asks {policy.min_confidence}"
        verdict = verdicts.get(at)
        if policy.dead == "drop" and verdict is not None and verdict.dead:
            return None, f"{at} is dead since {verdict.since}"
        scope = "subtree" if wide and not refused and (not narrow or by_wide >= policy.min_confidence) else "exact"
        return scope, ""

    def _covers(self, name: str, at: str, scope: str, holds: Sequence[Hold], fmt: Format) -> tuple[bool, str]:
        """Does an entry for `at` block `name` in a file of `fmt`?"""
        refused = any(h.indicator == at and h.released is None for h in holds)
        if fmt.code == "rpz" and len(at) + 2 + 1 + len(self._origin(fmt)) > 253:
            return False, f"{at} is too long for the zone"
        if not fmt.takes_exact and scope == "exact":
            if refused:
                return False, f"{at}: {fmt.name} knows only whole subtrees, and a guard refuses this one"
            scope = "subtree"
        if at == name:
            return True, ""
        if scope == "exact":
            return False, f"{at} is listed, but not what is below it"
        if not fmt.takes_subtree:
            return False, f"{at} is listed with all below it, but {fmt.name} knows single names only"
        if not fmt.takes_allow and any(
            not r.blocks and r.kind == "domain" and (r.name == at or r.name.endswith("." + at))
            for r in self._rules_in_force()
        ):
            return False, f"an allow below {at} leaves only the name itself in {fmt.name}"
        return True, ""

    def _origin(self, fmt: Format) -> str:
        for export in self._config.exports.values():
            if export.format == fmt.name and "origin" in export.options:
                return str(export.options["origin"])
        return str(fmt.options["origin"].default) if "origin" in fmt.options else ""

    # Networks

    def _network(self, thing: Thing, lines: bool) -> Answer:
        family = 4 if thing.kind == "ipv4" else 6
        size = 32 if family == 4 else 128
        chain = []
        for length in range(size - (thing.last - thing.first).bit_length(), -1, -1):
            span = size - length
            first = thing.first >> span << span
            chain.append(network_text(family, first, first + (1 << span) - 1))
        found = self._listings(chain, lines)
        holds = self._holds(chain)
        exports = [
            self._in_export(
                export,
                lambda policy, fmt: self._network_decision(thing, found, holds, policy, fmt, chain),
                thing.kind,
            )
            for export in self._config.exports.values()
        ]
        listed = [x for x in found if not x.reference]
        rules = [r for r in self._rules_in_force() if r.kind == thing.kind and r.name in chain]
        inside = self._inside(thing) if thing.first != thing.last else 0
        notes = [f"{inside:,} narrower entries inside it are listed; ask for them one by one"] if inside else []
        return Answer(
            query=thing.name,
            kind=thing.kind,
            at=self._now,
            exports=exports,
            listings=listed,
            references=[x for x in found if x.reference],
            confidence=combine((x.family, x.confidence) for x in listed),
            asks=self._policy("default").min_confidence,
            holds=holds,
            rules=rules,
            verdict=None,
            inside=inside,
            notes=notes,
        )

    def _network_decision(
        self,
        thing: Thing,
        found: Sequence[Listing],
        holds: Sequence[Hold],
        policy: Policy,
        fmt: Format,
        chain: Sequence[str],
    ) -> tuple[bool, str | None, str]:
        rules = [r for r in self._rules_in_force() if r.kind == thing.kind and r.name in chain]
        if rules:
            # The longest prefix wins; `allow` wins a tie.
            best = min(rules, key=lambda r: (chain.index(r.name), r.blocks))
            if best.blocks:
                return True, best.name, f"denied by rule {best.id}"
            return False, best.name, f"allowed by rule {best.id}"
        reference = next((x for x in found if x.reference and self._guards(x)), None)
        reason = "not listed"
        for at in chain:
            listed = [x for x in found if x.indicator == at and not x.reference]
            if not listed:
                continue
            taken = [x for x in listed if self._takes(x, policy)]
            if not taken:
                reason = f"{at}: listed only in feeds or categories that the policy does not take"
                continue
            live = next((h for h in holds if h.indicator == at and h.released is None), None)
            if live is not None:
                reason = f"{at} is held ({live.guard}: {live.detail})"
                continue
            score = combine((x.family, x.confidence) for x in taken)
            if score < policy.min_confidence:
                reason = f"{at}: confidence {score}, the policy asks {policy.min_confidence}"
                continue
            if (
                reference is not None
                and reference.indicator == thing.name
                and at != thing.name
                and thing.first == thing.last
            ):
                return False, at, f"is cut out of {at}: {reference.feed} names it (line {reference.line})"
            return True, at, "it is listed" if at == thing.name else f"{at} is listed"
        return False, None, reason

    def _guards(self, listing: Listing) -> bool:
        feed = self._config.feeds.get(listing.feed)
        return feed is not None and feed.action == "hold"

    def _inside(self, thing: Thing) -> int:
        """How many listed networks lie inside this one: a range of names, then exactly."""
        network = ip_network(thing.name, strict=True)
        separator = "." if thing.kind == "ipv4" else ":"
        if thing.kind == "ipv4":
            octets = str(network.network_address).split(".")[: network.prefixlen // 8]
            prefix = "".join(o + "." for o in octets)
        else:
            prefix = str(network.network_address).split("::")[0]
        rows = self._db.execute(
            "SELECT DISTINCT name FROM listing WHERE name >= ? AND name < ? AND kind = ? AND name <> ? LIMIT 200000",
            (prefix, prefix + "\x7f" if prefix else "\x7f", KINDS.index(thing.kind) + 1, thing.name),
        )
        del separator
        inside = 0
        for (name,) in rows:
            parsed = parse_one(name)
            inside += parsed is not None and thing.first <= parsed[1] and parsed[2] <= thing.last
        return inside

    # URLs

    def _url(self, thing: Thing, lines: bool) -> Answer:
        found = self._listings([thing.name], lines)
        listed = [x for x in found if not x.reference]
        host = self.why(thing.host or "", lines=lines) if thing.host else None
        exports = []
        for export in self._config.exports.values():
            by_host = next((e for e in host.exports if e.name == export.name), None) if host else None
            if by_host is not None and by_host.blocked:
                exports.append(by_host)
                continue
            exports.append(
                self._in_export(export, lambda policy, fmt: self._url_decision(thing, listed, policy), "url")
            )
        return Answer(
            query=thing.name,
            kind="url",
            at=self._now,
            exports=exports,
            listings=[*listed, *(host.listings if host else ())],
            references=host.references if host else (),
            confidence=combine((x.family, x.confidence) for x in listed),
            asks=self._policy("default").min_confidence,
            holds=[*self._holds([thing.name]), *(host.holds if host else ())],
            rules=[r for r in self._rules_in_force() if r.name == thing.name] + list(host.rules if host else ()),
            verdict=host.verdict if host else None,
        )

    def _url_decision(self, thing: Thing, listed: Sequence[Listing], policy: Policy) -> tuple[bool, str | None, str]:
        own = [r for r in self._rules_in_force() if r.kind == "url" and r.name == thing.name]
        for rule in sorted(own, key=lambda r: r.blocks):
            return rule.blocks, rule.name, f"{'denied' if rule.blocks else 'allowed'} by rule {rule.id}"
        if thing.host and (rule := deciding_rule(thing.host, self._rules_in_force())) is not None and not rule.blocks:
            return False, rule.name, f"allowed with its host by rule {rule.id}"
        taken = [x for x in listed if self._takes(x, policy)]
        score = combine((x.family, x.confidence) for x in taken)
        if not taken:
            return False, None, "not listed"
        if score < policy.min_confidence:
            return False, None, f"confidence {score}, the policy asks {policy.min_confidence}"
        return True, thing.name, "it is listed"

    # Shared

    def _in_export(self, export: Export, decide: Any, kind: str) -> InExport:
        fmt = self._formats[export.format]
        live = self._db.execute(
            "SELECT id, published, revision FROM release WHERE export = ? AND state = 'live'", (export.name,)
        ).fetchone()
        policy = self._policy(export.policy)
        blocked, by, because = False, None, ""
        kinds = export.kinds if export.kinds is not None else fmt.kinds
        if fmt.code == "rpz" and kind != "domain" and not export.options.get("addresses"):
            because = "an RPZ holds addresses only with addresses = true"
        elif kind not in kinds or kind not in policy.kinds:
            because = f"{fmt.name} holds no {'URLs' if kind == 'url' else kind + ' entries'} here"
        else:
            blocked, by, because = decide(policy, fmt)
        if live is None:
            return InExport(
                export.name, export.format, False, by, "never published: run 'blocklist export'", None, None
            )
        revision = self._db.execute("SELECT value FROM counter WHERE name = 'revision'").fetchone()[0]
        if revision != live[2] and (blocked or because.startswith(("allowed", "denied"))):
            held = self._db.execute(
                "SELECT 1 FROM release WHERE export = ? AND state = 'held' AND id > ?", (export.name, live[0])
            ).fetchone()
            if held:
                because += f"; the release with it is held, release {live[0]} stands"
        return InExport(export.name, export.format, blocked, by, because, live[0], live[1])

    def _policy(self, name: str) -> Policy:
        return self._config.policies.get(name) or Policy()

    def _takes(self, listing: Listing, policy: Policy) -> bool:
        return (
            listing.mode == "live"
            and listing.category in policy.categories
            and (policy.feeds is None or listing.feed in policy.feeds)
            and listing.kind in policy.kinds
        )

    def _suffixes(self) -> SuffixRules:
        return builtin_rules()

    def _rules_in_force(self) -> list[Rule]:
        if self._rules is None:
            rows = self._db.execute(
                "SELECT id, action, name, kind, subtree, reason, author, created, ticket, expires FROM rule "
                "WHERE until IS NULL AND (expires IS NULL OR expires > ?) ORDER BY id",
                (self._now,),
            )
            self._rules = [Rule(r[0], r[1], r[2], KINDS[r[3] - 1], bool(r[4]), *r[5:]) for r in rows]
        return self._rules

    def _holds(self, names: Sequence[str]) -> list[Hold]:
        out = []
        for name in names:
            for row in self._db.execute(
                "SELECT h.name, h.guard, h.detail, h.subtree_only, r.started, "
                "(SELECT author || ': ' || reason FROM hold_release x WHERE x.name = h.name AND x.until IS NULL) "
                "FROM hold h JOIN run r ON r.id = h.since WHERE h.name = ? AND h.until IS NULL",
                (name,),
            ):
                out.append(Hold(row[0], row[1], row[2], bool(row[3]), row[4], row[5]))
        return out

    def _verdict(self, name: str) -> Verdict | None:
        row = self._db.execute(
            "SELECT name, status, since, checked, dead FROM verdict WHERE name = ?", (name,)
        ).fetchone()
        return Verdict(row[0], row[1], row[2], row[3], bool(row[4])) if row else None

    def _listings(self, names: Sequence[str], lines: bool) -> list[Listing]:
        out = []
        for name in names:
            for row in self._db.execute(
                """
                SELECT l.name, l.kind, l.subtree, f.name, l.line, l.confidence, l.extra, r.started, l.since, l.feed,
                       v.category, v.confidence, v.family, v.mode
                FROM listing l JOIN feed f ON f.id = l.feed JOIN run r ON r.id = l.since
                LEFT JOIN feed_version v ON v.feed = l.feed
                     AND v.since = (SELECT max(since) FROM feed_version WHERE feed = l.feed)
                WHERE l.name = ? ORDER BY l.since, f.name
                """,
                (name,),
            ):
                out.append(self._listing(row, lines))
        return out

    def _listing(self, row: Sequence[Any], lines: bool) -> Listing:
        extra = json.loads(row[6]) if row[6] else {}
        snapshot = self._db.execute(
            "SELECT id, sha256, url FROM snapshot WHERE feed = ? AND run = ? AND state <> 'refused' ORDER BY id DESC LIMIT 1",
            (row[9], row[8]),
        ).fetchone()
        text = None
        if lines and snapshot is not None:
            try:
                text = snapshots.line(self._config.state, self._chain(snapshot[0]), row[4]).decode("utf-8", "replace")
            except RecordError:
                text = None
        return Listing(
            indicator=row[0],
            kind=KINDS[row[1] - 1],
            scope="subtree" if row[2] else "exact",
            feed=row[3],
            category=extra.get("category") or row[10],
            confidence=row[5] if row[5] is not None else row[11],
            family=row[12] or f"\0{row[3]}",
            mode=row[13],
            since=row[7],
            until=None,
            line=row[4],
            text=text,
            snapshot=f"sha256:{snapshot[1]}" if snapshot else None,
            url=snapshot[2] if snapshot else None,
            extra=extra,
        )

    def _chain(self, snapshot: int) -> list[int]:
        links: list[int] = []
        at: int | None = snapshot
        while at is not None:
            links.append(at)
            at = self._db.execute("SELECT base FROM snapshot WHERE id = ?", (at,)).fetchone()[0]
        return links[::-1]


__all__ = ["Answer", "Audit", "Hold", "InExport", "Listing", "Thing", "Verdict", "recognise"]
