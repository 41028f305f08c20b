"""The one table at the end: what was measured, beside what was promised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """`measured` in the unit of `target`; `good` is None where there is no target or no measurement."""

    work: str
    measured: str
    target: str = ""
    good: bool | None = None
    note: str = ""


def skipped(work: str, why: str) -> Row:
    return Row(work, "skipped", note=why)


def show(rows: Sequence[Row]) -> str:
    marks = {True: "met", False: "MISSED", None: ""}
    cells = [("work", "measured", "target", "", "")]
    cells += [(r.work, r.measured, r.target, marks[r.good], r.note) for r in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(4)]
    return "\n".join(
        "  ".join([*(c.ljust(w) for c, w in zip(row[:4], widths, strict=True)), row[4]]).rstrip() for row in cells
    )
