"""Raw bytes of every accepted download: a chain of zstd patches, each against the one before.

A year of daily downloads of a 5 MB feed with 3 % of churn takes 71–77 MB so, against 748–804 MB whole. The
level matters: 8 turned 71 MB of lists with 1 % of changed lines into 0.26 MB in 0.34 s; 9 with long-distance
matching into 0.37 MB in 0.88 s; 5 into 1.4 MB, 3 into 11 MB (its matcher does not find the text to copy).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import zstandard

from blocklist.errors import RecordError

WHOLE_LEVEL = 3
PATCH_LEVEL = 8
# A chain this deep costs about 100 ms to read a line back (5 MB feed); then a whole copy begins a new one.
MAX_DEPTH = 30


@dataclass(frozen=True)
class Stored:
    """How one snapshot was written: `stored` bytes on disk, `depth` patches above a whole copy."""

    stored: int
    depth: int


def file_of(state: Path, snapshot: int) -> Path:
    return state / "snapshots" / f"{snapshot // 1000:05d}" / f"{snapshot}.zst"


def write(state: Path, snapshot: int, data: bytes, base: bytes | None, base_depth: int) -> Stored:
    """Store `data` under the number `snapshot`, as a patch against `base` when that is smaller.

    Written beside, fsynced and renamed; a crash leaves at most a file that no row names.
    """
    packed = None
    depth = 0
    if base and data and base_depth + 1 < MAX_DEPTH:
        window = max(20, (len(base) + len(data)).bit_length())
        if window <= zstandard.WINDOWLOG_MAX:
            parameters = zstandard.ZstdCompressionParameters.from_level(
                PATCH_LEVEL,
                source_size=len(data),
                dict_size=len(base),
                window_log=window,
                write_checksum=True,
            )
            dictionary = zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
            patch = zstandard.ZstdCompressor(dict_data=dictionary, compression_params=parameters).compress(data)
            # A patch that saves little is not worth its link in the chain.
            if len(patch) * 8 < len(data):
                packed, depth = patch, base_depth + 1
    if packed is None:
        packed = zstandard.ZstdCompressor(level=WHOLE_LEVEL, write_checksum=True).compress(data)
    path = file_of(state, snapshot)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".new")
    with beside.open("wb") as out:
        out.write(packed)
        out.flush()
        os.fsync(out.fileno())
    beside.rename(path)
    return Stored(len(packed), depth)


def remove_unrecorded(state: Path, last: int) -> None:
    """Remove files numbered above `last`, and half-written ones: a run that was killed never recorded them."""
    for folder in (state / "snapshots").glob("[0-9]*"):
        if folder.name >= f"{last // 1000:05d}":
            for path in folder.iterdir():
                if path.suffix != ".zst" or (path.stem.isdigit() and int(path.stem) > last):
                    path.unlink(missing_ok=True)


def read(state: Path, chain: list[int]) -> bytes:
    """The bytes of the last snapshot of `chain`: a whole one first, then the patches in order.

    Raises RecordError when a file of the chain is missing or damaged.
    """
    data = b""
    for i, snapshot in enumerate(chain):
        path = file_of(state, snapshot)
        try:
            packed = path.read_bytes()
            dictionary = zstandard.ZstdCompressionDict(data, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if i else None
            decompressor = zstandard.ZstdDecompressor(dict_data=dictionary, max_window_size=2**zstandard.WINDOWLOG_MAX)
            data = decompressor.decompress(packed)
        except (OSError, zstandard.ZstdError) as error:
            raise RecordError(
                f"{path}: the kept bytes of snapshot {snapshot} can't be read ({error})",
                hint="restore the file from a backup; the lists themselves are not affected",
            ) from None
    return data


def line_of(data: bytes, number: int) -> bytes:
    """Line `number` (from 1) of `data` without its end; empty when there is no such line."""
    start = 0
    for _ in range(number - 1):
        start = data.find(b"\n", start) + 1
        if start == 0:
            return b""
    end = data.find(b"\n", start)
    return data[start : end if end >= 0 else len(data)].rstrip(b"\r")


def line(state: Path, chain: list[int], number: int) -> bytes:
    """Line `number` of the last snapshot of `chain`; a whole copy is only read as far as that line."""
    if len(chain) > 1:
        return line_of(read(state, chain), number)
    path = file_of(state, chain[0])
    seen, tail = 0, b""
    try:
        with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
            while piece := stream.read(2**20):
                lines = piece.count(b"\n")
                if seen + lines >= number:
                    # The line ends here; it may have begun in the piece before.
                    return line_of(tail + piece, number - seen)
                seen += lines
                cut = piece.rfind(b"\n")
                tail = piece[cut + 1 :] if cut >= 0 else tail + piece
    except (OSError, zstandard.ZstdError) as error:
        raise RecordError(
            f"{path}: the kept bytes of snapshot {chain[0]} can't be read ({error})",
            hint="restore the file from a backup; the lists themselves are not affected",
        ) from None
    # The last line, one that there is not, or a file that was cut short: only a whole read tells.
    return line_of(read(state, chain), number)
