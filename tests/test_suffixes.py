"""Public suffixes: the columns say what the definition says, and the definition what the list's own package says."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from publicsuffixlist import PublicSuffixList  # type: ignore[import-untyped]

from blocklist.store import derived
from blocklist.store.suffix_rules import file_of, keep_rules, kept_rules
from blocklist.suffixes import SuffixRules, builtin_digest, builtin_rules, parse_rules
from tests.installation import World

RULES = """
// ===BEGIN ICANN DOMAINS===
example
co.example
*.wild.example
!city.wild.example
*.ck
!www.ck
bücher.example   trailing words are ignored
b.a
*.b.a
this is..no rule
.co.test
"""
LABELS = ("a", "b", "ck", "co", "city", "wild", "www", "example", "xn--bcher-kva")
names = st.lists(st.sampled_from(LABELS), min_size=1, max_size=5).map(".".join)

TEST = dict.fromkeys(("exact", "wildcard", "exception"), pl.DataFrame({"name": ["test"]}))


@pytest.fixture(scope="module")
def rules() -> SuffixRules:
    return parse_rules(RULES)


def test_rules_are_read_into_their_three_kinds(rules: SuffixRules) -> None:
    assert rules.exact == {"example", "co.example", "xn--bcher-kva.example", "b.a", "this"}
    assert rules.wildcard == {"wild.example", "ck", "b.a"}
    assert rules.exception == {"city.wild.example", "www.ck"}


@pytest.mark.parametrize(
    ("name", "suffix", "wildcard", "registrable"),
    [
        ("unknowntop", True, False, None),
        ("evil.unknowntop", False, False, "evil.unknowntop"),
        ("co.example", True, False, None),
        ("a.b.co.example", False, False, "b.co.example"),
        ("wild.example", True, True, None),
        ("x.wild.example", True, True, None),
        ("y.x.wild.example", False, False, "y.x.wild.example"),
        ("city.wild.example", False, False, "city.wild.example"),
        ("a.city.wild.example", False, False, "city.wild.example"),
        ("www.ck", False, False, "www.ck"),
        ("other.ck", True, True, None),
    ],
)
def test_suffixes_by_each_kind_of_rule(
    rules: SuffixRules, name: str, suffix: bool, wildcard: bool, registrable: str | None
) -> None:
    assert rules.is_suffix(name) is suffix
    assert rules.is_wildcard_suffix(name) is wildcard
    assert rules.registrable(name) == registrable


@given(st.lists(names, min_size=1, max_size=30))
def test_columns_equal_the_definition(asked: list[str]) -> None:
    rules = parse_rules(RULES)
    table = rules.columns(pl.Series(asked))
    assert table["suffix"].to_list() == [rules.is_suffix(n) for n in asked]
    assert table["wildcard_suffix"].to_list() == [rules.is_wildcard_suffix(n) for n in asked]
    assert table["registrable"].to_list() == [rules.is_registrable(n) for n in asked]


@given(st.lists(names, min_size=1, max_size=30))
def test_the_definition_equals_the_packages_own_reading(asked: list[str]) -> None:
    rules = parse_rules(RULES)
    oracle = PublicSuffixList(RULES.replace("this is..no rule", "this").replace(".co.test\n", "").splitlines())
    for name in asked:
        assert rules.is_suffix(name) is (oracle.publicsuffix(name) == name), name
        assert rules.registrable(name) == oracle.privatesuffix(name), name


def test_the_built_in_list_has_one_digest() -> None:
    # By it decisions of one command are known again by another, whether that read the rules or not.
    assert builtin_rules().digest == builtin_digest()


def test_the_built_in_list_holds_private_suffixes_and_wildcards() -> None:
    rules = builtin_rules()
    assert rules.is_suffix("co.uk") and rules.is_suffix("github.io")
    assert rules.is_wildcard_suffix("anything.compute-1.amazonaws.com")
    assert rules.registrable("a.b.example.co.uk") == "example.co.uk"
    assert len(rules.exact) > 8_000


def test_the_built_in_list_agrees_with_the_package_on_every_rule_and_below() -> None:
    rules, oracle = builtin_rules(), PublicSuffixList()
    asked = sorted(rules.exact)[::7] + sorted(rules.wildcard) + sorted(rules.exception)
    asked = [n for n in asked if not n.endswith("arpa")]
    asked += [f"a.{n}" for n in asked] + [f"b.a.{n}" for n in asked]
    table = rules.columns(pl.Series(asked))
    assert table["suffix"].to_list() == [oracle.publicsuffix(n) == n for n in asked]
    assert table["registrable"].to_list() == [oracle.privatesuffix(n) == n for n in asked]


def test_the_digest_follows_the_rules_and_not_their_order_or_comments() -> None:
    assert parse_rules("com\nco.uk\n").digest == parse_rules("// x\nco.uk\ncom").digest != parse_rules("com").digest


def test_what_one_run_keeps_of_the_built_in_list_is_what_the_next_would_read(tmp_path: Path) -> None:
    assert kept_rules(tmp_path) is None
    keep_rules(tmp_path, builtin_rules())
    assert kept_rules(tmp_path) == builtin_rules()
    # The list is not read for it.
    derived.write(file_of(tmp_path), {"list": builtin_digest()}, TEST)
    assert (kept := kept_rules(tmp_path)) is not None and kept.exact == {"test"}


@pytest.mark.parametrize("told", [{"list": "that of before"}, {}])
def test_rules_that_were_kept_of_another_list_are_not_taken(tmp_path: Path, told: dict[str, str]) -> None:
    derived.write(file_of(tmp_path), told, TEST)
    assert kept_rules(tmp_path) is None


def test_a_torn_file_of_kept_rules_is_not_believed(tmp_path: Path) -> None:
    keep_rules(tmp_path, builtin_rules())
    file_of(tmp_path).write_bytes(file_of(tmp_path).read_bytes()[:-3])
    assert kept_rules(tmp_path) is None


def test_an_update_keeps_them_where_there_is_a_record(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("a", ["evil.example"], category="malware")
    world.export("list", "domains")
    assert world.update().code == 0
    assert kept_rules(world.state) == builtin_rules()
    # What is torn, the next run that asks for it makes anew.
    file_of(world.state).write_bytes(b"")
    world.lines("a", ["evil.example", "other.example"])
    assert world.update().code == 0 and kept_rules(world.state) == builtin_rules()
