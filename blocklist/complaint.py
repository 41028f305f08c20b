"""A person opens a case and ends it: the evidence is frozen, an allow may come with it, the publisher is written to.

The files of case N lie in `cases/N` of the state: `evidence.zip` and a message to each publisher.
"""

from __future__ import annotations

import io
import json
import re
import sqlite3
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from blocklist import clock
from blocklist.bundle.parts import ANSWER, PROOF, Answered, Proof, Source
from blocklist.cases import Case, case, close
from blocklist.catalog import KINDS
from blocklist.decisions import Wanted, allow_within, end_within, until_text
from blocklist.errors import IndicatorError
from blocklist.plain import safe
from blocklist.store import folders

if TYPE_CHECKING:
    from blocklist.bundle.collect import Bundle
    from blocklist.store.record import Record

BUNDLE = "evidence.zip"


class Message(msgspec.Struct, frozen=True):
    """A draft to the publisher of `feed`; `to` is empty where no address is known."""

    feed: str
    to: str
    text: str


def open_case(
    record: Record,
    answer: Mapping[str, Any],
    bundle: Bundle,
    *,
    ticket: str,
    reason: str,
    allow: str | None,
    author: str,
) -> Case:
    """Open a case about what `answer` (of `why --json`) is about, and keep its `bundle`.

    `allow`: a span or date, until which an allow stands. Raises IndicatorError where there is nothing to complain
    about, or a case is open.
    """
    if not ticket.strip():
        raise IndicatorError("--ticket is empty", hint="give the number by which you will find it again")
    name, db = str(answer["query"]), record.connection
    cited = sorted({(x["indicator"], x["feed"]) for x in answer["listings"] if x["until"] is None})
    if not cited:
        raise IndicatorError(f"no feed lists {name}, so there is no publisher to write to", hint=_instead(answer))
    standing = db.execute("SELECT id FROM case_file WHERE name = ? AND ticket = ? AND closed IS NULL", (name, ticket))
    if (row := standing.fetchone()) is not None:
        raise IndicatorError(f"case {row[0]} is open for {name} and {ticket}", hint=f"'blocklist case show {row[0]}'")
    until_text(allow, clock.now(), "--allow")
    with record.new_run("case open", author) as run:
        number = _next_number(run.connection, record.state)
        rule = None
        if allow is not None:
            wanted = Wanted(name, f"case {number}" + (f": {reason}" if reason else ""), ticket, allow)
            rule = allow_within(run, wanted)
        path = Path("cases") / str(number) / BUNDLE
        run.connection.execute(
            "INSERT INTO case_file (id, name, kind, ticket, opened, opened_by, since, bundle, sha256, cited, rule) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                number,
                name,
                KINDS.index(str(answer["kind"])) + 1,
                ticket,
                run.at,
                author,
                run.id,
                str(path),
                bundle.sha256,
                json.dumps(cited),
                rule,
            ),
        )
        run.event(
            "case opened",
            case=number,
            name=name,
            ticket=ticket,
            reason=reason,
            sha256=bundle.sha256,
            feeds=sorted({feed for _, feed in cited}),
            allow=rule,
        )
        # On disk before the row is.
        drafts = messages(bundle.data, ticket=ticket, reason=reason)
        files = {path.with_name(f"to-{_file_name(m.feed)}.txt"): m.text.encode("utf-8") for m in drafts}
        for place, data in {path: bundle.data, **files}.items():
            folders.put(record.state / place, data)
    return case(record.connection, number)


def _next_number(connection: sqlite3.Connection, state: Path) -> int:
    """A number whose evidence no case has: after a restore, that of cases since the backup lies there still."""
    (last,) = connection.execute("SELECT coalesce(max(id), 0) FROM case_file").fetchone()
    kept = [int(path.parent.name) for path in (state / "cases").glob(f"[1-9]*/{BUNDLE}") if path.parent.name.isdigit()]
    return max([int(last), *kept]) + 1


def _instead(answer: Mapping[str, Any]) -> str:
    deny = next((r for r in answer["rules"] if r["action"] == "deny"), None)
    if deny is not None:
        return f"a rule of your own blocks it: 'blocklist deny remove {deny['id']} --reason …'"
    return "'blocklist why' says what is known of it"


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text)[:80]


# Messages


def messages(bundle: bytes, *, ticket: str, reason: str) -> list[Message]:
    """A draft to the publisher of each feed that lists it, from a bundle of our own."""
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        said = msgspec.json.decode(archive.read(ANSWER), type=Answered)
        proof = msgspec.json.decode(archive.read(PROOF), type=Proof)
    sources = {s.id: s for s in proof.sources}
    feeds = dict.fromkeys(x.feed for x in said.listings if x.until is None)
    return [
        _message(sources.get(feed, Source(feed, feed, "", "", "", "")), said, proof, ticket, reason) for feed in feeds
    ]


def _message(source: Source, said: Answered, proof: Proof, ticket: str, reason: str) -> Message:
    name, title = safe(said.query), safe(source.title)
    downloads = {s.sha256: s for s in proof.snapshots if s.feed == source.id}
    lines = []
    for x in said.listings:
        if x.feed != source.id or x.until is not None:
            continue
        download = downloads.get((x.snapshot or "").removeprefix("sha256:"))
        where = f"{safe(download.url)}, fetched {download.fetched}" if download else "your list"
        lines += [
            f"  line {x.line} of {where}",
            f"  listed since {x.since}:",
            "",
            f"      {safe(x.text or '')[:500]}",
            "",
        ]
        if download:
            lines += [f"  SHA-256 of that copy: {download.sha256}", ""]
    known = source.contact or source.homepage
    to = (
        f"To: {safe(source.contact)}"
        if source.contact
        else f"To: (no address is known{'; see ' + safe(known) if known else ''})"
    )
    why = [f"What is said against it: {safe(reason)}", ""] if reason else []
    text = [
        to,
        f"Subject: {name} in {title} ({safe(ticket)})",
        "",
        f"{safe(source.publisher) or 'Hello'},",
        "",
        f"your list {title} names {name}"
        + ("" if any(x.indicator == said.query for x in said.listings) else ", or what covers it")
        + ":",
        "",
        *lines,
        "Somebody whom this concerns says that it does not belong there.",
        *why,
        "Please look at the entry, and either remove it or tell us why it stands there. The bytes above are kept",
        f"as evidence and can be sent. Our reference is {safe(ticket)}.",
        "",
    ]
    return Message(source.id, source.contact, "\n".join(text))


# Closing


def close_case(record: Record, number: int, *, reason: str, author: str, end_allow: bool) -> Case:
    """A person ends a case; the evidence stays. Raises IndicatorError when none of this number is open."""
    if not reason.strip():
        raise IndicatorError("--reason is empty", hint="say how it ended")
    found = case(record.connection, number)
    if found.closed is not None:
        raise IndicatorError(
            f"case {number} was closed {found.closed}: {found.closed_reason}", hint="'blocklist case list --all'"
        )
    with record.new_run("case close", author) as run:
        close(run, found, reason)
        if end_allow and found.rule is not None:
            end_within(run, found.rule, reason=f"case {number} closed: {reason}")
    return case(record.connection, number)
