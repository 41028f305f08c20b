"""Verdicts as of a run: conditions in SQL, for readers with and without Polars."""

from __future__ import annotations

from typing import Final

BEGAN: Final = (
    "coalesce((SELECT max(p.closed) <= ?1 FROM verdict_closed p WHERE p.name = v.name AND p.since < v.since), "
    "v.since < coalesce((SELECT min(started) FROM run WHERE id > ?1), 'later'))"
)
"""Did the interval `v` begin by run `?1`: with the run that closed the one before it? Of a name's first, time tells."""
