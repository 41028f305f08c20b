"""Frames that were computed from the record, kept for the next run: a cache that may be deleted at any time.

A file is its own SHA-256, a line of JSON and the frames as Arrow IPC. It is believed when the digest is right, the
key is the one asked for, and the same libraries read it that wrote it; in all other cases it is as if it were not
there.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl

from blocklist import __version__
from blocklist.store import folders

_DIGEST = 64
# Names of releases and of keys, before the suffix.
_OURS = re.compile("[0-9a-f]+")


def libraries() -> list[object]:
    """What hashes and file formats depend on: our version, that of Polars, and how it hashes on this machine."""
    return [__version__, pl.__version__, pl.Series(["blocklist"]).hash().item()]


def digest(parts: object) -> str:
    """SHA-256 (hexadecimal) of `parts` as canonical JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def write(path: Path, told: Mapping[str, Any], frames: Mapping[str, pl.DataFrame]) -> None:
    """Put `frames`, and what there is to say about them as JSON, into the place of `path`.

    Not fsynced: a file torn by a crash does not match its digest. A disk without room leaves no file.
    """
    pieces = [_packed(frame) for frame in frames.values()]
    head = {"libraries": libraries(), "told": told, "frames": {n: len(p) for n, p in zip(frames, pieces, strict=True)}}
    line = json.dumps(head).encode() + b"\n"
    whole = hashlib.sha256(line)
    for piece in pieces:
        whole.update(piece)
    beside = path.with_suffix(".new")
    try:
        folders.make(path.parent)
        with beside.open("wb") as file:
            file.write(whole.hexdigest().encode() + line)
            for piece in pieces:
                file.write(piece)
        beside.replace(path)
    except OSError:
        for left in (beside, path):
            with suppress(OSError):
                left.unlink(missing_ok=True)


def _packed(frame: pl.DataFrame) -> memoryview:
    piece = io.BytesIO()
    frame.rechunk().write_ipc(piece, compression="lz4")
    return piece.getbuffer()


def read(path: Path) -> tuple[dict[str, Any], dict[str, pl.DataFrame]] | None:
    """What `write` was given, or None when the file is gone, torn, damaged or of other libraries."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    body = memoryview(data)[_DIGEST:]
    if hashlib.sha256(body).hexdigest().encode() != data[:_DIGEST]:
        return None
    start = data.index(b"\n", _DIGEST) + 1
    head = json.loads(data[_DIGEST:start])
    if head["libraries"] != libraries():
        return None
    frames = {}
    for name, size in head["frames"].items():
        frames[name] = pl.read_ipc(io.BytesIO(data[start : start + size]))
        start += size
    return head["told"], frames


def link(path: Path, other: Path) -> None:
    """Keep the file at `path` as `other` too, without a copy; where that can't be, `other` is not there."""
    with suppress(OSError):
        folders.make(other.parent)
        other.unlink(missing_ok=True)
        other.hardlink_to(path)


def remove_others(folder: Path, keep: set[str]) -> None:
    """Remove the files that `write` made in `folder` and `keep` does not name, and what a crash left half written.

    Only these: where the exports' folder is that of the state, as without a configuration, published files lie there.
    """
    with suppress(OSError):
        for path in folder.iterdir():
            if path.suffix in (".frames", ".new") and _OURS.fullmatch(path.stem) and path.name not in keep:
                path.unlink(missing_ok=True)
