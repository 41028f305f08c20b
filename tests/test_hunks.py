"""Hunks put in place of each other make one text of the other, whatever the texts."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocklist import hunks
from blocklist.hunks import Hunk

TEXT = st.lists(st.sampled_from([b"a", b"ab", b"", b"b", b"\xff\0", b"c\r", b"long" * 700]), max_size=30).flatmap(
    lambda lines: st.sampled_from([b"\n".join(lines), b"\n".join([*lines, b""])])
)


def applied(old: bytes, new: bytes, found: list[Hunk]) -> bytes:
    """`new` from `old`, of which only what stands between the hunks is used."""
    parts, at = [], 0
    for hunk in found:
        assert at <= hunk.gone <= hunk.gone_end and hunk.come <= hunk.come_end
        parts += [old[at : hunk.gone], new[hunk.come : hunk.come_end]]
        at = hunk.gone_end
        for text, begin, end in ((old, hunk.gone, hunk.gone_end), (new, hunk.come, hunk.come_end)):
            for edge in (begin, end):
                assert edge in (0, len(text)) or text[edge - 1 : edge] == b"\n"
    return b"".join([*parts, old[at:]])


@given(old=TEXT, new=TEXT)
def test_hunks_make_one_of_the_other_in_whole_lines(old: bytes, new: bytes) -> None:
    found = hunks.hunks(old, new)
    assert found is not None and applied(old, new, found) == new
    assert (not found) == (old == new)


def lines(count: int, seed: int) -> list[bytes]:
    draw = random.Random(seed)
    return [b"%d.example" % draw.randrange(10**9) for _ in range(count)]


def test_only_what_changed_is_in_the_hunks() -> None:
    every = lines(50_000, 1)
    new = [line for i, line in enumerate(every) if i % 100] + lines(500, 2)
    new[20_000:20_000] = lines(3_000, 3)  # further than the nearest search sees
    del new[40_000:40_200]
    old_text, new_text = (b"\n".join(text) + b"\n" for text in (every, new))
    found = hunks.hunks(old_text, new_text)
    assert found is not None and applied(old_text, new_text, found) == new_text
    assert sum(h.gone_end - h.gone + h.come_end - h.come for h in found) < 17 * (500 + 500 + 3_000 + 200) * 1.2


def test_lines_that_are_others_in_their_places_cost_no_search_of_the_whole() -> None:
    every = lines(400_000, 1)
    other = [line if i % 100 else b"b." + line for i, line in enumerate(every)]
    old_text, new_text = (b"\n".join(text) + b"\n" for text in (every, other))
    found = hunks.hunks(old_text, new_text)
    assert found is not None and len(found) == 4_000 and applied(old_text, new_text, found) == new_text


@pytest.mark.parametrize("shuffled", [True, False])
def test_texts_with_little_in_common_are_soon_given_up(shuffled: bool) -> None:
    every = lines(100_000, 1)
    other = random.Random(2).sample(every, len(every)) if shuffled else lines(100_000, 2)
    assert hunks.hunks(b"\n".join(every), b"\n".join(other)) is None
