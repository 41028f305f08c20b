"""What a target can't say: `why` tells of every entry that a file leaves out, and of no other."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from installation import World as Installation
from worlds import ADDRESSES, FORMATS, NAMES, NETWORKS, QUERIES, URLS, Line, Settled, Word, World, settled, worlds

from blocklist.catalog import Feed
from blocklist.config import Export, Policy
from blocklist.match import match
from blocklist.match_read import read
from blocklist.publish.descriptor import Format
from blocklist.publish.render import render
from blocklist.suffixes import builtin_rules

SLOW = settings(max_examples=30, phases=[Phase.generate], deadline=None, suppress_health_check=list(HealthCheck))
MALWARE = Feed(id="malware", title="Tests", url="file:list", category="malware", confidence=90)
# A name has 52 characters in front of it: here the longest name fits, and not with its wildcard.
ORIGIN = ".".join(["x" * 49] * 3 + ["x" * 50])
LONG = "a" * 37
NAMES_HERE, ASKED = ([n.replace("a.evil", f"{LONG}.evil") for n in names] for names in (NAMES, QUERIES))
ASKED_BELOW = ["evil.example", "z.evil.example", "a.evil.example", "z.a.evil.example", "b.a.evil.example"]
NARROW = {
    "dns": Export(name="dns", format="rpz", path="dns.out", options={"origin": ORIGIN, "version": "none"}),
    "few": Export(name="few", format="few-labels", path="few.out"),
    "map": Export(name="map", format="haproxy", path="map.out"),
    "wide": Export(name="wide", format="no-evil-wide", path="wide.out"),
    "blunt": Export(name="blunt", format="no-evil-blunt", path="blunt.out"),
    "plain": Export(name="plain", format="no-evil-plain", path="plain.out"),
}
ALONE = {
    "data": Export(name="data", format="suricata-ip", path="data.out"),
    "in": Export(name="in", format="suricata-ip", path="in.out", options={"direction": "inbound"}),
    "four": Export(name="four", format="sophos-ip", path="four.out"),
}
NO_Y = Format(name="no-y", title="URLs", kinds=["url"], url="http://{name}", unwritable="/y")
# Exceptions, and a limit of labels that these small names reach: three in a line.
FEW = Format(
    name="few-labels",
    title="Few labels",
    kinds=["domain"],
    exact="{name} block",
    below=".{name} block",
    allow_exact="{name} pass",
    allow_below=".{name} pass",
    unwritable=r"^\.?([^.\s]+\.){3}",
    fold=True,
)
# A name may be lost and those below it stay: subtrees alone, subtrees with exceptions, both scopes without them.
_SHORT: dict[str, Any] = {
    "title": "No evil",
    "kinds": ["domain"],
    "unwritable": r"^\.?evil\.",
    "fold": True,
    "suffix": "{name} block\n.{name} block",
}
NO_EVIL = [
    Format(name="no-evil-blunt", **_SHORT),
    Format(name="no-evil-wide", **_SHORT, allow_suffix="{name} pass\n.{name} pass"),
    Format(name="no-evil-plain", **_SHORT, exact="{name} block"),
]


@pytest.fixture(autouse=True)
def formats(monkeypatch: pytest.MonkeyPatch) -> None:
    for fmt in NO_EVIL:
        monkeypatch.setitem(FORMATS, fmt.name, fmt)
    monkeypatch.setitem(FORMATS, "few-labels", FEW)
    monkeypatch.setitem(FORMATS, "no-y", NO_Y)


def written(here: Settled, export: str) -> str:
    """The file of `export`, without its frame."""
    chosen = here.config.exports[export]
    out = io.BytesIO()
    render(FORMATS[chosen.format], here.selection(export), {**chosen.options, "serial": 1}, out)
    lines = out.getvalue().decode("ascii").splitlines()
    return "\n".join(line for line in lines if line and line[0] not in "#;$@")


def blocked_by_match(here: Settled, asked: list[str], folder: Path) -> dict[str, set[str]]:
    """What `match` says that each export blocks, of things as a log asks for them."""
    log = folder / "log"
    log.write_text("".join(f"{thing}\n" for thing in asked))
    done = match(here.config, here.record, FORMATS, builtin_rules(), read([str(log)], "lines"))
    things = [row["url"] or row["host"] for row in done.asked.things.iter_rows(named=True)]
    return {hits.name: {things[i] for i in hits.frame["thing"]} for hits in (*done.exports, *done.shadowed)}


def blocked_names(text: str, asked: Sequence[str] = ASKED) -> set[str]:
    """The queries that a file of these formats blocks: the longest key that is there decides."""
    said: dict[str, bool] = {}
    for line in text.splitlines():
        owner, *_, action = line.split()
        said[owner.replace("*.", ".", 1)] = action in ("block", ".")
    found = set()
    for query in asked:
        above = [query.split(".", i)[-1] for i in range(1, query.count(".") + 1)]
        if next((said[key] for key in (query, *(f".{name}" for name in above)) if key in said), False):
            found.add(query)
    return found


@SLOW
@given(worlds(NAMES_HERE, [*NAMES_HERE, "example", "z.evil.example"]))
def test_why_says_of_every_name_what_the_written_file_does(world: World) -> None:
    with settled(world, NARROW) as here, here.audit() as audit:
        answers = {q: {e.name: e for e in audit.why(q, lines=False).exports} for q in ASKED}
        matched = blocked_by_match(here, ASKED, here.config.state)
        for export in NARROW:
            told = {q for q, answer in answers.items() if answer[export].blocked}
            assert told == blocked_names(written(here, export)), (export, written(here, export))
            assert matched[export] == told, export
            # Whatever is left out, no name is blocked that the decisions let pass, but below one that was said wider.
            if FORMATS[NARROW[export].format].takes_exact:
                assert told <= {q for q in ASKED if world.blocks(q)}, export


@SLOW
@given(worlds(NETWORKS, NETWORKS))
def test_why_says_of_every_address_what_a_target_of_single_addresses_does(world: World) -> None:
    world = replace(world, policy=_of_kinds(world.policy))
    with settled(world, ALONE) as here, here.audit() as audit:
        answers = {a: {e.name: e.blocked for e in audit.why(a, lines=False).exports} for a in ADDRESSES[::3]}
        matched = blocked_by_match(here, list(answers), here.config.state)
        for export in ALONE:
            there = set(written(here, export).split())
            assert {a for a in answers if answers[a][export]} == there & set(answers), export
            assert matched[export] == there & set(answers), export
            directions = ("inbound", "both") if export == "in" else ("inbound", "outbound", "both")
            assert all(world.blocks_address(a, directions) for a in there)


@SLOW
@given(worlds([*URLS, "//evil.co.uk/y/z"], [*URLS, "a.evil.example", "192.0.2.8/30"]))
def test_why_says_of_every_url_what_the_written_file_does(world: World) -> None:
    world = replace(world, policy=_of_kinds(world.policy))
    exports = {"urls": Export(name="urls", format="no-y", path="urls.out")}
    with settled(world, exports) as here, here.audit() as audit:
        there = {line.removeprefix("http:") for line in written(here, "urls").split()}
        asked = [*URLS, "//evil.co.uk/y/z"]
        assert {u for u in asked if audit.why(u, lines=False).exports[0].blocked} == there
        asked = [f"http:{u}" for u in asked]
        assert blocked_by_match(here, asked, here.config.state)["urls"] == there


def _of_kinds(policy: Policy) -> Policy:
    return Policy(**{k: getattr(policy, k) for k in policy.__struct_fields__} | {"kinds": ["ipv4", "ipv6", "url"]})


@contextmanager
def one(world: World, fmt: str, **options: object) -> Iterator[tuple[Settled, dict[str, tuple[bool, str]]]]:
    """A world with one export, and what `why` says there of whatever is looked up."""
    exports = {"x": Export(name="x", format=fmt, path="x.out", options=dict(options))}
    with settled(world, exports) as here, here.audit() as audit:

        class Said(dict[str, tuple[bool, str]]):
            def __missing__(self, query: str) -> tuple[bool, str]:
                said = audit.why(query, lines=False).exports[0]
                return said.blocked, said.because

        yield here, Said()


def test_a_network_that_the_target_can_not_hold_is_told() -> None:
    lines = [Line(0, "192.0.2.0/28"), Line(0, "192.0.2.4"), Line(0, "192.0.2.5"), Line(0, "198.51.100.0/24")]
    with one(World([MALWARE], lines, [Word("deny", "203.0.113.0/24")]), "sophos-ip") as (here, said):
        # Two neighbours are not one network that can't be said.
        assert written(here, "x").split() == ["192.0.2.4", "192.0.2.5"]
        assert said["192.0.2.4"] == (True, "it is listed")
        only = "but sophos-ip takes single addresses only"
        assert said["192.0.2.6"] == (False, f"192.0.2.0/28 is listed, {only}")
        assert said["192.0.2.0/28"] == (False, f"it is listed, {only}")
        assert said["203.0.113.9"] == (False, f"denied by rule 1 for 203.0.113.0/24 (ana: tests), {only}")
        lost = here.selector.selection(here.config.exports["x"], FORMATS["sophos-ip"])[1]
        assert lost["network"] == 3


def test_a_denied_address_stands_and_an_allowed_one_does_not_where_networks_can_not_be_said() -> None:
    lines = [Line(0, "192.0.2.4"), Line(0, "192.0.2.5"), Line(0, "192.0.2.16/28")]
    words = [Word("allow", "192.0.2.4/31"), Word("deny", "192.0.2.4"), Word("deny", "192.0.2.17")]
    with one(World([MALWARE], lines, words), "suricata-ip") as (here, said):
        assert written(here, "x").split() == ["192.0.2.4", "192.0.2.17"]
        assert said["192.0.2.4"][0] and said["192.0.2.17"][0] and not said["192.0.2.5"][0]


@pytest.mark.parametrize(
    ("fmt", "url"),
    [
        ("fortigate-url", "//evil.example/a*b"),
        ("cloudflare-url", "//evil.example/a,b"),
        ("checkpoint", "//evil.example/a,b"),
        ("paloalto-url", "//evil.example:8080/x"),
        ("zscaler", "//_x.example/x"),
        ("squid-url", "//evil.example/%C3%BC"),
    ],
)
def test_a_url_that_the_target_would_read_as_something_else_is_told(fmt: str, url: str) -> None:
    with one(World([MALWARE], [Line(0, url), Line(0, "//evil.example/fine")]), fmt) as (here, said):
        assert url.removeprefix("//") not in written(here, "x")
        why = f"it is listed, but it can't be written: {fmt} would read the line as something else"
        blocked, because = said[url]
        assert not blocked and because.startswith(why)
        assert said["//evil.example/fine"] == (True, "it is listed")


@pytest.mark.parametrize("fmt", ["stix", "misp", "squid-url"])
def test_a_url_with_a_quote_is_told_where_it_is_left_out(fmt: str) -> None:
    url = "//evil.example/it's"
    with one(World([MALWARE], [Line(0, url), Line(0, "//evil.example/fine")]), fmt) as (here, said):
        assert "it's" not in written(here, "x") and "fine" in written(here, "x")
        blocked, because = said[url]
        assert not blocked and because.startswith("it is listed, but it can't be written")
        assert said["//evil.example/fine"][0]


def test_an_allow_that_has_no_room_in_the_zone_takes_the_block_above_it_along() -> None:
    free = f"{'a' * 60}.{'b' * 60}.evil.example"
    lines = [Line(0, "evil.example"), Line(0, "www.evil.example"), Line(0, "bad.example")]
    origin = ".".join(["x" * 60] * 2)
    with one(World([MALWARE], lines, [Word("allow", free)]), "rpz", origin=origin, version="none") as (here, said):
        assert re.findall(r"^\S+", written(here, "x"), re.MULTILINE) == ["bad.example", "*.bad.example"]
        why = f"evil.example and all below it is not blocked here, as rule 1 allows {free}, "
        why += "which is too long for the zone"
        assert said["evil.example"] == said["x.evil.example"] == said["www.evil.example"] == (False, why)
        assert said[free] == (False, f"{free} is too long for the zone")
        assert said["bad.example"] == (True, "it is listed")


def test_a_block_that_is_taken_along_is_not_said_again_between_others() -> None:
    """A zone says again what holds at mid.evil.example, since ok.mid.evil.example makes that name exist."""
    free = f"{'a' * 60}.{'b' * 60}.evil.example"
    words = [Word("allow", free), Word("allow", "ok.mid.evil.example")]
    origin = ".".join(["x" * 60] * 2)
    world = World([MALWARE], [Line(0, "evil.example"), Line(0, "mid.evil.example")], words)
    with one(world, "rpz", origin=origin, version="none") as (here, said):
        assert "CNAME .\n" not in written(here, "x") + "\n"
        for name in ("evil.example", "mid.evil.example", "x.mid.evil.example", "ok.mid.evil.example"):
            assert not said[name][0], name


def test_an_allow_with_too_many_labels_takes_the_block_above_it_along() -> None:
    deep = "a.b.c.d.e.f.g.h.i.j.evil.example"
    world = World([MALWARE], [Line(0, "evil.example"), Line(0, "b.example")], [Word("allow", deep)])
    with one(world, "haproxy") as (here, said):
        assert written(here, "x").splitlines() == ["b.example block", ".b.example block"]
        assert f"as rule 1 allows {deep}, which can't be written" in said["evil.example"][1]
        assert said["b.example"][0]


@pytest.mark.parametrize("words", [[], [Word("allow", "ok.evil.example")]])
def test_what_a_lost_entry_would_have_covered_is_told(words: list[Word]) -> None:
    """A name alone covers what is below it where a target knows subtrees alone, unless an allow inside keeps it out."""
    lines = [Line(0, "evil.example"), Line(0, "a.evil.example"), Line(0, "b.a.evil.example")]
    world = World([MALWARE], lines, words, policy=Policy(widen=False))
    with settled(world, NARROW) as here, here.audit() as audit:
        for export in ("blunt", "wide", "plain"):
            answers = {q: next(e for e in audit.why(q).exports if e.name == export) for q in ASKED_BELOW}
            told = {q for q, answer in answers.items() if answer.blocked}
            assert told == blocked_names(written(here, export), ASKED_BELOW), export
            stays = export == "plain" or (words and export == "blunt")
            assert ("a.evil.example" in told) == bool(stays), export
            if not stays:
                assert answers["a.evil.example"].because.startswith("evil.example can't be written"), export


def test_the_count_of_what_is_lost_stands_beside_the_release(tmp_path: Path) -> None:
    here = Installation(tmp_path)
    here.feed("nets", ["192.0.2.0/28", "192.0.2.4", "192.0.2.5", "198.51.100.7"])
    here.export("fw", "sophos-ip")
    ran = here.update()
    assert ran.export("fw")["lost"] == {"network": 1}
    assert here.exported("fw")[-3:] == ["192.0.2.4", "192.0.2.5", "198.51.100.7"]


def test_addresses_that_stand_alone_do_so_in_the_file_of_their_category(tmp_path: Path) -> None:
    here = Installation(tmp_path)
    here.feed("nets", ["192.0.2.4", "192.0.2.5"])
    here.feed("scans", ["192.0.2.6", "192.0.2.7", "192.0.2.128/25"], category="attack-source")
    here.export("fw", "sophos-ip", split="category")
    assert here.update().export("fw")["lost"] == {"network": 1}
    files = {path.name: path.read_text().split() for path in (tmp_path / "exports").iterdir()}
    assert [line for line in files["fw-malware"] if line[0] == "1"] == ["192.0.2.4", "192.0.2.5"]
    assert [line for line in files["fw-attack-source"] if line[0] == "1"] == ["192.0.2.6", "192.0.2.7"]


def test_a_name_alone_below_an_allow_that_is_in_no_file_needs_no_room_for_a_wildcard(tmp_path: Path) -> None:
    installed = Installation(tmp_path)
    path = installed.export("dns", "rpz", options={"origin": "rpz.example"})
    # 241 characters fit, and two more would be its wildcard's.
    name = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 40, "example"])
    assert len(name) == 240
    installed.feed("alpha", ["other.test"])
    for words in (("allow", "add", "example"), ("deny", "add", "--exact", name)):
        assert installed.run(*words, "--reason", "a test").code == 0
    assert installed.update("--no-verify").code == 0
    assert f"{name} CNAME ." in path.read_text()
    assert installed.why(name)["blocked"]
