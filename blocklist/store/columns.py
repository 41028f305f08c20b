"""Column files: the indicators of each current snapshot as Parquet, and its bytes beside them, unpacked.

A cache that may be deleted at any time: both are made again from the kept bytes.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import polars as pl


def file_of(state: Path, snapshot: int) -> Path:
    return state / "columns" / f"{snapshot}.parquet"


def bytes_of(state: Path, snapshot: int) -> Path:
    return state / "columns" / f"{snapshot}.bytes"


def times_of(state: Path, snapshot: int) -> Path:
    return state / "columns" / f"{snapshot}.times"


def write_times(state: Path, snapshot: int, times: pl.DataFrame) -> None:
    """Write a times frame (see `blocklist.select.lifetime`) beside the columns, in the same way."""
    _write(times_of(state, snapshot), times)


def read_times(state: Path, snapshot: int) -> pl.DataFrame | None:
    """The frame, or None when the file is gone or torn."""
    try:
        return pl.read_parquet(times_of(state, snapshot), memory_map=False)
    except (OSError, pl.exceptions.PolarsError):
        return None


def keep_bytes(state: Path, snapshot: int, data: bytes) -> None:
    """Keep the bytes at hand for the next difference: unpacking a chain of patches costs 60 ms a link (71 MB)."""
    path = bytes_of(state, snapshot)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def kept_bytes(state: Path, snapshot: int, sha256: str) -> bytes | None:
    """The bytes, or None when the file is gone, torn or not what it should be."""
    try:
        data = bytes_of(state, snapshot).read_bytes()
    except OSError:
        return None
    return data if hashlib.sha256(data).hexdigest() == sha256 else None


def write(state: Path, snapshot: int, frame: pl.DataFrame) -> None:
    """Write an indicators frame (see `blocklist.ingest.normalize`), beside and renamed.

    Not fsynced: a file torn by a crash is no Parquet and is parsed again from the kept bytes.
    """
    _write(file_of(state, snapshot), frame)


def _write(path: Path, frame: pl.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(path.suffix + ".new")
    frame.write_parquet(beside, compression="lz4", statistics=False)
    beside.replace(path)


def read(state: Path, snapshot: int) -> pl.DataFrame | None:
    """The frame, or None when the file is gone or torn."""
    path = file_of(state, snapshot)
    try:
        return pl.read_parquet(path, memory_map=False)
    except (OSError, pl.exceptions.PolarsError):
        return None


def remove_others(state: Path, current: set[int]) -> None:
    """Remove files of snapshots that are not current, and what a crash left half written."""
    folder = state / "columns"
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if (
            path.suffix not in (".parquet", ".bytes", ".times")
            or not path.stem.isdigit()
            or int(path.stem) not in current
        ):
            path.unlink(missing_ok=True)
