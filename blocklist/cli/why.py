"""`blocklist why`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from blocklist.cli.screen import Screen, moment, safe, shared_options

if TYPE_CHECKING:
    from blocklist.audit import Answer, Listing


@click.command("why")
@click.argument("what")
@click.option("--at", metavar="DATE", help="As of then: 2026-03-03 (its end), 2026-03-03T14:00Z, 7d (ago), yesterday.")
@shared_options
def command(screen: Screen, what: str, at: str | None) -> int:
    """Why WHAT is blocked, or why it is not: which feed, which line, since when, who decided.

    WHAT is a domain, an address, a network or a URL. The answer comes from the record alone.

    \b
    Examples:
      blocklist why a.b.evil.example
      blocklist why 192.0.2.7
      blocklist why https://files.example/malware.exe --json
      blocklist why evil.example --at 2026-03-03
    """
    from blocklist import clock
    from blocklist.audit import Audit
    from blocklist.config import load
    from blocklist.dates import past
    from blocklist.publish.descriptor import abilities

    # Not the whole catalogue of formats: compiling their frames takes longer than the answer.
    config = load(screen.config_path)
    formats = abilities([export.format for export in config.exports.values()], config.formats_folder)
    moment_asked = past(at, clock.now()) if at is not None else None
    audit = Audit(config, formats, moment_asked)
    try:
        answer = audit.why(what)
    finally:
        audit.close()
    screen.json(as_json(answer))
    if moment_asked is not None:
        screen.line(f"as of {answer.at}:")
    _show(screen, answer)
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
        facts.append(f"verdict {v.status}{' (dead)' if v.dead else ''}, checked {moment(v.checked)}")
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
    if any(h.released is None for h in answer.holds):
        held = next(h.indicator for h in answer.holds if h.released is None)
        screen.line(f"  to let it pass: blocklist held release {safe(held)} --reason '…'")
    for note in answer.notes:
        screen.line(note)


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
    return text if len(text) <= 120 else text[:119] + "…"


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
        "rules": [
            {
                "id": r.id,
                "action": r.action,
                "what": r.name,
                "scope": "subtree" if r.subtree else "exact",
                "reason": r.reason,
                "author": r.author,
                "ticket": r.ticket,
                "created": r.created,
                "until": r.expires,
            }
            for r in answer.rules
        ],
        "verdict": None
        if answer.verdict is None
        else {
            "name": answer.verdict.name,
            "status": answer.verdict.status,
            "since": answer.verdict.since,
            "checked": answer.verdict.checked,
            "dead": answer.verdict.dead,
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
