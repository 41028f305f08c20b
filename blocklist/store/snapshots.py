"""Raw bytes of every accepted download: a chain of patches, each against the one before.

Where the lines that changed are known, a patch is a list of them: three numbers a line (bytes to copy, to leave
out, to put in), an empty line, and the bytes to put in; packed by zstd, behind a skippable frame with the SHA-256
of what it makes (RFC 8878 §3.1.2; `zstdcat` shows it). Otherwise it is a patch as `zstd --patch-from` makes them.

A year of daily downloads of a 5 MB feed with 3 % of churn takes 71–77 MB so, against 748–804 MB whole. The
level matters: 8 turned 71 MB of lists with 1 % of changed lines into 0.26 MB in 0.34 s; 9 with long-distance
matching into 0.37 MB in 0.88 s; 5 into 1.4 MB, 3 into 11 MB (its matcher does not find the text to copy).
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import struct
from collections.abc import Sequence
from pathlib import Path

import msgspec
import zstandard

from blocklist import heap
from blocklist.errors import RecordError
from blocklist.hunks import Hunk
from blocklist.store import folders

WHOLE_LEVEL = 3
PATCH_LEVEL = 8
# To read a line back through a chain this deep takes 45 ms (4 MB feed); then a whole copy begins a new one.
MAX_DEPTH = 30
_STEP = 1 << 18
# Bytes of whole copies that are compared with their digests before lines of them are shown: 20 ms, of which reading as
# far as the lines takes half. All of twelve feeds of 6 MB that list a name would take 55 ms of the 150 that an answer
# has; in place of the rest, another one's file would have another length.
MOST_READ = 2**24
_MARK = struct.pack("<II", 0x184D2A5B, 32)


class Stored(msgspec.Struct, frozen=True):
    """How one snapshot was written: `stored` bytes on disk, `depth` patches above a whole copy."""

    stored: int
    depth: int


def file_of(state: Path, snapshot: int) -> Path:
    return state / "snapshots" / f"{snapshot // 1000:05d}" / f"{snapshot}.zst"


def chain(connection: sqlite3.Connection, snapshot: int) -> list[int]:
    """Numbers of the snapshots whose files make up `snapshot`, the whole copy first."""
    links: list[int] = []
    at: int | None = snapshot
    while at is not None:
        links.append(at)
        (at,) = connection.execute("SELECT base FROM snapshot WHERE id = ?", (at,)).fetchone()
    return links[::-1]


def write(
    state: Path,
    snapshot: int,
    data: bytes,
    base: bytes | None,
    base_depth: int,
    changed: Sequence[Hunk] | None = None,
    sha256: str | None = None,
) -> Stored:
    """Store `data` under the number `snapshot`, as a patch against `base` when that is smaller.

    `changed`: the hunks of `base` and `data` where they are known, which saves looking for what both share; `sha256`:
    that of `data`, likewise.
    Written beside, fsynced and renamed; a crash leaves at most a file that no row names.
    """
    packed = None
    depth = 0
    if base and data and base_depth + 1 < MAX_DEPTH:
        patch = _zstd_patch(base, data) if changed is None else line_patch(data, changed, sha256)
        # A patch that saves little is not worth its link in the chain.
        if patch is not None and len(patch) * 8 < len(data):
            packed, depth = patch, base_depth + 1
    if packed is None:
        packed = zstandard.ZstdCompressor(level=WHOLE_LEVEL, write_checksum=True).compress(data)
    path = file_of(state, snapshot)
    folders.put(path, packed)
    return Stored(len(packed), depth)


def _zstd_patch(base: bytes, data: bytes) -> bytes | None:
    window = max(20, (len(base) + len(data)).bit_length())
    if window > zstandard.WINDOWLOG_MAX:
        return None
    parameters = zstandard.ZstdCompressionParameters.from_level(
        PATCH_LEVEL,
        source_size=len(data),
        dict_size=len(base),
        window_log=window,
        write_checksum=True,
    )
    dictionary = zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    return zstandard.ZstdCompressor(dict_data=dictionary, compression_params=parameters).compress(data)


def line_patch(data: bytes, changed: Sequence[Hunk], sha256: str | None = None) -> bytes:
    """The list of changes that makes `data`, whose digest is `sha256`, of what `changed` was found against."""
    digest = bytes.fromhex(sha256) if sha256 is not None else hashlib.sha256(data).digest()
    at, numbers = 0, []
    for hunk in changed:
        numbers.append(b"%d %d %d\n" % (hunk.gone - at, hunk.gone_end - hunk.gone, hunk.come_end - hunk.come))
        at = hunk.gone_end
    script = b"".join([*numbers, b"\n", *(data[h.come : h.come_end] for h in changed)])
    # Level 8 would take eight times as long for 7 % less.
    packed = zstandard.ZstdCompressor(level=WHOLE_LEVEL, write_checksum=True).compress(script)
    return _MARK + digest + packed


def patched(base: bytes, patch: bytes, *, check: bool = True) -> bytes:
    """`base` with the lines of a list of changes. Raises ValueError when it was made for another one.

    `check`: without it what comes out may be wrong then; only its digest tells.
    """
    body = len(_MARK) + 32
    script = zstandard.ZstdDecompressor().decompress(patch[body:])
    end = script.index(b"\n\n") + 2 if not script.startswith(b"\n") else 1
    # All numbers at once: a chain of patches has tens of thousands.
    numbers = map(int, script[: end - 1].split())
    parts, at, put = [], 0, end
    for copy, leave, come in zip(numbers, numbers, numbers, strict=True):
        if copy:
            parts.append(base[at : at + copy])
        if come:
            parts.append(script[put : put + come])
            put += come
        at += copy + leave
    data = b"".join([*parts, base[at:]])
    if check and hashlib.sha256(data).digest() != patch[len(_MARK) : body]:
        raise ValueError("it does not fit the snapshot before it")
    return data


def remove_unrecorded(state: Path, last: int) -> None:
    """Remove files numbered above `last`, and half-written ones: a run that was killed never recorded them."""
    for folder in (state / "snapshots").glob("[0-9]*"):
        if folder.is_dir() and folder.name >= f"{last // 1000:05d}":
            for path in folder.iterdir():
                if path.suffix != ".zst" or (path.stem.isdigit() and int(path.stem) > last):
                    path.unlink(missing_ok=True)


def read(state: Path, chain: list[int], sha256: str | None = None) -> bytes:
    """The bytes of the last snapshot of `chain`: a whole one first, then the patches in order.

    Raises RecordError when a file of the chain is missing or damaged, or what comes out has not the digest `sha256`.
    """
    if len(chain) > 2:
        heap.keep_freed()  # every step is a block of its own, as large as all
    try:
        # Of 24 patches of a 4 MB feed, the digests between take 70 of 100 ms; the last one vouches for all.
        data = _read(state, chain, last_alone=True, sha256=sha256)
    except RecordError:
        data = _read(state, chain)  # which names the file that does not fit
        if sha256 is not None:
            raise _others(file_of(state, chain[-1]), chain[-1]) from None
    return data


def _read(state: Path, chain: list[int], *, last_alone: bool = False, sha256: str | None = None) -> bytes:
    data = b""
    for i, snapshot in enumerate(chain):
        path, last = file_of(state, snapshot), i == len(chain) - 1
        try:
            packed = path.read_bytes()
            if packed.startswith(_MARK):
                data = patched(data, packed, check=not last_alone or (last and sha256 is None))
            else:
                base = zstandard.ZstdCompressionDict(data, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if i else None
                decompressor = zstandard.ZstdDecompressor(dict_data=base, max_window_size=2**zstandard.WINDOWLOG_MAX)
                data = decompressor.decompress(packed)
            if last and sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
                raise ValueError("it is another one's")
        except (OSError, ValueError, zstandard.ZstdError) as error:
            raise RecordError(
                f"{path}: the kept bytes of snapshot {snapshot} can't be read ({error})",
                hint="restore the file from a backup; the lists themselves are not affected",
            ) from None
    return data


def line_of(data: bytes, number: int) -> bytes:
    """Line `number` (from 1) of `data` without its end; empty when there is no such line."""
    start, left, step = 0, number - 1, _STEP
    while left > 0:
        # Counting the lines of a stretch is quicker than going through them.
        lines = data.count(b"\n", start, start + step)
        if lines < left:
            if start + step >= len(data):
                return b""
            start, left = start + step, left - lines
        elif step == 1:
            start, left = start + 1, left - 1
        else:
            step //= 64
    end = data.find(b"\n", start)
    return data[start : end if end >= 0 else len(data)].rstrip(b"\r")


def line(
    state: Path, chain: list[int], number: int, sha256: str, size: int, stored: int, most: int = MOST_READ
) -> bytes:
    """Line `number` of the last snapshot of `chain`: `size` bytes with the digest `sha256`, packed in `stored`.

    It is shown as proof: raises RecordError when the bytes are not those that were recorded. A whole copy stays packed
    but for a piece; one of more than `most` bytes is read only as far as the line, and known by its length on disk.
    """
    if len(chain) > 1:
        return line_of(read(state, chain, sha256), number)
    path = file_of(state, chain[0])
    seen, tail, found = 0, b"", None
    whole = hashlib.sha256() if size <= most else None
    try:
        with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
            if os.fstat(file.fileno()).st_size != stored:
                raise _others(path, chain[0])
            while (found is None or whole is not None) and (piece := stream.read(2**20)):
                if whole is not None:
                    whole.update(piece)
                if found is not None:
                    continue
                lines = piece.count(b"\n")
                if seen + lines >= number:
                    # The line ends here; it may have begun in the piece before.
                    found = line_of(tail + piece, number - seen)
                seen += lines
                cut = piece.rfind(b"\n")
                tail = piece[cut + 1 :] if cut >= 0 else tail + piece
    except (OSError, zstandard.ZstdError) as error:
        raise RecordError(
            f"{path}: the kept bytes of snapshot {chain[0]} can't be read ({error})",
            hint="restore the file from a backup; the lists themselves are not affected",
        ) from None
    if whole is not None and whole.hexdigest() != sha256:
        raise _others(path, chain[0])
    # The last line may have no end.
    return line_of(tail, number - seen) if found is None else found


def _others(path: Path, snapshot: int) -> RecordError:
    return RecordError(
        f"{path}: the kept bytes are not those that snapshot {snapshot} was recorded with",
        hint="restore the file from a backup; the lists themselves are not affected",
    )
