"""Text made of text: lines that stand in the order of their keys, where few of them are others than before.

What is left is not made, checked and compared again, but copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import msgspec
import polars as pl

from blocklist.hunks import Hunk

# Pieces are put together up to about so many bytes.
_PIECE = 1 << 19
# `Hunk._make` without a call of Python for each.
_HUNK = partial(tuple.__new__, Hunk)


class Splice(msgspec.Struct, frozen=True):
    """A text: `old`, where for every one of `hunks` `come[hunk.come : hunk.come_end]` stands in place of
    `old[hunk.gone : hunk.gone_end]`. They are in order and do not overlap.
    """

    old: bytes
    come: bytes
    hunks: list[Hunk]

    def pieces(self) -> Iterator[bytes]:
        """The text, in pieces that a cache takes."""
        old, come = memoryview(self.old), memoryview(self.come)
        some: list[memoryview] = []
        size = at = 0
        for hunk in [*self.hunks, Hunk(len(old), len(old), 0, 0)]:
            while hunk.gone - at > _PIECE:
                some.append(old[at : at + _PIECE])
                at += _PIECE
                yield b"".join(some)
                some, size = [], 0
            some.append(old[at : hunk.gone])
            some.append(come[hunk.come : hunk.come_end])
            size += hunk.gone - at + hunk.come_end - hunk.come
            at = hunk.gone_end
            if size > _PIECE:
                yield b"".join(some)
                some, size = [], 0
        yield b"".join(some)


class Lines(msgspec.Struct, frozen=True):
    """Lines that stand for `keys` (String, sorted, not null; a key may have several): `text` in the same order.

    `sizes`: bytes of each, its newline included.
    """

    keys: pl.Series
    sizes: pl.Series
    text: bytes


class Splicing:
    """Collects what differs of `old`, stretch by stretch in its order."""

    def __init__(self, old: bytes) -> None:
        self._old = old
        self._at = self._put = 0
        self._come: list[bytes] = []
        self._hunks: list[Hunk] = []

    def replace(self, was: bytes, now: bytes) -> bool:
        """The next stretch, which is `was`, is `now`. False when it is something else."""
        if not self._old.startswith(was, self._at):
            return False
        if was != now:
            self._hunks.append(Hunk(self._at, self._at + len(was), self._put, self._put + len(now)))
            self._come.append(now)
            self._put += len(now)
        self._at += len(was)
        return True

    def lines(self, keys: pl.Series, sizes: pl.Series, gone: Lines, come: Lines) -> bool:
        """The next stretch is lines for `keys` of `sizes`, as in `Lines`; those `gone` go and those that `come` stand
        where their keys belong. False when it is not: `gone` is not there, or not all that its keys have.
        """
        if not (keys.is_sorted() and gone.keys.is_sorted() and come.keys.is_sorted()):
            return False
        begin, end = self._at, self._at + int(sizes.sum())
        if end > len(self._old):
            return False
        touched = pl.concat([gone.keys, come.keys.alias(gone.keys.name)]).unique().sort()
        there, first, last = _places(keys, sizes, touched)
        arrived, put, put_end = _places(come.keys, come.sizes, touched)
        if there != len(gone.keys) or arrived != len(come.keys):
            return False
        frame = pl.DataFrame({"a": first + begin, "b": last + begin, "c": put + self._put, "d": put_end + self._put})
        hunks = list(map(_HUNK, frame.rows()))
        less = [self._old[h.gone : h.gone_end] for h in hunks]
        if b"".join(less) != gone.text:
            return False
        more = (come.text[h.come - self._put : h.come_end - self._put] for h in hunks)
        # What is decided anew is mostly what it was.
        self._hunks += [h for h, was, now in zip(hunks, less, more, strict=True) if was != now]
        self._come.append(come.text)
        self._put += len(come.text)
        self._at = end
        return True

    def end(self) -> Splice | None:
        """All of it; None when `old` goes on."""
        if self._at != len(self._old):
            return None
        return Splice(self._old, b"".join(self._come), self._hunks)


def _places(keys: pl.Series, sizes: pl.Series, touched: pl.Series) -> tuple[int, pl.Series, pl.Series]:
    """How many of `keys` are among `touched` (both sorted, the latter unique), and where the lines of each of these
    begin and end: bytes from the first line, where there are none the same place twice.
    """
    ends = pl.concat([pl.Series([0], dtype=pl.Int64), sizes.cast(pl.Int64).cum_sum()])
    low, high = (keys.search_sorted(touched, side) for side in ("left", "right"))
    return int((high - low).sum()), ends.gather(low), ends.gather(high)
