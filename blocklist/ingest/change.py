"""Only the lines that changed: a new snapshot read from the difference to the one before.

Feeds change a little at a time. Where no name stands twice, the lines that both snapshots share, in the same
order, need not be read again: what the others say is taken out of and put into the indicators and the account of
before. The result is what `blocklist.ingest.parse` gives (a property test says so), but for `line`, which stays
that of the snapshot that first named an indicator, as it does in the record.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec
import polars as pl

from blocklist.catalog import Feed
from blocklist.ingest.formats import BY_LINE, COMMENTS
from blocklist.ingest.normalize import unique
from blocklist.ingest.parse import LineReader, Parsed, begins, refuse_pages
from blocklist.ingest.refused import Refused
from blocklist.names import Reject

# Below this many bytes reading everything is as quick; above this share of changed lines, quicker.
_WORTH_IT = 65_536
_SHARE = 0.2


def parse_change(feed: Feed, old: bytes, new: bytes, before: pl.DataFrame, account: Mapping[str, Any]) -> Parsed | None:
    """Indicators of `new`, given those of `old` (`before`) and its account; None when only reading it all will do.

    Raises FeedGated for a page instead of a list, like `parse`.
    """
    started = time.perf_counter()
    if (
        account["format"] not in BY_LINE
        or feed.input.name not in ("auto", account["format"])
        # The keys of a guess are not in the account; a rule that takes others back stands anywhere.
        or (feed.input.name == "auto" and account["format"] == "jsonl")
        or (account["format"] == "adblock" and (b"badfilter" in old or b"badfilter" in new))
        or feed.first is not None
        or len(new) < _WORTH_IT
        # A name on several lines: which of them is left can't be told from the difference.
        or sum(account["indicators"].values()) != before.height
    ):
        return None
    refuse_pages(new, feed)
    lines = [_split(data) for data in (old, new)]
    if lines[0] is None or lines[1] is None:
        return None
    marks = COMMENTS[account["format"]]
    was, now = lines[0], lines[1]
    shared = _shared(was.body(marks)["line"], now.body(marks)["line"])
    if shared is None:
        return None
    gone, come = was.body(marks).filter(~shared[0]), now.body(marks).filter(~shared[1])
    if gone.height + come.height > _SHARE * now.count:
        return None
    out, less = _read(feed, account["format"], come), _read(feed, account["format"], gone)
    if less.frame.height != less.accepted or out.frame.height != out.accepted:
        return None
    touched = before["name"].is_in(less.frame["name"].implode())
    stays = before.filter(~touched)
    if stays["name"].is_in(out.frame["name"].implode()).any():
        return None
    out.replaced = (before.filter(touched), out.frame)
    out.frame = stays.merge_sorted(out.frame, key="name")
    out.lines, out.blank = now.count, now.blank
    comments = account["comments"] - was.comments(marks) - less.comments
    out.comments += comments + now.comments(marks)
    out.extra += account["extra"] - less.extra
    out.masked += account["masked"] - less.masked
    out.notes = _sum(account.get("notes", {}), out.notes, less.notes)
    out.kinds = _sum(account["indicators"], out.kinds, less.kinds)
    rejects = {Reject(reason): count for reason, count in account["rejects"].items()}
    out.rejects = Refused(_sum(rejects, out.rejects, less.rejects))
    out.why = account.get("why", "")
    out.seconds = time.perf_counter() - started
    return out


class _Split:
    """Lines of one snapshot: `count` of all, `blank` ones; the others as `number`, `line`."""

    def __init__(self, frame: pl.DataFrame, count: int) -> None:
        self._frame, self.count = frame, count
        self.blank = count - frame.height
        self._body: pl.DataFrame | None = None

    def body(self, marks: tuple[str, ...]) -> pl.DataFrame:
        """What is no comment."""
        if self._body is None:
            self._body = self._frame.filter(~begins(self._frame["line"], marks)) if marks else self._frame
        return self._body

    def comments(self, marks: tuple[str, ...]) -> int:
        return self._frame.height - self.body(marks).height


def _shared(was: pl.Series, now: pl.Series) -> tuple[pl.Series, pl.Series] | None:
    """Which lines of each stand in both; None unless they do so in the same order and as often.

    Hashes propose, the comparison of the lines themselves decides: a collision costs the short way, not a line.
    """
    old, new = was.hash(), now.hash()
    in_now, in_was = old.is_in(new.implode()), new.is_in(old.implode())
    left, right = was.filter(in_now), now.filter(in_was)
    if len(left) != len(right) or not (left == right).all():
        return None
    return in_now, in_was


def _split(data: bytes) -> _Split | None:
    """None for bytes that need the care of the whole reader."""
    if b"\0" in data or data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return None
    try:
        text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError:
        return None
    lines = pl.Series("line", [text]).str.split("\n").explode(keep_nulls=False, empty_as_null=False)
    frame = pl.DataFrame({"line": lines.str.strip_chars(" \t\r\f\v")}).with_row_index("number", offset=1)
    return _Split(frame.filter(pl.col("line") != ""), frame.height)


def _read(feed: Feed, format_name: str, lines: pl.DataFrame) -> Parsed:
    """Some lines, read like a whole file of them."""
    out = Parsed(lines.clear(), format_name)
    spec = msgspec.structs.replace(feed.input, name=format_name)
    frame = LineReader(feed, out, spec).rows(lines)
    out.frame = unique(frame, feed.confidence)
    return out


def _sum(account: Mapping[Any, int], more: Mapping[Any, int], less: Mapping[Any, int]) -> dict[Any, int]:
    keys = {**account, **more}
    counts = {key: account.get(key, 0) + more.get(key, 0) - less.get(key, 0) for key in keys}
    return {key: count for key, count in counts.items() if count}
