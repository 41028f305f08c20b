"""Decompression as a stream with a bound, so that 33 kB of zstd can't become a gigabyte in memory."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

CODINGS = ("gzip", "deflate", "zstd")

_PIECE = 256 * 1024  # the most that zlib hands out at once
# zstandard has no output bound for pushed input. One four-byte block may stand for 128 KiB (RFC 8878
# §3.1.1.2), so 256 bytes in are at most 8 MiB out; measured 650 MB/s on incompressible input.
_ZSTD_SLICE = 256
_ZSTD_WINDOW = 8 * 1024 * 1024  # RFC 9659: what a sender of the content coding may ask for


class DecodeError(ValueError):
    """The body is not what its content coding says, or ends early."""


class TooLarge(ValueError):
    """The decompressed body passed its limit; nothing beyond it was kept."""


class _Codec(Protocol):
    def feed(self, data: bytes) -> Iterator[bytes]: ...

    def finish(self) -> None: ...


class Decompressor:
    """One compressed stream of at most `limit` bytes once decompressed.

    `coding` is one of `CODINGS` or "identity"; `window` the most bytes that zstd may look back. Chunks handed out
    are at most 8 MiB, whatever comes in.
    Raises TooLarge beyond `limit`, DecodeError for damaged or shortened input, ValueError for another coding.
    """

    def __init__(self, coding: str, *, limit: int, window: int = _ZSTD_WINDOW) -> None:
        if coding not in _CODECS:
            raise ValueError(f"{coding!r} is not a content coding that can be undone")
        self._codec = _Zstd(window) if coding == "zstd" else _CODECS[coding]()
        self._left = limit

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decompressed chunks of `data`, as far as they are known by now."""
        for chunk in self._codec.feed(data):
            self._left -= len(chunk)
            if self._left < 0:
                raise TooLarge
            yield chunk

    def finish(self) -> None:
        """Say that no more input comes. Raises DecodeError if the stream is not complete."""
        self._codec.finish()


class _Identity:
    def feed(self, data: bytes) -> Iterator[bytes]:
        yield data

    def finish(self) -> None:
        pass


class _Gzip:
    """RFC 1952: one or more members, then perhaps zero padding."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)
        self._fresh = True  # nothing of the current member was seen
        self._whole = False  # at least one member came whole
        self._padding = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        more = bool(data)
        while more:
            if self._fresh and self._whole and data.startswith(b"\0"):
                self._padding = True
            if self._padding:
                if data.strip(b"\0"):
                    raise DecodeError("there is garbage after the gzip data")
                return
            self._fresh = False
            try:
                chunk = self._member.decompress(data, _PIECE)
            except zlib.error:
                raise DecodeError("the gzip data is damaged") from None
            if self._member.eof:
                data = self._member.unused_data
                self._member, self._fresh, self._whole = zlib.decompressobj(wbits=31), True, True
                more = bool(data)
            else:
                data = self._member.unconsumed_tail
                more = bool(data) or len(chunk) == _PIECE  # zlib may hold output back after the last input
            if chunk:
                yield chunk

    def finish(self) -> None:
        if not (self._fresh and self._whole):
            raise DecodeError("the gzip data ends early")


class _Deflate:
    """RFC 9110 §8.4.1.2: the zlib format; some servers send raw deflate, so the first byte decides."""

    def __init__(self) -> None:
        self._stream: zlib._Decompress | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        if not data or (self._stream is not None and self._stream.eof):
            return
        if self._stream is None:
            self._stream = zlib.decompressobj(wbits=15 if data[0] & 0x0F == 8 else -15)
        while True:
            try:
                chunk = self._stream.decompress(data, _PIECE)
            except zlib.error:
                raise DecodeError("the deflate data is damaged") from None
            if chunk:
                yield chunk
            data = self._stream.unconsumed_tail
            if self._stream.eof or not (data or len(chunk) == _PIECE):
                return

    def finish(self) -> None:
        if self._stream is None or not self._stream.eof:
            raise DecodeError("the deflate data ends early")


class _Zstd:
    """RFC 8878: one or more frames."""

    def __init__(self, window: int = _ZSTD_WINDOW) -> None:
        import zstandard

        self._error = zstandard.ZstdError
        self._window = window
        self._context = zstandard.ZstdDecompressor(max_window_size=window)
        self._frame = self._context.decompressobj()
        self._fresh = True
        self._whole = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        view = memoryview(data)
        position = 0
        while position < len(view):
            piece = bytes(view[position : position + _ZSTD_SLICE])
            self._fresh = False
            try:
                chunk = self._frame.decompress(piece)
            except self._error as error:
                if "memory" in str(error):
                    raise DecodeError(f"the zstd data asks for a window over {self._window >> 20} MiB") from None
                raise DecodeError("the zstd data is damaged") from None
            position += len(piece)
            if self._frame.eof:
                position -= len(self._frame.unused_data)
                self._frame, self._fresh, self._whole = self._context.decompressobj(), True, True
            if chunk:
                yield chunk

    def finish(self) -> None:
        if not (self._fresh and self._whole):
            raise DecodeError("the zstd data ends early")


_CODECS: dict[str, Callable[[], _Codec]] = {
    "identity": _Identity,
    "gzip": _Gzip,
    "x-gzip": _Gzip,
    "deflate": _Deflate,
    "zstd": _Zstd,
}
