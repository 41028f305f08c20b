"""JSON documents read item by item: each item alone, with the line on which it stands.

A damaged item costs itself and not the document, and every row still leads to a line of the publisher's text.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import TypeVar

import msgspec

from blocklist.errors import FeedError

T = TypeVar("T")


class Lines:
    """Where the lines of `data` begin."""

    def __init__(self, data: bytes) -> None:
        self._ends = array("Q", (match.start() for match in re.finditer(b"\n", data)))

    def at(self, offset: int) -> int:
        """The number, from 1, of the line that `offset` lies in."""
        return bisect_left(self._ends, offset) + 1


def decoded(data: bytes, kind: type[T], what: str) -> T:
    """`data` as `kind`. Raises FeedError that says `what` it is not."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FeedError(f"not {what}: {error}") from None


def placed(data: bytes, items: Sequence[msgspec.Raw], start: int = 0) -> Iterator[tuple[bytes, int]]:
    """Each of `items`, which follow one another in `data` from `start` on, with its offset."""
    for item in items:
        text = bytes(item)
        # The text of an object can't stand in a string, where its quotes would be escaped.
        found = data.find(text, start)
        yield text, found
        start = found + len(text)


def key_at(item: bytes, key: str) -> int:
    """Where `key` stands in `item`, else 0: of an object over many lines, the one to show."""
    match = re.search(rb'"%s"\s*:' % key.encode(), item)
    return match.start() if match else 0
