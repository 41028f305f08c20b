"""Format by format, files as publishers write them: what is listed, from which line, and what is not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from installation import World
from test_formats import feed, found, read

from blocklist.catalog import InputFormat
from blocklist.cli import group
from blocklist.errors import FeedError, FeedGated
from blocklist.ingest import parse as module
from blocklist.ingest.parse import parse
from blocklist.names import Reject

ZONE = """\
$TTL 2h
$ORIGIN rpz.test.
@  3600 IN SOA localhost. root.localhost. (
        1 ; serial
        2h 30m 1w 1h )
        NS localhost.
; blocked
evil.example         CNAME .
*.evil.example       CNAME .
nodata.example  60 IN CNAME *.
\t\tTXT "why (not)"
drop.example.rpz.test.  IN 60 CNAME rpz-drop.
garden.example       CNAME walled.garden.test.
null.example         A     0.0.0.0
own.example          A     192.0.2.80
good.example         CNAME rpz-passthru.
*.good.example       CNAME .
good.example         CNAME .
24.0.2.0.192.rpz-ip  CNAME .
128.1.zz.db8.2001.rpz-ip CNAME .
outside.other.test.  CNAME .
$ORIGIN sub.rpz.test.
below CNAME .
"""


def test_a_zone_lists_what_its_actions_block_and_nothing_that_they_pass() -> None:
    out = read(ZONE)
    assert out.format == "rpz" and "zone file" in out.why
    assert out.frame.select("name", "subtree", "line").rows() == [
        ("192.0.2.0/24", False, 19),
        ("2001:db8::1", False, 20),
        ("below.sub", False, 23),
        ("drop.example", False, 12),
        ("evil.example", True, 8),
        ("garden.example", False, 13),
        ("nodata.example", False, 10),
        ("null.example", False, 14),
    ]
    assert out.rejects == {Reject.UNSUPPORTED: 5, Reject.SYNTAX: 1}


def test_a_zone_that_is_cut_inside_a_record_reads_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read(ZONE, "rpz")
    for size in (1, 2, 3, 5):
        monkeypatch.setattr(module, "BLOCK", 8)
        monkeypatch.setattr(module, "BLOCK_LINES", size)
        cut = read(ZONE, "rpz")
        assert cut.frame.equals(whole.frame) and cut.rejects == whole.rejects and cut.comments == whole.comments


def test_a_zone_with_absolute_owners_is_read_below_its_soa() -> None:
    out = read(
        "rpz.test. 60 IN SOA a. b. 1 2 3 4 5\nrpz.test. 60 IN NS a.\nevil.example.rpz.test. 60 IN CNAME .\n", "rpz"
    )
    assert found(out) == [("evil.example", 3)] and out.comments == 2


def test_a_record_that_stays_open_is_refused_with_the_lines_that_it_swallows() -> None:
    out = read('a.example TXT ( "x"\nb.example CNAME .\n', "rpz")
    assert out.frame.is_empty() and out.rejects == {Reject.UNSUPPORTED: 2}


ADBLOCK = """\
[Adblock Plus 2.0]
! Title: test
# a comment
#### also one ####
||evil.example^
||end.example^|
|https://exact.example^
|exact2.example^
bare.example
0.0.0.0 hosts.example hosts2.example # two
127.0.0.1 localhost
||important.example^$important,document
||nx.example^$dnsrewrite=NXDOMAIN;;
||null.example^$dnsrewrite=NOERROR;A;0.0.0.0
||undone.example^
||undone.example^$important,badfilter
@@||good.example^
@@||good.example^$important
||third.example^$third-party
||client.example^$client=192.0.2.5
||type.example^$dnstype=AAAA
||deny.example^$denyallow=ok.deny.example
||moved.example^$dnsrewrite=192.0.2.80
||*.stars.example^
||path.example/x^
/ads[0-9]+/
##.banner
#@#.banner
example.com##.ad
"""


def test_adblock_rules_list_hosts_and_nothing_that_they_narrow_or_except() -> None:
    out = read(ADBLOCK)
    assert out.format == "adblock"
    assert out.frame.select("name", "subtree").rows() == [
        ("bare.example", False),
        ("end.example", True),
        ("evil.example", True),
        ("exact.example", False),
        ("exact2.example", False),
        ("hosts.example", False),
        ("hosts2.example", False),
        ("important.example", True),
        ("null.example", True),
        ("nx.example", True),
    ]
    assert out.rejects == {Reject.UNSUPPORTED: 15} and out.comments == 5 and out.extra == 1


def test_white_space_in_an_adblock_host_is_syntax() -> None:
    rules = ["||evil.example  ^", "||evil example^", "|https://evil.example ^", "evil.example and more"]
    # These may hold white space.
    rules += ["||csp.example^$csp=script-src 'none'", "example.com##.a .b", "/ads [0-9]+/", "@@||good .example^"]
    out = read("||a.example^\n" + "\n".join(rules) + "\n", "adblock")
    assert out.frame["name"].to_list() == ["a.example"]
    assert out.rejects == {Reject.SYNTAX: 4, Reject.UNSUPPORTED: 4}
    assert sorted(out.rejects.lines[Reject.SYNTAX]) == [2, 3, 4, 5]


def test_ranges_become_the_fewest_networks_wherever_an_address_may_stand() -> None:
    for spec, line in (
        ("lines", "192.0.2.1-192.0.2.6"),
        ("lines", "192.0.2.1 - 192.0.2.6 # x"),
        (InputFormat(name="csv", value=1, header=False), "192.0.2.1-192.0.2.6,x"),
        ("dshield", "192.0.2.1\t192.0.2.6\tn/a"),
    ):
        out = read(line + "\nevil.example\tx\n" if spec == "dshield" else line + "\n", spec)
        assert [n for n, _ in found(out)][:4] == ["192.0.2.1", "192.0.2.2/31", "192.0.2.4/31", "192.0.2.6"]
        assert out.extra == 3


def test_ranges_that_can_never_be_right_are_refused() -> None:
    out = read(
        "192.0.2.9-192.0.2.1\n0.0.0.0-255.255.255.255\n9.0.0.0-11.0.0.0\n192.0.2.1-2001:db8::1\n1.1.1.1-1.1.1.300\n"
        "2001:db8::1-2001:db8::2\n",
        "lines",
    )
    assert found(out) == [("2001:db8::1", 6), ("2001:db8::2", 6)]
    assert out.rejects == {
        Reject.BAD_ADDRESS: 2,
        Reject.WHOLE_INTERNET: 1,
        Reject.NOT_GLOBAL: 1,
        Reject.SYNTAX: 1,
    }
    assert out.rejects.lines[Reject.WHOLE_INTERNET] == [2]


def test_a_flood_of_wide_ranges_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    from blocklist.ingest import normalize

    monkeypatch.setattr(normalize, "_MAX_CIDRS", 100)
    with pytest.raises(FeedError, match="fall apart"):
        read("".join(f"11.0.0.{i}-99.255.255.254\n" for i in range(50)), "lines")


def test_dshield_rows_are_networks_and_the_headings_a_comment() -> None:
    out = read(
        "# c\nStart\tEnd\tNetmask\tAttacks\n192.0.2.0\t192.0.2.255\t24\t99\tEXAMPLE\tXX\tx@x.example\nx\n", "dshield"
    )
    assert found(out) == [("192.0.2.0/24", 3)] and out.comments == 2 and out.rejects == {Reject.SYNTAX: 1}


def test_urls_may_lack_a_scheme_and_names_be_made_harmless() -> None:
    out = read(
        "hxxp://evil[.]example/a\nbad.example/b?c=d\n192.0.2.1:8080/x\n192.0.2.0/24\nhost.example:99\nplain.example\n",
        "urls",
    )
    assert found(out) == [
        ("//evil.example/a", 1),
        ("//bad.example/b?c=d", 2),
        ("//192.0.2.1:8080/x", 3),
        ("192.0.2.0/24", 4),
        ("host.example", 5),
        ("plain.example", 6),
    ]


def test_maltrail_trails_lose_their_port_and_a_path_makes_a_url() -> None:
    out = read(
        "# Copyright (c) Maltrail developers\n\nevil.example\n192.0.2.1:443\nbad.example:8080\nw.example/gate.php\n"
        "/x.sh\n198.51.100.0/24\n2001:db8::1\n"
    )
    assert out.format == "maltrail" and out.why == "its comments speak of Maltrail"
    assert [n for n, _ in found(out)] == [
        "evil.example",
        "192.0.2.1",
        "bad.example",
        "//w.example/gate.php",
        "198.51.100.0/24",
        "2001:db8::1",
    ]
    assert out.rejects == {Reject.UNSUPPORTED: 1}


@pytest.mark.parametrize("mark", ["\x1c", "\x1d", "\x1e", "\x1f"])
def test_an_origin_with_a_control_in_it_is_no_reason_to_fail(mark: str) -> None:
    zone = f"$TTL 60\na.example CNAME .\n$ORIGIN rpz{mark}x.test.\nb.example CNAME .\n"
    assert "a.example" in [name for name, _ in found(read(zone, InputFormat(name="rpz")))]


TRAILS = """\
# Copyright (c) 2014-2026 Maltrail developers (https://github.example/maltrail/)

# Aliases: bluewolf, redfox
# MITRE: https://attack.example/groups/G0001/

early.example

# Reference: https://report.example/1
# Reference: https://report.example/second

one.example
192.0.2.1:443 # Reference: https://report.example/no

two.example/gate.php

# Note: moved here
# Referecne: http://report.example/2 (# 2026-11-29)
# BANNER_0_HASH-HOST=e315d6ad1e2c4d68dcc7fe74f7af3755

three.example

# Generic

four.example

# Reference:
five.example
# Reference: # Reference: https://report.example/3#part
six.example
# Reference: https://report.example/unused
"""
WHENCE = {
    "early.example": None,
    "one.example": "https://report.example/1",
    "192.0.2.1": "https://report.example/1",
    "//two.example/gate.php": "https://report.example/1",
    "three.example": "http://report.example/2",
    "four.example": None,
    "five.example": None,
    "six.example": "https://report.example/3#part",
}


@pytest.mark.parametrize("lines", [1, 2, 3, 5, 500_000])
def test_maltrail_trails_carry_the_reference_above_them(lines: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 10 if lines < 500_000 else module.BLOCK)
    monkeypatch.setattr(module, "BLOCK_LINES", lines)
    out = read(TRAILS, InputFormat(name="maltrail"))
    said = dict(out.frame.select("name", "extra").iter_rows())
    assert {n: json.loads(x)["reference"] if x else None for n, x in said.items()} == WHENCE
    rows = TRAILS.splitlines()
    assert all(name.rpartition("//")[2] in rows[line - 1] for name, line in found(out))
    assert (out.lines, out.comments, out.blank) == (len(rows), 12, rows.count(""))


def test_a_trails_reference_is_shown_by_why_and_changes_with_the_list(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("trails", TRAILS, format="maltrail")
    assert world.update().code == 0
    assert "reference https://report.example/1" in world.run("why", "http://two.example/gate.php").out
    assert world.why("three.example")["listings"][0]["row"]["reference"] == "http://report.example/2"
    # The reference's own line changes, and none of the trails.
    world.lines("trails", TRAILS.replace("https://report.example/1\n", "https://report.example/9\n"))
    assert world.update().code == 0
    assert "reference https://report.example/9" in world.run("why", "192.0.2.1").out


def test_the_items_of_a_document_are_its_lines() -> None:
    items = ["a.example", 7, None, ["b.example"], {"v": "c.example"}, {"v": "192.0.2.1-192.0.2.6"}, {}, {"v": "x y"}]
    out = read(json.dumps({"on": items}), InputFormat(name="json", value="v"))
    assert out.frame["name"].to_list() == [
        "192.0.2.1",
        "192.0.2.2/31",
        "192.0.2.4/31",
        "192.0.2.6",
        "a.example",
        "c.example",
    ]
    assert (out.lines, out.accepted, out.extra) == (8, 6, 3) and out.rejects == {Reject.SYNTAX: 5}
    out = read(json.dumps({"list": [".a.example", ".", "", "b.example", "a.example"]}))
    assert out.format == "misp" and (out.lines, out.accepted, out.comments, out.extra) == (5, 3, 2, 0)


def test_rules_keep_their_message_number_and_page() -> None:
    out = read(
        'alert dns $HOME_NET any -> any any (msg:"C2 \\"x\\""; dns.query; dotprefix; content:".evil.example"; nocase; '
        "endswith; reference:url,page.example/1; sid:77; rev:1;)\n"
        'alert ip [192.0.2.1,198.51.100.0/24] any -> $HOME_NET any (msg:"scan"; sid:78;)\n'
        'alert tls any any -> any any (tls.sni; content:"a|2e|example"; startswith; endswith; sid:79;)\n'
        "not a rule\n"
    )
    assert out.format == "suricata"
    assert out.frame.select("name", "subtree").rows() == [
        ("192.0.2.1", False),
        ("198.51.100.0/24", False),
        ("a.example", False),
        ("evil.example", True),
    ]
    extra = dict(out.frame.select("name", "extra").rows())
    assert json.loads(extra["evil.example"]) == {"reason": 'C2 "x" (sid 77)', "reference": "http://page.example/1"}
    assert out.rejects == {Reject.SYNTAX: 1} and out.extra == 1


@pytest.mark.parametrize(
    ("document", "spec", "names"),
    [
        (["a.example", "b.example"], InputFormat(name="json"), ["a.example", "b.example"]),
        ({"x": {"y/z": [{"ip": "192.0.2.1"}]}}, InputFormat(name="json", pointer="/x/y~1z", value="ip"), ["192.0.2.1"]),
        (
            {"1": [{"d": "a.example"}], "2": [{"d": "b.example"}]},
            InputFormat(name="json", value="d"),
            ["a.example", "b.example"],
        ),
        (
            {"1": {"d": "a.example"}, "2": {"d": "b.example"}},
            InputFormat(name="json", value="d"),
            ["a.example", "b.example"],
        ),
        (
            {"p": [{"v4": "192.0.2.0/24"}, {"v6": "2001:db8::/32"}], "n": 1},
            InputFormat(name="json", pointer="/p", value=["v4", "v6"]),
            ["192.0.2.0/24", "2001:db8::/32"],
        ),
        (
            {"a": ["192.0.2.1"], "b": ["192.0.2.2"]},
            InputFormat(name="json", pointer=["/a", "/b"]),
            ["192.0.2.1", "192.0.2.2"],
        ),
        (
            [{"i": "192.0.2.1:443"}, {"i": "evil.example:80"}],
            InputFormat(name="json", value="i", ports=True),
            ["192.0.2.1", "evil.example"],
        ),
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_json_documents_give_up_their_items(
    document: object, spec: InputFormat, names: list[str], indent: int | None
) -> None:
    data = json.dumps(document, indent=indent)
    out = read(data, spec)
    assert sorted(out.frame["name"].to_list()) == sorted(names)
    lines = data.splitlines()
    for name, number in found(out):
        if indent:
            assert name in lines[number - 1]


def test_json_items_carry_more_and_may_be_left_out() -> None:
    items = [
        {"d": "a.example", "st": "online", "c": 80, "t": ["x", "y"]},
        {"d": "b.example", "st": "offline"},
        {"d": None},
        7,
        {"meta": 1, "st": "online"},
    ]
    spec = InputFormat(
        name="json", value="d", confidence="c", reason="t", where={"st": ["online", "new"]}, skip_if="meta"
    )
    out = read(json.dumps(items), spec)
    assert out.frame.select("name", "confidence", "extra").rows() == [("a.example", 80, '{"reason":"x, y"}')]
    assert out.comments == 3 and out.rejects == {Reject.SYNTAX: 1} and out.lines == 5


@pytest.mark.parametrize(
    ("data", "spec", "message"),
    [
        (b"[", InputFormat(name="json"), "not a JSON document"),
        (b'{"a":1}', InputFormat(name="json", pointer="/b"), "has no '/b'"),
        (b"[[]]", InputFormat(name="json", pointer="/3"), "no item '3'"),
        (b'[{"a":1}]', InputFormat(name="json"), "which key holds the indicator"),
        (b"[" * 100_000, InputFormat(name="json"), "not a JSON document"),
        (b'{"a":5}', InputFormat(name="json", pointer="/a"), "not a JSON document"),
    ],
)
def test_a_document_of_another_form_is_a_failed_feed(data: bytes, spec: InputFormat, message: str) -> None:
    with pytest.raises(FeedError) as error:
        parse(data, feed(spec))
    assert message in error.value.message


@pytest.mark.parametrize(
    ("delimiter", "quote", "line"),
    [
        (";", '"', '"a;b";evil.example;x'),
        ("|", "", 'a"b  |  evil.example  |  x'),
        ("\t", '"', "a\tevil.example\tx"),
        (" ", '"', "a    evil.example \t x"),
        (",", "'", "'a,b','evil.example',x"),
        (",", '"', '"a ""b"", c", "evil.example", "x"'),
    ],
)
def test_tables_of_every_dialect(delimiter: str, quote: str, line: str) -> None:
    spec = InputFormat(name="csv", value=2, header=False, delimiter=delimiter, quote=quote, where={"3": ["x", "y"]})
    before, _, after = line.rpartition("x")
    out = read(f"{line}\n{line}\n{before}z{after}\n", spec)
    assert out.kinds == {"domain": 2} and out.frame["name"].to_list() == ["evil.example"] and out.comments == 1


@pytest.mark.parametrize(
    ("data", "name", "word"),
    [
        ('[{"url":"http://evil.example/x"}]', "json", "objects with 'url'"),
        ('{"data":[{"domain":"evil.example"}],"count":1}', "json", "the list 'data'"),
        ('{"list":["evil.example"],"name":"x"}', "misp", "warninglists"),
        ('{"cidr":"192.0.2.0/24"}\n{"cidr":"198.51.100.0/24"}\n', "jsonl", "the key 'cidr'"),
        ('# c\n"1","evil.example","x"\n"2","192.0.2.1","y"\n', "csv", "the 2. look like"),
        ("id;domain;why\n1;evil.example;x\n", "csv", "semicolons"),
        ("http://evil.example/x\nhttps://b.example/\n", "urls", "https://host/path"),
        ("192.0.2.0\t192.0.2.255\t24\t5\n", "dshield", "length"),
        ("evil.example\n192.0.2.1:80\n/x.php\n", "maltrail", "address:port"),
        ("evil.example\nb.example\n", "lines", "each is one indicator"),
    ],
)
def test_auto_says_what_it_chose_and_why(data: str, name: str, word: str) -> None:
    out = read(data)
    assert out.format == name and word in out.why and out.accepted > 0


def test_an_error_in_json_is_gated_and_not_read_as_a_list() -> None:
    with pytest.raises(FeedGated):
        parse(b'{"error":"quota exceeded","urls":["http://evil.example/x"]}', feed("auto"))


# feeds test


def run(tmp_path: Path, *words: str) -> tuple[int, str]:
    (tmp_path / "blocklist.toml").touch()
    done = CliRunner().invoke(
        group, ["feeds", "test", *words, "--config", str(tmp_path / "blocklist.toml")], standalone_mode=False
    )
    assert done.exception is None, done.exception
    return done.return_value or 0, done.output


def test_a_trial_shows_format_reason_sum_and_refused_lines_safely(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("# c\n\nevil.example\nbad name\x1b[31m\nco.uk\n10.0.0.1\n")
    code, text = run(tmp_path, str(tmp_path / "list.txt"))
    assert code == 0, text
    assert "read as lines: no other format looks like its lines" in text
    assert "line 4: bad name\\x1b[31m" in text and "line 6: 10.0.0.1" in text and "6 lines in all" in text
    assert "guards would hold 1: public-suffix" in text and "the gate would let it pass" in text
    assert not (tmp_path / "var").exists()


def test_a_trial_speaks_json_and_tells_the_gate_by_its_status(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("<html><body>moved</body></html>")
    code, text = run(tmp_path, str(tmp_path / "list.txt"), "--json")
    assert code == 3
    said = json.loads(text.splitlines()[0])
    assert "web page" in said["gate"] and said["entries"] == 0
    (tmp_path / "list.txt").write_text("evil.example\nx y\n" * 3)
    code, text = run(tmp_path, str(tmp_path / "list.txt"), "--json", "--examples", "1", "--as", "cert-pl")
    said = json.loads(text.splitlines()[0])
    assert code == 0 and said["adds_up"] and said["feed"] == "cert-pl" and said["why"] == "the feed says so"
    assert said["refused"] == {"syntax": [{"line": 2, "text": "x y"}]}


_PIECES = [*(bytes([one]) for one in b"#;\t\r\0\xff, "), b"a.example", b"0.0.0.0 ", b"x" * 40, b" " * 40, b"\t" * 40]
_TABLE = InputFormat(name="csv", value=1, delimiter="\t")


@given(
    lines=st.lists(st.lists(st.sampled_from([*_PIECES, "ü.example".encode()]), max_size=8).map(b"".join), max_size=8),
    fmt=st.sampled_from(["auto", "lines", "hosts", "rpz", "adblock", _TABLE]),
    ended=st.booleans(),
)
def test_a_line_that_no_block_takes_is_told_of_as_if_it_had_not_been_cut(
    lines: list[bytes], fmt: Any, ended: bool
) -> None:
    data = b"\n".join(lines) + b"\n" * ended

    def told(cut: Callable[..., bytes]) -> tuple[Any, ...]:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (("BLOCK", 50), ("MAX_LINE", 60), ("_cut", cut)):
                patch.setattr(module, name, value)
            try:
                done = parse(data, feed(fmt))
            except FeedError as error:  # a table without that column
                return (error.message,)
        account = (done.format, done.lines, done.blank, done.comments, done.extra, done.kinds, done.rejects)
        return (*account, done.rejects.lines, done.frame.rows())

    assert told(module._cut) == told(lambda line, blank, *, start: line)


def test_a_name_behind_more_blanks_than_a_line_may_have_is_read_as_any_other() -> None:
    out = read(b" " * 8_000 + b"a.example\n")
    assert out.format == "lines" and out.frame.rows()[0][0] == "a.example"


def test_one_line_of_a_hundred_megabytes_costs_little_more_than_itself() -> None:
    """Columns of it would take a gigabyte. In a process of its own, whose peak is its own."""
    program = """
import resource
from blocklist.catalog import Feed
from blocklist.ingest.parse import parse

feed = Feed(title="x", url="file:x", category="malware", format="auto")
parse(b"a.example\\n" * 100, feed)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
done = parse(b"a.example\\n" + b"x" * 100_000_000 + b"\\nb.example\\n# c", feed)
print(done.lines, done.comments, dict(done.rejects), done.frame.select("name", "line").rows())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    told, kilobytes = ran.stdout.splitlines()
    assert told == "4 1 {<Reject.TOO_LONG: 'too-long'>: 1} [('a.example', 1), ('b.example', 3)]"
    assert int(kilobytes) < 350_000
