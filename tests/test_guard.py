"""Guards hold what may be right but needs a person, and nothing beside it."""

from __future__ import annotations

import random
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import polars as pl
import pytest
from installation import World

from blocklist.catalog import Feed
from blocklist.ingest.guard import References, ancestors, guard, over, overlapping, references, well_known
from blocklist.ingest.parse import parse
from blocklist.select import networks
from blocklist.select.current import Current, current
from blocklist.suffixes import SuffixRules, parse_rules

SUFFIXES = parse_rules("example\ntest\nco.example\nhost.example\n*.cloud.example\n!city.cloud.example\n")
Holds = dict[str, tuple[str, bool]]


def listed(lines: Iterable[str]) -> Current:
    feed = Feed(id="list", title="t", url="file:t", category="malware", format="lines")
    frame = parse("\n".join(lines).encode(), feed).frame
    return current({1: frame}, {1: feed}, SUFFIXES)


def known(
    lines: Iterable[str] = (),
    *,
    action: str = "hold",
    protect: Iterable[str] = (),
    networks: Iterable[str] = (),
    suffixes: SuffixRules = SUFFIXES,
    near: pl.DataFrame | None = None,
) -> References:
    feed = Feed(id="top", title="t", url="file:t", category="reference", format="lines", action=action)  # type: ignore[arg-type]
    frame = parse("\n".join(lines).encode(), feed).frame
    return references({2: frame}, {2: feed}, suffixes, protect, networks, near)


def held(lines: Iterable[str], references: References) -> Holds:
    """Name to guard and whether only its subtree is held."""
    frame = guard(listed(lines), references)
    assert frame.select("name", "guard").is_unique().all()
    assert frame["name"].to_list() == sorted(frame["name"])
    return {name: (why, below) for name, why, below in frame.select("name", "guard", "subtree_only").rows()}


def detail(line: str, references: References) -> list[str]:
    return guard(listed([line]), references)["detail"].to_list()


# Public suffixes


def test_a_public_suffix_is_held_and_what_is_below_it_is_not() -> None:
    assert held(["co.example", "evil.co.example", "evil.example"], known()) == {"co.example": ("public-suffix", False)}


def test_a_suffix_by_a_wildcard_is_held_as_subtree_only() -> None:
    lines = ["vm1.cloud.example", "evil.vm1.cloud.example", "city.cloud.example", "cloud.example"]
    assert held(lines, known()) == {
        "vm1.cloud.example": ("public-suffix", True),
        "cloud.example": ("public-suffix", True),
    }


def test_what_is_above_a_public_suffix_is_held_as_subtree_only() -> None:
    rules = parse_rules("example\nhost.example\nipfs.store.example\n*.eu.grid.example\n")
    lines = ["example.test", "store.example", "grid.example", "eu.grid.example", "a.store.example", "host.example"]
    frame = guard(listed(lines), known(suffixes=rules))
    held_ = {n: (g, below) for n, g, below in frame.select("name", "guard", "subtree_only").rows()}
    assert held_["store.example"] == held_["grid.example"] == ("public-suffix", True)
    assert held_["host.example"] == ("public-suffix", False)
    assert "a.store.example" not in held_
    assert detail("store.example", known(suffixes=rules)) == ["would cover the public suffix ipfs.store.example"]


# Names in a reference


def test_a_reference_name_holds_itself_and_its_www() -> None:
    lines = ["bank.example", "www.bank.example", "login.bank.example", "www.www.bank.example", "notbank.example"]
    assert held(lines, known(["bank.example"])) == {
        "bank.example": ("reference", False),
        "www.bank.example": ("reference", False),
    }
    assert detail("bank.example", known(["a.test", "bank.example"])) == ["named by top, line 2"]


def test_a_name_above_a_reference_is_held_as_subtree_only() -> None:
    reference = known(["a.b.bank.example"])
    assert held(["bank.example", "b.bank.example", "c.bank.example", "x.a.b.bank.example"], reference) == {
        "bank.example": ("reference", True),
        "b.bank.example": ("reference", True),
    }
    assert detail("bank.example", reference) == ["would cover a.b.bank.example, named by top, line 1"]


def test_a_reference_that_is_also_above_another_is_held_whole() -> None:
    assert held(["bank.example"], known(["a.bank.example", "bank.example"])) == {"bank.example": ("reference", False)}


def test_a_public_suffix_inside_a_reference_is_ignored() -> None:
    lines = ["evil.host.example", "www.host.example", "host.example"]
    assert held(lines, known(["host.example", "co.example"])) == {"host.example": ("public-suffix", False)}


def test_a_suffix_by_a_wildcard_inside_a_reference_is_held_like_any_other_name() -> None:
    frame = guard(listed(["cloud.example", "vm1.cloud.example"]), known(["cloud.example"]))
    said = set(frame.select("name", "guard", "subtree_only").rows())
    assert ("cloud.example", "reference", False) in said
    assert ("vm1.cloud.example", "public-suffix", True) in said


def test_a_reference_that_only_informs_holds_nothing() -> None:
    assert held(["bank.example", "192.0.2.1"], known(["bank.example", "192.0.2.0/24"], action="inform")) == {}


def test_a_feed_that_is_no_reference_holds_nothing() -> None:
    feed = Feed(id="list", title="t", url="file:t", category="malware", format="lines")
    frame = parse(b"bank.example\n", feed).frame
    assert held(["bank.example"], references({1: frame}, {1: feed}, SUFFIXES, [], [])) == {}


def test_no_reference_and_no_listing_hold_nothing() -> None:
    assert held([], known()) == {} and held(["evil.example"], known()) == {}
    assert guard(current({}, {}, SUFFIXES), known(["bank.example"], protect=["own.example"])).is_empty()


def test_ancestors_stop_below_the_top_level() -> None:
    frame = ancestors(pl.DataFrame({"name": ["a.b.evil.example", "evil.example"], "why": ["x", "y"]}))
    assert frame["name"].to_list() == ["b.evil.example", "evil.example"]
    assert set(frame["below"]) == {"a.b.evil.example"}


# [protect]


def test_protected_names_are_held_with_all_below_and_above_them_only_the_subtree() -> None:
    lines = ["ministry.gov.test", "a.ministry.gov.test", "gov.test", "other.gov.test", "xministry.gov.test"]
    assert held(lines, known(protect=["ministry.gov.test"])) == {
        "ministry.gov.test": ("protect", False),
        "a.ministry.gov.test": ("protect", False),
        "gov.test": ("protect", True),
    }


def test_a_name_below_one_protected_name_and_above_another_is_held_whole() -> None:
    reference = known(protect=["own.test", "a.b.own.test"])
    assert held(["b.own.test"], reference) == {"b.own.test": ("protect", False)}
    assert held(["b.own.test"], known(protect=["a.b.own.test", "own.test"])) == {"b.own.test": ("protect", False)}


def test_protected_networks_hold_what_overlaps_them() -> None:
    reference = known(networks=["192.0.2.0/24", "2001:db8::/48"])
    lines = ["192.0.2.66", "192.0.0.0/14", "198.51.100.1", "2001:db8::1", "2001:db8:1::/48"]
    assert held(lines, reference) == {"192.0.2.66": ("protect", False), "2001:db8::1": ("protect", False)}
    assert detail("192.0.2.66", reference) == ["overlaps 192.0.2.0/24, named by [protect] of the configuration"]


def test_a_name_that_two_guards_hold_is_one_that_is_held(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("a", ["own.test", "other.example"])
    world.feed("top", ["own.test", "other.example"], category="reference")
    world.set("protect", domains=["own.test"], essential=False)
    assert "· 2 held, 2 new: blocklist held" in world.run("update").out
    assert world.run("held").out.endswith("\n2 held by 3 holds\n")
    assert world.run("held", "list", "--guard", "protect").out.endswith("\n1 held\n")


# Networks


def test_a_range_holds_in_both_directions() -> None:
    reference = known(["203.0.113.0/25", "2001:db8:c::/48"])
    lines = ["203.0.113.7", "203.0.113.0/24", "203.0.113.0/26", "203.0.113.128/25", "2001:db8:c::9", "2001:db8::/32"]
    assert held([*lines, "2001:db8:d::1"], reference) == dict.fromkeys(
        ["203.0.113.7", "203.0.113.0/24", "203.0.113.0/26", "2001:db8:c::9", "2001:db8::/32"], ("reference", False)
    )


def test_a_single_reference_address_holds_itself_but_no_wider_network() -> None:
    reference = known(["198.51.100.53", "2001:db8::53"])
    lines = ["198.51.100.53", "198.51.100.0/24", "198.51.100.54", "2001:db8::53", "2001:db8::/64"]
    assert set(held(lines, reference)) == {"198.51.100.53", "2001:db8::53"}
    # What is not held is subtracted instead.
    assert reference.addresses.height == 2 and reference.ranges.is_empty()


def test_the_detail_names_a_reference_that_really_overlaps() -> None:
    # Of references inside one another, and of single addresses that only lie nearby.
    reference = known(["192.0.2.0/24", "192.0.2.16/28", "192.0.2.53", "192.0.2.200"])
    assert detail("192.0.2.20", reference) == ["overlaps 192.0.2.16/28, named by top, line 2"]
    assert detail("192.0.2.99", reference) == ["overlaps 192.0.2.0/24, named by top, line 1"]
    assert detail("192.0.2.201", reference) == ["overlaps 192.0.2.0/24, named by top, line 1"]
    assert detail("198.51.100.53", known(["198.51.100.53", "192.0.2.0/24"])) == [
        "overlaps 198.51.100.53, named by top, line 1"
    ]


@pytest.mark.parametrize(
    ("network", "is_held"),
    [("16.0.0.0/7", True), ("16.0.0.0/8", False), ("2a00::/18", True), ("2a00::/19", False), ("2a00::/16", True)],
)
def test_a_network_that_is_too_wide_waits_for_a_person(network: str, is_held: bool) -> None:
    assert held([network], known()) == ({network: ("too-wide", False)} if is_held else {})


def test_families_do_not_meet() -> None:
    # The same numbers: ::c000:200/120 would be 192.0.2.0/24.
    assert held(["2001:db8::1"], known(["192.0.2.0/24"])) == {}


def test_several_guards_may_hold_one_name() -> None:
    frame = guard(listed(["co.example"]), known(protect=["own.co.example"]))
    assert frame["guard"].to_list() == ["protect", "public-suffix"]


# Shorter questions


HOSTS = ["evil.example", "www.evil.example", "www.www.evil.example", "a.evil.example", "example", "co.example"]
HOSTS += ["cloud.example", "x.cloud.example", "city.cloud.example", "own.test", "www.own.test", "b.a.own.test"]
AREAS = ["10.0.0.0/8", "12.0.0.0/15", "12.1.0.0/16", "12.1.2.0/24", "12.1.2.3", "12.1.2.255", "120.1.2.3", "1.2.3.4"]
AREAS += ["1.2.3.0/30", "2001:db8::/32", "2001:db8:1::/48", "2001:db8:1::1", "2a00::/19", "::1:0:0/96"]
HALVES = ["1.2.3.0", "1.2.3.1", "1.2.3.2", "1.2.3.3"]
HOSTILE = ["12.1.2.example", "http://12.1.2.3/a", "http://evil.example/b"]


@pytest.mark.parametrize("seed", range(40))
def test_what_is_well_known_is_what_references_and_protect_hold_whole(seed: int) -> None:
    chance = random.Random(seed)
    told = partial(
        known,
        chance.sample(HOSTS + AREAS + HALVES, chance.randint(0, 16)),
        protect=chance.sample(["own.test", "evil.example", "a.own.test"], chance.randint(0, 2)),
        networks=chance.sample(["12.1.2.0/24", "2001:db8::/32", "1.2.3.4"], chance.randint(0, 2)),
    )
    reference = told()
    names = listed(chance.sample(HOSTS + AREAS + HOSTILE, chance.randint(0, 20))).names.select("name", "kind")
    held = over(names, SUFFIXES, reference)
    held = held.filter(pl.col("guard").is_in(["reference", "protect"]), ~pl.col("subtree_only"))
    assert sorted(well_known(names, reference)) == sorted(held["name"])
    # References drawn for these names alone say the same.
    assert sorted(well_known(names, told(near=names))) == sorted(held["name"])


def test_a_network_whose_every_address_is_a_reference_is_well_known_by_those_near_it_too() -> None:
    names = listed(["1.2.3.0/31", "2001:db8::/127", "12.1.2.0/31", "www.evil.example"]).names.select("name", "kind")
    lines = ["1.2.3.0", "1.2.3.1", "2001:db8::", "2001:db8::1", "12.1.2.1", "120.1.2.3", "evil.example", "good.example"]
    near = known(lines, near=names)
    assert sorted(well_known(names, near)) == ["1.2.3.0/31", "2001:db8::/127", "www.evil.example"]
    assert near.domains["name"].to_list() == ["evil.example"]
    assert "120.1.2.3" not in near.networks["cidr"]


@pytest.mark.parametrize("seed", range(40))
def test_what_overlaps_a_changed_range_is_found_wherever_it_stands(seed: int) -> None:
    chance = random.Random(seed)
    frames = [
        listed(chance.sample(HOSTS + AREAS + HOSTILE, chance.randint(0, 25))).names.select("name", "kind")
        for _ in range(3)
    ]
    changed = listed(chance.sample(AREAS, chance.randint(0, 4))).names.select("name", "kind")
    areas = networks.parse(changed["name"]).select("family", "first", "last")
    every = pl.concat(frames).filter(pl.col("kind").is_in([2, 3]))
    met = networks.overlaps(networks.parse(every["name"]), areas.filter(pl.col("first") != pl.col("last")))
    assert sorted(overlapping(frames, changed)) == sorted(every.filter(met)["name"])
