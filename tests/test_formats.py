"""One contract for every parser: each line is accounted for, nothing crashes, numbers are true."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocklist.catalog import Feed, InputFormat
from blocklist.errors import FeedError
from blocklist.ingest import parse as module
from blocklist.ingest.normalize import DOMAIN, URL
from blocklist.ingest.parse import Parsed, parse
from blocklist.names import Reject, normalize_name
from blocklist.select.address import parse_one


def plain(name: str) -> str:
    return name


def rule(name: str) -> str:
    if re.fullmatch(r"[0-9.]+|[0-9a-f:/]+", name):
        return f'alert ip any any -> [{name}] any (msg:"c2"; sid:7;)'
    return f'alert dns any any -> any any (dns.query; content:"{name}"; bsize:{len(name)}; nocase; sid:8;)'


def zone_record(name: str) -> str:
    if re.fullmatch(r"[0-9.]+", name):
        return f"32.{'.'.join(reversed(name.split('.')))}.rpz-ip CNAME . ; {name}"
    return f"{name} CNAME ."


@dataclass(frozen=True)
class Case:
    """A format, how it writes a name, what it says of the scope, and lines of its own that name nothing."""

    spec: InputFormat
    write: Callable[[str], str]
    subtree: bool
    comments: tuple[str, ...] = ("# a comment",)
    header: str | None = None
    unsupported: tuple[str, ...] = field(default=())

    @property
    def name(self) -> str:
        return self.spec.name


CASES = {
    "hosts": Case(InputFormat(name="hosts"), "0.0.0.0 {}".format, False, ("# c", "127.0.0.1 localhost")),
    "lines": Case(InputFormat(name="lines"), plain, False, ("# c", "; c", "// c")),
    "wildcard": Case(InputFormat(name="wildcard"), "*.{}".format, True),
    "adblock": Case(
        InputFormat(name="adblock"),
        "||{}^".format,
        True,
        ("! c", "[Adblock Plus 2.0]", "# c"),
        unsupported=(
            "@@||good.example^",
            "||evil.example/path^",
            "||ad*.example^",
            "example.com##.ad",
            "/ads[0-9]/",
            "||evil.example^$third-party",
            "||evil.example",
            "|http://evil.example|",
        ),
    ),
    "dnsmasq": Case(
        InputFormat(name="dnsmasq"),
        "address=/{}/#".format,
        True,
        unsupported=("server=/evil.example/192.0.2.53", "server=/evil.example/#", "address=/evil.example", "no-resolv"),
    ),
    "unbound": Case(
        InputFormat(name="unbound"),
        'local-zone: "{}" always_null'.format,
        True,
        ("# c", "server:", 'local-data: "evil.example A 0.0.0.0"'),
        unsupported=('local-zone: "evil.example." transparent', "include: /etc/hostname", "do-ip6: no"),
    ),
    "csv": Case(InputFormat(name="csv", value="domain"), '"{}",x'.format, False, header="domain,why"),
    "csv-by-number": Case(InputFormat(name="csv", value=2, header=False), "x,{}".format, False),
    "jsonl": Case(
        InputFormat(name="jsonl", value="cidr", skip_if="type"),
        lambda name: json.dumps({"cidr": name, "rir": "x"}),
        False,
        ('{"type":"metadata","records":2}',),
    ),
    "scored": Case(InputFormat(name="scored"), "{}\t5".format, False),
    "urls": Case(InputFormat(name="urls"), "http://{}/".format, False, ("# c", "; c")),
    "maltrail": Case(InputFormat(name="maltrail"), plain, True, ("# Reference: x",), unsupported=("/gate.php",)),
    "suricata": Case(
        InputFormat(name="suricata"),
        rule,
        False,
        ("# c", "#alert ip any any -> 192.0.2.1 any (sid:1;)"),
        unsupported=(
            "pass ip any any -> 192.0.2.1 any (sid:1;)",
            'alert dns any any -> any any (dns.query; content:"evil.example"; nocase; sid:2;)',
            'alert dns any any -> any any (dns.query; content:!"evil.example"; bsize:12; sid:3;)',
            'alert http any any -> any any (http.host; content:"evil.example"; bsize:12; http.uri; content:"/x";)',
            'alert tcp any any -> 192.0.2.1 any (content:"x"; sid:5;)',
            "alert ip any any -> !192.0.2.1 any (sid:6;)",
        ),
    ),
    "rpz": Case(
        InputFormat(name="rpz"),
        zone_record,
        False,
        ("; c", "$TTL 60", "@ SOA a. b. 1 2 3 4 5", "\tNS localhost.", "  ; c"),
        unsupported=(
            "good.example CNAME rpz-passthru.",
            "old.example CNAME old.example.",
            "slow.example CNAME rpz-tcp-only.",
            "32.1.2.0.192.rpz-client-ip CNAME .",
            "ns.example.rpz-nsdname CNAME .",
            "garden.example A 192.0.2.80",
            'text.example TXT "evil.example"',
            "$INCLUDE /etc/hostname",
        ),
    ),
}
case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def feed(spec: InputFormat | str, **keys: object) -> Feed:
    return Feed(id="test", title="t", url="file:t", category="malware", format=spec, **keys)  # type: ignore[arg-type]


def read(data: bytes | str, spec: InputFormat | str = "auto", **keys: object) -> Parsed:
    out = parse(data.encode() if isinstance(data, str) else data, feed(spec, **keys))
    check_account(out)
    return out


def check_account(out: Parsed, document: bytes | None = None) -> None:
    """The sums, the numbers, the names. The items of a `document` are its lines, and have a line of its text or, where
    all is on one, their place.
    """
    last = max(out.lines, 1, document.count(b"\n") + 1 if document is not None else 0)
    assert sum(out.kinds.values()) + sum(out.rejects.values()) - out.extra + out.comments + out.blank == out.lines, out
    assert out.extra >= 0 and out.comments >= 0 and out.blank >= 0
    for reason, numbers in out.rejects.lines.items():
        assert 0 < len(numbers) <= out.rejects[reason] and all(1 <= n <= last for n in numbers)
    # What the columns accept, the definition for one value accepts.
    for name, kind in out.frame.select("name", "kind").iter_rows():
        if kind == DOMAIN:
            assert normalize_name(name) == name
        elif kind != URL:
            assert parse_one(name) is not None
        else:
            host = urlsplit(name).hostname or ""
            assert parse_one(host) is not None or normalize_name(host) == host


def found(out: Parsed) -> list[tuple[str, int]]:
    return sorted(out.frame.select("name", "line").rows(), key=lambda row: (row[1], row[0]))


# The contract, for every format.


@case
def test_names_come_out_with_their_line_and_the_scope_of_the_format(case: Case) -> None:
    names = ["evil.example", "a.b.evil.test", "xn--bcher-kva.example", "192.0.2.66"]
    lines = [case.header] if case.header else []
    for name in names:
        lines += ["", *case.comments, case.write(name)]
    data = "\n".join(lines) + "\n"
    out = read(data, case.spec)
    assert out.rejects == {} and out.lines == len(lines)
    assert {n for n, _ in found(out)} == set(names)
    for name, number in found(out):
        assert name in lines[number - 1]
    scopes = dict(out.frame.select("name", "subtree").rows())
    assert scopes["evil.example"] is case.subtree and scopes["192.0.2.66"] is False


@case
def test_lines_that_mean_something_else_are_counted_as_unsupported(case: Case) -> None:
    lines = [case.write("evil.example"), *case.unsupported]
    out = read("\n".join(([case.header] if case.header else []) + lines), case.spec)
    assert out.frame["name"].to_list() == ["evil.example"]
    assert out.rejects == ({Reject.UNSUPPORTED: len(case.unsupported)} if case.unsupported else {})
    assert out.unparseable == 0


@case
def test_crlf_a_byte_order_mark_and_a_missing_last_line_end_change_nothing(case: Case) -> None:
    lines = ([case.header] if case.header else []) + [case.write("evil.example"), "", case.write("bad.example")]
    usual = read("\n".join(lines) + "\n", case.spec)
    for other in (
        "\n".join(lines).encode(),
        b"\xef\xbb\xbf" + "\r\n".join(lines).encode(),
        b"\xff\xfe" + "\n".join(lines).encode("utf-16-le"),
        b"\xfe\xff" + "\r\n".join(lines).encode("utf-16-be"),
    ):
        out = read(other, case.spec)
        assert out.frame.equals(usual.frame) and out.lines == usual.lines


@case
def test_the_scope_of_the_feed_wins(case: Case) -> None:
    data = "\n".join(([case.header] if case.header else []) + [case.write("evil.example")])
    assert read(data, case.spec, scope="exact").frame["subtree"].to_list() == [False]
    assert read(data, case.spec, scope="subtree").frame["subtree"].to_list() == [True]


@case
def test_blocks_of_a_large_file_join_without_a_seam(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [case.header] if case.header else []
    lines += [case.write(f"n{i}.evil.example") for i in range(400)]
    data = "\n".join(lines) + "\n"
    whole = read(data, case.spec)
    assert whole.frame.height == 400
    monkeypatch.setattr(module, "BLOCK", 1_000)
    monkeypatch.setattr(module, "BLOCK_LINES", 7)
    cut = read(data, case.spec)
    assert cut.frame.equals(whole.frame)
    assert (cut.lines, cut.comments, cut.kinds) == (whole.lines, whole.comments, whole.kinds)


def noise(case: Case) -> st.SearchStrategy[bytes]:
    own = st.sampled_from(
        [case.write(n).encode() for n in ("evil.example", "192.0.2.1", "", "bad name", "a" * 70, "2001:db8::/32")]
    )
    hostile = st.sampled_from(
        [
            b'"',
            b'""',
            b'","',
            b"\x00",
            b"\xff\xfe",
            b"\r",
            b"\x0b",
            b" # x",
            b"/",
            b"//",
            b"||^",
            b"{}",
            b'{"cidr":1}',
            b'{"cidr":null}',
            b'{"cidr":"\\ud800"}',
            b"::1 \xc2\xa0",
            b"1.2.3.4 \t",
            b"a b\tc",
            b"address=/a.example//",
            b",",
            b"a,",
            b"\xe2\x80\xae",
            b"0x7f.1",
            b"local-zone: \t",
            b"evil.example\t99999999999999999999999",
            b"192.0.2.1-192.0.2.9",
            b"192.0.2.9 - 192.0.2.1",
            b"0.0.0.0-255.255.255.255",
            b"2001:db8::1-2001:db8::ffff",
            b"(",
            b") ;",
            b"$ORIGIN rpz.",
            b"$ORIGIN evil",
            b"  CNAME *.",
            b"*.evil.example. CNAME .",
            b"@@||evil.example^",
            b"$badfilter",
            b"##.x",
            b"evil.example:99999",
            b"evil[.]example/x",
            b"alert ip any any -> [192.0.2.1,!192.0.2.2] any (",
            b'content:"|0g|";',
            b"\x1f",
        ]
    )
    piece = st.one_of(own, own, hostile, st.binary(max_size=12))
    line = st.lists(piece, min_size=0, max_size=3).map(b"".join)
    return st.lists(line, max_size=12).map(b"\n".join)


@case
@settings(max_examples=80)
@given(data=st.data())
def test_any_bytes_are_accounted_for(case: Case, data: st.DataObject) -> None:
    body = data.draw(noise(case))
    if case.header:
        body = case.header.encode() + b"\n" + body
    try:
        out = parse(body, feed(case.spec))
    except FeedError:
        return
    check_account(out)
    lines = body.split(b"\n")
    for number in out.frame["line"]:
        assert 1 <= number <= len(lines) and lines[number - 1].strip()


NAUGHTY = [
    *("evil.example", "192.0.2.1", "192.0.2.0/24", "192.0.2.1-192.0.2.9", "2001:db8::1", "http://evil.example/a"),
    *("", ".", "*", "com", "a b", "a\nb.example", "\x00", "\x1b[31m", "\u202e", "\ufffd", "b\u00fccher.example"),
    *("0x7f.1", "127.0.0.1", "0.0.0.0/0", "::ffff:0.0.0.0/96", "x.rpz-ip", "evil.example:80", "192.0.2.1|80"),
    *("evil.example|192.0.2.1", "a" * 300, "http://[::1/x", "[domain-name:value = 'evil.example']", "tlp:red"),
    *("[ipv4-addr:value = '192.0.2.1' OR url:value = 'http://evil.example/x']", "[", "2026-13-45", "1e999"),
    "[domain-name:value = 'evil.example' AND file:name = 'x'] FOLLOWEDBY [url:value LIKE '%']",
]


def attribute(kind: str, value: object, ids: object, more: object) -> dict[str, object]:
    return {"type": kind, "value": value, "to_ids": ids, "Tag": more, "timestamp": value, "comment": more}


def indicator(pattern: object, kind: object, until: object) -> dict[str, object]:
    return {"type": "indicator", "id": kind, "pattern": pattern, "pattern_type": kind, "valid_until": until}


values = st.one_of(
    st.sampled_from(NAUGHTY), st.text(max_size=6), st.none(), st.booleans(), st.integers(-9, 2**70), st.floats()
)
things = st.recursive(values, lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=3), below))
MISP_KINDS = ["domain", "hostname", "ip-src", "ip-dst|port", "domain|ip", "url", "cidr", "email", ""]
# Of each document its builder from four lists of things; all but the outermost shape may be anything.
DOCUMENTS: dict[str, tuple[InputFormat, st.SearchStrategy[object]]] = {
    "json": (
        InputFormat(name="json", value="v", confidence="c", reason="r", tags="t", date="d"),
        st.lists(st.fixed_dictionaries({"v": values}, optional=dict.fromkeys("crtd", things)) | things, max_size=6),
    ),
    "json, pointed": (
        InputFormat(name="json", pointer=["/a", "/b~1c"], value=["v", "w"], where={"s": ["on"]}),
        st.fixed_dictionaries({"a": st.lists(st.dictionaries(st.sampled_from("vws"), things)), "b/c": things}),
    ),
    "misp": (
        InputFormat(name="misp"),
        st.fixed_dictionaries(
            {},
            optional={
                "list": st.lists(things, max_size=6),
                "Event": st.fixed_dictionaries(
                    {
                        "Attribute": st.lists(
                            st.builds(attribute, st.sampled_from(MISP_KINDS), values, st.booleans() | values, things)
                        ),
                        "Object": things | st.lists(st.fixed_dictionaries({"Attribute": st.lists(things)})),
                        "Tag": things,
                        "info": values,
                    }
                ),
            },
        ),
    ),
    "stix": (
        InputFormat(name="stix"),
        st.fixed_dictionaries(
            {
                "type": st.sampled_from(["bundle", "bundle", "x"]),
                "objects": st.lists(
                    st.builds(indicator, values, st.just("stix") | values, st.none() | values) | things, max_size=6
                ),
            }
        ),
    ),
}


@pytest.mark.parametrize("name", DOCUMENTS)
@settings(max_examples=150)
@given(data=st.data())
def test_any_document_is_accounted_for(name: str, data: st.DataObject) -> None:
    spec, documents = DOCUMENTS[name]
    body = json.dumps(data.draw(documents), indent=data.draw(st.sampled_from([None, 1]))).encode()
    if data.draw(st.integers(0, 3)) == 0:
        # Bytes of another kind in the midst, or an end that never came.
        at = data.draw(st.integers(0, len(body)))
        body = body[:at] + data.draw(st.binary(max_size=6)) + body[at + data.draw(st.integers(0, 5)) :]
    try:
        check_account(parse(body, feed(spec)), body)
    except FeedError:
        return


@pytest.mark.parametrize("name", ["json", "misp", "stix"])
@settings(max_examples=60)
@given(body=st.binary(max_size=200))
def test_any_bytes_are_a_document_or_a_failed_feed(name: str, body: bytes) -> None:
    try:
        check_account(parse(body, feed(name)), body)
    except FeedError:
        return


@settings(max_examples=100)
@given(
    st.lists(
        st.lists(st.sampled_from([*NAUGHTY, "24", "Start", "192.0.2.255"]) | st.text(max_size=4), max_size=5).map(
            "\t".join
        ),
        max_size=9,
    )
)
def test_any_ranges_of_dshield_are_accounted_for(lines: list[str]) -> None:
    check_account(parse("\n".join(lines).encode("utf-8", "surrogatepass"), feed("dshield")))


@settings(max_examples=100)
@given(st.binary(max_size=300))
def test_any_bytes_are_accounted_for_when_the_format_is_guessed(body: bytes) -> None:
    try:
        check_account(parse(body, feed("auto")))
    except FeedError:
        return


# Format by format, lines as publishers write them.


def test_hosts_lines_may_name_several_and_carry_the_machines_own_names() -> None:
    out = read(
        "127.0.0.1\tlocalhost localhost.localdomain\n::1 ip6-localhost\n0.0.0.0 0.0.0.0\n"
        "0.0.0.0  a.example b.example\tc.example # three\n::1 v6.example\nbare.example\nfe80::1%lo0 zone.example\n",
        "hosts",
    )
    assert found(out) == [
        ("a.example", 4),
        ("b.example", 4),
        ("c.example", 4),
        ("v6.example", 5),
        ("bare.example", 6),
        ("zone.example", 7),
    ]
    assert (out.comments, out.extra) == (3, 2)


def test_plain_lines_hold_any_kind_and_comments_after_white_space() -> None:
    out = read(
        "evil.example # c2\n192.0.2.0/24 ; SBL1\n2001:DB8::1\nhttp://evil.example/x#y\nevil.example two\n", "lines"
    )
    assert found(out) == [("evil.example", 1), ("192.0.2.0/24", 2), ("2001:db8::1", 3), ("//evil.example/x", 4)]
    assert out.rejects == {Reject.SYNTAX: 1}


def test_a_wildcard_is_a_star_and_a_dot_and_nothing_shorter() -> None:
    out = read("*.evil.example\n.bad.example\nbare.example\n*evil.example\n*.com\n*\n*..evil.example\n", "wildcard")
    assert {n for n, _ in found(out)} == {"evil.example", "bad.example", "bare.example"}
    assert out.rejects == {Reject.SYNTAX: 3, Reject.SINGLE_LABEL: 1}


def test_adblock_options_that_do_not_narrow_a_rule_are_read_over() -> None:
    out = read("||evil.example^$important\n||bad.example^$document,popup\nbare.example\n", "adblock")
    assert out.frame.select("name", "subtree").rows() == [
        ("bad.example", True),
        ("bare.example", False),
        ("evil.example", True),
    ]


def test_dnsmasq_lines_may_name_several() -> None:
    out = read(
        "local=/a.example/b.example/\naddress=/c.example/0.0.0.0\nserver=/d.example/\naddress=/e.example/::\n",
        "dnsmasq",
    )
    assert found(out) == [("a.example", 1), ("b.example", 1), ("c.example", 2), ("d.example", 3), ("e.example", 4)]
    assert out.extra == 1


def test_unbound_zones_with_tabs_without_quotes_and_with_comments_are_read() -> None:
    out = read(
        'local-zone:\t"a.example."\talways_nxdomain\nlocal-zone: b.example. static\n'
        '  local-zone: "c.example" always_null # why\nlocal-zone: "d.example" "refuse"\n',
        "unbound",
    )
    assert [n for n, _ in found(out)] == ["a.example", "b.example", "c.example", "d.example"]


def test_scores_are_evidence_and_a_named_column_is_a_confidence() -> None:
    data = "# IPsum\n192.0.2.1\t9\n192.0.2.2 3 80\n192.0.2.3\nbad\tx\n"
    out = read(data, "scored")
    assert out.frame["confidence"].to_list() == [None, None] and out.rejects == {Reject.SYNTAX: 2}
    assert read(data, InputFormat(name="scored", confidence=3)).frame["confidence"].to_list() == [None, 80]


CSV = InputFormat(
    name="csv", value="Host", confidence="score", reason="why", scope="scope", category="cat", where={"use": "yes"}
)


def test_csv_columns_are_found_by_header_and_override_the_feed() -> None:
    out = read(
        "# made today\nuse,host,score,why,scope,cat\n"
        'yes,evil.example,90,"sells ""gold"", and lies",subtree,phishing\n'
        "no,good.example,90,,,\n"
        '"yes", "spaced.example", "120", "", "exact", ""\n'
        "yes,short.example\n",
        CSV,
    )
    assert out.frame.drop("kind").rows() == [
        ("evil.example", True, 3, 90, '{"category":"phishing","reason":"sells \\"gold\\", and lies"}'),
        ("short.example", False, 6, None, None),
        ("spaced.example", False, 5, 100, None),
    ]
    assert out.comments == 3


def test_a_csv_quote_that_does_not_close_costs_its_own_line_only() -> None:
    data = 'domain,why\na.example,"open\nb.example,"closed"\nc.example,a "quote", inside\nd"e,"x\nf.example,"a"b\n'
    out = read(data, InputFormat(name="csv", value="domain"))
    assert [n for n, _ in found(out)] == ["b.example", "c.example"] and out.rejects == {Reject.SYNTAX: 3}


def test_a_csv_record_over_several_lines_is_one_with_the_number_of_its_first() -> None:
    spec = InputFormat(name="csv", value="domain", reason="why")
    out = read(
        'domain,why\na.example,"seen in ""spam"",\n\n# not a comment, but not kept either\nb.example,twice"\n'
        'c.example,once\n"first\nsecond.example",x\nd.example,"x\ny\nz"\n',
        spec,
    )
    assert found(out) == [("a.example", 2), ("c.example", 6), ("d.example", 9)]
    assert json.loads(out.frame["extra"][0]) == {"reason": 'seen in "spam", b.example,twice'}
    assert out.rejects == {Reject.SYNTAX: 1} and out.rejects.lines[Reject.SYNTAX] == [7]
    # The heading, the rest of three records, and what looked like a comment.
    assert (out.lines, out.comments, out.blank) == (11, 6, 1)


def test_a_csv_quote_that_another_opens_or_that_closes_too_late_costs_its_own_line_only() -> None:
    spec = InputFormat(name="csv", value="domain")
    out = read('domain,why\na.example,"open\nb.example,x\n"c.example,open\nd.example,y\n', spec)
    assert found(out) == [("b.example", 3), ("d.example", 5)] and out.rejects == {Reject.SYNTAX: 2}
    rows = "".join(f"n{i}.example,x\n" for i in range(99))
    out = read(f'domain,why\na.example,"open\n{rows}",x\n', spec)
    assert found(out) == [("a.example", 2)] and out.comments == 101 and not out.rejects
    out = read(f'domain,why\na.example,"open\n{rows}z.example,x\n",x\n', spec)
    assert out.frame.height == 100 and out.rejects == {Reject.SYNTAX: 2}


def test_a_csv_record_over_the_end_of_a_block_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = InputFormat(name="csv", value="domain", reason="why")
    prose = "\n".join(f"line {i}" for i in range(40))
    data = "domain,why\n" + "".join(f'n{i}.example,"{prose}"\nm{i}.example,x\n' for i in range(30))
    whole = read(data, spec)
    assert whole.frame.height == 60 and not whole.rejects and whole.comments == 1 + 30 * 39
    monkeypatch.setattr(module, "BLOCK", 500)
    cut = read(data, spec)
    assert cut.frame.equals(whole.frame) and not cut.rejects and cut.comments == whole.comments
    assert ("n9.example", 2 + 9 * 41) in found(cut)


@settings(max_examples=200)
@given(
    st.lists(
        st.sampled_from(['a.example,"x', '"', 'b.example,x"', "c.example,y", 'd.example,"z"', 'x"y', "", '""', "#"])
    ),
    st.integers(1, 5),
    st.booleans(),
)
def test_csv_reads_the_same_wherever_its_blocks_end(rows: list[str], lines: int, header: bool) -> None:
    data = "\n".join((["domain,why"] if header else []) + rows)
    spec = InputFormat(name="csv", value="domain" if header else 1, header=header)
    whole = read(data, spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", 12)
        patch.setattr(module, "BLOCK_LINES", lines)
        cut = read(data, spec)
    assert cut.frame.equals(whole.frame) and cut.rejects == whole.rejects and cut.kinds == whole.kinds
    assert (cut.lines, cut.comments, cut.blank, cut.extra) == (whole.lines, whole.comments, whole.blank, whole.extra)


def test_an_empty_or_missing_csv_cell_is_refused_and_counted() -> None:
    out = read("why,domain\nx,a.example\nx,\nx\n,\n", InputFormat(name="csv", value="domain"))
    assert out.rejects == {Reject.SYNTAX: 3} and out.kinds == {"domain": 1}


def test_an_empty_first_cell_of_a_table_with_tabs_stays_a_cell() -> None:
    out = read("why\tdomain\n\ta.example\nx\tb.example\n", InputFormat(name="csv", value="domain", delimiter="\t"))
    assert found(out) == [("a.example", 2), ("b.example", 3)]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (InputFormat(name="csv", value="host"), "no column 'host' (its header: 'domain, why')"),
        (InputFormat(name="csv", value=5), "has 2 columns and no column 5"),
        (InputFormat(name="csv", value=5, header=False), "no column 5 in any of its rows"),
        (InputFormat(name="csv", value="domain", reason="note"), "no column 'note'"),
        (InputFormat(name="csv", value=0, header=False), "no column 0"),
    ],
)
def test_a_table_that_lost_a_column_is_a_failed_feed(spec: InputFormat, message: str) -> None:
    with pytest.raises(FeedError) as error:
        read("domain,why\nevil.example,x\n", spec)
    assert message in error.value.message


def test_json_lines_lose_only_the_damaged_ones() -> None:
    out = read(
        '{"type":"metadata"}\n{"cidr":"192.0.2.0/24","sblid":"SBL1"}\n{"cidr":"198.51.100.0/24"\n{"cidr":null}\n'
        '{"other":1}\nnot json\n{"cidr":"2001:db8::/32"}\n',
        InputFormat(name="jsonl", value="cidr", skip_if="type", reason="sblid"),
    )
    assert found(out) == [("192.0.2.0/24", 2), ("2001:db8::/32", 7)]
    assert out.comments == 1 and out.rejects == {Reject.SYNTAX: 4}


def test_a_misp_warninglist_gives_the_line_of_each_item() -> None:
    items = ["evil.example", ".dyn.example", "192.0.2.0/24"]
    data = json.dumps({"name": 'a "list" of', "list": items, "type": "string"}, indent=2)
    out = read(data, "misp")
    lines = data.splitlines()
    assert {n for n, _ in found(out)} == {"evil.example", "dyn.example", "192.0.2.0/24"}
    for name, number in found(out):
        assert name in lines[number - 1]


def test_items_of_nothing_are_comments_and_a_number_of_another_kind_is_none() -> None:
    out = read('{"list":["a.example"," ",".",""]}', "misp")
    assert (out.lines, out.comments) == (4, 3)
    rule = 'alert dns any any -> any any (dns.query; content:"a.example"; bsize:{}; sid:8;)\n'
    for number, accepted in (("9", 1), (" 9 ", 1), ("1\x1f", 0), ("\u0669", 0), ("9" * 5_000, 0)):
        assert read(rule.format(number), "suricata").accepted == accepted


def test_a_misp_list_on_one_line_counts_its_items() -> None:
    many = "\n" * 9
    assert found(read('{"list":["a.example","b.example"]}' + many, "misp")) == [("a.example", 1), ("b.example", 2)]


@pytest.mark.parametrize("data", [b"{}", b'{"list":[1]}', b'{"list":["\xff"]}', b'{"a":' + b"[" * 200_000, b""])
def test_what_is_no_warninglist_is_a_failed_feed(data: bytes) -> None:
    with pytest.raises(FeedError, match="not a MISP warninglist"):
        parse(data, feed("misp"))


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("# Title\n0.0.0.0 a.example\n127.0.0.1 b.example\n", "hosts"),
        ("[Adblock Plus]\n! Title\n||a.example^\n||b.example^\n@@||c.example^\n", "adblock"),
        ('# x\nserver:\nlocal-zone: "a.example" always_null\nlocal-zone: "b.example" always_null\n', "unbound"),
        ("local=/a.example/\naddress=/b.example/#\n", "dnsmasq"),
        ("*.a.example\n.b.example\n", "wildcard"),
        ("192.0.2.1\t3\n192.0.2.2\t1\n", "scored"),
        ("a.example\n192.0.2.1\nhttp://c.example/x\n", "lines"),
        ("\n\n! only\n# comments\n", "lines"),
        ("", "lines"),
    ],
)
def test_a_format_is_guessed_from_its_lines(data: str, name: str) -> None:
    assert read(data).format == name


def test_a_guess_waits_for_the_first_line_that_says_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 10)
    monkeypatch.setattr(module, "BLOCK_LINES", 2)
    out = read("\n\n\n\n\n\n# one\n# two\n! three\n\n0.0.0.0 evil.example\n")
    assert out.format == "hosts" and found(out) == [("evil.example", 11)]


def test_json_lines_without_a_key_say_what_to_write() -> None:
    with pytest.raises(FeedError) as error:
        read('{"x":"192.0.2.0/24"}\n{"x":"198.51.100.0/24"}\n')
    assert error.value.hint and 'value = "the key"' in error.value.hint


def test_first_takes_the_lines_at_the_top() -> None:
    out = read("z.example\na.example\nm.example\n", "lines", first=2)
    assert out.frame["name"].to_list() == ["a.example", "z.example"]
