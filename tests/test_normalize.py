"""The normaliser in columns says of every text what the definition for one value says."""

from __future__ import annotations

import re
import string

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from blocklist.audit import network_text, recognise
from blocklist.catalog import Feed, InputFormat
from blocklist.errors import IndicatorError
from blocklist.ingest.normalize import KINDS, Normalized, normalize, unique
from blocklist.names import Reject, RejectedError, normalize_name
from blocklist.select.address import parse_one
from blocklist.special_use import NOT_GLOBAL_V4, NOT_GLOBAL_V6

FEED = Feed(id="test", title="t", url="file:t", category="malware")
NOT_GLOBAL = [parse_one(network) for network in (*NOT_GLOBAL_V4, *NOT_GLOBAL_V6)]
# What is judged as an address and not as a name: digits and dots, or hexadecimal digits around a colon.
ADDRESS = re.compile(r"[0-9.]+(/[0-9]*)?|[0-9a-fA-F.]*:[0-9a-fA-F:.]*(%[^/\n]*)?(/[0-9]*)?")
WITH_PORT = re.compile(r"[0-9A-Za-z._-]+:[0-9]{1,5}")


def columns(texts: list[str], feed: Feed = FEED) -> Normalized:
    rows = pl.DataFrame(
        {"number": range(1, len(texts) + 1), "text": texts}, schema={"number": pl.UInt32, "text": pl.String}
    )
    return normalize(rows, feed, "lines")


def judged(texts: list[str]) -> tuple[dict[int, tuple[str, str]], dict[Reject, int]]:
    out = columns(texts)
    found = {line: (KINDS[kind - 1], name) for line, kind, name in out.frame.select("line", "kind", "name").rows()}
    return found, out.rejects


def define(text: str) -> tuple[str, str] | Reject:
    """One text by the definitions alone."""
    if "\ufffd" in text:
        return Reject.ENCODING
    if ADDRESS.fullmatch(text):
        return define_address(text)
    if "://" in text:
        return define_url(text)
    if "/" in text:
        return Reject.UNSUPPORTED
    if WITH_PORT.fullmatch(text):
        return Reject.UNSUPPORTED
    try:
        return "domain", normalize_name(text)
    except RejectedError as error:
        return error.reason


def define_address(text: str) -> tuple[str, str] | Reject:
    parsed = parse_one(text)
    if parsed is None:
        return Reject.UNSUPPORTED if WITH_PORT.fullmatch(text) else Reject.BAD_ADDRESS
    family, first, last = parsed
    if text.endswith("/0") or (last - first == 2**32 - 1 and family == 4):
        return Reject.WHOLE_INTERNET
    if any(f == family and first <= high and low <= last for f, low, high in filter(None, NOT_GLOBAL)):
        return Reject.NOT_GLOBAL
    return ("ipv4" if family == 4 else "ipv6"), network_text(family, first, last)


def define_url(text: str) -> tuple[str, str] | Reject:
    try:
        thing = recognise(text)
    except IndicatorError:
        return Reject.BAD_URL
    if thing.kind != "url":
        return define(thing.name)
    return Reject.BAD_URL if isinstance(define(thing.host or ""), Reject) else ("url", thing.name)


def check(texts: list[str], *, reasons: bool = True) -> None:
    found, rejects = judged(texts)
    expected: dict[Reject, int] = {}
    for line, text in enumerate(texts, start=1):
        answer = define(text)
        if isinstance(answer, Reject):
            assert line not in found, (text, answer)
            expected[answer] = expected.get(answer, 0) + 1
        else:
            assert found.get(line) == answer, text
    assert rejects == expected if reasons else sum(rejects.values()) == sum(expected.values())


LABEL = string.ascii_letters + string.digits + "-_"
labels = st.one_of(
    st.text(LABEL, min_size=1, max_size=8),
    st.sampled_from(
        [
            "",
            "a" * 63,
            "a" * 64,
            "xn--bcher-kva",
            "xn--",
            "xn--ü",
            "0x7f",
            "0X",
            "017",
            "255",
            "256",
            "999",
            "K",
            "bücher",
            "faß",
            "ı",
            "１２７",
            "٣",
            "ǅ",
            "℀",
            "a\u200db",
            "a\u202eb",
            "́",
            "*",
            "local",
            "LOCALHOST",
            "arpa",
            "home",
            "lan",
            "rpz-ip",
            "RPZ-passthru",
            "com",
            "example",
            "🦠",
            "�",
            "\x00",
            "\x1b[31m",
            " ",
            "\xa0",
            "\t",
            "a b",
            "evil\r",
            "\u2028",
            "$INCLUDE",
            "@",
            '"',
            ";",
            "{",
            "\\",
        ]
    ),
    st.text(max_size=4),
)
dots = st.sampled_from([".", ".", ".", ".", "..", "。", "．"])
ugly_names = st.builds(
    lambda parts, dot, end: dot.join(parts) + end,
    st.lists(labels, min_size=1, max_size=5),
    dots,
    st.sampled_from(["", "", "", ".", "..", "。", ":80", ":"]),
)
long_names = st.builds(
    lambda total, end: ("a." * 150)[: total - 8] + ".example"[-8:] + end,
    st.integers(250, 256),
    st.sampled_from(["", "."]),
)


@settings(max_examples=300)
@given(st.lists(st.one_of(ugly_names, long_names), min_size=1, max_size=20))
@example(["\N{KELVIN SIGN}.example", "xn--a\u00fc.example", "a" * 64 + ".1", "printer.local.", "rpz-ip", "b.rpz-ip"])
def test_names_in_columns_equal_the_definition_with_its_reasons(texts: list[str]) -> None:
    check([text for text in texts if "/" not in text])


numbers = st.one_of(
    st.integers(0, 300).map(str), st.sampled_from(["0", "00", "010", "0x10", "0377", "4294967295", "", "１"])
)
prefixes = st.one_of(
    st.just(""), st.integers(0, 130).map(lambda n: f"/{n}"), st.sampled_from(["/", "/08", "/-1", "/0", "/1/2"])
)
v4 = st.builds(
    lambda parts, end: ".".join(parts) + end,
    st.one_of(
        st.lists(st.integers(0, 255).map(str), min_size=4, max_size=4), st.lists(numbers, min_size=1, max_size=5)
    ),
    st.one_of(prefixes, st.sampled_from([":80", ":99999", ":", "%eth0", "."])),
)
v6 = st.one_of(
    st.builds(
        lambda first, rest, end: f"{first}:{rest}{end}",
        st.sampled_from(["2001:db8", "2a00:1450", "3fff", "fe80:", "fc00", "2002", "::ffff", "64:ff9b", "", "2A00"]),
        st.text("0123456789abcdefABCDEF:.", max_size=14),
        st.one_of(prefixes, st.sampled_from(["%eth0", "%1/64", "]"])),
    ),
    st.builds(lambda n, end: network_text(6, n, n) + end, st.integers(0, 2**128 - 1), prefixes),
    st.builds(lambda n, end: f"::ffff:{network_text(4, n, n)}{end}", st.integers(0, 2**32 - 1), prefixes),
)


@settings(max_examples=300)
@given(st.lists(st.one_of(v4, v6), min_size=1, max_size=20))
@example(["0.0.0.0/0", "::/0", "::ffff:0.0.0.0/96", "::ffff:1.2.3.4/95", "203.0.113.7/24", "3fff::1", "2002::1"])
@example([f"{host}.0.2.{end}/{n}" for host in ("192", "127", "8") for end in (0, 1, 128, 255) for n in range(22, 34)])
@example([f"{a}.{b}.0.0/{n}" for a, b in ((100, 63), (100, 64), (172, 32), (198, 16)) for n in (8, 9, 15, 16, 23, 24)])
@example(["192.0.2.1:8080", "bad.cafe:80", "8.0.0.0/6", "2000::/3", "127.1", "0x7f.0.0.1", "fe80::1%eth0/64"])
def test_addresses_in_columns_equal_the_definition_and_the_special_use_tables(texts: list[str]) -> None:
    check(texts)


hosts = st.one_of(
    st.sampled_from(["evil.example", "EVIL.Example.", "bücher.example", "192.0.2.7", "192.0.2.7.", "127.0.0.1", ""])
    | st.sampled_from(
        ["[2001:DB8:0::1]", "[::ffff:192.0.2.1]", "[::1]", "[fe80::1%25eth0]", "0x7f.1", "com", "a.local"]
    )
    | st.sampled_from(["user@evil.example", "u:p@evil.example", "a@b@evil.example", "evil.example\\@good.example"]),
    ugly_names.filter(lambda name: "/" not in name and "?" not in name),
)
urls = st.builds(
    "{}://{}{}{}".format,
    st.sampled_from(["http", "HTTPS", "ftp", "hxxp", "hxxps", "ssh", "javascript", "file", "h ttp", "http:"]),
    hosts,
    st.sampled_from(["", "", ":", ":80", ":443", ":0443", ":8080", ":00080", ":65535", ":65536", ":99999", ":x"]),
    st.one_of(
        st.sampled_from(
            ["", "/", "/?", "/#", "#", "?", "/a", "/a?b=c#d", "#frag", "?q=1", "//", "/%41", "/%4", "/%zz"]
        ),
        st.text(string.printable + "é\u202e", max_size=8).map(lambda rest: "/" + rest),
    ),
)


@settings(max_examples=400)
@given(st.lists(urls, min_size=1, max_size=20))
# Polars 2.1 panicked on these: rows of names beyond ASCII, of addresses and of ports, in pieces.
@example(
    ["https://evil.example。/J", "http://192.0.2.7:80/n", "ftp://[::ffff:192.0.2.1]:8080/%41", "ftp://a@b@c.example/I"]
)
@example([f"http://{('a.' * 150)[: n - 8]}.example/x" for n in range(251, 256)])
@example([f"https://{host}/x" for host in ("a.local", "local", "a.rpz-ip", "home.arpa", "x.1a", "x.0x7f", "a_b.c-")])
@example([f"http://{host}:8080/x" for host in ("a.local", "local", "home.arpa", "10.0.0.1", "127.0.0.1", "192.0.2.1")])
@example([f"http://{'a' * n}.example/x" for n in (63, 64)] + [f"http://a.{'b' * n}/x" for n in (63, 64)])
@example(["http://evil.example/?x", "http://evil.example/?", "https://evil.example/x#y", "http://evil.example./x"])
@example(["http://evil.example:80/a", "https://evil.example:80/a", "hxxp://evil.example:080/a", "http://1.1.1.1/#x"])
def test_urls_in_columns_equal_what_why_recognises(texts: list[str]) -> None:
    # A URL that stands for its host is refused with the host's reason, another one as a bad URL.
    check([text for text in texts if text == text.strip()], reasons=False)


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("https://Evil.Example:443/Path?Q=1#frag", "url", "//evil.example/Path?Q=1"),
        ("hxxp://evil.example:8080/x", "url", "//evil.example:8080/x"),
        ("http://user:pw@evil.example/x", "url", "//evil.example/x"),
        ("http://evil.example?x=1", "url", "//evil.example/?x=1"),
        ("http://[2001:DB8:0::1]:80/x", "url", "//[2001:db8::1]/x"),
        ("http://bücher.example/x", "url", "//xn--bcher-kva.example/x"),
        ("http://evil.example:8080/", "domain", "evil.example"),
        ("http://evil.example/?#", "domain", "evil.example"),
        ("http://evil.example/#/login", "url", "//evil.example/"),
        ("http://192.0.2.1", "ipv4", "192.0.2.1"),
    ],
)
def test_a_url_stands_for_its_host_only_when_nothing_comes_after_it(text: str, kind: str, name: str) -> None:
    found, _ = judged([text])
    assert found[1] == (kind, name)
    assert (recognise(text).kind, recognise(text).name) == (kind, name)


def test_url_hosts_turns_urls_with_paths_into_hosts() -> None:
    feed = Feed(title="t", url="file:t", category="phishing", url_hosts=True)
    out = columns(["http://evil.example/a/b", "http://192.0.2.9/x", "http://127.0.0.1/x"], feed)
    assert sorted(out.frame["name"]) == ["192.0.2.9", "evil.example"]
    assert out.rejects == {Reject.NOT_GLOBAL: 1}


def test_kinds_of_a_feed_leave_out_and_count_the_others() -> None:
    feed = Feed(title="t", url="file:t", category="malware", kinds=["ipv4"])
    out = columns(["192.0.2.1", "evil.example"], feed)
    assert out.frame["name"].to_list() == ["192.0.2.1"] and out.rejects == {Reject.UNWANTED_KIND: 1}


def test_masked_host_bits_are_counted() -> None:
    out = columns(["192.0.2.7/24", "198.51.100.0/24", "2001:db8::1/32"])
    assert out.masked == 2
    assert sorted(out.frame["name"]) == ["192.0.2.0/24", "198.51.100.0/24", "2001:db8::/32"]


def test_duplicates_keep_the_first_line_the_widest_scope_and_the_highest_confidence() -> None:
    rows = pl.DataFrame(
        [
            ("a.example", 3, False, 30, None),
            ("A.example.", 1, True, None, "x"),
            ("b.example", 2, False, 70, "y"),
            ("b.example", 4, False, None, "z"),
            ("c.example", 5, False, None, None),
        ],
        schema={
            "text": pl.String,
            "number": pl.UInt32,
            "subtree": pl.Boolean,
            "confidence": pl.UInt8,
            "reason": pl.String,
        },
        orient="row",
    )
    frame, repeated = unique(normalize(rows, FEED, "csv").frame, FEED.confidence)
    # A row without a confidence has the feed's, which is 50.
    assert frame.drop("kind").rows() == [
        ("a.example", True, 1, None, '{"reason":"x"}'),
        ("b.example", False, 2, 70, '{"reason":"y"}'),
        ("c.example", False, 5, None, None),
    ]
    assert repeated["line"].to_list() == [1, 3, 2, 4]


def test_a_category_that_is_none_leaves_the_feeds() -> None:
    rows = pl.DataFrame({"text": ["a.example", "b.example"], "number": [1, 2], "category": ["Phishing", "no such"]})
    frame = normalize(rows.cast({"number": pl.UInt32}), FEED, "csv").frame
    assert frame["extra"].to_list() == ['{"category":"phishing"}', None]


def test_the_scope_of_a_feed_outranks_that_of_its_format() -> None:
    feed = Feed(title="t", url="file:t", category="malware", scope="subtree", format=InputFormat(name="lines"))
    assert columns(["evil.example", "192.0.2.1"], feed).frame["subtree"].to_list() == [True, False]


@pytest.mark.parametrize("order", [("192.0.2.1-3", "evil.example"), ("evil.example", "192.0.2.1-3")])
def test_what_looks_like_a_range_is_no_name_wherever_it_stands(order: tuple[str, str]) -> None:
    done = normalize(pl.DataFrame({"number": [1, 2], "text": order}), FEED, "lines")
    assert done.frame["name"].to_list() == ["evil.example"]
    assert done.rejects == {Reject.BAD_ADDRESS: 1}
    with pytest.raises(RejectedError):
        normalize_name("192.0.2.1-3")
