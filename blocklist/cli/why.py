"""`blocklist why`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from blocklist.cli import shapes
from blocklist.cli.screen import Screen, moment, safe, second, shared_options

if TYPE_CHECKING:
    from blocklist.advice import Advice
    from blocklist.audit import Answer, Audit
    from blocklist.config import Config
    from blocklist.evidence import Listing

_WIDE = 120  # characters of a raw line on the screen


@click.command("why")
@click.argument("what")
@click.option("--at", metavar="DATE", help="As of then: 2026-03-03 (its end), 2026-03-03T14:00Z, 7d (ago), yesterday.")
@click.option("--resolve", is_flag=True, help="Ask the DNS, and say what would block on the way: CNAMEs and addresses.")
@click.option("--evidence", is_flag=True, help="Also write the bytes, digests, times and events that prove it.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Where --evidence writes to.")
@click.option("--excerpt", is_flag=True, help="Of downloads, only the cited part goes into the evidence.")
@shared_options
def command(
    screen: Screen, what: str, at: str | None, resolve: bool, evidence: bool, output: Path | None, excerpt: bool
) -> int:
    """Why WHAT is blocked, or why it is not: which feed, which line, since when, who decided.

    WHAT is a domain, an address, a network or a URL. The answer comes from the record alone.

    \b
    Examples:
      blocklist why a.b.evil.example
      blocklist why 192.0.2.7
      blocklist why https://files.example/malware.exe --json
      blocklist why evil.example --at 2026-03-03
      blocklist why portal.example --resolve
      blocklist why evil.example --evidence -o evil.zip
      blocklist why evil.example --at 2026-03-03 --evidence
    """
    if at is not None and resolve:
        raise click.UsageError("--resolve is about now; leave out --at")
    if (output is not None or excerpt) and not evidence:
        raise click.UsageError("-o and --excerpt go with --evidence")
    from blocklist import clock
    from blocklist.advice import advice
    from blocklist.audit import Audit
    from blocklist.cli.configured import configured
    from blocklist.dates import past
    from blocklist.publish.descriptor import abilities

    # Not the whole catalogue of formats: compiling their frames takes longer than the answer.
    config = configured(screen)
    formats = abilities([export.format for export in config.exports.values()], config.formats_folder)
    moment_asked = past(at, clock.now()) if at is not None else None
    audit = Audit(config, formats, moment_asked)
    said: dict[str, Any] = {}
    ways: list[Advice] = []
    try:
        answer = audit.why(what)
        steps = _resolved(screen, config, audit, answer) if resolve else []
        told = as_json(answer)
        if moment_asked is None:
            ways = advice(config, answer)
            told["ways"] = [{"to": w.to, "command": w.command, "key": w.key} for w in ways]
        if resolve:
            told["resolved"] = [
                {"name": s.query, "kind": s.kind, "blocked": s.blocked, "exports": _files(s)} for s in steps
            ]
        if evidence:
            from blocklist.cli.evidence import bundle_of, write_bundle

            bundle = bundle_of(audit, config, told, excerpt=excerpt)
            said = {"file": str(write_bundle(bundle, told, output)), "sha256": bundle.sha256, "head": bundle.head}
    finally:
        audit.close()
    screen.json({**told, "evidence": said} if said else told)
    if moment_asked is not None:
        screen.line(f"as of {second(answer.at)}:")
    _show(screen, answer)
    for step in steps:
        _show_step(screen, step)
    if answer.near:
        screen.line("listed names like it: " + ", ".join(map(safe, answer.near)))
    for way in ways:
        screen.line(f"  to {way.to}: {safe(way.command or way.key or '')}")
    if said:
        screen.line(f"evidence: {safe(said['file'])}, SHA-256 {said['sha256']}")
        screen.line("  anybody can check it with 'blocklist evidence check'; keep the SHA-256 apart from the file")
    return 0


def _show(screen: Screen, answer: Answer) -> None:
    blocked = [e for e in answer.exports if e.blocked]
    name = safe(answer.query)
    if blocked:
        screen.line(
            screen.style(f"{name} is blocked", bold=True)
            + " in "
            + ", ".join(f"{e.name} ({safe(e.format)})" for e in blocked)
        )
        for reason in dict.fromkeys(e.because for e in blocked):
            screen.line(f"  because {safe(reason)}")
    else:
        screen.line(
            screen.style(f"{name} is not blocked", bold=True)
            + (" in any export" if answer.exports else ": no exports are configured")
        )
    for export in answer.exports:
        if not export.blocked:
            screen.line(f"  not in {export.name} ({safe(export.format)}): {safe(export.because)}")
    if answer.listings:
        screen.table(
            ("feed", "category", "confidence", "since", "until", "line", ""),
            [
                (x.feed, x.category, x.confidence, moment(x.since), moment(x.until or x.ends) or "–", x.line, _text(x))
                for x in answer.listings
            ],
            right=(2, 5),
        )
        for x in answer.listings:
            for line in meaning(x):
                screen.line(f"  {x.feed}: {safe(line)[:600]}")
            if x.text is None and x.snapshot is not None:
                screen.line(
                    f"  {x.feed}: its download is lost; of the proof are left {x.snapshot}, {safe(x.url or '')}"
                )
    else:
        screen.line("no feed lists it, nor a name or network above it")
    for x in answer.references:
        left = f", dropped it {moment(x.dropped)}, counts until {moment(x.ends)}" if x.dropped else ""
        what = "" if x.holds else " and only informs"
        screen.line(f"reference {x.feed} names it in line {x.line}{what}{left}: {safe((x.text or '').strip())[:120]}")
    facts = []
    if answer.listings:
        facts.append(f"confidence {answer.confidence} (policy {answer.policy} asks {answer.asks})")
    if answer.verdict is not None:
        v = answer.verdict
        how = f" ({safe(v.detail)})" if v.detail else ""
        facts.append(f"verdict {v.status}{' (dead)' if v.dead else ''}{how}, checked {moment(v.checked)}")
    elif answer.kind == "domain" and answer.listings:
        facts.append("not verified")
    facts.append(
        "no rules" if not answer.rules else f"{len(answer.rules)} rules" if len(answer.rules) > 1 else "1 rule"
    )
    facts.append(
        "no holds" if not answer.holds else f"{len(answer.holds)} holds" if len(answer.holds) > 1 else "1 hold"
    )
    screen.line(" · ".join(facts))
    for rule in answer.rules:
        until = f", until {moment(rule.expires)}" if rule.expires else ""
        ticket = f", ticket {safe(rule.ticket)}" if rule.ticket else ""
        scope = "" if rule.kind != "domain" or not rule.subtree else " and all below it"
        screen.line(
            f"rule {rule.id}: {rule.action} {safe(rule.name)}{scope}: {safe(rule.reason)} "
            f"({safe(rule.author)}, {moment(rule.created)}{ticket}{until})"
        )
    for hold in answer.holds:
        how = " as a subtree" if hold.subtree_only else ""
        freed = f"; let pass by {safe(hold.released)}" if hold.released else ""
        screen.line(
            f"hold: {safe(hold.indicator)}{how} by guard {hold.guard}: {safe(hold.detail)}, "
            f"since {moment(hold.since)}{freed}"
        )
    for note in answer.notes:
        screen.line(safe(note))


def _resolved(screen: Screen, config: Config, audit: Audit, answer: Answer) -> list[Answer]:
    """What the DNS leads to, each with its own answer."""
    from blocklist.audit import recognise
    from blocklist.chain import follow
    from blocklist.errors import IndicatorError

    host = recognise(answer.query).host or answer.query
    if answer.kind in ("ipv4", "ipv6") or recognise(host).kind != "domain":
        raise click.UsageError(f"{safe(answer.query)} is an address already; --resolve is for names")
    try:
        chain = follow(host, config.verify.resolvers)
    except IndicatorError as error:
        screen.note(f"not resolved: {safe(error.message)}" + (f" ({safe(error.hint)})" if error.hint else ""))
        return []
    steps = [name for name in chain.names if _known(name)]
    if not steps and not chain.addresses:
        screen.line(f"{safe(host)} has no addresses in the DNS")
    return [audit.why(step, lines=False) for step in (*steps, *chain.addresses)]


def _known(name: str) -> bool:
    """Can any list name it? The DNS knows names that no host has."""
    from blocklist.audit import recognise
    from blocklist.errors import IndicatorError

    try:
        return recognise(name).kind == "domain"
    except IndicatorError:
        return False


def _files(answer: Answer) -> list[str]:
    return [e.name for e in answer.exports if e.blocked]


def _show_step(screen: Screen, step: Answer) -> None:
    """One line: what of the way would be blocked, and why."""
    what = "alias of" if step.kind == "domain" else "address"
    blocked = [e for e in step.exports if e.blocked]
    if not blocked:
        near = next((e.because for e in step.exports if e.because != "not listed" and not e.excluded), "not listed")
        screen.line(f"{what} {safe(step.query)}: not blocked ({safe(near)})")
        return
    told = ", ".join(f"{e.name} ({safe(e.format)})" for e in blocked)
    feeds = ", ".join(dict.fromkeys(x.feed for x in step.listings))
    screen.line(f"{what} {safe(step.query)}: blocked in {told} because {safe(blocked[0].because)} [{safe(feeds)}]")


def meaning(x: Listing) -> list[str]:
    """What a listing says beyond its name, in words for people; the feed's legal basis where the row has none."""
    row = x.extra
    order = [f"ordered by {row['authority']}"] if row.get("authority") else []
    order += [f"reason {row['reason']}"] if row.get("reason") else []
    order += [f"legal basis {x.legal_basis}"] if x.legal_basis else []
    order += [f"dated {row['date']}"] if row.get("date") else []
    out = [", ".join(order)] if order else []
    if x.ends is not None and x.until is None:
        how = {"expires": "by its row", "max_age": "by the feed's max_age"}.get(x.ends_by or "", "")
        if x.ends_by == "linger":
            verb = "lingered" if x.expired else "lingers"
            out.append(f"dropped by the feed on {moment(x.dropped)}, {verb} until {moment(x.ends)}")
        else:
            out.append(f"{'expired on' if x.expired else 'until'} {moment(x.ends)} {how}")
    facts = [f"reference {row['reference']}"] if row.get("reference") else []
    tags = row.get("tags")
    facts += [f"tags {', '.join(map(str, tags))}"] if isinstance(tags, list) and tags else []
    facts += [f"TLP {x.tlp.upper()}"] if x.tlp else []
    return [*out, ", ".join(facts)] if facts else out


def _text(listing: Listing) -> str:
    if listing.text is None:
        return "(the kept bytes can't be read)"
    text = safe(listing.text.strip())
    if len(text) <= _WIDE:
        return text
    # Of a long line (a MISP attribute, say) the part that names the thing.
    at = text.lower().find(listing.indicator)
    start = at - 20 if at >= 0 and at + len(listing.indicator) >= _WIDE else 0
    part = text[start : start + _WIDE - 1]
    return ("…" if start else "") + part + ("…" if start + _WIDE - 1 < len(text) else "")


def as_json(answer: Answer) -> dict[str, Any]:
    """The object that docs/audit.md promises for `why --json`."""
    return {
        "query": answer.query,
        "kind": answer.kind,
        "at": answer.at,
        "blocked": answer.blocked,
        "exports": [
            {
                "name": e.name,
                "format": e.format,
                "blocked": e.blocked,
                "by": e.by,
                "because": e.because,
                "release": e.release,
                "since": e.since,
                "pending": e.pending,
            }
            for e in answer.exports
        ],
        "listings": [_listing_json(x) for x in answer.listings],
        "references": [_listing_json(x) for x in answer.references],
        "confidence": answer.confidence,
        "near": list(answer.near),
        "notes": list(answer.notes),
        "holds": [
            {
                "indicator": h.indicator,
                "guard": h.guard,
                "detail": h.detail,
                "scope": "subtree" if h.subtree_only else "exact",
                "since": h.since,
                "released": h.released,
            }
            for h in answer.holds
        ],
        "rules": [shapes.rule(r) for r in answer.rules],
        "verdict": None
        if answer.verdict is None
        else {
            "name": answer.verdict.name,
            "status": answer.verdict.status,
            "since": answer.verdict.since,
            "checked": answer.verdict.checked,
            "dead": answer.verdict.dead,
            "detail": answer.verdict.detail,
        },
    }


def _listing_json(x: Listing) -> dict[str, Any]:
    return {
        "indicator": x.indicator,
        "scope": x.scope,
        "feed": x.feed,
        "category": x.category,
        "confidence": x.confidence,
        "since": x.since,
        "until": x.until,
        "ends": x.ends,
        "ends_by": x.ends_by,
        "expired": x.expired,
        "dropped": x.dropped,
        "legal_basis": x.legal_basis,
        "tlp": x.tlp,
        "snapshot": x.snapshot,
        "url": x.url,
        "line": x.line,
        "text": x.text,
        **({"row": dict(x.extra)} if x.extra else {}),
    }
