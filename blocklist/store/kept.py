"""Bytes of releases and what these were chosen from, by digest in the folder `kept` of the state.

A file is a zstd frame of the whole, or a patch against a digest kept before it: a skippable frame (RFC 8878 §3.1.2)
that names this base, then the lines that changed as `blocklist.store.snapshots` lists them. Of a million names (31 MB)
with 1 % changed that is 0.13 MB after 0.2 s; a patch as `zstd --patch-from` makes it was 9 MB after 0.9 s.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import zstandard

from blocklist.errors import RecordError
from blocklist.hunks import hunks
from blocklist.store import folders, snapshots

if TYPE_CHECKING:
    # Not imported for questions, which read what is kept: it brings Polars along.
    from blocklist.splice import Splice

# Reading back through so many patches takes as long as unpacking them all.
MAX_DEPTH = 20
_MARK = struct.pack("<II", 0x184D2A5C, 33)
_HEAD = len(_MARK) + 33
# Both sides of a patch are in memory.
MOST_PATCHED = 256 * 2**20


class Bytes(NamedTuple):
    """Bytes to be kept, and their SHA-256 (hexadecimal)."""

    data: bytes
    digest: str

    @classmethod
    def of(cls, data: bytes) -> Bytes:
        return cls(data, hashlib.sha256(data).hexdigest())


class Spliced(NamedTuple):
    """Bytes to be kept that `splice` makes of those with the digest `base`, and their SHA-256 (hexadecimal)."""

    splice: Splice
    base: str
    digest: str

    @classmethod
    def of(cls, splice: Splice, base: str) -> Spliced:
        digest = hashlib.sha256()
        for piece in splice.pieces():
            digest.update(piece)
        return cls(splice, base, digest.hexdigest())


def file_of(state: Path, digest: str) -> Path:
    """Where the bytes with this SHA-256 (hexadecimal) are kept."""
    return state / "kept" / digest[:2] / f"{digest}.zst"


def keep(
    state: Path, digest: str, data: bytes, base: str | None = None, read_base: Callable[[], Bytes | None] | None = None
) -> None:
    """Keep `data`, whose SHA-256 is `digest`; as a patch against the bytes of digest `base` where that is smaller.

    `read_base` gives these where they lie unpacked somewhere; what has another digest is not taken.
    Written beside, fsynced and renamed. Raises RecordError that names the file when there is no room for it.
    """
    if is_kept(state, digest):
        return
    packed = _patched(state, data, digest, base, read_base) if base is not None and base != digest else None
    if packed is None:
        packed = _packer().compress(data)
    _write(state, digest, packed)


def keep_file(
    state: Path,
    digest: str,
    path: Path,
    base: str | None = None,
    read_base: Callable[[], Bytes | None] | None = None,
    splice: Splice | None = None,
) -> None:
    """`keep` for the bytes of a file; a very large one is never in memory as a whole, and kept whole.

    `splice`: how they came from the bytes of digest `base`, where that is known.
    """
    if splice is not None and base is not None and keep_splice(state, digest, splice, base):
        return None
    if path.stat().st_size <= MOST_PATCHED:
        return keep(state, digest, path.read_bytes(), base, read_base)
    if not is_kept(state, digest):
        with path.open("rb") as data:
            _write(state, digest, lambda out: _packer().copy_stream(data, out, size=path.stat().st_size))


def keep_splice(state: Path, digest: str, splice: Splice, base: str) -> bool:
    """Keep what `splice` makes of the bytes of digest `base`, as a patch, without looking at it as a whole.

    False where a patch is not what `keep` would make of it.
    """
    if is_kept(state, digest):
        return True
    if (depth := _depth_upon(state, base)) is None or len(splice.old) > MOST_PATCHED:
        return False
    packed = _as_patch(snapshots.line_patch(splice.come, splice.hunks, digest), len(splice.old), base, depth)
    if packed is not None:
        _write(state, digest, packed)
    return packed is not None


def _packer() -> zstandard.ZstdCompressor:
    return zstandard.ZstdCompressor(level=snapshots.WHOLE_LEVEL, write_checksum=True)


def _write(state: Path, digest: str, data: bytes | Callable[[BinaryIO], object]) -> None:
    path = file_of(state, digest)
    try:
        folders.put(path, data)
    except OSError as error:
        raise RecordError(
            f"{path}: the release's bytes can't be kept: {error.strerror or error}",
            hint="'blocklist doctor' says whose folder that is"
            if isinstance(error, PermissionError)
            else "make room on that disk; without them 'blocklist release rollback' can't come back to this release",
        ) from error


def read(state: Path, digest: str) -> bytes:
    """The bytes whose SHA-256 is `digest`. Raises RecordError when they are not kept, or are damaged."""
    path = file_of(state, digest)
    try:
        data = _unpacked(state, digest, MAX_DEPTH)
    except FileNotFoundError:
        raise RecordError(
            f"{path}: these bytes are not kept",
            hint="they are kept for [keep] releases; an older list can't be read again",
        ) from None
    except (OSError, ValueError, zstandard.ZstdError) as error:
        raise RecordError(
            f"{path}: the kept bytes can't be read ({error})",
            hint="restore the file from a backup; what is published is not affected",
        ) from None
    if hashlib.sha256(data).hexdigest() != digest:
        raise RecordError(f"{path}: the kept bytes are not those of the release", hint="restore it from a backup")
    return data


def is_kept(state: Path, digest: str) -> bool:
    """Is there a file for this digest? Only `read` tells whether it is sound."""
    return file_of(state, digest).is_file()


def forget_others(state: Path, wanted: Collection[str]) -> int:
    """Remove what is kept besides `wanted` and their bases, and half-written files; how many bytes that freed."""
    freed = 0
    for path, size in others(state, wanted).items():
        with suppress(OSError):
            path.unlink()
            freed += size
    return freed


def remove_half_written(state: Path) -> None:
    """Remove what a run that was killed while it kept bytes has left."""
    for path in (state / "kept").glob("[0-9a-f][0-9a-f]/*.new"):
        path.unlink(missing_ok=True)


def others(state: Path, wanted: Collection[str]) -> dict[Path, int]:
    """The files that `forget_others` removes, with their sizes."""
    stay = set(_with_bases(state, wanted))
    found: dict[Path, int] = {}
    for path in (state / "kept").glob("[0-9a-f][0-9a-f]/*"):
        if path.suffix != ".zst" or path.stem not in stay:
            with suppress(OSError):
                found[path] = path.stat().st_size
    return found


def _with_bases(state: Path, digests: Iterable[str]) -> Iterable[str]:
    for digest in digests:
        at: str | None = digest
        for _ in range(MAX_DEPTH + 1):
            if at is None:
                break
            yield at
            at = _head(file_of(state, at))[0]


def _head(path: Path) -> tuple[str | None, int]:
    """The digest of the base and the number of patches above a whole; of a whole one: None and 0."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return None, 0
    if len(head) < _HEAD or not head.startswith(_MARK):
        return None, 0
    return head[len(_MARK) : -1].hex(), head[-1]


def _patched(
    state: Path, data: bytes, digest: str, base: str, read_base: Callable[[], Bytes | None] | None
) -> bytes | None:
    if (depth := _depth_upon(state, base)) is None or len(data) > MOST_PATCHED:
        return None
    found = read_base() if read_base is not None else None
    if found is not None and found.digest == base:
        before = found.data
    else:
        try:
            before = read(state, base)
        except RecordError:
            return None
    if not before or len(before) > MOST_PATCHED:
        return None
    changed = hunks(before, data)
    if changed is None:
        return None
    return _as_patch(snapshots.line_patch(data, changed, digest), len(data), base, depth)


def _depth_upon(state: Path, base: str) -> int | None:
    """The depth of a patch against `base`; None where that is not kept or has enough of them above it."""
    depth = _head(file_of(state, base))[1] + 1
    return depth if depth <= MAX_DEPTH and is_kept(state, base) else None


def _as_patch(patch: bytes, size: int, base: str, depth: int) -> bytes | None:
    """The file of a `patch` that makes `size` bytes; one that saves little is not worth its link in the chain."""
    return _MARK + bytes.fromhex(base) + bytes([depth]) + patch if len(patch) * 8 < size else None


def _unpacked(state: Path, digest: str, most: int) -> bytes:
    packed = file_of(state, digest).read_bytes()
    if not packed.startswith(_MARK):
        return zstandard.ZstdDecompressor(max_window_size=2**zstandard.WINDOWLOG_MAX).decompress(packed)
    if most == 0:
        raise ValueError("the chain of patches does not end")
    before = _unpacked(state, packed[len(_MARK) : _HEAD - 1].hex(), most - 1)
    # What comes out in the end is checked by `read`.
    return snapshots.patched(before, packed[_HEAD:], check=False)
