"""Listed names that a person may have meant."""

from __future__ import annotations

import re
import sqlite3

from blocklist.audit.thing import Thing
from blocklist.catalog import KINDS

# What most often stands before a name that a list has.
_LABELS = ("www", "m", "mail", "login", "app", "api", "cdn", "static", "secure", "web")


def near(connection: sqlite3.Connection, thing: Thing) -> list[str]:
    """Up to three listed names that look like it: steps through the key of the listings, never all of them."""
    if thing.kind == "domain":
        bare = thing.name.removeprefix("www.")
        likely = [f"{label}.{bare}" for label in _LABELS]
        found = [name for name in [bare, *likely] if name != thing.name and _is_listed(connection, name)]
        start, shortest = thing.name, 4
    else:
        found = []
        start = thing.name.rpartition("/")[0] + "/" if thing.kind == "url" else thing.name
        shortest = len(f"//{thing.host}/") if thing.kind == "url" else len(re.split(r"\d+$", start)[0]) or 4
    import difflib  # for what is not listed alone

    for length in range(len(start) - (thing.kind != "url"), shortest - 1, -1):
        if len(found) >= 3:
            break
        rows = connection.execute(
            "SELECT DISTINCT name FROM listing WHERE name >= ? AND name < ? AND kind = ? LIMIT 100",
            (start[:length], start[:length] + "\x7f", KINDS.index(thing.kind) + 1),
        )
        others = [name for (name,) in rows if name != thing.name and name not in found]
        alike = 0.8 if thing.kind == "domain" else 0.5
        found += difflib.get_close_matches(thing.name, others, n=3 - len(found), cutoff=alike)
    return found[:3]


def _is_listed(connection: sqlite3.Connection, name: str) -> bool:
    return connection.execute("SELECT 1 FROM listing WHERE name = ?", (name,)).fetchone() is not None
