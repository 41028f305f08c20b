"""What text is a domain name, and in which words it is refused otherwise."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocklist.names import Reject, RejectedError, is_local, normalize_name, parents
from blocklist.quantities import parse_duration, parse_size


def refusal(text: str) -> str | None:
    try:
        normalize_name(text)
    except RejectedError as error:
        return error.reason.value
    return None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("evil.example", "evil.example"),
        ("EVIL.Example.", "evil.example"),
        ("_dmarc.evil.example", "_dmarc.evil.example"),
        ("-evil-.example", "-evil-.example"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER。example。", "xn--bcher-kva.example"),
        ("ｅｖｉｌ．example", "evil.example"),
        ("\N{KELVIN SIGN}elvin.example", "kelvin.example"),
        ("faß.example", "xn--fa-hia.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("a" * 63 + ".example", "a" * 63 + ".example"),
    ],
)
def test_a_name_becomes_lower_case_a_labels(text: str, name: str) -> None:
    assert normalize_name(text) == name


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", Reject.SYNTAX),
        (".", Reject.SYNTAX),
        ("evil..example", Reject.SYNTAX),
        (".evil.example", Reject.SYNTAX),
        ("evil.example..", Reject.SYNTAX),
        ("*.evil.example", Reject.SYNTAX),
        ("evil example", Reject.SYNTAX),
        ("evil.example\n", Reject.SYNTAX),
        ('evil.example"', Reject.SYNTAX),
        ("℀.example", Reject.IDN),
        ("evil\x00.example", Reject.SYNTAX),
        ("evil\ufffd.example", Reject.ENCODING),
        ("e\u202evil.example", Reject.IDN),
        ("evil\u00a0.example", Reject.IDN),
        ("localhost", Reject.SINGLE_LABEL),
        ("com", Reject.SINGLE_LABEL),
        ("a" * 64 + ".example", Reject.TOO_LONG),
        ("1.2.3", Reject.LOOKALIKE),
        ("0x7f.1", Reject.LOOKALIKE),
        ("evil.0x1f", Reject.LOOKALIKE),
        ("１２７.０.０.１", Reject.LOOKALIKE),
        ("8.0.0.0.127.rpz-client-ip", Reject.ENGINE_SYNTAX),
        ("evil.example.RPZ-PASSTHRU.", Reject.ENGINE_SYNTAX),
        ("printer.local", Reject.LOCAL_NAME),
        ("1.168.192.in-addr.arpa", Reject.LOCAL_NAME),
        ("home.arpa", Reject.LOCAL_NAME),
    ],
)
def test_what_is_no_name_is_refused_with_its_reason(text: str, reason: Reject) -> None:
    assert refusal(text) == reason


def test_a_name_has_at_most_253_octets_and_a_final_dot_is_not_counted() -> None:
    longest = "a." * 122 + "b.example"
    assert len(longest) == 253
    assert normalize_name(longest + ".") == longest
    assert refusal("a" + longest) == Reject.TOO_LONG


def test_only_a_rule_may_name_a_single_label() -> None:
    assert normalize_name("COM.", allow_single=True) == "com"
    for never in ("rpz-ip", "localhost", "127", "*"):
        with pytest.raises(RejectedError):
            normalize_name(never, allow_single=True)


def test_documentation_names_are_accepted() -> None:
    assert not any(refusal(f"evil.{top}") for top in ("example", "test", "invalid"))


def test_a_local_name_is_local_with_all_below_it_and_none_beside_it() -> None:
    assert is_local("local") and is_local("a.b.local") and is_local("10.in-addr.arpa")
    assert not is_local("notlocal") and not is_local("local.example")


def test_parents_come_nearest_first() -> None:
    assert parents("a.b.example") == ["b.example", "example"]
    assert parents("example") == []


@given(st.text(max_size=300))
def test_whatever_comes_in_a_plain_name_comes_out_that_stays_as_it_is(text: str) -> None:
    try:
        name = normalize_name(text)
    except RejectedError:
        return
    assert re.fullmatch(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})+", name) and len(name) <= 253
    assert normalize_name(name) == name


@pytest.mark.parametrize(("text", "seconds"), [("0", 0), ("90d", 7_776_000), (" 5 m ", 300), ("1y", 31_536_000)])
def test_durations_are_read_as_people_type_them(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(("text", "size"), [("64MB", 64_000_000), ("1 GiB", 2**30), ("5", 5), ("12kb", 12_000)])
def test_sizes_are_read_as_people_type_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "5", "-1d", "1.5h", "d", "٣d", "1 month", "1d 2h"])
def test_what_is_no_duration_is_told_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a duration; write .* such as '90d'"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["", "MB", "64 TB", "1.5GB", "-5", "٣MB"])
def test_what_is_no_size_is_told_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a size; write .* such as '64MB'"):
        parse_size(text)
