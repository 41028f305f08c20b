"""Lines that one look at all of them finds plain mean what they mean when files are read as a whole."""

from __future__ import annotations

from typing import Any, cast

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocklist.catalog import KINDS, Feed, InputFormat
from blocklist.ingest import normalize, plain
from blocklist.ingest.formats import BY_HEAD, BY_LINE, plain_columns
from blocklist.ingest.intake import account_of
from blocklist.ingest.parse import Parsed
from blocklist.special_use import ENGINE_LABELS, LOCAL_NAMES

PLAIN = sorted(BY_HEAD) + sorted(
    name for name in BY_LINE if plain_columns(name, pl.col("line"), InputFormat(name=cast(Any, name)))
)
BODIES = [
    "evil.example",
    "a-b.evil.example",
    "_dmarc.evil.example",
    "EVIL.example",
    "evil.example.",
    "evil.example..",
    ".evil.example",
    "*.evil.example",
    "*evil.example",
    "evil",
    "evil.example:80",
    "evil.1",
    "evil.0x1f",
    "1.2-3",
    "192.0.2.1-3",
    "x" * 63 + ".example",
    "x" * 64 + ".example",
    "x." * 122 + "example",
    "x." * 123 + "example",
    "evil\uff0eexample",
    "b\u00fccher.example",
    "K.example",
    "evil[.]example",
    "evil(.)example",
    "\ufffd.example",
    "evil\0.example",
    "localhost",
    "localhost.localdomain",
    *(f"evil.{name}" for name in sorted(LOCAL_NAMES | ENGINE_LABELS)),
    "192.0.2.1",
    "192.0.2.1.",
    "192.0.2.1/32",
    "192.0.2.0/24",
    "192.0.2.0/24.",
    "192.0.2.1/24",
    "192.0.0.0/16",
    "0.0.0.0/0",
    "192.0.2.01",
    "192.0.2.256",
    "10.0.0.1",
    "0.0.0.0",
    "127.0.0.1",
    "192.0.2.1:443",
    "192.0.2.1-192.0.2.9",
    "::1",
    "2001:db8::1",
    "2001:db8::/32",
    "[2001:db8::1]:443",
    "http://evil.example/x",
    "https://evil.example/x/32",
    "http://evil.example/a(.)b",
    "http://evil.example/a[.]b",
    "http://evil.example/",
    "http://evil.example",
    "http://evil.example/x.",
    "http://evil.example/#x",
    "http://evil.example/?x#y",
    "http://evil.example/?x",
    "http://evil.example/?",
    "http://evil.example/??",
    "http://evil.example/x??%zz",
    "http://evil.local/x",
    "http://evil.example:80/x",
    "HTTP://evil.example/x",
    "hxxp://evil.example/x",
    "http://192.0.2.1/x",
    "http://192.0.2.1",
    "https://192.0.2.1:8443/",
    "http://192.0.2.1:8080/x",
    "http://192.0.2.1:08080/x",
    "http://192.0.2.1:443/x",
    "https://192.0.2.1:443/x",
    "http://192.0.2.01/x",
    "http://192.0.2.1-192.0.2.9",
    "http://127.0.0.1",
    "http://evil.example:65536",
    "http://evil.example:8080/x",
    "http://evil.example:99999/x",
    "http://evil.1/x",
    "http://localhost/",
    "http://10.0.0.1:8080/x",
    "http://evil.example/" + "x" * 300,
    "evil.example/gate.php",
    "//evil.example/x",
    "",
]
AFFIXES = [
    ("", ""),
    ("", "\r"),
    ("\t ", " \f"),
    ("0.0.0.0 ", ""),
    ("127.0.0.1 ", ""),
    ("0.0.0.0 127.0.0.1 ", ""),
    ("0.0.0.0\t", " \t other.example"),
    ("0.0.0.0  ", ""),
    ("0.0.0.0" + " " * 9000, ""),
    ("::1 ", ""),
    ("192.0.2.7 ", ""),
    ("||", "^"),
    ("||", "^|"),
    ("||", ""),
    ("", "^"),
    ("|", "^"),
    ("||", "^$important"),
    ("||", "^$third-party"),
    ("@@||", "^"),
    ("|http://", "^"),
    ("*.", ""),
    (".", ""),
    ("address=/", "/"),
    ("address=/", "/#"),
    ("address=/", "/0.0.0.0"),
    ("address=/", "/192.0.2.1"),
    ("local=/", "/"),
    ("server=/", "/"),
    ("server=/", "/#"),
    ("address=/a.example/", "/"),
    ("address=/", " /#"),
    ('local-zone: "', '" always_null'),
    ('local-zone:\t"', '."\t"static"'),
    ("local-zone: ", " refuse"),
    ('local-zone: "', '" transparent'),
    ('local-zone: "', '"' + " " * 9000 + "static"),
    ('local-data: "', ' A 0.0.0.0"'),
    ("", "\t7"),
    ("", " 7.5 more"),
    ("", "\tx"),
    ("", "\t7 # why"),
    ("", " # why"),
    ("", "\t; why"),
    ("#", ""),
    ("# ", ""),
    ("# Reference: https://report.example/", ""),
    (";", ""),
    ("!", ""),
    ("[", "]"),
    ("//", ""),
    ("##.", ""),
]
LINES = st.builds(lambda body, affix: affix[0] + body + affix[1], st.sampled_from(BODIES), st.sampled_from(AFFIXES))
TEXT = st.builds(
    lambda lines, end: "\n".join(lines).encode() + end, st.lists(LINES, max_size=12), st.sampled_from([b"", b"\n"])
)
FEEDS = st.fixed_dictionaries(
    {},
    optional={
        "scope": st.sampled_from(["subtree", "exact"]),
        "kinds": st.lists(st.sampled_from(KINDS), unique=True, max_size=3),
        "url_hosts": st.booleans(),
    },
)


def one_by_one(source: Feed, format_name: str, text: bytes) -> tuple[Parsed, pl.DataFrame]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain, "_FEW", 0)
        # Every URL is taken apart.
        patch.setattr(normalize, "_PLAIN_LINK", pl.col("text").is_null())
        [found] = plain.read(source, format_name, [text], ())
    return found


@pytest.mark.parametrize("format_name", PLAIN)
@settings(max_examples=40)
@given(
    texts=st.lists(TEXT, min_size=1, max_size=2),
    options=FEEDS,
    ports=st.booleans(),
    kinds=st.sets(st.sampled_from(KINDS)),
)
def test_plain_lines_mean_what_they_mean_among_others(
    format_name: Any, texts: list[bytes], options: dict[str, Any], ports: bool, kinds: set[str]
) -> None:
    spec = InputFormat(name=format_name, ports=ports)
    source = Feed(id="f", title="f", url="file:f", category="malware", format=spec, **options)
    for text, (out, rows) in zip(texts, plain.read(source, format_name, texts, kinds), strict=True):
        theirs, expected = one_by_one(source, format_name, text)
        assert account_of(out) == account_of(theirs)
        assert {reason: sorted(lines) for reason, lines in out.rejects.lines.items()} == {
            reason: sorted(lines) for reason, lines in theirs.rejects.lines.items()
        }
        key = ["name", "line", "subtree"]
        assert rows.sort(key).equals(expected.sort(key)) and rows.schema == expected.schema


@pytest.mark.parametrize("format_name", PLAIN)
@pytest.mark.parametrize("first", range(0, len(BODIES), 8))
def test_every_body_in_every_shape(format_name: Any, first: int) -> None:
    source = Feed(id="f", title="f", url="file:f", category="malware", format=format_name)
    bodies = BODIES[first : first + 8]
    text = "\n".join(before + body + after for body in bodies for before, after in AFFIXES).encode()
    [(out, rows)] = plain.read(source, format_name, [text], KINDS)
    theirs, expected = one_by_one(source, format_name, text)
    assert account_of(out) == account_of(theirs)
    key = ["name", "line", "subtree"]
    assert rows.sort(key).equals(expected.sort(key))


@pytest.mark.parametrize(
    ("format_name", "lines"),
    [
        ("lines", ["evil.example", "192.0.2.1", "http://evil.example/x", "", "# why"]),
        ("hosts", ["evil.example", "0.0.0.0 evil.example", "127.0.0.1 evil.example"]),
        ("adblock", ["||evil.example^", "evil.example", "0.0.0.0 evil.example", "||192.0.2.1^"]),
        ("wildcard", ["*.evil.example", ".evil.example", "evil.example"]),
        (
            "dnsmasq",
            ["address=/evil.example/", "local=/evil.example/", "server=/evil.example/", "address=/evil.example/#"],
        ),
        ("unbound", ['local-zone: "evil.example" static', 'local-zone: "evil.example." always_null']),
        ("scored", ["192.0.2.1\t7", "evil.example 7"]),
        ("urls", ["http://evil.example/x", "evil.example", "192.0.2.1"]),
    ],
)
def test_what_most_lists_hold_is_plain(format_name: Any, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(plain.LineReader, "take")
    source = Feed(id="f", title="f", url="file:f", category="malware", format=format_name)
    [(out, rows)] = plain.read(source, format_name, ["\n".join(lines).encode()], KINDS)
    assert out.lines == len(lines) and rows.height == sum(line != "" and line != "# why" for line in lines)
