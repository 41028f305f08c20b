"""Column files: the indicators of each current snapshot in columns, and its bytes beside them, unpacked.

A cache that may be deleted at any time: both are made again from the kept bytes. Neither is fsynced; what a crash
tore is known by its checksum and not believed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import struct
import zlib
from collections.abc import Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import polars as pl

from blocklist.store import folders

# A column file is one or two streams of Arrow, and at its end: bytes of the first, the snapshot's number; CRC-32 of all
# that is before it.
_NUMBERS, _CRC = struct.Struct("<QQ"), struct.Struct("<I")
# Bytes that are checked at once: they stay in the processor.
_PIECE = 1 << 18
_OS_ERROR = re.compile(r"\(os error (\d+)\)$")
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
    """Tables go straight from Polars into the file, which needs no memory of their size and not the interpreter."""
    folders.make(path.parent)
    beside = path.with_suffix(path.suffix + ".new")
    with beside.open("w+b", buffering=0) as out:
        ends = []
        for frame in frames:
            try:
                _plain(frame).write_ipc_stream(out, compression="uncompressed", compat_level=pl.CompatLevel.oldest())
            except OSError as error:
                raise _numbered(error, beside) from error
            ends.append(out.seek(0, os.SEEK_END))
        out.write(_NUMBERS.pack(ends[0], int(path.stem)))
        out.write(_CRC.pack(_checksum(out, ends[-1] + _NUMBERS.size)))
    beside.replace(path)


def _numbered(error: OSError, path: Path) -> OSError:
    """`error` of Polars, which tells the number in words alone, as Python would raise it."""
    found = _OS_ERROR.search(str(error))
    number = int(found[1]) if found else errno.EIO
    return OSError(number, os.strerror(number), str(path)) if error.errno is None else error


def _plain(frame: pl.DataFrame) -> pl.DataFrame:
    """What older readers of Arrow know of text is half as large as Polars' own, and quicker read."""
    frame = frame.rechunk()
    for name in _EMPTY:
        if name in frame.columns and frame[name].null_count() == frame.height:
            frame = _with_nulls(frame, name, pl.Null)
    return frame


def _whole(frame: pl.DataFrame) -> pl.DataFrame:
    """What `_plain` made so."""
    for name, dtype in frame.schema.items():
        if dtype == pl.Null:
            frame = _with_nulls(frame, name, _EMPTY[name])
    return frame


def _with_nulls(frame: pl.DataFrame, name: str, dtype: type[pl.DataType]) -> pl.DataFrame:
    nulls = pl.Series(name, [None], dtype=dtype).new_from_index(0, frame.height)
    return frame.clone().replace_column(frame.get_column_index(name), nulls)


def _checksum(file: FileIO, size: int) -> int:
    """The CRC-32 of the first `size` bytes; stands behind them then."""
    file.seek(0)
    crc, piece = 0, memoryview(bytearray(_PIECE))
    while (left := size - file.tell()) and (got := file.readinto(piece[:left])):
        crc = zlib.crc32(piece[:got], crc)
    return crc


def read(state: Path, snapshot: int) -> Columns | None:
    """What was written, or None when the file is gone or torn."""
    return _read(file_of(state, snapshot))


def _read(path: Path) -> Columns | None:
    try:
        with path.open("rb", buffering=0) as file:
            end = file.seek(-_NUMBERS.size - _CRC.size, os.SEEK_END)
            size, snapshot = _NUMBERS.unpack(file.read(_NUMBERS.size))
            (crc,) = _CRC.unpack(file.read())
            # A whole file of another snapshot, copied by hand, would be believed by its checksum alone.
            if snapshot != int(path.stem) or _checksum(file, end + _NUMBERS.size) != crc:
                return None
            tables = []
            for begin in (0, size)[: 1 + (size < end)]:
                file.seek(begin)
                tables.append(_whole(pl.read_ipc_stream(file)))
            return Columns(tables[0], tables[1] if len(tables) > 1 else None)
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
