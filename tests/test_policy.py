"""What exports block: columns, one name at a time, and a model of the written rules must say the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network

import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from worlds import (
    ADDRESSES,
    FORMATS,
    NAMES,
    NETWORKS,
    QUERIES,
    URLS,
    Line,
    Settled,
    Word,
    World,
    exports,
    settled,
    worlds,
)

from blocklist.catalog import Feed
from blocklist.config import Export, Policy

SLOW = settings(max_examples=60, phases=[Phase.generate], deadline=None, suppress_health_check=list(HealthCheck))
MALWARE = Feed(id="malware", title="Tests", url="file:list", category="malware", confidence=90)
TOP = Feed(id="top", title="Tests", url="file:list", category="reference")

NAME_EXPORTS = exports(dns="rpz", proxy="squid", etc="hosts", masq="dnsmasq", blunt="blunt")
ADDRESS_EXPORTS = {
    "nets": Export(name="nets", format="cidr", path="nets.out"),
    "in": Export(name="in", format="cidr", path="in.out", options={"direction": "inbound"}),
    "out": Export(name="out", format="cidr", path="out.out", options={"direction": "outbound"}),
}


def blocked_names(entries: pl.DataFrame) -> set[str]:
    """The queries that a file with `entries` blocks: the most specific entry that covers a name decides."""
    said: Mapping[tuple[str, bool], bool] = {(n, s): b for n, s, b in entries.iter_rows()}
    out = set()
    for query in QUERIES:
        above = [query.split(".", i)[-1] for i in range(query.count(".") + 1)]
        keys = [(query, False), *((name, True) for name in above)]
        if next((said[key] for key in keys if key in said), False):
            out.add(query)
    return out


def blocked_addresses(here: Settled, export: str) -> set[str]:
    nets = [ip_network(cidr) for cidr in here.selection(export).networks["cidr"]]
    return {a for a in ADDRESSES if any(ip_address(a) in n for n in nets)}


@SLOW
@given(worlds(NAMES, [*NAMES, "example", "uk", "z.evil.example"]))
def test_columns_a_single_name_and_the_written_rules_agree_on_names(world: World) -> None:
    expected = {q for q in QUERIES if world.blocks(q)}
    with settled(world, exports(dns="rpz", all="domains")) as here, here.audit() as audit:
        lost = here.selector.selection(here.config.exports["all"], FORMATS["domains"])[1].get("audience", 0)
        assert lost == len({n for n in world.kept_back() if n[0].isalpha()})
        assert blocked_names(here.selection("dns").domains) == expected
        assert {q for q in QUERIES if audit.why(q, lines=False).blocked} == expected


@SLOW
@given(worlds(NAMES, [*NAMES, "example", "z.evil.example"]))
def test_a_single_name_knows_what_each_target_makes_of_the_decisions(world: World) -> None:
    with settled(world, NAME_EXPORTS) as here, here.audit() as audit:
        answers = {q: {e.name: e for e in audit.why(q, lines=False).exports} for q in QUERIES}
        for export in NAME_EXPORTS:
            told = {q for q, answer in answers.items() if answer[export].blocked}
            assert told == blocked_names(here.selection(export).domains), export


@SLOW
@given(worlds(NETWORKS, NETWORKS))
def test_columns_a_single_address_and_the_written_rules_agree_on_addresses(world: World) -> None:
    world = replace(world, policy=replace_kinds(world.policy))
    edges = sorted({str(a) for n in NETWORKS for a in (ip_network(n)[0], ip_network(n)[-1])})
    with settled(world, ADDRESS_EXPORTS) as here, here.audit() as audit:
        answers = {a: {e.name: e.blocked for e in audit.why(a, lines=False).exports} for a in edges}
        for export, directions in (
            ("nets", ("inbound", "outbound", "both")),
            ("in", ("inbound", "both")),
            ("out", ("outbound", "both")),
        ):
            expected = {a for a in ADDRESSES if world.blocks_address(a, directions)}
            assert blocked_addresses(here, export) == expected
            assert {a for a in edges if answers[a][export]} == expected & set(edges)


@SLOW
@given(worlds(URLS, [*URLS, "a.evil.example", "evil.example", "co.uk", "192.0.2.8/30", "192.0.2.9", "2001:db8::/126"]))
def test_columns_a_single_url_and_the_written_rules_agree_on_urls(world: World) -> None:
    world = replace(world, policy=replace_kinds(world.policy))
    expected = {u for u in URLS if world.blocks_url(u)}
    with settled(world, exports(urls="urls")) as here, here.audit() as audit:
        assert set(here.selection("urls").urls["url"]) == expected
        assert {u for u in URLS if audit.why(u, lines=False).blocked} == expected


def replace_kinds(policy: Policy) -> Policy:
    return Policy(**{k: getattr(policy, k) for k in policy.__struct_fields__} | {"kinds": ["ipv4", "ipv6", "url"]})


def passes(world: World, export: str, query: str) -> bool:
    return query not in blocked_names(_entries(world, export))


def _entries(world: World, export: str) -> pl.DataFrame:
    with settled(world, exports(**{export: export})) as here:
        return here.selection(export).domains


def test_a_listing_below_a_deny_stays_for_targets_that_know_only_single_names() -> None:
    world = World([MALWARE], [Line(0, "a.evil.example")], [Word("deny", "evil.example")])
    assert _entries(world, "hosts").rows() == [
        ("a.evil.example", False, True),
        ("evil.example", False, True),
    ]


def test_a_listing_below_a_deny_stays_where_an_allow_takes_the_deny_apart() -> None:
    words = [Word("deny", "evil.example"), Word("allow", "www.evil.example")]
    world = World([MALWARE], [Line(0, "a.evil.example", subtree=True)], words)
    assert not passes(world, "squid", "z.a.evil.example")
    assert passes(world, "squid", "www.evil.example")


def test_a_held_subtree_stands_for_dnsmasq_where_a_wider_listing_blocks_it_anyway() -> None:
    lines = [Line(0, "a.evil.example", subtree=True), Line(0, "b.a.evil.example")]
    # dnsmasq can't allow a.evil.example alone, so what is listed below it must be said by itself.
    world = World([MALWARE], lines, [Word("allow", "a.evil.example", False)], holds=[("b.a.evil.example", True)])
    with settled(world, NAME_EXPORTS) as here, here.audit() as audit:
        assert "z.b.a.evil.example" in blocked_names(here.selection("masq").domains)
        assert {e.name: e.blocked for e in audit.why("z.b.a.evil.example").exports}["masq"]


def test_a_policy_without_a_threshold_still_honours_a_hold_of_the_subtree() -> None:
    world = World([MALWARE], [Line(0, "evil.example", subtree=True)], holds=[("evil.example", True)])
    assert _entries(replace(world, policy=Policy(min_confidence=0)), "rpz").is_empty()


def test_a_reference_address_that_a_person_let_pass_is_blocked() -> None:
    lines = [Line(0, "192.0.2.9"), Line(0, "192.0.2.0/28"), Line(1, "192.0.2.9")]
    world = World([MALWARE, TOP], lines, holds=[("192.0.2.9", False)])
    with settled(world, ADDRESS_EXPORTS) as here:
        assert "192.0.2.9" not in blocked_addresses(here, "nets")
    with settled(replace(world, released=frozenset(["192.0.2.9"])), ADDRESS_EXPORTS) as here, here.audit() as audit:
        assert "192.0.2.9" in blocked_addresses(here, "nets")
        assert audit.why("192.0.2.9").blocked


@pytest.mark.parametrize("rule", ["192.0.2.9", "192.0.2.8/30", "//192.0.2.9/x"])
def test_an_allow_for_an_address_frees_the_urls_on_it(rule: str) -> None:
    world = World([MALWARE], [Line(0, "//192.0.2.9/x")], [Word("allow", rule)])
    with settled(world, exports(urls="urls")) as here:
        assert here.selection("urls").urls.is_empty()


def test_a_deny_below_an_allowed_domain_leaves_its_urls_listed() -> None:
    words = [Word("allow", "evil.example"), Word("deny", "a.evil.example")]
    with settled(World([MALWARE], [Line(0, "//a.evil.example/x")], words), exports(urls="urls")) as here:
        assert here.selection("urls").urls["url"].to_list() == ["//a.evil.example/x"]


def test_the_longest_prefix_of_a_rule_decides_in_both_directions() -> None:
    words = [Word("allow", "192.0.2.0/28"), Word("deny", "192.0.2.8/30"), Word("allow", "192.0.2.9")]
    with settled(World([MALWARE], [Line(0, "192.0.2.0/26")], words), ADDRESS_EXPORTS) as here:
        blocked = blocked_addresses(here, "in")
    assert {"192.0.2.8", "192.0.2.10", "192.0.2.16"} <= blocked
    assert not {"192.0.2.0", "192.0.2.9", "192.0.2.12"} & blocked


def test_an_allow_wins_where_two_rules_name_the_same_network_or_url() -> None:
    words = [Word(action, what) for what in ("192.0.2.8/30", URLS[0]) for action in ("allow", "deny")]
    here_and_there = ADDRESS_EXPORTS | exports(urls="urls")
    with settled(World([MALWARE], [Line(0, "192.0.2.0/26")], words), here_and_there) as here, here.audit() as audit:
        assert "192.0.2.9" not in blocked_addresses(here, "nets")
        assert here.selection("urls").urls.is_empty()
        assert not audit.why("192.0.2.9").blocked and not audit.why(URLS[0]).blocked


def test_each_format_of_these_tests_is_one_of_the_package_or_named_here() -> None:
    assert {"rpz", "squid", "hosts", "dnsmasq", "cidr"} <= set(FORMATS)
