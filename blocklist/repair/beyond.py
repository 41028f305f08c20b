"""What no repair can put right: where there is no database at all, and what a person can do about it then."""

from __future__ import annotations

from pathlib import Path

from blocklist.finding import Finding
from blocklist.repair.pages import MAGIC
from blocklist.store.database import path_in


def advice(state: Path) -> Finding | None:
    """What to say of a record that is missing while its downloads are there, or of a file that is no database.

    None where there is a database, and where there was never anything.
    """
    path = path_in(state)
    downloads = sum(1 for _ in (state / "snapshots").glob("[0-9]*/*.zst"))
    if not path.exists():
        text = f"is missing, and {downloads:,} kept downloads are there" if downloads else None
    elif not path.is_file():
        text = "is no file"
    elif path.stat().st_size == 0:
        text = "is empty"
    else:
        with path.open("rb") as file:
            text = None if file.read(len(MAGIC)) == MAGIC else "is not a database, or its first page is lost"
    return None if text is None else Finding("record", "fail", str(path), text, _way_out(path, downloads))


def _way_out(path: Path, downloads: int) -> str:
    copies = [p.name for p in (*path.parent.glob("record-*.db"), *path.parent.glob("record.db.damaged-*Z"))]
    beside = f" (beside it lie {', '.join(sorted(copies)[:5])})" if copies else ""
    move = "move it away and " if path.exists() else ""
    gone = f", and the {downloads:,} downloads are removed: copy {path.parent / 'snapshots'} first" if downloads else ""
    return (
        f"restore it from a backup{beside}. Without one, {move}run 'blocklist update': every feed is asked again and "
        f"listed from that day on; rules, released holds, history and the log are gone{gone}"
    )
