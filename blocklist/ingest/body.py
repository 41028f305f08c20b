"""A snapshot's bytes on their way to disk: hashed while written, never more than a limit."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import RecordError
from ..shortage import too_many_files, way_out
from .decompress import TooLarge


class Mark(NamedTuple):
    """A place in a body to which a failed part is taken back."""

    size: int
    last: bytes
    digest: Any


# What the files of `Scratch` are named like, for whoever clears up after a run that was killed.
TEMPORARY = ".fetch-*"


class Scratch:
    """The temporary files of one run in folder `into`; whatever happens, none is left behind."""

    def __init__(self, into: Path) -> None:
        self.into = into
        self.stop = threading.Event()
        self._made: set[Path] = set()

    def create(self, feed: str) -> tuple[int, Path]:
        """A new file, open for writing. Raises RecordError."""
        name = re.sub(r"[^A-Za-z0-9_-]", "_", feed)[:64]
        try:
            descriptor, path = tempfile.mkstemp(prefix=TEMPORARY.replace("*", f"{name}-"), dir=self.into)
        except OSError as error:
            raise self.trouble(error) from None
        made = Path(path)
        self._made.add(made)
        return descriptor, made

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._made.discard(path)

    def remove_all(self) -> None:
        for path in list(self._made):
            self.remove(path)

    def trouble(self, error: OSError) -> RecordError:
        """What to say when the disk, and not the feed, is at fault."""
        reason = (error.strerror or type(error).__name__).lower()
        try:
            free = f"; {shutil.disk_usage(self.into).free / 1e6:,.1f} MB are free there"
        except OSError:
            free = ""
        return RecordError(
            f"a download can't be written to {self.into}: {reason}{'' if too_many_files(error) else free}",
            hint=way_out(error, "make room or choose another state folder") + "; the last good snapshots stay current",
        )


class Body:
    """The bytes of one snapshot, of at most `limit` bytes. The file is made at the first write."""

    def __init__(self, scratch: Scratch, feed: str, *, limit: int) -> None:
        self._scratch = scratch
        self._feed = feed
        self._limit = limit
        self._descriptor: int | None = None
        self._path: Path | None = None
        self._digest = hashlib.sha256()
        self._last = b""
        self.size = 0

    @property
    def left(self) -> int:
        """Bytes that may still come."""
        return self._limit - self.size

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Add `data`. Raises TooLarge beyond the limit, RecordError when the disk refuses."""
        if not data:
            return
        if len(data) > self.left:
            raise TooLarge
        if self._descriptor is None:
            self._descriptor, self._path = self._scratch.create(self._feed)
        self._digest.update(data)
        self.size += len(data)
        self._last = bytes(data[-1:])
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            raise self._scratch.trouble(error) from None

    def begin_part(self) -> None:
        """End the line of the part before, so that its last entry and the first of the next stay two."""
        if self.size and self._last != b"\n":
            self.write(b"\n")

    def mark(self) -> Mark:
        return Mark(self.size, self._last, self._digest.copy())

    def rewind(self, mark: Mark) -> None:
        """Forget what came after `mark`."""
        if self._descriptor is not None and self.size != mark.size:
            os.ftruncate(self._descriptor, mark.size)
            os.lseek(self._descriptor, mark.size, os.SEEK_SET)
        self.size, self._last, self._digest = mark.size, mark.last, mark.digest.copy()

    def close(self) -> Path:
        """The whole file. Raises RecordError when the disk refuses."""
        if self._descriptor is None:  # an empty body is a body: the gates judge it
            self._descriptor, self._path = self._scratch.create(self._feed)
        descriptor, self._descriptor = self._descriptor, None
        try:
            os.close(descriptor)
        except OSError as error:
            raise self._scratch.trouble(error) from None
        assert self._path is not None
        return self._path

    def discard(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        if self._path is not None:
            self._scratch.remove(self._path)
            self._path = None
