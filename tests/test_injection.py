"""Hostile text against every format: it is refused or counted, and no byte of it is in any export."""

from __future__ import annotations

import csv
import io
import json
import random
import re

import polars as pl
import pytest
from engines.lists import entries, rendered, select
from test_hostile import variants

from blocklist.errors import ConfigError, ReleaseError
from blocklist.ingest.parse import parse
from blocklist.publish import descriptor, sample
from blocklist.publish.gate import require_safe, writable_urls
from blocklist.publish.render import render
from blocklist.publish.selection import Selection

FORMATS = descriptor.builtin()
LINES = {name: fmt for name, fmt in FORMATS.items() if not fmt.of_rows}
ROWS = sorted(name for name, fmt in FORMATS.items() if fmt.of_rows)
WITH_NAMES = sorted(name for name, fmt in LINES.items() if "domain" in fmt.kinds)
WITH_URLS = sorted(name for name, fmt in LINES.items() if "url" in fmt.kinds)
WITH_NETWORKS = sorted(name for name, fmt in LINES.items() if {"ipv4", "ipv6"} & set(fmt.kinds))
# Letters that no name may hold; each is syntax to some engine.
SYNTAX = "\n\r\t\0\x1b\x7f \"'`;:,()[]{}<>|\\/#$%^&*@!?=+~é\u202e"
NAMES = [*("$INCLUDE /etc/passwd", "*", "*.com", "a\nflush ruleset", "x.rpz-passthru", "a..b", ".a", "a.")]


def hostile_names(count: int) -> list[str]:
    chance = random.Random(29)
    made = []
    for _ in range(count):
        name = list("evil" + str(chance.randrange(10**6)) + ".example")
        for _ in range(chance.randint(1, 4)):
            name.insert(chance.randrange(len(name) + 1), chance.choice(SYNTAX))
        made.append("".join(name))
    return NAMES + made


@pytest.mark.parametrize("name", WITH_NAMES)
def test_no_hostile_name_reaches_a_file(name: str) -> None:
    fmt = FORMATS[name]
    # A name that an option of the format could be mistaken for, or that is a placeholder, is no template either.
    bad_names = [*hostile_names(300), "{name}", "{{ 7 * 7 }}", "{options}"]
    for bad in bad_names:
        frame = pl.DataFrame({"name": ["fine.example", bad], "subtree": [fmt.takes_subtree] * 2, "block": [True, True]})
        out = io.BytesIO()
        try:
            account = render(fmt, Selection(domains=frame), {}, out)
        except ReleaseError as error:
            assert str(error).isascii() and str(error).isprintable()
            assert b"fine.example" not in out.getvalue().replace(b"lists.example", b"")
        else:
            assert account.lost == {"unwritable": 1}, f"{bad!r} was written"


@pytest.mark.parametrize("name", WITH_NETWORKS)
def test_no_hostile_network_reaches_a_file(name: str) -> None:
    bad = [
        "010.0.0.1",
        "10.0.0.1; flush",
        "localhost",
        "0.0.0.0/0",
        "!10.0.0.1",
        "10.0.0.1 ",
        "1.2.3.4\n",
        "::1%lo",
        "-F",
        "*",
    ]
    kind = "outbound" if FORMATS[name].outbound or FORMATS[name].code else "both"
    for value in bad:
        if ("ipv6" if ":" in value else "ipv4") not in FORMATS[name].kinds:
            continue
        selection = select({}, [(value, kind)])
        if len(selection.networks) and FORMATS[name].address and not FORMATS[name].network and "/" in value:
            assert rendered(name, selection)[1].entries == 0
            continue
        with pytest.raises(ReleaseError):
            rendered(name, selection, **({"addresses": True} if name == "rpz" else {}))


@pytest.mark.parametrize("name", ROWS)
def test_no_hostile_row_is_more_than_a_value(name: str) -> None:
    bad = [*hostile_names(300), "=cmd|'/c calc'!A1", "+1", "-1", "@sum(1)", '","x', "{{ 7 * 7 }}"]
    frame = pl.DataFrame({"indicator": ["fine.example", *bad]}).with_columns(
        *(pl.lit(value).alias(key) for key, value in ROW.items())
    )
    out = io.BytesIO()
    account = render(FORMATS[name], Selection(rows=frame), {}, out)
    if name == "parquet":
        out.seek(0)
        assert pl.read_parquet(out)["indicator"].to_list() == ["fine.example", *bad]
        return
    text = out.getvalue().decode("ascii")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text)
    if name == "csv":
        cells = [row[0] for row in csv.reader(io.StringIO(text))][1:]
        assert len(cells) == 1 + len(bad) and not any(cell[:1] in "=+-@\t\r" for cell in cells if cell)
    elif name == "jsonl":
        assert [json.loads(line)["indicator"] for line in text.splitlines()] == ["fine.example", *bad]
    else:
        # Documents that other programs read: what is not plain ASCII is left out, and the rest are strings of it.
        json.loads(text)
        assert account.entries + account.lost["unwritable"] == 1 + len(bad) and account.lost["unwritable"] > 0


ROW = {
    "kind": "domain",
    "scope": "exact",
    "category": "malware",
    "confidence": 1,
    "feeds": "f",
    "since": "2026-11-24T10:00:00Z",
}


@pytest.mark.parametrize("name", WITH_URLS)
def test_a_url_that_cannot_be_written_is_counted_and_the_others_stay(name: str) -> None:
    chance = random.Random(31)
    bad = [
        f"//evil.example/a{chance.choice(SYNTAX_OF_URLS)}b{number}{chance.choice(SYNTAX_OF_URLS)}c"
        for number in range(3000)
    ]
    urls = [
        "//fine.example/x",
        *bad,
        "https://evil.example/y",
        "//Evil.example/y",
        "//evil.example",
        "//a b/c",
        "//x/%zz",
    ]
    text, account = rendered(name, Selection(urls=pl.DataFrame({"url": urls})))
    assert account.lost == {"unwritable": len(urls) - 1}
    assert b"fine" in text and b"evil" not in text.lower()


SYNTAX_OF_URLS = "\n\r\t\0 \"'`<>\\^{}|#[]é\u202e"


def test_every_variant_of_the_hostile_feed_through_every_format() -> None:
    """From the bytes of a feed to the files: whatever the reader took for an indicator is written as one."""
    from blocklist.catalog import Feed

    feed = Feed(id="orders", title="t", url="https://lists.example/o.txt", category="malware", format="lines")
    lines = variants()
    frame = parse(b"\n".join(lines), feed).frame
    names = frame.filter(pl.col("kind") == 1)["name"].unique().sort()
    urls = frame.filter(pl.col("kind") == 4)["name"].unique().sort()
    cidrs = sorted(set(frame.filter(pl.col("kind").is_in([2, 3]))["name"]))
    assert len(names) > 20 and len(urls) > 20
    good = re.compile(r"[a-z0-9_.-]+")
    assert all(good.fullmatch(name) for name in names)
    for fmt in FORMATS.values():
        whole = fmt.takes_subtree
        domains = names.to_frame().select("name", subtree=pl.lit(whole), block=pl.lit(True))
        rows = pl.concat(
            [
                names.alias("indicator").to_frame().with_columns(kind=pl.lit("domain")),
                urls.alias("indicator").to_frame().with_columns(kind=pl.lit("url")),
            ]
        ).with_columns(
            scope=pl.lit("exact"),
            category=pl.lit("malware"),
            confidence=pl.lit(1, pl.Int64),
            feeds=pl.lit("f"),
            since=pl.lit("2026-11-24T10:00:00Z"),
        )
        networks = select({}, [(cidr, "both") for cidr in cidrs]).networks
        try:
            out = io.BytesIO()
            account = render(
                fmt,
                Selection(domains=domains, networks=networks, urls=urls.alias("url").to_frame(), rows=rows),
                {},
                out,
            )
        except ReleaseError as error:
            pytest.fail(f"{fmt.name}: {error}")
        if fmt.binary:
            continue
        text = out.getvalue()
        assert text.isascii() and not re.search(rb"[\x00-\x08\x0b-\x1f\x7f]", text), fmt.name
        frame_of = render(fmt, Selection(), {}, io.BytesIO())
        assert (text.count(b"\n") - frame_of.lines >= 0 and account.entries > 0) or "domain" not in fmt.kinds, fmt.name


@pytest.mark.parametrize("name", WITH_NAMES)
def test_the_longest_name_is_written_whole_or_counted(name: str) -> None:
    fmt = FORMATS[name]
    longest = entries(block=[sample.LONGEST]) if fmt.exact is None else entries(exact=[sample.LONGEST])
    text, account = rendered(name, select(longest))
    assert account.entries + account.lost.get("unwritable", 0) + account.lost.get("too_long", 0) == 1
    if account.entries and "{name}" in (fmt.exact or fmt.suffix or ""):
        assert sample.LONGEST.encode() in text


def test_every_pattern_of_a_stix_bundle_is_one_to_its_own_validator() -> None:
    from stix2patterns.validator import run_validator

    kinds = {
        "domain": ["evil.example", sample.LONGEST, "_dmarc.evil.example", "xn--fsqu00a.example"],
        "ipv4": ["192.0.2.7", "192.0.2.0/24"],
        "ipv6": ["2001:db8::7", "2001:db8::/48"],
        "url": ["//evil.example/a?b=c&d=%27", "//[2001:db8::7]:8080/x"],
    }
    frame = pl.DataFrame(
        [(text, kind) for kind, texts in kinds.items() for text in texts], ["indicator", "kind"], orient="row"
    )
    rows = frame.with_columns(*(pl.lit(value).alias(key) for key, value in ROW.items() if key != "kind"))
    out = io.BytesIO()
    render(FORMATS["stix"], Selection(rows=rows), {}, out)
    patterns = [o["pattern"] for o in json.loads(out.getvalue())["objects"] if o["type"] == "indicator"]
    assert len(patterns) == frame.height
    assert [(p, errors) for p in patterns if (errors := run_validator(p, stix_version="2.1"))] == []


def test_an_origin_of_sixty_characters_leaves_room_for_the_rest() -> None:
    origin = "o" * 40 + "." + "p" * 12 + ".internal"[:7]
    assert len(origin) == 60
    room = 253 - 60 - 1
    fits = ".".join(["a" * 60, "b" * 60, "c" * 60, "d" * (room - 183)])
    assert len(fits) == room
    text, account = rendered("rpz", select(entries(exact=[fits, "d" + fits])), origin=origin, version="none")
    assert account.lost == {"too_long": 1} and fits.encode() in text and b"\nd" + fits.encode() not in text


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_no_option_is_syntax(name: str) -> None:
    fmt = FORMATS[name]
    for key, option in fmt.options.items():
        if option.type == "text":
            for bad in ("a\nb", "a; b", "a'b", 'a"b', "a}b", "{name}", "é", "a\\b", "$(id)", "a`b"):
                with pytest.raises(ConfigError, match=key):
                    fmt.settle({key: bad})


def test_the_gate_of_names_takes_the_longest_and_no_longer() -> None:
    longest = ".".join(["a" * 63] * 3 + ["b" * 61])
    require_safe(pl.Series([longest]), "name", "list")
    with pytest.raises(ReleaseError, match=r"row 2: .* is not a domain name"):
        require_safe(pl.Series([longest, longest + "c"]), "name", "list")


def test_the_gate_of_urls_takes_what_the_record_holds_and_no_more() -> None:
    fine = ["evil.example/", "evil.example/a?b=c&d=%2F", "[2001:db8::1]:8080/x", "192.0.2.1/~a/(b)+c,d;e=f*$!@"]
    bad = [
        "evil.example",
        "//evil.example/",
        "http://evil.example/",
        "evil.example:0/",
        "a/'",
        "a/%2",
        "a/#",
        "a/\n",
        "A/",
        "",
    ]
    assert writable_urls(pl.Series(fine + bad)).to_list() == [True] * len(fine) + [False] * len(bad)
