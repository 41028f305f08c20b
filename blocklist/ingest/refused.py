"""What was refused, and where: counts by reason, with the line numbers of the first few as examples."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from blocklist.names import Reject

# As many a reason as a person will look at.
KEPT = 100


class Refused(dict[Reject, int]):
    """Occurrences by reason. `lines`: numbers of the first `KEPT` lines that were refused for it, unsorted."""

    def __init__(self, *args: Mapping[Reject, int]) -> None:
        super().__init__(*args)
        self.lines: dict[Reject, list[int]] = {}

    def refuse(self, reason: Reject, numbers: pl.Series) -> None:
        """Count the lines `numbers` (integers; one occurrence each) as refused for `reason`."""
        if len(numbers):
            self[reason] = self.get(reason, 0) + len(numbers)
            seen = self.lines.setdefault(reason, [])
            seen += numbers.head(KEPT - len(seen)).to_list()

    def add(self, more: Mapping[Reject, int]) -> None:
        """Take over the counts, and the examples where `more` has them."""
        for reason, count in more.items():
            self[reason] = self.get(reason, 0) + count
        if isinstance(more, Refused):
            for reason, numbers in more.lines.items():
                seen = self.lines.setdefault(reason, [])
                seen += numbers[: KEPT - len(seen)]


def refused(reason: Reject, rows: pl.DataFrame, mask: pl.Series | None = None) -> Refused:
    """The rows of a frame with `number` where `mask` is true, or all of them, as refused for one reason."""
    out = Refused()
    out.refuse(reason, rows["number"] if mask is None else rows["number"].filter(mask))
    return out
