"""When a server that failed is asked again: twice as long after each failure in a row, up to a day."""

from __future__ import annotations

import random
from datetime import datetime, timedelta

from .reasons import Strain

_FIRST = timedelta(minutes=5)
_LONGEST = timedelta(days=1)


def next_try(strain: Strain, failures: int, at: datetime, asked_for: datetime | None) -> datetime | None:
    """Not before this time, after `failures` in a row of which the last was at `at`; None for at once.

    `asked_for` is the server's own word (Retry-After) and holds in any case. A refusal (404, 403) may be a mistake
    that someone mends this minute, so only the second begins to wait.
    """
    doublings = failures - (2 if strain == "refused" else 1)
    own = None
    if doublings >= 0:
        wait = min(_FIRST * 2 ** min(doublings, 10), _LONGEST)
        # A tenth of chance, so that the feeds of one host do not come back in step.
        own = at + wait * (0.9 + 0.2 * random.random())  # noqa: S311
    return max((moment for moment in (own, asked_for) if moment is not None), default=None)
