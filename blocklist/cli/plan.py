"""A release plan on the screen: what `export --dry-run`, a held release and `release show` say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocklist.cli.screen import Screen, change, number, safe

if TYPE_CHECKING:
    from blocklist.publish.plan import Plan

_PARTS = 10


def show_plan(screen: Screen, title: str, plan: Plan) -> None:
    """What comes and goes, by whose feed, the names people know, the gate, and how to go on."""
    before = "nothing" if plan.before is None else f"{number(plan.before)} entries"
    screen.line()
    screen.line(
        f"{safe(title)}: {before} → {number(plan.after)} (+{number(plan.added)} −{number(plan.removed)} entries)"
    )
    if plan.gate:
        screen.line(f"held: {safe(plan.gate)}")
    if not plan.complete:
        screen.line("no copy of the live release is at hand: which entries come and go is not known")
    shown = plan.parts[:_PARTS]
    if shown:
        screen.table(
            ("feed", "category", "added", "removed"),
            [(p.feed, p.category, change(p.added, "+"), change(p.removed, "−")) for p in shown],
            right=(2, 3),
        )
    if rest := plan.parts[_PARTS:]:
        added, removed = (sum(getattr(p, what) for p in rest) for what in ("added", "removed"))
        screen.line(f"and {len(rest)} more (+{number(added)} −{number(removed)})")
    for said in plan.ruled[:_PARTS]:
        screen.line(f"by {safe(said)}")
    if len(plan.ruled) > _PARTS:
        screen.line(f"and by {len(plan.ruled) - _PARTS:,} more rules")
    if plan.removed_because:
        reasons = "; ".join(f"{number(count)} {words}" for words, count in plan.removed_because.items())
        screen.line(f"removed: {safe(reasons)}")
    if plan.known:
        screen.line("best known among them:")
        for known in plan.known:
            below = f"below {known.under}, " if known.under != known.entry else ""
            sign = "+" if known.change == "added" else "−"
            place = f"line {known.line}" if known.rank is None else f"rank {number(known.rank)}"
            screen.line(f"  {sign} {safe(known.entry)} ({safe(below)}{place} of {safe(known.reference)})")
    if plan.known_more:
        screen.line(f"  and {number(plan.known_more)} more")
    for way in plan.ways:
        screen.line(f"  · {safe(way)}")
