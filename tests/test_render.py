"""Every format against its golden file, and the last gate against whatever feeds may send."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import random
from pathlib import Path

import polars as pl
import pytest
from engines.lists import entries, rendered, select
from hypothesis import given, settings
from hypothesis import strategies as st

from blocklist.errors import ConfigError, ReleaseError
from blocklist.publish import descriptor, frame
from blocklist.publish.gate import require_safe
from blocklist.publish.parts import CHUNK
from blocklist.publish.render import Sink, render
from blocklist.publish.sample import selection as every_meaning
from blocklist.publish.selection import Selection

GOLDEN = Path(__file__).parent / "golden"
FORMATS = descriptor.builtin()

LISTED = entries(
    block=["evil.example", "pass.example", "xn--fsqu00a.example", "back.good.evil.example"],
    exact=["exact.example", "_dmarc.exact.example", "-dash.example"],
    allow=["good.evil.example", "ok.deep.er.evil.example"],
    exact_allow=["ok.pass.example"],
)
NETWORKS = [
    ("192.0.2.0/24", "inbound"),
    ("198.51.100.7", "outbound"),
    ("203.0.113.0/25", "both"),
    ("2001:db8:bad::/48", "outbound"),
    ("2001:db8:a77a::1", "inbound"),
]
ROWS = pl.DataFrame(
    {
        "indicator": ["evil.example", "198.51.100.7", "https://evil.example/a?b=1,2"],
        "kind": ["domain", "ipv4", "url"],
        "scope": ["subtree", "exact", "exact"],
        "category": ["phishing", "c2", "malware"],
        "confidence": [97, 80, 100],
        "feeds": ["cert-pl,urlhaus-hosts", "feodo", "urlhaus"],
        "since": ["2026-11-24T10:00:00Z"] * 3,
    }
)


def sample(fmt: descriptor.Format) -> Selection:
    """The list above, less what the target can't say, as the selecting stage gives it."""
    listed = {
        (name, subtree): block
        for (name, subtree), block in LISTED.items()
        if (fmt.takes_subtree if subtree else fmt.takes_exact) and (block or fmt.takes_allow)
    }
    found = select(listed, NETWORKS)
    return Selection(domains=found.domains, between=found.between, networks=found.networks, rows=ROWS)


FIRST = ("cidr", "csv", "dnsmasq", "domains", "hosts", "ipset", "jsonl", "nftables", "rpz", "squid", "unbound")
TEXTS = sorted(name for name, fmt in FORMATS.items() if name not in FIRST and not fmt.binary)


@pytest.mark.parametrize("name", TEXTS)
def test_golden_file_of_the_sample(name: str) -> None:
    """What `blocklist formats test` shows, byte for byte."""
    text, account = rendered(name, every_meaning(FORMATS[name])[0])
    file = GOLDEN / f"{name}.txt"
    if os.environ.get("BLOCKLIST_WRITE_GOLDEN") == "1":
        file.write_bytes(text)
    assert text == file.read_bytes(), "if it is meant: BLOCKLIST_WRITE_GOLDEN=1, and read the difference"
    assert text.isascii() and text.endswith(b"\n") and b"\r" not in text
    assert account.lines == text.count(b"\n") and account.size == len(text)


@pytest.mark.parametrize("name", FIRST)
def test_golden_file(name: str) -> None:
    options = {"serial": 1795510800, "origin": "rpz.example.net"} if name == "rpz" else {}
    text, account = rendered(name, sample(FORMATS[name]), **options)
    file = GOLDEN / f"{name}.txt"
    if os.environ.get("BLOCKLIST_WRITE_GOLDEN") == "1":
        file.write_bytes(text)
    assert text == file.read_bytes(), "if it is meant: BLOCKLIST_WRITE_GOLDEN=1, and read the difference"
    assert account.lost == {}
    assert text.isascii() and text.endswith(b"\n") and b"\r" not in text
    assert account.lines == text.count(b"\n") and account.size == len(text)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_the_same_list_gives_the_same_bytes(name: str) -> None:
    assert rendered(name, sample(FORMATS[name])) == rendered(name, sample(FORMATS[name]))


def test_what_a_target_cannot_say_is_left_out_and_counted() -> None:
    text, account = rendered("dnsmasq", select(LISTED))
    assert account.lost == {"allow": 1, "exact": 3} and account.entries == 6
    assert b"exact" not in text.partition(b"\n")[2]
    assert rendered("hosts", select(LISTED))[1].lost == {"allow": 3, "subtree": 4}


def test_the_body_is_digested_without_serials_wherever_they_stand() -> None:
    out = io.BytesIO()
    # Much before the first one: its digest is still being taken when that comes.
    texts: list[tuple[bytes, bytes | None]] = [(b"a\n" * 2**21, None)] * 3
    texts += [(b"serial 7\n", b"serial 0\n"), (b"b\n" * 9, None), (b"end 7\n", b"end 0\n")]
    with Sink(out) as sink:
        for data, unserialled in texts:
            sink.write_bytes(data, unserialled)
        sink.finish()
    wrote = sink.rendered(0, 0, {})
    whole, body = b"".join(data for data, _ in texts), b"".join(other or data for data, other in texts)
    assert out.getvalue() == whole and (wrote.lines, wrote.size) == (3 * 2**21 + 11, len(whole))
    assert wrote.digest == hashlib.sha256(whole).hexdigest()
    assert wrote.body_digest == hashlib.sha256(body).hexdigest()


def test_chunks_join_without_a_seam() -> None:
    names = [f"n{number:06d}.example" for number in range(CHUNK + 3)]
    frame = pl.DataFrame({"name": names}).with_columns(subtree=pl.lit(False), block=pl.lit(True))
    text, account = rendered("domains", Selection(domains=frame))
    assert text.decode().splitlines() == names and account.records == len(names)


HOSTILE = [
    *('evil.com" always_nxdomain', "evil.com\ninclude: /etc/passwd", "a/8.8.8.8", "a/b", "#", "*", "*.com"),
    *(
        "$INCLUDE /etc/passwd",
        "$GENERATE 1-5 x$.com",
        "$ORIGIN com.",
        "a;b",
        "ev(il",
        "evil com",
        "evil.com.",
    ),
    *(
        ".evil.com",
        "a..b",
        "",
        ".",
        "a\\046b",
        "@",
        "é.example",
        "a\x00b",
        "a\tb",
        "a\r",
        "EVIL.example",
        "{name}",
    ),
    *(
        "8.0.0.0.127.rpz-client-ip",
        "x.rpz-passthru",
        "32.1.2.0.192.rpz-ip",
        "rpz-drop",
        "=cmd|x",
        "a'b",
        "a`id`",
    ),
    *("x" * 64, "x" * 64 + ".example", "evil.com\x1b[2J", "evil.com\u202emoc.doog"),
    *("{{ 7 * 7 }}", "a}; flush ruleset", "a\n\nb", "-n -i"),
]


@pytest.mark.parametrize("bad", HOSTILE)
@pytest.mark.parametrize("name", ["rpz", "hosts", "domains", "dnsmasq", "unbound", "squid"])
def test_no_hostile_name_gets_through_the_last_gate(name: str, bad: str) -> None:
    subtree = FORMATS[name].takes_subtree
    frame = pl.DataFrame({"name": ["fine.example", bad], "subtree": [subtree] * 2, "block": [True] * 2})
    out = io.BytesIO()
    with pytest.raises(ReleaseError, match=r"domains, row [0-9]+: ") as caught:
        render(FORMATS[name], Selection(domains=frame), {}, out)
    assert str(caught.value).isascii() and str(caught.value).isprintable()
    body = out.getvalue().decode("ascii").splitlines()
    # The chunk with the bad name was not written: no line of it, not even the good name beside it.
    assert not any("fine.example" in line for line in body)


NAME_LETTERS = "abcxyz019-_"


def test_thousands_of_altered_names_are_refused_and_named() -> None:
    rng = random.Random(13)
    alphabet = [chr(code) for code in range(256) if chr(code) not in NAME_LETTERS + "bdefghijklmnopqrstuvw2345678."]
    for _ in range(5000):
        place = rng.randrange(4)
        name = list("".join(rng.choices(NAME_LETTERS, k=8)) + ".example")
        name.insert(rng.randrange(len(name) + 1), rng.choice(alphabet))
        names = ["a.example", "b.example", "c.example"]
        names.insert(place, "".join(name))
        with pytest.raises(ReleaseError, match=f"names, row {place + 1:,}: "):
            require_safe(pl.Series("name", names), "name", "names")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(alphabet="ab.-_\n A", max_size=70), max_size=6))
def test_the_quick_gate_for_names_agrees_with_the_plain_rule(names: list[str]) -> None:
    def fine(name: str) -> bool:
        labels = name.split(".")
        return all(0 < len(label) < 64 and set(label) <= set("ab-_") for label in labels) and len(name) < 254

    series = pl.Series("name", names, dtype=pl.String)
    if all(map(fine, names)):
        require_safe(series, "name", "names")
    else:
        with pytest.raises(ReleaseError):
            require_safe(series, "name", "names")


@pytest.mark.parametrize(
    "bad",
    [
        *(
            "010.0.0.1",
            "10.0.0.1; flush ruleset",
            "localhost",
            "0.0.0.0/0",
            "10.0.0.0/08",
            "10.0.0",
            "1.2.3.4\n",
        ),
        *(
            "10.0.0.1-10.0.0.9",
            "!10.0.0.1",
            "2001:db8::%eth0",
            "2001:DB8::1",
            "10.0.0.1 ",
            "",
            "10.0.0.0/",
            "evil.com",
        ),
    ],
)
@pytest.mark.parametrize("name", ["nftables", "ipset", "cidr", "rpz"])
def test_no_hostile_network_gets_through(name: str, bad: str) -> None:
    selection = select({}, [("192.0.2.1", "outbound"), (bad, "outbound")])
    options = {"addresses": True} if name == "rpz" else {}
    with pytest.raises(ReleaseError, match="networks, row 2: " if name in ("cidr", "rpz") else "networks, row "):
        rendered(name, selection, **options)


def test_a_null_is_refused_too() -> None:
    with pytest.raises(ReleaseError, match="row 2: None"):
        require_safe(pl.Series("name", ["a.example", None]), "name", "names")


def test_csv_has_no_formula_and_reads_back() -> None:
    cells = ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", 'a"b,c\nd', "é\x1b[2J"]
    rows = pl.DataFrame({"indicator": cells, "kind": ["domain"] * len(cells)}).with_columns(
        scope=pl.lit("exact"),
        category=pl.lit("c2"),
        confidence=pl.lit(1, pl.Int64),
        feeds=pl.lit("a,b"),
        since=pl.lit(None, pl.String),
    )
    text, account = rendered("csv", Selection(rows=rows))
    read = list(csv.reader(io.StringIO(text.decode())))
    assert account.lines == len(cells) + 1 == len(read)
    assert all(row[0][0] == "'" for row in read[1:7])
    assert read[7][0] == 'a"b,c?d' and read[8][0] == "??[2J" and read[1][5] == "a,b"
    objects = rendered("jsonl", Selection(rows=rows))[0].decode().splitlines()
    assert [json.loads(line)["indicator"] for line in objects] == cells
    assert all(
        line.isascii() and line.isprintable() and list(json.loads(line)) == sorted(json.loads(line)) for line in objects
    )
    assert json.loads(objects[0])["feeds"] == ["a", "b"] and json.loads(objects[0])["since"] is None


def test_a_list_longer_than_the_target_takes_is_held() -> None:
    import msgspec

    small = msgspec.structs.replace(FORMATS["domains"], max_entries=1)
    with pytest.raises(ReleaseError, match="2 entries are more than the 1"):
        render(small, select(entries(exact=["a.example", "b.example"])), {}, io.BytesIO())


def describe(folder: Path, text: str, name: str = "mine.toml") -> descriptor.Format:
    file = folder / name
    file.write_text(text)
    return descriptor.load(file)


PLAIN = 'title = "Mine"\nkinds = ["domain"]\n'


def test_a_format_of_ones_own_needs_no_code(tmp_path: Path) -> None:
    fmt = describe(
        tmp_path,
        PLAIN
        + 'suffix = ".{name} 1;"\nexact = "{name} 1;"\nallow_suffix = ".{name} 0;"\nunwritable = "^-"\n'
        + 'header = "# {{ title }} for {{ options.zone }}: {{ entries }}"\nfooter = "# end {{ serial }}"\n'
        + '[options.zone]\ntype = "text"\ndefault = "lan"\n',
    )
    assert (fmt.name, fmt.takes_subtree, fmt.takes_exact, fmt.takes_allow) == ("mine", True, True, True)
    out = io.BytesIO()
    listed = entries(block=["evil.example"], exact=["-x.example", "y.example"], allow=["ok.evil.example"])
    account = render(fmt, select(listed), {"zone": "dmz", "serial": 9}, out)
    assert out.getvalue().decode().splitlines() == [
        "# Mine for dmz: 3",
        ".evil.example 1;",
        "y.example 1;",
        ".ok.evil.example 0;",
        "# end 9",
    ]
    assert account.lost == {"unwritable": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title = 'x", "mine.toml: is not TOML"),
        (PLAIN + 'exat = "{name}"', "exat: unknown key; did you mean 'exact'"),
        ('kinds = ["domain"]\nexact = "{name}"', "missing the key"),
        (PLAIN + 'exact = "{nam}"', "exact: has no {name}"),
        (PLAIN + 'exact = "{name} {class}"', "unknown placeholder {class}"),
        (PLAIN + 'exact = "{name}\\n"', "exact: must be printable"),
        (PLAIN + 'exact = "{name}\\u0000"', "exact: must be printable"),
        (PLAIN, "neither 'code' nor a line"),
        (PLAIN + 'code = "rpz"\nexact = "{name}"', "written in code has no lines"),
        (PLAIN + 'exact = "{name}"\nname = "x"', "name: is not a key here"),
        (PLAIN + 'exact = "{name}"\nheader = "{% if %}"', "header: "),
        (PLAIN + 'exact = "{name}"\ncheck = ["true", "{path}"]', "check: unknown placeholder {path}"),
        (PLAIN + 'exact = "{name}"\nwrapper = "x"', "wrapper: is not used"),
        (PLAIN + 'exact = "{name}"\nunwritable = "("', "unwritable: does not compile"),
        (
            PLAIN + 'exact = "{name}"\n[options.x]\ntype = "text"\ndefault = "a b"',
            "options.x: can't be 'a b'",
        ),
        (PLAIN + 'exact = "{name}"\n[options.x]\ntype = "integer"\ndefault = true', "must be a whole number"),
        (PLAIN.replace("domain", "domains") + 'exact = "{name}"', "domains"),
    ],
)
def test_a_mistake_in_a_descriptor_is_named_with_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        describe(tmp_path, text)
    assert message in str(caught.value) and "mine.toml" in str(caught.value)


def test_a_line_is_made_of_words_options_and_pairs(tmp_path: Path) -> None:
    fmt = describe(
        tmp_path,
        'title = "Mine"\nkinds = ["domain", "ipv4", "ipv6", "url"]\n'
        'exact = "{name} {regex} {tag}"\nbelow = "*.{name}"\n'
        'allow_exact = "!{name}"\nallow_below = "!*.{name}"\nnetwork4 = "{address} {mask} {range}"\n'
        'network6 = "{cidr} {length}"\naddress = "host {groups}"\nurl = "{regex}"\nunwritable = "^!long"\n'
        '[options.tag]\ntype = "text"\ndefault = "t"\n',
    )
    out = io.BytesIO()
    listed = entries(block=["evil.example", "long.example"], exact_allow=["evil.example", "longer.long.example"])
    found = select(
        listed, [("192.0.2.0/30", "both"), ("192.0.2.9", "both"), ("2001:db8::/32", "both"), ("2001:db9::1", "both")]
    )
    found = Selection(found.domains, found.between, found.networks, pl.DataFrame({"url": ["//a.example/b?c"]}))
    account = render(fmt, found, {"tag": "x"}, out)
    assert out.getvalue().decode().splitlines() == [
        "*.evil.example",
        "!evil.example",
        "host 192.0.2.9",
        "192.0.2.0 255.255.255.252 192.0.2.0-192.0.2.3",
        "host 2001:0db9:0000:0000:0000:0000:0000:0001",
        "2001:db8::/32 32",
        r"a\.example/b\?c",
    ]
    # The allow that can't be written takes the block above it along: nothing that is allowed is blocked.
    assert account.lost == {"narrowed": 1, "unwritable": 1}


def test_a_file_too_large_for_the_target_is_refused() -> None:
    import msgspec

    small = msgspec.structs.replace(FORMATS["domains"], max_bytes=5)
    with pytest.raises(ReleaseError, match="10 bytes are more than the 5"):
        render(small, select(entries(exact=["a.example"])), {}, io.BytesIO())


def test_the_parquet_file_reads_back_and_misp_and_stix_are_json() -> None:
    rows = every_meaning(FORMATS["parquet"])[0]
    data = rendered("parquet", rows)[0]
    assert pl.read_parquet(io.BytesIO(data))["indicator"].to_list() == rows.rows["indicator"].to_list()
    assert data == rendered("parquet", rows)[0]
    event = json.loads(rendered("misp", rows)[0])["Event"]
    assert {a["type"] for a in event["Attribute"]} == {"domain", "hostname", "ip-dst", "url"}
    bundle = json.loads(rendered("stix", rows)[0])
    ids = [thing["id"] for thing in bundle["objects"]]
    assert len(ids) == len(set(ids)) == len(event["Attribute"]) + 1
    assert json.loads(rendered("stix", Selection())[0])["objects"][0]["type"] == "identity"


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_format_says_how_it_is_loaded_and_what_decides_it(name: str) -> None:
    fmt = FORMATS[name]
    assert fmt.group != "own" and fmt.load and all(page.startswith(("https://", "http://")) for page in fmt.document)
    assert fmt.document


def test_a_frame_cannot_leave_its_sandbox_or_write_what_is_not_ascii(tmp_path: Path) -> None:
    for header in ("{{ ''.__class__.__mro__ }}", "{{ nothing }}", "\\u00e9", "{{ 1 / 0 }}"):
        fmt = describe(tmp_path, PLAIN + f'exact = "{{name}}"\nheader = "{header}"')
        with pytest.raises(ConfigError, match="mine: header"):
            render(fmt, select({}), {}, io.BytesIO())


def test_the_names_of_the_package_are_taken(tmp_path: Path) -> None:
    (tmp_path / "squid.toml").write_text(PLAIN + 'exact = "{name}"')
    with pytest.raises(ConfigError, match="'squid' is a format of the package"):
        descriptor.catalogue(tmp_path)
    (tmp_path / "squid.toml").rename(tmp_path / "my-squid.toml")
    assert "my-squid" in descriptor.catalogue(tmp_path)


PIECES = [
    *("{{ options.list }}", "{{ options.none }}", "{{ options.gone }}", "{{ options.items }}", "{{ serial }}"),
    *("{% if options.list %}\n", "{% if options.none %}\n", "{% else %}\n", "{% endif %}\n", "{% endif %}"),
    *("\n", "\r\n", " ", "{", "}", "{{", "{#", "%}", "text", "{# a comment #}", "{{ 1 + serial }}", "{{serial}}"),
]


@settings(max_examples=1_000)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map("".join))
def test_a_frame_says_without_jinja_what_jinja_makes_of_it(source: str) -> None:
    values = {"serial": 7, "options": {"list": "bad", "none": ""}}
    try:
        said = frame._render(source, values, "here")
    except ConfigError as error:
        with pytest.raises(ConfigError) as refused:
            frame.fill(source, values, "here")
        assert refused.value.message == error.message
    else:
        assert frame.fill(source, values, "here") == (said if said.endswith("\n") or not said else said + "\n")


def test_frames_of_the_package_need_no_jinja() -> None:
    assert any("{{" in fmt.header for fmt in FORMATS.values())
    assert [n for n, fmt in FORMATS.items() if not frame.is_plain(fmt.header + fmt.footer)] == ["envoy"]
