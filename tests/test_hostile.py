"""What a hostile or broken feed sends is counted or gated; nothing of it comes out raw."""

from __future__ import annotations

import itertools
import random
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from blocklist.catalog import Feed, FormatName, InputFormat
from blocklist.errors import FeedError, FeedGated
from blocklist.ingest import gate
from blocklist.ingest.intake import take_in
from blocklist.ingest.parse import Parsed, parse
from blocklist.names import Reject
from blocklist.select.address import parse_one
from blocklist.special_use import ENGINE_LABELS
from blocklist.store.columns import Columns

NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)+")
URL = re.compile(r"//[a-z0-9.:\[\]_-]+/([A-Za-z0-9._~:/?@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*")


def feed(spec: FormatName | InputFormat = "lines", **keys: object) -> Feed:
    return Feed(id="orders", title="t", url="https://lists.example/orders.txt", category="malware", format=spec, **keys)  # type: ignore[arg-type]


def read(data: bytes, spec: FormatName | InputFormat = "lines") -> Parsed:
    out = parse(data, feed(spec))
    assert sum(out.kinds.values()) + sum(out.rejects.values()) - out.extra + out.comments + out.blank == out.lines
    assert_clean(out.frame)
    return out


def assert_clean(frame: pl.DataFrame) -> None:
    for name, kind in frame.select("name", "kind").rows():
        if kind == 1:
            assert NAME.fullmatch(name) and len(name) <= 253, name
            assert name.rpartition(".")[2] not in ENGINE_LABELS, name
        elif kind == 4:
            assert URL.fullmatch(name), name
        else:
            assert parse_one(name) is not None, name


# F11: bytes


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"evil\x00.example", Reject.ENCODING),
        (b"\xff\xfeevil.example", Reject.ENCODING),
        (b"evil\xc3.example", Reject.ENCODING),
        (b"evil\xed\xa0\x80.example", Reject.ENCODING),
        (b"http://evil.example/\xff", Reject.ENCODING),
        (b"evil.example/\x00", Reject.ENCODING),
        (b"\x1b[31mevil.example", Reject.SYNTAX),
        (b"evil.example\x07", Reject.SYNTAX),
        (b"evil.example\rbad.example", Reject.SYNTAX),
        (b"evil\x7f.example", Reject.SYNTAX),
        ("\u202eelpmaxe.live".encode(), Reject.IDN),
        ("evil\u200b.ex\u2066ample".encode(), Reject.IDN),
        (b"http://evil.example/\x1b[2J", Reject.BAD_URL),
        ("http://evil.example/\u202egpj.exe".encode(), Reject.BAD_URL),
    ],
)
def test_a_line_with_foreign_bytes_is_refused_by_its_reason(line: bytes, reason: Reject) -> None:
    out = read(b"first.example\n" + line + b"\nlast.example\n")
    assert out.rejects == {reason: 1}
    assert out.frame.select("name", "line").rows() == [("first.example", 1), ("last.example", 3)]


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_read_with_its_mark_and_refused_without(codec: str) -> None:
    mark = b"\xff\xfe" if codec == "utf-16-le" else b"\xfe\xff"
    text = "evil.example\r\nbücher.example\r\n".encode(codec)
    assert read(mark + text).frame["name"].to_list() == ["evil.example", "xn--bcher-kva.example"]
    assert read(mark + text + b"\x00").frame.height == 2
    assert read(text).frame.is_empty()


def test_a_line_of_ten_megabytes_is_one_reject() -> None:
    out = read(b"a.example\n" + b"x" * 10_000_000 + b"\nb.example\n")
    assert out.rejects == {Reject.TOO_LONG: 1}
    assert out.frame.select("name", "line").rows() == [("a.example", 1), ("b.example", 3)]


def test_no_url_is_longer_than_the_longest_that_servers_take() -> None:
    fits = b"http://evil.example/" + b"a" * 7_980
    assert len(fits) == 8_000 and read(fits).kinds == {"url": 1}
    assert read(fits + b"a").rejects == {Reject.TOO_LONG: 1}


MEASURE = """
import resource, sys
from blocklist.catalog import Feed
from blocklist.ingest.parse import parse
feed = Feed(title="t", url="file:t", category="malware", format=sys.argv[1])
parse(b"evil.example\\n", feed)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
data = eval(sys.argv[2])
out = parse(data, feed)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, out.lines, out.frame.height)
"""


def peak_of(spec: str, data: str) -> tuple[float, int, int]:
    """Megabytes at the peak beyond what it takes to read one line; lines; entries."""
    done = subprocess.run([sys.executable, "-c", MEASURE, spec, data], capture_output=True, text=True, check=True)
    kilobytes, lines, entries = map(int, done.stdout.split())
    return kilobytes / 1024, lines, entries


def test_ten_million_empty_lines_leave_memory_flat() -> None:
    peak, lines, entries = peak_of("auto", r"b'\n' * 10_000_000")
    assert (lines, entries) == (10_000_000, 0)
    assert peak < 160, f"{peak:.0f} MB"


def test_a_file_of_one_line_without_end_leaves_memory_flat() -> None:
    peak, lines, entries = peak_of("lines", "b'x' * 40_000_000")
    assert (lines, entries) == (1, 0)
    assert peak < 6 * 40, f"{peak:.0f} MB"


def test_a_table_of_commas_leaves_memory_flat() -> None:
    out = read((b"," * 7_999 + b"\n") * 500, InputFormat(name="csv", value=2, header=False))
    assert out.rejects == {Reject.SYNTAX: 500}


# F12: look-alikes of addresses


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("010.0.0.1", Reject.BAD_ADDRESS),
        ("192.0.2.01", Reject.BAD_ADDRESS),
        ("0xC0000201", Reject.SINGLE_LABEL),
        ("0xc0.0x00.0x02.0x01", Reject.LOOKALIKE),
        ("3221225985", Reject.BAD_ADDRESS),
        ("192.0.513", Reject.BAD_ADDRESS),
        ("192.0.2.1.", Reject.BAD_ADDRESS),
        ("192.0.2.256", Reject.BAD_ADDRESS),
        ("１９２.0.2.1", Reject.LOOKALIKE),
        ("fe80::1%eth0", Reject.BAD_ADDRESS),
        ("2001:db8::1%1/64", Reject.BAD_ADDRESS),
        ("2001:db8:::1", Reject.BAD_ADDRESS),
        ("192.0.2.0/033", Reject.BAD_ADDRESS),
        ("192.0.2.0/33", Reject.BAD_ADDRESS),
        ("192.0.2.0/255.255.255.0", Reject.UNSUPPORTED),
        ("192.0.2.1:8080", Reject.UNSUPPORTED),
        ("evil.example:443", Reject.UNSUPPORTED),
        ("0.0.0.0/0", Reject.WHOLE_INTERNET),
        ("192.0.2.1/0", Reject.WHOLE_INTERNET),
        ("::/0", Reject.WHOLE_INTERNET),
        ("::ffff:0.0.0.0/96", Reject.WHOLE_INTERNET),
        ("::ffff:192.0.2.0/95", Reject.BAD_ADDRESS),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7/120", "192.0.2.0/24"),
        ("::FFFF:C000:207", "192.0.2.7"),
        ("192.0.2.7/24", "192.0.2.0/24"),
        ("192.0.2.7/32", "192.0.2.7"),
        ("2001:DB8:0:0::1/32", "2001:db8::/32"),
        ("127.0.0.1", Reject.NOT_GLOBAL),
        ("10.1.2.3/32", Reject.NOT_GLOBAL),
        ("::ffff:10.0.0.1", Reject.NOT_GLOBAL),
        ("::1", Reject.NOT_GLOBAL),
        ("64:ff9b::c000:207", Reject.NOT_GLOBAL),
        ("2002:c000:207::1", Reject.NOT_GLOBAL),
        ("fec0::1", Reject.NOT_GLOBAL),
        ("224.0.0.0/4", Reject.NOT_GLOBAL),
        ("http://127.0.0.1/x", Reject.BAD_URL),
        ("http://0x7f.1/x", Reject.BAD_URL),
        ("http://[::1]/x", Reject.BAD_URL),
        ("http://2130706433/", Reject.BAD_ADDRESS),
    ],
)
def test_what_looks_like_an_address_is_one_or_is_refused(text: str, outcome: str | Reject) -> None:
    out = read(text.encode())
    if isinstance(outcome, Reject):
        assert out.frame.is_empty() and out.rejects == {outcome: 1}
    else:
        assert out.frame["name"].to_list() == [outcome] and out.rejects == {}


# F8 and F9: not the list, or not the one of yesterday


def many(count: int) -> bytes:
    return b"".join(b"n%d.evil.example\n" % i for i in range(count))


@pytest.mark.parametrize(
    "page",
    [
        b"<!DOCTYPE html>\n<html><body>404</body></html>",
        b"\n\n  <HTML><head><title>Sign in</title></head><form action=/login><input name=password></form></HTML>",
        b"<!-- cached -->\n<html lang=en><body>evil.example</body></html>",
        b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
        b"\xef\xbb\xbf<html></html>",
        b"\xff\xfe" + "<html></html>".encode("utf-16-le"),
        b'{"error": "key expired", "url": "evil.example"}',
        b'{\n "message": "API rate limit exceeded",\n "status": 403\n}',
        b"",
        b"\n\n\n",
        b"# comments\n! only\n",
        b"Too many requests\nPlease slow down\n",
    ],
)
@pytest.mark.parametrize("spec", ["auto", "lines", "hosts", "adblock", "dnsmasq"])
def test_a_page_an_error_or_nothing_is_gated_and_kept_for_inspection(
    page: bytes, spec: FormatName, tmp_path: Path
) -> None:
    before = Columns(parse(many(200), feed()).frame, None)
    (tmp_path / "snapshots").mkdir()
    taken = take_in(
        feed(spec), page, "0" * 64, state=tmp_path, snapshot=7, before=before, base=None, base_depth=0, accept=False
    )
    assert taken.gate and taken.hint
    assert taken.added.is_empty() and taken.removed.is_empty()
    assert taken.stored is not None


def test_a_page_is_named_as_one_with_the_address_to_look_at() -> None:
    with pytest.raises(FeedGated) as error:
        parse(b"<html><body>Moved</body></html>", feed())
    assert error.value.message == "orders: the answer is a web page, not a list"
    assert error.value.hint and "https://lists.example/orders.txt" in error.value.hint


def test_an_error_in_json_is_shown_without_its_control_characters() -> None:
    with pytest.raises(FeedGated) as error:
        parse(b'{"error": "\x1b[31m\xe2\x80\xaebad"}', feed())
    assert error.value.message.isascii() and error.value.message.isprintable()


def judge(data: bytes, before: int | None, **keys: object) -> str | None:
    source = feed("lines", **keys)
    try:
        gate.check(source, parse(data, source), before)
    except FeedGated as error:
        assert error.hint and "blocklist update --accept orders" in error.hint
        return error.message
    return None


def test_a_list_that_shrinks_is_gated_with_both_counts_and_the_limit() -> None:
    assert judge(many(50), 1_000) == "orders: 50 entries, 95 % fewer than the 1,000 before (limit 50 %)"
    assert judge(many(500), 1_000) is None
    assert judge(many(499), 1_000) == "orders: 499 entries, 50.1 % fewer than the 1,000 before (limit 50 %)"
    assert judge(many(50), 1_000, max_shrink=0.95) is None


def test_a_list_that_grows_twentyfold_is_gated() -> None:
    assert judge(many(2_000), 100) == "orders: 2,000 entries, 20 times the 100 before (limit 5 times)"
    assert judge(many(500), 100) is None


def test_small_lists_and_first_ones_change_as_they_like() -> None:
    assert judge(many(1), 99) is None
    assert judge(many(5_000), 99) is None
    assert judge(many(5), None) is None


def test_fewer_than_min_entries_is_gated_even_the_first_time() -> None:
    assert judge(many(5), None, min_entries=10) == "orders: 5 entries, fewer than min_entries = 10"


def test_an_empty_list_is_gated_unless_its_publisher_may_have_nothing_to_report() -> None:
    nothing, remarks, page = b"", b"# none today\n\n", b"no name\n" * 3
    assert judge(nothing, 5) == "orders: it is empty"
    assert judge(remarks, None) == "orders: it holds comments only (1 lines)"
    for before in (None, 0, 99):
        assert judge(nothing, before, allow_empty=True) is None
        assert judge(remarks, before, allow_empty=True) is None
    assert judge(page, 5, allow_empty=True) == "orders: none of its 3 lines could be read as lines"
    assert judge(nothing, 100, allow_empty=True) == "orders: 0 entries, 100 % fewer than the 100 before (limit 50 %)"
    assert judge(nothing, 5, allow_empty=True, min_entries=1) == "orders: 0 entries, fewer than min_entries = 1"


def test_a_list_that_is_mostly_unreadable_is_gated_but_not_for_what_no_format_can_say() -> None:
    assert judge(many(10) + b"no name\n" * 11, None) == (
        "orders: 11 of its entries can't be read as lines, more than the 10 that can"
    )
    assert judge(many(10) + b"192.0.2.1:80\n" * 50, None) is None


# F13: lines made to be read as syntax by what loads the exports

SYNTAX = [
    *("$INCLUDE /etc/passwd", "$GENERATE 1-5 x$ CNAME .", "$ORIGIN com.", "$TTL 0", "@", "*", "*.com", ".", "com"),
    *('"', "'", ";", "(", ")", "{", "}", "[", "]", "\\", "\\046", "`id`", "$(id)", "|", "||", "^", "<", ">", "&", "!"),
    *("\n", "\r", "\r\n", "\t", "\x00", "\x1b]0;x\x07", "\u2028", "\u0085", "\u202e", "\ufeff", "\u00a0"),
    *("/", "//", "/../", "/#", "#", " # ", "--", "=", ",", ":", "%", "%0a", "%s", "{{7*7}}", "{% raw %}"),
    *("rpz-ip", "24.0.2.0.192.rpz-ip", "8.0.0.0.127.rpz-client-ip", "x.rpz-passthru", "x.rpz-drop", "x.rpz-nsdname"),
    *(" CNAME rpz-passthru.", " A 127.0.0.1", "include: /etc/hostname", "server=/#/192.0.2.1", "conf-file=/etc/passwd"),
    *("add x 0.0.0.0/0", "flush", "} add rule inet f i drop", "elements = {", "localhost", "0.0.0.0/0", "::/0", "all"),
    *("=cmd|' /C calc'!A0", "+1", "-1", "@SUM(1)", "<script>", "dst src", "http_access allow all", "a" * 64, "..", ""),
]
SHAPES = ["{x}", "{x}.evil.example", "evil{x}.example", "evil.example{x}", "{x}evil.example", "evil.example {x}"]
SHAPES += [
    "0.0.0.0 {x}",
    "http://{x}/",
    "http://evil.example/{x}",
    "http://{x}@evil.example/a",
    "http://evil.example:{x}/a",
]
SHAPES += [
    "||{x}^",
    "*.{x}",
    "address=/{x}/#",
    'local-zone: "{x}" always_null',
    "192.0.2.1{x}",
    "192.0.2.0/{x}",
    "{x},y",
]
SHAPES += ['"{x}",y', '{{"v":"{x}"}}', "{x}\t3", "2001:db8::{x}"]


def variants() -> list[bytes]:
    made = [shape.format(x=x) for shape, x in itertools.product(SHAPES, SYNTAX)]
    chance = random.Random(13)
    made += [chance.choice(SHAPES).format(x="".join(chance.sample(SYNTAX, 2))) for _ in range(4_000)]
    return [line.encode() for line in made]


FORMATS: list[FormatName | InputFormat] = [
    "auto",
    "hosts",
    "lines",
    "wildcard",
    "adblock",
    "dnsmasq",
    "unbound",
    "scored",
]
FORMATS += [InputFormat(name="csv", value=1, header=False), InputFormat(name="jsonl", value="v")]


@pytest.mark.parametrize("spec", FORMATS, ids=lambda s: s if isinstance(s, str) else s.name)
def test_no_line_made_to_inject_comes_out_as_anything_but_an_indicator(spec: FormatName | InputFormat) -> None:
    lines = variants()
    assert len(lines) > 5_000
    out = parse(b"\n".join(lines), feed(spec, url_hosts=False))
    assert_clean(out.frame)
    assert sum(out.kinds.values()) + sum(out.rejects.values()) - out.extra + out.comments + out.blank == out.lines
    names = set(out.frame["name"])
    assert not names & {"com", "localhost", "0.0.0.0/0", "::/0", "127.0.0.1"}


def test_no_variant_escapes_alone_either() -> None:
    for line in variants()[::80]:
        for spec in FORMATS:
            try:
                assert_clean(parse(line, feed(spec)).frame)
            except FeedError:
                continue


def test_a_misp_item_with_a_line_end_in_it_is_refused() -> None:
    out = read(rb'{"list":["evil.example\nserver=/#/192.0.2.1","a\u0000.example","http://a.example/\nb"]}', "misp")
    assert out.frame.is_empty() and out.rejects == {Reject.UNSUPPORTED: 1, Reject.SYNTAX: 1, Reject.BAD_URL: 1}
