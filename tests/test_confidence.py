"""Combined confidence: the definition, and the columns that follow it."""

from __future__ import annotations

from itertools import combinations_with_replacement, product

import polars as pl
import pytest

from blocklist.catalog import Feed
from blocklist.confidence import combine
from blocklist.select.policy import _combined, _family


@pytest.mark.parametrize(
    ("claims", "combined"),
    [
        ([], 0),
        ([("a", 70)], 70),
        ([("a", 90), ("b", 90)], 99),  # in binary fractions 98.99999999999999
        ([("a", 90), ("a", 80)], 90),
        ([("a", 80), ("a", 90), ("b", 90)], 99),
        ([("a", 50), ("b", 50), ("c", 50)], 87),
        ([("a", 0), ("b", 0)], 0),
        ([("a", 100), ("b", 0)], 100),
    ],
)
def test_families_count_once_by_their_maximum_and_the_rest_combine_rounded_down(
    claims: list[tuple[str, int]], combined: int
) -> None:
    assert combine(claims) == combined


def test_two_and_three_families_combine_as_whole_numbers_do() -> None:
    for several in [*product(range(101), repeat=2), *combinations_with_replacement(range(0, 101, 3), 3)]:
        left = 1
        for confidence in several:
            left *= 100 - confidence
        exact = (100 ** len(several) - left) * 100 // 100 ** len(several)
        assert combine((str(i), c) for i, c in enumerate(several)) == exact, several


def test_columns_combine_as_the_definition_does() -> None:
    # Every way that up to three listings in two families can claim these numbers.
    levels = (0, 1, 29, 50, 90, 99, 100)
    claims = [case for n in (1, 2, 3) for case in product([(f, c) for f in (0, 1) for c in levels], repeat=n)]
    rows = pl.DataFrame(
        [(gid, family, confidence) for gid, case in enumerate(claims) for family, confidence in case],
        schema={"gid": pl.UInt32, "family": pl.UInt16, "confidence": pl.UInt8},
        orient="row",
    )
    found = dict(_combined(rows).select("gid", "confidence").iter_rows())
    assert found == {gid: combine((str(f), c) for f, c in case) for gid, case in enumerate(claims)}


def test_a_feed_without_a_family_is_its_own_even_if_a_family_has_its_name() -> None:
    feeds = {
        1: Feed(id="kin", title="", url="file:a", category="malware"),
        2: Feed(id="other", title="", url="file:b", category="malware", family="kin"),
        3: Feed(id="third", title="", url="file:c", category="malware", family="kin"),
    }
    codes = pl.DataFrame({"feed": [1, 2, 3]}).select(_family(feeds)).to_series().to_list()
    assert codes[0] != codes[1] == codes[2]
