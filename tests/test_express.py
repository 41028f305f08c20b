"""Whatever a target can't say, it never blocks an allowed name."""

from itertools import product

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocklist.select.express import Capability, express

Entries = dict[tuple[str, bool], bool]

COMPLETE = Capability(subtree=True, exact=True, allow=True)
SQUID = Capability(subtree=True, exact=True, allow=False)
DNSMASQ = Capability(subtree=True, exact=False, allow=True)
SUBTREES = Capability(subtree=True, exact=False, allow=False)
HOSTS = Capability(subtree=False, exact=True, allow=False)
TARGETS = [COMPLETE, SQUID, DNSMASQ, SUBTREES, HOSTS]
UNFOLDED = [Capability(t.subtree, t.exact, t.allow, fold=False) for t in TARGETS]

SCHEMA = {"name": pl.String, "subtree": pl.Boolean, "block": pl.Boolean, "widenable": pl.Boolean}
NAMES = [".".join(labels) for depth in range(1, 5) for labels in product("ab", repeat=depth)]
QUERIES = NAMES + [f"{label}.{name}" for name in NAMES for label in "az"] + ["z"]

decisions = st.dictionaries(
    st.tuples(st.sampled_from(NAMES), st.booleans()), st.tuples(st.booleans(), st.booleans()), max_size=14
)


def frame(entries: dict[tuple[str, bool], tuple[bool, bool]]) -> pl.DataFrame:
    return pl.DataFrame([(*entry, *answer) for entry, answer in entries.items()], schema=SCHEMA, orient="row")


def as_entries(decisions: pl.DataFrame) -> Entries:
    return {row[:2]: row[2] for row in decisions.select("name", "subtree", "block").rows()}


def decide(entries: Entries, query: str) -> bool | None:
    if (query, False) in entries:
        return entries[query, False]
    while query:
        if (query, True) in entries:
            return entries[query, True]
        query = query.partition(".")[2]
    return None


def at_or_below(query: str, name: str) -> bool:
    return f".{query}".endswith(f".{name}")


@given(decisions, st.sampled_from(TARGETS + UNFOLDED))
def test_no_target_blocks_more_than_was_decided(
    given_: dict[tuple[str, bool], tuple[bool, bool]], target: Capability
) -> None:
    decided = as_entries(frame(given_))
    result = express(frame(given_), target)
    said = as_entries(result.entries)
    # May widen: the subtrees of exact blocks that the guards let pass.
    wide = [name for (name, subtree), (block, ok) in given_.items() if block and ok and not subtree]
    for query in QUERIES:
        was, now = decide(decided, query), decide(said, query)
        if was is False:
            assert not now, f"{query} is allowed"
        elif now and not was:
            assert not target.exact and any(at_or_below(query, name) for name in wide), query
        elif was and not now:
            assert result.lost, f"{query} is lost in silence"


@given(decisions)
def test_a_complete_target_says_exactly_what_was_decided(
    given_: dict[tuple[str, bool], tuple[bool, bool]],
) -> None:
    decided, result = as_entries(frame(given_)), express(frame(given_), COMPLETE)
    said = as_entries(result.entries)
    assert {q for q in QUERIES if decide(said, q)} == {q for q in QUERIES if decide(decided, q)}
    assert not result.lost


@given(decisions, st.sampled_from(TARGETS + UNFOLDED))
def test_every_target_is_given_only_what_it_can_say(
    given_: dict[tuple[str, bool], tuple[bool, bool]], target: Capability
) -> None:
    entries = express(frame(given_), target).entries
    assert entries.select("name", "subtree").is_unique().all()
    assert entries.equals(entries.sort("name", "subtree"))
    assert target.subtree or not entries["subtree"].any()
    assert target.exact or entries["subtree"].all()
    assert target.allow or entries["block"].all()


@given(decisions)
def test_without_allows_every_listed_name_that_is_blocked_stays_blocked(
    given_: dict[tuple[str, bool], tuple[bool, bool]],
) -> None:
    decided = as_entries(frame(given_))
    listed = {name for (name, _), (block, _) in given_.items() if block and decide(decided, name)}
    for target in (SQUID, HOSTS):
        said = as_entries(express(frame(given_), target).entries)
        assert all(decide(said, name) for name in listed)
    assert {name for name, _ in said} == listed  # hosts: those and no others


@given(decisions)
def test_without_allows_a_subtree_with_nothing_allowed_inside_stays_whole(
    given_: dict[tuple[str, bool], tuple[bool, bool]],
) -> None:
    decided = as_entries(frame(given_))
    for target in (SQUID, SUBTREES):
        said = as_entries(express(frame(given_), target).entries)
        for (name, subtree), block in decided.items():
            region = [q for q in QUERIES if at_or_below(q, name)]
            allows = any(not b and at_or_below(n, name) for (n, _), b in decided.items())
            if subtree and block and not allows:
                assert all(decide(said, query) for query in region)


def test_an_allow_below_narrows_every_subtree_above_it_where_a_target_has_no_allows() -> None:
    result = express(
        frame(
            {
                ("evil.example", True): (True, True),
                ("b.evil.example", True): (True, True),
                ("c.evil.example", True): (True, True),
                ("good.b.evil.example", True): (False, True),
            }
        ),
        SQUID,
    )
    assert result.entries.rows() == [
        ("b.evil.example", False, True),
        ("c.evil.example", True, True),
        ("evil.example", False, True),
    ]
    assert result.lost == {"narrowed": 2}


def test_a_subtree_whose_own_name_is_allowed_is_dropped_where_a_target_has_no_allows() -> None:
    listed = {("evil.example", True): (True, True), ("evil.example", False): (False, True)}
    result = express(frame(listed), SQUID)
    assert result.entries.height == 0
    assert result.lost == {"narrowed": 1}


def test_dnsmasq_leaves_out_an_exact_name_that_may_not_widen() -> None:
    listed = {("evil.example", False): (True, True), ("www.hoster.example", False): (True, False)}
    result = express(frame(listed), DNSMASQ)
    assert result.entries.rows() == [("evil.example", True, True)]
    assert result.lost == {"exact": 1}


def test_dnsmasq_does_not_widen_below_an_allow() -> None:
    listed = {
        ("example", True): (True, True),
        ("good.example", True): (False, True),
        ("evil.good.example", False): (True, True),
    }
    result = express(frame(listed), DNSMASQ)
    assert result.entries.rows() == [("example", True, True), ("good.example", True, False)]
    assert result.lost == {"exact": 1}


def test_dnsmasq_keeps_an_allow_below_a_name_that_it_widens() -> None:
    listed = {("evil.example", False): (True, True), ("good.evil.example", True): (False, True)}
    result = express(frame(listed), DNSMASQ)
    assert result.entries.rows() == [("evil.example", True, True), ("good.evil.example", True, False)]
    assert not result.lost


def test_dnsmasq_lets_allow_win_a_tie_and_counts_it_once() -> None:
    listed = {("evil.example", True): (True, True), ("evil.example", False): (False, True)}
    result = express(frame(listed), DNSMASQ)
    assert result.entries.height == 0
    assert result.lost == {"exact": 1}


def test_dnsmasq_counts_an_exact_allow_that_frees_the_names_below_it() -> None:
    listed = {("evil.example", True): (True, True), ("www.evil.example", False): (False, True)}
    result = express(frame(listed), DNSMASQ)
    assert result.entries.rows() == [("evil.example", True, True), ("www.evil.example", True, False)]
    assert result.lost == {"allow_widened": 1}


def test_subtrees_alone_drop_what_holds_an_allow_and_keep_what_stood_below() -> None:
    listed = {
        ("evil.example", True): (True, True),
        ("a.evil.example", False): (True, False),  # inside a blocked subtree nothing is widened
        ("good.evil.example", True): (False, True),
    }
    result = express(frame(listed), SUBTREES)
    assert result.entries.rows() == [("a.evil.example", True, True)]
    assert result.lost == {"narrowed": 1}


def test_hosts_lists_every_blocked_name_unfolded_and_no_allowed_one() -> None:
    listed = {
        ("evil.example", True): (True, True),
        ("www.evil.example", True): (True, True),
        ("x.evil.example", False): (True, True),
        ("odd.example", True): (True, True),
        ("odd.example", False): (False, True),
    }
    result = express(frame(listed), HOSTS)
    assert result.entries["name"].to_list() == ["evil.example", "www.evil.example", "x.evil.example"]
    assert result.lost == {"subtree": 3}


def test_a_target_that_knows_no_names_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="subtrees or exact"):
        Capability(subtree=False, exact=False, allow=True)
