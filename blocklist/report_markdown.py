"""A report as Markdown (GitHub's, with tables), for a ticket or a wiki."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from blocklist.clock import minute
from blocklist.plain import cell
from blocklist.report import Report

# What means something inside a cell of a table; a backslash before it takes the meaning away (CommonMark §2.4).
_PUNCTUATION = re.compile(r"([\\`*_\[\]|~>])")
# GitHub makes links of these without brackets (GFM §6.9).
_LINKS = re.compile(r"(?i)(https?|ftp|mailto|xmpp):|\bwww\.")


def markdown(report: Report) -> str:
    """The report; no text in it is a tag, a link, an image or a table's border, whoever wrote it."""
    r = report
    came, went, begun = (sum(getattr(day, key) for day in r.days) for key in ("came", "went", "begun"))
    out = [f"# Blocklist report, {minute(r.since)} to {minute(r.until)} UTC", ""]
    first = f", {begun:,} more with the first reading of a feed" if begun else ""
    out += [
        f"- {r.names:,} names, addresses and URLs listed now",
        f"- {came - begun:,} listings came{first}; {went:,} went",
        f"- {sum(g['now'] for g in r.held['guards']):,} holds by guards",
        f"- rules: {r.rules['allow']:,} allow, {r.rules['deny']:,} deny",
        f"- {r.runs:,} runs",
        "",
    ]
    rules = [(f"{x['action']} {x['name']}", minute(x["expires"]), x["author"], x["reason"]) for x in r.rules["ending"]]
    out += _table("Rules that end within a week", ("rule", "ends", "by", "reason"), rules)
    broken = [(e["export"], minute(e["failing"]["since"]), e["failing"]["error"]) for e in r.exports if e["failing"]]
    out += _table("Exports that fail", ("export", "since", "why"), broken)
    out += _table(
        "What came and went by day",
        ("day", "came", "went"),
        [(d.day, d.came, d.went) for d in r.days if d.came or d.went],
    )
    out += _table(
        "By category",
        ("category", "now", "came", "went"),
        [(c.name, c.now, c.came, c.went) for c in r.categories],
    )
    out += _table(
        "Feeds",
        (
            "feed",
            "category",
            "state",
            "entries",
            "came",
            "went",
            "alone",
            "nearest",
            "dead",
            "first",
            "later",
            "lead, days",
        ),
        [
            (
                f.feed,
                f.category,
                f"{f.state}: {f.error}" if f.error else f.state,
                f.entries,
                f.came,
                f.went,
                f.alone,
                f"{f.nearest} {f.share:.1%}" if f.nearest else "",
                f"{f.dead} of {f.asked}" if f.asked else "",
                f.first,
                f.later,
                "" if f.lead is None else f.lead,
            )
            for f in r.feeds
        ],
    )
    out += _table("Held", ("guard", "now", "new", "gone"), [tuple(g.values()) for g in r.held["guards"]])
    out += _table(
        "Newly held",
        ("held", "guard", "because", "since"),
        [(h["indicator"], h["guard"], h["detail"], minute(h["since"])) for h in r.held["new"]],
    )
    out += _table(
        "Let pass",
        ("name", "by", "reason", "on"),
        [(h["indicator"], h["author"], h["reason"], minute(h["created"])) for h in r.held["released"]],
    )
    out += _table(
        "Rules made or taken back",
        ("rule", "by", "on", "reason", "taken back"),
        [
            (f"{d['action']} {d['name']}", d["author"], minute(d["created"]), d["reason"], minute(d["removed"]))
            for d in r.decisions
        ],
    )
    for title, rows in (("Registrable domains", r.domains), ("Networks", r.networks)):
        out += _table(title, ("where", "listed in it", "came"), [(c.name, c.now, c.came) for c in rows])
    out += _table(
        "Exports",
        ("export", "format", "entries", "published", "releases", "held", "failed", "added", "removed"),
        [
            tuple(minute(v) if k == "at" else "" if v is None else v for k, v in e.items() if k != "failing")
            for e in r.exports
        ],
    )
    out += _table(
        "Releases",
        ("release", "state", "made", "entries", "added", "removed", "note"),
        [
            (
                f"{x['export']} {x['id']}",
                x["state"],
                minute(x["created"]),
                x["entries"],
                x["added"],
                x["removed"],
                x["note"],
            )
            for x in r.releases
        ],
    )
    return "\n".join(out)


def _table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """A heading and a table, or nothing where it would be empty."""
    lines = [f"| {' | '.join(_text(v) for v in row)} |" for row in rows]
    if not lines:
        return []
    return [f"## {title}", "", f"| {' | '.join(header)} |", "|" + " --- |" * len(header), *lines, ""]


def _text(value: object) -> str:
    if isinstance(value, int | float):
        return f"{value:,}"
    text = cell(str(value)).replace("&", "&amp;").replace("<", "&lt;")
    text = _PUNCTUATION.sub(r"\\\1", text)
    text = _LINKS.sub(lambda m: m[0][:-1] + ("&#58;" if m[1] else "&#46;"), text)
    return text.replace("@", "&#64;")


__all__ = ["markdown"]
