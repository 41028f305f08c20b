"""`blocklist case`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from msgspec.structs import asdict

from blocklist.cli.rules import IN_FORCE, publish
from blocklist.cli.screen import ListingGroup, Screen, moment, safe, several, shared_options
from blocklist.cli.setup import configuration, writing

if TYPE_CHECKING:
    from blocklist.cases import Case


@click.group("case", cls=ListingGroup)
def command() -> None:
    """Complaints about what is blocked: freeze the evidence, write to the publisher, wait until the feed lets go.

    \b
    Examples:
      blocklist case open shop.example --ticket INC-7 --allow 14d --now
      blocklist case
      blocklist case close 3 --reason "the owner found the malware"
    """


@command.command("open")
@click.argument("what")
@click.option("--ticket", required=True, help="Your number of the complaint.")
@click.option("--reason", default="", help="What is said against the block; stands in the message and the allow.")
@click.option("--allow", metavar="TIME", help="Also allow it, for a span such as 14d or until a date.")
@click.option("--now", is_flag=True, help="Publish at once (with --allow).")
@click.option("--excerpt", is_flag=True, help="Of downloads, keep only the cited part as evidence.")
@shared_options
def open_(screen: Screen, what: str, ticket: str, reason: str, allow: str | None, now: bool, excerpt: bool) -> int:
    """Keep the evidence why WHAT is blocked, and draft the message to each publisher that lists it.

    The case closes itself in the update after which none of these feeds lists it any more.

    \b
    Examples:
      blocklist case open shop.example --ticket INC-7 --reason "cleaned yesterday" --allow 14d --now
      blocklist case open 192.0.2.7 --ticket INC-8 --excerpt
    """
    if now and allow is None:
        raise click.UsageError("--now publishes an allow: give --allow too")
    config, formats = configuration(screen)
    from blocklist.audit import Audit
    from blocklist.cases import kept_messages
    from blocklist.cli.evidence import bundle_of
    from blocklist.cli.why import as_json
    from blocklist.complaint import open_case
    from blocklist.person import whoami

    with writing(config, screen, "case open") as record:
        audit = Audit(config, formats)
        try:
            answer = as_json(audit.why(what))
            bundle = bundle_of(audit, config, answer, excerpt=excerpt)
        finally:
            audit.close()
        opened = open_case(
            record,
            answer,
            bundle,
            ticket=ticket,
            reason=reason,
            allow=allow,
            author=whoami(),
        )
        drafts = kept_messages(config.state, opened)
        screen.json({**_json(opened), "messages": [{"file": str(path), "text": text} for path, text in drafts]})
        screen.line(f"case {opened.id}: {safe(opened.name)}, {safe(opened.ticket)}")
        screen.line(f"evidence: {config.state / opened.bundle}, SHA-256 {opened.sha256}")
        if opened.rule is not None:
            screen.line(f"rule {opened.rule}: allow {safe(opened.name)} until {moment(opened.allowed_until)}")
        for path, text in drafts:
            screen.line(f"\nmessage to send: {path}\n")
            for line in text.splitlines():
                screen.line(f"  {safe(line)}".rstrip())
        if opened.rule is not None and not now:
            screen.line(IN_FORCE)
        return publish(screen, config, record, formats) if now else 0


@command.command("list")
@click.option("--all", "everything", is_flag=True, help="Closed ones too.")
@shared_options
def listing(screen: Screen, everything: bool) -> int:
    """The open cases: since when, who lists it still, how long it is allowed.

    \b
    Examples:
      blocklist case
      blocklist case list --all
    """
    from blocklist.cases import cases
    from blocklist.cli.configured import configured
    from blocklist.store.database import reading

    config = configured(screen)
    with reading(config.state) as db:
        found = cases(db, closed=everything)
    for one in found:
        screen.json(_json(one))
    screen.table(
        ("case", "what", "ticket", "opened", "by", "still listed by", "allowed until", "closed"),
        [
            (
                one.id,
                one.name,
                one.ticket,
                moment(one.opened),
                one.opened_by,
                ", ".join(dict.fromkeys(x.feed for x in one.cited if x.listed)) or "–",
                moment(one.allowed_until) or "–",
                f"{moment(one.closed)} by {one.closed_by}: {one.closed_reason}" if one.closed else "",
            )
            for one in found
        ],
        right=(0,),
    )
    open_ones = f" {'is' if len(found) == 1 else 'are'} open; --all shows the closed ones"
    screen.line(several(len(found), "case") + ("" if everything else open_ones))
    return 0


@command.command("show")
@click.argument("number", metavar="ID", type=click.IntRange(1, 2**63 - 1))
@shared_options
def show(screen: Screen, number: int) -> int:
    """Everything of one case, and the messages to its publishers.

    \b
    Example:
      blocklist case show 3
    """
    from blocklist.cases import case, kept_messages, trouble_of
    from blocklist.cli.configured import configured
    from blocklist.store.database import reading

    config = configured(screen)
    with reading(config.state) as db:
        one = case(db, number)
    drafts, trouble = kept_messages(config.state, one), trouble_of(config.state, one)
    screen.json({**_json(one), "messages": [{"file": str(path), "text": text} for path, text in drafts]})
    for key, value in asdict(one).items():
        if key == "cited":
            value = ", ".join(f"{x.indicator} by {x.feed}{'' if x.listed else ' (no longer)'}" for x in one.cited)
        if key in ("opened", "closed", "allowed_until") and value is not None:
            value = moment(value)
        if value is not None:
            screen.line(f"{key.replace('_', ' '):13} {safe(str(value))}")
    for path, text in drafts:
        screen.line(f"\nmessage to send: {path}\n")
        for line in text.splitlines():
            screen.line(f"  {safe(line)}".rstrip())
    if trouble is not None:
        screen.note(f"{config.state / one.bundle}: {trouble}")
    return 0


@command.command("close")
@click.argument("number", metavar="ID", type=click.IntRange(1, 2**63 - 1))
@click.option("--reason", required=True, help="How it ended.")
@click.option("--end-allow", is_flag=True, help="End the allow that came with it, too.")
@click.option("--now", is_flag=True, help="Publish at once.")
@shared_options
def close(screen: Screen, number: int, reason: str, end_allow: bool, now: bool) -> int:
    """End the case ID; its evidence stays.

    \b
    Examples:
      blocklist case close 3 --reason "the owner found the malware"
      blocklist case close 3 --reason "the publisher is right" --end-allow --now
    """
    config, formats = configuration(screen)
    from blocklist.complaint import close_case
    from blocklist.person import whoami

    with writing(config, screen, "case close") as record:
        one = close_case(record, number, reason=reason, author=whoami(), end_allow=end_allow)
        screen.json(_json(one))
        screen.line(f"case {one.id} ({safe(one.name)}, {safe(one.ticket)}) is closed")
        if one.rule is not None and end_allow:
            screen.line(f"rule {one.rule} (allow {safe(one.name)}) has ended")
            if not now:
                screen.line(IN_FORCE)
        if one.rule is not None and not end_allow and (one.allowed_until or "9") > (one.closed or ""):
            screen.line(f"rule {one.rule} allows it until {moment(one.allowed_until)}; --end-allow would have ended it")
        return publish(screen, config, record, formats) if now else 0


def _json(one: Case) -> dict[str, Any]:
    return {**asdict(one), "cited": [asdict(x) for x in one.cited]}
