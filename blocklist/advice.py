"""What a person may want to do next: the command, or the key, that would change the answer of `why`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import msgspec

from blocklist.audit import Answer, InExport, recognise
from blocklist.config import Config, Policy
from blocklist.evidence import Listing
from blocklist.select.single import dropped_for, refusal, score


class Advice(msgspec.Struct, frozen=True):
    """`to` do something, by a `command`, or by a `key` of the configuration."""

    to: str
    command: str | None = None
    key: str | None = None


def advice(config: Config, answer: Answer) -> list[Advice]:
    """The ways to another answer, the surest last: the word of a person outranks everything. For now, not a date."""
    found: dict[Advice, None] = {}
    takes = [e for e in answer.exports if not e.excluded]
    for export in takes:
        found.update(dict.fromkeys(_blocked(answer) if export.blocked else _free(config, answer, export)))
    if blocking := [e for e in takes if e.blocked]:
        found.update(dict.fromkeys(_let_through(answer, blocking)))
    elif takes and not any(e.pending for e in takes):
        found[Advice("block it", f"blocklist deny add {shlex.quote(answer.query)} --reason '…' --now")] = None
    return list(found)


def _let_through(answer: Answer, blocking: list[InExport]) -> Iterator[Advice]:
    """The allow that frees; of a URL whose host is what is blocked, that of the host, which covers its URLs too."""
    host = recognise(answer.query).host
    if host is None or any(e.by == answer.query for e in blocking):
        yield Advice("let it through", f"blocklist allow add {shlex.quote(answer.query)} --reason '…' --now")
    if host is not None and any(e.by != answer.query for e in blocking):
        yield Advice("let its whole host through", f"blocklist allow add {shlex.quote(host)} --reason '…' --now")


def _blocked(answer: Answer) -> Iterator[Advice]:
    names = {e.by for e in answer.exports if e.blocked}
    for rule in answer.rules:
        if rule.blocks and rule.name in names:
            yield Advice(f"end rule {rule.id}", f"blocklist deny remove {rule.id} --reason '…' --now")


def _free(config: Config, answer: Answer, export: InExport) -> Iterator[Advice]:
    if export.pending:
        return  # the answer itself names the command
    if allows := [r for r in answer.rules if not r.blocks]:
        for rule in allows:
            yield Advice(f"end rule {rule.id}", f"blocklist allow remove {rule.id} --reason '…' --now")
        return
    for hold in answer.holds:
        if hold.released is None:
            what = shlex.quote(hold.indicator)
            yield Advice(f"let it pass guard {hold.guard}", f"blocklist held release {what} --reason '…' --now")
    name = config.exports[export.name].policy if export.name in config.exports else "default"
    policy = config.policies.get(name) or Policy()
    listed = [x for x in answer.listings if x.until is None and not x.expired]
    for listing in listed:
        yield from _taken(name, policy, listing)
    taken = [x for x in listed if refusal(x, policy) is None]
    if taken and (confidence := score(taken)) < policy.min_confidence:
        yield Advice(f"ask no more than {confidence}", key=f"[policy.{name}] min_confidence = {confidence}")
    if taken and answer.verdict is not None and (dropped := dropped_for(answer.verdict, policy)) is not None:
        yield Advice(f"keep the {dropped}", key=f'[policy.{name}] {dropped} = "keep"')


def _taken(name: str, policy: Policy, listing: Listing) -> Iterator[Advice]:
    """What would make the policy take `listing`."""
    feed = listing.feed
    if listing.mode == "off":
        yield Advice(f"use feed {feed}", f"blocklist feeds enable {feed}")
    elif listing.mode != "live":
        yield Advice(f"let feed {feed} act", key=f'[feed.{feed}] mode = "live"')
    elif policy.feeds is not None and feed not in policy.feeds:
        yield Advice(f"take feed {feed}", key=f"[policy.{name}] feeds: add {feed}")
    elif listing.category not in policy.categories:
        yield Advice(f"take {listing.category}", key=f"[policy.{name}] categories: add {listing.category}")
    elif listing.kind not in policy.kinds:
        yield Advice(f"take {listing.kind} entries", key=f"[policy.{name}] kinds: add {listing.kind}")
