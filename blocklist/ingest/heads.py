"""Changed lines under the comments that head them: what has to be read where lines mean what those above them say.

For formats like Maltrail's, in which comments that follow one another say something of the lines below them, as far
as the next ones. Blank lines count for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from blocklist.hunks import Hunk
from blocklist.ingest.parse import MAX_LINE

Parts = list[tuple[int, int]]

_BLANK = b" \t\r\f\v\n"
# A longer line may be refused, which makes it neither a comment nor one below it: three bytes stand for a damaged one.
_SURE = MAX_LINE // 3
# In a text with more marks within its lines than this, heads are not looked for.
_MARKS = 100_000
# Nor where heads that changed have more than this share of all below them: reading everything is quicker then.
_BELOW, _BELOW_BYTES = 8, 65_536


class _UnsureError(Exception):
    """Only reading it all will tell."""


def with_heads(old: bytes, new: bytes, changed: Sequence[Hunk]) -> tuple[Parts, Parts] | None:
    """Stretches of `old` and of `new` that, read each by one reader, give what differs between the two.

    Before a hunk, with the comments above it: the last of those lines below them that stand before it. After it, where
    it changes a head, what stands below that. Both are the same in both texts. None when only reading all will do.
    """
    reader = _Heads(old, new, changed)
    try:
        return reader.parts()
    except _UnsureError:
        return None


class _Heads:
    def __init__(self, old: bytes, new: bytes, changed: Sequence[Hunk]) -> None:
        self._old, self._new, self._changed = old, new, changed
        self._marks = _MARKS
        self._left = max(_BELOW_BYTES, len(new) // _BELOW)

    def parts(self) -> tuple[Parts, Parts]:
        gone: Parts = []
        come: Parts = []
        floor, at = 0, 0
        while at < len(self._changed):
            hunk = self._changed[at]
            at += 1
            heading, above = self._above(floor, hunk.come)
            under, marked = self._sides(hunk)
            if under and not marked:
                # Lines go on below the comments above: no other need say that those are over.
                above = above[:-1] if not heading else above
            apart = hunk.gone - hunk.come
            come += above
            gone += [(begin + apart, end + apart) for begin, end in above]
            while marked or (heading and not under):
                limit = self._changed[at].come if at < len(self._changed) else len(self._new)
                end = self._below(hunk.come_end, limit)
                if end is not None or at == len(self._changed):
                    end = end if end is not None else limit
                    self._left -= end - hunk.come_end
                    hunk = hunk._replace(gone_end=hunk.gone_end + end - hunk.come_end, come_end=end)
                    break
                # What it turns reaches as far as the next hunk.
                following = self._changed[at]
                at += 1
                hunk = hunk._replace(gone_end=following.gone_end, come_end=following.come_end)
                heading = True
                under, marked = self._sides(hunk)
            gone.append((hunk.gone, hunk.gone_end))
            come.append((hunk.come, hunk.come_end))
            floor = hunk.come_end
            if self._left < 0:
                raise _UnsureError
        return gone, come

    def _above(self, floor: int, end: int) -> tuple[bool, Parts]:
        """Of the lines from `floor` to `end`: whether a comment is the last; the last comments, and the last line."""
        line = self._line_before(floor, end)
        if line is None:
            return False, []
        heading = self._comment(*line)
        last = line if heading else self._comment_before(floor, line[0])
        if last is None:
            return False, [line]
        begin, stop = last
        while (before := self._line_before(floor, begin)) is not None and self._comment(*before):
            begin = before[0]
        return heading, [(begin, stop)] if heading else [(begin, stop), line]

    def _below(self, begin: int, limit: int) -> int | None:
        """Where the first comments begin that head other lines than those at `begin`; None where none does."""
        under = False
        while begin < limit:
            end = self._new.find(b"\n", begin, limit) + 1 or limit
            if self._new[begin : min(end, begin + _SURE)].strip(_BLANK):
                if not self._comment(begin, end):
                    under = True
                elif under:
                    return begin
            if under:
                mark = self._new.find(b"#", end, limit)
                if mark < 0:
                    return None
                self._looked()
                end = max(end, self._new.rfind(b"\n", end, mark) + 1)
            begin = end
        return None

    def _sides(self, hunk: Hunk) -> tuple[bool, bool]:
        """Whether both sides have lines that are no comments, and whether one of them has comments."""
        under, marked = True, False
        for text, begin, end in ((self._old, hunk.gone, hunk.gone_end), (self._new, hunk.come, hunk.come_end)):
            part = text[begin:end]
            if len(part) <= _SURE and b"#" not in part:
                under = under and bool(part.strip(_BLANK))
                continue
            lines = [line for line in part.split(b"\n") if line.strip(_BLANK)]
            if any(len(line) > _SURE for line in lines):
                raise _UnsureError
            comments = sum(line.lstrip(_BLANK).startswith(b"#") for line in lines)
            under = under and len(lines) > comments
            marked = marked or comments > 0
        return under, marked

    def _line_before(self, floor: int, end: int) -> tuple[int, int] | None:
        """The last line from `floor` to `end` that is not blank."""
        while end > floor:
            begin = max(floor, self._new.rfind(b"\n", floor, end - 1) + 1)
            if self._new[begin:end].strip(_BLANK):
                return begin, end
            end = begin
        return None

    def _comment_before(self, floor: int, end: int) -> tuple[int, int] | None:
        """The last comment from `floor` to `end`."""
        while (mark := self._new.rfind(b"#", floor, end)) >= 0:
            self._looked()
            begin = max(floor, self._new.rfind(b"\n", floor, mark) + 1)
            stop = self._new.find(b"\n", mark, end) + 1 or end
            if self._comment(begin, stop):
                return begin, stop
            end = begin
        return None

    def _comment(self, begin: int, end: int) -> bool:
        if end - begin > _SURE:
            raise _UnsureError
        return self._new[begin:end].lstrip(_BLANK).startswith(b"#")

    def _looked(self) -> None:
        self._marks -= 1
        if self._marks < 0:
            raise _UnsureError
