"""Reading only the lines that changed gives what reading everything gives."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from blocklist import hunks
from blocklist.catalog import Feed, InputFormat
from blocklist.ingest import change
from blocklist.ingest.change import difference
from blocklist.ingest.intake import account_of
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
        # One name said in several ways: more or less sure, with and without what is below, with other overrides.
        "192.0.2.1\t3",
        "192.0.2.1\t9",
        "192.0.2.1 9",
        "evil.example\t5",
        "0.0.0.0 evil.example",
        "||evil.example^",
        "|https://evil.example|",
        "address=/evil.example/",
        'local-zone: "evil.example" always_nxdomain',
        *(f'{{"v": "evil.example"{more}}}' for more in ("", ', "c": 90', ', "c": 90.0', ', "c": 10', ', "r": "why"')),
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
    "sure",
    "jsonl",
    "urls",
    "dshield",
    "suricata",
]


def feed(format_name: str) -> Feed:
    options: Any = format_name
    if format_name == "jsonl":
        options = InputFormat(name="jsonl", value="v", confidence="c", reason="r")
    if format_name == "sure":
        options = InputFormat(name="scored", confidence=2)
    return Feed(id="f", title="f", url="file:f", category="malware", format=options)


def compare(source: Feed, old: list[str], new: list[str]) -> bool:
    """Was the short way taken? If so it must equal the long one, but for the line."""
    was, now = ("\n".join(lines).encode() + b"\n" for lines in (old, new))
    before = parse(was, source)
    changed = hunks.hunks(was, now)
    if changed is None:
        return False
    short = change.parse_change(source, was, now, changed, before.frame, before.repeated, account_of(before))
    if short is None:
        return False
    whole = parse(now, source)
    assert account_of(short) == account_of(whole)
    assert short.frame.drop("line").equals(whole.frame.drop("line"))
    assert short.difference is not None
    for ours, theirs in zip(short.difference[:2], difference(before.frame, whole.frame)[:2], strict=True):
        assert ours.drop("line").equals(theirs.drop("line"))
    if whole.repeated is None:
        assert short.repeated is None
    else:
        key = list(whole.repeated.columns)
        assert short.repeated is not None and short.repeated.sort(key).equals(whole.repeated.sort(key))
    assert short.frame["name"].is_sorted() and short.frame.schema == whole.frame.schema
    return True


@pytest.fixture(autouse=True)
def no_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change, "_WORTH_IT", 0)
    monkeypatch.setattr(hunks, "SHARE", 1e9)


@pytest.mark.parametrize("format_name", FORMATS)
@settings(max_examples=120)
@given(old=st.lists(LINES, max_size=30), new=st.lists(LINES, max_size=30))
@example(old=["192.0.2.1\t3"], new=["evil.example\t5", "192.0.2.1\t3"])
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


@given(
    old=st.lists(st.sampled_from(["a.example", "A.example", "a.example.", "b.example", "# a.example"]), max_size=12),
    new=st.lists(st.sampled_from(["a.example", "A.example", "a.example.", "b.example", "# a.example"]), max_size=12),
)
def test_names_on_several_lines_are_counted_and_need_no_long_way(old: list[str], new: list[str]) -> None:
    assert compare(feed("lines"), old, new)


def test_a_rule_that_takes_others_back_needs_the_long_way() -> None:
    assert not compare(
        feed("adblock"), ["||evil.example^", "||b.example^"], ["||evil.example^", "||b.example^$badfilter"]
    )


def test_a_name_stays_until_its_last_line_is_gone() -> None:
    source = feed("lines")
    parsed = parse(b"evil.example\nother.example\nEVIL.example\n", source)
    was, step = b"evil.example\nother.example\nEVIL.example\n", parsed
    for now, left in ((b"other.example\nEVIL.example\n", True), (b"other.example\n", False)):
        changed = hunks.hunks(was, now)
        assert changed is not None
        short = change.parse_change(source, was, now, changed, step.frame, step.repeated, account_of(step))
        assert short is not None
        assert ("evil.example" in short.frame["name"]) is left
        was, step = now, short
    assert step.repeated is None


def test_where_the_order_of_lines_decides_those_of_the_name_are_looked_for() -> None:
    old = ['{"v": "evil.example", "r": "one"}', '{"v": "other.example"}']
    assert compare(feed("jsonl"), old, [*old, '{"v": "new.example", "r": "two"}'])
    assert compare(feed("jsonl"), old, ['{"v": "evil.example", "r": "two"}', *old])
    assert compare(feed("jsonl"), old, [*old, '{"v": "evil.example", "r": "two"}'])
    three = [*old, '{"v": "evil.example", "r": "two"}', '{"v": "evil.example", "r": "three"}']
    assert compare(feed("jsonl"), three, three[1:])


def test_a_row_that_only_a_shared_line_says_now_is_looked_for() -> None:
    old = ['{"v": "evil.example", "c": 60}', '{"v": "evil.example", "c": 90}', '{"v": "other.example"}']
    assert compare(feed("jsonl"), old, old[:1] + old[2:])
    assert compare(feed("jsonl"), old, [*old, '{"v": "evil.example", "c": 95}'])


def test_a_name_that_is_written_in_another_way_needs_the_long_way() -> None:
    old = ['{"v": "EVIL.example", "r": "one"}', '{"v": "other.example"}']
    assert not compare(feed("jsonl"), old, ['{"v": "evil.example", "r": "two"}', *old])


@pytest.mark.parametrize("limit", ["_MOST_SEARCHED", "_MOST_FOUND"])
def test_lines_that_are_long_to_find_need_the_long_way(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change, limit, 1)
    old = ['{"v": "evil.example", "r": "one"}', '{"v": "other.example"}']
    assert not compare(feed("jsonl"), old, ['{"v": "evil.example", "r": "two"}', *old])


HEADED = st.sampled_from(
    [
        *(f"# Reference: https://report.example/{i}" for i in range(4)),
        "\t# Reference: https://report.example/5",
        "# Note: no reference",
        "#",
        "",
        " \t",
        "evil.example",
        "EVIL.example",
        "evil.example # Reference: https://report.example/no",
        "evil.example:8080",
        "other.example/gate.php#part",
        "/gate.php",
        "192.0.2.1:443",
        "# " + "x" * 9000,
        "y" * 3000,
        *(f"trail{i}.example" for i in range(8)),
    ]
)


@settings(max_examples=400)
@given(
    shared=st.lists(st.lists(HEADED, max_size=6), min_size=1, max_size=6),
    edits=st.lists(st.tuples(st.lists(HEADED, max_size=3), st.lists(HEADED, max_size=3)), max_size=6),
)
@example(
    # A line that came parts what follows from the comments above, whose reference was the first.
    shared=[["# Reference: https://report.example/1"], ["# Reference: https://report.example/2", "b.example"]],
    edits=[([], ["a.example"])],
)
@example(
    shared=[["#", "a.example"], [], ["# Reference: https://report.example/2", "b.example", "c.example"]],
    edits=[([""], []), (["d.example"], ["e.example"])],
)
def test_lines_below_comments_keep_what_those_say(
    shared: list[list[str]], edits: list[tuple[list[str], list[str]]]
) -> None:
    old, new = list(shared[0]), list(shared[0])
    for lines, (was, now) in zip(shared[1:], edits, strict=False):
        old += was + lines
        new += now + lines
    compare(feed("maltrail"), old, new)


def test_the_short_way_is_taken_for_lists_under_comments() -> None:
    old = [
        line
        for i in range(40)
        for line in (f"# Reference: https://report.example/{i}", "", *(f"n{i}x{j}.example" for j in range(9)))
    ]
    for new in (
        [line for line in old if line != "n7x3.example"],
        ["n7x3.test" if line == "n7x3.example" else line for line in old],
        [*old[:44], "# Reference: https://report.example/new", "new.example", "", *old[44:]],
        [line.replace("report.example/7", "report.example/seven") for line in old],
        [*old, "n7x3.example"],
        [line for line in old if not line.startswith("n7x")],
    ):
        assert compare(feed("maltrail"), old, new)


def test_occurrences_that_are_not_known_need_the_long_way() -> None:
    source, old, new = feed("lines"), b"evil.example\nEVIL.example\n", b"evil.example\n"
    parsed, changed = parse(old, source), hunks.hunks(old, new)
    assert changed is not None
    assert change.parse_change(source, old, new, changed, parsed.frame, None, account_of(parsed)) is None


@pytest.mark.parametrize("more", [b"\xff.example", b"\0", "b\u00fccher.example".encode(), b"\r", b"x\xc3"])
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_foreign_bytes_in_some_lines_are_no_matter(more: bytes, end: bytes) -> None:
    source = feed("lines")
    for old, new in (
        (b"evil.example\n", b"evil.example\n" + more + end),
        (more + b"\nevil.example" + end, b"\n" + more),
    ):
        parsed, whole, changed = parse(old, source), parse(new, source), hunks.hunks(old, new)
        assert changed is not None
        short = change.parse_change(source, old, new, changed, parsed.frame, parsed.repeated, account_of(parsed))
        assert short is not None
        assert account_of(short) == account_of(whole)
        assert short.frame.drop("line").equals(whole.frame.drop("line"))


def test_what_is_decoded_as_a_whole_needs_the_long_way() -> None:
    source, before = feed("lines"), b"evil.example\n"
    parsed = parse(before, source)
    for new in ("evil.example\nevil.example\n".encode("utf-16"), b"\xef\xbb\xbfevil.example\n"):
        changed = hunks.hunks(before, new)
        assert changed is not None
        assert change.parse_change(source, before, new, changed, parsed.frame, None, account_of(parsed)) is None


def test_the_line_of_what_stays_is_that_of_the_snapshot_that_named_it_first() -> None:
    source = feed("lines")
    was, now = b"evil.example\n", b"new.example\nevil.example\nEVIL.example\n"
    parsed, changed = parse(was, source), hunks.hunks(was, now)
    assert changed is not None
    short = change.parse_change(source, was, now, changed, parsed.frame, None, account_of(parsed))
    assert short is not None
    assert dict(short.frame.select("name", "line").iter_rows()) == {"evil.example": 1, "new.example": 1}


def test_the_line_of_what_changed_is_one_of_the_new_snapshot() -> None:
    source = feed("jsonl")
    was = b'{"v": "evil.example", "c": 60}\n'
    now = b'{"v": "new.example"}\n' + was + b'\n{"v": "evil.example", "c": 90}\n'
    parsed, changed = parse(was, source), hunks.hunks(was, now)
    assert changed is not None
    short = change.parse_change(source, was, now, changed, parsed.frame, None, account_of(parsed))
    assert short is not None
    assert dict(short.frame.select("name", "line").iter_rows()) == {"evil.example": 4, "new.example": 1}
