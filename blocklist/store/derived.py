"""Frames that were computed from the record, kept for the next run: a cache that may be deleted at any time.

A file is the SHA-256 of its head, a line of JSON with the CRC-32 of the rest, and the frames as Arrow IPC. It is
believed when both are right, the key is the one asked for, and the same libraries read it that wrote it; in all other
cases it is as if it were not there. Frames are not packed: to pack a million names and to read them packed takes three
times and once again as long. Where little changed, a file has the changes alone, and names by its digest what it
changes: the whole one of before, which lies beside it with the suffix `.base`.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Any

import msgspec
import polars as pl

from blocklist import __version__
from blocklist.framepatch import FramePatch
from blocklist.store import folders

_DIGEST = 64
# Where this share of the rows changed, the whole is written again.
_MOST = 0.1
BASE = ".base"
# What the key of a frame begins with that says which rows are gone of another.
_GONE = "gone of"
# Names of releases, of keys and of what `blocklist.store.suffix_rules` keeps, before the suffix.
_OURS = re.compile("[0-9a-f]+|suffixes")


def libraries() -> list[object]:
    """What hashes and file formats depend on: our version, that of Polars, and how it hashes on this machine."""
    return [__version__, pl.__version__, pl.Series(["blocklist"]).hash().item()]


def digest(parts: object) -> str:
    """SHA-256 (hexadecimal) of `parts` as canonical JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class Kept(msgspec.Struct, frozen=True):
    """What `read` found: what is `told`, the `frames`; `base`: the digest of the file that has them whole but for
    `patches`.
    """

    told: dict[str, Any]
    frames: dict[str, pl.DataFrame]
    base: str
    patches: dict[str, FramePatch] = msgspec.field(default_factory=dict)


def write(path: Path, told: Mapping[str, Any], frames: Mapping[str, pl.DataFrame]) -> None:
    """Put `frames`, and what there is to say about them as JSON, into the place of `path`.

    Not fsynced: a file torn by a crash does not match its digest. A disk without room leaves no file.
    """
    _write(path, told, frames)
    with suppress(OSError):
        path.with_suffix(BASE).unlink(missing_ok=True)


def write_changed(
    path: Path,
    told: Mapping[str, Any],
    frames: Mapping[str, pl.DataFrame],
    before: Kept,
    patches: Mapping[str, FramePatch],
) -> None:
    """`write`, given that `patches` made `frames` of those that were read from `path`: of these it writes the patches.

    Frames without a patch are written as they are.
    """
    since_base = {name: patch.after(before.patches.get(name)) for name, patch in patches.items()}
    rows = sum(frames[name].height for name in patches)
    if sum(patch.height for patch in since_base.values()) > _MOST * rows or not _is_base(path, before.base):
        write(path, told, frames)
        return
    pieces = {name: frame for name, frame in frames.items() if name not in patches}
    for name, patch in since_base.items():
        pieces |= {f"{_GONE} {name}": patch.gone.alias("gone").to_frame(), name: patch.come}
    _write(path, told, pieces, before.base)


def _is_base(path: Path, digest: str) -> bool:
    """Lies what has this digest beside `path`, or now does?"""
    base = path.with_suffix(BASE)
    if _told_digest(base) == digest:
        return True
    if _told_digest(path) != digest:
        return False
    link(path, base)
    return base.is_file()


def _told_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_DIGEST).decode(errors="replace")
    except OSError:
        return ""


def _write(path: Path, told: Mapping[str, Any], frames: Mapping[str, pl.DataFrame], base: str | None = None) -> None:
    pieces = [_as_ipc(frame) for frame in frames.values()]
    crc = 0
    for piece in pieces:
        crc = zlib.crc32(piece, crc)
    sizes = {n: len(p) for n, p in zip(frames, pieces, strict=True)}
    # Arrow knows nothing of order, and to look whether a million names are sorted takes time wherever that is asked.
    in_order = [name for name, frame in frames.items() if frame.width and frame.to_series(0).is_sorted()]
    # By `id` a file is told from others that say the same.
    head = {
        "libraries": libraries(),
        "told": told,
        "frames": sizes,
        "sorted": in_order,
        "base": base,
        "crc": crc,
        "id": token_hex(16),
    }
    line = json.dumps(head).encode() + b"\n"
    beside = path.with_suffix(".new")
    try:
        folders.make(path.parent)
        with beside.open("wb") as file:
            file.write(hashlib.sha256(line).hexdigest().encode() + line)
            for piece in pieces:
                file.write(piece)
        beside.replace(path)
    except OSError:
        for left in (beside, path):
            with suppress(OSError):
                left.unlink(missing_ok=True)


def _as_ipc(frame: pl.DataFrame) -> memoryview:
    """What older readers of Arrow know of text is smaller than Polars' own, and quicker read."""
    piece = io.BytesIO()
    frame.rechunk().write_ipc(piece, compression="uncompressed", compat_level=pl.CompatLevel.oldest())
    return piece.getbuffer()


def told(path: Path) -> dict[str, Any] | None:
    """What `read` would tell, without the frames, which may be damaged."""
    try:
        with path.open("rb") as file:
            digest_, line = file.read(_DIGEST), file.readline()
    except OSError:
        return None
    head = _head(digest_, line)
    found: dict[str, Any] | None = None if head is None else head["told"]
    return found


def read(path: Path) -> Kept | None:
    """What `write` was given, or None when the file is gone, torn, damaged or of other libraries."""
    if (found := _read(path)) is None:
        return None
    digest_, head, frames = found
    if head["base"] is None:
        return Kept(head["told"], frames, digest_)
    if (whole := _read(path.with_suffix(BASE))) is None or whole[0] != head["base"]:
        return None
    patched = [name for name in frames if f"{_GONE} {name}" in frames]
    patches = {name: FramePatch(frames.pop(f"{_GONE} {name}")["gone"], frames.pop(name)) for name in patched}
    frames |= {name: patch.of(whole[2][name]) for name, patch in patches.items()}
    return Kept(head["told"], frames, head["base"], patches)


def _read(path: Path) -> tuple[str, dict[str, Any], dict[str, pl.DataFrame]] | None:
    """The digest, the head and the frames of one file."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    start = data.find(b"\n", _DIGEST) + 1
    head = _head(data[:_DIGEST], data[_DIGEST:start])
    if head is None or zlib.crc32(memoryview(data)[start:]) != head["crc"]:
        return None
    frames = {}
    for name, size in head["frames"].items():
        frame = pl.read_ipc(io.BytesIO(data[start : start + size]))
        frames[name] = frame.set_sorted(frame.columns[0]) if name in head.get("sorted", ()) else frame
        start += size
    return data[:_DIGEST].decode(), head, frames


def _head(told_digest: bytes, line: bytes) -> dict[str, Any] | None:
    """The head of a file from the SHA-256 before it and its line; None when they don't fit, or of other libraries."""
    if hashlib.sha256(line).hexdigest().encode() != told_digest:
        return None
    head: dict[str, Any] = json.loads(line)
    return head if head["libraries"] == libraries() else None


def link(path: Path, other: Path) -> None:
    """Keep the file at `path` as `other` too, without a copy; where that can't be, `other` is not there."""
    with suppress(OSError):
        folders.make(other.parent)
        other.unlink(missing_ok=True)
        other.hardlink_to(path)


def link_with_base(path: Path, other: Path) -> None:
    """`link`, with what lies beside `path` for it."""
    link(path.with_suffix(BASE), other.with_suffix(BASE))
    link(path, other)


def remove_others(folder: Path, keep: set[str]) -> None:
    """Remove the files that `write` made in `folder` and `keep` does not name, and what a crash left half written.

    Only these: where the exports' folder is that of the state, as without a configuration, published files lie there.
    """
    with suppress(OSError):
        for path in folder.iterdir():
            if path.suffix not in (".frames", BASE, ".new") or not _OURS.fullmatch(path.stem):
                continue
            if path.suffix == ".new" or path.with_suffix(".frames").name not in keep:
                path.unlink(missing_ok=True)
