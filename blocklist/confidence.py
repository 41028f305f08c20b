"""Combined confidence, the definition: whole numbers from 0 to 100."""

from __future__ import annotations

import math
from collections.abc import Iterable


def combine(claims: Iterable[tuple[str, int]]) -> int:
    """⌊100·(1 − Π(1 − cᵢ/100))⌋ over the families of `(family, confidence)`, each by its maximum.

    Nine decimals are enough: binary fractions must not turn 99 into 98.
    """
    best: dict[str, int] = {}
    for family, confidence in claims:
        best[family] = max(best.get(family, 0), confidence)
    if not best:
        return 0
    if len(best) == 1:
        return next(iter(best.values()))
    return math.floor(100 * (1 - math.prod(1 - c / 100 for c in best.values())) + 1e-9)
