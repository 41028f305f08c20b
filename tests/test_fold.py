"""Folding keeps the meaning, to the name, and nothing that could go."""

from itertools import product

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocklist.select.fold import fold, names_between, nearest, parents, roots_of

Entries = dict[tuple[str, bool], bool]

SCHEMA = {"name": pl.String, "subtree": pl.Boolean, "block": pl.Boolean, "widenable": pl.Boolean}
LABELS = ("a", "b")
NAMES = [".".join(labels) for depth in range(1, 5) for labels in product(LABELS, repeat=depth)]
# One label more than any entry has, and one that no entry has: what lies below is asked too.
QUERIES = NAMES + [f"{label}.{name}" for name in NAMES for label in ("a", "z")] + ["z", "z.z.b.a"]


def frame(entries: Entries) -> pl.DataFrame:
    rows = [(name, subtree, block, True) for (name, subtree), block in entries.items()]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def entries_of(decisions: pl.DataFrame) -> Entries:
    return {(name, subtree): block for name, subtree, block in decisions.select("name", "subtree", "block").rows()}


def decide(entries: Entries, query: str) -> bool | None:
    """The rule itself: True blocks, False allows, None passes."""
    if (query, False) in entries:
        return entries[query, False]
    labels = query.split(".")
    for start in range(len(labels)):
        above = ".".join(labels[start:])
        if (above, True) in entries:
            return entries[above, True]
    return None


def blocked(entries: Entries) -> set[str]:
    return {query for query in QUERIES if decide(entries, query)}


decisions = st.dictionaries(st.tuples(st.sampled_from(NAMES), st.booleans()), st.booleans(), max_size=14)
mostly_blocks = st.dictionaries(st.tuples(st.sampled_from(NAMES), st.booleans()), st.just(True), max_size=14)


@given(st.one_of(decisions, mostly_blocks))
def test_folding_keeps_the_meaning_and_nothing_that_could_go(entries: Entries) -> None:
    folded = entries_of(fold(frame(entries)))
    assert folded.items() <= entries.items()
    assert blocked(folded) == blocked(entries)
    for entry in folded:
        assert blocked({k: v for k, v in folded.items() if k != entry}) != blocked(folded), entry


@given(decisions, st.randoms(use_true_random=False))
def test_folding_twice_or_in_another_order_gives_the_same_frame(entries: Entries, random: object) -> None:
    once = fold(frame(entries))
    assert fold(once).equals(once)
    shuffled = list(entries.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert fold(frame(dict(shuffled))).equals(once)
    assert once["name"].to_list() == sorted(once["name"])


@given(decisions)
def test_names_between_repeat_what_the_nearest_entry_above_does(entries: Entries) -> None:
    folded = entries_of(fold(frame(entries)))
    expected: dict[str, bool] = {}
    for name, _ in folded:
        labels = name.split(".")
        above = [".".join(labels[i:]) for i in range(1, len(labels))]
        for position, ancestor in enumerate(above):
            if (ancestor, True) in folded:
                expected |= dict.fromkeys(above[:position], folded[ancestor, True])
                break
    names = {name for name, _ in folded}
    expected = {name: block for name, block in expected.items() if name not in names}
    between = names_between(fold(frame(entries)))
    assert dict(between.rows()) == expected
    assert between["name"].to_list() == sorted(expected)
    assert all(decide(folded, name) == block for name, block in expected.items())


def test_a_name_below_a_listed_one_goes() -> None:
    entries = {
        ("evil.example", True): True,
        ("www.evil.example", True): True,
        ("notevil.example", True): True,
    }
    assert fold(frame(entries))["name"].to_list() == ["evil.example", "notevil.example"]


def test_an_exact_entry_covers_nothing_below() -> None:
    entries = {("evil.example", False): True, ("www.evil.example", False): True}
    assert fold(frame(entries)).height == 2


def test_a_deny_of_a_top_level_domain_folds_everything_below() -> None:
    entries = {("test", True): True, ("evil.test", True): True, ("a.b.c.evil.test", False): True}
    assert fold(frame(entries))["name"].to_list() == ["test"]


def test_an_allow_without_a_block_above_says_nothing() -> None:
    entries = {("good.example", True): False, ("evil.good.example", True): True}
    assert fold(frame(entries))["name"].to_list() == ["evil.good.example"]


def test_names_between_an_allow_and_its_block_are_blocked_again() -> None:
    entries = {("evil.example", True): True, ("a.b.c.evil.example", True): False}
    between = names_between(fold(frame(entries)))
    assert between.rows() == [("b.c.evil.example", True), ("c.evil.example", True)]


def test_empty_decisions_fold_to_empty_ones() -> None:
    empty = frame({})
    assert fold(empty).schema == empty.schema
    assert names_between(empty).schema == {"name": pl.String, "block": pl.Boolean}
    assert nearest(empty, roots_of(empty)).height == 0


def test_the_parent_of_a_single_label_is_null() -> None:
    names = pl.DataFrame({"name": ["a.evil.example", "evil.example", "example", None]})
    assert names.select(parents(pl.col("name")))["name"].to_list() == ["evil.example", "example", None, None]


def test_colliding_hashes_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {("evil.example", True): True, ("a.evil.example", True): True, ("b.good.example", False): True}
    expected = fold(frame(entries))
    monkeypatch.setattr(pl.Series, "hash", lambda self: pl.zeros(len(self), dtype=pl.UInt64, eager=True))
    assert fold(frame(entries)).equals(expected)
    assert expected["name"].to_list() == ["b.good.example", "evil.example"]


def test_other_columns_pass_through() -> None:
    assert fold(frame({("evil.example", True): True})).columns == list(SCHEMA)
