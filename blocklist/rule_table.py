"""Rules as CSV, for people who keep them in a spreadsheet or a ticket system.

Columns: `what`, `reason`, `ticket`, `until`, `scope` (`exact`, or empty); `what` is required, `reason` unless one
is given for all. Others are ignored, so that what `list --csv` writes can be read back. A plain list, as other
programs keep their exceptions, is read too.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence

from blocklist.decisions import Wanted
from blocklist.errors import IndicatorError
from blocklist.plain import FORMULA

COLUMNS = ("what", "scope", "reason", "ticket", "until", "id", "author", "created")
_MOST = 1_000_000


def read(
    text: str, name: str, *, reason: str | None = None, ticket: str | None = None, until: str | None = None
) -> list[tuple[str, Wanted]]:
    """The rules of a CSV text or a list, each with its place (`name:line`). Raises IndicatorError if it is neither.

    `reason`, `ticket` and `until` are for rows that say none.
    """
    given = {"reason": reason or "", "ticket": ticket or "", "until": until or ""}
    text = text.removeprefix("\ufeff")
    if listed := _listed(text, name, given):
        return listed
    first = text.split("\n", 1)[0]
    # Spreadsheets of half of Europe separate by semicolons.
    delimiter = ";" if first.count(";") > first.count(",") else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    wanted: list[tuple[str, Wanted]] = []
    try:
        header = [cell.strip().lower() for cell in next(reader, [])]
        missing = [c for c in ("what", *(() if reason else ("reason",))) if c not in header]
        if missing:
            raise IndicatorError(
                f"{name}: the first line names no column {' and no '.join(missing)}: {first.strip()[:80]!r}",
                hint="it must say which is which, for example: what,reason,ticket,until; a plain list has no commas",
            )
        for cells in reader:
            row = {column: _plain(cell) for column, cell in zip(header, cells, strict=False)}
            if any(row.values()):
                wanted.append((f"{name}:{reader.line_num}", _wanted(row, given, f"{name}:{reader.line_num}")))
            _bound(wanted, name)
    except csv.Error as error:
        raise IndicatorError(f"{name}:{reader.line_num}: not CSV ({error})", hint="save it as CSV in UTF-8") from None
    return wanted


def _listed(text: str, name: str, given: Mapping[str, str]) -> list[tuple[str, Wanted]]:
    """The rules of a list: a name a line, and behind `#` its reason; empty where the first line is one of a table."""
    wanted: list[tuple[str, Wanted]] = []
    for number, line in enumerate(text.split("\n"), 1):
        what, *why = (part.strip() for part in re.split(r"(?:^|\s)#", line, maxsplit=1))
        if not what:
            continue
        if not wanted and (what.lower() == "what" or set(what) & set(',;"')):
            return []
        said = {"what": what, "reason": why[0] if why else ""}
        wanted.append((f"{name}:{number}", _wanted(said, given, f"{name}:{number}")))
        _bound(wanted, name)
    return wanted


def _bound(wanted: Sequence[object], name: str) -> None:
    if len(wanted) > _MOST:
        raise IndicatorError(f"{name}: more than {_MOST:,} rules", hint="make so many a feed of your own")


def _wanted(row: Mapping[str, str], given: Mapping[str, str], place: str) -> Wanted:
    scope = row.get("scope", "").lower()
    if scope not in ("", "exact", "subtree"):
        raise IndicatorError(f"{place}: scope {scope!r} is neither 'exact' nor 'subtree'")
    return Wanted(
        what=row["what"],
        reason=row.get("reason") or given["reason"],
        ticket=row.get("ticket") or given["ticket"] or None,
        until=row.get("until") or given["until"] or None,
        exact=scope == "exact",
    )


def _plain(cell: str) -> str:
    cell = cell.strip()
    return cell[1:] if cell[:1] == "'" and cell[1:2] in FORMULA and cell[1:2] else cell


def write(rows: Iterable[Sequence[object]]) -> str:
    """CSV with `COLUMNS` as header."""
    return as_csv(COLUMNS, rows)


def as_csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """CSV that a spreadsheet may open: no cell is a formula, none holds a control character."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([_guarded("" if cell is None else str(cell)) for cell in row])
    return out.getvalue()


def _guarded(cell: str) -> str:
    # A control character in a person's reason must not reach the next terminal.
    cell = "".join(c if c.isprintable() else " " for c in cell)
    return "'" + cell if cell.startswith(FORMULA) else cell
