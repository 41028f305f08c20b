"""The catalogue of feeds: every descriptor loads, says where its facts come from, and stands there once."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from blocklist.catalog import Feed, decode_feed
from blocklist.decode import Problems

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "feeds").glob("*.toml"))
REQUIRED = ("title", "publisher", "homepage", "url", "format", "kinds", "category", "min_interval")
FACTS = ("licence", "commercial_use", "contact", "enabled", "source")


def feed(path: Path) -> Feed:
    problems = Problems()
    found = decode_feed(path.stem, f"feeds/{path.name}", tomllib.loads(path.read_text("utf-8")), problems)
    assert problems.lines == []
    assert found is not None
    return found


FEEDS = [feed(path) for path in FILES]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_descriptor_states_every_fact(path: Path) -> None:
    table = tomllib.loads(path.read_text("utf-8"))
    assert [key for key in (*REQUIRED, *FACTS) if key not in table] == []
    known = feed(path)
    assert known.is_reference or "confidence" in table
    assert known.title and known.publisher and known.source and known.licence and known.kinds
    assert re.fullmatch(r"[a-z0-9]+(?:-[a-z0-9]+)*", known.id)
    assert known.homepage.startswith("https://")
    assert all(re.fullmatch(r"https://[^\s?@]+", url) for url in (*known.urls, *known.mirrors))
    assert known.commercial_use in ("yes", "no", "unknown")
    if known.licence == "unknown":
        assert known.commercial_use == "unknown", "nobody can know that without the licence"


def test_no_url_is_in_the_catalogue_twice() -> None:
    urls = Counter(url for known in FEEDS for url in (*known.urls, *known.mirrors, *known.past_urls))
    assert [url for url, times in urls.items() if times > 1] == []


def test_a_retired_feed_names_a_successor_that_exists() -> None:
    ids = {known.id for known in FEEDS}
    assert {known.successor for known in FEEDS if known.successor} <= ids


def test_the_starter_set_is_free_guarded_and_contested_by_nobody() -> None:
    starter = [known for known in FEEDS if known.enabled]
    assert any(known.is_reference for known in starter), "guards must not be empty"
    assert not [f.id for f in starter if f.category in ("disinformation", "sanctioned-media", "anonymizer")]
    blocking = [known for known in starter if not known.is_reference]
    assert [f.id for f in blocking if f.licence == "unknown" or f.commercial_use == "no"] == []
    assert {kind for known in blocking for kind in known.kinds} >= {"domain", "ipv4", "ipv6"}


def test_the_page_of_feeds_is_fresh() -> None:
    script = ROOT / "scripts" / "feeds_page.py"
    page = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True).stdout
    assert (ROOT / "docs" / "feeds.md").read_text("utf-8") == page, "run 'make docs'"
