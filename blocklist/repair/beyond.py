"""What no repair can put right: where there is no database at all, and what a person can do about it then."""

from __future__ import annotations

from pathlib import Path

from blocklist.finding import Finding
from blocklist.repair.pages import MAGIC
from blocklist.store.database import path_in
from blocklist.store.lost import left_of, way_out, words_for


def advice(state: Path) -> Finding | None:
    """What to say of a record that was there and is missing, or of a file that is no database.

    None where there is a database, and where there was never anything or only a first run that did not end.
    """
    path = path_in(state)
    if not path.exists():
        text = words_for(path) if left_of(path) else None
    elif not path.is_file():
        text = "is no file"
    elif path.stat().st_size == 0:
        text = "is empty"
    else:
        with path.open("rb") as file:
            text = None if file.read(len(MAGIC)) == MAGIC else "is not a database, or its first page is lost"
    return None if text is None else Finding("record", "fail", str(path), text, way_out(path))
