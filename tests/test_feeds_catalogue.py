"""The catalogue of feeds: every descriptor loads, says where its facts come from, and stands there once."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from blocklist.catalog import CATEGORIES, ESSENTIAL, SETS_FILE, Catalog, Feed, decode_feed
from blocklist.decode import Problems
from blocklist.ingest.parse import parse
from blocklist.quantities import parse_duration
from blocklist.sets import STARTER, consequences, expand, sets_of
from blocklist.suffixes import builtin_rules

ROOT = Path(__file__).parent.parent
FILES = sorted(path for path in (ROOT / "feeds").glob("*.toml") if path.name != SETS_FILE)
REQUIRED = ("title", "publisher", "homepage", "url", "format", "kinds", "category", "update", "min_interval")
FACTS = ("licence", "commercial_use", "contact", "enabled", "source")


def feed(path: Path) -> Feed:
    problems = Problems()
    found = decode_feed(path.stem, f"feeds/{path.name}", tomllib.loads(path.read_text("utf-8")), problems)
    assert problems.lines == []
    assert found is not None
    return found


FEEDS = [feed(path) for path in FILES]
CATALOG = Catalog({known.id: known for known in FEEDS})
FETCHED = [known for known in FEEDS if known.id != ESSENTIAL]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_descriptor_states_every_fact(path: Path) -> None:
    table = tomllib.loads(path.read_text("utf-8"))
    assert [key for key in (*REQUIRED, *FACTS) if key not in table] == []
    known = feed(path)
    assert known.is_reference or "confidence" in table
    assert known.is_reference or not {"ipv4", "ipv6"} & set(known.kinds) or "direction" in table
    assert known.title and known.publisher and known.source and known.licence and known.kinds
    assert re.fullmatch(r"[a-z0-9]+(?:-[a-z0-9]+)*", known.id)
    assert known.category in CATEGORIES
    assert known.id == ESSENTIAL or known.homepage.startswith("https://"), "also where no contact is known"
    assert known.contact == "" or re.fullmatch(r"https://\S+|[^\s@]+@[^\s@]+", known.contact)
    assert parse_duration(known.min_interval) <= parse_duration(known.update) or known.id == "dan-tor-exit"
    assert known.commercial_use in ("yes", "no", "unknown")
    if known.licence == "unknown":
        assert known.commercial_use == "unknown", "nobody can know that without the licence"


@pytest.mark.parametrize("known", FETCHED, ids=lambda known: known.id)
def test_a_url_is_encrypted_and_holds_no_secret(known: Feed) -> None:
    for url in (*known.urls, *known.mirrors):
        assert re.fullmatch(r"https://[^\s@]+", url) and not re.search(r"[?&][^=]*(key|token)=", url)


def test_the_catalogue_is_as_large_as_it_says() -> None:
    references = [known for known in FEEDS if known.is_reference]
    assert len(FEEDS) - len(references) >= 65 and len(references) >= 14
    listed = f"A catalogue of {len(FEEDS) - len(references)} feeds and {len(references)} reference feeds"
    assert listed in (ROOT / "CHANGELOG.md").read_text("utf-8")
    covered = {known.category for known in FEEDS}
    # Sanctioned media are for files of the operator's: no public list of them is kept by an authority.
    assert set(CATEGORIES) - covered <= {"sanctioned-media", "advertising", "tracking", "other"}


def test_a_family_is_no_typing_error() -> None:
    sizes = Counter(known.family for known in FEEDS if known.family)
    assert [family for family, size in sizes.items() if size < 2] == []


def test_no_url_is_in_the_catalogue_twice() -> None:
    urls = Counter(url for known in FEEDS for url in (*known.urls, *known.mirrors, *known.past_urls))
    assert [url for url, times in urls.items() if times > 1] == []


def test_a_retired_feed_names_a_successor_that_exists() -> None:
    ids = {known.id for known in FEEDS}
    assert {known.successor for known in FEEDS if known.successor} <= ids
    assert [known.id for known in FEEDS if known.successor and known.status != "discontinued"] == []
    assert [known.id for known in FEEDS if known.status == "discontinued" and known.enabled] == []


def test_a_set_names_feeds_that_exist_are_alive_and_need_no_key() -> None:
    for name, found in sets_of(CATALOG).items():
        assert found.title and found.feeds, name
        assert [i for i in found.feeds if i not in CATALOG] == [], name
        assert len(set(found.feeds)) == len(found.feeds), name
        assert [i for i in found.feeds if CATALOG[i].status != "active" or CATALOG[i].auth] == [], name
        kinds = {CATALOG[i].is_reference for i in found.feeds}
        assert name == STARTER or len(kinds) == 1, f"{name} mixes references with what is blocked"


def test_a_set_is_expanded_once_and_its_name_checked() -> None:
    problems = Problems()
    wanted = expand(["c2", "set:c2", "set:atack", "sslbl", "set:c2"], CATALOG, CATALOG, "feeds.enable", problems)
    assert wanted == list(sets_of(CATALOG)["c2"].feeds)
    assert problems.lines == [
        "feeds.enable: 'c2' is a set; write 'set:c2'",
        "feeds.enable: unknown set 'atack'; did you mean 'attack'?",
    ]


def test_the_consequences_of_licences_are_counted() -> None:
    def of(name: str, licence: str, commercial_use: str) -> Feed:
        url = "https://list.example/"
        return Feed(id=name, title="t", url=url, category="malware", licence=licence, commercial_use=commercial_use)

    feeds = [
        of("free", "CC0-1.0", "yes"),
        of("nc", "CC-BY-NC-SA-4.0", "no"),
        of("gpl", "GPL-3.0", "yes"),
        of("mute", "unknown", "unknown"),
        of("own", "own terms", "unknown"),
    ]
    assert consequences(feeds) == [
        "1 of 5 forbids commercial use: nc",
        "1 of 5 has no licence on record: ask the publisher before you pass entries on: mute",
        "1 of 5 has special terms: read them before you pass entries on: own",
        "2 of 5 bind what is made of it to the same licence: nc, gpl",
        "1 of 5 asks for the author's name: nc",
    ]
    assert consequences(feeds[:1]) == []


def test_every_line_of_the_essential_list_is_read_and_none_is_a_suffix() -> None:
    known = CATALOG[ESSENTIAL]
    text = (ROOT / "feeds" / "essential.txt").read_bytes()
    read = parse(text, known)
    lines = [line for line in text.decode("utf-8").splitlines() if line and not line.startswith("#")]
    assert sum(read.rejects.values()) == 0 and read.frame.height == len(lines) == len(set(lines))
    names = read.frame.filter(read.frame["name"].is_in(lines) & ~read.frame["name"].str.contains(r":|^[0-9.]+$"))
    assert names["name"].filter(builtin_rules().columns(names["name"])["suffix"]).to_list() == []
    assert read.kinds["domain"] > 500 and read.kinds["ipv4"] > 20 and read.kinds["ipv6"] > 20


def test_every_group_of_the_essential_list_names_its_source() -> None:
    groups = (ROOT / "feeds" / "essential.txt").read_text("utf-8").strip().split("\n\n")[1:]
    assert len(groups) > 20
    for group in groups:
        comment = " ".join(line for line in group.splitlines() if line.startswith("#"))
        assert "—" in comment and len(comment.partition("—")[2]) > 10, comment


def test_the_starter_set_is_free_guarded_and_contested_by_nobody() -> None:
    starter = [known for known in FEEDS if known.enabled]
    assert any(known.is_reference for known in starter if known.id != ESSENTIAL), "guards must not be thin"
    assert not [f.id for f in starter if f.category in ("disinformation", "sanctioned-media", "anonymizer")]
    blocking = [known for known in starter if not known.is_reference]
    assert [f.id for f in blocking if f.licence == "unknown" or f.commercial_use == "no"] == []
    assert {kind for known in blocking for kind in known.kinds} >= {"domain", "ipv4", "ipv6"}


def test_the_page_of_feeds_is_fresh() -> None:
    script = ROOT / "scripts" / "feeds_page.py"
    page = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True).stdout
    assert (ROOT / "docs" / "feeds.md").read_text("utf-8") == page, "run 'make docs'"


def test_the_catalogue_reads_what_is_asked_for_and_says_the_same() -> None:
    whole, lazy = dict(CATALOG), Catalog({})
    assert lazy.starters() == [known.id for known in FEEDS if known.enabled] != []
    assert dict(lazy) == whole and len(lazy) == len(whole)
    assert "no-such-feed" not in lazy
    with pytest.raises(KeyError):
        lazy["no-such-feed"]


def test_no_feed_of_the_package_is_read_from_a_file_of_this_machine() -> None:
    # What one is read from no published file may replace, and nothing asks these.
    assert [known.id for known in FEEDS for url in (*known.urls, *known.mirrors) if url.startswith("file:")] == []
