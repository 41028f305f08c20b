"""Files for nftables and ipset, as text; test_engines loads them into a kernel."""

from __future__ import annotations

import pytest
from engines.lists import rendered, select

from blocklist.errors import ConfigError, ReleaseError

NETWORKS = [
    ("192.0.2.0/24", "inbound"),
    ("198.51.100.7", "outbound"),
    ("203.0.113.0/24", "both"),
    ("2001:db8:bad::/48", "outbound"),
]


def test_the_table_is_replaced_in_one_transaction() -> None:
    text = rendered("nftables", select({}, NETWORKS), table="bad")[0].decode()
    assert text.splitlines()[1:4] == ["table inet bad", "delete table inet bad", "table inet bad {"]
    assert text.count("{") == text.count("}")


def test_what_another_direction_covers_is_written_once() -> None:
    overlapping = [("192.0.2.0/25", "inbound"), ("192.0.2.0/24", "both"), ("192.0.2.0/24", "outbound")]
    text, account = rendered("nftables", select({}, overlapping))
    assert text.count(b"192.0.2.0/24,") == 2 and b"/25" not in text and account.entries == 2


def test_bits_behind_the_prefix_are_refused_where_networks_meet() -> None:
    with pytest.raises(ReleaseError, match="has host bits set"):
        rendered("nftables", select({}, [("192.0.2.1/24", "inbound"), ("198.51.100.1", "both")]))


def test_an_empty_set_has_no_elements_line_and_exists() -> None:
    text, account = rendered("nftables", select({}))
    assert b"elements" not in text and text.count(b"\tset ") == 4 and account.entries == 0


def test_inbound_matches_the_source_of_new_connections_and_outbound_the_destination() -> None:
    lines = rendered("nftables", select({}, NETWORKS))[0].decode().splitlines()
    rules = [line.strip() for line in lines if "@" in line]
    for rule in rules:
        inbound = "saddr" in rule
        assert inbound == rule.startswith("ct state new ")
        assert ("@outbound" not in rule) if inbound else ("@inbound" not in rule)
    chains = [line.split()[1] for line in lines if line.startswith("\tchain ")]
    assert chains == ["input", "forward", "output"]


def test_reject_and_no_counter() -> None:
    text = rendered("nftables", select({}, NETWORKS), action="reject", counter=False)[0].decode()
    assert "ip saddr @inbound4 reject with icmpx admin-prohibited\n" in text and "counter" not in text


def test_without_chains_the_table_is_never_deleted() -> None:
    text = rendered("nftables", select({}, NETWORKS), chains=False)[0].decode()
    assert "delete" not in text and "chain" not in text
    assert text.count("flush set inet blocklist ") == 4
    assert "add element inet blocklist inbound4 {\n\t192.0.2.0/24,\n\t203.0.113.0/24,\n}\n" in text


@pytest.mark.parametrize("name", ["a; flush ruleset", "a}", "", "A", "9", "x" * 32, 'a"', "a\n"])
def test_the_name_of_a_table_or_set_is_no_syntax(name: str) -> None:
    with pytest.raises(ConfigError, match=r"options\.table"):
        rendered("nftables", select({}), table=name)
    with pytest.raises(ConfigError, match=r"options\.prefix"):
        rendered("ipset", select({}), prefix=name)


def test_ipset_fills_a_second_set_and_swaps() -> None:
    text, account = rendered("ipset", select({}, NETWORKS))
    lines = text.decode().splitlines()
    start = lines.index("flush blocklist-outbound6-new")
    assert lines[start - 2 : start] == [
        f"create blocklist-outbound6{new} hash:net family inet6 hashsize 1024 maxelem 1048576 -exist"
        for new in ("", "-new")
    ]
    assert lines[start + 1 : start + 4] == [
        "add blocklist-outbound6-new 2001:db8:bad::/48",
        "swap blocklist-outbound6 blocklist-outbound6-new",
        "destroy blocklist-outbound6-new",
    ]
    assert account.entries == 5


def test_set_names_stay_within_31_characters() -> None:
    text = rendered("ipset", select({}, NETWORKS), prefix="p" * 17)[0].decode()
    assert max(len(line.split()[1]) for line in text.splitlines() if line.startswith("create")) <= 31


def test_more_networks_than_maxelem_are_refused_not_cut() -> None:
    many = [(f"192.{index >> 8}.{index & 255}.0/24", "inbound") for index in range(1025)]
    with pytest.raises(ReleaseError, match=r"blocklist-inbound4: 1,025 networks are more than maxelem = 1,024"):
        rendered("ipset", select({}, many), maxelem=1024)
    text, _ = rendered("ipset", select({}, many))
    assert b"create blocklist-inbound4 hash:net family inet hashsize 2048 " in text


def test_bare_lines_have_no_overlap_between_directions() -> None:
    networks = [("192.0.2.0/24", "both"), ("192.0.2.0/25", "inbound"), ("192.0.2.0/24", "outbound")]
    networks += [("2001:db8::1", "inbound"), ("2001:db8::/32", "both"), ("198.51.100.1", "inbound")]
    assert rendered("cidr", select({}, networks))[0] == b"192.0.2.0/24\n198.51.100.1\n2001:db8::/32\n"
    only = rendered("cidr", select({}, networks), direction="outbound")[0]
    assert only == b"192.0.2.0/24\n2001:db8::/32\n"
