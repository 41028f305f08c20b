"""Column files: what was written, or nothing."""

from __future__ import annotations

import errno
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from blocklist.ingest.normalize import OCCURRENCE, SCHEMA
from blocklist.store import columns
from blocklist.store.columns import Columns


def listed(count: int, **said: object) -> pl.DataFrame:
    rows = pl.DataFrame({"name": [f"{i:04}.example" for i in range(count)], "line": range(1, count + 1)})
    rest = {"kind": 1, "subtree": True, "confidence": None, "extra": None, **said}
    return rows.select(pl.col(n) if n in rows.columns else pl.lit(rest[n]).alias(n) for n in SCHEMA).cast(dict(SCHEMA))


@pytest.mark.parametrize(
    "said",
    [{}, {"confidence": 70}, {"extra": '{"reference":"https://example.test/"}'}],
    ids=["bare", "confident", "with a reference"],
)
@pytest.mark.parametrize("several", [False, True])
def test_what_is_read_is_what_was_written(tmp_path: Path, said: dict[str, object], several: bool) -> None:
    frame = listed(1000, **said)
    counts = [pl.lit(2, pl.UInt32).alias("count")]
    repeated = frame.head(7).select(*OCCURRENCE, *counts) if several else None
    columns.write(tmp_path, 5, Columns(frame, repeated))
    found = columns.read(tmp_path, 5)
    assert found is not None
    assert found.frame.equals(frame) and found.frame.schema == frame.schema
    if repeated is None:
        assert found.repeated is None
    else:
        assert found.repeated is not None and found.repeated.equals(repeated)
        assert found.repeated.schema == repeated.schema
    assert [path.name for path in (tmp_path / "columns").iterdir()] == ["5.columns"]


def test_nothing_is_read_of_a_file_that_is_torn_flipped_or_of_another_snapshot(tmp_path: Path) -> None:
    columns.write(tmp_path, 5, Columns(listed(1000), None))
    path = columns.file_of(tmp_path, 5)
    whole = path.read_bytes()
    for at in (0, len(whole) // 2, *range(len(whole) - 30, len(whole))):
        path.write_bytes(whole[:at])
        assert columns.read(tmp_path, 5) is None
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert columns.read(tmp_path, 5) is None
    path.write_bytes(whole)
    assert columns.read(tmp_path, 5) is not None
    shutil.copyfile(path, columns.file_of(tmp_path, 6))
    assert columns.read(tmp_path, 6) is None


def test_a_disk_without_room_is_told_as_by_the_system_with_the_file(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; import polars as pl; from blocklist.store import columns\n"
        "frame = pl.DataFrame({'name': [f'{i}.example' for i in range(50_000)]})\n"
        "try: columns.write(Path(sys.argv[1]), 5, columns.Columns(frame, None))\n"
        "except OSError as error: print(error.errno, error.filename)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, tmp_path],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    assert ran.stdout == f"{errno.EFBIG} {tmp_path}/columns/5.columns.new\n"
    assert columns.read(tmp_path, 5) is None
