"""One name, address or URL at a time: what a policy decides and what a target makes of it, without Polars.

`blocklist.select.policy` and `blocklist.select.express` do the same in columns; property tests hold them together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from blocklist import clock
from blocklist.catalog import ESSENTIAL, REACH, TLP
from blocklist.confidence import combine
from blocklist.config import Policy
from blocklist.evidence import Facts, Hold, Listing, Verdict
from blocklist.names import parents
from blocklist.rules import Rule, deciding_network_rule, deciding_rule
from blocklist.suffixes import SuffixRules


class Target(msgspec.Struct, frozen=True):
    """What an export's format can say, under the format's `name`.

    `writes(name, subtree, covered)`: can an entry be written at all (a zone has room for 253 characters), where one
    above it covers it or not? `writes_url` says so of a URL, `unwritable` why one can't. `directions` of networks: a
    listing is taken when its own is among them. `alone`: kinds of addresses that it knows one by one, no networks.
    """

    name: str
    subtree: bool
    exact: bool
    allow: bool
    writes: Callable[[str, bool, bool], bool] = lambda name, subtree, covered: True
    directions: Sequence[str] = ("inbound", "outbound", "both")
    unwritable: str = "is too long for the zone"
    writes_url: Callable[[str], bool] = lambda url: True
    alone: Sequence[str] = ()


class Outcome(msgspec.Struct, frozen=True):
    """Is it blocked, by which entry or rule (`by`), and why, as the rest of "because …"."""

    blocked: bool
    by: str | None
    because: str


class Entry(msgspec.Struct, frozen=True):
    """A decision for `name` as in `blocklist.select.fold`; `rule` is the one that made it, if any did."""

    name: str
    subtree: bool
    block: bool
    widenable: bool
    rule: Rule | None = None


Entries = Mapping[tuple[str, bool], Entry]


def deciding_entry(
    name: str, entries: Entries, allowed: Callable[[str], bool], target: Target, decided: Entries | None = None
) -> Entry | None:
    """The entry that decides for `name` in a file of `target`; None when nothing there covers it.

    `entries` by name and scope: all of `name` and of the names above it. `allowed(x)`: does an allow name `x` or
    anything below it? `decided`: those before any was left out, which say what may stand as a subtree.
    """
    decided = entries if decided is None else decided
    chain = [name, *parents(name)]
    if not target.subtree:
        return entries.get((name, False)) or entries.get((name, True))
    if target.exact and target.allow:
        return entries.get((name, False)) or next((e for at in chain if (e := entries.get((at, True)))), None)
    for at in chain:
        exact, below = entries.get((at, False)), entries.get((at, True))
        if target.exact:
            if at == name and exact:
                return exact
            # An allow at or below a name leaves only the name itself of a subtree.
            if below and (not below.block or at == name or not allowed(at)):
                return below
            continue
        for entry in (exact, below):
            if entry and not entry.block:
                return entry
        block = below or (exact if exact and _stands_as_subtree(exact, decided) else None)
        if block and (target.allow or not allowed(at)):
            return block
    return None


def _stands_as_subtree(exact: Entry, entries: Entries) -> bool:
    """May an exact block be written as a subtree? What lies below it is decided from above, else by the guards."""
    above = (entries.get((at, True)) for at in [exact.name, *parents(exact.name)])
    cover = next(filter(None, above), None)
    return cover.block if cover else exact.widenable


# Names


def judge_name(name: str, facts: Facts, policy: Policy, target: Target, suffixes: SuffixRules) -> Outcome:
    """What an export of `policy` to `target` does with queries for `name`."""
    chain = [name, *parents(name)]
    rules = [r for r in facts.rules if r.kind == "domain"]
    ruled = _rule_entries(chain, rules)
    entries: dict[tuple[str, bool], Entry] = dict(ruled)
    reasons: dict[str, str] = {}
    for at in chain:
        entry = _listed_entry(at, facts, policy, suffixes)
        if isinstance(entry, str):
            reasons[at] = entry
        elif entry is not None and (at, entry.subtree) not in ruled and not _freed(entry, rules):
            entries[at, entry.subtree] = entry

    def allowed(at: str) -> bool:
        return any(not r.blocks and (r.name == at or r.name.endswith("." + at)) for r in rules)

    decided = dict(entries)
    meant = deciding_entry(name, decided, allowed, target)
    _leave_out(chain, entries, reasons, rules, target, allowed)
    entry = deciding_entry(name, entries, allowed, target, decided)
    if entry is not None:
        return Outcome(entry.block, entry.name, _said(name, entry, target))
    if meant is not None and meant.block:
        return Outcome(False, None, reasons[meant.name])
    for at in chain:
        missed = _missed(name, at, entries, facts, allowed, target) or reasons.get(at)
        if missed:
            return Outcome(False, None, missed)
    return Outcome(False, None, "not listed")


def _leave_out(
    chain: Sequence[str],
    entries: dict[tuple[str, bool], Entry],
    reasons: dict[str, str],
    rules: Sequence[Rule],
    target: Target,
    allowed: Callable[[str], bool],
) -> None:
    """Take out of `entries` what a file of `target` can't hold, and give the reasons.

    A block goes too where an allow at or below it can't be written, and with a block what was folded into it.
    """
    unsaid = [rule for rule in rules if not rule.blocks and target.allow and not _redundant(rule, rules)]
    decided = dict(entries)
    above: Entry | None = None
    gone = False
    for at in reversed(chain):
        for entry in (entries.get((at, True)), entries.get((at, False))):
            if entry is None:
                continue
            folded = target.subtree and above is not None and above.block == entry.block
            covered = above is not None and above.name != at
            wide = _said_wide(entry, decided, target, allowed)
            why = None
            if folded and gone and above is not None:
                why = reasons[above.name]
            elif not target.writes(entry.name, entry.subtree, covered):
                why = f"{entry.name} {target.unwritable}"
            elif entry.block and wide and (rule := _first_unsaid(entry, unsaid, target)) is not None:
                why = (
                    f"{entry.name} and all below it is not blocked here, as rule {rule.id} allows {rule.name}, "
                    f"which {target.unwritable}"
                )
            if why is not None:
                reasons[entry.name] = why
                del entries[entry.name, entry.subtree]
            # An allow with nothing above it says nothing, and is in no file.
            if wide and not folded and (entry.block or above is not None):
                above, gone = entry, why is not None


def _said_wide(entry: Entry, decided: Entries, target: Target, allowed: Callable[[str], bool]) -> bool:
    """Is `entry` fitted to `target` as one for all below its name too?"""
    if entry.block and not target.allow and allowed(entry.name):
        return False
    return entry.subtree or (not target.exact and (not entry.block or _stands_as_subtree(entry, decided)))


def _redundant(rule: Rule, rules: Sequence[Rule]) -> bool:
    """Does an allow above an allowed name say the same already?"""
    if rule.subtree:
        above = parents(rule.name)
        decides = deciding_rule(above[0], [r for r in rules if r.subtree]) if above else None
    else:
        decides = deciding_rule(rule.name, [r for r in rules if r.subtree])
    return decides is not None and not decides.blocks


def _first_unsaid(entry: Entry, unsaid: Sequence[Rule], target: Target) -> Rule | None:
    """An allow at or below a block of a subtree that the target has no room, or no words, for."""
    for rule in unsaid:
        own = rule.name == entry.name
        if (own or rule.name.endswith("." + entry.name)) and not target.writes(rule.name, rule.subtree, not own):
            return rule
    return None


def _rule_entries(chain: Sequence[str], rules: Sequence[Rule]) -> dict[tuple[str, bool], Entry]:
    """One entry a name and scope; `allow` wins where two rules say both."""
    entries: dict[tuple[str, bool], Entry] = {}
    for rule in sorted(rules, key=lambda r: r.blocks):
        if rule.name in chain:
            entries.setdefault(
                (rule.name, rule.subtree), Entry(rule.name, rule.subtree, rule.blocks, rule.subtree, rule)
            )
    return entries


def _freed(entry: Entry, rules: Sequence[Rule]) -> bool:
    """Does the rule that decides for a listed entry, from its own name or above, allow it?"""
    if entry.subtree:
        above = parents(entry.name)
        rule = deciding_rule(above[0], [r for r in rules if r.subtree]) if above else None
    else:
        rule = deciding_rule(entry.name, rules)
    return rule is not None and not rule.blocks


def _listed_entry(at: str, facts: Facts, policy: Policy, suffixes: SuffixRules) -> Entry | str | None:
    """The entry that the listings of `at` make; else the reason why they make none; None when there are none."""
    listed = [x for x in facts.listings if x.indicator == at and not x.reference]
    if not listed:
        return None
    taken = [x for x in listed if refusal(x, policy) is None]
    if not taken:
        return f"{at} is listed, but {refusal(listed[0], policy)}"
    holds = {x.category: _holds_on(at, x.category, facts, policy) for x in taken}
    whole = [h for held in holds.values() for h in held if not h.subtree_only]
    free = [x for x in taken if all(h.subtree_only for h in holds[x.category])]
    if not free:
        return f"{at} is held ({whole[0].guard}: {whole[0].detail})"
    widens = policy.widen and suffixes.is_registrable(at)
    wide = [x for x in free if x.scope == "subtree" or (widens and not holds[x.category])]
    # A guard that refuses the subtree withholds the listings that claim it; those of the name alone stand.
    standing = [x for x in free if x not in wide or not holds[x.category]]
    wide = [x for x in standing if x in wide]
    live = [h for held in holds.values() for h in held]
    if not standing:
        return f"{at} is held as a subtree ({live[0].guard}: {live[0].detail})"
    if (confidence := score(standing)) < policy.min_confidence:
        return f"{at} has confidence {confidence}, the policy asks {policy.min_confidence}"
    verdict = facts.verdicts.get(at)
    if verdict is not None and (dropped := dropped_for(verdict, policy)) is not None:
        return f"{at} is {_told(verdict)}, and the policy drops the {dropped}"
    subtree = bool(wide) and (len(wide) == len(standing) or score(wide) >= policy.min_confidence)
    return Entry(at, subtree, True, widenable=not live)


def dropped_for(verdict: Verdict, policy: Policy) -> str | None:
    """The verdict for which `policy` leaves a name out: of `dead`, `sinkholed`, `parked`."""
    said = "dead" if verdict.dead else verdict.status
    return said if said in policy.drops else None


def _told(verdict: Verdict) -> str:
    if verdict.dead:
        return f"dead: not registered since {verdict.since[:10]}"
    return f"{verdict.status} since {verdict.since[:10]}" + (f" ({verdict.detail})" if verdict.detail else "")


def _holds_on(at: str, category: str, facts: Facts, policy: Policy) -> list[Hold]:
    """The holds in force on listings of `at` in `category`: of references, those that the policy names for it."""
    live = _live_holds(at, facts)
    if category not in policy.guards:
        return live
    asked = {*policy.guards[category], ESSENTIAL}
    out = []
    for hold in live:
        if hold.guard != "reference":
            out.append(hold)
        elif hold.whole_by & asked or hold.above_by & asked:
            out.append(replace(hold, subtree_only=not hold.whole_by & asked))
    return out


def refusal(listing: Listing, policy: Policy) -> str | None:
    """Why `policy` does not take `listing`, as the rest of "it is listed, but …"; None when it does."""
    if listing.mode == "off":
        return f"feed {listing.feed} is not enabled any more"
    if listing.expired:
        how = {
            "expires": "by its row",
            "max_age": "by max_age",
            "linger": "having lingered since its feed dropped it",
        }.get(listing.ends_by or "", "")
        return f"it expired on {clock.said(listing.ends or '')} {how} (feed {listing.feed})"
    if listing.mode != "live":
        return f"feed {listing.feed} is in shadow mode: recorded, never exported"
    if policy.feeds is not None and listing.feed not in policy.feeds:
        return f"the policy does not take feed {listing.feed}"
    if listing.category not in policy.categories:
        return f"the policy does not take the category {listing.category} (feed {listing.feed})"
    if policy.audience != "house":
        if listing.redistribution == "forbidden":
            return f"feed {listing.feed} forbids passing it on, and the policy is for {policy.audience}"
        if listing.tlp is not None and TLP.index(listing.tlp) > TLP.index(REACH[policy.audience]):
            return f"feed {listing.feed} marks it TLP:{listing.tlp.upper()}, and the policy is for {policy.audience}"
    if listing.kind not in policy.kinds:
        return f"the policy takes no {listing.kind} entries"
    return None


def score(listings: Sequence[Listing]) -> int:
    """Their combined confidence."""
    return combine((x.family, x.confidence) for x in listings)


def _live_holds(at: str, facts: Facts) -> list[Hold]:
    return [h for h in facts.holds if h.indicator == at and h.released is None]


def _said(name: str, entry: Entry, target: Target) -> str:
    if entry.rule is not None:
        return by_rule(entry.rule)
    if entry.name == name:
        return "it is listed"
    if entry.subtree:
        return f"{entry.name} and all below it is listed"
    return f"{entry.name} is listed, and {target.name} blocks whole subtrees only"


def by_rule(rule: Rule) -> str:
    """`denied by rule 4 for evil.example and all below it (ana, ticket OPS-12: reason)`."""
    below = " and all below it" if rule.kind == "domain" and rule.subtree else ""
    who = f"{rule.author}, ticket {rule.ticket}" if rule.ticket else rule.author
    done = "denied" if rule.blocks else "allowed"
    return f"{done} by rule {rule.id} for {rule.name}{below} ({who}: {rule.reason})"


def _missed(
    name: str, at: str, entries: Entries, facts: Facts, allowed: Callable[[str], bool], target: Target
) -> str | None:
    """Why the entries of `at` do not block `name` here, when there are any."""
    exact, below = entries.get((at, False)), entries.get((at, True))
    entry = below or exact
    if entry is None or not entry.block:
        return None
    what = f"rule {entry.rule.id} denies {at}" if entry.rule else f"{at} is listed"
    if below:
        if not target.subtree:
            return f"{what} and all below it, but {target.name} knows single names only"
        left = "only the name itself" if target.exact else "nothing of it"
        return f"{what} and all below it, but an allow inside leaves {left} in {target.name}, which knows no exceptions"
    if target.exact:
        if live := _live_holds(at, facts):
            return f"{what}, but not what is below it: held as a subtree ({live[0].guard}: {live[0].detail})"
        return f"{what}, but not what is below it"
    if allowed(at) and not target.allow:
        return f"{what}, but {target.name} knows only whole subtrees and no exceptions, and an allow is inside"
    if live := _live_holds(at, facts):
        return f"{what}, but {target.name} knows only whole subtrees, and this one is held ({live[0].guard})"
    return f"{what} alone, but {target.name} knows only whole subtrees"


# Networks


def judge_network(chain: Sequence[str], facts: Facts, policy: Policy, target: Target) -> Outcome:
    """What an export does with the address or network `chain[0]`; `chain` goes on with all networks around it."""
    alone = ("ipv6" if ":" in chain[0] else "ipv4") in target.alone
    rule = deciding_network_rule(chain, facts.rules)
    if rule is not None and not (alone and rule.blocks and rule.name != chain[0]):
        return _unless_network(Outcome(rule.blocks, rule.name, by_rule(rule)), rule.name, alone, target)
    denied = by_rule(rule) if rule is not None else None
    reason = None
    for at in chain:
        entry = _listed_network(at, facts, policy, target)
        if rule is None and entry is None and (named := facts.exempt.get(chain[0])):
            whole = "it" if at == chain[0] else at
            return Outcome(False, None, f"{whole} is listed, but the address is cut out: {named}")
        if entry is None:
            because = "it is listed" if at == chain[0] else f"{at} is listed"
            return _unless_network(Outcome(True, at, because), at, alone, target)
        reason = reason or entry
    if denied is not None:
        return Outcome(False, None, f"{denied}, but {target.name} takes single addresses only")
    return Outcome(False, None, reason or "not listed")


def _unless_network(outcome: Outcome, by: str, alone: bool, target: Target) -> Outcome:
    """`outcome` where a network decides that the target can't say."""
    if outcome.blocked and alone and "/" in by:
        return Outcome(False, None, f"{outcome.because}, but {target.name} takes single addresses only")
    return outcome


def _listed_network(at: str, facts: Facts, policy: Policy, target: Target) -> str | None:
    """None when the listings of `at` put it into the export; else why not, empty when there are none."""
    listed = [x for x in facts.listings if x.indicator == at and not x.reference]
    if not listed:
        return ""
    taken = [x for x in listed if refusal(x, policy) is None]
    if not taken:
        return f"{at} is listed, but {refusal(listed[0], policy)}"
    if whole := [h for h in _live_holds(at, facts) if not h.subtree_only]:
        return f"{at} is held ({whole[0].guard}: {whole[0].detail})"
    if (confidence := score(taken)) < policy.min_confidence:
        return f"{at} has confidence {confidence}, the policy asks {policy.min_confidence}"
    if not any(x.direction in target.directions for x in taken):
        return f"{at} is listed as {taken[0].direction}, which this export does not take"
    return None


# URLs


def judge_url(
    url: str, host: str | None, around: Sequence[str], facts: Facts, policy: Policy, target: Target
) -> Outcome:
    """What an export of URLs does with `url`; its host is a name, or an address with the networks `around` it."""
    outcome = _decided_url(url, host, around, facts, policy)
    if outcome.blocked and not target.writes_url(url):
        return Outcome(False, None, f"{outcome.because}, but it {target.unwritable}")
    return outcome


def _decided_url(url: str, host: str | None, around: Sequence[str], facts: Facts, policy: Policy) -> Outcome:
    own = sorted((r for r in facts.rules if r.kind == "url" and r.name == url), key=lambda r: r.blocks)
    if own:
        return Outcome(own[0].blocks, own[0].name, by_rule(own[0]))
    rule = deciding_network_rule(around, facts.rules) if around else deciding_rule(host or "", facts.rules)
    if rule is not None and not rule.blocks:
        return Outcome(False, rule.name, f"its host is {by_rule(rule)}")
    listed = [x for x in facts.listings if x.indicator == url and not x.reference]
    taken = [x for x in listed if refusal(x, policy) is None]
    if not listed:
        return Outcome(False, None, "not listed")
    if not taken:
        return Outcome(False, None, f"it is listed, but {refusal(listed[0], policy)}")
    if whole := [h for h in _live_holds(url, facts) if not h.subtree_only]:
        return Outcome(False, None, f"it is held ({whole[0].guard}: {whole[0].detail})")
    if (confidence := score(taken)) < policy.min_confidence:
        return Outcome(False, None, f"confidence {confidence}, the policy asks {policy.min_confidence}")
    return Outcome(True, url, "it is listed")
