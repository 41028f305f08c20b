"""The bytes of the releases of a run, kept side by side, before any of them is published."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from blocklist.store import kept


class Keeping:
    """Threads that keep bytes in the state folder `state`; the same bytes once, whoever asks."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._pool = ThreadPoolExecutor(2, "keeping")
        self._begun: dict[str, Future[None]] = {}

    def __enter__(self) -> Keeping:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=error is not None)

    def keep(
        self, digest: str, read: Callable[[], bytes], base: str | None, read_base: Callable[[], bytes] | None = None
    ) -> None:
        """Begin to keep what `read` gives; `digest`, `base` and `read_base` as in `blocklist.store.kept.keep`."""
        if digest not in self._begun:
            self._begun[digest] = self._pool.submit(self._keep, digest, read, base, read_base)

    def keep_bytes(self, some: kept.Bytes, base: str | None = None) -> None:
        """Begin to keep `some`."""
        self.keep(some.digest, lambda: some.data, base)

    def wait(self, digest: str) -> None:
        """Return when the bytes of `digest` are kept. Raises RecordError when they can't be, OSError of `read`."""
        self._begun[digest].result()

    def _keep(
        self, digest: str, read: Callable[[], bytes], base: str | None, read_base: Callable[[], bytes] | None
    ) -> None:
        def unpacked() -> bytes | None:
            with suppress(OSError):
                return read_base() if read_base is not None else None
            return None

        kept.keep(self._state, digest, read(), base, unpacked)
