"""Reading only the lines that changed gives what reading everything gives."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocklist.catalog import Feed
from blocklist.ingest import change
from blocklist.ingest.intake import account_of, difference
from blocklist.ingest.parse import parse

LINES = st.sampled_from(
    [
        "evil.example",
        "a.evil.example",
        "EVIL.example",
        "evil.example # why",
        "# a comment",
        "#",
        "",
        "  ",
        "not a name",
        "192.0.2.1",
        "192.0.2.1/24",
        "198.51.100.0/24",
        "2001:db8::1",
        "10.0.0.1",
        "0.0.0.0 hosts.example",
        "127.0.0.1 two.example three.example",
        "||rule.example^",
        "||rule.example^$third-party",
        "*.wild.example",
        "bücher.example",
        "x" * 9000,
        "https://evil.example/path",
        "https://evil.example/",
        "com",
        "192.0.2.1-192.0.2.9",
        "192.0.2.64\t192.0.2.127\t26",
        "evil.example/gate.php",
        "198.51.100.7:443",
        'alert dns any any -> any any (dns.query; content:"evil.example"; bsize:12; sid:8;)',
        "@@||rule.example^",
        "##.banner",
        *(f"host{i}.example" for i in range(40)),
    ]
)
FORMATS = [
    "lines",
    "hosts",
    "adblock",
    "wildcard",
    "dnsmasq",
    "unbound",
    "scored",
    "jsonl",
    "urls",
    "maltrail",
    "dshield",
    "suricata",
]


def feed(format_name: str) -> Feed:
    options: Any = {"name": "jsonl", "value": "v"} if format_name == "jsonl" else format_name
    if format_name == "jsonl":
        from blocklist.catalog import InputFormat

        options = InputFormat(**options)
    return Feed(id="f", title="f", url="file:f", category="malware", format=options)


def compare(source: Feed, old: list[str], new: list[str]) -> bool:
    """Was the short way taken? If so it must equal the long one, but for the line."""
    was, now = ("\n".join(lines).encode() + b"\n" for lines in (old, new))
    before = parse(was, source)
    short = change.parse_change(source, was, now, before.frame, account_of(before))
    if short is None:
        return False
    whole = parse(now, source)
    assert account_of(short) == account_of(whole)
    assert short.frame.drop("line").equals(whole.frame.drop("line"))
    assert short.replaced is not None
    rows = [frame.drop("line").sort("name") for frame in difference(*short.replaced)[:2]]
    assert all(
        a.equals(b.drop("line").sort("name"))
        for a, b in zip(rows, difference(before.frame, whole.frame)[:2], strict=True)
    )
    assert short.frame["name"].is_sorted() and short.frame.schema == whole.frame.schema
    return True


@pytest.fixture(autouse=True)
def no_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change, "_WORTH_IT", 0)
    monkeypatch.setattr(change, "_SHARE", 1e9)


@pytest.mark.parametrize("format_name", FORMATS)
@settings(max_examples=120)
@given(old=st.lists(LINES, max_size=30), new=st.lists(LINES, max_size=30))
def test_the_short_way_equals_the_long_one(format_name: str, old: list[str], new: list[str]) -> None:
    compare(feed(format_name), old, new)


@pytest.mark.parametrize("format_name", ["lines", "hosts"])
@given(keep=st.sets(st.integers(0, 80)), more=st.lists(LINES, max_size=6, unique=True))
def test_the_short_way_is_taken_for_ordinary_feeds(format_name: str, keep: set[int], more: list[str]) -> None:
    old = ["# head", *(f"n{i}.example" for i in range(80))]
    new = [line for i, line in enumerate(old) if i in keep] + more
    taken = compare(feed(format_name), old, new)
    if not more:
        assert taken


def test_a_name_on_two_lines_needs_the_long_way() -> None:
    assert not compare(feed("lines"), ["evil.example", "EVIL.example"], ["evil.example"])
    assert not compare(feed("lines"), ["evil.example"], ["evil.example", "EVIL.example"])


def test_a_rule_that_takes_others_back_needs_the_long_way() -> None:
    assert not compare(
        feed("adblock"), ["||evil.example^", "||b.example^"], ["||evil.example^", "||b.example^$badfilter"]
    )


def test_foreign_bytes_need_the_long_way() -> None:
    source, before = feed("lines"), b"evil.example\n"
    parsed = parse(before, source)
    for new in (b"evil.example\n\xff.example\n", b"evil.example\n\0\n", "evil.example\n".encode("utf-16")):
        assert change.parse_change(source, before, new, parsed.frame, account_of(parsed)) is None


def test_the_line_of_what_stays_is_that_of_the_snapshot_that_named_it_first() -> None:
    source = feed("lines")
    was, now = b"evil.example\n", b"new.example\nevil.example\n"
    parsed = parse(was, source)
    short = change.parse_change(source, was, now, parsed.frame, account_of(parsed))
    assert short is not None
    assert dict(short.frame.select("name", "line").iter_rows()) == {"evil.example": 1, "new.example": 1}
    assert isinstance(short.frame, pl.DataFrame)
