"""A selection as the bytes of a format: the same selection, options and serial give the same bytes."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import import_module
from typing import Any, BinaryIO, Literal

import msgspec

from blocklist.errors import ReleaseError
from blocklist.publish import compose, frame
from blocklist.publish.descriptor import Format
from blocklist.publish.parts import Bytes, Part, totals
from blocklist.publish.selection import Selection


class Rendered(msgspec.Struct, frozen=True):
    """What was written: `entries` of the selection, `records` of the target, and entries `lost` by reason.

    `body_digest` (SHA-256, hexadecimal) is that of the file as it would be with serial 0: equal digests
    mean that nothing changed but the serial. `digest`, `lines` and `size` (bytes) are the file's own, for
    re-reading it.
    """

    entries: int
    records: int
    lost: dict[str, int]
    body_digest: str
    digest: str
    lines: int
    size: int


# Texts of a chunk (5 MB) and their newlines.
_AHEAD = 4


class Sink(msgspec.Struct):
    """Writes, counts and digests; `unserialled` stands in for the text in the digest of the body. `lines`: where it is
    known how many they will be, they are not counted.
    """

    out: BinaryIO
    whole: Any = msgspec.field(default_factory=hashlib.sha256)
    # Of its own from the first text on that a serial stands in: most formats have none.
    body: Any = None
    lines: int | None = None
    size: int = 0
    _counted: int = 0
    # What is written and digested while the next text is made, a thread a duty: none waits for another.
    _pools: list[ThreadPoolExecutor] = msgspec.field(
        default_factory=lambda: [ThreadPoolExecutor(1, duty) for duty in ("written", "whole", "body")]
    )
    _waiting: deque[list[Future[None]]] = msgspec.field(default_factory=deque)

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, *_: object) -> None:
        for pool in self._pools:
            pool.shutdown(cancel_futures=True)

    def write(self, text: str | bytes, unserialled: str | None = None) -> None:
        # The one place where text goes into a file: anything beyond ASCII ends here.
        data = text if isinstance(text, bytes) else text.encode("ascii")
        if not data.isascii():
            data.decode("ascii")
        self.write_bytes(data, None if unserialled is None else unserialled.encode("ascii"))

    def write_bytes(self, data: bytes, unserialled: bytes | None = None) -> None:
        if unserialled is not None and unserialled != data and self.body is None:
            self.finish()
            self.body = self.whole.copy()
        written, whole, body = self._pools
        duties = [written.submit(self._take, data), whole.submit(self.whole.update, data)]
        if self.body is not None:
            duties.append(body.submit(self.body.update, data if unserialled is None else unserialled))
        self._waiting.append(duties)
        if len(self._waiting) > _AHEAD:
            self._wait()

    def finish(self) -> None:
        """Wait until all is written. Raises OSError where it can't be."""
        while self._waiting:
            self._wait()

    def _wait(self) -> None:
        for duty in self._waiting.popleft():
            duty.result()

    def _take(self, data: bytes) -> None:
        self.out.write(data)
        if self.lines is None:
            self._counted += data.count(b"\n")
        self.size += len(data)

    def rendered(self, entries: int, records: int, lost: Mapping[str, int]) -> Rendered:
        """What was written, once it is finished."""
        return Rendered(
            entries=entries,
            records=records,
            lost={reason: number for reason, number in sorted(lost.items()) if number},
            body_digest=str((self.whole if self.body is None else self.body).hexdigest()),
            digest=self.whole.hexdigest(),
            lines=self._counted if self.lines is None else self.lines,
            size=self.size,
        )


def render(fmt: Format, selection: Selection, options: Mapping[str, object], out: BinaryIO) -> Rendered:
    """Write `selection` in the syntax of `fmt` to `out`: ASCII, LF, a final newline, in chunks.

    `options` as the descriptor declares them, and `serial`. Entries that the target can't say are left out
    and counted in `lost` by the reasons of `blocklist.publish.compose` or of the module of a format.
    Raises ConfigError for an option that does not fit, ReleaseError when a value is unsafe or the list too
    long.
    """
    values = fmt.settle(options)
    lost: Counter[str] = Counter()
    parts = composed(fmt, selection, values, lost)
    entries, records = totals(parts)
    if fmt.max_entries is not None and records > fmt.max_entries:
        raise ReleaseError(
            f"{fmt.name}: {records:,} entries are more than the {fmt.max_entries:,} that the target takes",
            hint="narrow the policy: fewer categories or feeds, or a higher min_confidence",
        )
    with Sink(out) as sink:
        sink.write(*framed(fmt, "header", values, entries, records))
        for part in parts:
            if isinstance(part, Bytes):
                sink.write_bytes(part.data)
                continue
            for text in part.texts():
                sink.write(text)
        sink.write(*framed(fmt, "footer", values, entries, records))
        sink.finish()
    if fmt.max_bytes is not None and sink.size > fmt.max_bytes:
        raise ReleaseError(
            f"{fmt.name}: {sink.size:,} bytes are more than the {fmt.max_bytes:,} that the target takes",
            hint="narrow the policy: fewer categories or feeds, or a higher min_confidence",
        )
    return sink.rendered(entries, records, lost)


def written(lines: Iterator[str], out: BinaryIO) -> Rendered:
    """Write text that stands beside a list and has no serial."""
    entries = 0
    with Sink(out) as sink:
        for text in lines:
            sink.write(text)
            entries += text.count("\n")
        sink.finish()
    return sink.rendered(entries, entries, {})


def framed(
    fmt: Format, which: Literal["header", "footer"], values: Mapping[str, Any], entries: int, records: int
) -> tuple[str, str]:
    """The header or the footer of a file, and how it would be with serial 0; `values` as `Format.settle` gives them.

    No time of day is in it: the same list must give the same bytes.
    """
    counts = {"title": fmt.title, "name": fmt.name, "entries": entries, "records": records}
    source, first = fmt.header if which == "header" else fmt.footer, ""
    if which == "header" and fmt.comment:
        first = f"{fmt.comment} {fmt.title}: {entries} entries. Made by blocklist; edits do not last.\n"

    def text(serial: int) -> str:
        seen = {**counts, "options": dict(values), "serial": serial}
        return first + frame.fill(source, seen, f"{fmt.name}: {which}")

    return text(values["serial"]), text(0)


def composed(fmt: Format, selection: Selection, values: dict[str, Any], lost: Counter[str]) -> list[Part]:
    """What stands between header and footer; `lost` as in `blocklist.publish.compose.parts`."""
    if fmt.code is not None:
        module = import_module(f"blocklist.publish.{_MODULES.get(fmt.code, fmt.code)}")
        made: list[Part] = module.parts(fmt, selection, values, lost)
        return made
    return compose.parts(fmt, selection, values, lost)


_MODULES = {"csv": "table", "jsonl": "table", "stix": "sharing", "misp": "sharing"}
