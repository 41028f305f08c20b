"""The bytes of the releases of a run, kept side by side, before any of them is published."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as futures_wait
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType

from blocklist.publish.ahead import Ahead
from blocklist.publish.seen import Seen
from blocklist.splice import Splice
from blocklist.store import kept


class Keeping:
    """Threads that keep bytes in the state folder `state`; the same bytes once, whoever asks."""

    def __init__(self, state: Path, ahead: Ahead | None = None) -> None:
        self._state, self._ahead = state, ahead
        self._pool = ThreadPoolExecutor(2, "keeping")
        self._begun: dict[str, Future[None]] = {}
        self._beginning = threading.Lock()

    def __enter__(self) -> Keeping:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=error is not None)

    def keep_file(
        self,
        digest: str,
        path: Path,
        base: str | None,
        base_path: Path,
        seen: Seen | None,
        splice: Splice | None = None,
    ) -> None:
        """Begin to keep the file at `path`; `base_path` is where the bytes of `base` should lie, and `seen` how that
        file looked before its digest was found to be `base`, if it was. `splice`: how it came from `base`, if known.
        """

        def read_base() -> kept.Bytes | None:
            with suppress(OSError):
                data = base_path.read_bytes()
                if base is not None and seen is not None and Seen.of(base_path) == seen:
                    return kept.Bytes(data, base)
                return kept.Bytes.of(data)
            return None

        self._begin(digest, lambda: kept.keep_file(self._state, digest, path, base, read_base, splice))

    def keep(self, some: kept.Bytes | kept.Spliced, base: str | None = None) -> None:
        """Begin to keep `some`."""
        if isinstance(some, kept.Spliced):
            self._begin(some.digest, lambda: self._keep_spliced(some))
            return
        ahead = self._ahead
        read_base = partial(ahead.chosen, base) if ahead is not None and base is not None else None
        self._begin(some.digest, lambda: kept.keep(self._state, some.digest, some.data, base, read_base))

    def _keep_spliced(self, some: kept.Spliced) -> None:
        if not kept.keep_splice(self._state, some.digest, some.splice, some.base):
            kept.keep(self._state, some.digest, b"".join(some.splice.pieces()))

    def begin(self, what: str, write: Callable[[], None]) -> None:
        """Begin to `write` something else that is to be on disk before a release is live; `wait` for `what`."""
        self._begin(what, write)

    def wait(self, digest: str) -> None:
        """Return when the bytes of `digest` are kept. Raises RecordError when they can't be, OSError of the file."""
        self._begun[digest].result()

    def settle(self) -> None:
        """Return when nothing is being written any more, whatever became of it."""
        futures_wait(self._begun.values())

    def _begin(self, digest: str, keep: Callable[[], None]) -> None:
        # Exports that are prepared side by side may come with the same bytes.
        with self._beginning:
            if digest not in self._begun:
                self._begun[digest] = self._pool.submit(keep)
