"""Column files: the indicators of each current snapshot in columns, and its bytes beside them, unpacked.

A cache that may be deleted at any time: both are made again from the kept bytes. Neither is fsynced; what a crash
tore is known by its checksum and not believed.
"""

from __future__ import annotations

import hashlib
import io
import stat
import struct
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import polars as pl

from blocklist.store import folders

# Bytes of the first table, the snapshot's number, CRC-32 of both tables: a column file is one or two streams of Arrow
# and this.
_END = struct.Struct("<QQI")
# Columns that are kept without a byte where they say nothing, as in most feeds.
_EMPTY = {"confidence": pl.UInt8, "extra": pl.String, "dropped": pl.Int64}


class Columns(NamedTuple):
    """`frame`: indicators; `repeated`: occurrences of repeated names, None when none is known.

    Shapes: see `blocklist.ingest.normalize`.
    """

    frame: pl.DataFrame
    repeated: pl.DataFrame | None


def file_of(state: Path, snapshot: int) -> Path:
    return state / "columns" / f"{snapshot}.columns"


def bytes_of(state: Path, snapshot: int) -> Path:
    return state / "columns" / f"{snapshot}.bytes"


def times_of(state: Path, snapshot: int) -> Path:
    return state / "columns" / f"{snapshot}.times"


def write_times(state: Path, snapshot: int, times: pl.DataFrame) -> None:
    """Write a times frame (see `blocklist.select.lifetime`) beside the columns, in the same way."""
    _write(times_of(state, snapshot), [times])


def read_times(state: Path, snapshot: int) -> pl.DataFrame | None:
    """The frame, or None when the file is gone or torn."""
    found = _read(times_of(state, snapshot))
    return found.frame if found else None


def keep_bytes(state: Path, snapshot: int, data: bytes, fetched: Path | None = None) -> None:
    """Keep the bytes at hand for the next difference: unpacking a chain of patches costs 60 ms a link (71 MB).

    `fetched`: a file of them, which is moved there where it can be.
    """
    path = bytes_of(state, snapshot)
    folders.make(path.parent)
    if fetched is not None:
        with suppress(OSError):  # another file system
            # A temporary file is its owner's alone; who may read the columns may read these.
            fetched.chmod(stat.S_IMODE(file_of(state, snapshot).stat().st_mode))
            fetched.replace(path)
            return
    path.write_bytes(data)


def kept_bytes(state: Path, snapshot: int, sha256: str) -> bytes | None:
    """The bytes, or None when the file is gone, torn or not what it should be."""
    try:
        data = bytes_of(state, snapshot).read_bytes()
    except OSError:
        return None
    return data if hashlib.sha256(data).hexdigest() == sha256 else None


def write(state: Path, snapshot: int, columns: Columns) -> None:
    """Write a column file, beside and renamed.

    Not compressed: that would take half of the time to write it and a third of the time to read it. As Parquet, it
    takes twice the time for both.
    """
    _write(file_of(state, snapshot), [table for table in columns if table is not None])


def _write(path: Path, frames: Sequence[pl.DataFrame]) -> None:
    folders.make(path.parent)
    tables = [_packed(frame) for frame in frames]
    crc = 0
    for table in tables:
        crc = zlib.crc32(table, crc)
    beside = path.with_suffix(path.suffix + ".new")
    with beside.open("wb") as out:
        for table in tables:
            out.write(table)
        out.write(_END.pack(len(tables[0]), int(path.stem), crc))
    beside.replace(path)


def _packed(frame: pl.DataFrame) -> memoryview:
    """One Arrow stream. What older readers of Arrow know of text is half as large as Polars' own, and quicker read."""
    empty = [name for name in _EMPTY if name in frame.columns and frame[name].null_count() == frame.height]
    if empty:
        frame = frame.with_columns(pl.lit(None, pl.Null).alias(name) for name in empty)
    out = io.BytesIO()
    frame.rechunk().write_ipc_stream(out, compression="uncompressed", compat_level=pl.CompatLevel.oldest())
    return out.getbuffer()


def _unpacked(data: bytes) -> pl.DataFrame:
    frame = pl.read_ipc_stream(io.BytesIO(data))
    empty = [name for name, dtype in frame.schema.items() if dtype == pl.Null]
    return frame.with_columns(pl.lit(None, _EMPTY[name]).alias(name) for name in empty) if empty else frame


def read(state: Path, snapshot: int) -> Columns | None:
    """What was written, or None when the file is gone or torn."""
    return _read(file_of(state, snapshot))


def _read(path: Path) -> Columns | None:
    try:
        data = path.read_bytes()
        size, snapshot, crc = _END.unpack(data[-_END.size :])
        # A whole file of another snapshot, copied by hand, would be believed by its checksum alone.
        if snapshot != int(path.stem) or zlib.crc32(memoryview(data)[: -_END.size]) != crc:
            return None
        again = data[size : -_END.size]
        # The first ends by itself: a piece of 8 MB need not be copied.
        return Columns(_unpacked(data), _unpacked(again) if again else None)
    except (OSError, struct.error, pl.exceptions.PolarsError):
        return None


def remove_others(state: Path, current: set[int]) -> None:
    """Remove files of snapshots that are not current, and what a crash left half written."""
    remove(others(state, current))


def others(state: Path, current: set[int]) -> list[Path]:
    """Files of snapshots that are not `current`, and what a crash left half written."""
    folder, suffixes = state / "columns", (".columns", ".bytes", ".times")
    if not folder.is_dir():
        return []
    return [
        path
        for path in folder.iterdir()
        if path.suffix not in suffixes or not path.stem.isdigit() or int(path.stem) not in current
    ]


def remove(paths: Sequence[Path]) -> None:
    for path in paths:
        with suppress(OSError):  # in nobody's way: a name of it that is used again is written anew
            path.unlink(missing_ok=True)
