"""What exports will read of the state folder, read beside the recording, which leaves a core idle."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from blocklist.config import Config
from blocklist.errors import RecordError
from blocklist.publish import split, standing
from blocklist.publish.seen import Seen
from blocklist.store import derived, kept
from blocklist.store.record import Record

T = TypeVar("T")

# Bytes of files above which nothing is read ahead: it would lie in memory beside what the recording needs.
_MOST = 256 * 2**20


class Ahead:
    """Reads what policies decided the last time, what the live releases were chosen from, and which files are in place,
    once `begin` is called. Who asks for something that was not read ahead has it read now.
    """

    def __init__(self, config: Config, record: Record) -> None:
        self._config, self._record = config, record
        self._pool: ThreadPoolExecutor | None = None
        self._begun: dict[Path | str, Future[Any]] = {}
        self._digests: dict[Path, Future[tuple[Seen | None, str | None]]] = {}

    def __enter__(self) -> Ahead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    @property
    def begun(self) -> bool:
        """Is it reading, or has it read?"""
        return self._pool is not None

    def begin(self) -> None:
        """Read beside the caller, who may write to the record meanwhile: nothing is asked of it after this call."""
        state = self._record.state
        decided = sorted((state / "decided").glob("*.frames"))
        rows = self._record.connection.execute(
            "SELECT DISTINCT chosen FROM release WHERE state = 'live' AND chosen IS NOT NULL"
        ).fetchall()
        reads: dict[Path | str, Callable[[], Any]] = {path: partial(derived.read, path) for path in decided}
        reads |= {digest: partial(kept.read, state, digest) for (digest,) in rows}
        exports = [
            path
            for export in self._config.exports.values()
            for _, path in split.paths(export, self._config.policies[export.policy], self._config.base)
        ]
        files = [file for path in decided for file in (path, path.with_suffix(derived.BASE))]
        files += [kept.file_of(state, digest) for (digest,) in rows]
        if sum(file.stat().st_size for file in files if file.is_file()) > _MOST:
            return
        self._pool = ThreadPoolExecutor(1, "ahead")
        self._begun = {what: self._pool.submit(read) for what, read in reads.items()}
        self._digests = {path: self._pool.submit(_digest, path) for path in exports}

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Have `work` done when all is read; only where it has `begun`."""
        assert self._pool is not None
        return self._pool.submit(work)

    def decided(self, path: Path) -> derived.Kept | None:
        """What `blocklist.store.derived.read` finds at `path`; once, for it may be written anew afterwards."""
        begun = self._begun.pop(path, None)
        return derived.read(path) if begun is None else begun.result()

    def chosen(self, digest: str) -> kept.Bytes | None:
        """The kept bytes with this digest, if they were read ahead and are sound."""
        if (begun := self._begun.pop(digest, None)) is not None:
            with suppress(RecordError):
                return kept.Bytes(begun.result(), digest)
        return None

    def file_digest(self, path: Path) -> str | None:
        """What `blocklist.publish.standing.file_digest` says of the file at `path`, as it is now."""
        if (begun := self._digests.pop(path, None)) is not None:
            seen, digest = begun.result()
            if seen is not None and Seen.of(path) == seen:
                return digest
        return standing.file_digest(path)


def _digest(path: Path) -> tuple[Seen | None, str | None]:
    seen = Seen.of(path)
    return seen, standing.file_digest(path)
