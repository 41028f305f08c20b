"""Frames that are sorted by name, cut into stretches of names, so that only some of all is in the works at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

# Rows that are sorted at once: a sort takes several times the memory of its rows.
STRETCH = 4_000_000


def stretches(parts: Sequence[pl.DataFrame]) -> Iterator[list[pl.DataFrame]]:
    """`parts`, each sorted by `name`, cut at the same names, in order: about `STRETCH` rows at a time, no copies."""
    total = sum(part.height for part in parts)
    pieces = -(-total // STRETCH)
    if pieces < 2:
        yield list(parts)
        return
    sample = pl.concat([part["name"].gather_every(max(1, STRETCH // 1000)) for part in parts]).sort()
    cuts = sample.gather([len(sample) * i // pieces for i in range(1, pieces)]).unique().sort()
    ends = [[0, *part["name"].search_sorted(cuts, side="left").to_list(), part.height] for part in parts]
    for i in range(len(cuts) + 1):
        yield [part.slice(at[i], at[i + 1] - at[i]) for part, at in zip(parts, ends, strict=True)]
