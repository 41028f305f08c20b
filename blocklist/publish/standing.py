"""Which release stands in the files of an export: by its digest, where the record does not say so yet.

A release is renamed into place before the record calls it live. Who reads in between, or after a run that was killed
there, finds the file of a release that is still pending. Standard library only: `why` reads through here.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path


def standing(connection: sqlite3.Connection, export: str) -> int | None:
    """The release of `export` whose files are in place, as far as the record knows; None when none ever was."""
    for number, digest, path, files in pending(connection, export):
        if in_place(places_of(path, files), file_digest) == digest:
            return number
    row = connection.execute("SELECT id FROM release WHERE export = ? AND state = 'live'", (export,)).fetchone()
    return int(row[0]) if row is not None else None


def pending(connection: sqlite3.Connection, export: str) -> list[tuple[int, str, str, str | None]]:
    """Id, digest, path and files (JSON) of what a run is about to publish as `export`, or was when it was killed."""
    return connection.execute(
        "SELECT id, digest, path, files FROM release WHERE export = ? AND state = 'pending' ORDER BY id DESC", (export,)
    ).fetchall()


def places_of(path: str, files: str | None) -> list[tuple[str, Path]]:
    """Where the files of a release are, by category, as the record has them; of one that is not split, without."""
    return [(file["category"], Path(file["path"])) for file in json.loads(files)] if files else [("", Path(path))]


def file_digest(path: Path) -> str | None:
    """SHA-256 (hexadecimal) of the file; None where there is none that can be read."""
    if not path.is_file():  # opening a pipe would wait for its writer
        return None
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def in_place(paths: Sequence[tuple[str, Path]], digest_of: Callable[[Path], str | None]) -> str | None:
    """The digest of a release by what stands at `paths` (by category); None when one is missing."""
    found = [(category, digest_of(path)) for category, path in paths]
    whole = [(category, digest) for category, digest in found if digest is not None]
    if len(whole) < len(found):
        return None
    return whole[0][1] if len(whole) == 1 else together(whole)


def together(digests: Sequence[tuple[str, str]]) -> str:
    """One SHA-256 for the files of a release, from category and digest of each."""
    return hashlib.sha256("".join(f"{category} {digest}\n" for category, digest in digests).encode()).hexdigest()
