"""Networks in columns mean what the standard library means by them."""

import ipaddress
import subprocess
import sys
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from blocklist.select.address import parse_one
from blocklist.select.networks import (
    contains,
    overlaps,
    parse,
    parse_range,
    plain_v4,
    subtract,
    text,
    to_cidrs,
    union,
    within_v4,
    writable_cidrs,
)
from blocklist.special_use import NOT_GLOBAL_V4

SCHEMA = {"family": pl.UInt8, "first": pl.UInt128, "last": pl.UInt128}
TOP = {4: 2**32 - 1, 6: 2**128 - 1}
# Small universes at both ends of each family, where sums wrap, and across the bit that a sign would take.
BASES = [(4, 0), (4, TOP[4] - 63), (6, 0), (6, 2**127 - 32), (6, TOP[6] - 63), (6, 0x20010DB8 << 96)]

Range = tuple[int, int, int]


def frame(ranges: list[Range]) -> pl.DataFrame:
    return pl.DataFrame(ranges, schema=SCHEMA, orient="row")


def members(ranges: list[Range]) -> set[tuple[int, int]]:
    return {(family, value) for family, low, high in ranges for value in range(low, high + 1)}


def fewest(points: set[tuple[int, int]]) -> list[Range]:
    found: list[Range] = []
    for family, value in sorted(points):
        if found and found[-1][0] == family and found[-1][2] + 1 == value:
            found[-1] = (family, found[-1][1], value)
        else:
            found.append((family, value, value))
    return found


@st.composite
def small_range(draw: st.DrawFn) -> Range:
    family, base = draw(st.sampled_from(BASES))
    low, high = sorted((draw(st.integers(0, 63)), draw(st.integers(0, 63))))
    return family, base + low, base + high


ranges = st.lists(small_range(), max_size=12)


@st.composite
def cidr(draw: st.DrawFn) -> str:
    if draw(st.booleans()):
        value, bits = draw(st.integers(0, TOP[4])), 32
        address = str(ipaddress.IPv4Address(value))
    else:
        value = draw(st.one_of(st.integers(0, TOP[6]), st.integers(0, TOP[4]).map(lambda v: v | 0xFFFF << 32)))
        bits, parsed = 128, ipaddress.IPv6Address(value)
        address = draw(st.sampled_from([str(parsed), parsed.exploded, str(parsed).upper()]))
        if value >> 32 in (0, 0xFFFF) and draw(st.booleans()):
            address = ("::ffff:" if value >> 32 else "::") + str(ipaddress.IPv4Address(value & TOP[4]))
    return address + draw(st.one_of(st.just(""), st.integers(0, bits + 2).map(lambda length: f"/{length}")))


# Almost addresses: what people and feeds write, cut and joined at random.
SCRAPS = (
    "0 1 01 10 255 256 0x1 . . . / 8 33 129 : :: ffff FFFF g zz - + _ %eth0 \u0661 192.0.2.1 2001:db8:: 1:2:3:4:5:6:7:8"
)
scraps = st.lists(st.sampled_from([*SCRAPS.split(), " ", "\n"]), max_size=9).map("".join)


@given(st.lists(st.one_of(st.none(), cidr(), scraps, st.text(max_size=12)), max_size=12))
def test_columns_say_what_the_definition_says(lines: list[str | None]) -> None:
    parsed = parse(pl.Series(lines, dtype=pl.String))
    expected = [parse_one(line) if line is not None else None for line in lines]
    assert parsed.schema == {**SCHEMA, "masked": pl.Boolean}
    assert parsed.select("family", "first", "last").rows() == [row or (None,) * 3 for row in expected]
    assert parsed["masked"].is_null().to_list() == [row is None for row in expected]


@given(cidr())
@example("::/0")
@example("0.0.0.0/0")
def test_the_definition_agrees_with_the_standard_library(line: str) -> None:
    try:
        network = ipaddress.ip_network(line, strict=False)
    except ValueError:
        assert parse_one(line) is None
        return
    found = parse_one(line)
    if network.version == 6 and int(ipaddress.ip_interface(line).ip) >> 32 == 0xFFFF:
        if network.prefixlen < 96:
            assert found is None
            return
        quad = ipaddress.IPv4Address(int(network.network_address) & TOP[4])
        network = ipaddress.ip_network((quad, network.prefixlen - 96))
    low, high = int(network.network_address), int(network.broadcast_address)
    assert found == (network.version, low, high)
    row = parse(pl.Series([line]))
    assert text(row).to_list() == [str(network).removesuffix("/32" if network.version == 4 else "/128")]
    address = ipaddress.ip_interface(line).ip
    if address.version == network.version:
        assert row["masked"].to_list() == [int(address) != low]


@pytest.mark.parametrize(
    "line",
    [
        *("010.0.0.1", "10.0.0.01", "0x7f.0.0.1", "127.1", "2130706433", "1.2.3", "1.2.3.4.5", "1..2.3"),
        *("256.0.0.1", "-1.0.0.1", "+1.0.0.1", "1.2.3.4/33", "1.2.3.4/", "1.2.3.4/08", "1.2.3.4/-1"),
        *(
            "1.2.3.4/24/8",
            "1.2.3.4/255.255.255.0",
            " 1.2.3.4",
            "1.2.3.4 ",
            "1.2.3.4\n",
            "1.2.3.4#",
            "1.2.3.4 x",
        ),
        *("1.2.3.0-1.2.3.9", "192.0.2.1:80", "\u0661.2.3.4", "", "/", "/24", ".", ":", ":::", "localhost"),
        *("2001:db8::/129", "2001:db8::/", "2001:db8::/064", "2001:db8::1::", "1:2:3:4:5:6:7", "12345::"),
        *(
            "1:2:3:4:5:6:7:8:9",
            "fe80::1%eth0",
            "[2001:db8::1]",
            "2001:db8::g",
            "::1.2.3",
            "::01.2.3.4",
            "1.2.3.4::",
        ),
        *("::ffff:192.0.2.1/95", "::ffff:192.0.2.1/0", "::ffff:c000:201/64", "zz", "24.zz.db8.2001"),
    ],
)
def test_what_is_not_strictly_an_address_is_none(line: str) -> None:
    assert parse_one(line) is None
    assert parse(pl.Series([line]))["family"].to_list() == [None]


@pytest.mark.parametrize(
    ("line", "canonical", "masked"),
    [
        ("192.0.2.1", "192.0.2.1", False),
        ("192.0.2.1/32", "192.0.2.1", False),
        ("192.0.2.77/24", "192.0.2.0/24", True),
        ("255.255.255.255", "255.255.255.255", False),
        ("1.2.3.4/0", "0.0.0.0/0", True),
        ("2001:DB8:0:0:0:0:0:1", "2001:db8::1", False),
        ("2001:db8::1/32", "2001:db8::/32", True),
        (
            "2001:db8:0:1:1:1:1:1",
            "2001:db8:0:1:1:1:1:1",
            False,
        ),  # RFC 5952 §4.2.2: one zero is not compressed
        ("2001:0:0:1:0:0:0:1", "2001:0:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", False),
        ("::FFFF:c000:0201/120", "192.0.2.0/24", True),
        ("::ffff:0:0/96", "0.0.0.0/0", False),
        ("::192.0.2.1", "::c000:201", False),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", False),
        ("::/0", "::/0", False),
    ],
)
def test_text_is_canonical_and_host_bits_are_masked_and_said(line: str, canonical: str, masked: bool) -> None:
    parsed = parse(pl.Series([line, "no address"]))
    assert text(parsed).to_list() == [canonical, None]
    assert parsed["masked"].to_list() == [masked, None]


def test_ranges_are_two_addresses_of_one_family_in_order() -> None:
    lines = ["192.0.2.1-192.0.2.9", "2001:db8::-2001:db8::f", "192.0.2.9-192.0.2.1", "192.0.2.1-2001:db8::"]
    lines += [
        "192.0.2.0/24-192.0.2.9",
        "192.0.2.1",
        "192.0.2.1 - 192.0.2.9",
        "192.0.2.1-",
        "1.2.3.4-1.2.3.5-1.2.3.6",
    ]
    found = parse_range(pl.Series(lines))
    assert found["family"].to_list() == [4, 6] + [None] * 7
    cidrs = text(to_cidrs(found)).to_list()
    assert cidrs == ["192.0.2.1", "192.0.2.2/31", "192.0.2.4/30", "192.0.2.8/31", "2001:db8::/124"]


@given(ranges)
def test_union_is_the_same_addresses_in_the_fewest_ranges(a: list[Range]) -> None:
    assert union(frame(a)).rows() == fewest(members(a))


@given(ranges, ranges)
def test_subtraction_is_that_of_sets_in_the_fewest_ranges(a: list[Range], b: list[Range]) -> None:
    assert subtract(frame(a), frame(b)).rows() == fewest(members(a) - members(b))


@given(ranges, ranges)
def test_overlap_and_containment_are_those_of_sets(a: list[Range], b: list[Range]) -> None:
    other = members(b)
    assert overlaps(frame(a), frame(b)).to_list() == [bool(members([row]) & other) for row in a]
    assert contains(frame(a), frame(b)).to_list() == [members([row]) <= other for row in a]


@given(ranges)
def test_cidrs_of_a_union_are_those_of_collapse_addresses(a: list[Range]) -> None:
    expected = []
    for family, kind in ((4, ipaddress.IPv4Address), (6, ipaddress.IPv6Address)):
        networks: list[Any] = []
        for _, low, high in (row for row in a if row[0] == family):
            networks += ipaddress.summarize_address_range(kind(low), kind(high))
        expected += [str(n).removesuffix(f"/{n.max_prefixlen}") for n in ipaddress.collapse_addresses(networks)]
    assert text(to_cidrs(union(frame(a)))).to_list() == expected


@given(st.sampled_from([4, 6]), st.data())
def test_any_range_becomes_the_fewest_cidrs(family: int, data: st.DataObject) -> None:
    ends = st.integers(0, TOP[family])
    low, high = sorted((data.draw(ends), data.draw(ends)))
    kind = ipaddress.IPv4Address if family == 4 else ipaddress.IPv6Address
    expected = [
        (family, int(n.network_address), int(n.broadcast_address))
        for n in ipaddress.summarize_address_range(kind(low), kind(high))
    ]
    assert to_cidrs(frame([(family, low, high)])).rows() == expected


def test_the_whole_of_a_family_survives_the_algebra() -> None:
    everything = parse(pl.Series(["0.0.0.0/0", "::/0"]))
    assert text(to_cidrs(union(everything))).to_list() == ["0.0.0.0/0", "::/0"]
    assert subtract(everything, everything).is_empty()
    rest = subtract(everything, parse(pl.Series(["128.0.0.0/1", "8000::/1"])))
    assert text(to_cidrs(rest)).to_list() == ["0.0.0.0/1", "::/1"]
    assert contains(everything, everything).all()


def test_what_is_written_holds_neither_slash_0_nor_mapped_addresses() -> None:
    def written(*cidrs: str) -> list[str]:
        return text(writable_cidrs(union(parse(pl.Series(cidrs))))).to_list()

    assert written("0.0.0.0/1", "128.0.0.0/1", "2001:db8::/32") == ["0.0.0.0/1", "128.0.0.0/1", "2001:db8::/32"]
    assert written("0.0.0.0/1", "192.0.2.0/24", "::/81", "8000::/1") == [
        *("0.0.0.0/1", "192.0.2.0/24"),
        *("::/81", "8000::/1"),
    ]
    mapped = ipaddress.ip_network("::ffff:0:0/96")
    for wide in ("::/1", "::/8", "::/0", "::/80"):
        four, *six = (ipaddress.ip_network(cidr) for cidr in written("192.0.2.0/24", wide))
        assert four.version == 4 and not any(mapped.overlaps(network) for network in six)
        assert list(ipaddress.collapse_addresses([*six, mapped])) == [ipaddress.ip_network(wide)]


def test_rows_that_were_no_address_belong_to_nothing() -> None:
    some = parse(pl.Series(["192.0.2.1", "evil.example", None, "2001:db8::1"]))
    assert overlaps(some, some).to_list() == [True, False, False, True]
    assert contains(some, some).to_list() == [True, False, False, True]
    assert union(some).height == subtract(some, some.clear()).height == to_cidrs(some).height == 2


def test_empty_frames_stay_empty() -> None:
    empty = parse(pl.Series([], dtype=pl.String))
    assert empty.schema == {**SCHEMA, "masked": pl.Boolean}
    for result in (union(empty), subtract(empty, empty), to_cidrs(empty)):
        assert result.schema == SCHEMA and result.is_empty()
    assert text(empty).to_list() == overlaps(empty, empty).to_list() == contains(empty, empty).to_list() == []
    assert parse(pl.Series([None], dtype=pl.Null)).height == 1


def test_the_definition_starts_without_polars() -> None:
    # `why` has 150 ms in all, of which Polars alone would take 187.
    code = "import sys, blocklist.select.address; sys.exit('polars' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@given(st.lists(st.integers(0, 255), min_size=4, max_size=4), st.integers(-1, 33), st.integers(0, 32))
@example([100, 64, 0, 0], 24, 0)
@example([198, 19, 255, 255], -1, 32)
def test_plain_text_is_canonical_and_where_it_lies_is_told_without_numbers(
    octets: list[int], length: int, zeros: int
) -> None:
    value = int.from_bytes(bytes(octets), "big") >> zeros << zeros
    line = str(ipaddress.IPv4Address(value)) + (f"/{length}" if length >= 0 else "")
    parsed = parse_one(line)
    lines = pl.Series([line])
    canonical = parsed is not None and text(parse(lines))[0] == line.removesuffix("/32")
    assert lines.str.contains(plain_v4(24))[0] == (canonical and (length < 0 or length >= 24))
    if canonical:
        cidrs = [*NOT_GLOBAL_V4, "192.0.2.0/24"]
        inside = any(ipaddress.IPv4Address(value) in ipaddress.IPv4Network(cidr) for cidr in cidrs)
        assert lines.str.contains(within_v4(cidrs))[0] == inside
