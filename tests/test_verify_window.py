"""How many queries may be under way to a resolver: chance takes little of it, a resolver that drowns nearly all."""

from __future__ import annotations

import random

import pytest

from blocklist.verify.endpoint import Resolver
from blocklist.verify.upstream import LEAST_WINDOW, Upstream

MOST = 2000


def after(loss: float, rounds: int, seed: int) -> float:
    """The window after so many judgements at this loss; it stays within its bounds all the while."""
    chance = random.Random(seed).random
    upstream = Upstream(0, Resolver("192.0.2.53", 53), MOST, 0)
    judged = 0
    while judged < rounds:
        lost = sum(chance() < loss for _ in range(int(upstream.window)))
        upstream.missed += lost
        upstream.heard_from(int(upstream.window) - lost, 0.0)
        upstream.judge_window()
        judged += not upstream.replied
        assert LEAST_WINDOW <= upstream.window <= MOST
    return upstream.window


@pytest.mark.parametrize("seed", range(5))
def test_what_is_lost_by_chance_leaves_the_window_wide(seed: int) -> None:
    """2 % in each direction, 4 % of the queries."""
    assert after(0.04, 1000, seed) > MOST / 2


@pytest.mark.parametrize("seed", range(5))
def test_a_resolver_that_drowns_is_left_in_peace(seed: int) -> None:
    assert after(0.6, 50, seed) < 4 * LEAST_WINDOW
